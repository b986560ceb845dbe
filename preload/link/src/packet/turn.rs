//! From recvmmsg to a ring, while frames come.
//!
//! To set up a ring takes the kernel an RCU grace period (Linux `packet_set_ring`), some 10 ms, in which the socket hears
//! nothing: too long for a program that exchanges a few segments and ends. So the first frames are received without a ring.
//! When there are more, a second socket gets one, beside the program's work, and takes the first one's place under its number;
//! the first one is the way out from then on. Where several connections are open by then, it is a group of sockets with a
//! ring each (`rings`), and an epoll instance over them has the number. One ring can be followed by several, too.

use super::fanout::{self, Choice};
use super::filter::{self, Target};
use super::ring::{RingConfig, RingSource};
use super::rings::{MAX_RINGS, RingGroup, SHARED_SLOTS};
use super::{PacketSource, UNUSED_PROTOCOL, bind_protocol, grow_rcvbuf, socket_beside};
use crate::Errno;
use crate::epoll::Epoll;
use crate::fd::{Fd, duplicate_high};
use crate::frame::RxFrame;
use crate::late_close::{Held, LateClose};
use crate::raw;
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
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
#[derive(Clone, Debug, Default)]
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
    /// What takes its place, as far as it has been opened already.
    pub(super) opened: Mutex<Opened>,
    /// The socket with the one ring, which several may follow.
    pub(super) one: Mutex<One>,
}

/// The socket with the one ring: while it is the way in, and when it has been followed by several.
#[derive(Debug, Default)]
pub(super) struct One {
    held: Option<Held>,
    left: Option<(Fd, Held)>,
}

/// Descriptors that a turn needs.
#[derive(Debug, Default)]
pub(super) struct Opened {
    sockets: ArrayVec<Fd, { MAX_RINGS + 1 }>,
    arrivals: Option<Epoll>,
}

/// Sockets with rings that hear nothing yet.
#[derive(Debug)]
pub struct Prepared {
    rings: Vec<RingSource>,
    /// Where there are several.
    group: Option<Group>,
    rcvbuf: i32,
}

/// What several sockets have for company.
#[derive(Debug)]
struct Group {
    /// Over all of them.
    arrivals: Epoll,
    /// The socket that drops what none of them is to have.
    drops: Fd,
    /// Which of them gets what.
    choice: Choice,
}

impl Turn {
    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens what one ring needs, or several, as far as that can be done from the calling thread.
    pub fn open(&self, several: bool) {
        let mut opened = self.opened();
        // One more drops what none of several is to have.
        let sockets = if several { MAX_RINGS + 1 } else { 1 };
        while opened.sockets.len() < sockets {
            let Ok(fd) = socket_beside(&self.out) else {
                opened.sockets.truncate(1);
                return;
            };
            opened.sockets.push(fd);
        }
        if several {
            opened.arrivals = Epoll::new().ok();
        }
    }

