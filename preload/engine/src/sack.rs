//! The SACK scoreboard (RFC 2018, RFC 2883; Linux `tcp_sacktag_write_queue`), and its emulation by duplicate acks.
//!
//! What the peer SACKed before is remembered in `recv_sack_cache`, so that an ack costs as much as what is new in it.

use arrayvec::ArrayVec;

use crate::ack::AckFlag;
use crate::mib::Counter;
use crate::rack::tcp_rack_advance;
use crate::rate::{RateSample, tcp_rate_skb_delivered};
use crate::retransmit::rtx_index;
use crate::segment::Segment;
use crate::seq::{after, before, max_seq};
use crate::skb::{Sacked, Skb};
use crate::sock::{SackBlock, TcpSock};
use crate::stack::Cx;
use crate::time::Instant;
use crate::tso::{Queue, tcp_fragment, tcp_shift_payload, tcp_skb_can_collapse};

/// Bytes of a merged buffer: as many segments as 16 bits count, of the smallest size (Linux `tcp_skb_shift`).
const MAX_MERGED: u32 = 65_535 * 8;
/// Most blocks of a segment.
const TCP_NUM_SACKS: usize = 4;

type Blocks = ArrayVec<SackBlock, TCP_NUM_SACKS>;

/// What the walk over an ack's blocks finds (Linux `struct tcp_sacktag_state`).
#[derive(Debug)]
pub(crate) struct SackTag {
    /// Send time of the first newly SACKed original; `ZERO` when there is none.
    pub first_sackt: Instant,
    /// And of the last.
    pub last_sackt: Instant,
    /// Lowest sequence number that arrived late.
    pub reord: u32,
    /// Segments delivered, as the blocks say.
    pub sack_delivered: u32,
    /// What to add to the ack's flags.
    pub flag: AckFlag,
}

impl SackTag {
    pub(crate) const fn new() -> Self {
        Self {
            first_sackt: Instant::ZERO,
            last_sackt: Instant::ZERO,
            reord: 0,
            sack_delivered: 0,
            flag: AckFlag::empty(),
        }
    }
}

/// First sequence number above everything SACKed (Linux `tcp_highest_sack_seq`).
#[inline]
pub(crate) fn tcp_highest_sack_seq(sk: &TcpSock) -> u32 {
    if sk.sacked_out == 0 {
        sk.snd_una
    } else {
        sk.highest_sack
    }
}

/// Something below `highest_sack` arrived late: measures the reordering (Linux `tcp_check_sack_reordering`).
pub(crate) fn tcp_check_sack_reordering(sk: &mut TcpSock, cx: &Cx<'_, '_>, low_seq: u32) {
    let fack = tcp_highest_sack_seq(sk);
    if !before(low_seq, fack) {
        return;
    }
    let metric = fack.wrapping_sub(low_seq);
    let mss = sk.mss_cache;
    if mss > 0 && metric > sk.reordering.saturating_mul(mss) {
        sk.reordering = metric.div_ceil(mss).min(cx.sh.sysctl.tcp_max_reordering);
    }
    sk.info.reord_seen = sk.info.reord_seen.wrapping_add(1);
}

fn tcp_is_sackblock_valid(sk: &TcpSock, dsack: bool, b: SackBlock) -> bool {
    if after(b.end_seq, sk.snd_nxt)
        || !before(b.start_seq, b.end_seq)
        || !before(b.start_seq, sk.snd_nxt)
    {
        return false;
    }
    if after(b.start_seq, sk.snd_una) {
        return true;
    }
    // Only a DSACK may name what is acked, and only of this recovery.
    if !dsack || sk.undo_marker == 0 || after(b.end_seq, sk.snd_una) {
        return false;
    }
    if !before(b.start_seq, sk.undo_marker) {
        return true;
    }
    after(b.end_seq, sk.undo_marker) && !before(b.start_seq, b.end_seq.wrapping_sub(sk.max_window))
}

