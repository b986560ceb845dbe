//! The walk over the buffers in flight that a block names (Linux `tcp_sacktag_walk`).
//!
//! A super-frame that is SACKed in part is cut at segment boundaries, and SACKed neighbours become one buffer: a hole does not
//! leave a buffer for each segment behind it.

use super::{SackTag, tcp_highest_sack_seq};
use crate::ack::AckFlag;
use crate::rack::tcp_rack_advance;
use crate::rate::{RateSample, tcp_rate_skb_delivered};
use crate::retransmit::rtx_index;
use crate::seq::{after, before};
use crate::skb::{Sacked, Skb};
use crate::sock::{SackBlock, TcpSock};
use crate::stack::Cx;
use crate::time::Instant;
use crate::tso::{Queue, skb_can_shift, tcp_fragment, tcp_shift_payload, tcp_skb_can_collapse};

/// The bytes that a buffer may hold, as a 16-bit count of segments of the smallest size (Linux `TCP_MIN_GSO_SIZE`).
const SHIFT_MAX: u32 = 65_535 * 8;

/// Place in `rtx_queue`; `None` behind its end.
pub(super) type Place = Option<usize>;

/// The buffer that holds `seq` (Linux `tcp_sacktag_bsearch`).
fn tcp_sacktag_bsearch(sk: &TcpSock, seq: u32) -> Place {
    let i = rtx_index(sk, seq);
    let skb = sk.rtx_queue.get(i)?;
    (!before(seq, skb.seq)).then_some(i)
}

/// On to the buffer that holds `skip_to_seq`, if the walk is not beyond it already.
pub(super) fn tcp_sacktag_skip(sk: &TcpSock, at: Place, skip_to_seq: u32) -> Place {
    match at {
        Some(i) if after(sk.rtx_queue[i].seq, skip_to_seq) => at,
        _ => tcp_sacktag_bsearch(sk, skip_to_seq),
    }
}

/// The first buffer above everything SACKed (Linux `tcp_highest_sack`).
pub(super) fn tcp_highest_sack(sk: &TcpSock) -> Place {
    let i = rtx_index(sk, sk.highest_sack);
    (i < sk.rtx_queue.len()).then_some(i)
}

/// What the blocks of an ack find, and where.
pub(super) struct Walk<'a, 'c, 'io> {
    pub(super) sk: &'a mut TcpSock,
    pub(super) cx: &'a mut Cx<'c, 'io>,
    pub(super) state: &'a mut SackTag,
    pub(super) rs: &'a mut RateSample,
}

/// How much of a buffer a block covers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    No,
    Whole,
    /// Nothing more can be tagged.
    Stop,
}

/// What became of a buffer whose neighbour is SACKed.
enum Shift {
    /// The walk goes on behind this one.
    Behind(usize),
    Noop,
    Fallback,
}

/// How much of a buffer was moved to the one before it.
enum Shifted {
    Nothing,
    Part,
    Whole,
}

/// What is newly SACKed.
struct Range {
    sacked: Sacked,
    seq: u32,
    end_seq: u32,
    pcount: u32,
    xmit_time: Instant,
}

impl Range {
    fn of(skb: &Skb) -> Self {
        Self {
            sacked: skb.sacked,
            seq: skb.seq,
            end_seq: skb.end_seq,
            pcount: skb.pcount(),
            xmit_time: skb.skb_mstamp,
        }
    }
}

/// Payload bytes of a segment (Linux `tcp_skb_seglen`).
fn tcp_skb_seglen(skb: &Skb) -> u32 {
    if skb.pcount() == 1 {
        skb.len
    } else {
        skb.gso_size
    }
}

fn covers(b: SackBlock, skb: &Skb) -> bool {
    !after(b.start_seq, skb.seq) && !before(b.end_seq, skb.end_seq)
}

