use crate::ack::AckOutcome;
use crate::skb::Sacked;
use crate::sock::CaState;
use crate::testbench::{Bench, MSS};

fn tags(b: &Bench) -> alloc::vec::Vec<(u32, Sacked)> {
    b.sk.rtx_queue
        .iter()
        .map(|s| (s.seq.wrapping_sub(b.base) / MSS, s.sacked))
        .collect()
}

#[test]
fn a_block_cuts_super_frames_at_segments() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(0, &[(2 * MSS, 4 * MSS)]);
    assert_eq!(b.sk.sacked_out, 2);
    assert_eq!(b.sk.ca_state, CaState::Disorder);
    assert_eq!(b.sk.delivered, 2);
    let t = tags(&b);
    assert_eq!(t[1], (2, Sacked::SACKED_ACKED | Sacked::UNSORTED));
    assert_eq!(t[2], (4, Sacked::empty()));
    assert_eq!(b.sk.highest_sack, b.base + 4 * MSS);
}

#[test]
fn a_block_inside_of_segments_tags_whole_ones_only() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(0, &[(2 * MSS + 100, 4 * MSS + 100)]);
    assert_eq!(b.sk.sacked_out, 1, "segment 3");
    // What was remembered is passed over, tagged or not, and of what is before it, nothing is a whole segment.
    b.ack(0, &[(2 * MSS, 5 * MSS)]);
    assert_eq!(b.sk.sacked_out, 2, "segments 3 and 4");
}

#[test]
fn a_growing_block_leaves_one_buffer() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 100;
    b.write(40 * MSS);
    b.after_ms(20);
    for n in 2..40 {
        b.ack(0, &[(MSS, n * MSS)]);
        assert!(
            b.sk.rtx_queue.len() <= 6,
            "{} buffers at {n}",
            b.sk.rtx_queue.len()
        );
    }
    assert_eq!(b.sk.sacked_out, 38);
    b.ack(40 * MSS, &[]);
    assert!(b.sk.rtx_queue.is_empty());
    assert_eq!(b.sk.delivered, 40);
}

#[test]
fn three_segments_above_a_hole_make_it_lost() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    assert!(b.ack(0, &[(MSS, 2 * MSS)]).is_empty());
    assert!(b.ack(0, &[(MSS, 3 * MSS)]).is_empty());
    let sent = b.ack(0, &[(MSS, 4 * MSS)]);
    // TM-12.
    assert_eq!(b.ranges(&sent), [(0, MSS)]);
    assert_eq!(b.sk.ca_state, CaState::Recovery);
    assert_eq!((b.sk.lost_out, b.sk.retrans_out), (1, 1));
    assert_eq!(b.sk.snd_ssthresh, 7);
}

#[test]
fn blocks_that_cannot_be_are_ignored() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(
        0,
        &[(9 * MSS, 11 * MSS), (5 * MSS, 5 * MSS), (6 * MSS, 4 * MSS)],
    );
    assert_eq!(b.sk.sacked_out, 0);
    assert_eq!(b.sk.ca_state, CaState::Open);
}

#[test]
fn an_original_that_fills_a_hole_shows_reordering() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(0, &[(8 * MSS, 9 * MSS)]);
    assert_eq!(b.sk.info.reord_seen, 0);
    b.ack(0, &[(2 * MSS, 3 * MSS), (8 * MSS, 9 * MSS)]);
    assert_eq!(b.sk.info.reord_seen, 1);
    assert_eq!(b.sk.reordering, 7);
}

#[test]
fn old_acks_still_bring_blocks() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(4 * MSS, &[]);
    let seg = b.segment(2 * MSS, &[(6 * MSS, 7 * MSS)], 7_000);
    assert_eq!(b.take(&seg), AckOutcome::Old);
    assert_eq!(b.sk.sacked_out, 1);
}

#[test]
fn a_dsack_below_the_ack_undoes_a_recovery() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    let sent = b.ack(0, &[(MSS, 4 * MSS)]);
    assert_eq!(sent.len(), 1);
    let cwnd = 10;
    // The original arrives, then the copy: the ack for the copy carries a DSACK.
    b.after_ms(5);
    b.ack(4 * MSS, &[]);
    b.after_ms(15);
    b.ack(4 * MSS, &[(0, MSS)]);
    assert_eq!(b.sk.info.dsack_dups, 1);
    assert_eq!(b.sk.ca_state, CaState::Open);
    assert!(b.sk.snd_cwnd >= cwnd, "cwnd {}", b.sk.snd_cwnd);
}

/// Linux's walk over the news of a block finds what a DSACK names not yet SACKed, which is no reordering; the DSACK's own walk
/// does, if it begins from the start: where the other one came to the end of the queue.
#[test]
fn a_dsack_inside_of_news_is_met_twice_at_the_end() {
    for (end, seen) in [(9, 0), (10, 1)] {
        let mut b = Bench::new();
        b.write(10 * MSS);
        for skb in &mut b.sk.rtx_queue {
            skb.sacked |= Sacked::EVER_RETRANS;
        }
        b.sk.info.total_retrans = 10;
        b.after_ms(20);
        b.ack(0, &[((end - 1) * MSS, end * MSS), (5 * MSS, end * MSS)]);
        assert_eq!(b.sk.sacked_out, end - 5);
        assert_eq!((b.sk.info.dsack_dups, b.sk.info.reord_seen), (1, seen));
    }
}
