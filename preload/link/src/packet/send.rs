//! Sending: one sendmsg per frame, iov = [vnet header, link-layer, IP and TCP headers, payload where it lies].
//!
//! The kernel finishes checksums and cuts super-frames itself where a device cannot, and does it faster than we
//! could from here (see the table in [`crate::packet`]). Only where it answers EINVAL to a vnet header do we cut and
//! checksum in user space, remembered per device.

use super::tstamp::{self, Timing};
use super::uring::{self, SharedRing};
use super::vnet::{self, VNET_HDR_LEN};
use super::way_out_beside;
use crate::Errno;
use crate::cut::Cutter;
use crate::fd::Fd;
use crate::frame::{FrameSink, MAX_FRAGS, MAX_FRAME, MAX_HEADERS, MAX_L2, TxFrame, TxVerdict};
use crate::late_close::LateClose;
use crate::outq::SocketOutq;
use crate::raw;
use arrayvec::ArrayVec;
use sidewire_uapi::socket::{SCM_TS_OPT_ID, SCM_TXTIME};
use sidewire_wire::ethernet::EthernetHeader;
use sidewire_wire::vnet::VnetHeader;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// Frames per sendmmsg.
const BATCH: usize = uring::DEPTH;

/// Which messages of a batch have left, the first in the lowest bit.
type Left = u32;

/// What the kernel charges to the send buffer for a frame beside its bytes, at most: a page that is not full, and its
/// own structures.
const FRAME_OVERHEAD: usize = 8192;

/// Devices that are remembered as refusing offloads; of further ones each frame is tried anew.
const MAX_REFUSING: usize = 16;

/// Link-layer and other headers of one frame, vnet header included.
const HEAD: usize = VNET_HDR_LEN + MAX_L2 + MAX_HEADERS;

/// Room for the control messages: SO_MARK, SO_PRIORITY, SO_TIMESTAMPING, SCM_TS_OPT_ID, SCM_TXTIME.
const CONTROL: usize = 5 * 24;

/// How a device takes our frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offload {
    /// Super-frames and unfinished checksums.
    Full,
    /// Neither.
    None,
}

/// Which way batches go: by sendmmsg, or, where the receiver shares this CPU, in one piece by a ring (`uring`).
#[derive(Debug, Default)]
struct Way {
    /// Batches that go by the ring before it is asked again who else runs here.
    in_one_piece: u32,
    /// Batches by sendmmsg since it was asked.
    unasked: u32,
    /// How often the sending thread had been preempted then.
    preemptions: i64,
}

impl Way {
    /// After so many batches by sendmmsg it is asked.
    const SAMPLE: u32 = 16;
    /// More preemptions in that time were another thread's, or came during batches that went by the ring.
    const MOST: i64 = 4 * Self::SAMPLE as i64;
    /// Batches that go by the ring when every other one was cut.
    const IN_ONE_PIECE: u32 = 1024;

    /// A batch has gone by sendmmsg.
    fn sent(&mut self, preemptions: impl FnOnce() -> i64) {
        self.unasked += 1;
        if self.unasked < Self::SAMPLE {
            return;
        }
        self.unasked = 0;
        let now = preemptions();
        let cut = now - self.preemptions;
        self.preemptions = now;
        if (i64::from(Self::SAMPLE / 2)..=Self::MOST).contains(&cut) {
            self.in_one_piece = Self::IN_ONE_PIECE;
        }
    }
}

/// What one message needs to live while the kernel reads it.
struct Message {
    head: [u8; HEAD],
    head_len: usize,
    name: libc::sockaddr_ll,
    control: [u64; CONTROL / 8],
    control_len: usize,
    iov: [libc::iovec; MAX_FRAGS + 1],
    parts: usize,
}

impl Message {
    fn empty() -> Message {
        // SAFETY: integers, raw pointers and arrays of them; all zero is valid.
        unsafe { zeroed() }
    }

