use alloc::vec;
use alloc::vec::Vec;

use sidewire_uapi::socket::{SO_REUSEADDR, SOL_SOCKET, SOL_TCP};

use super::*;
use crate::testbed::{Bed, Iter, NOBODY, ROOT};

fn repairing(state: TcpState) -> Bed {
    let mut bed = Bed::established();
    bed.sk().state = state;
    bed.set(SOL_TCP, t::TCP_REPAIR, 1, ROOT).unwrap();
    bed
}

fn words_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

#[test]
fn rp_1_to_rp_5_switching() {
    let mut bed = Bed::closed();
    for v in [1, 0, -1, 5] {
        assert_eq!(bed.set(SOL_TCP, t::TCP_REPAIR, v, NOBODY), Err(Error::Perm));
    }
    assert_eq!(bed.set(SOL_TCP, t::TCP_REPAIR, 2, ROOT), Err(Error::Inval));
    for off in [0, -1] {
        assert_eq!(bed.set(SOL_TCP, t::TCP_REPAIR, 1, ROOT), Ok(()));
        assert_eq!(bed.get(SOL_TCP, t::TCP_REPAIR), Ok(1));
        assert_eq!(bed.get(SOL_SOCKET, SO_REUSEADDR), Ok(2));
        assert_eq!(bed.get(SOL_TCP, t::TCP_REPAIR_QUEUE), Ok(0));
        assert_eq!(bed.set(SOL_TCP, t::TCP_REPAIR, off, ROOT), Ok(()));
        assert_eq!(bed.get(SOL_TCP, t::TCP_REPAIR), Ok(0));
        assert_eq!(bed.get(SOL_SOCKET, SO_REUSEADDR), Ok(0));
    }
    bed.sk().state = TcpState::Listen;
    assert_eq!(bed.set(SOL_TCP, t::TCP_REPAIR, 1, ROOT), Err(Error::Perm));
}

/// TCP_AO_REPAIR, which is not built: a listener may not be repaired, once the value is one.
#[test]
fn a_listeners_signatures() {
    let mut bed = Bed::closed();
    bed.sk().state = TcpState::Listen;
    let mut set = |len| bed.set_bytes(SOL_TCP, t::TCP_AO_REPAIR, &[0; 8][..len], ROOT);
    assert_eq!([set(3), set(4)], [Err(Error::Inval), Err(Error::Perm)]);
}

#[test]
fn rp_6_to_rp_11_queues_and_their_sequence() {
    let mut bed = Bed::closed();
    let queue = t::TCP_REPAIR_QUEUE;
    assert_eq!(bed.set(SOL_TCP, queue, 1, ROOT), Err(Error::Perm));
    assert_eq!(bed.get(SOL_TCP, queue), Err(Error::Inval));
    bed.set(SOL_TCP, t::TCP_REPAIR, 1, ROOT).unwrap();
    for v in [3, -1] {
        assert_eq!(bed.set(SOL_TCP, queue, v, ROOT), Err(Error::Inval));
    }
    let seq = t::TCP_QUEUE_SEQ;
    assert_eq!(bed.set(SOL_TCP, seq, 7, ROOT), Err(Error::Inval));
    assert_eq!(bed.get(SOL_TCP, seq), Err(Error::Inval));
    for (q, v) in [(1, 77), (2, 88)] {
        bed.set(SOL_TCP, queue, q, ROOT).unwrap();
        assert_eq!(bed.set(SOL_TCP, seq, v, ROOT), Ok(()));
        assert_eq!(bed.get(SOL_TCP, seq), Ok(v));
    }
    assert_eq!((bed.sk().rcv_nxt, bed.sk().write_seq), (77, 88));
    bed.set(SOL_TCP, t::TCP_REPAIR, -1, ROOT).unwrap();
    assert_eq!(bed.get(SOL_TCP, seq), Ok(88), "the queue is remembered");
    let mut bed = repairing(TcpState::Established);
    assert_eq!(bed.set(SOL_TCP, seq, 1, ROOT), Err(Error::Perm));
    let mut bed = repairing(TcpState::Close);
    bed.set(SOL_TCP, queue, 1, ROOT).unwrap();
    bed.sk().rcv_nxt += 1;
    assert_eq!(bed.set(SOL_TCP, seq, 1, ROOT), Err(Error::Perm));
}