impl Walk<'_, '_, '_> {
    fn next(&self, i: usize) -> Place {
        (i + 1 < self.sk.rtx_queue.len()).then_some(i + 1)
    }

    /// Tags what `b` covers from `at` on; where it stopped. `next_dup` is a DSACK behind it.
    pub(super) fn tcp_sacktag_walk(
        &mut self,
        mut at: Place,
        next_dup: Option<SackBlock>,
        b: SackBlock,
        dup_sack_in: bool,
    ) -> Place {
        while let Some(i) = at {
            let seq = self.sk.rtx_queue[i].seq;
            if !before(seq, b.end_seq) {
                break;
            }
            let mut dup_sack = dup_sack_in;
            let mut found = Match::No;
            if let Some(dup) = next_dup.filter(|dup| before(seq, dup.end_seq)) {
                found = self.tcp_match_skb_to_sack(i, dup);
                dup_sack |= found == Match::Whole;
            }
            if found != Match::Whole {
                found = match self.tcp_shift_skb_data(i, b, dup_sack) {
                    Shift::Behind(prev) => {
                        at = self.next(prev);
                        continue;
                    }
                    Shift::Noop => Match::No,
                    Shift::Fallback => self.tcp_match_skb_to_sack(i, b),
                };
            }
            match found {
                Match::Stop => break,
                Match::Whole => self.tag(i, dup_sack),
                Match::No => {}
            }
            at = self.next(i);
        }
        at
    }

    fn tag(&mut self, i: usize, dup_sack: bool) {
        let range = Range::of(&self.sk.rtx_queue[i]);
        let sacked = self.tcp_sacktag_one(&range, dup_sack);
        let skb = &mut self.sk.rtx_queue[i];
        skb.sacked = sacked;
        if sacked.contains(Sacked::SACKED_ACKED) {
            skb.sacked |= Sacked::UNSORTED;
        }
        tcp_rate_skb_delivered(&mut self.sk.first_tx_mstamp, skb, self.rs);
        if !before(range.seq, tcp_highest_sack_seq(self.sk)) {
            self.sk.highest_sack = range.end_seq;
        }
    }

    /// Does the block cover the buffer? A super-frame that it covers in part is cut at a segment boundary.
    fn tcp_match_skb_to_sack(&mut self, i: usize, b: SackBlock) -> Match {
        let skb = &self.sk.rtx_queue[i];
        if covers(b, skb) {
            return Match::Whole;
        }
        if skb.pcount() <= 1 || !after(skb.end_seq, b.start_seq) {
            return Match::No;
        }
        let mss = skb.gso_size.max(1);
        let from_start = !after(b.start_seq, skb.seq);
        let mut cut = if from_start {
            let covered = b.end_seq.wrapping_sub(skb.seq);
            if covered < mss {
                return Match::Stop;
            }
            covered
        } else {
            b.start_seq.wrapping_sub(skb.seq).max(mss)
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
        if !tcp_fragment(self.sk, self.cx, Queue::Rtx, i, cut, mss) {
            return Match::Stop;
        }
        if from_start { Match::Whole } else { Match::No }
    }

    /// Moves what is newly SACKed of a buffer to the SACKed one before it, and what follows, too, when that closes a hole.
    fn tcp_shift_skb_data(&mut self, i: usize, b: SackBlock, dup_sack: bool) -> Shift {
        let skb = &self.sk.rtx_queue[i];
        // A retransmission that is believed to be on its way remains to be seen.
        let retrans = Sacked::LOST | Sacked::SACKED_RETRANS;
        if !dup_sack && skb.sacked & retrans == Sacked::SACKED_RETRANS {
            return Shift::Fallback;
        }
        if skb.len == 0 || !after(skb.end_seq, self.sk.snd_una) {
            return Shift::Fallback;
        }
        let Some(prev) = i.checked_sub(1) else {
            return Shift::Fallback;
        };
        let before_it = &self.sk.rtx_queue[prev];
        if before_it.sacked & Sacked::TAGBITS != Sacked::SACKED_ACKED
            || !tcp_skb_can_collapse(before_it, skb)
        {
            return Shift::Fallback;
        }
        let seglen = tcp_skb_seglen(before_it);
        let (len, pcount, mss);
        if covers(b, skb) {
            mss = tcp_skb_seglen(skb);
            if mss != seglen {
                return Shift::Fallback;
            }
            (len, pcount) = (skb.len, skb.pcount());
        } else {
            if !after(skb.end_seq, b.start_seq) || skb.pcount() <= 1 {
                return Shift::Noop;
            }
            mss = skb.gso_size;
            if after(b.start_seq, skb.seq) || mss != seglen || mss == 0 {
                return Shift::Fallback;
            }
            pcount = b.end_seq.wrapping_sub(skb.seq) / mss;
            if pcount == 0 {
                return Shift::Noop;
            }
            len = pcount * mss;
        }
        if !after(skb.seq.wrapping_add(len), self.sk.snd_una) {
            return Shift::Fallback;
        }
        match self.tcp_skb_shift(prev, pcount, len, mss, dup_sack) {
            Shifted::Nothing => return Shift::Fallback,
            Shifted::Part => return Shift::Behind(prev),
            Shifted::Whole => {}
        }
        let Some(next) = self.sk.rtx_queue.get(i) else {
            return Shift::Behind(prev);
        };
        let before_it = &self.sk.rtx_queue[prev];
        if next.len > 0
            && next.sacked & Sacked::TAGBITS == Sacked::SACKED_ACKED
            && mss == tcp_skb_seglen(next)
            && tcp_skb_can_collapse(before_it, next)
        {
            let (len, pcount) = (next.len, next.pcount());
            self.tcp_skb_shift(prev, pcount, len, mss, false);
        }
        Shift::Behind(prev)
    }

    /// Moves `len` bytes, `pcount` segments, of the buffer behind `prev` to it, if they fit, and tags them.
    fn tcp_skb_shift(
        &mut self,
        prev: usize,
        pcount: u32,
        len: u32,
        mss: u32,
        dup_sack: bool,
    ) -> Shifted {
        let queue = &self.sk.rtx_queue;
        let (to, from) = (&queue[prev], &queue[prev + 1]);
        if to.len + len >= SHIFT_MAX
            || to.pcount() + pcount > u32::from(u16::MAX)
            || !skb_can_shift(to, from, len)
        {
            return Shifted::Nothing;
        }
        let whole = len == from.len;
        let mut range = Range::of(from);
        range.pcount = pcount;
        range.end_seq = range.seq.wrapping_add(len);
        let (sacked, pcounts, end_seq) = (from.sacked, from.pcount(), from.end_seq);
        // What is tagged has the earlier buffer's tags from now on.
        self.tcp_sacktag_one(&range, dup_sack);
        tcp_rate_skb_delivered(
            &mut self.sk.first_tx_mstamp,
            &mut self.sk.rtx_queue[prev + 1],
            self.rs,
        );
        let highest = self.sk.highest_sack == range.seq;
        tcp_shift_payload(self.sk, self.cx, Queue::Rtx, prev, len);
        if highest {
            self.sk.highest_sack = if whole { end_seq } else { range.end_seq };
        }
        let to = &mut self.sk.rtx_queue[prev];
        to.gso_segs = to.pcount() + pcount;
        to.gso_size = mss;
        to.sacked |= sacked & Sacked::EVER_RETRANS;
        if whole {
            return Shifted::Whole;
        }
        self.sk.rtx_queue[prev + 1].gso_segs = pcounts - pcount;
        Shifted::Part
    }

    /// What is newly SACKed, counted; the tags that a buffer has then.
    fn tcp_sacktag_one(&mut self, range: &Range, dup_sack: bool) -> Sacked {
        let Range {
            mut sacked,
            seq,
            end_seq,
            pcount,
            xmit_time,
        } = *range;
        let (sk, state) = (&mut *self.sk, &mut *self.state);
        let retrans = Sacked::SACKED_RETRANS | Sacked::EVER_RETRANS | Sacked::REPAIRED;
        // A retransmission of it was for nothing.
        if dup_sack && sacked.intersects(retrans) {
            if sk.undo_marker != 0 && sk.undo_retrans > 0 && after(end_seq, sk.undo_marker) {
                sk.undo_retrans = (sk.undo_retrans - pcount as i32).max(0);
            }
            if sacked.contains(Sacked::SACKED_ACKED) && before(seq, state.reord) {
                state.reord = seq;
            }
        }
        if !after(end_seq, sk.snd_una) {
            return sacked;
        }
        if !sacked.contains(Sacked::SACKED_ACKED) {
            tcp_rack_advance(sk, self.cx.now, sacked, end_seq, xmit_time);
            if sacked.contains(Sacked::SACKED_RETRANS) {
                // Not marked lost: the retransmission is believed to be on its way still.
                if sacked.contains(Sacked::LOST) {
                    sacked -= Sacked::LOST | Sacked::SACKED_RETRANS;
                    sk.lost_out -= pcount;
                    sk.retrans_out -= pcount;
                }
            } else {
                if !sacked.intersects(retrans) {
                    // A hole closed by the original: reordering.
                    if before(seq, tcp_highest_sack_seq(sk)) && before(seq, state.reord) {
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
                    sacked -= Sacked::LOST;
                    sk.lost_out -= pcount;
                }
            }
            sacked |= Sacked::SACKED_ACKED;
            state.flag |= AckFlag::DATA_SACKED;
            sk.sacked_out += pcount;
            state.sack_delivered += pcount;
        }
        // And is not in flight any more.
        if dup_sack && sacked.contains(Sacked::SACKED_RETRANS) {
            sacked -= Sacked::SACKED_RETRANS;
            sk.retrans_out -= pcount;
        }
        sacked
    }
}
