//! Buffers: what Linux keeps in `struct sk_buff` and `struct tcp_skb_cb`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use arrayvec::ArrayVec;
use bitflags::bitflags;

use crate::memory::Frag;
use crate::net::TxTicket;
use crate::time::Instant;

/// `net.core.max_skb_frags`: fragments of one buffer (F9).
pub const MAX_SKB_FRAGS: usize = 17;
/// What a buffer without data costs in `sk_wmem_queued` (F7).
pub const SKB_TRUESIZE: u32 = 832;
/// Linux's aligned `struct sk_buff`.
pub(crate) const SK_BUFF: u32 = 256;
/// Linux's aligned `struct skb_shared_info`, at the end of every head.
pub(crate) const SHARED_INFO: u32 = 320;
/// Linux's cache line, to which a head's bytes are rounded up.
const CACHE_LINE: u32 = 64;

/// A buffer of Linux's `alloc_skb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// What it is charged.
    pub(crate) truesize: u32,
    /// Bytes that its head holds.
    pub(crate) room: u32,
}

/// What Linux allocates for a head of `len` bytes: a small one from its own cache, a larger one as a power of two.
pub(crate) const fn alloc_skb(len: u32) -> Allocated {
    let small = SKB_TRUESIZE - SK_BUFF;
    let needed = len.next_multiple_of(CACHE_LINE) + SHARED_INFO;
    let head = if needed <= small {
        small
    } else {
        needed.next_power_of_two()
    };
    Allocated {
        truesize: head + SK_BUFF,
        room: head - SHARED_INFO,
    }
}
/// Buffers kept for re-use by a stack.
pub const SKB_POOL_MAX: usize = 4096;

/// TCP header flag bits, as in byte 13 of the header.
pub mod tcphdr {
    /// The sender has no more data; takes a sequence number.
    pub const FIN: u8 = 0x01;
    /// Opens a connection; takes a sequence number.
    pub const SYN: u8 = 0x02;
    /// Ends the connection at once.
    pub const RST: u8 = 0x04;
    /// The receiver shall hand the data over without waiting for more.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// A congestion mark came; in a SYN, ECN is offered (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced; in a SYN, beside ECE (RFC 3168).
    pub const CWR: u8 = 0x80;
}

bitflags! {
    /// The scoreboard bits of a sent buffer: Linux's `TCP_SKB_CB(skb)->sacked`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Sacked: u8 {
        /// SACKed by the peer.
        const SACKED_ACKED = 0x01;
        /// Retransmitted and in flight again.
        const SACKED_RETRANS = 0x02;
        /// Marked lost.
        const LOST = 0x04;
        /// Not to be judged by RACK until it is sent again: it was SACKed or found lost (in Linux off
        /// `tsorted_sent_queue`).
        const UNSORTED = 0x08;
        /// Made in repair mode: never timed.
        const REPAIRED = 0x10;
        /// Retransmitted at least once.
        const EVER_RETRANS = 0x80;
        /// What is counted: Linux's TCPCB_TAGBITS.
        const TAGBITS = Self::SACKED_ACKED.bits() | Self::SACKED_RETRANS.bits() | Self::LOST.bits();
    }
}

bitflags! {
    /// Transmit timestamp requests of a buffer: Linux's `skb_shinfo()->tx_flags` and `TCP_SKB_CB()->txstamp_ack`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct TxFlags: u8 {
        /// SKBTX_HW_TSTAMP.
        const HW_TSTAMP = 0x01;
        /// SKBTX_SW_TSTAMP.
        const SW_TSTAMP = 0x02;
        /// SKBTX_SCHED_TSTAMP.
        const SCHED_TSTAMP = 0x04;
        /// txstamp_ack.
        const ACK_TSTAMP = 0x08;
        /// SKBTX_COMPLETION_TSTAMP.
        const COMPLETION_TSTAMP = 0x10;
    }
}

/// What the control messages of a send ask for its segments. Empty unless the settings let a message have its own
/// ([`crate::sysctl::Sysctl::message_options`]): Linux's TCP goes by the socket's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageOptions {
    /// SO_MARK.
    pub mark: Option<u32>,
    /// SCM_TXTIME in nanoseconds of SO_TXTIME's clock; 0 for none.
    pub transmit_time: u64,
}

/// Names one live MSG_ZEROCOPY notification object (Linux's `struct ubuf_info_msgzc`) of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UbufId(pub u32);

/// Delivery-rate sample taken when a buffer was sent: Linux's `TCP_SKB_CB()->tx`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct TxSample {
    /// `tp->delivered` at the time.
    pub delivered: u32,
    /// `tp->delivered_mstamp` at the time.
    pub delivered_mstamp: Instant,
    /// `tp->first_tx_mstamp` at the time.
    pub first_tx_mstamp: Instant,
    /// The socket was application limited.
    pub is_app_limited: bool,
}

