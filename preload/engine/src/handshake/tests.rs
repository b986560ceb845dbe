use super::*;
use crate::net::RouteMetrics;
use crate::testbench::Bench;
use crate::timer::TimerOutcome;
use core::net::{Ipv4Addr, SocketAddr};
use sidewire_uapi::TcpState;

fn connecting() -> Bench {
    let mut b = Bench::new();
    b.sk.state = TcpState::SynSent;
    b.sk.tstamp_ok = false;
    b.sk.sack_ok = false;
    b.sk.wscale_ok = false;
    b.sk.window_clamp = 0;
    b.with(tcp_connect).expect("a route");
    b
}

#[test]
fn a_syn_opens() {
    let mut b = connecting();
    let sent = b.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].flags, TcpFlags::SYN);
    assert_eq!((sent[0].seq, sent[0].ack_seq), (b.base, 0));
    // TM-27: never scaled.
    assert_eq!(sent[0].window, 45 * 1_448);
    assert_eq!(sent[0].options.wscale, Some(7));
    assert!(sent[0].options.sack_permitted);
    assert_eq!(b.sk.snd_nxt, b.base + 1);
    assert_eq!(b.due_ms(), 1_000);
}

/// A connection attempt over a route that sets something.
fn over(route: impl FnOnce(&mut RouteMetrics)) -> Bench {
    let mut b = Bench::new();
    b.sk.state = TcpState::SynSent;
    b.sk.window_clamp = 0;
    route(&mut b.sk.dst.as_mut().expect("a route").metrics);
    b.with(tcp_connect).expect("a route");
    b
}

#[test]
fn a_route_sets_the_first_windows_the_timeout_and_the_congestion_control() {
    let mut b = over(|m| {
        m.initrwnd = 3;
        m.window = 20_000;
        m.initcwnd = 4;
        m.rto_min_us = 40_000;
        m.congctl = Some("reno");
        m.quickack = true;
    });
    assert_eq!(b.sent()[0].window, 3 * 1_448);
    assert!(b.sk.window_clamp <= 20_000);
    assert_eq!(b.sk.ca.name(), "reno");
    assert_eq!(crate::rtt::tcp_rto_min_us(&b.sk), 40_000);
    b.with(crate::timer::tcp_init_transfer_snd);
    assert_eq!(b.sk.snd_cwnd, 4);
    b.sk.ack.quick = 0;
    assert!(b.with(|sk, cx| crate::delack::tcp_in_quickack_mode(sk, cx.sh)));
}

/// RFC 3168 §6.1.1; §6.1.1.1 for the repetition.
#[test]
fn ecn_is_offered_by_the_route_once() {
    let mut b = over(|m| m.ecn = true);
    let offer = TcpFlags::SYN | TcpFlags::ECE | TcpFlags::CWR;
    assert_eq!(b.sent()[0].flags, offer);
    assert_eq!(b.sk.ecn_flags, ecn::OK);
    let (_, again) = b.fire();
    assert_eq!(again[0].flags, TcpFlags::SYN);
}

/// TM-2, TM-3.
#[test]
fn syns_repeat_linearly_then_double_and_give_up() {
    for (syncnt, retries, error_at) in [
        (1, &[1_000u64, 2_000][..], 3_000),
        (2, &[1_000, 2_000, 3_000, 4_000, 5_000], 7_000),
        (
            3,
            &[1_000, 2_000, 3_000, 4_000, 5_000, 7_000, 11_000],
            19_000,
        ),
    ] {
        let mut b = connecting();
        b.sk.opts.syncnt = syncnt;
        b.sent();
        let start = b.now;
        let mut at = alloc::vec::Vec::new();
        loop {
            let (out, sent) = b.fire();
            let ms = b.now.since(start) / 1_000_000;
            if out == TimerOutcome::Dead {
                assert_eq!(ms, error_at, "TCP_SYNCNT {syncnt}");
                break;
            }
            assert_eq!(sent.len(), 1);
            assert_eq!(sent[0].seq, b.base);
            at.push(ms);
        }
        assert_eq!(at, retries, "TCP_SYNCNT {syncnt}");
        assert_eq!(b.sk.sk_err, Some(Error::TimedOut));
    }
}

#[test]
fn a_syn_that_did_not_get_out_is_sent_by_the_timer() {
    let mut b = Bench::new();
    b.sk.state = TcpState::SynSent;
    b.verdict(TxVerdict::NoSpace);
    b.with(tcp_connect).expect("the timer does it");
    b.verdict(TxVerdict::Sent);
    let (_, sent) = b.fire();
    assert_eq!(sent[0].flags, TcpFlags::SYN);
}