/// Segments that a DSACK reports, 0 for a dubious one.
fn tcp_dsack_seen(sk: &mut TcpSock, b: SackBlock, state: &mut SackTag) -> u32 {
    if !before(b.start_seq, b.end_seq) {
        return 0;
    }
    let len = b.end_seq.wrapping_sub(b.start_seq);
    if len > sk.max_window {
        return 0;
    }
    let mut dup_segs = 1;
    if len > sk.mss_cache {
        dup_segs = len.div_ceil(sk.mss_cache.max(1));
    } else if sk.tlp_high_seq != 0 && sk.tlp_high_seq == b.end_seq {
        state.flag |= AckFlag::DSACK_TLP;
    }
    sk.info.dsack_dups = sk.info.dsack_dups.wrapping_add(dup_segs);
    // The network duplicates, not we.
    if sk.info.dsack_dups > sk.info.total_retrans {
        return 0;
    }
    // A probe's duplicate says nothing about reordering.
    if sk.info.reord_seen > 0 && !state.flag.contains(AckFlag::DSACK_TLP) {
        sk.rack.dsack_seen = true;
    }
    state.flag |= AckFlag::DSACKING_ACK;
    state.sack_delivered += dup_segs;
    dup_segs
}

/// Is the first block a DSACK: below the ack, or inside of the second (RFC 2883 §4)?
fn tcp_check_dsack(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    ack: u32,
    blocks: &Blocks,
    prior_snd_una: u32,
    state: &mut SackTag,
) -> bool {
    let Some(&first) = blocks.first() else {
        return false;
    };
    let inside = blocks
        .get(1)
        .is_some_and(|b| !after(first.end_seq, b.end_seq) && !before(first.start_seq, b.start_seq));
    if !before(first.start_seq, ack) && !inside {
        return false;
    }
    cx.sh.mib.inc(Counter::TCPDSACKRecv);
    let dup_segs = tcp_dsack_seen(sk, first, state);
    if dup_segs == 0 {
        return false;
    }
    // Of data that the queue has forgotten.
    if sk.undo_marker != 0
        && sk.undo_retrans > 0
        && !after(first.end_seq, prior_snd_una)
        && after(first.end_seq, sk.undo_marker)
    {
        sk.undo_retrans = (sk.undo_retrans - dup_segs as i32).max(0);
    }
    true
}

/// Tags what a segment's SACK blocks name.
pub(crate) fn tcp_sacktag_write_queue(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    seg: &Segment,
    prior_snd_una: u32,
    state: &mut SackTag,
    rs: &mut RateSample,
) {
    state.reord = sk.snd_nxt;
    if sk.sacked_out == 0 {
        sk.highest_sack = sk.snd_una;
        sk.recv_sack_cache = [SackBlock::default(); 4];
    }
    let wire: Blocks = seg
        .opts
        .sack
        .as_slice()
        .iter()
        .take(TCP_NUM_SACKS)
        .map(|&(start_seq, end_seq)| SackBlock { start_seq, end_seq })
        .collect();
    let found_dsack = tcp_check_dsack(sk, cx, seg.ack_seq, &wire, prior_snd_una, state);
    // Far too old.
    if before(seg.ack_seq, prior_snd_una.wrapping_sub(sk.max_window)) || sk.packets_out == 0 {
        return;
    }
    let mut blocks = Blocks::new();
    let mut dsack = None;
    for (i, &b) in wire.iter().enumerate() {
        let dup = i == 0 && found_dsack;
        if !tcp_is_sackblock_valid(sk, dup, b) || !after(b.end_seq, prior_snd_una) {
            continue;
        }
        if dup {
            dsack = Some(b);
        }
        blocks.push(b);
    }
    // In the order of the queue; a DSACK before a block that begins with it.
    blocks.sort_unstable_by(|a, b| {
        let order = (a.start_seq.wrapping_sub(b.start_seq) as i32).cmp(&0);
        order.then_with(|| (Some(*b) == dsack).cmp(&(Some(*a) == dsack)))
    });
    let dup_at = blocks.iter().position(|b| Some(*b) == dsack);
    let cache = sk.recv_sack_cache;
    // Where the last walk ended; `None` also behind the last buffer, where Linux begins from the start again.
    let mut walked_to = None;
    for (i, &b) in blocks.iter().enumerate() {
        if Some(i) == dup_at {
            let from = walked_to.map_or(b.start_seq, |at| max_seq(at, b.start_seq));
            tcp_sacktag_dsack(sk, cx, b, from, state);
            continue;
        }
        let parts = uncached(b, &cache);
        let Some(last) = parts.last().copied() else {
            continue;
        };
        // The walk over what is new of a block meets the DSACK inside.
        if let Some(dup) = dsack.filter(|_| Some(i + 1) == dup_at)
            && (last.end_seq == b.end_seq || after(last.end_seq, dup.start_seq))
        {
            tcp_sacktag_dsack(sk, cx, dup, dup.start_seq, state);
        }
        for part in parts {
            tcp_sacktag_walk(sk, cx, part, b, state, rs);
        }
        if dup_at.is_some() {
            let queue = &sk.rtx_queue;
            let next = queue.partition_point(|s| before(s.seq, last.end_seq));
            walked_to = queue.get(next).map(|s| s.seq);
        }
    }
    if let Some(b) = dsack {
        clear_redundant_retrans(sk, b);
    }
    remember(sk, &blocks);
    if sk.ca_state != crate::sock::CaState::Loss || sk.undo_marker != 0 {
        tcp_check_sack_reordering(sk, cx, state.reord);
    }
}

