use alloc::vec::Vec;

use super::*;
use crate::sysctl::Sysctl;
use crate::time::{NSEC_PER_MSEC, NSEC_PER_SEC, NSEC_PER_USEC};

const MSS: u32 = 1_000;
const RTT_US: u32 = 10_000;

/// A connection over a path with a round-trip time of 10 ms, acked once a round.
struct Path {
    sk: TcpSock,
    bbr: Bbr,
    now: Instant,
}

impl Path {
    fn new() -> Self {
        let mut sk = TcpSock::new(false, 0, &Sysctl::default());
        sk.mss_cache = MSS;
        sk.srtt_us = RTT_US << 3;
        sk.rtt_min.s[0].1 = RTT_US;
        sk.app_limited = 0;
        sk.delivered = 1;
        let now = Instant(100 * NSEC_PER_SEC);
        sk.delivered_mstamp = now;
        let mut bbr = Bbr::default();
        bbr.init(&mut sk, now, 1);
        Self { sk, bbr, now }
    }

    /// A sample of a round that delivers `segs`, with as many in flight afterwards.
    fn sample(&mut self, segs: u32) -> RateSample {
        self.now = self.now + u64::from(RTT_US) * NSEC_PER_USEC;
        let prior_delivered = self.sk.delivered;
        self.sk.delivered += segs;
        self.sk.delivered_mstamp = self.now;
        self.sk.packets_out = segs;
        RateSample {
            prior_delivered,
            delivered: segs as i32,
            interval_us: i64::from(RTT_US),
            rtt_us: i64::from(RTT_US),
            acked_sacked: segs,
            prior_in_flight: segs,
            ..RateSample::default()
        }
    }

    fn ack(&mut self, rs: &RateSample) {
        self.bbr.on_ack(&mut self.sk, rs, self.now);
        assert!(self.sk.pacing_rate > 0 && self.sk.snd_cwnd > 0);
    }

    fn round(&mut self, segs: u32) {
        let rs = self.sample(segs);
        self.ack(&rs);
    }

    /// PROBE_BW at 100 segments a round.
    fn steady() -> Self {
        let mut p = Self::new();
        for segs in [25, 50, 100, 100, 100, 100] {
            p.round(segs);
        }
        p.sk.packets_out = 90;
        for _ in 0..6 {
            p.round(100);
        }
        assert_eq!(p.bbr.mode, Mode::ProbeBw);
        p
    }
}

/// Segments a round as a bandwidth.
fn bw(segs: u32) -> u32 {
    bandwidth(segs, RTT_US.into())
}

#[test]
fn gains() {
    assert_eq!((HIGH_GAIN, DRAIN_GAIN, CWND_GAIN), (739, 88, 512));
    let gains: Vec<u32> = (0..8).map(|n| Cycle::at(n).gain()).collect();
    assert_eq!(gains, [320, 192, 256, 256, 256, 256, 256, 256]);
}

#[test]
fn it_begins_with_the_first_window_in_a_round_trip_at_the_high_gain() {
    let p = Path::new();
    assert!(p.sk.opts.pacing_needed);
    assert_eq!(p.sk.snd_ssthresh, TCP_INFINITE_SSTHRESH);
    // 10 segments of 1000 bytes in 10 ms, times 2.887, less 1 %.
    let expected = 1_000_000 * u64::from(HIGH_GAIN) / 256 * 99 / 100;
    assert!(p.sk.pacing_rate.abs_diff(expected) < expected / 10_000);
    let mut sk = TcpSock::new(false, 0, &Sysctl::default());
    sk.opts.max_pacing_rate = 5_000;
    let mut bbr = Bbr::default();
    bbr.init(&mut sk, Instant(1), 1);
    assert_eq!(sk.pacing_rate, 5_000);
    assert!(!bbr.has_seen_rtt);
    assert_eq!(bbr.bdp(bw(1), BBR_UNIT), 10, "no round-trip time yet");
}

/// As seen on Linux: TCP_CC_INFO right after connect(2) and accept(2).
#[test]
fn gains_before_the_first_ack() {
    let p = Path::new();
    assert_eq!(p.bbr.info(&p.sk)[3..], [0, 0]);
    let mut p = Path::new();
    p.bbr = Bbr::default();
    p.round(1);
    assert_eq!(p.sk.app_limited, 3);
    p.bbr.init(&mut p.sk, p.now, 1);
    assert_eq!(p.bbr.info(&p.sk)[3..], [BBR_UNIT, BBR_UNIT]);
    assert_eq!(p.bbr.mode, Mode::Startup);
    p.round(1);
    assert_eq!(p.bbr.info(&p.sk)[3..], [HIGH_GAIN, HIGH_GAIN]);
}

