use alloc::vec::Vec;
use core::net::Ipv4Addr;

use sidewire_uapi::TcpState;

use super::*;
use crate::testbench::{Bench, MSS};
use crate::testpeer::{Peer, Seg};
use crate::time::NSEC_PER_MSEC;

fn key(n: u32) -> MetricsKey {
    MetricsKey {
        saddr: Ipv4Addr::new(192, 0, 2, 1).into(),
        daddr: Ipv4Addr::from(n).into(),
    }
}

fn table() -> MetricsTable {
    MetricsTable::new(TupleHash::new([4; 16]))
}

fn cookie() -> FastOpen {
    FastOpen::with_cookie(&[1; 8], false).unwrap()
}

fn set(m: &mut MetricsTable, mss: u16, cookie: Option<FastOpen>, try_exp: u8) {
    let to = (&key(1), &RouteMetrics::NONE);
    m.set_cookie(to, mss, cookie, false, try_exp, Instant(1));
}

#[test]
fn fo_28_a_cookie_stays_until_another_comes() {
    let mut m = table();
    assert!(m.cookie(&key(1)).1.is_request());
    set(&mut m, 1460, Some(cookie()), 0);
    set(&mut m, 0, None, 0);
    assert_eq!(m.cookie(&key(1)), (1460, cookie()));
}

#[test]
fn fo_29_the_experimental_option_is_tried_once() {
    let mut m = table();
    set(&mut m, 0, None, 1);
    assert!(m.cookie(&key(1)).1.experimental);
    set(&mut m, 0, None, 2);
    assert!(!m.cookie(&key(1)).1.experimental);
    set(&mut m, 0, None, 1);
    assert!(!m.cookie(&key(1)).1.experimental);
}

fn learned(m: &mut MetricsTable) -> Vec<(MetricsKey, PeerMetrics)> {
    let mut told = Vec::new();
    m.take_learned(|key, known| told.push((key, known)));
    told
}

#[test]
fn fo_28_what_is_new_is_told_once_and_what_others_tell_counts() {
    let mut m = table();
    set(&mut m, 1460, Some(cookie()), 0);
    set(&mut m, 1460, None, 0);
    let first = learned(&mut m);
    set(&mut m, 1460, Some(cookie()), 0);
    assert!(learned(&mut m).is_empty());
    let known = PeerMetrics {
        stamp: Instant(1),
        mss: 1460,
        cookie: Some(cookie()),
        ..PeerMetrics::default()
    };
    assert_eq!(first, [(key(1), known)]);

    let mut other = table();
    other.learn(&key(1), &known, Instant(4));
    assert_eq!(other.cookie(&key(1)), (1460, cookie()));
    assert!(learned(&mut other).is_empty(), "no news");
}

#[test]
fn of_two_who_know_a_peer_the_younger_knows_better() {
    let with = |at: u64, rtt_us: u32| PeerMetrics {
        path: PathMetrics {
            rtt_us,
            ..PathMetrics::NONE
        },
        stamp: Instant(at),
        ..PeerMetrics::default()
    };
    let mut known = PeerMetrics {
        mss: 1460,
        cookie: Some(cookie()),
        ..with(5, 500)
    };
    known.learn(&with(4, 400));
    assert_eq!((known.path.rtt_us, known.stamp), (500, Instant(5)));
    known.learn(&with(5, 600));
    assert_eq!(known.path.rtt_us, 600, "the same, gone on");
    assert_eq!((known.mss, known.cookie), (1460, Some(cookie())));
    known.learn(&PeerMetrics {
        cookie: FastOpen::with_cookie(&[2; 8], false),
        ..with(3, 0)
    });
    assert_eq!(known.cookie, FastOpen::with_cookie(&[2; 8], false));

    let mut m = table();
    m.learn(&key(1), &with(100, 800), Instant(7));
    let stamp = m.find(&key(1)).map(|b| b.known.stamp);
    assert_eq!(stamp, Some(Instant(7)), "nobody is ahead of time");
}

#[test]
fn the_table_is_bounded_and_the_youngest_stay() {
    let mut m = table();
    for i in 0..2 * METRICS_MAX as u32 {
        m.insert(&key(i), PathMetrics::NONE, Instant(u64::from(i)));
        assert!(m.find(&key(i)).is_some());
    }
    let peers: usize = m.sets.values().map(Vec::len).sum();
    assert!(peers <= METRICS_MAX && m.sets.values().all(|set| set.len() <= WAYS));
    let of_set = m.set(&key(0));
    let younger = (1..2 * METRICS_MAX as u32).filter(|&i| m.set(&key(i)) == of_set);
    assert!(younger.count() >= WAYS && m.find(&key(0)).is_none());
}

