use super::*;
use crate::testbench::{Bench, MSS};
use crate::timers::Timer;

#[test]
fn the_first_flight_is_ten_segments_in_two_frames() {
    let mut b = Bench::new();
    let sent = b.write(100 * MSS);
    // Half of the congestion window at most in one super-frame (TM-24).
    assert_eq!(b.ranges(&sent), [(0, 5 * MSS), (5 * MSS, 10 * MSS)]);
    assert!(sent.iter().all(|s| s.gso_size == MSS as u16));
    assert!(
        sent.iter()
            .all(|s| s.flags == TcpFlags::ACK | TcpFlags::PSH)
    );
    assert_eq!(b.sk.packets_out, 10);
    assert_eq!(b.sk.snd_nxt, b.base + 10 * MSS);
}

#[test]
fn an_ack_cleans_measures_and_lets_more_go() {
    let mut b = Bench::new();
    b.write(100 * MSS);
    b.after_ms(20);
    let sent = b.ack(10 * MSS, &[]);
    assert_eq!(b.sk.snd_cwnd, 20);
    assert_eq!(sent.iter().map(|s| s.len).sum::<u32>(), 20 * MSS);
    assert_eq!(b.sk.srtt_us, 160_000);
    assert_eq!(b.sk.rtt_min.s[0].1, 20_000);
    assert_eq!(b.sk.delivered, 10);
}

#[test]
fn part_of_a_super_frame_may_be_acked() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(3 * MSS, &[]);
    assert_eq!(b.sk.packets_out, 7);
    assert_eq!(b.sk.rtx_queue[0].seq, b.base + 3 * MSS);
    b.ack(3 * MSS + 100, &[]);
    // Less than a segment: it stays whole in the count.
    assert_eq!(b.sk.packets_out, 7);
    b.ack(10 * MSS, &[]);
    assert_eq!((b.sk.packets_out, b.sk.wmem_queued), (0, 0));
    assert!(!b.sk.timers.armed(Timer::Retransmit));
}

#[test]
fn dropped_by_the_local_queue_means_cwr_and_unsent() {
    let mut b = Bench::new();
    b.verdict(TxVerdict::Dropped);
    b.write(10 * MSS);
    assert_eq!(b.sk.ca_state, crate::sock::CaState::Cwr);
    assert_eq!((b.sk.snd_nxt, b.sk.packets_out), (b.base, 0));
    // Nothing is in flight: the probe timer looks after it.
    assert_eq!(b.sk.icsk_pending, IcskPending::Probe0);
}

#[test]
fn a_full_packet_socket_changes_nothing() {
    let mut b = Bench::new();
    b.verdict(TxVerdict::NoSpace);
    b.write(10 * MSS);
    assert!(b.sk.tx_blocked);
    assert_eq!(b.sk.snd_nxt, b.base);
    assert_eq!(b.sk.ca_state, crate::sock::CaState::Open);
    assert_eq!(b.sk.info.bytes_sent, 0);
    b.verdict(TxVerdict::Sent);
    b.with(tcp_tx_space);
    assert_eq!(b.sent().iter().map(|s| s.len).sum::<u32>(), 10 * MSS);
}

/// The tail of a MSG_MORE send is held as it would have been at once.
#[test]
fn a_full_packet_socket_lets_no_corked_tail_out() {
    let mut b = Bench::new();
    b.queue(2 * MSS + 100);
    b.verdict(TxVerdict::NoSpace);
    b.with(|sk, cx| tcp_push_pending(sk, cx, MSS, nagle::CORK));
    assert!(b.sk.tx_blocked);
    b.verdict(TxVerdict::Sent);
    b.with(tcp_tx_space);
    assert_eq!(b.sent().iter().map(|s| s.len).sum::<u32>(), 2 * MSS);
    b.ack(2 * MSS, &[]);
    assert_eq!(b.sk.write_queue.len(), 0, "an ack lets it out");
}

#[test]
fn an_ack_that_found_no_space_stays_due() {
    let mut b = Bench::new();
    b.verdict(TxVerdict::NoSpace);
    b.with(tcp_send_ack);
    assert!(b.sk.ack_now);
    b.verdict(TxVerdict::Sent);
    b.with(tcp_tx_space);
    let sent = b.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].len, sent[0].ack_seq), (0, 5_000));
    assert!(!b.sk.ack_now);
}

#[test]
fn fin_rides_on_the_last_data() {
    let mut b = Bench::new();
    b.queue(100);
    b.with(tcp_send_fin);
    let sent = b.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].len, sent[0].flags),
        (100, TcpFlags::ACK | TcpFlags::FIN)
    );
    assert_eq!(b.sk.snd_nxt, b.base + 101);
    b.ack(101, &[]);
    assert!(b.sk.rtx_queue.is_empty());
}

#[test]
fn a_bare_fin_takes_a_number() {
    let mut b = Bench::new();
    b.with(tcp_send_fin);
    let sent = b.sent();
    assert_eq!(
        (sent[0].len, sent[0].flags),
        (0, TcpFlags::ACK | TcpFlags::FIN)
    );
    assert_eq!(b.sk.packets_out, 1);
}