#[test]
fn startup_doubles_until_the_bandwidth_is_flat_for_three_rounds() {
    let mut p = Path::new();
    for segs in [10, 20, 40, 80, 100] {
        p.round(segs);
        assert_eq!(p.bbr.mode, Mode::Startup);
        assert_eq!((p.bbr.pacing_gain, p.bbr.cwnd_gain), (HIGH_GAIN, HIGH_GAIN));
    }
    // A quarter more is growth, less is not.
    p.round(124);
    p.round(110);
    let mut limited = p.sample(20);
    limited.is_app_limited = true;
    p.ack(&limited);
    assert_eq!(p.bbr.mode, Mode::Startup, "the program was the limit");
    let rate = p.sk.pacing_rate;
    let rs = p.sample(120);
    p.sk.packets_out = 300;
    p.ack(&rs);
    assert_eq!(p.bbr.full_pipe.flat_rounds, 3);
    assert_eq!(p.bbr.mode, Mode::Drain);
    assert_eq!(p.bbr.pacing_gain, DRAIN_GAIN);
    assert!(p.sk.pacing_rate < rate / 3);
    // The product and the super-frames of STARTUP's rate.
    assert!((124..=230).contains(&p.sk.snd_ssthresh));
    // Still a queue; then none.
    let rs = p.sample(120);
    p.sk.packets_out = 300;
    p.ack(&rs);
    assert_eq!(p.bbr.mode, Mode::Drain);
    let rs = p.sample(120);
    p.sk.packets_out = 100;
    p.ack(&rs);
    assert_eq!(p.bbr.mode, Mode::ProbeBw);
    assert_eq!(p.bbr.cwnd_gain, CWND_GAIN);
}

#[test]
fn the_rate_does_not_fall_before_the_pipe_is_full() {
    let mut p = Path::new();
    let rate = p.sk.pacing_rate;
    p.round(3);
    assert_eq!(p.sk.pacing_rate, rate);
    p.round(50);
    let expected = bytes_per_sec(&p.sk, bw(50), HIGH_GAIN);
    assert_eq!(p.sk.pacing_rate, expected);
}

#[test]
fn a_rate_never_rounds_to_nothing() {
    let mut p = Path::steady();
    for _ in 0..20 {
        let mut rs = p.sample(1);
        rs.interval_us = 40_000_000;
        p.ack(&rs);
    }
    assert_eq!(p.bbr.bandwidth(), 1);
    assert!(p.sk.pacing_rate > 0);
    assert!((4..=6).contains(&p.sk.snd_cwnd));
}

#[test]
fn the_cycle_begins_anywhere_but_where_it_drains() {
    let mut p = Path::steady();
    let mut seen = [0; 8];
    for _ in 0..700 {
        p.bbr.enter_probe_bw(&p.sk);
        seen[usize::from(p.bbr.cycle.phase())] += 1;
    }
    assert_eq!(seen[1], 0);
    assert!(
        seen.iter().enumerate().all(|(n, s)| n == 1 || *s > 50),
        "{seen:?}"
    );
}

#[test]
fn the_cycle_asks_for_more_and_drains_what_that_left() {
    let mut p = Path::steady();
    while p.bbr.cycle.phase() != 0 {
        p.round(100);
    }
    assert_eq!(p.bbr.pacing_gain, 320);
    // Not yet in flight: it goes on, however long.
    for _ in 0..3 {
        p.round(100);
        assert_eq!(p.bbr.pacing_gain, 320);
    }
    let target = p.bbr.inflight(&p.sk, bw(100), 320);
    let mut rs = p.sample(100);
    rs.prior_in_flight = target;
    p.ack(&rs);
    assert_eq!(p.bbr.pacing_gain, 192);
    assert_eq!(
        p.sk.pacing_rate,
        bytes_per_sec(&p.sk, p.bbr.bandwidth(), 192)
    );
    // A loss ends the asking too, the drained pipe the draining before its time.
    let mut rs = p.sample(0);
    rs.prior_in_flight = 50;
    p.ack(&rs);
    assert_eq!(p.bbr.cycle.phase(), 2);
    while p.bbr.cycle.phase() != 0 {
        p.round(100);
    }
    p.round(100);
    let mut rs = p.sample(100);
    rs.losses = 1;
    p.ack(&rs);
    assert_eq!(p.bbr.pacing_gain, 192);
}