#[test]
fn who_meets_many_peers_asks_and_tells_of_few() {
    let mut m = table();
    let at = |ms: u64| Instant(ms * NSEC_PER_MSEC);
    let asked = (0..100).filter(|&i| m.asks(&key(i), false, at(10)));
    assert_eq!(asked.count(), SHARED_PER_SECOND as usize);
    assert!(m.asks(&key(1), true, at(10)), "for a fast open always");
    assert!(!m.asks(&key(1), false, at(999)) && m.asks(&key(1), false, at(1_000)));
    m.insert(&key(2), PathMetrics::NONE, at(1_500));
    assert!(!m.asks(&key(2), false, at(2_499)), "known well enough");
    assert!(m.asks(&key(2), false, at(2_500)));
}

/// A connection that ends, `ready` for it, with the sysctl `tcp_no_ssthresh_metrics_save` off.
fn ends(b: &mut Bench, ready: impl FnOnce(&mut TcpSock)) {
    b.stack.sh.sysctl.tcp_no_ssthresh_metrics_save = false;
    ready(&mut b.sk);
    b.with(|sk, cx| tcp_update_metrics(sk, cx));
}

fn kept(b: &Bench) -> Option<PathMetrics> {
    let key = MetricsKey::of(&b.sk.tuple);
    b.stack.sh.metrics.find(&key).map(|block| block.known.path)
}

#[test]
fn a_longer_round_trip_counts_at_once_a_shorter_one_by_an_eighth() {
    let mut b = Bench::new();
    let end = |b: &mut Bench, srtt_us, mdev_us| {
        ends(b, |sk| (sk.srtt_us, sk.mdev_us) = (srtt_us, mdev_us));
        let path = kept(b).unwrap();
        (path.rtt_us, path.rttvar_us)
    };
    assert_eq!(end(&mut b, 800_000, 1_000), (800_000, 400_000));
    // 800 - 80 = 720 ms: 90 ms less; the deviation falls by a quarter of what is missing to 360 ms.
    assert_eq!(end(&mut b, 80_000, 1_000), (710_000, 390_000));
    assert_eq!(end(&mut b, 900_000, 1_000), (900_000, 316_250));
    // Greater than half of the difference.
    assert_eq!(end(&mut b, 900_000, 500_000), (900_000, 500_000));
}

#[test]
fn a_connection_that_ends_backed_off_forgets_the_time_alone() {
    let mut b = Bench::new();
    ends(&mut b, |sk| sk.backoff = 1);
    assert_eq!(kept(&b), None, "nothing is made for it");
    ends(&mut b, |sk| sk.backoff = 0);
    let before = kept(&b).unwrap();
    ends(&mut b, |sk| sk.backoff = 1);
    let after = PathMetrics {
        rtt_us: 0,
        ..before
    };
    assert!(before.rtt_us != 0);
    assert_eq!(kept(&b), Some(after));
    ends(&mut b, |sk| (sk.backoff, sk.srtt_us) = (0, 0));
    assert_eq!(kept(&b), Some(after));
}

#[test]
fn the_window_and_its_threshold_are_kept_as_far_as_they_say_something() {
    let mut b = Bench::new();
    let end = |b: &mut Bench, cwnd, ssthresh, state| {
        ends(b, |sk| {
            (sk.snd_cwnd, sk.snd_ssthresh, sk.ca_state) = (cwnd, ssthresh, state);
        });
        let path = kept(b).unwrap();
        (path.cwnd, path.ssthresh)
    };
    let never = TCP_INFINITE_SSTHRESH;
    assert_eq!(end(&mut b, 40, never, CaState::Open), (40, 0));
    assert_eq!(end(&mut b, 30, never, CaState::Open), (40, 0));
    // Congestion avoidance.
    assert_eq!(end(&mut b, 20, 8, CaState::Open), (30, 10));
    assert_eq!(end(&mut b, 12, 11, CaState::Open), (21, 11));
    // Within slow start, or recovery: ssthresh for the window, and it rises only.
    assert_eq!(end(&mut b, 5, 13, CaState::Open), (17, 13));
    assert_eq!(end(&mut b, 90, 9, CaState::Recovery), (13, 13));
    // The first slow start: half of the window, where there was an end of one before.
    assert_eq!(end(&mut b, 20, never, CaState::Open), (20, 13));
    assert_eq!(end(&mut b, 40, never, CaState::Open), (40, 20));

    b.stack.sh.metrics = table();
    b.with(|sk, cx| {
        cx.sh.sysctl.tcp_no_ssthresh_metrics_save = true;
        sk.snd_ssthresh = 10;
        tcp_update_metrics(sk, cx);
    });
    assert_eq!(kept(&b).map(|p| (p.cwnd, p.ssthresh)), Some((20, 0)));
}

