//! The three netcats of Debian, moving a file between the two hosts.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::counters::{Before, Carried};
use crate::lab::{FAR, Lab, NEAR};
use crate::library::{Stack, Stats};
use crate::patience::PATIENCE;
use crate::payload;
use crate::process::{Finished, Running};

const PORT: u16 = 7000;

/// Which netcat the near host runs. The far one is always OpenBSD's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Debian's netcat-openbsd.
    OpenBsd,
    /// Hobbit's, Debian's netcat-traditional.
    Traditional,
    /// Nmap's.
    Ncat,
}

/// What the near host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// It listens; otherwise it connects.
    pub listens: bool,
    /// It sends; otherwise it receives.
    pub sends: bool,
}

impl Part {
    /// All four.
    pub const ALL: [Part; 4] = [
        Part {
            listens: false,
            sends: true,
        },
        Part {
            listens: false,
            sends: false,
        },
        Part {
            listens: true,
            sends: true,
        },
        Part {
            listens: true,
            sends: false,
        },
    ];

    /// In words that fit a test's name.
    pub fn name(self) -> &'static str {
        match (self.listens, self.sends) {
            (false, true) => "client_sends",
            (false, false) => "client_receives",
            (true, true) => "server_sends",
            (true, false) => "server_receives",
        }
    }

    fn far(self) -> Part {
        Part {
            listens: !self.listens,
            sends: !self.sends,
        }
    }
}

impl Flavour {
    /// The program's name.
    pub fn program(self) -> &'static str {
        match self {
            Flavour::OpenBsd => "nc.openbsd",
            Flavour::Traditional => "nc.traditional",
            Flavour::Ncat => "ncat",
        }
    }

    /// Arguments that make it play `part` once, against `peer`, and end.
    fn args(self, part: Part, peer: &str) -> Vec<String> {
        let port = PORT.to_string();
        let once: &[&str] = match (self, part.sends) {
            (Flavour::OpenBsd, true) => &["-N"],
            (Flavour::OpenBsd, false) => &["-d"],
            (Flavour::Traditional, true) => &["-q", "0"],
            (Flavour::Traditional, false) => &[],
            (Flavour::Ncat, true) => &["--send-only"],
            (Flavour::Ncat, false) => &["--recv-only"],
        };
        let place: &[&str] = match (self, part.listens) {
            (Flavour::Traditional, true) => &["-l", "-p", &port],
            (_, true) => &["-4", "-l", &port],
            (_, false) => &[peer, &port],
        };
        [once, place]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }
}

/// A file that was moved.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its size, as bits per second from the start of the client to the end of
    /// the receiver.
    pub bits_per_second: f64,
    /// SHA-256 of what was sent; what arrived has been found the same.
    pub sha256: String,
    /// Who carried it.
    pub carried: Carried,
}

/// Moves `size` bytes with the near host playing `part` on `stack`.
///
/// # Errors
/// When a program fails or hangs, or what arrives differs from what was sent.
pub fn move_file(
    lab: &Lab,
    stack: &Stack,
    flavour: Flavour,
    part: Part,
    size: u64,
    cpus: Option<(usize, usize)>,
) -> Result<Outcome> {
    let transfer = Transfer {
        flavour,
        part,
        size,
        cpus,
        wrapper: &[],
    };
    Ok(transfer.run(lab, stack)?.0)
}

/// The same with a wrapper in front of the near program, which is given as well.
///
/// # Errors
/// As [`move_file`].
pub fn move_file_wrapped(
    lab: &Lab,
    stack: &Stack,
    flavour: Flavour,
    part: Part,
    size: u64,
    wrapper: &[&str],
) -> Result<(Outcome, Finished)> {
    let transfer = Transfer {
        flavour,
        part,
        size,
        cpus: None,
        wrapper,
    };
    transfer.run(lab, stack)
}

struct Transfer<'a> {
    flavour: Flavour,
    part: Part,
    size: u64,
    cpus: Option<(usize, usize)>,
    wrapper: &'a [&'a str],
}

impl Transfer<'_> {
    fn run(&self, lab: &Lab, stack: &Stack) -> Result<(Outcome, Finished)> {
        let &Transfer {
            flavour,
            part,
            size,
            cpus,
            wrapper,
        } = self;
        let (source, sink) = (lab.path("sent"), lab.path("arrived"));
        let stats = lab.path("nc-stats.json");
        let sent = payload::write(&source, size)?;
        // A slow and lossy link is given a second per 256 KiB.
        let patience = PATIENCE + Duration::from_secs(size / (256 * 1024));

        let mut near = lab
            .near
            .program(flavour.program())
            .args(flavour.args(part, FAR))
            .under(stack)
            .stats(&stats)
            .wrapped(wrapper.iter().copied())
            .patience(patience);
        let mut far = lab
            .far
            .program(Flavour::OpenBsd.program())
            .args(Flavour::OpenBsd.args(part.far(), NEAR))
            .patience(patience);
        if let Some((of_near, of_far)) = cpus {
            near = near.cpu(of_near);
            far = far.cpu(of_far);
        }
        if part.sends {
            near = near.stdin(&source);
            far = far.stdout(&sink);
        } else {
            near = near.stdout(&sink);
            far = far.stdin(&source);
        }

        let before = Before::of(lab)?;
        let (listener, connector, host) = if part.listens {
            (near, far, &lab.near)
        } else {
            (far, near, &lab.far)
        };
        let listener = listener.start()?;
        lab.wait_for_listener(host, PORT)?;
        let started = Instant::now();
        let connector = connector.start()?;
        let (first, last) = if part.listens == part.sends {
            (listener, connector)
        } else {
            (connector, listener)
        };
        // `last` receives: when it ends, all has arrived.
        let last = last.wait()?.success()?;
        let took = started.elapsed();
        let first = first.wait()?.success()?;

        let arrived = payload::sha256(&sink)?;
        ensure!(
            arrived == sent,
            "{} bytes of {size} arrived, and they differ: {arrived} for {sent}\n{first}\n{last}",
            std::fs::metadata(&sink)?.len()
        );
        let stats = stack
            .is_sidewire()
            .then(|| Stats::read(&stats))
            .transpose()?;
        let outcome = Outcome {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
            bits_per_second: size as f64 * 8.0 / took.as_secs_f64(),
            sha256: sent,
            carried: before.until_now(lab, stats)?,
        };
        let near = if part.sends { first } else { last };
        Ok((outcome, near))
    }
}

/// A netcat on the far host that listens on `port` and takes one connection's bytes
/// into a file.
///
/// # Errors
/// When it does not come to listen.
pub fn receiver(lab: &Lab, port: u16, sink: &Path) -> Result<Running> {
    let receiver = lab
        .far
        .program("nc.openbsd")
        .args(["-d", "-l", &port.to_string()])
        .stdout(sink)
        .start()?;
    lab.wait_for_listener(&lab.far, port)?;
    Ok(receiver)
}