/// The parts of `b` that no remembered block covers, at most one more than there are of these.
fn uncached(b: SackBlock, cache: &[SackBlock; 4]) -> ArrayVec<SackBlock, 5> {
    let mut parts = ArrayVec::new();
    let mut start = b.start_seq;
    for c in cache {
        if c.start_seq == c.end_seq || !after(c.end_seq, start) || !before(c.start_seq, b.end_seq) {
            continue;
        }
        if after(c.start_seq, start) {
            parts.push(SackBlock {
                start_seq: start,
                end_seq: c.start_seq,
            });
        }
        start = c.end_seq;
    }
    if before(start, b.end_seq) {
        parts.push(SackBlock {
            start_seq: start,
            end_seq: b.end_seq,
        });
    }
    parts
}

/// Keeps the blocks, in order, for the next ack.
fn remember(sk: &mut TcpSock, blocks: &Blocks) {
    sk.recv_sack_cache = [SackBlock::default(); 4];
    for (place, b) in sk.recv_sack_cache.iter_mut().zip(blocks) {
        *place = *b;
    }
}

/// A DSACK over buffers that are still queued, as far as they lie behind `from`: their retransmissions were for nothing. What
/// had become one buffer is cut for it, as by Linux's `tcp_sacktag_walk`, and joined again.
fn tcp_sacktag_dsack(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    b: SackBlock,
    from: u32,
    state: &mut SackTag,
) {
    let mut i = rtx_index(sk, from);
    while i < sk.rtx_queue.len() && before(sk.rtx_queue[i].seq, b.end_seq) {
        match tcp_match_skb_to_sack(sk, cx, i, b) {
            Match::Whole => {}
            Match::No => {
                i += 1;
                continue;
            }
            Match::Stop => break,
        }
        let skb = &sk.rtx_queue[i];
        if skb.ever_retransmitted() {
            if sk.undo_marker != 0 && sk.undo_retrans > 0 && after(skb.end_seq, sk.undo_marker) {
                sk.undo_retrans = (sk.undo_retrans - skb.pcount() as i32).max(0);
            }
            if skb.sacked.contains(Sacked::SACKED_ACKED) && before(skb.seq, state.reord) {
                state.reord = skb.seq;
            }
        }
        i += usize::from(!merge_sacked(sk, cx, i));
    }
}

/// After the walk: a retransmission of what a DSACK names is not in flight any more.
fn clear_redundant_retrans(sk: &mut TcpSock, b: SackBlock) {
    for i in rtx_index(sk, b.start_seq)..sk.rtx_queue.len() {
        let skb = &mut sk.rtx_queue[i];
        if !before(skb.seq, b.end_seq) {
            break;
        }
        if covers(b, skb) && skb.sacked.contains(Sacked::SACKED_RETRANS) {
            skb.sacked -= Sacked::SACKED_RETRANS;
            sk.retrans_out -= skb.pcount();
        }
    }
}

fn covers(b: SackBlock, skb: &Skb) -> bool {
    !before(skb.seq, b.start_seq) && !after(skb.end_seq, b.end_seq)
}

/// How much of the buffer at `index` a block covers.
enum Match {
    No,
    Whole,
    /// Nothing more can be tagged.
    Stop,
}