    /// Makes the ring; or, where they have been opened, [`MAX_RINGS`], so that few of the `connections`, given by their ports,
    /// share one. Takes a while: several take no longer than one when `spawn` has what it is given done by threads.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; ENONET where the calling thread is in another network namespace; ENOMEM, EMFILE, ENOBUFS.
    pub fn prepare(
        self: &Arc<Self>,
        connections: impl Iterator<Item = (u16, u16)>,
        spawn: impl Fn(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> Result<Prepared, Errno> {
        let arrivals = self.opened().arrivals.take();
        if let Some(arrivals) = arrivals
            && let Ok(group) = self.group(arrivals, connections, spawn)
        {
            return Ok(group);
        }
        let (ring, rcvbuf) = self.ring(RingConfig::SMALL_SLOTS)?;
        bind_protocol(ring.fd().as_raw_fd(), libc::ETH_P_IP as u16)?;
        Ok(Prepared {
            rings: vec![ring],
            group: None,
            rcvbuf,
        })
    }

    fn group(
        self: &Arc<Self>,
        arrivals: Epoll,
        connections: impl Iterator<Item = (u16, u16)>,
        spawn: impl Fn(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> Result<Prepared, Errno> {
        let (done, made) = mpsc::channel();
        for _ in 0..MAX_RINGS {
            let (turn, done) = (self.clone(), done.clone());
            let job = move || {
                // Who gave up has no use for it.
                let _ = done.send(turn.ring(SHARED_SLOTS));
            };
            spawn(Box::new(job)).map_err(|_| Errno::EAGAIN)?;
        }
        drop(done);
        let drops = self.deaf()?;
        let mut members: ArrayVec<RawFd, { MAX_RINGS + 1 }> = ArrayVec::new();
        members.push(drops.as_raw_fd());
        let mut rings = Vec::with_capacity(MAX_RINGS);
        let mut rcvbuf = i32::MAX;
        for made in made {
            let (ring, its): (RingSource, i32) = made?;
            let fd = ring.fd().as_raw_fd();
            arrivals.add(fd, libc::EPOLLIN, 0)?;
            members.push(fd);
            rcvbuf = rcvbuf.min(its);
            rings.push(ring);
        }
        for &fd in &members {
            bind_protocol(fd, libc::ETH_P_IP as u16)?;
        }
        fanout::join(&members)?;
        // The group's program decides, and lets nothing through yet.
        members[1..].iter().try_for_each(|&fd| filter::detach(fd))?;
        Ok(Prepared {
            rings,
            group: Some(Group {
                arrivals,
                drops,
                choice: Choice::fitted(connections),
            }),
            rcvbuf,
        })
    }

    /// A socket that hears nothing.
    fn deaf(&self) -> Result<Fd, Errno> {
        let opened = self.opened().sockets.pop();
        let fd = opened.map_or_else(|| socket_beside(&self.out), Ok)?;
        filter::attach(fd.as_raw_fd(), &filter::drop_all())?;
        Ok(fd)
    }

    /// One socket with a ring and a filter that lets nothing through, and the receive buffer that was granted.
    fn ring(&self, config: RingConfig) -> Result<(RingSource, i32), Errno> {
        let fd = self.deaf()?;
        let rcvbuf = grow_rcvbuf(fd.as_raw_fd())?;
        Ok((RingSource::new(Arc::new(fd), config)?, rcvbuf))
    }

    /// Lets the new sockets hear what `attach` lets through, and the one before nothing more. What `source` gives until it is
    /// empty came before; then [`Turn::complete`] is to follow, under the same lock, and nothing may be left in the queue of a
    /// ring.
    ///
    /// # Errors
    /// What the kernel says to filters; EALREADY where there are several rings. Nothing has changed then.
    pub fn begin(
        &self,
        prepared: &Prepared,
        source: &mut PacketSource,
        attach: impl FnOnce(Target) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if let PacketSource::Rings(_) | PacketSource::Closed(_) = source {
            return Err(Errno::EALREADY);
        }
        let target = prepared.target().ok_or(Errno::EBADF)?;
        let from = realtime_ns();
        attach(target)?;
        if let Err(e) = filter::attach(self.rx.as_raw_fd(), &filter::drop_all()) {
            let _ = match target {
                Target::Socket(fd) => filter::attach(fd, &filter::drop_all()),
                Target::Group(fd, _) => fanout::decide(fd, &filter::drop_all()),
            };
            return Err(e);
        }
        let both = Both {
            from,
            until: realtime_ns(),
            known: VecDeque::new(),
        };
        match source {
            PacketSource::Batch(batch) => batch.remember(both),
            PacketSource::Ring(ring) => ring.remember(both),
            PacketSource::Rings(_) | PacketSource::Closed(_) => {}
        }
        Ok(())
    }

    /// The number means the new socket from now on, or an epoll instance over the new ones, and `source` is what they have.
    /// Returns what decides from now on which frames they hear.
    ///
    /// # Errors
    /// EBADF, where RLIMIT_NOFILE has been lowered meanwhile, or nothing is prepared; nothing has changed then: the source goes
    /// on as it was, deaf.
    pub fn complete(
        &self,
        prepared: &mut Option<Prepared>,
        source: &mut PacketSource,
    ) -> Result<Target, Errno> {
        let ready = prepared.as_ref().ok_or(Errno::EBADF)?;
        let first = ready.rings.first().ok_or(Errno::EBADF)?;
        let named = match &ready.group {
            Some(group) => group.arrivals.as_raw_fd(),
            None => first.fd().as_raw_fd(),
        };
        let before = duplicate_high(self.rx.as_raw_fd())?;
        raw::dup3(named, self.rx.as_raw_fd())?;
        let Some(Prepared {
            mut rings, group, ..
        }) = prepared.take()
        else {
            return Err(Errno::EBADF);
        };
        let both = match source {
            PacketSource::Batch(batch) => batch.remembered(),
            PacketSource::Ring(ring) => ring.remembered(),
            PacketSource::Rings(_) | PacketSource::Closed(_) => None,
        };
        let mut one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        // To close it takes the kernel a while.
        one.left = one.held.take().map(|held| (before, held));
        // Not before: one that is not used after all must go at once, and its ring with it.
        let hold = |fd: &Fd| self.late.hold(fd.as_raw_fd());
        let (target, way_in) = if let Some(group) = group {
            hold(&group.drops);
            for ring in &rings {
                hold(ring.fd());
            }
            let target = Target::Group(group.drops.as_raw_fd(), group.choice);
            let rings = RingGroup::new(rings, group.drops, self.rx.clone(), both);
            (target, PacketSource::Rings(Box::new(rings)))
        } else {
            one.held = Some(hold(&self.rx));
            let mut ring = rings.pop().ok_or(Errno::EBADF)?;
            ring.go_by(self.rx.clone());
            ring.expect_doubles(both);
            (
                Target::Socket(self.rx.as_raw_fd()),
                PacketSource::Ring(ring),
            )
        };
        *source = way_in;
        Ok(target)
    }

    /// The first socket is for sending only, and one that was followed by several is closed. Takes a while.
    pub fn settle(&self) {
        let left = {
            let mut one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
            one.left.take()
        };
        if let Some((fd, held)) = left {
            self.late.let_go(held);
            drop(fd);
        }
        // Its filter lets nothing through: what is left to gain is that no frame asks it.
        let _ = bind_protocol(self.out.as_raw_fd(), UNUSED_PROTOCOL);
    }
}

impl Prepared {
    /// What decides which frames they hear.
    fn target(&self) -> Option<Target> {
        match &self.group {
            Some(group) => Some(Target::Group(group.drops.as_raw_fd(), group.choice)),
            None => Some(Target::Socket(self.rings.first()?.fd().as_raw_fd())),
        }
    }

    /// True when there are several.
    pub fn several(&self) -> bool {
        self.group.is_some()
    }

    /// The receive buffer that was granted to each, as getsockopt tells it.
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