    /// Lays out a frame with the vnet header `vnet`.
    fn set(&mut self, frame: &TxFrame<'_>, vnet: VnetHeader, with_priority: bool) {
        let mut at = VNET_HDR_LEN;
        vnet.emit(&mut self.head);
        let ethertype = frame.ethertype();
        if let Some(dst) = frame.dst_mac {
            EthernetHeader {
                dst,
                src: frame.src_mac,
                ethertype,
            }
            .emit(&mut self.head[at..]);
            at += MAX_L2;
        }
        self.head[at..at + frame.headers.len()].copy_from_slice(frame.headers);
        self.head_len = at + frame.headers.len();
        self.name.sll_family = libc::AF_PACKET as u16;
        self.name.sll_protocol = ethertype.to_be();
        self.name.sll_ifindex = frame.ifindex as i32;
        self.name.sll_halen = 6;
        self.name.sll_addr[..6].copy_from_slice(&frame.dst_mac.unwrap_or_default().0);
        self.control_len = 0;
        if frame.mark != 0 {
            self.push_control(libc::SO_MARK, frame.mark);
        }
        if frame.priority != 0 && with_priority {
            self.push_control(libc::SO_PRIORITY, frame.priority);
        }
        if let Some(t) = frame.tstamp {
            self.push_control(libc::SO_TIMESTAMPING, t.flags);
            self.push_control(SCM_TS_OPT_ID, t.key);
        }
        if let Some(t) = frame.txtime {
            self.push_control64(SCM_TXTIME, t.at);
        }
        self.parts = frame.frags.len();
        self.iov[1..=self.parts].copy_from_slice(frame.frags);
    }

    /// A control message of level SOL_SOCKET with a 32-bit value: 24 bytes with its padding.
    fn push_control(&mut self, kind: i32, value: u32) {
        let at = self.control_len / 8;
        self.control[at] = 20;
        self.control[at + 1] = u64::from_ne_bytes(pair(libc::SOL_SOCKET as u32, kind as u32));
        self.control[at + 2] = u64::from_ne_bytes(pair(value, 0));
        self.control_len += 24;
    }

    /// The same with a 64-bit value.
    fn push_control64(&mut self, kind: i32, value: u64) {
        let at = self.control_len / 8;
        self.control[at] = 24;
        self.control[at + 1] = u64::from_ne_bytes(pair(libc::SOL_SOCKET as u32, kind as u32));
        self.control[at + 2] = value;
        self.control_len += 24;
    }

    /// The msghdr that names this message. It holds pointers into `self`, which must not move before it is used.
    fn hdr(&mut self) -> libc::msghdr {
        self.iov[0] = libc::iovec {
            iov_base: self.head.as_mut_ptr().cast(),
            iov_len: self.head_len,
        };
        // SAFETY: integers and pointers; all zero is valid.
        let mut hdr: libc::msghdr = unsafe { zeroed() };
        hdr.msg_name = (&raw mut self.name).cast();
        hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        hdr.msg_iov = self.iov.as_mut_ptr();
        hdr.msg_iovlen = self.parts + 1;
        if self.control_len > 0 {
            hdr.msg_control = self.control.as_mut_ptr().cast();
            hdr.msg_controllen = self.control_len;
        }
        hdr
    }
}

/// Two 32-bit numbers as they follow each other in memory.
fn pair(first: u32, second: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&first.to_ne_bytes());
    out[4..].copy_from_slice(&second.to_ne_bytes());
    out
}

/// The way out through a packet socket.
pub struct PacketSink {
    fd: Arc<Fd>,
    messages: Box<[Message]>,
    /// Devices that answered EINVAL to a vnet header.
    refusing: ArrayVec<u32, MAX_REFUSING>,
    /// Whether the kernel takes SO_PRIORITY as a control message (Linux 6.14).
    priority_cmsg: bool,
    /// What of timestamps and transmit times the socket is set up for.
    timing: Timing,
    cutter: Option<Box<Cutter>>,
    ring: SharedRing,
    /// Bytes that the socket's send buffer holds.
    sndbuf: usize,
    late: Arc<LateClose>,
    way: Way,
}

impl std::fmt::Debug for PacketSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketSink")
            .field("fd", &self.fd)
            .field("refusing", &self.refusing)
            .finish_non_exhaustive()
    }
}

// SAFETY: the raw pointers in `messages` are set anew for each call and not used after it.
unsafe impl Send for PacketSink {}

impl PacketSink {
    pub(super) fn new(fd: Arc<Fd>, ring: SharedRing, late: Arc<LateClose>) -> PacketSink {
        let messages = (0..BATCH).map(|_| Message::empty()).collect();
        PacketSink {
            sndbuf: sndbuf(&fd),
            fd,
            messages,
            refusing: ArrayVec::new(),
            priority_cmsg: true,
            timing: Timing::default(),
            cutter: None,
            ring,
            late,
            way: Way::default(),
        }
    }

    /// Cuts and checksums in user space for this device from now on, as if it had refused offloads.
    pub fn refuse_offloads(&mut self, ifindex: u32) {
        if !self.refusing.contains(&ifindex) {
            // A full list only means that the kernel's EINVAL is met again.
            let _ = self.refusing.try_push(ifindex);
        }
    }

