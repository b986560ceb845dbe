use alloc::boxed::Box;
use alloc::vec::Vec;

use sidewire_uapi::ioctl::{SIOCATMARK, SIOCINQ, SIOCOUTQ, SIOCOUTQNSD};
use sidewire_uapi::socket as so;

use super::*;
use crate::error::Error;
use crate::listen::ListenState;
use crate::testbed::{Bed, SKB};

fn mask(bed: &Bed) -> u32 {
    bed.stack.poll_level(bed.id)
}

/// Bytes arrived and nobody read them.
fn arrive(bed: &mut Bed, n: u32) {
    bed.sk().rcv_nxt += n;
}

fn ioctl(bed: &mut Bed, cmd: u64) -> Result<i32, Error> {
    bed.with(|stack, io, id| stack.ioctl_int(io, id, cmd as u32))
}

#[test]
fn rd_12_rd_13_rd_14_before_a_connection() {
    let mut bed = Bed::closed();
    assert_eq!(mask(&bed), 0x114);
    bed.sk().state = TcpState::Listen;
    bed.sk().listen = Some(Box::new(ListenState::default()));
    assert_eq!(mask(&bed), 0);
    let id = bed.id;
    bed.sk().listen.as_mut().unwrap().accept_queue.push_back(id);
    assert_eq!(mask(&bed), 0x41); // RD-1
    let mut bed = Bed::closed();
    bed.sk().state = TcpState::SynSent;
    assert_eq!(mask(&bed), 0);
    bed.sk().defer_connect = true;
    assert_eq!(mask(&bed), 0x104); // RD-5, RD-32
    bed.sk().state = TcpState::SynRecv;
    bed.sk().defer_connect = false;
    assert_eq!(mask(&bed), 0);
    bed.sk().fastopen_rsk = true;
    assert_eq!(mask(&bed), 0x104); // RD-4
}

#[test]
fn rd_15_to_rd_24_connected() {
    let mut bed = Bed::established();
    assert_eq!(mask(&bed), 0x104);
    arrive(&mut bed, 5);
    assert_eq!(mask(&bed), 0x145);
    bed.sk().state = TcpState::CloseWait;
    bed.sk().shutdown = shutdown::RCV;
    assert_eq!(mask(&bed), 0x2145); // RD-18, RD-20
    let mut bed = Bed::established();
    bed.sk().shutdown = shutdown::SEND;
    assert_eq!(mask(&bed), 0x104); // RD-19
    bed.sk().shutdown = shutdown::MASK;
    assert_eq!(mask(&bed), 0x2155); // RD-21, RD-22
    bed.sk().state = TcpState::Close;
    bed.sk().sk_err = Some(Error::ConnReset);
    assert_eq!(mask(&bed), 0x215d); // RD-23, RD-25, RD-28
    bed.sk().sk_err = None;
    assert_eq!(mask(&bed), 0x2155); // RD-24
    // RD-26, RD-27: a disconnect opens both directions again.
    let mut bed = Bed::closed();
    bed.sk().sk_err = Some(Error::ConnReset);
    assert_eq!(mask(&bed), 0x11c);
}

#[test]
fn rd_6_rcvlowat_and_its_exceptions() {
    let mut bed = Bed::established();
    bed.sk().opts.rcvlowat = 10;
    arrive(&mut bed, 9);
    assert_eq!(mask(&bed), 0x104);
    arrive(&mut bed, 1);
    assert_eq!(mask(&bed), 0x145);
    let mut bed = Bed::established();
    bed.sk().opts.rcvlowat = 10;
    arrive(&mut bed, 1);
    bed.sk().rmem_alloc = bed.sk().rcvbuf;
    assert_eq!(mask(&bed), 0x145, "memory is short");
    bed.sk().rmem_alloc = 0;
    bed.sk().rcv_wnd = bed.sk().ack.rcv_mss;
    assert_eq!(mask(&bed), 0x145, "the window is nearly shut");
}

#[test]
fn rd_7_rd_10_rd_29_rd_30_urgent() {
    let mut bed = Bed::established();
    arrive(&mut bed, 3);
    bed.sk().urg_data = TCP_URG_VALID | 0x61;
    bed.sk().urg_seq = 5002;
    assert_eq!(mask(&bed), 0x147);
    bed.sk().copied_seq = 5002;
    assert_eq!(mask(&bed), 0x106);
    bed.sk().opts.oobinline = true;
    assert_eq!(mask(&bed), 0x147);
}

