//! When data leaves, in which segments and with which flags: `rows.toml` send-path sections G, I and the Nagle table.

mod pair;

use pair::{Pair, Side, pattern};
use sidewire_engine::SocketId;
use sidewire_engine::sysctl::Sysctl;
use sidewire_uapi::socket as so;
use sidewire_uapi::tcp as t;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpFlags, TcpView};

const C: Side = Side::Client;
const MORE: i32 = so::MSG_MORE;
const MS: u64 = 1_000_000;

/// A connection without timestamps: MSS 1460, or what the client's TCP_MAXSEG says.
fn pair_with(maxseg: i32) -> (Pair, SocketId, SocketId) {
    let sysctl = Sysctl {
        tcp_timestamps: 0,
        ..Sysctl::default()
    };
    let mut p = Pair::new(sysctl.clone(), sysctl);
    if maxseg != 0 {
        let listener = p.listener;
        p.set(Side::Server, listener, so::SOL_TCP, t::TCP_MAXSEG, maxseg);
    }
    let (client, server) = p.connect();
    p.seen.clear();
    (p, client, server)
}

fn pair() -> (Pair, SocketId, SocketId) {
    pair_with(0)
}

/// Payload length and flags of each data segment that the client put on the wire since the last look; nothing is
/// delivered.
fn left(p: &mut Pair) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    while let Some(packet) = p.host(C).take_packet() {
        let ip = Ipv4View::parse(&packet.bytes).unwrap();
        let tcp = TcpView::parse(ip.payload()).unwrap();
        out.push((tcp.payload_len(), flags(tcp.flags())));
        p.seen.push((C, packet.bytes));
    }
    out
}

fn flags(f: TcpFlags) -> String {
    [
        (TcpFlags::FIN, 'F'),
        (TcpFlags::URG, 'U'),
        (TcpFlags::PSH, 'P'),
        (TcpFlags::ACK, 'A'),
    ]
    .iter()
    .filter(|(bit, _)| f.contains(*bit))
    .map(|(_, c)| *c)
    .collect()
}

fn lens(p: &mut Pair) -> Vec<usize> {
    left(p).into_iter().map(|(len, _)| len).collect()
}

fn send(p: &mut Pair, id: SocketId, flags: i32, n: usize) {
    assert_eq!(p.send(C, id, flags, None, &pattern(n)), Ok(n));
}

fn pa(n: usize) -> (usize, String) {
    (n, "PA".into())
}

/// What `left` took away arrives after all, and is acked.
fn deliver(p: &mut Pair) {
    for (_, bytes) in std::mem::take(&mut p.seen) {
        p.host(Side::Server).rx(&bytes);
    }
    p.host(Side::Server).rx_batch_end();
    p.run_for(200 * MS);
}

#[test]
fn sp_1_sp_5_sp_8_idle_sends_at_once() {
    let (mut p, id, _) = pair();
    send(&mut p, id, 0, 10);
    assert_eq!(left(&mut p), [pa(10)]);
    let (mut p, id, _) = pair();
    send(&mut p, id, 0, 1560);
    assert_eq!(lens(&mut p), [1460, 100]);
}

#[test]
fn sp_3_more_and_cork_hold_a_partial_segment() {
    let (mut p, id, _) = pair();
    send(&mut p, id, MORE, 10);
    assert_eq!(lens(&mut p), []);
    let (mut p, id, _) = pair();
    p.set(C, id, so::SOL_TCP, t::TCP_CORK, 1);
    send(&mut p, id, 0, 10);
    assert_eq!(lens(&mut p), []);
    send(&mut p, id, 0, 1460);
    assert_eq!(lens(&mut p), [1460], "a full one goes");
    p.set(C, id, so::SOL_TCP, t::TCP_CORK, 0); // SP-11
    assert_eq!(left(&mut p), [pa(10)]);
}

#[test]
fn sp_4_nodelay() {
    let (mut p, id, _) = pair();
    p.set(C, id, so::SOL_TCP, t::TCP_NODELAY, 1);
    for _ in 0..3 {
        send(&mut p, id, 0, 10);
        assert_eq!(left(&mut p), [pa(10)]);
    }
    send(&mut p, id, MORE, 10);
    assert_eq!(lens(&mut p), [], "MSG_MORE rules");
}

#[test]
fn sp_6_sp_7_sp_9_minshall() {
    let (mut p, id, _) = pair();
    send(&mut p, id, 0, 1460);
    assert_eq!(lens(&mut p), [1460]);
    send(&mut p, id, 0, 100);
    assert_eq!(lens(&mut p), [100], "no small one is in flight");
    send(&mut p, id, 0, 100);
    assert_eq!(lens(&mut p), [], "one is");
    send(&mut p, id, 0, 1460);
    assert_eq!(lens(&mut p), [1460], "full ones go before it");
    deliver(&mut p);
    let (mut p, id, _) = pair();
    send(&mut p, id, 0, 10);
    left(&mut p);
    send(&mut p, id, 0, 1560);
    assert_eq!(lens(&mut p), [1460]); // SP-9
    deliver(&mut p);
    let last = p
        .seen
        .iter()
        .rev()
        .find(|(side, b)| *side == C && b.len() > 40);
    assert_eq!(last.unwrap().1.len(), 140, "the ack lets it go");
}

