//! Transmit timestamps on their way: the packet socket's error queue tells when a frame left, and the engine whose it was.

use std::collections::VecDeque;

use sidewire_engine::SocketId;
use sidewire_engine::net::TxTstamp;
use sidewire_engine::skb::TxFlags;
use sidewire_engine::tstamp::Stamp;
use sidewire_link::frame;
use sidewire_link::packet::tstamp::TxStamp;
use sidewire_uapi::errqueue::SCM_TSTAMP_SND;
use sidewire_uapi::timestamping as sof;

use crate::stack::{Inner, monotonic_ns};

/// Frames whose stamps are awaited; of more, the oldest get none.
const AWAITED_MAX: usize = 1024;
/// How long a stamp is awaited, in nanoseconds: a device that has said nothing by then is one that never does.
const PATIENCE: u64 = 1_000_000_000;

/// A frame whose stamps have not all come.
#[derive(Clone, Copy, Debug)]
struct Frame {
    key: u32,
    sock: SocketId,
    /// The stamp at handing over to the device is not the last one.
    more: bool,
    since: u64,
}

/// The frames, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    frames: VecDeque<Frame>,
    /// A frame was sent since the stamps were last read.
    fresh: bool,
}

/// A stamp, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) sock: SocketId,
    pub(crate) key: u32,
    pub(crate) tstype: u32,
    pub(crate) when: Stamp,
    pub(crate) last: bool,
}

/// What the link is asked for.
pub(crate) fn asked(t: &TxTstamp) -> frame::TxTstamp {
    let pairs = [
        (TxFlags::HW_TSTAMP, sof::SOF_TIMESTAMPING_TX_HARDWARE),
        (TxFlags::SW_TSTAMP, sof::SOF_TIMESTAMPING_TX_SOFTWARE),
        (TxFlags::SCHED_TSTAMP, sof::SOF_TIMESTAMPING_TX_SCHED),
        (
            TxFlags::COMPLETION_TSTAMP,
            sof::SOF_TIMESTAMPING_TX_COMPLETION,
        ),
    ];
    frame::TxTstamp {
        flags: pairs
            .into_iter()
            .filter(|(flag, _)| t.flags.contains(*flag))
            .fold(0, |all, (_, bit)| all | bit),
        key: t.tskey,
        swhw: t.swhw,
    }
}

impl Awaited {
    /// A frame was handed over.
    pub(crate) fn sent(&mut self, t: &TxTstamp) {
        self.fresh = true;
        if self.frames.len() == AWAITED_MAX {
            self.frames.pop_front();
        }
        let both = TxFlags::HW_TSTAMP | TxFlags::SW_TSTAMP;
        self.frames.push_back(Frame {
            key: t.tskey,
            sock: t.sock,
            more: t.flags.contains(TxFlags::COMPLETION_TSTAMP) || t.swhw && t.flags.contains(both),
            since: monotonic_ns(),
        });
    }

    /// Whose a stamp is; `None` when nobody waits for it any more.
    pub(crate) fn told(&mut self, stamp: &TxStamp) -> Option<Told> {
        let at = self.frames.iter().position(|f| f.key == stamp.key)?;
        let frame = self.frames[at];
        let last = stamp.tstype == SCM_TSTAMP_SND && !frame.more;
        if last {
            self.frames.remove(at);
        }
        Some(Told {
            sock: frame.sock,
            key: stamp.key,
            tstype: stamp.tstype,
            when: Stamp {
                software: stamp.software,
                hardware: stamp.hardware,
            },
            last,
        })
    }

    fn forget_old(&mut self) {
        let now = monotonic_ns();
        let old = |f: &mut Frame| now.saturating_sub(f.since) > PATIENCE;
        while self.frames.pop_front_if(old).is_some() {}
    }
}

impl Inner {
    /// Takes the stamps of frames that this thread has just sent: most devices have told by now.
    #[inline]
    pub(crate) fn tell_fresh_tstamps(&mut self) {
        if self.net.tstamps.fresh {
            self.tell_tstamps();
        }
    }

    /// Takes the stamps that are awaited: before acks, so that they keep their order.
    #[inline]
    pub(crate) fn tell_awaited_tstamps(&mut self) {
        if !self.net.tstamps.frames.is_empty() {
            self.tell_tstamps();
        }
    }

    /// Takes every stamp that has come.
    #[cold]
    pub(crate) fn tell_tstamps(&mut self) {
        self.net.tstamps.fresh = false;
        while let Some(t) = self.net.next_tstamp() {
            let (engine, mut io) = self.split();
            engine.tx_tstamp(&mut io, t.sock, t.key, t.tstype, t.when, t.last);
        }
        self.net.tstamps.forget_old();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(tstype: u32, software: u64, hardware: u64) -> TxStamp {
        TxStamp {
            key: 9,
            tstype,
            software,
            hardware,
        }
    }

    fn asks(flags: TxFlags, swhw: bool) -> TxTstamp {
        TxTstamp {
            flags,
            tskey: 9,
            sock: SocketId::default(),
            swhw,
        }
    }

    #[test]
    fn a_frame_waits_for_what_it_asked() {
        let mut awaited = Awaited::default();
        awaited.sent(&asks(TxFlags::SCHED_TSTAMP | TxFlags::SW_TSTAMP, false));
        assert!(!awaited.told(&stamp(1, 5, 0)).unwrap().last);
        assert!(awaited.told(&stamp(SCM_TSTAMP_SND, 6, 0)).unwrap().last);
        assert_eq!(awaited.told(&stamp(SCM_TSTAMP_SND, 7, 0)), None);

        let both = TxFlags::HW_TSTAMP | TxFlags::SW_TSTAMP;
        awaited.sent(&asks(both, true));
        let software = awaited.told(&stamp(SCM_TSTAMP_SND, 6, 0)).unwrap();
        let hardware = awaited.told(&stamp(SCM_TSTAMP_SND, 0, 8)).unwrap();
        assert_eq!((software.when.software, software.when.hardware), (6, 0));
        assert_eq!((hardware.when.software, hardware.when.hardware), (0, 8));
    }

    #[test]
    fn a_retransmission_is_told_after_the_first_copy() {
        let mut awaited = Awaited::default();
        let ask = asks(TxFlags::SW_TSTAMP, false);
        awaited.sent(&ask);
        awaited.sent(&ask);
        assert!(awaited.told(&stamp(SCM_TSTAMP_SND, 1, 0)).is_some());
        assert!(awaited.told(&stamp(SCM_TSTAMP_SND, 2, 0)).is_some());
        assert_eq!(awaited.told(&stamp(SCM_TSTAMP_SND, 3, 0)), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut awaited = Awaited::default();
        for _ in 0..=AWAITED_MAX {
            awaited.sent(&asks(TxFlags::SW_TSTAMP, false));
        }
        assert_eq!(awaited.frames.len(), AWAITED_MAX);
    }
}
