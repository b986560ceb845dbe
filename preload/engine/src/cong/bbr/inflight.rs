//! How much may be in flight: the bandwidth-delay product and what super-frames, late acks and recovery add or take
//! (draft §4.2.3; Linux `bbr_bdp`, `bbr_quantization_budget`, `bbr_set_cwnd`).

use super::mode::Mode;
use super::{BBR_SCALE, BW_SCALE, BW_UNIT, Bbr};
use crate::rate::RateSample;
use crate::sock::{CaState, TCP_INIT_CWND, TcpSock};
use crate::time::{Instant, NSEC_PER_USEC};
use crate::tso::PACING_SHIFT;

/// Fewest segments of the window outside of recovery: with so few acks still flow.
pub(super) const MIN_CWND: u32 = 4;
/// Below this rate, bytes a second (1.2 Mbit/s), segments go singly.
const MIN_TSO_RATE: u64 = 1_200_000 >> 3;
/// Most payload of a super-frame: 64 KiB less 1 and Linux's MAX_TCP_HEADER.
const TSO_MAX_BYTES: u64 = 65_536 - 1 - 320;
const TSO_MAX_SEGS: u32 = 0x7f;

/// Fewest segments of a super-frame (Linux `bbr_min_tso_segs`).
pub(in crate::cong) const fn min_tso_segs(sk: &TcpSock) -> u32 {
    if sk.pacing_rate < MIN_TSO_RATE { 1 } else { 2 }
}

/// Segments of a super-frame at the present rate.
fn tso_segs_goal(sk: &TcpSock) -> u32 {
    let bytes = (sk.pacing_rate >> PACING_SHIFT).min(TSO_MAX_BYTES) as u32;
    (bytes / sk.mss_cache.max(1))
        .max(min_tso_segs(sk))
        .min(TSO_MAX_SEGS)
}

impl Bbr {
    /// The bandwidth-delay product times `gain`, in segments.
    pub(super) fn bdp(&self, bw: u32, gain: u32) -> u32 {
        // No sample yet, not even of the handshake.
        if self.min_rtt_us == u32::MAX {
            return TCP_INIT_CWND;
        }
        let product = u128::from(bw) * u128::from(self.min_rtt_us) * u128::from(gain);
        let segs = ((product >> BBR_SCALE) + u128::from(BW_UNIT) - 1) >> BW_SCALE;
        u32::try_from(segs).unwrap_or(u32::MAX)
    }

    /// Room for super-frames on their way in both hosts, an even number for peers that ack every other segment, and the
    /// means to ask for more even where the product is small.
    fn quantized(&self, sk: &TcpSock, cwnd: u32) -> u32 {
        let cwnd = cwnd.saturating_add(3 * tso_segs_goal(sk));
        let cwnd = cwnd.saturating_add(1) & !1;
        if self.mode == Mode::ProbeBw && self.cycle.probes_up() {
            cwnd.saturating_add(2)
        } else {
            cwnd
        }
    }

    /// Segments in flight at `bw` times `gain`.
    pub(super) fn inflight(&self, sk: &TcpSock, bw: u32, gain: u32) -> u32 {
        self.quantized(sk, self.bdp(bw, gain))
    }

    /// Segments that will be in flight when pacing lets the next one go, of `inflight_now` (Linux
    /// `bbr_packets_in_net_at_edt`).
    pub(super) fn in_net_at_departure(&self, sk: &TcpSock, inflight_now: u32, now: Instant) -> u32 {
        let us = sk.tcp_wstamp_ns.since(now) / NSEC_PER_USEC;
        let delivered = (u128::from(self.bandwidth()) * u128::from(us)) >> BW_SCALE;
        let mut then = inflight_now;
        if self.pacing_gain > super::BBR_UNIT {
            then = then.saturating_add(tso_segs_goal(sk));
        }
        then.saturating_sub(u32::try_from(delivered).unwrap_or(u32::MAX))
    }

    pub(super) fn set_cwnd(&mut self, sk: &mut TcpSock, rs: &RateSample, bw: u32) {
        if rs.acked_sacked > 0 {
            sk.snd_cwnd = self.next_cwnd(sk, rs, bw).min(sk.snd_cwnd_clamp);
        }
        if self.mode == Mode::ProbeRtt {
            sk.snd_cwnd = sk.snd_cwnd.min(MIN_CWND);
        }
    }

    /// Towards the target, by at most what was acked.
    fn next_cwnd(&mut self, sk: &TcpSock, rs: &RateSample, bw: u32) -> u32 {
        let acked = rs.acked_sacked;
        let cwnd = self.recover_or_restore(sk, rs);
        if self.packet_conservation {
            return cwnd.max(sk.packets_in_flight().saturating_add(acked));
        }
        let mut target = self.bdp(bw, self.cwnd_gain);
        if self.full_pipe.reached {
            target = target.saturating_add(self.aggregation.extra_cwnd(bw));
        }
        let target = self.quantized(sk, target);
        let grown = cwnd.saturating_add(acked);
        let cwnd = if self.full_pipe.reached {
            grown.min(target)
        } else if cwnd < target || sk.delivered < TCP_INIT_CWND {
            grown
        } else {
            cwnd
        };
        cwnd.max(MIN_CWND)
    }

    /// The window after losses; recovery begins with packet conservation and ends with the window of before (Linux
    /// `bbr_set_cwnd_to_recover_or_restore`).
    fn recover_or_restore(&mut self, sk: &TcpSock, rs: &RateSample) -> u32 {
        let (was, is) = (self.prev_ca_state, sk.ca_state);
        self.prev_ca_state = is;
        // What is lost left the network: the window goes with it.
        let cwnd = if rs.losses > 0 {
            sk.snd_cwnd.saturating_sub(rs.losses).max(1)
        } else {
            sk.snd_cwnd
        };
        if is == CaState::Recovery && was != CaState::Recovery {
            self.packet_conservation = true;
            // A round from now on.
            self.next_rtt_delivered = sk.delivered;
            sk.packets_in_flight().saturating_add(rs.acked_sacked)
        } else if was >= CaState::Recovery && is < CaState::Recovery {
            self.packet_conservation = false;
            cwnd.max(self.prior_cwnd)
        } else {
            cwnd
        }
    }
}