/// Does `block` cover the buffer? A super-frame that it covers in part is cut at a segment boundary
/// (Linux `tcp_match_skb_to_sack`).
fn tcp_match_skb_to_sack(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    index: usize,
    block: SackBlock,
) -> Match {
    let skb = &sk.rtx_queue[index];
    let from_start = !after(block.start_seq, skb.seq);
    if from_start && !before(block.end_seq, skb.end_seq) {
        return Match::Whole;
    }
    if skb.pcount() <= 1 || !after(skb.end_seq, block.start_seq) {
        return Match::No;
    }
    let mss = skb.gso_size.max(1);
    let mut cut = if from_start {
        let covered = block.end_seq.wrapping_sub(skb.seq);
        if covered < mss {
            return Match::Stop;
        }
        covered
    } else {
        block.start_seq.wrapping_sub(skb.seq).max(mss)
    };
    // Whole segments only.
    if cut > mss {
        let whole = cut / mss * mss;
        cut = if !from_start && whole < cut {
            whole + mss
        } else {
            whole
        };
    }
    // All but the FIN is covered, or nothing.
    if cut >= skb.len {
        return Match::No;
    }
    if !tcp_fragment(sk, cx, Queue::Rtx, index, cut, mss) {
        return Match::Stop;
    }
    if from_start { Match::Whole } else { Match::No }
}

/// Tags the buffers of `part`, which belongs to `block`.
fn tcp_sacktag_walk(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    part: SackBlock,
    block: SackBlock,
    state: &mut SackTag,
    rs: &mut RateSample,
) {
    let mut i = rtx_index(sk, part.start_seq);
    while i < sk.rtx_queue.len() && before(sk.rtx_queue[i].seq, part.end_seq) {
        match tcp_match_skb_to_sack(sk, cx, i, block) {
            Match::Whole => {
                tcp_sacktag_one(sk, cx.now, i, state);
                let skb = &mut sk.rtx_queue[i];
                tcp_rate_skb_delivered(&mut sk.first_tx_mstamp, skb, rs);
                if after(skb.end_seq, sk.highest_sack) {
                    sk.highest_sack = skb.end_seq;
                }
                i += usize::from(!merge_sacked(sk, cx, i));
            }
            Match::No => i += 1,
            Match::Stop => break,
        }
    }
}

/// Tags one buffer SACKed (Linux `tcp_sacktag_one`).
fn tcp_sacktag_one(sk: &mut TcpSock, now: Instant, index: usize, state: &mut SackTag) {
    let skb = &mut sk.rtx_queue[index];
    let (seq, end_seq) = (skb.seq, skb.end_seq);
    let (sacked, pcount, xmit_time) = (skb.sacked, skb.pcount(), skb.skb_mstamp);
    if sacked.contains(Sacked::SACKED_ACKED) || !after(end_seq, sk.snd_una) {
        return;
    }
    skb.sacked |= Sacked::SACKED_ACKED | Sacked::UNSORTED;
    if sacked.contains(Sacked::SACKED_RETRANS) {
        // Not marked lost: the retransmission is believed to be on its way still.
        if sacked.contains(Sacked::LOST) {
            skb.sacked -= Sacked::LOST | Sacked::SACKED_RETRANS;
            sk.lost_out -= pcount;
            sk.retrans_out -= pcount;
        }
    } else {
        if !sacked.contains(Sacked::EVER_RETRANS) {
            // A hole closed by the original: reordering.
            let highest = tcp_highest_sack_seq(sk);
            if before(seq, highest) && before(seq, state.reord) {
                state.reord = seq;
            }
            if !after(end_seq, sk.high_seq) {
                state.flag |= AckFlag::ORIG_SACK_ACKED;
            }
            if state.first_sackt == Instant::ZERO {
                state.first_sackt = xmit_time;
            }
            state.last_sackt = xmit_time;
        }
        if sacked.contains(Sacked::LOST) {
            sk.rtx_queue[index].sacked -= Sacked::LOST;
            sk.lost_out -= pcount;
        }
    }
    tcp_rack_advance(sk, now, sacked, end_seq, xmit_time);
    state.flag |= AckFlag::DATA_SACKED;
    sk.sacked_out += pcount;
    state.sack_delivered += pcount;
}

