//! The out-of-order queue and the SACK blocks that tell the peer of it (RFC 2018, RFC 2883).
//!
//! Unlike Linux's tree, whose buffers may overlap, this queue is sorted and disjoint: what overlaps is cut at insertion.

use crate::delack::{inet_csk_schedule_ack, tcp_sack_compress_send_ack};
use crate::mib::Counter;
use crate::rcvbuf::{tcp_grow_window, tcp_rcvbuf_grow, tcp_try_rmem_schedule};
use crate::seq::{after, before, max_seq, min_seq};
use crate::skb::RxSkb;
use crate::sock::{SackBlock, TcpSock};
use crate::stack::{Cx, Shared};

/// SACK blocks kept (Linux TCP_NUM_SACKS).
pub const TCP_NUM_SACKS: usize = 4;
/// Blocks that fit beside timestamps and a DSACK; one that would fall off is reported before
/// (Linux TCP_SACK_BLOCKS_EXPECTED).
pub(crate) const TCP_SACK_BLOCKS_EXPECTED: usize = 2;

/// Remembers a duplicate to report (Linux `tcp_dsack_set`).
pub(crate) fn tcp_dsack_set(sk: &mut TcpSock, sh: &mut Shared, seq: u32, end_seq: u32) {
    if sk.sack_ok && sh.sysctl.tcp_dsack {
        if before(seq, sk.rcv_nxt) {
            sh.mib.inc(Counter::TCPDSACKOldSent);
        } else {
            sh.mib.inc(Counter::TCPDSACKOfoSent);
        }
        sk.duplicate_sack = Some(SackBlock {
            start_seq: seq,
            end_seq,
        });
    }
}

/// Widens the duplicate to report, or remembers a first one (Linux `tcp_dsack_extend`).
fn tcp_dsack_extend(sk: &mut TcpSock, sh: &mut Shared, seq: u32, end_seq: u32) {
    match &mut sk.duplicate_sack {
        None => tcp_dsack_set(sk, sh, seq, end_seq),
        Some(block) => {
            tcp_sack_extend(block, seq, end_seq);
        }
    }
}

/// Widens `block` by a run that touches it; false when it does not touch.
fn tcp_sack_extend(block: &mut SackBlock, seq: u32, end_seq: u32) -> bool {
    if after(seq, block.end_seq) || after(block.start_seq, end_seq) {
        return false;
    }
    block.start_seq = min_seq(block.start_seq, seq);
    block.end_seq = max_seq(block.end_seq, end_seq);
    true
}

/// Forgets all blocks (Linux `tcp_sack_reset`).
pub(crate) fn tcp_sack_reset(sk: &mut TcpSock) {
    sk.duplicate_sack = None;
    sk.num_sacks = 0;
}

/// Blocks that grew together with the first become one (Linux `tcp_sack_maybe_coalesce`).
fn tcp_sack_maybe_coalesce(sk: &mut TcpSock) {
    let mut i = 1;
    while i < usize::from(sk.num_sacks) {
        let other = sk.selective_acks[i];
        if tcp_sack_extend(&mut sk.selective_acks[0], other.start_seq, other.end_seq) {
            sk.selective_acks.copy_within(i + 1.., i);
            sk.num_sacks -= 1;
        } else {
            i += 1;
        }
    }
}

/// Puts the run that just came to the front of the blocks (Linux `tcp_sack_new_ofo_skb`; RFC 2018 §4).
fn tcp_sack_new_ofo_skb(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seq: u32, end_seq: u32) {
    let found = (0..usize::from(sk.num_sacks))
        .find(|i| tcp_sack_extend(&mut sk.selective_acks[*i], seq, end_seq));
    if let Some(i) = found {
        if i >= TCP_SACK_BLOCKS_EXPECTED {
            tcp_sack_compress_send_ack(sk, cx);
        }
        sk.selective_acks[..=i].rotate_right(1);
        tcp_sack_maybe_coalesce(sk);
        return;
    }
    if usize::from(sk.num_sacks) >= TCP_SACK_BLOCKS_EXPECTED {
        tcp_sack_compress_send_ack(sk, cx);
    }
    sk.num_sacks = (sk.num_sacks + 1).min(TCP_NUM_SACKS as u8);
    sk.selective_acks[..usize::from(sk.num_sacks)].rotate_right(1);
    sk.selective_acks[0] = SackBlock {
        start_seq: seq,
        end_seq,
    };
}

/// Drops the blocks that `rcv_nxt` has passed (Linux `tcp_sack_remove`).
pub(crate) fn tcp_sack_remove(sk: &mut TcpSock) {
    if sk.ofo_queue.is_empty() {
        sk.num_sacks = 0;
        return;
    }
    let mut i = 0;
    while i < usize::from(sk.num_sacks) {
        if before(sk.rcv_nxt, sk.selective_acks[i].start_seq) {
            i += 1;
        } else {
            debug_assert!(!before(sk.rcv_nxt, sk.selective_acks[i].end_seq));
            sk.selective_acks.copy_within(i + 1.., i);
            sk.num_sacks -= 1;
        }
    }
}

/// Takes `n` bytes of sequence space off the front of a received run. Its truesize stays: the memory does.
pub(crate) fn trim_rx_head(skb: &mut RxSkb, n: u32) {
    let n_payload = n.min(skb.frag.len);
    skb.frag.off += n_payload;
    skb.frag.len -= n_payload;
    skb.seq = skb.seq.wrapping_add(n);
}