#[test]
fn the_window_is_twice_the_product_and_what_frames_need() {
    let mut p = Path::steady();
    for _ in 0..20 {
        p.round(100);
    }
    // 2 * 100, three super-frames (9 segments each at about 10 MB/s), even, perhaps 2 for the probe.
    let budget = p.bbr.inflight(&p.sk, p.bbr.bandwidth(), CWND_GAIN);
    let extra = p.bbr.aggregation.extra_cwnd(p.bbr.bandwidth());
    assert!((200..=240).contains(&budget), "{budget}");
    assert!(p.sk.snd_cwnd >= budget && p.sk.snd_cwnd <= budget + extra + 2);
}

#[test]
fn app_limited_samples_only_raise_the_estimate() {
    let mut p = Path::steady();
    for segs in [10, 20] {
        let mut rs = p.sample(segs);
        rs.is_app_limited = true;
        p.ack(&rs);
    }
    assert_eq!(p.bbr.bandwidth(), bw(100));
    let mut rs = p.sample(200);
    rs.is_app_limited = true;
    p.ack(&rs);
    assert_eq!(p.bbr.bandwidth(), bw(200));
    // Ten rounds later it is forgotten.
    for _ in 0..11 {
        p.round(100);
    }
    assert_eq!(p.bbr.bandwidth(), bw(100));
}

#[test]
fn probe_rtt_empties_the_pipe_for_200_ms_every_ten_seconds() {
    let mut p = Path::steady();
    let begun = p.now;
    let mut rounds = 0;
    while p.bbr.mode == Mode::ProbeBw {
        let mut rs = p.sample(100);
        rs.rtt_us += 5;
        p.ack(&rs);
        rounds += 1;
        assert!(rounds < 2_000, "never");
    }
    assert!(p.now - begun < 10 * NSEC_PER_SEC);
    assert!(p.now > Instant(110 * NSEC_PER_SEC));
    assert_eq!(p.bbr.mode, Mode::ProbeRtt);
    assert_eq!((p.bbr.pacing_gain, p.bbr.cwnd_gain), (BBR_UNIT, BBR_UNIT));
    assert_eq!(p.sk.snd_cwnd, 4);
    assert_eq!(p.bbr.min_rtt_us, RTT_US + 5, "the old one has expired");
    let before = p.bbr.prior_cwnd;
    assert!(before > 200);
    assert!(p.sk.app_limited != 0);
    // The pipe empties, a round and 200 ms pass.
    p.round(4);
    let empty = p.now;
    while p.bbr.mode == Mode::ProbeRtt {
        assert_eq!(p.sk.snd_cwnd, 4);
        let mut rs = p.sample(4);
        rs.is_app_limited = true;
        p.ack(&rs);
    }
    assert_eq!((p.now - empty) / NSEC_PER_MSEC, 210);
    assert_eq!(p.bbr.mode, Mode::ProbeBw);
    assert!(p.sk.snd_cwnd >= before.min(200));
    assert_eq!(p.bbr.min_rtt_us, RTT_US);
}

#[test]
fn idleness_that_the_program_chose_asks_for_no_probe_rtt() {
    let mut p = Path::steady();
    p.now = p.now + 11 * NSEC_PER_SEC;
    p.sk.packets_out = 0;
    p.sk.app_limited = 7;
    p.sk.pacing_rate = 1;
    p.bbr.tx_start(&mut p.sk, p.now);
    assert!(p.bbr.idle_restart);
    assert_eq!(p.sk.pacing_rate, bytes_per_sec(&p.sk, bw(100), BBR_UNIT));
    p.round(10);
    assert_eq!(p.bbr.mode, Mode::ProbeBw);
    assert!(!p.bbr.idle_restart);
}

#[test]
fn recovery_conserves_packets_for_a_round_and_gives_the_window_back() {
    let mut p = Path::steady();
    let before = p.sk.snd_cwnd;
    p.bbr.save_cwnd(&p.sk);
    p.sk.ca_state = CaState::Recovery;
    let mut rs = p.sample(0);
    (rs.acked_sacked, rs.delivered, rs.losses) = (2, 2, 3);
    rs.prior_delivered = 0;
    p.sk.packets_out = 60;
    p.ack(&rs);
    assert!(p.bbr.packet_conservation);
    assert_eq!(p.sk.snd_cwnd, 62);
    p.ack(&rs);
    assert_eq!(
        p.sk.snd_cwnd, 62,
        "59 after the losses, at least what is in flight and acked"
    );
    // The next round grows by what is acked; the window from before comes back in the end.
    rs.losses = 0;
    rs.prior_delivered = p.sk.delivered;
    p.ack(&rs);
    assert!(!p.bbr.packet_conservation);
    assert_eq!(p.sk.snd_cwnd, 64);
    p.sk.ca_state = CaState::Open;
    p.ack(&rs);
    assert!(p.sk.snd_cwnd >= before.min(200));
}

