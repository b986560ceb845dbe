//! Frames from the link to the engine.

use sidewire_engine::errqueue::IcmpPacket;
use sidewire_engine::memory::Frag;
use sidewire_engine::segment::{Ingress, RxCsum};
use sidewire_link::Errno;
use sidewire_link::frame::{Checksum, FrameSource, MAX_HEADERS, Rest, RxFrame, RxMeta};
use sidewire_wire::checksum;
use sidewire_wire::icmp::{IcmpError, IcmpErrorKind, QuotedTcp, v4_unreachable};
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::TcpView;
use std::sync::Arc;

use crate::deferred::{DeferredFrames, DeferredQueues};
use crate::passed_on::LOOPBACK_IFINDEX;
use crate::stack::Inner;

/// ICMP destination unreachable.
const ICMP_DEST_UNREACH: u8 = 3;
/// What the kernel tells itself comes by `lo`, with these (RFC 1812 §4.3.2.5: precedence 6).
const ICMP_TTL: u8 = 64;
const ICMP_TOS: u8 = 0xc0;
/// Frames that are taken before acks go out and the lock is dropped.
pub(crate) const BATCH: usize = 64;
/// Frames that have come at one time, as far as the engine sees.
const FRAMES_A_TIME: usize = 8;
/// Payload bytes after which a batch ends early: the program should begin to read while they are warm.
const BATCH_BYTES: usize = 1 << 20;

/// What one round brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Frames taken.
    pub(crate) frames: usize,
    /// More may be waiting.
    pub(crate) more: bool,
}

/// A frame's headers, copied out of the ring, and what is left of it.
pub(crate) struct Head {
    pub(crate) bytes: [u8; MAX_HEADERS],
    pub(crate) len: usize,
    pub(crate) payload: usize,
    pub(crate) meta: RxMeta,
    pub(crate) rest: Rest,
}

enum Look {
    Tcp(Head),
    /// An error, what it came in, and the segment that it quotes.
    Icmp(Box<(IcmpError, IcmpPacket, Vec<u8>)>),
    /// An ICMP message that reports no error.
    NotOurs,
    Malformed,
}

fn look(frame: &RxFrame<'_>) -> Look {
    let Ok(ip) = Ipv4View::parse_prefix(frame.bytes, frame.meta.len as usize) else {
        return Look::Malformed;
    };
    let l4 = ip.header_len();
    if u32::from(ip.protocol()) == libc::IPPROTO_ICMP as u32 {
        return match IcmpError::parse_v4(ip.payload()) {
            Ok(e) => {
                let segment = ip.payload()[e.segment_at..].to_vec();
                let packet = IcmpPacket {
                    saddr: ip.src().into(),
                    daddr: ip.dst().into(),
                    iif: frame.meta.ifindex,
                    ttl: ip.ttl(),
                    tos: ip.tos(),
                };
                Look::Icmp(Box::new((e, packet, segment)))
            }
            Err(_) => Look::NotOurs,
        };
    }
    let here = &frame.bytes[l4..frame.bytes.len().min(ip.total_len())];
    let Ok(seg) = TcpView::parse_prefix(here, ip.payload_len()) else {
        return Look::Malformed;
    };
    let len = l4 + seg.header_len();
    let mut head = Head {
        bytes: [0; MAX_HEADERS],
        len,
        payload: seg.payload_len(),
        meta: frame.meta,
        rest: frame.rest,
    };
    head.bytes[..len].copy_from_slice(&frame.bytes[..len]);
    Look::Tcp(head)
}

impl Inner {
    /// True when a frame waits; costs a read of the ring.
    #[inline]
    pub(crate) fn frames_wait(&mut self) -> bool {
        matches!(self.source.peek(), Ok(Some(_)))
    }