    /// Reads the next stamp that a frame of this socket got; `None` when there is none yet. A stamp is told to whoever
    /// asks first.
    pub fn read_tstamp(&mut self) -> Option<tstamp::TxStamp> {
        tstamp::read(self.fd.as_raw_fd())
    }

    /// True when the frame that was sent last has its stamps told by [`PacketSink::read_tstamp`].
    pub fn stamps(&self) -> bool {
        self.timing.stamps()
    }

    fn offload(&self, ifindex: u32) -> Offload {
        if self.refusing.contains(&ifindex) {
            Offload::None
        } else {
            Offload::Full
        }
    }

    /// The vnet header of a frame that can be sent in one piece, or why it cannot.
    fn vnet(frame: &TxFrame<'_>) -> Result<VnetHeader, TxVerdict> {
        if frame.headers.len() > MAX_HEADERS || frame.frags.len() > MAX_FRAGS {
            return Err(TxVerdict::Refused(Errno::EINVAL));
        }
        if frame.frame_len() > MAX_FRAME {
            return Err(TxVerdict::TooBig);
        }
        let l2 = if frame.dst_mac.is_some() { MAX_L2 } else { 0 };
        let mut vnet = vnet::for_tcp(frame.headers, l2, frame.gso_size)
            .ok_or(TxVerdict::Refused(Errno::EINVAL))?;
        vnet.hdr_len += vnet::aligned(frame.frags);
        Ok(vnet)
    }

    /// Sends by the device's offloads; learns from EINVAL.
    fn send_offloaded(&mut self, frame: &TxFrame<'_>, vnet: VnetHeader) -> TxVerdict {
        let timed = frame.tstamp.is_some() || frame.txtime.is_some();
        loop {
            let frame = &if timed {
                self.timing.prepare(self.fd.as_raw_fd(), frame)
            } else {
                *frame
            };
            let message = &mut self.messages[0];
            message.set(frame, vnet, self.priority_cmsg);
            let hdr = message.hdr();
            // SAFETY: name, control and the first part lie in `message`, which does not move before the call ends;
            // the kernel checks the payload's addresses.
            match unsafe { raw::sendmsg(self.fd.as_raw_fd(), &hdr, libc::MSG_DONTWAIT) } {
                Ok(_) => return TxVerdict::Sent,
                Err(Errno::EINTR) => {}
                Err(Errno::EINVAL) if self.timing.refused(frame) => {}
                Err(Errno::EINVAL) if frame.priority != 0 && self.priority_cmsg => {
                    self.priority_cmsg = false
                }
                Err(Errno::EINVAL) => {
                    self.refuse_offloads(frame.ifindex);
                    return self.send_cut(frame);
                }
                Err(e) => return e.into(),
            }
        }
    }

    /// Hands over the first so many messages, at least two; a bit for each that has left.
    #[inline(never)] // Who sends one frame needs less of the program's stack.
    fn send_filled(&mut self, filled: usize) -> Left {
        let mut batch = ArrayVec::<_, BATCH>::new();
        let messages = self.messages[..filled].iter_mut();
        batch.extend(messages.map(|message| libc::mmsghdr {
            msg_hdr: message.hdr(),
            msg_len: 0,
        }));
        if let Some(left) = self.send_in_one_piece(&batch) {
            return left;
        }
        // SAFETY: as in send_offloaded; the messages do not move before the call ends.
        let sent = unsafe { raw::sendmmsg(self.fd.as_raw_fd(), &mut batch, libc::MSG_DONTWAIT) };
        self.way.sent(raw::preemptions);
        (1 << sent.unwrap_or(0)) - 1
    }

    /// Hands over the next thousand batches in one piece, as if somebody else had cut the last ones.
    pub fn in_one_piece(&mut self) {
        self.way.in_one_piece = Way::IN_ONE_PIECE;
    }

    /// The same by the ring, where that is the way, there is one, and nothing hints that a message could be refused: those
    /// behind it would overtake it.
    fn send_in_one_piece(&mut self, batch: &[libc::mmsghdr]) -> Option<Left> {
        self.way.in_one_piece = self.way.in_one_piece.checked_sub(1)?;
        // Where the carrier of another lane has it, sendmmsg will do.
        let mut shared = self.ring.try_lock().ok()?;
        let ring = shared.open()?;
        let fd = self.fd.as_raw_fd();
        let bytes = |m: &Message| {
            let parts = &m.iov[..=m.parts];
            parts.iter().map(|p| p.iov_len).sum::<usize>() + FRAME_OVERHEAD
        };
        let charge: usize = self.messages[..batch.len()].iter().map(bytes).sum();
        if raw::unsent(fd).ok()? + charge > self.sndbuf {
            return None;
        }
        let mut results = [Err(Errno::ECANCELED); BATCH];
        // SAFETY: as in send_filled.
        unsafe { ring.send(fd, batch, &mut results) };
        let results = results[..batch.len()].iter().enumerate();
        let left = results.fold(0, |left, (n, r)| left | Left::from(r.is_ok()) << n);
        if left + 1 != 1 << batch.len() {
            // sendmmsg stops at such a message.
            self.way = Way::default();
        }
        Some(left)
    }

