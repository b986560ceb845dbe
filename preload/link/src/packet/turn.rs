//! From recvmmsg to a ring, while frames come.
//!
//! To set up a ring takes the kernel an RCU grace period (Linux `packet_set_ring`), some 10 ms, in which the socket hears
//! nothing: too long for a program that exchanges a few segments and ends. So the first frames are received without a ring.
//! When there are more, a second socket gets one, beside the program's work, and takes the first one's place under its number;
//! the first one is the way out from then on.

use super::filter;
use super::ring::{RingConfig, RingSource};
use super::{PacketSource, UNUSED_PROTOCOL, bind_protocol, grow_rcvbuf, socket_beside};
use crate::Errno;
use crate::fd::Fd;
use crate::frame::RxFrame;
use crate::late_close::LateClose;
use crate::raw;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Frames that a source without a ring has taken before it asks for one.
pub(super) const TURN_AFTER: u32 = 64;
/// The newest frames of the first socket that are remembered.
const MAX_BOTH: usize = 256;
/// How long before and after the turn a frame that both sockets hear may have its time, in nanoseconds: it is stamped before
/// it is shown to them, and several CPUs show frames.
const MARGIN: u64 = 5_000_000;
/// Bytes of a frame by which it is known, beside its length: IP and TCP header with timestamps.
const KNOWN_BY: usize = 52;

/// What tells a frame from others. (Not its time: Linux `skb_clear_delivery_time` stamps it anew for each socket.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    len: u32,
    head: [u8; KNOWN_BY],
}

impl Known {
    fn of(frame: &RxFrame<'_>) -> Known {
        let mut head = [0; KNOWN_BY];
        let n = frame.bytes.len().min(KNOWN_BY);
        head[..n].copy_from_slice(&frame.bytes[..n]);
        Known {
            len: frame.meta.len,
            head,
        }
    }
}

/// The frames that came while both sockets heard: each has been taken from the first one.
#[derive(Debug, Default)]
pub(super) struct Both {
    /// When the second began to hear, and when the first one ceased, nanoseconds of CLOCK_REALTIME.
    from: u64,
    until: u64,
    /// The newest first.
    known: VecDeque<Known>,
}

impl Both {
    /// The first socket has a frame.
    pub(super) fn first(&mut self, frame: &RxFrame<'_>) {
        if frame.meta.stamp.is_some_and(|at| at + MARGIN >= self.from) {
            self.known.truncate(MAX_BOTH - 1);
            self.known.push_front(Known::of(frame));
        }
    }

    /// The second one has this; true when the first had it as well. None when no such frames come any more.
    pub(super) fn second(&self, frame: &RxFrame<'_>) -> Option<bool> {
        let late = |at| at > self.until + MARGIN;
        if self.known.is_empty() || frame.meta.stamp.is_none_or(late) {
            return None;
        }
        Some(self.known.contains(&Known::of(frame)))
    }
}

/// What is needed to turn a [`PacketSource`] into one with a ring.
#[derive(Debug)]
pub struct Turn {
    /// The first socket.
    pub(super) out: Arc<Fd>,
    /// The number that frames are received by.
    pub(super) rx: Arc<Fd>,
    pub(super) late: Arc<LateClose>,
    /// The second socket, where it has been opened already.
    pub(super) second: Mutex<Option<Fd>>,
}

/// A socket with a ring that hears nothing yet.
#[derive(Debug)]
pub struct Prepared {
    ring: RingSource,
    rcvbuf: i32,
}

impl Turn {
    /// Opens the second socket, if that can be done from the calling thread; else [`Turn::prepare`] does.
    pub fn open(&self) {
        if let Ok(fd) = socket_beside(&self.out) {
            *self.second.lock().unwrap_or_else(PoisonError::into_inner) = Some(fd);
        }
    }

    /// Makes the second socket. Takes a while.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; ENONET where the calling thread is in another network namespace; ENOMEM, EMFILE, ENOBUFS.
    pub fn prepare(&self) -> Result<Prepared, Errno> {
        let opened = self
            .second
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let fd = opened.map_or_else(|| socket_beside(&self.out), Ok)?;
        filter::attach(fd.as_raw_fd(), &filter::drop_all())?;
        let rcvbuf = grow_rcvbuf(fd.as_raw_fd())?;
        let config = RingConfig::for_rcvbuf(rcvbuf);
        let ring = RingSource::new(Arc::new(fd), config)?;
        Ok(Prepared { ring, rcvbuf })
    }