#[test]
fn a_timeout_keeps_the_model_and_the_window_to_return_to() {
    let mut p = Path::steady();
    let (before, ssthresh) = (p.sk.snd_cwnd, p.sk.snd_ssthresh);
    p.bbr.save_cwnd(&p.sk);
    p.bbr.on_loss_state(&p.sk);
    p.sk.ca_state = CaState::Loss;
    p.sk.snd_cwnd = 1;
    p.round(1);
    assert_eq!(p.sk.snd_cwnd, 4);
    assert_eq!(p.bbr.bandwidth(), bw(100));
    p.sk.ca_state = CaState::Open;
    p.round(1);
    assert!(p.sk.snd_cwnd >= before.min(200));
    assert_eq!(p.sk.snd_ssthresh, ssthresh);
}

#[test]
fn an_undone_loss_begins_the_search_for_a_full_pipe_anew() {
    let mut p = Path::new();
    for segs in [100, 100, 100] {
        p.round(segs);
    }
    assert_eq!(p.bbr.full_pipe.flat_rounds, 2);
    p.bbr.undo(&p.sk);
    p.round(100);
    assert_eq!(p.bbr.mode, Mode::Startup);
    assert_eq!(p.bbr.full_pipe.flat_rounds, 0);
}

#[test]
fn two_lossy_intervals_at_one_rate_are_a_policer() {
    let mut p = Path::steady();
    let mut rounds = 0;
    while p.bbr.policer.rate().is_none() {
        let mut rs = p.sample(50);
        rs.losses = 15;
        p.sk.lost += 15;
        p.ack(&rs);
        rounds += 1;
        assert!(rounds < 20, "not found");
    }
    assert!(rounds >= 8, "{rounds}");
    assert!(p.bbr.bandwidth().abs_diff(bw(50)) < bw(50) / 8);
    assert_eq!(p.bbr.pacing_gain, BBR_UNIT);
    // For 48 rounds of PROBE_BW.
    let mut kept = 0;
    while p.bbr.policer.rate().is_some() {
        p.round(50);
        assert!(p.bbr.policer.rate().is_none() || p.bbr.pacing_gain == BBR_UNIT);
        kept += 1;
    }
    assert_eq!(kept, 48);
}

#[test]
fn neither_few_losses_nor_a_program_that_pauses_are_a_policer() {
    let mut p = Path::steady();
    for _ in 0..60 {
        let mut rs = p.sample(100);
        rs.losses = 2;
        p.sk.lost += 2;
        p.ack(&rs);
    }
    assert_eq!(p.bbr.policer.rate(), None);
    for n in 0..60 {
        let mut rs = p.sample(100);
        rs.losses = 30;
        rs.is_app_limited = n % 3 == 0;
        p.sk.lost += 30;
        p.ack(&rs);
    }
    assert_eq!(p.bbr.policer.rate(), None);
}

#[test]
fn bundled_acks_widen_the_window_for_up_to_ten_rounds() {
    let mut p = Path::steady();
    for _ in 0..12 {
        p.round(100);
    }
    let extra = |p: &Path| p.bbr.aggregation.extra_cwnd(p.bbr.bandwidth());
    let steady = extra(&p);
    // 150 at once, beyond what the rate explains.
    let mut rs = p.sample(150);
    rs.interval_us = 15_000;
    p.ack(&rs);
    assert!(extra(&p) >= 50 && extra(&p) >= steady, "{}", extra(&p));
    let bundled = extra(&p);
    p.round(100);
    assert_eq!(extra(&p), bundled);
    for _ in 0..10 {
        p.round(90);
    }
    assert!(extra(&p) <= bundled);
}

#[test]
fn info_is_the_model() {
    let p = Path::steady();
    let [lo, hi, min_rtt, pacing_gain, cwnd_gain] = p.bbr.info(&p.sk);
    // 100 segments of 1000 bytes in 10 ms.
    assert!(lo.abs_diff(10_000_000) < 1_000);
    assert_eq!((hi, min_rtt, cwnd_gain), (0, RTT_US, 512));
    assert!([192, 256, 320].contains(&pacing_gain));
}
