//! Automatic corking in a run of sends: G4.

mod pair;

use pair::{Pair, Side, pattern};
use sidewire_engine::SocketId;
use sidewire_engine::sysctl::Sysctl;
use sidewire_uapi::socket as so;
use sidewire_uapi::tcp as t;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::TcpView;

const C: Side = Side::Client;
const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// What one call sends: a full segment, so that Nagle has no say.
const FULL: usize = 1460;

fn pair() -> (Pair, SocketId, SocketId) {
    let sysctl = Sysctl {
        tcp_timestamps: 0,
        ..Sysctl::default()
    };
    let mut p = Pair::new(sysctl.clone(), sysctl);
    let (client, server) = p.connect();
    // A window that takes some frames more than a run has.
    p.transfer(client, server, 0, &pattern(200_000));
    p.pass(100 * MS);
    p.seen.clear();
    (p, client, server)
}

/// Payload lengths of what the client put on the wire since the last look.
fn left(p: &mut Pair) -> Vec<usize> {
    let mut out = Vec::new();
    while let Some(packet) = p.host(C).take_packet() {
        let ip = Ipv4View::parse(&packet.bytes).unwrap();
        out.push(TcpView::parse(ip.payload()).unwrap().payload_len());
        p.seen.push((C, packet.bytes));
    }
    out
}

fn send(p: &mut Pair, id: SocketId) {
    assert_eq!(p.send(C, id, 0, None, &pattern(FULL)), Ok(FULL));
}

/// Sends one right after the other until one is held.
fn run(p: &mut Pair, id: SocketId) {
    for _ in 0..16 {
        p.pass(10 * US);
        send(p, id);
        if left(p).is_empty() {
            return;
        }
    }
    panic!("nothing was held");
}

fn held(p: &mut Pair) -> bool {
    p.host(C).stack.autocorked()
}

#[test]
fn a_run_gathers_until_the_program_sleeps() {
    let (mut p, id, _) = pair();
    run(&mut p, id);
    p.pass(10 * US);
    send(&mut p, id);
    assert_eq!(left(&mut p), [], "the next one joins it");
    assert!(held(&mut p));
    p.host(C).with(|s, io| s.release_autocorked(io));
    assert_eq!(left(&mut p), [FULL; 2]);
    assert!(!held(&mut p));
}

#[test]
fn sockets_served_in_turn_are_in_a_run_each() {
    let (mut p, one, _) = pair();
    let (other, server) = p.connect();
    p.transfer(other, server, 0, &pattern(200_000));
    p.pass(100 * MS);
    for _ in 0..12 {
        for id in [one, other] {
            p.pass(40 * US);
            send(&mut p, id);
        }
    }
    left(&mut p);
    p.pass(40 * US);
    send(&mut p, one);
    assert_eq!(left(&mut p), []);
    assert!(held(&mut p));
}

#[test]
fn a_pause_ends_a_run() {
    let (mut p, id, _) = pair();
    run(&mut p, id);
    p.pass(60 * US);
    send(&mut p, id);
    assert_eq!(left(&mut p), [FULL; 2]);
}

#[test]
fn nothing_waits_longer_than_a_millisecond() {
    let (mut p, id, _) = pair();
    run(&mut p, id);
    let began = p.host(C).clock.now();
    let seen = loop {
        let at = p.host(C).next_deadline();
        assert!(at.since(began) <= MS, "{} us", at.since(began) / US);
        p.host(C).clock.advance_to(at);
        p.host(C).on_timers();
        let seen = left(&mut p);
        if !seen.is_empty() {
            break seen;
        }
    };
    assert_eq!(seen, [FULL]);
}

#[test]
fn a_read_ends_a_run() {
    let (mut p, id, _) = pair();
    run(&mut p, id);
    let _ = p.recv_with(C, id, so::MSG_DONTWAIT, 1);
    assert_eq!(left(&mut p), [FULL]);
}

#[test]
fn acks_do_not_end_a_run() {
    let (mut p, id, _) = pair();
    run(&mut p, id);
    for (_, bytes) in std::mem::take(&mut p.seen) {
        p.host(Side::Server).rx(&bytes);
    }
    p.host(Side::Server).rx_batch_end();
    while let Some(ack) = p.host(Side::Server).take_packet() {
        p.host(C).rx(&ack.bytes);
    }
    p.host(C).rx_batch_end();
    assert_eq!(left(&mut p), []);
    p.pass(10 * US);
    send(&mut p, id);
    assert_eq!(left(&mut p), [FULL; 2], "nothing is in flight");
}

#[test]
fn nodelay_and_the_sysctl_switch_it_off() {
    let (mut p, id, _) = pair();
    p.set(C, id, so::SOL_TCP, t::TCP_NODELAY, 1);
    for _ in 0..12 {
        p.pass(10 * US);
        send(&mut p, id);
        assert_eq!(left(&mut p), [FULL]);
    }
    let sysctl = Sysctl {
        tcp_autocorking: false,
        ..Sysctl::default()
    };
    let mut p = Pair::new(sysctl.clone(), sysctl);
    let (id, server) = p.connect();
    p.transfer(id, server, 0, &pattern(200_000));
    for _ in 0..12 {
        p.pass(10 * US);
        send(&mut p, id);
        assert!(!left(&mut p).is_empty());
    }
}
