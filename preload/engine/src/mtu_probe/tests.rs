use super::*;
use crate::testbench::Bench;

/// What a path of 1276 bytes carries, between 1064 (`tcp_base_mss`) and the device's 1488.
const PROBE: u32 = 1_236;
const BASE: u32 = 1_024;

/// A connection that looks for what its path takes, with a large window.
fn probing() -> Bench {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 40;
    b.stack.sh.sysctl.tcp_mtu_probing = ALWAYS;
    b.with(|sk, cx| {
        tcp_mtup_init(sk, cx);
        tcp_sync_mss(sk, cx, sk.pmtu_cookie);
    });
    assert_eq!(b.sk.mss_cache, BASE);
    b
}

#[test]
fn a_probe_that_is_acked_makes_segments_larger() {
    let mut b = probing();
    let sent = b.write(20_000);
    assert_eq!(b.ranges(&sent)[0], (0, PROBE));
    assert_eq!(b.sk.snd_cwnd, 39, "it goes for two");
    assert_eq!(b.sk.mss_cache, BASE);
    // The same number of bytes in flight, and what the ack itself lets it grow by.
    b.sk.snd_ssthresh = 10;
    b.ack(PROBE, &[]);
    assert_eq!(b.sk.mss_cache, PROBE);
    assert!((32..=33).contains(&b.sk.snd_cwnd), "{}", b.sk.snd_cwnd);
    assert_eq!(b.stack.mib().get(Counter::TCPMTUPSuccess), 1);
    // Between 1276 and 1488.
    b.ack(20_000, &[]);
    let sent = b.write(20_000);
    assert_eq!(b.ranges(&sent)[0], (20_000, 20_000 + 1_342));
}

#[test]
fn a_probe_that_is_lost_is_no_congestion() {
    let mut b = probing();
    b.write(20_000);
    let sent = b.ack(0, &[(PROBE, PROBE + 3 * BASE)]);
    assert_eq!(b.ranges(&sent)[0], (0, PROBE), "in two segments");
    assert_eq!(sent[0].gso_size, BASE as u16);
    assert_eq!(b.sk.snd_cwnd, 40);
    assert_eq!(b.sk.mss_cache, BASE);
    assert_eq!(b.sk.mtup.search_high, 1_275);
    assert_eq!(b.stack.mib().get(Counter::TCPMTUPFail), 1);
}

#[test]
fn no_probe_without_enough_behind_it() {
    let enough = PROBE + 4 * BASE;
    let mut b = probing();
    let sent = b.write(enough - 1);
    assert_eq!(b.ranges(&sent)[0].0, 0);
    assert_eq!(b.sk.mtup.probe_size, 0);
    let mut b = probing();
    b.write(enough);
    assert_eq!(b.sk.mtup.probe_size, 1_276);
}

#[test]
fn a_probe_waits_for_the_window() {
    let mut b = probing();
    b.write(3 * BASE);
    b.sk.snd_wnd = 8_000;
    assert_eq!(b.write(10_000), []);
    assert_eq!(b.sk.mtup.probe_size, 0);
}

#[test]
fn what_ends_a_record_is_not_joined() {
    let mut b = probing();
    b.queue(500);
    b.sk.write_queue[0].eor = true;
    b.write(20_000);
    assert_eq!(b.sk.mtup.probe_size, 0);
}

#[test]
fn timeouts_make_the_segments_smaller() {
    let mut b = Bench::new();
    let mss = |b: &mut Bench| {
        b.with(tcp_mtu_probing);
        b.sk.mss_cache
    };
    let whole = b.sk.mss_cache;
    assert_eq!(mss(&mut b), whole, "off");
    b.stack.sh.sysctl.tcp_mtu_probing = 1;
    b.with(|sk, cx| tcp_mtup_init(sk, cx));
    assert_eq!(mss(&mut b), BASE);
    assert_eq!(mss(&mut b), BASE / 2);
    for _ in 0..10 {
        mss(&mut b);
    }
    assert_eq!(b.sk.mss_cache, 48, "tcp_mtu_probe_floor");
}

#[test]
fn the_search_begins_anew() {
    let mut b = probing();
    b.sk.mtup.search_low = 1_496;
    b.with(|sk, cx| tcp_sync_mss(sk, cx, sk.pmtu_cookie));
    b.write(20_000);
    assert_eq!((b.sk.mtup.search_low, b.sk.mtup.probe_size), (1_496, 0));
    b.ack(20_000, &[]);
    b.after_ms(601_000);
    b.sk.mtup.search_high = 1_498;
    b.sk.snd_cwnd = 40;
    b.write(20_000);
    assert_eq!(b.sk.mtup.search_high, 1_500);
}
