//! The SACK scoreboard (RFC 2018, RFC 2883; Linux `tcp_sacktag_write_queue`), and its emulation by duplicate acks.
//!
//! What the peer SACKed before is remembered in `recv_sack_cache`, so that an ack costs as much as what is new in it.

use arrayvec::ArrayVec;

use crate::ack::AckFlag;
use crate::mib::Counter;
use crate::rate::RateSample;
use crate::segment::Segment;
use crate::seq::{after, before};
use crate::sock::{SackBlock, TcpSock};
use crate::stack::Cx;
use crate::time::Instant;

mod walk;

use walk::{Walk, tcp_highest_sack, tcp_sacktag_skip};

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
        // Linux tcp_highest_sack_reset.
        sk.highest_sack = sk.rtx_queue.front().map_or(sk.snd_una, |skb| skb.seq);
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
    // In the order of the queue.
    blocks.sort_by(|a, b| (a.start_seq.wrapping_sub(b.start_seq) as i32).cmp(&0));
    tag_blocks(
        &mut Walk { sk, cx, state, rs },
        &blocks,
        dsack.and_then(|b| blocks.iter().position(|other| *other == b)),
    );
    remember(sk, &blocks);
    if sk.ca_state != crate::sock::CaState::Loss || sk.undo_marker != 0 {
        tcp_check_sack_reordering(sk, cx, state.reord);
    }
}

/// Walks what the blocks name and the remembered ones do not. The block at `dsack` reports duplicates.
fn tag_blocks(walk: &mut Walk<'_, '_, '_>, blocks: &Blocks, dsack: Option<usize>) {
    let remembered = walk.sk.recv_sack_cache;
    let mut cache: &[SackBlock] = if walk.sk.sacked_out == 0 {
        &[]
    } else {
        let empty = |b: &&SackBlock| **b == SackBlock::default();
        &remembered[remembered.iter().take_while(empty).count()..]
    };
    let mut at = None;
    let mut i = 0;
    while let Some(&b) = blocks.get(i) {
        let dup_sack = dsack == Some(i);
        let next_dup = dsack.filter(|n| *n == i + 1).map(|n| blocks[n]);
        // Those before it.
        while let [first, rest @ ..] = cache
            && !before(b.start_seq, first.end_seq)
        {
            cache = rest;
        }
        let known = cache.split_first();
        if let Some((c, rest)) = known.filter(|(c, _)| !dup_sack && after(b.end_seq, c.start_seq)) {
            if before(b.start_seq, c.start_seq) {
                let head = SackBlock {
                    end_seq: c.start_seq,
                    ..b
                };
                at = tcp_sacktag_skip(walk.sk, at, b.start_seq);
                at = walk.tcp_sacktag_walk(at, next_dup, head, dup_sack);
            }
            if !after(b.end_seq, c.end_seq) {
                i += 1;
                continue;
            }
            // Linux tcp_maybe_skipping_dsack.
            if let Some(dup) = next_dup.filter(|dup| before(dup.start_seq, c.end_seq)) {
                at = tcp_sacktag_skip(walk.sk, at, dup.start_seq);
                at = walk.tcp_sacktag_walk(at, None, dup, true);
            }
            cache = rest;
            if tcp_highest_sack_seq(walk.sk) != c.end_seq {
                at = tcp_sacktag_skip(walk.sk, at, c.end_seq);
                continue;
            }
            at = tcp_highest_sack(walk.sk);
            if at.is_none() {
                break;
            }
        } else {
            if !before(b.start_seq, tcp_highest_sack_seq(walk.sk)) {
                at = tcp_highest_sack(walk.sk);
                if at.is_none() {
                    break;
                }
            }
            at = tcp_sacktag_skip(walk.sk, at, b.start_seq);
        }
        at = walk.tcp_sacktag_walk(at, next_dup, b, dup_sack);
        i += 1;
    }
}

/// Keeps the blocks, in order, for the next ack; the places that are left are before them.
fn remember(sk: &mut TcpSock, blocks: &Blocks) {
    let cache = &mut sk.recv_sack_cache;
    let empty = cache.len() - blocks.len();
    cache[..empty].fill(SackBlock::default());
    cache[empty..].copy_from_slice(blocks);
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