    /// Lets the second socket hear what `attach` lets through its filter, and the first one nothing more. What `source` gives
    /// until it is empty came before; then [`Turn::complete`] is to follow, under the same lock.
    ///
    /// # Errors
    /// What the kernel says to filters and bind; nothing has changed then.
    pub fn begin(
        &self,
        prepared: &Prepared,
        source: &mut PacketSource,
        attach: impl FnOnce(RawFd) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let PacketSource::Batch(batch) = source else {
            return Err(Errno::EALREADY);
        };
        let second = prepared.ring.fd().as_raw_fd();
        attach(second)?;
        let from = realtime_ns();
        bind_protocol(second, libc::ETH_P_IP as u16)?;
        if let Err(e) = filter::attach(self.rx.as_raw_fd(), &filter::drop_all()) {
            let _ = filter::attach(second, &filter::drop_all());
            return Err(e);
        }
        batch.expect_both(Both {
            from,
            until: realtime_ns(),
            known: VecDeque::new(),
        });
        Ok(())
    }

    /// The number means the second socket from now on, and `source` is its ring.
    ///
    /// # Errors
    /// EBADF, where RLIMIT_NOFILE has been lowered meanwhile, or nothing is prepared; nothing has changed then: the source goes
    /// on as it was, deaf.
    pub fn complete(
        &self,
        prepared: &mut Option<Prepared>,
        source: &mut PacketSource,
    ) -> Result<(), Errno> {
        let second = prepared.as_ref().ok_or(Errno::EBADF)?.ring.fd();
        raw::dup3(second.as_raw_fd(), self.rx.as_raw_fd())?;
        let Some(Prepared { mut ring, .. }) = prepared.take() else {
            return Err(Errno::EBADF);
        };
        let both = match source {
            PacketSource::Batch(batch) => batch.both(),
            _ => None,
        };
        // Not before: one that is not used after all must go at once, and its ring with it.
        self.late.hold(self.rx.as_raw_fd());
        ring.go_by(self.rx.clone(), both);
        *source = PacketSource::Ring(ring);
        Ok(())
    }

    /// The first socket is for sending only. Takes a while.
    pub fn settle(&self) {
        // Its filter lets nothing through: what is left to gain is that no frame asks it.
        let _ = bind_protocol(self.out.as_raw_fd(), UNUSED_PROTOCOL);
    }
}

impl Prepared {
    /// The receive buffer that was granted, as getsockopt tells it.
    pub fn rcvbuf(&self) -> i32 {
        self.rcvbuf
    }
}

fn realtime_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Checksum, Rest, RxMeta};

    fn frame(at: u64, bytes: &[u8]) -> RxFrame<'_> {
        RxFrame {
            meta: RxMeta {
                ifindex: 1,
                pkttype: 0,
                protocol: libc::ETH_P_IP as u16,
                len: bytes.len() as u32,
                gso_size: 0,
                csum: Checksum::Valid,
                stamp: Some(at),
            },
            bytes,
            rest: Rest::Here,
        }
    }

    #[test]
    fn what_both_sockets_heard_is_known() {
        let (from, until) = (1_000_000_000, 1_000_010_000);
        let mut both = Both {
            from,
            until,
            known: VecDeque::new(),
        };
        both.first(&frame(from - MARGIN - 1, b"long before"));
        assert_eq!(both.second(&frame(until, b"first")), None);
        both.first(&frame(until, b"both"));
        assert_eq!(both.second(&frame(until, b"both")), Some(true));
        assert_eq!(both.second(&frame(until, b"boom")), Some(false));
        // Each socket has its own time of it.
        assert_eq!(both.second(&frame(until + 800, b"both")), Some(true));
        assert_eq!(both.second(&frame(until + MARGIN + 1, b"both")), None);
        // The newest are kept.
        for n in 0..MAX_BOTH as u64 {
            both.first(&frame(until - n, b"more"));
        }
        assert_eq!(both.known.len(), MAX_BOTH);
        assert_eq!(both.second(&frame(until, b"both")), Some(false));
        assert_eq!(both.second(&frame(until, b"more")), Some(true));
    }
}