#[test]
fn reordering_is_kept_from_slow_start_after_a_loss() {
    let mut b = Bench::new();
    let end = |b: &mut Bench, reordering, cwnd, ssthresh| {
        ends(b, |sk| {
            (sk.reordering, sk.snd_cwnd, sk.snd_ssthresh) = (reordering, cwnd, ssthresh);
        });
        kept(b).unwrap().reordering
    };
    assert_eq!(end(&mut b, 9, 10, TCP_INFINITE_SSTHRESH), 0);
    assert_eq!(end(&mut b, 9, 10, 10), 0);
    assert_eq!(end(&mut b, 3, 9, 10), 0, "the sysctl's");
    assert_eq!(end(&mut b, 9, 9, 10), 9);
    assert_eq!(end(&mut b, 8, 9, 10), 9);
}

#[test]
fn what_is_locked_stays_the_routes() {
    let route = PathMetrics {
        rtt_us: 100,
        rttvar_us: 50,
        ssthresh: 20,
        cwnd: 30,
        reordering: 5,
        locked: Locked::all(),
    };
    let mut b = Bench::new();
    b.sk.dst.as_mut().unwrap().metrics.path = route;
    for ssthresh in [TCP_INFINITE_SSTHRESH, 60, 200] {
        ends(&mut b, |sk| {
            (sk.snd_cwnd, sk.snd_ssthresh, sk.reordering) = (100, ssthresh, 9);
        });
    }
    ends(&mut b, |sk| sk.backoff = 1);
    assert_eq!(kept(&b), Some(route));
}

#[test]
fn what_was_not_touched_for_an_hour_is_the_routes_again() {
    let mut b = Bench::new();
    ends(&mut b, |sk| sk.srtt_us = 800_000);
    let key = MetricsKey::of(&b.sk.tuple);
    let mut route = RouteMetrics::NONE;
    route.path.reordering = 7;
    let hour = b.now + TCP_METRICS_TIMEOUT;
    let metrics = &mut b.stack.sh.metrics;
    assert!(tcp_peer_is_proven(metrics, &key, &route, hour));
    let to = (&key, &route);
    metrics.set_cookie(to, 1460, Some(cookie()), false, 0, hour);
    assert!(!tcp_peer_is_proven(metrics, &key, &route, hour + 1));
    assert_eq!(kept(&b), Some(route.path));
    assert_eq!(b.stack.sh.metrics.cookie(&key), (1460, cookie()), "stays");
}

#[test]
fn only_good_ends_are_kept_and_only_where_it_is_wanted() {
    let mut b = Bench::new();
    b.stack.sh.sysctl.tcp_no_metrics_save = true;
    ends(&mut b, |_| {});
    assert_eq!(kept(&b), None);
    b.stack.sh.sysctl.tcp_no_metrics_save = false;
    let dst = b.sk.dst.take();
    ends(&mut b, |_| {});
    assert_eq!(kept(&b), None, "no route");
    b.sk.dst = dst;
    let dst = b.sk.dst.as_mut().unwrap();
    let generation = core::mem::replace(&mut dst.generation, Dst::RESET);
    ends(&mut b, |_| {});
    assert_eq!(kept(&b), None, "let go of");
    b.sk.dst.as_mut().unwrap().generation = generation;
    b.with(crate::state::tcp_reset);
    assert_eq!(kept(&b), None, "reset");
    let mut b = Bench::new();
    b.sk.state = TcpState::FinWait2;
    b.with(|sk, cx| crate::timewait::tcp_time_wait(sk, cx, true, 1));
    assert!(kept(&b).is_some());
}

#[test]
fn whichever_side_ends_it() {
    let mut last_ack = Peer::last_ack();
    let seq = last_ack.sk().rcv_nxt;
    last_ack.send(Seg {
        seq,
        ..last_ack.ack_of(2)
    });
    for peer in [last_ack, Peer::time_wait()] {
        let key = MetricsKey::of(&peer.tuple);
        assert!(peer.bed.stack.sh.metrics.find(&key).is_some());
    }
}