#[test]
fn sp_10_sp_15_nodelay_afterwards_pushes() {
    let (mut p, id, _) = pair();
    p.set(C, id, so::SOL_TCP, t::TCP_CORK, 1);
    send(&mut p, id, 0, 10);
    p.set(C, id, so::SOL_TCP, t::TCP_NODELAY, 1);
    assert_eq!(left(&mut p), [pa(10)]);
    send(&mut p, id, 0, 10);
    assert_eq!(lens(&mut p), [], "later writes are held again");
    let (mut p, id, _) = pair();
    send(&mut p, id, MORE, 10);
    p.set(C, id, so::SOL_TCP, t::TCP_NODELAY, 1);
    assert_eq!(left(&mut p), [(10, "A".into())]); // SP-15
}

#[test]
fn sp_12_clearing_an_unset_cork_pushes() {
    let (mut p, id, _) = pair();
    send(&mut p, id, MORE, 10);
    p.set(C, id, so::SOL_TCP, t::TCP_CORK, 0);
    assert_eq!(lens(&mut p), [10]);
}

#[test]
fn sp_13_sp_14_tm_16_zero_bytes_do_not_flush_but_the_probe_timer_does() {
    let (mut p, id, _) = pair();
    send(&mut p, id, MORE, 10);
    send(&mut p, id, 0, 0);
    assert_eq!(lens(&mut p), []);
    let start = p.host(C).clock.now();
    let mut at = start;
    while at.since(start) < 1_000 * MS {
        at = p.host(C).next_deadline();
        p.host(C).clock.advance_to(at);
        p.host(C).on_timers();
        let seen = left(&mut p);
        if !seen.is_empty() {
            assert_eq!(seen, [pa(10)]);
            break;
        }
    }
    let ms = at.since(start) / MS;
    assert!((200..=212).contains(&ms), "{ms} ms");
}

#[test]
fn sp_16_fin_takes_held_data_along() {
    let (mut p, id, _) = pair();
    p.set(C, id, so::SOL_TCP, t::TCP_CORK, 1);
    send(&mut p, id, 0, 10);
    p.host(C)
        .with(|s, io| s.shutdown(io, id, so::SHUT_WR))
        .unwrap();
    assert_eq!(left(&mut p), [(10, "FPA".into())]);
}

#[test]
fn sp_17_g7_a_burst_ends_with_psh_even_under_more() {
    let (mut p, id, _) = pair_with(1000);
    send(&mut p, id, MORE, 2500);
    assert_eq!(left(&mut p), [(1000, "A".into()), pa(1000)]);
}

#[test]
fn sp_18_eor_keeps_its_boundary() {
    let (mut p, id, _) = pair();
    p.set(C, id, so::SOL_TCP, t::TCP_CORK, 1);
    send(&mut p, id, so::MSG_EOR, 10);
    send(&mut p, id, MORE, 10);
    send(&mut p, id, MORE, 10);
    p.set(C, id, so::SOL_TCP, t::TCP_NODELAY, 1);
    p.set(C, id, so::SOL_TCP, t::TCP_CORK, 0);
    assert_eq!(lens(&mut p), [10, 20]);
}

#[test]
fn g3_rv_21_urgent_data() {
    let (mut p, id, server) = pair();
    send(&mut p, id, so::MSG_OOB, 3);
    let packet = p.host(C).take_packet().unwrap().bytes;
    let ip = Ipv4View::parse(&packet).unwrap();
    let tcp = TcpView::parse(ip.payload()).unwrap();
    assert_eq!(flags(tcp.flags()), "UPA");
    assert_eq!((tcp.payload_len(), tcp.urg_ptr()), (3, 3));
    p.host(Side::Server).rx(&packet);
    p.host(Side::Server).rx_batch_end();
    let (oob, call) = p.recv_with(Side::Server, server, so::MSG_OOB, 1).unwrap();
    assert_eq!(oob, pattern(3)[2..]);
    assert_eq!(call.msg_flags & so::MSG_OOB, so::MSG_OOB);
}

#[test]
fn f14_g2_a_full_buffer_is_pushed_while_the_call_goes_on() {
    let (mut p, id, server) = pair();
    let bytes = pattern(500_000);
    p.transfer(id, server, MORE, &bytes[..499_000]);
    // Under MSG_MORE the rest stays until something pushes it.
    p.transfer(id, server, 0, &bytes[499_000..]);
}

#[test]
fn tm_24_initial_window_of_ten_segments() {
    let (mut p, id, _) = pair();
    send(&mut p, id, 0, 14_600);
    assert_eq!(lens(&mut p).iter().sum::<usize>(), 14_600);
    let (mut p, id, _) = pair();
    let n = p.send(C, id, 0, None, &pattern(40_000)).unwrap();
    assert!(n > 14_600);
    assert_eq!(lens(&mut p).iter().sum::<usize>(), 14_600);
}