#[test]
fn fin_waits_behind_the_window() {
    let mut b = Bench::new();
    b.queue(100 * MSS);
    b.with(tcp_send_fin);
    assert!(b.sent().iter().all(|s| !s.flags.contains(TcpFlags::FIN)));
}

#[test]
fn sack_blocks_make_the_segment_smaller() {
    let mut b = Bench::new();
    b.sk.num_sacks = 1;
    b.sk.selective_acks[0] = crate::sock::SackBlock {
        start_seq: 6_000,
        end_seq: 7_000,
    };
    let sent = b.write(3 * MSS);
    assert_eq!(sent[0].gso_size, (MSS - 12) as u16);
    assert_eq!(sent[0].options.sack.as_slice(), [(6_000, 7_000)]);
}

#[test]
fn a_dsack_is_told_once() {
    let mut b = Bench::new();
    b.sk.duplicate_sack = Some(crate::sock::SackBlock {
        start_seq: 4_000,
        end_seq: 4_500,
    });
    b.with(tcp_send_ack);
    b.with(tcp_send_ack);
    let sent = b.sent();
    assert_eq!(sent[0].options.sack.as_slice(), [(4_000, 4_500)]);
    assert!(sent[1].options.sack.is_empty());
}

#[test]
fn urgent_pointer_stands_behind_the_byte() {
    let mut b = Bench::new();
    b.queue(3);
    b.sk.snd_up = b.sk.write_seq;
    b.sk.urg_mode = true;
    b.with(tcp_push_pending_frames);
    assert!(b.sent()[0].flags.contains(TcpFlags::URG));
    b.ack(3, &[]);
    assert!(!b.sk.urg_mode);
}

#[test]
fn the_urgent_segment_goes_out_against_nagle() {
    let mut b = Bench::new();
    b.write_with(100, 0);
    assert!(b.write_with(50, 0).is_empty());
    b.sk.urg_mode = true;
    b.sk.snd_up = b.sk.write_seq;
    b.with(tcp_push_pending_frames);
    assert_eq!(b.sent().len(), 1);
}

#[test]
fn a_smaller_path_mtu_makes_smaller_segments() {
    let mut b = Bench::new();
    b.mtu(1_000);
    let sent = b.write(4 * 960);
    assert_eq!(sent[0].gso_size, 960);
}

#[test]
fn the_peers_window_bounds_the_flight() {
    let mut b = Bench::new();
    b.sk.snd_wnd = 3 * MSS + 10;
    let sent = b.write(100 * MSS);
    assert_eq!(sent.iter().map(|s| s.len).sum::<u32>(), 3 * MSS + 10);
    assert_eq!(b.sk.chrono.kind, ChronoKind::RwndLimited as u8);
}

#[test]
fn bulk_goes_in_super_frames_of_up_to_64_kb() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 1_000;
    let sent = b.write(450 * MSS);
    assert!(sent.iter().all(|s| s.len <= 45 * MSS));
    assert_eq!(sent[0].len, 45 * MSS);
    assert_eq!(sent.len(), 10);
}

#[test]
fn pages_that_went_away_end_the_connection() {
    let mut b = Bench::new();
    b.verdict(TxVerdict::Fault);
    b.write(10 * MSS);
    assert_eq!(b.sk.snd_nxt, b.base);
    b.verdict(TxVerdict::Sent);
    assert!(b.write(MSS).is_empty(), "nothing of it may leave any more");
    let (out, sent) = b.fire();
    assert_eq!(out, crate::timer::TimerOutcome::Dead);
    assert!(sent[0].flags.contains(TcpFlags::RST));
    assert_eq!(b.sk.sk_err, Some(Error::Fault));
    assert_eq!(b.sk.wmem_queued, 0);
}

#[test]
fn without_gso_every_segment_is_a_frame() {
    for (size, segs) in [(0, 65_535), (65_536, 1)] {
        let mut b = Bench::new();
        b.gso(size, segs);
        let sent = b.write(10 * MSS);
        assert_eq!(sent.len(), 10);
        assert!(sent.iter().all(|s| s.len == MSS && s.gso_size == 0));
    }
}

/// A route that is gone is no error of a send's, and none that SO_ERROR tells (Linux `__ip_queue_xmit`); what is sent again
/// notes it.
#[test]
fn a_route_that_is_gone_is_a_soft_error_of_what_is_sent_again() {
    use sidewire_uapi::socket::{SO_ERROR, SOL_SOCKET};

    let mut bed = crate::testbed::Bed::established();
    bed.sk().snd_cwnd = 10;
    bed.sk().dst = None;
    bed.wire.no_route = true;
    assert_eq!(bed.send(0, 100), Ok(100));
    assert!(bed.wire.sent.is_empty());
    assert_eq!(bed.get(SOL_SOCKET, SO_ERROR), Ok(0));
    bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).unwrap();
        assert!(!rebuild_header(sk, &mut cx));
    });
    assert_eq!(bed.get(SOL_SOCKET, SO_ERROR), Ok(101));
}