/// A send buffer.
#[derive(Debug, Default)]
pub struct Skb {
    /// First sequence number.
    pub seq: u32,
    /// One past the last, SYN and FIN counted.
    pub end_seq: u32,
    /// Payload bytes.
    pub len: u32,
    /// Header flags ([`tcphdr`]).
    pub tcp_flags: u8,
    /// Scoreboard.
    pub sacked: Sacked,
    /// MSG_EOR: nothing may be appended or merged behind.
    pub eor: bool,
    /// Segments on the wire (Linux `tcp_skb_pcount`); 0 before the first TSO computation.
    pub gso_segs: u32,
    /// Payload bytes a segment; valid when `gso_segs > 1` (Linux `tcp_gso_size`).
    pub gso_size: u32,
    /// Memory charged to `sk_wmem_queued`.
    pub truesize: u32,
    /// Payload.
    pub frags: ArrayVec<Frag, MAX_SKB_FRAGS>,
    /// When it was last sent; `Instant::ZERO` when never.
    pub skb_mstamp: Instant,
    /// Delivery-rate state at that time.
    pub tx: TxSample,
    /// Transmit timestamps asked for.
    pub tx_flags: TxFlags,
    /// `ee_data` of those timestamps: sequence number of the last byte of the call.
    pub tskey: u32,
    /// The message's own mark and time. Buffers that differ in them are never merged.
    pub message: MessageOptions,
    /// Its last frame, where that had to wait before the device.
    pub ticket: Option<TxTicket>,
    /// It left as a super-frame, with what it held then.
    pub cut: bool,
    /// MSG_ZEROCOPY object whose bytes this holds.
    pub ubuf: Option<UbufId>,
    /// Every byte is zerocopy: accounting by whole pages (F7, F16).
    pub pure_zerocopy: bool,
}

impl Skb {
    /// True when sent more than once.
    #[must_use]
    pub fn ever_retransmitted(&self) -> bool {
        self.sacked.contains(Sacked::EVER_RETRANS)
    }

    /// Segments on the wire, at least 1 (Linux `tcp_skb_pcount`).
    #[must_use]
    pub fn pcount(&self) -> u32 {
        self.gso_segs.max(1)
    }

    /// Fragments that it has in Linux, where each page is one (`skb_shinfo(skb)->nr_frags`).
    #[must_use]
    pub fn nr_frags(&self) -> usize {
        self.frags.iter().map(Frag::pages).sum()
    }

    /// Appends a fragment, merging it with the last when it continues it (Linux `skb_can_coalesce`).
    /// Returns false, changing nothing, when there is no slot left.
    pub fn push_frag(&mut self, frag: Frag) -> bool {
        if let Some(last) = self.frags.last_mut()
            && last.abuts(&frag)
        {
            last.len += frag.len;
            self.len += frag.len;
            return true;
        }
        let len = frag.len;
        if self.frags.try_push(frag).is_err() {
            return false;
        }
        self.len += len;
        true
    }

    /// Moves payload from byte `at` on to the empty buffer `tail`.
    pub fn split_frags(&mut self, at: u32, tail: &mut Self) {
        debug_assert!(at <= self.len && tail.frags.is_empty());
        let mut pos = 0;
        let mut keep = 0;
        for f in &self.frags {
            if pos + f.len > at {
                break;
            }
            pos += f.len;
            keep += 1;
        }
        let mut rest = self.frags.drain(keep..);
        if let Some(mut f) = rest.next() {
            let head = f.split_to(at - pos);
            tail.frags.push(f);
            tail.frags.extend(rest);
            if head.len > 0 {
                self.frags.push(head);
            }
        } else {
            drop(rest);
        }
        tail.len = self.len - at;
        self.len = at;
    }

    /// Drops the first `n` payload bytes (a partial ack, Linux `tcp_trim_head`). Sequence numbers are the caller's.
    pub fn trim_head(&mut self, mut n: u32) {
        debug_assert!(n <= self.len);
        self.len -= n;
        let mut gone = 0;
        for f in &mut self.frags {
            if n == 0 {
                break;
            }
            let cut = n.min(f.len);
            f.off += cut;
            f.len -= cut;
            n -= cut;
            if f.len == 0 {
                gone += 1;
            }
        }
        self.frags.drain(..gone);
    }
}

/// A received run of sequence space on `receive_queue` or `ofo_queue`.
#[derive(Debug, Clone)]
pub struct RxSkb {
    /// First sequence number of `frag`.
    pub seq: u32,
    /// One past the last; one more than the payload when `fin`.
    pub end_seq: u32,
    /// Payload (may be empty for a bare FIN).
    pub frag: Frag,
    /// Memory charged to `sk_rmem_alloc`.
    pub truesize: u32,
    /// Wall-clock arrival in nanoseconds, 0 when nobody asks.
    pub tstamp_ns: u64,
    /// Carries FIN.
    pub fin: bool,
}

/// Buffers to re-use, so that the fast path never allocates.
// A buffer moves between queues by pointer: it is several hundred bytes.
#[derive(Debug, Default)]
pub struct SkbPool {
    #[allow(clippy::vec_box)]
    free: Vec<Box<Skb>>,
}

impl SkbPool {
    /// A clean buffer.
    #[must_use]
    pub fn alloc(&mut self) -> Box<Skb> {
        self.free.pop().unwrap_or_default()
    }

    /// Gives one back.
    pub fn free(&mut self, mut skb: Box<Skb>) {
        if self.free.len() < SKB_POOL_MAX {
            *skb = Skb::default();
            self.free.push(skb);
        }
    }
}