    /// Sends as MTU-sized frames with finished checksums. When the socket or queue takes only some of them the
    /// verdict is the one for the rest: the caller sends the whole frame again, and the peer drops what it has.
    fn send_cut(&mut self, frame: &TxFrame<'_>) -> TxVerdict {
        let cutter = self.cutter.get_or_insert_default();
        match cutter.cut(frame) {
            Ok(()) => cutter.send(self.fd.as_raw_fd()),
            Err(verdict) => verdict,
        }
    }
}

/// The send buffer that a socket was granted, in bytes.
fn sndbuf(fd: &Fd) -> usize {
    raw::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, 0i32)
        .map_or(0, |n| usize::try_from(n).unwrap_or(0))
}

impl FrameSink for PacketSink {
    type Outq = SocketOutq;

    fn send(&mut self, frame: &TxFrame<'_>) -> TxVerdict {
        match PacketSink::vnet(frame) {
            Err(verdict) => verdict,
            Ok(vnet) if self.offload(frame.ifindex) == Offload::Full => {
                self.send_offloaded(frame, vnet)
            }
            Ok(_) => self.send_cut(frame),
        }
    }

    fn send_batch(&mut self, frames: &[TxFrame<'_>], verdicts: &mut [TxVerdict]) -> usize {
        let total = frames.len().min(verdicts.len());
        let mut done = 0;
        while done < total {
            if total - done == 1 {
                verdicts[done] = self.send(&frames[done]);
                return total;
            }
            let mut filled = 0;
            for (frame, message) in frames[done..total].iter().zip(self.messages.iter_mut()) {
                let Ok(vnet) = PacketSink::vnet(frame) else {
                    break;
                };
                if self.refusing.contains(&frame.ifindex)
                    || frame.tstamp.is_some()
                    || frame.txtime.is_some()
                {
                    break;
                }
                message.set(frame, vnet, self.priority_cmsg);
                filled += 1;
            }
            let left = if filled > 1 {
                self.send_filled(filled)
            } else {
                0
            };
            for n in 0..filled.max(1) {
                if left >> n & 1 != 0 {
                    verdicts[done] = TxVerdict::Sent;
                } else if n == 0 || left >> (n - 1) != 0 {
                    // A batch does not tell why it stopped: the frame by itself does. So goes what others overtook, too.
                    verdicts[done] = self.send(&frames[done]);
                } else {
                    // The rest in another batch.
                    break;
                }
                done += 1;
                if verdicts[done - 1] != TxVerdict::Sent {
                    return done;
                }
            }
        }
        done
    }

    fn cuts(&self, ifindex: u32) -> bool {
        self.refusing.contains(&ifindex)
    }

    fn forget_device(&mut self, ifindex: u32) {
        self.refusing.retain(|&mut i| i != ifindex);
    }

    fn writable_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn outq(&self) -> SocketOutq {
        SocketOutq::new(self.fd.clone())
    }

    fn separate(&mut self) -> bool {
        let Ok(fd) = way_out_beside(&self.fd) else {
            return false;
        };
        self.late.hold(fd.as_raw_fd());
        self.sndbuf = sndbuf(&fd);
        self.fd = Arc::new(fd);
        self.timing = Timing::default();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_others_cut_go_in_one_piece() {
        let mut way = Way::default();
        let mut run = |batches: u32, preemptions: i64| {
            (0..batches).for_each(|_| way.sent(|| preemptions));
            core::mem::take(&mut way.in_one_piece)
        };
        assert_eq!(run(Way::SAMPLE, 7), 0);
        assert_eq!(run(Way::SAMPLE - 1, 15), 0);
        assert_eq!(run(1, 15), Way::IN_ONE_PIECE);
        // Whatever came while the ring was used does not count, nor does what another thread says.
        assert_eq!(run(Way::SAMPLE, 600), 0);
        assert_eq!(run(Way::SAMPLE, 10), 0);
        assert_eq!(run(Way::SAMPLE, 18), Way::IN_ONE_PIECE);
    }
}