#[test]
fn a_fixed_buffer_bounds_the_window_for_good() {
    let mut b = Bench::new();
    b.sk.state = TcpState::SynSent;
    b.sk.opts.buf_lock_rcv = true;
    b.sk.rcvbuf = 20_000;
    b.sk.window_clamp = 0;
    b.with(tcp_connect).expect("a route");
    assert_eq!(b.sk.window_clamp, 10_000);
    assert_eq!(b.sk.rcv_wscale, 0);
    assert_eq!(b.sent()[0].window, 10_000 / 1_448 * 1_448);
}

#[test]
fn crossing_syns_are_answered_by_our_syn_with_ack() {
    let mut b = connecting();
    b.sent();
    b.sk.state = TcpState::SynRecv;
    b.sk.rcv_nxt = 9_001;
    b.with(tcp_send_synack_sk);
    let sent = b.sent();
    assert_eq!(sent[0].flags, TcpFlags::SYN | TcpFlags::ACK);
    assert_eq!((sent[0].seq, sent[0].ack_seq), (b.base, 9_001));
    assert!(sent[0].options.wscale.is_some(), "as in the SYN");
}

#[test]
fn the_handshakes_rtt_seeds_the_rto() {
    let mut b = connecting();
    b.sent();
    b.sk.srtt_us = 0;
    b.after_ms(50);
    let mut seg = b.segment(1, &[], 8_000);
    seg.flags = tcphdr::SYN | tcphdr::ACK;
    b.sk.snd_wl1 = seg.seq.wrapping_sub(1);
    b.take(&seg);
    assert_eq!(b.sk.srtt_us, 400_000);
    b.with(crate::timer::tcp_init_transfer_snd);
    assert_eq!(b.sk.rto_us, 252_000);
    assert_eq!(b.sk.snd_cwnd, 10);
}

#[test]
fn without_a_sample_the_rto_falls_back_to_3_s() {
    let mut b = connecting();
    b.sk.srtt_us = 0;
    b.with(crate::timer::tcp_init_transfer_snd);
    assert_eq!(b.sk.rto_us, 3_000_000);
}

#[test]
fn syn_ack_of_a_request() {
    let mut b = Bench::new();
    let dst = b.sk.dst.expect("routed");
    let mut req = RequestSock {
        tuple: b.sk.tuple,
        v6: false,
        listener: Default::default(),
        rcv_isn: 100,
        snt_isn: 200,
        rcv_nxt: 101,
        mss: 1_460,
        advmss: 1_460,
        rsk_rcv_wnd: 100_000,
        rsk_window_clamp: 0,
        snd_wnd: 1_000,
        wscale_ok: true,
        snd_wscale: 2,
        rcv_wscale: 7,
        sack_ok: true,
        tstamp_ok: true,
        ts_recent: 55,
        usec_ts: false,
        ts_off: 1_000,
        snt_synack: Instant(0),
        snt_synack_last: Instant(0),
        num_retrans: 0,
        num_timeout: 0,
        acked: false,
        deadline: Instant(0),
        timer_queued: Instant::NEVER,
        last_oow_ack_time: Instant::ZERO,
        dst,
        tos: 0,
        ttl: -1,
        pmtudisc: 1,
        mark: 0,
        priority: 0,
        held: false,
        saved_syn: None,
        ecn_ok: false,
    };
    req.tuple.remote = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 9).into(), 999);
    let now = b.now;
    let (sh, net) = b.parts();
    tcp_send_synack(sh, net, &req, None, false, now);
    let sent = b.sent();
    assert_eq!(sent[0].flags, TcpFlags::SYN | TcpFlags::ACK);
    assert_eq!((sent[0].seq, sent[0].ack_seq), (200, 101));
    assert_eq!(sent[0].window, 65_535);
    assert_eq!(sent[0].options.timestamps, Some((req.tsval(now), 55)));
    assert_eq!(sent[0].options.wscale, Some(7));
}

/// ER-21.
#[test]
fn a_silent_neighbour_ends_the_attempt() {
    let mut b = connecting();
    b.verdict(TxVerdict::Unreachable);
    let (out, _) = b.fire();
    assert_eq!(out, TimerOutcome::Dead);
    assert_eq!(b.sk.sk_err, Some(Error::HostUnreach));
}