    /// Tells the engine of next hops that do not answer (Linux `arp_error_report`).
    pub(crate) fn tell_unreachable(&mut self) {
        for u in self.net.take_unreachable() {
            let e = IcmpError {
                kind: IcmpErrorKind::Unreachable(v4_unreachable::HOST),
                icmp_type: ICMP_DEST_UNREACH,
                icmp_code: v4_unreachable::HOST,
                info: 0,
                segment_at: 0,
                quoted: QuotedTcp {
                    src: u.saddr,
                    dst: u.daddr,
                    src_port: u.ports.0,
                    dst_port: u.ports.1,
                    seq: u.seq,
                },
            };
            let (engine, mut io) = self.split();
            // The host tells itself, by the loopback device.
            let packet = IcmpPacket {
                saddr: u.saddr,
                daddr: u.saddr,
                iif: LOOPBACK_IFINDEX,
                ttl: ICMP_TTL,
                tos: ICMP_TOS,
            };
            engine.icmp(&mut io, &e, &packet, &u.segment);
        }
    }

    /// Takes what waits, at most a batch, through the engine. What it makes due (acks, data that may go) is left for
    /// [`Inner::end_batch`].
    ///
    /// A batch does not end with a hole that it has opened itself while what fills it is at hand: the kernel as a sender
    /// uses several CPUs, each with a backlog, and takes the report of such a hole for a loss.
    pub(crate) fn take_batch(&mut self) -> Received {
        self.tell_awaited_tstamps();
        let mut got = Received::default();
        let mut bytes = 0;
        let mut yielded = false;
        loop {
            got.more = got.frames >= BATCH || bytes >= BATCH_BYTES;
            if got.more && (got.frames >= 2 * BATCH || !self.engine.batch_opened_hole()) {
                break;
            }
            // What the frame before it had sent again may be what this one acks.
            self.tell_fresh_tstamps();
            let look = match self.source.peek() {
                Ok(Some(frame)) => {
                    self.net.capture.received(&frame);
                    look(&frame)
                }
                // It may lie in this CPU's backlog, where ksoftirqd is to bring it: let it.
                Ok(None) if !yielded && got.frames > 0 && self.engine.batch_opened_hole() => {
                    yielded = true;
                    std::thread::yield_now();
                    continue;
                }
                Ok(None) | Err(_) => break,
            };
            if got.frames.is_multiple_of(FRAMES_A_TIME) {
                self.read_clock();
            }
            got.frames += 1;
            match look {
                Look::Tcp(head) if self.net.given.is_empty() || !self.pass_on(&head) => {
                    bytes += self.tcp(&head);
                }
                Look::Tcp(_) => {}
                Look::Icmp(e) => {
                    self.release();
                    let (engine, mut io) = self.split();
                    engine.icmp(&mut io, &e.0, &e.1, &e.2);
                }
                Look::NotOurs => self.release(),
                Look::Malformed => {
                    self.engine.malformed();
                    self.release();
                }
            }
        }
        self.net.stats.rx_frames += got.frames as u64;
        got
    }

    /// Takes everything that has come by a way in that ends, after which `end` sees to it that nothing more does.
    ///
    /// # Errors
    /// What `end` says.
    pub(crate) fn take_all(
        &mut self,
        end: impl FnOnce(&mut Self) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        end(self)?;
        self.net.stats.rx_drops += u64::from(self.source.take_drops());
        while self.take_batch().frames > 0 {
            self.end_batch();
        }
        Ok(())
    }

    /// Lets the engine ack and send what the frames of a batch made due.
    pub(crate) fn end_batch(&mut self) {
        let (engine, mut io) = self.split_again();
        engine.rx_batch_end(&mut io);
    }

    /// Gives the peeked frame back.
    pub(crate) fn release(&mut self) {
        if let Ok(Some(frame)) = self.source.peek() {
            let rest = frame.rest;
            self.make_oldest(rest);
        }
        self.source.release();
    }

    /// Brings what waits before the peeked frame, of which there is `rest`, when that is to be taken out of the queue.
    pub(crate) fn make_oldest(&mut self, rest: Rest) {
        if rest == Rest::Queued
            && let Some(before) = self.deferred_beside()
        {
            before.bring_all();
        }
    }