#[test]
fn of_many_ends_in_a_second_some_are_told() {
    let mut b = Bench::new();
    for n in 0..100 {
        b.sk.tuple.remote = (Ipv4Addr::from(n), 80).into();
        ends(&mut b, |_| {});
        if n % 10 == 9 {
            let told = learned(&mut b.stack.sh.metrics).len();
            assert_eq!(told, [10, 6, 0, 0, 0, 0, 0, 0, 0, 0][n as usize / 10]);
        }
    }
    b.after_ms(1_000);
    ends(&mut b, |_| {});
    let told = learned(&mut b.stack.sh.metrics);
    assert_eq!(told[0].0, MetricsKey::of(&b.sk.tuple));
    assert_eq!(Some(told[0].1.path), kept(&b));
}

/// A connection that begins with this known of the peer.
fn begins(path: PathMetrics, srtt_us: u32, no_ssthresh: bool) -> Bench {
    let mut b = Bench::new();
    let key = MetricsKey::of(&b.sk.tuple);
    b.stack.sh.sysctl.tcp_no_ssthresh_metrics_save = no_ssthresh;
    b.stack.sh.metrics.insert(&key, path, b.now);
    (b.sk.srtt_us, b.sk.snd_ssthresh) = (srtt_us, 5);
    b.with(crate::timer::tcp_init_transfer_snd);
    b
}

#[test]
fn a_connection_begins_with_what_is_known() {
    let path = PathMetrics {
        ssthresh: 20,
        reordering: 9,
        cwnd: 5,
        ..PathMetrics::NONE
    };
    let b = begins(path, 1_000, false);
    assert_eq!((b.sk.snd_ssthresh, b.sk.reordering), (20, 9));
    assert_eq!((b.sk.snd_cwnd, b.sk.snd_cwnd_clamp), (10, u32::MAX));
    let b = begins(path, 1_000, true);
    assert_eq!(b.sk.snd_ssthresh, TCP_INFINITE_SSTHRESH);
    let locked = PathMetrics {
        locked: Locked::CWND,
        ..path
    };
    let b = begins(locked, 1_000, false);
    assert_eq!((b.sk.snd_cwnd, b.sk.snd_ssthresh), (5, 5));
    let nothing = begins(PathMetrics::NONE, 1_000, false);
    assert_eq!(nothing.sk.snd_ssthresh, TCP_INFINITE_SSTHRESH);
    assert_eq!(nothing.sk.reordering, 3);
}

#[test]
fn the_first_timeout_is_that_of_the_longer_round_trip() {
    let known = |rtt_ms: u32| PathMetrics {
        rtt_us: 8_000 * rtt_ms,
        ..PathMetrics::NONE
    };
    let handshake = begins(PathMetrics::NONE, 8_000, true);
    // 311 ms are 77 jiffies of 4 ms.
    let b = begins(known(311), 8_000, true);
    assert_eq!((b.sk.rto_us, b.sk.srtt_us), (3 * 308_000, 8_000));
    let b = begins(known(20), 8_000, true);
    assert_eq!(b.sk.rto_us, 220_000);
    let b = begins(known(1), 8_000, true);
    assert_eq!(b.sk.rto_us, handshake.sk.rto_us);
    // RFC 6298 §5.7.
    assert_eq!(begins(known(0), 0, true).sk.rto_us, 3_000_000);
    let b = begins(known(20), 0, true);
    assert_eq!((b.sk.rto_us, b.sk.srtt_us), (220_000, 0));
}

#[test]
fn a_locked_window_is_never_exceeded() {
    let path = PathMetrics {
        cwnd: 12,
        locked: Locked::CWND,
        ..PathMetrics::NONE
    };
    for name in ["reno", "cubic", "bbr"] {
        for ssthresh in [TCP_INFINITE_SSTHRESH, 10] {
            let mut b = Bench::new();
            b.sk.ca = crate::cong::CongestionControl::by_name(name).unwrap();
            let key = MetricsKey::of(&b.sk.tuple);
            b.stack.sh.metrics.insert(&key, path, b.now);
            b.with(crate::timer::tcp_init_transfer_snd);
            b.sk.snd_ssthresh = ssthresh;
            for _ in 0..40 {
                b.write(12 * MSS);
                b.after_ms(20);
                // BBR sends at its own pace.
                let sent = b.sk.snd_nxt.wrapping_sub(b.base);
                b.ack(sent, &[]);
                assert!(b.sk.snd_cwnd <= 12, "{name} {}", b.sk.snd_cwnd);
            }
            assert_eq!(b.sk.snd_cwnd, 12, "{name}");
        }
    }
}
