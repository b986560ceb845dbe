//! The TCP frames on the link, as the far host sees them.

use std::collections::HashSet;

use anyhow::{Context, Result};

use crate::lab::{DEVICE, Lab};
use crate::probe::probe;
use crate::process::Running;

/// A running capture (`probes/sniff.c`).
pub struct Capture(Running);

/// One TCP frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Address and port of the sender.
    pub source: String,
    /// Address and port of the receiver.
    pub destination: String,
    /// Those of `F`, `S`, `R` and `A` that are set, in this order.
    pub flags: String,
    /// Sequence number.
    pub seq: u32,
}

impl Capture {
    /// Starts one; when it returns, no frame can pass unseen.
    ///
    /// # Errors
    /// When the device cannot be opened.
    pub fn start(lab: &Lab) -> Result<Self> {
        let sniff = lab.far.program(probe("sniff")).args([DEVICE]).start()?;
        sniff.wait_for_output("ready\n")?;
        Ok(Capture(sniff))
    }

    /// What has been seen so far.
    ///
    /// # Errors
    /// When a line is not one.
    pub fn frames(&self) -> Result<Vec<Frame>> {
        let text = self.0.stdout();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .skip(1)
            .map(|line| parse(line).with_context(|| line.to_owned()))
            .collect()
    }
}

fn parse(line: &str) -> Option<Frame> {
    let words: Vec<&str> = line.split(' ').collect();
    let [source, destination, flags, "seq", seq, ..] = words.as_slice() else {
        return None;
    };
    Some(Frame {
        source: (*source).to_owned(),
        destination: (*destination).to_owned(),
        flags: (*flags).to_owned(),
        seq: seq.parse().ok()?,
    })
}

/// The initial sequence numbers of the SYN-ACKs of each connection: two mean
/// that two stacks answered.
pub fn syn_acks(frames: &[Frame]) -> Vec<(String, String, usize)> {
    let answers = || frames.iter().filter(|frame| frame.flags == "SA");
    let connections: HashSet<_> = answers()
        .map(|frame| (frame.source.clone(), frame.destination.clone()))
        .collect();
    connections
        .into_iter()
        .map(|(source, destination)| {
            let of_this = answers().filter(|f| f.source == source && f.destination == destination);
            let count = of_this.map(|f| f.seq).collect::<HashSet<_>>().len();
            (source, destination, count)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_answers_to_one_syn_are_seen() {
        let line = "192.0.2.1:80 192.0.2.2:4000 SA seq 1 ack 2 len 0";
        let first = parse(line).unwrap();
        let other = Frame {
            seq: 9,
            ..first.clone()
        };
        assert_eq!(syn_acks(&[first.clone(), first.clone()])[0].2, 1);
        assert_eq!(syn_acks(&[first, other])[0].2, 2);
        assert!(parse("rubbish").is_none());
    }
}