    /// What was left in the queue that the peeked frame is in.
    fn deferred_beside(&self) -> Option<&Arc<DeferredFrames>> {
        self.deferred.as_ref()?.get(self.source.queue())
    }

    /// True when several queues would serve better than the one.
    #[inline]
    pub(crate) fn crowded(&self) -> bool {
        self.deferred.as_ref().is_some_and(DeferredQueues::crowded)
    }

    /// Leaves no payload in the kernel's queues.
    pub(crate) fn bring_deferred(&mut self) {
        if let Some(deferred) = &self.deferred {
            deferred.bring_all();
        }
    }

    /// The payload of the peeked frame, when it can stay where it is until somebody reads it.
    fn defer(&mut self, head: &Head) -> Option<Frag> {
        if head.rest != Rest::Queued || head.meta.csum == Checksum::Unknown {
            return None;
        }
        let deferred = self.deferred_beside()?.clone();
        let room = self.mem.rx_reserve(head.payload)?;
        let before = self.source.leave()?;
        let room = self.mem.rx_commit(room, head.payload);
        Some(deferred.push(before + head.len, room))
    }

    /// One TCP frame; its payload bytes.
    fn tcp(&mut self, head: &Head) -> usize {
        let headers = &head.bytes[..head.len];
        let payload = if head.payload == 0 {
            self.make_oldest(head.rest);
            self.source.release();
            None
        } else if let Some(deferred) = self.defer(head) {
            Some(deferred)
        } else {
            self.make_oldest(head.rest);
            // A frame that was cut short for want of receive buffer is accepted as far as it goes; what is missing looks
            // like a loss. The engine takes lengths from the headers, so such a frame is not handed on at all when
            // nothing of it is here.
            let Some(room) = self.mem.rx_reserve(head.payload) else {
                self.release();
                return 0;
            };
            let into = [libc::iovec {
                iov_base: room.at.cast(),
                iov_len: head.payload,
            }];
            // SAFETY: the room is ours until it is committed.
            let taken = unsafe { self.source.take(head.len, &into) };
            match taken {
                Ok(n) if n > 0 => Some(self.mem.rx_commit(room, n)),
                _ => return 0,
            }
        };
        let len = payload.as_ref().map_or(0, |f| f.len as usize);
        let csum = match head.meta.csum {
            Checksum::NotReady | Checksum::Valid => RxCsum::Good,
            // Part of it is missing: the sum cannot be checked, and what is here may be wrong.
            Checksum::Unknown if head.rest == Rest::Lost => RxCsum::Bad,
            Checksum::Unknown => verify(headers, payload.as_ref()),
        };
        let gso_size = u32::from(head.meta.gso_size);
        let segs = if gso_size == 0 || len == 0 {
            1
        } else {
            (len as u32).div_ceil(gso_size)
        };
        let mut ingress = Ingress {
            headers,
            payload,
            csum,
            gso_segs: segs,
            gso_size: if segs > 1 { gso_size } else { 0 },
            iif: head.meta.ifindex,
            tstamp_ns: head.meta.stamp.unwrap_or(0),
        };
        let (engine, mut io) = self.split_again();
        engine.rx(&mut io, &mut ingress);
        len
    }
}

fn verify(headers: &[u8], payload: Option<&Frag>) -> RxCsum {
    let Ok(ip) = Ipv4View::parse_prefix(headers, headers.len().max(ip_total_len(headers))) else {
        return RxCsum::Bad;
    };
    let l4 = ip.header_len();
    let mut sum = checksum::add(ip.pseudo_header(), checksum::sum(&headers[l4..]));
    if let Some(f) = payload {
        // SAFETY: the fragment was just filled and is ours.
        let bytes = unsafe { core::slice::from_raw_parts(f.ptr(), f.len as usize) };
        sum = checksum::combine(sum, checksum::sum(bytes), headers.len() - l4);
    }
    if checksum::is_valid(sum) {
        RxCsum::Good
    } else {
        RxCsum::Bad
    }
}

pub(crate) fn ip_total_len(headers: &[u8]) -> usize {
    headers
        .get(2..4)
        .map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])))
}
