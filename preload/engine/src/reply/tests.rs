use super::*;
use crate::skb::tcphdr;
use crate::testbench::Bench;

#[test]
fn a_stray_ack_is_reset_by_its_number() {
    let mut b = Bench::new();
    let seg = b.segment(500, &[], 100);
    let (sh, net) = b.parts();
    tcp_send_reset(sh, net, &seg);
    let sent = b.sent();
    assert_eq!((sent[0].flags, sent[0].seq), (TcpFlags::RST, b.base + 500));
    assert_eq!((sent[0].ack_seq, sent[0].window), (0, 0));
}

#[test]
fn a_syn_to_nobody_is_reset_with_an_ack() {
    let mut b = Bench::new();
    let mut seg = b.segment(0, &[], 100);
    seg.flags = tcphdr::SYN;
    seg.seq = 7_000;
    seg.end_seq = 7_001;
    let (sh, net) = b.parts();
    tcp_send_reset(sh, net, &seg);
    let sent = b.sent();
    assert_eq!(sent[0].flags, TcpFlags::RST | TcpFlags::ACK);
    assert_eq!((sent[0].seq, sent[0].ack_seq), (0, 7_001));
}

#[test]
fn a_reset_is_never_answered() {
    let mut b = Bench::new();
    let mut seg = b.segment(0, &[], 100);
    seg.flags = tcphdr::RST;
    let (sh, net) = b.parts();
    tcp_send_reset(sh, net, &seg);
    assert!(b.sent().is_empty());
}

#[test]
fn an_ack_without_a_socket() {
    let mut b = Bench::new();
    let ack = BareAck {
        tuple: b.sk.tuple,
        seq: 10,
        ack_seq: 20,
        window: 30,
        timestamps: Some((40, 50)),
        tos: 0,
        mark: 0,
        priority: 0,
    };
    let dst = b.sk.dst;
    let (sh, net) = b.parts();
    tcp_send_bare_ack(sh, net, dst.as_ref(), &ack);
    let sent = b.sent();
    assert_eq!((sent[0].seq, sent[0].ack_seq, sent[0].window), (10, 20, 30));
    assert_eq!(sent[0].options.timestamps, Some((40, 50)));
}