#[test]
fn rd_8_writable_until_two_thirds() {
    let mut bed = Bed::established();
    bed.sk().sndbuf = 60_000;
    // An accounting sum without the buffers: the invariants are not looked at by poll.
    bed.sk().wmem_queued = 40_000;
    assert_eq!(mask(&bed), 0x104);
    bed.sk().wmem_queued = 40_002;
    assert_eq!(mask(&bed), 0);
    bed.sk().wmem_queued = 0;
    bed.sk().opts.notsent_lowat = 1000;
    bed.sk().write_seq += 499;
    assert_eq!(mask(&bed), 0x104);
    bed.sk().write_seq += 1;
    assert_eq!(mask(&bed), 0, "unsent bytes count twice");
    assert!(!bed.sk().nospace, "nobody has asked");
    let id = bed.id;
    assert_eq!(bed.stack.poll(id), 0);
    assert!(bed.sk().nospace);
}

#[test]
fn rd_35_the_edge_comes_when_the_level_is_back() {
    let mut bed = Bed::established();
    bed.sk().sndbuf = 10_000;
    while bed.send(so::MSG_EOR, 1000).is_ok() {}
    assert_eq!(mask(&bed), 0);
    let wake = |bed: &mut Bed| {
        bed.with(|stack, io, id| {
            let (sk, mut cx) = stack.borrow(io, id).unwrap();
            crate::push::sk_stream_write_space(sk, &mut cx);
        });
        let mut seen = Vec::new();
        bed.stack.take_events(|_, _, e| seen.push(e));
        seen
    };
    assert!(wake(&mut bed).is_empty());
    bed.ack_all();
    let out = crate::event::Events::OUT | crate::event::Events::SIGIO_OUT;
    assert_eq!(wake(&mut bed), [out]);
    assert!(!bed.sk().nospace);
}

#[test]
fn rd_39_rd_42_readable_bytes_and_the_mark() {
    let mut bed = Bed::established();
    arrive(&mut bed, 5);
    assert_eq!(ioctl(&mut bed, SIOCINQ), Ok(5));
    bed.sk().rcv_nxt += 1;
    bed.sk().sock_done = true;
    assert_eq!(ioctl(&mut bed, SIOCINQ), Ok(5), "FIN does not count");
    bed.sk().copied_seq = bed.sk().rcv_nxt;
    assert_eq!(ioctl(&mut bed, SIOCINQ), Ok(0));
    let mut bed = Bed::established();
    arrive(&mut bed, 5);
    bed.sk().urg_data = TCP_URG_VALID;
    bed.sk().urg_seq = 5003;
    assert_eq!(ioctl(&mut bed, SIOCINQ), Ok(3));
    assert_eq!(ioctl(&mut bed, SIOCATMARK), Ok(0));
    bed.sk().copied_seq = 5003;
    assert_eq!(ioctl(&mut bed, SIOCATMARK), Ok(1));
    bed.sk().opts.oobinline = true;
    assert_eq!(ioctl(&mut bed, SIOCINQ), Ok(2));
}

#[test]
fn rd_40_rd_41_rd_43_unsent_and_unacknowledged() {
    let mut bed = Bed::established();
    bed.send(0, 100).unwrap();
    assert_eq!(ioctl(&mut bed, SIOCOUTQ), Ok(100));
    assert_eq!(ioctl(&mut bed, SIOCOUTQNSD), Ok(100));
    assert_eq!(bed.sk().wmem_queued, SKB + 100);
    for state in [TcpState::SynSent, TcpState::SynRecv] {
        bed.sk().state = state;
        for cmd in [SIOCINQ, SIOCOUTQ, SIOCOUTQNSD] {
            assert_eq!(ioctl(&mut bed, cmd), Ok(0));
        }
    }
    bed.sk().state = TcpState::Listen;
    for cmd in [SIOCINQ, SIOCOUTQ, SIOCOUTQNSD] {
        assert_eq!(ioctl(&mut bed, cmd), Err(Error::Inval));
    }
    assert_eq!(ioctl(&mut bed, 0x1234), Err(Error::NoTty));
}