/// Cuts a received run so that it ends at `end_seq`; a FIN behind it is cut too.
fn trim_rx_tail(skb: &mut RxSkb, end_seq: u32) {
    skb.frag.len = skb.frag.len.min(end_seq.wrapping_sub(skb.seq));
    skb.fin = false;
    skb.end_seq = end_seq;
}

/// Queues what came beyond `rcv_nxt` (Linux `tcp_data_queue_ofo`). `skb` is in the window and not empty.
pub(crate) fn tcp_data_queue_ofo(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    mut skb: RxSkb,
    gso_segs: u32,
) {
    if !tcp_try_rmem_schedule(sk, cx, skb.seq) {
        cx.sh.mib.inc(Counter::TCPOFODrop);
        sk.info.drops = sk.info.drops.wrapping_add(gso_segs.max(1));
        crate::data_queue::sk_data_ready(sk, cx);
        return;
    }
    inet_csk_schedule_ack(sk);
    sk.info.rcv_ooopack = sk.info.rcv_ooopack.wrapping_add(gso_segs.max(1));
    cx.sh.mib.inc(Counter::TCPOFOQueue);

    sk.opened_hole |= sk.ofo_queue.is_empty();
    let (seq, end_seq) = (skb.seq, skb.end_seq);
    let wanted = !covered_from_front(sk, cx.sh, &mut skb);
    if wanted {
        insert_ofo(sk, cx, skb);
    }
    if sk.sack_ok {
        tcp_sack_new_ofo_skb(sk, cx, seq, end_seq);
    }
    if !sk.orphan && sk.parent.is_none() {
        tcp_rcvbuf_grow(sk, cx.sh, sk.tuning.space);
    }
}

/// Cuts what is queued already off the front of a run; true when nothing of it is new.
fn covered_from_front(sk: &mut TcpSock, sh: &mut Shared, skb: &mut RxSkb) -> bool {
    // Mostly it goes to the end: no search then.
    let mut at = match sk.ofo_queue.back() {
        Some(last) if before(skb.seq, last.end_seq) => {
            sk.ofo_queue.partition_point(|s| !after(s.end_seq, skb.seq))
        }
        _ => return false,
    };
    let mut told = false;
    while let Some(there) = sk.ofo_queue.get(at).filter(|s| !after(s.seq, skb.seq)) {
        let (there_seq, there_end) = (there.seq, there.end_seq);
        let covered = !after(skb.end_seq, there_end);
        if !covered && there_seq == skb.seq {
            // The new one is the longer: it takes the place.
            break;
        }
        let end = min_seq(skb.end_seq, there_end);
        if told {
            tcp_dsack_extend(sk, sh, skb.seq, end);
        } else {
            tcp_dsack_set(sk, sh, skb.seq, end);
            told = true;
        }
        if covered {
            sh.mib.inc(Counter::TCPOFOMerge);
            sk.info.drops = sk.info.drops.wrapping_add(1);
            return true;
        }
        trim_rx_head(skb, there_end.wrapping_sub(skb.seq));
        at += 1;
    }
    false
}

/// Inserts a run whose head overlaps nothing; what it covers goes, what it overlaps behind cuts it.
fn insert_ofo(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, mut skb: RxSkb) {
    let at = sk.ofo_queue.partition_point(|s| before(s.seq, skb.seq));
    let mut covered = at;
    while let Some(next) = sk.ofo_queue.get(covered) {
        if !after(skb.end_seq, next.seq) {
            break;
        }
        let (next_seq, next_end) = (next.seq, next.end_seq);
        tcp_dsack_extend(sk, cx.sh, next_seq, min_seq(next_end, skb.end_seq));
        if before(skb.end_seq, next_end) {
            trim_rx_tail(&mut skb, next_seq);
            break;
        }
        covered += 1;
    }
    for gone in sk.ofo_queue.drain(at..covered) {
        sk.rmem_alloc -= gone.truesize;
        cx.sh.mib.inc(Counter::TCPOFOMerge);
        sk.info.drops = sk.info.drops.wrapping_add(1);
    }
    sk.rmem_alloc += skb.truesize;
    let (len, truesize) = (skb.frag.len, skb.truesize);
    sk.ofo_queue.insert(at, skb);
    // Without SACK the window stays, so that acks are recognised as duplicates.
    if sk.sack_ok {
        tcp_grow_window(sk, cx.sh, len, truesize);
    }
}

/// Moves what `rcv_nxt` has reached to the receive queue (Linux `tcp_ofo_queue`). Returns true when a FIN was among it.
pub(crate) fn tcp_ofo_queue(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    while let Some(mut skb) = sk
        .ofo_queue
        .pop_front_if(|first| !after(first.seq, sk.rcv_nxt))
    {
        sk.rmem_alloc -= skb.truesize;
        if before(skb.seq, sk.rcv_nxt) {
            tcp_dsack_extend(sk, cx.sh, skb.seq, min_seq(skb.end_seq, sk.rcv_nxt));
            if !after(skb.end_seq, sk.rcv_nxt) {
                sk.info.drops = sk.info.drops.wrapping_add(1);
                continue;
            }
            let n = sk.rcv_nxt.wrapping_sub(skb.seq);
            trim_rx_head(&mut skb, n);
        }
        let fin = skb.fin;
        crate::data_queue::tcp_queue_rcv(sk, skb);
        if fin {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