#[test]
fn rp_14_to_rp_20_options() {
    let opts = t::TCP_REPAIR_OPTIONS;
    let mut bed = Bed::established();
    let mss = words_of(&[2, 777]);
    assert_eq!(bed.set_bytes(SOL_TCP, opts, &mss, ROOT), Err(Error::Inval));
    let mut bed = repairing(TcpState::Close);
    assert_eq!(bed.set_bytes(SOL_TCP, opts, &mss, ROOT), Err(Error::Perm));
    let mut bed = repairing(TcpState::Established);
    let mut all = words_of(&[2, 777, 3, 7 | 10 << 16, 4, 0, 8, 0, 99, 5]);
    all.extend([1, 2, 3]);
    assert_eq!(bed.set_bytes(SOL_TCP, opts, &all, ROOT), Ok(()));
    let sk = bed.sk();
    assert_eq!((sk.mss_clamp, sk.snd_wscale, sk.rcv_wscale), (777, 7, 10));
    assert!(sk.sack_ok && sk.tstamp_ok && sk.wscale_ok);
    for (bad, err) in [
        (vec![2, 555, 3, 15], Error::FBig),
        (vec![2, 555, 4, 1], Error::Inval),
        (vec![2, 555, 8, 1], Error::Inval),
    ] {
        let mut bed = repairing(TcpState::Established);
        assert_eq!(
            bed.set_bytes(SOL_TCP, opts, &words_of(&bad), ROOT),
            Err(err)
        );
        assert_eq!(bed.get(SOL_TCP, t::TCP_MAXSEG), Ok(555), "RP-20");
    }
    let mut bed = repairing(TcpState::Established);
    bed.sk().info.bytes_sent = 1;
    assert_eq!(bed.set_bytes(SOL_TCP, opts, &mss, ROOT), Err(Error::Perm));
}

#[test]
fn rp_21_rp_22_window() {
    let name = t::TCP_REPAIR_WINDOW;
    let good = words_of(&[5000, 100, 200, 300, 5000]);
    let mut bed = Bed::established();
    assert_eq!(
        bed.set_bytes(SOL_TCP, name, &good[..12], ROOT),
        Err(Error::Perm)
    );
    assert_eq!(bed.get_bytes(SOL_TCP, name, 12), Err(Error::Inval));
    assert_eq!(bed.get_bytes(SOL_TCP, name, 20), Err(Error::Perm));
    let mut bed = repairing(TcpState::Established);
    assert_eq!(
        bed.set_bytes(SOL_TCP, name, &good[..12], ROOT),
        Err(Error::Inval)
    );
    for bad in [
        [5000, 300, 200, 300, 5000],
        [5301, 100, 200, 300, 5000],
        [5000, 100, 200, 300, 5001],
    ] {
        assert_eq!(
            bed.set_bytes(SOL_TCP, name, &words_of(&bad), ROOT),
            Err(Error::Inval)
        );
    }
    assert_eq!(bed.set_bytes(SOL_TCP, name, &good, ROOT), Ok(()));
    assert_eq!(bed.get_bytes(SOL_TCP, name, 20), Ok(good));
}

#[test]
fn rp_31_peeking_at_the_send_queue_tells_its_whole_length() {
    let mut bed = Bed::established();
    bed.send(0, 1500).unwrap();
    let mut iter = Iter::new(&bed, vec![(vec![0; 10], true)]);
    assert_eq!(tcp_peek_sndq(bed.sk(), &mut iter), Ok(1500));
    assert_eq!(iter.remaining(), 0);
}

/// The sums of Linux 6.18.
#[test]
fn rp_25_what_the_receive_queue_is_charged() {
    let mut bed = repairing(TcpState::Established);
    bed.sk().repair.queue = RepairQueue::Recv;
    let mut memory = Vec::new();
    for len in [1, 100, 576, 577, 1000, 4000, 20_000] {
        assert_eq!(bed.send(0, len), Ok(len));
        memory.push(bed.sk().rmem_alloc);
    }
    let received = bed.sk().info.bytes_received;
    assert_eq!(received, 1 + 100 + 576 + 577 + 1000 + 4000 + 20_000);
    assert_eq!(memory, [832, 832, 2112, 3392, 5696, 14_144, 34_880]);
    assert_eq!(bed.send(0, 8192), Ok(8192));
    assert_eq!(bed.sk().rmem_alloc, 34_880 + 8192);
}