/// Joins a SACKed buffer to the SACKed one before it, so that a hole does not leave a buffer for each segment behind it,
/// and the one behind where that closed a hole (Linux `tcp_shift_skb_data`). True when the buffer at `index` is gone.
fn merge_sacked(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, index: usize) -> bool {
    let Some(prev) = index.checked_sub(1) else {
        return false;
    };
    let merged = shift_sacked(sk, cx, prev);
    if merged {
        shift_sacked(sk, cx, prev);
    }
    merged
}

/// Payload bytes of a buffer's segments, but for a last short one (Linux `tcp_skb_seglen`).
fn tcp_skb_seglen(skb: &Skb) -> u32 {
    if skb.pcount() == 1 {
        skb.len
    } else {
        skb.gso_size
    }
}

/// Appends the buffer behind `index` when both are SACKed, and their segments of one size.
fn shift_sacked(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, index: usize) -> bool {
    let (Some(to), Some(skb)) = (sk.rtx_queue.get(index), sk.rtx_queue.get(index + 1)) else {
        return false;
    };
    let mss = tcp_skb_seglen(to);
    let pcount = skb.pcount();
    let shiftable = to.sacked & Sacked::TAGBITS == Sacked::SACKED_ACKED
        && skb.sacked & Sacked::TAGBITS == Sacked::SACKED_ACKED
        && tcp_skb_can_collapse(to, skb)
        && to.len > 0
        && skb.len > 0
        && mss == tcp_skb_seglen(skb)
        // 16 bits count a buffer's segments.
        && to.len + skb.len < MAX_MERGED
        && to.pcount() + pcount <= u32::from(u16::MAX);
    if !shiftable {
        return false;
    }
    let len = skb.len;
    if !tcp_shift_payload(sk, cx, Queue::Rtx, index, len) {
        return false;
    }
    let to = &mut sk.rtx_queue[index];
    to.gso_segs = to.pcount() + pcount;
    to.gso_size = mss;
    true
}

/// Without SACK: as many duplicate acks as there is room for count (Linux `tcp_limit_reno_sacked`).
pub(crate) fn tcp_limit_reno_sacked(sk: &mut TcpSock) -> bool {
    let holes = sk.lost_out.max(1).min(sk.packets_out);
    if sk.sacked_out + holes > sk.packets_out {
        sk.sacked_out = sk.packets_out - holes;
        return true;
    }
    false
}

/// More duplicate acks than segments in flight: reordering.
fn tcp_check_reno_reordering(sk: &mut TcpSock, cx: &Cx<'_, '_>, addend: u32) {
    if !tcp_limit_reno_sacked(sk) {
        return;
    }
    sk.reordering = (sk.packets_out + addend).min(cx.sh.sysctl.tcp_max_reordering);
    sk.info.reord_seen = sk.info.reord_seen.wrapping_add(1);
}

/// `n` duplicate acks: so many segments left the network.
pub(crate) fn tcp_add_reno_sack(sk: &mut TcpSock, cx: &Cx<'_, '_>, n: u32, ece_ack: bool) {
    if n == 0 {
        return;
    }
    let prior = sk.sacked_out;
    sk.sacked_out += n;
    tcp_check_reno_reordering(sk, cx, 0);
    if sk.sacked_out > prior {
        let delivered = sk.sacked_out - prior;
        tcp_count_delivered(sk, delivered, ece_ack);
    }
}

/// `acked` segments were acked: one filled the hole, the others had caused duplicate acks.
pub(crate) fn tcp_remove_reno_sacks(sk: &mut TcpSock, cx: &Cx<'_, '_>, acked: u32, ece_ack: bool) {
    if acked > 0 {
        let delivered = acked.saturating_sub(sk.sacked_out).max(1);
        tcp_count_delivered(sk, delivered, ece_ack);
        sk.sacked_out = sk.sacked_out.saturating_sub(acked - 1);
    }
    tcp_check_reno_reordering(sk, cx, acked);
}

pub(crate) fn tcp_reset_reno_sack(sk: &mut TcpSock) {
    sk.sacked_out = 0;
}

/// Counts segments as delivered.
#[inline]
pub(crate) fn tcp_count_delivered(sk: &mut TcpSock, n: u32, ece_ack: bool) {
    sk.delivered = sk.delivered.wrapping_add(n);
    if ece_ack {
        sk.delivered_ce = sk.delivered_ce.wrapping_add(n);
    }
}

#[cfg(test)]
mod tests;
