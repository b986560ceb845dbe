//! `recvmsg`, row by row (`rows.toml` recv-path).

use alloc::vec;
use alloc::vec::Vec;

use sidewire_uapi::socket::{MSG_DONTWAIT, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};

use crate::calls::{RecvCall, RecvCmsg};
use crate::error::Error;
use crate::event::Events;
use crate::repair::RepairQueue;
use crate::skb::tcphdr;
use crate::stack::{Step, WaitReason};
use crate::testbed::Iter;
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};
use crate::time::{HZ, Instant, NSEC_PER_SEC};

const FIN: Seg = Seg {
    flags: tcphdr::FIN | tcphdr::ACK,
    ..SEND
};

/// Sends `len` bytes that begin `at` bytes into the peer's stream.
fn data(peer: &mut Peer, at: u32, len: u32) {
    peer.send(Seg {
        seq: PEER_ISN + 1 + at,
        len,
        ..SEND
    });
}

fn step(peer: &mut Peer, call: &mut RecvCall, len: usize) -> Step<Result<usize, Error>> {
    let mut iter = Iter::new(&peer.bed, vec![(vec![0; len], true)]);
    peer.bed
        .with(|stack, io, id| stack.recvmsg(io, id, call, &mut iter))
}

fn waits(deadline: Instant) -> Step<Result<usize, Error>> {
    Step::Wait {
        reason: WaitReason::Data,
        deadline,
    }
}

/// R2, RV-1 to RV-3.
#[test]
fn nothing_there() {
    assert_eq!(Peer::listening(1).recv(0, 10), Err(Error::NotConn));
    assert_eq!(Peer::closed().recv(0, 10), Err(Error::NotConn));
    assert_eq!(Peer::syn_sent().recv(0, 10), Err(Error::Again));
    let mut peer = Peer::established();
    assert_eq!(peer.recv(0, 0), Err(Error::Again));
    data(&mut peer, 0, 5);
    assert_eq!(peer.recv(0, 0), Ok(0));
}

/// R7: a receive of no bytes sleeps once, and returns 0 however the sleep ends; an error stays for the next call.
#[test]
fn waits_for_nothing() {
    let begun = || {
        let mut peer = Peer::established();
        let mut call = RecvCall::new(0, false);
        for _ in 0..2 {
            assert_eq!(step(&mut peer, &mut call, 0), waits(Instant::NEVER));
        }
        (peer, call)
    };
    let (mut peer, mut call) = begun();
    call.signal = true;
    assert_eq!(step(&mut peer, &mut call, 0), Step::Ready(Ok(0)));

    let (mut peer, mut call) = begun();
    peer.send(Seg {
        flags: tcphdr::RST | tcphdr::ACK,
        ..SEND
    });
    assert_eq!(step(&mut peer, &mut call, 0), Step::Ready(Ok(0)));
    assert_eq!(peer.recv(0, 0), Err(Error::ConnReset));

    // Something else woke it, a zerocopy completion for one.
    let (mut peer, mut call) = begun();
    peer.bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).unwrap();
        crate::errqueue::sk_error_report(sk, &mut cx);
    });
    assert_eq!(step(&mut peer, &mut call, 0), Step::Ready(Ok(0)));

    let mut peer = Peer::established();
    peer.sk().opts.rcvtimeo = Some(HZ);
    let mut call = RecvCall::new(0, false);
    let deadline = peer.bed.now + NSEC_PER_SEC;
    assert_eq!(step(&mut peer, &mut call, 0), waits(deadline));
    peer.bed.now = deadline;
    assert_eq!(step(&mut peer, &mut call, 0), Step::Ready(Ok(0)));
}

/// R5: across segments, and the rest later.
#[test]
fn across_segments() {
    let mut peer = Peer::established();
    for n in 0..4 {
        data(&mut peer, n * 100, 100);
    }
    assert_eq!(peer.recv(0, 150), Ok(150));
    assert_eq!(peer.recv(0, 1000), Ok(250));
    assert_eq!(peer.recv(0, 1000), Err(Error::Again));
    assert_eq!(peer.sk().rmem_alloc, 0);
}

/// RV-5, R6.
#[test]
fn the_end_of_the_stream() {
    let mut peer = Peer::established();
    data(&mut peer, 0, 10);
    peer.send(Seg {
        seq: PEER_ISN + 11,
        ..FIN
    });
    assert_eq!(peer.recv(0, 100), Ok(10));
    assert_eq!(peer.recv(0, 100), Ok(0));
    assert_eq!(peer.recv(0, 100), Ok(0));
    let sk = peer.sk();
    assert_eq!(sk.copied_seq, sk.rcv_nxt);
}

/// RV-8, RV-11, R7, R8.
#[test]
fn lowat_and_timeout() {
    let mut peer = Peer::established();
    peer.sk().opts.rcvlowat = 10;
    peer.sk().opts.rcvtimeo = Some(HZ);
    peer.events();
    data(&mut peer, 0, 3);
    assert!(!peer.events().contains(Events::IN), "RD-34");
    let deadline = peer.now() + NSEC_PER_SEC;
    let mut call = RecvCall::new(0, false);
    assert_eq!(step(&mut peer, &mut call, 50), waits(deadline));
    data(&mut peer, 3, 4);
    assert_eq!(step(&mut peer, &mut call, 47), waits(deadline));
    // The threshold counts from what was read, also for a reader that has some of it already (Linux tcp_data_ready).
    data(&mut peer, 7, 3);
    assert!(!peer.events().contains(Events::IN));
    data(&mut peer, 10, 10);
    assert!(peer.events().contains(Events::IN));
    assert_eq!(step(&mut peer, &mut call, 43), Step::Ready(Ok(20)));

    let mut call = RecvCall::new(0, false);
    let deadline = peer.now() + NSEC_PER_SEC;
    data(&mut peer, 20, 2);
    assert_eq!(step(&mut peer, &mut call, 50), waits(deadline));
    peer.pass_ms(1_000);
    assert_eq!(
        step(&mut peer, &mut call, 48),
        Step::Ready(Ok(2)),
        "a short count"
    );
    let mut call = RecvCall::new(0, false);
    step(&mut peer, &mut call, 50);
    peer.pass_ms(1_000);
    assert_eq!(
        step(&mut peer, &mut call, 50),
        Step::Ready(Err(Error::Again))
    );
    // RV-10.
    data(&mut peer, 22, 5);
    assert_eq!(peer.recv(0, 50), Ok(5));
}

/// RV-14, RV-15.
#[test]
fn waitall() {
    let mut peer = Peer::established();
    data(&mut peer, 0, 10);
    assert_eq!(peer.recv(MSG_WAITALL | MSG_DONTWAIT, 50), Ok(10));
    data(&mut peer, 10, 10);
    let mut call = RecvCall::new(MSG_WAITALL, false);
    assert_eq!(step(&mut peer, &mut call, 50), waits(Instant::NEVER));
    call.signal = true;
    assert_eq!(step(&mut peer, &mut call, 40), Step::Ready(Ok(10)));
    let mut call = RecvCall::new(MSG_WAITALL, false);
    data(&mut peer, 20, 10);
    assert_eq!(step(&mut peer, &mut call, 50), waits(Instant::NEVER));
    peer.send(Seg {
        seq: PEER_ISN + 31,
        ..FIN
    });
    assert_eq!(step(&mut peer, &mut call, 40), Step::Ready(Ok(10)));
    let mut call = RecvCall::new(0, false);
    call.signal = true;
    assert_eq!(
        step(&mut peer, &mut call, 40),
        Step::Ready(Ok(0)),
        "the end comes first"
    );
}

#[test]
fn a_signal_ends_the_wait() {
    let mut peer = Peer::established();
    let mut call = RecvCall::new(0, false);
    assert_eq!(step(&mut peer, &mut call, 50), waits(Instant::NEVER));
    call.signal = true;
    assert_eq!(
        step(&mut peer, &mut call, 50),
        Step::Ready(Err(Error::Intr))
    );
}

/// RV-12, SO-32.
#[test]
fn peek() {
    let mut peer = Peer::established();
    data(&mut peer, 0, 4);
    data(&mut peer, 4, 6);
    assert_eq!(peer.recv(MSG_PEEK, 100), Ok(10));
    assert_eq!(peer.recv(MSG_PEEK, 3), Ok(3));
    peer.sk().opts.peek_off = 2;
    assert_eq!(peer.recv(MSG_PEEK, 2), Ok(2));
    assert_eq!(peer.sk().opts.peek_off, 4);
    assert_eq!(peer.recv(MSG_PEEK, 2), Ok(2));
    assert_eq!(peer.recv(0, 3), Ok(3));
    assert_eq!(peer.sk().opts.peek_off, 3);
    assert_eq!(peer.recv(MSG_PEEK, 100), Ok(4));
    assert_eq!(peer.recv(0, 100), Ok(7));
    peer.send(Seg {
        seq: PEER_ISN + 11,
        ..FIN
    });
    peer.sk().opts.peek_off = -1;
    assert_eq!(peer.recv(MSG_PEEK, 10), Ok(0));
    assert_eq!(peer.recv(0, 10), Ok(0));
}

/// Linux `tcp_read_sock`, which has no SO_PEEK_OFF.
#[test]
fn splice_reads_from_the_beginning() {
    let mut peer = Peer::established();
    data(&mut peer, 0, 10);
    peer.sk().opts.peek_off = 5;
    for flags in [MSG_PEEK, MSG_TRUNC] {
        let mut call = RecvCall::of_splice(flags, true);
        assert_eq!(peer.recv_call(&mut call, 4), Ok(4));
        assert_eq!(peer.sk().opts.peek_off, 5);
    }
    assert_eq!(peer.recv(MSG_PEEK, 100), Ok(1));
}

/// Linux `tcp_splice_read`, which has no repair mode.
#[test]
fn splice_from_a_socket_under_repair() {
    for queue in [RepairQueue::None, RepairQueue::Recv, RepairQueue::Send] {
        let mut peer = Peer::established();
        data(&mut peer, 0, 10);
        peer.sk().repair.on = true;
        peer.sk().repair.queue = queue;
        for flags in [MSG_PEEK, MSG_TRUNC] {
            let mut call = RecvCall::of_splice(flags, true);
            assert_eq!(peer.recv_call(&mut call, 4), Ok(4));
        }
        let mut call = RecvCall::of_splice(MSG_PEEK, true);
        assert_eq!(peer.recv_call(&mut call, 100), Ok(6));
    }
}

/// Another thread reads, or dissolves the connection, while a call sleeps.
#[test]
fn two_readers() {
    let mut peer = Peer::established();
    data(&mut peer, 0, 10);
    let mut call = RecvCall::new(MSG_PEEK | MSG_WAITALL, false);
    assert_eq!(step(&mut peer, &mut call, 30), waits(Instant::NEVER));
    assert_eq!(peer.recv(0, 10), Ok(10));
    data(&mut peer, 10, 20);
    assert_eq!(step(&mut peer, &mut call, 20), Step::Ready(Ok(30)));
    assert_eq!(peer.recv(0, 100), Ok(20));

    let mut call = RecvCall::new(0, false);
    assert_eq!(step(&mut peer, &mut call, 30), waits(Instant::NEVER));
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    assert_eq!(
        step(&mut peer, &mut call, 30),
        Step::Ready(Err(Error::Pipe))
    );
}

/// RV-13: the buffer is never looked at.
#[test]
fn trunc() {
    let mut peer = Peer::established();
    data(&mut peer, 0, 10);
    let mut iter = Iter::new(&peer.bed, vec![(vec![0; 6], false)]);
    let mut call = RecvCall::new(MSG_TRUNC, true);
    let step = peer
        .bed
        .with(|stack, io, id| stack.recvmsg(io, id, &mut call, &mut iter));
    assert_eq!(step, Step::Ready(Ok(6)));
    assert_eq!(peer.recv(0, 10), Ok(4));
}

/// Receives to a bad address.
fn faulty(peer: &mut Peer) -> Step<Result<usize, Error>> {
    let mut iter = Iter::new(&peer.bed, vec![(vec![0; 100], false)]);
    let mut call = RecvCall::new(0, true);
    peer.bed
        .with(|stack, io, id| stack.recvmsg(io, id, &mut call, &mut iter))
}

/// RV-16.
#[test]
fn a_bad_buffer_loses_nothing() {
    let mut peer = Peer::established();
    data(&mut peer, 0, 10);
    assert_eq!(faulty(&mut peer), Step::Ready(Err(Error::Fault)));
    assert_eq!(peer.recv(0, 100), Ok(10));
}

/// RV-34 to RV-36.
#[test]
fn inq() {
    let mut peer = Peer::established();
    peer.sk().opts.inq = true;
    data(&mut peer, 0, 10);
    let cmsgs = |peer: &mut Peer, len| -> Vec<RecvCmsg> {
        let mut call = RecvCall::new(0, true);
        let _ = peer.recv_call(&mut call, len);
        call.cmsgs.to_vec()
    };
    assert_eq!(cmsgs(&mut peer, 4), [RecvCmsg::Inq(6)]);
    assert_eq!(cmsgs(&mut peer, 100), [RecvCmsg::Inq(0)]);
    assert_eq!(cmsgs(&mut peer, 100), [], "a failing recv");
    data(&mut peer, 10, 5);
    peer.send(Seg {
        seq: PEER_ISN + 16,
        ..FIN
    });
    assert_eq!(cmsgs(&mut peer, 100), [RecvCmsg::Inq(1)]);
    assert_eq!(cmsgs(&mut peer, 100), [RecvCmsg::Inq(1)]);
}

/// Time stamps of what was read, in the form that the program asked for.
#[test]
fn timestamps() {
    let mut peer = Peer::established();
    let read = |peer: &mut Peer, at| {
        data(peer, at, 1);
        let mut call = RecvCall::new(0, true);
        peer.recv_call(&mut call, 10).expect("a byte");
        call.cmsgs.to_vec()
    };
    assert_eq!(read(&mut peer, 0), []);
    peer.sk().opts.rcvtstamp = true;
    let stamps = read(&mut peer, 1);
    assert!(matches!(stamps[..], [RecvCmsg::Timestamp { new: false, ns }] if ns > 0));
    peer.sk().opts.rcvtstampns = true;
    peer.sk().opts.tstamp_new = true;
    let stamps = read(&mut peer, 2);
    assert!(matches!(
        stamps[..],
        [RecvCmsg::TimestampNs { new: true, .. }]
    ));
    peer.sk().opts.rcvtstamp = false;
    peer.sk().opts.rcvtstampns = false;
    peer.sk().opts.tsflags = sidewire_uapi::timestamping::SOF_TIMESTAMPING_SOFTWARE
        | sidewire_uapi::timestamping::SOF_TIMESTAMPING_RX_SOFTWARE;
    let stamps = read(&mut peer, 3);
    assert!(matches!(stamps[..], [RecvCmsg::Timestamping { ns: [n, 0, 0], .. }] if n > 0));
}

/// RV-22, RV-23, RV-28, RV-29: the urgent byte stands beside the stream.
#[test]
fn urgent() {
    let urgent = |peer: &mut Peer, at: u32, len: u32| {
        peer.send(Seg {
            flags: tcphdr::ACK | tcphdr::URG | tcphdr::PSH,
            seq: PEER_ISN + 1 + at,
            len,
            urg_ptr: len as u16,
            ..SEND
        });
    };
    let mut peer = Peer::established();
    assert_eq!(peer.recv(MSG_OOB, 1), Err(Error::Inval));
    urgent(&mut peer, 0, 3);
    assert!(peer.events().contains(Events::PRI));
    let mut call = RecvCall::new(MSG_OOB | MSG_PEEK, true);
    assert_eq!(peer.recv_call(&mut call, 1), Ok(1));
    assert_eq!(call.msg_flags, MSG_OOB);
    assert_eq!(peer.recv(0, 10), Ok(2), "up to the mark");
    assert_eq!(peer.recv(MSG_OOB, 1), Ok(1));
    assert_eq!(peer.recv(MSG_OOB, 1), Err(Error::Inval));
    data(&mut peer, 3, 4);
    assert_eq!(peer.recv(0, 10), Ok(4), "past the mark");

    // RV-27.
    urgent(&mut peer, 7, 1);
    let mut call = RecvCall::new(MSG_OOB, true);
    assert_eq!(peer.recv_call(&mut call, 0), Ok(0));
    assert_eq!(call.msg_flags, MSG_OOB | MSG_TRUNC);

    // RV-29.
    let mut peer = Peer::established();
    urgent(&mut peer, 0, 2);
    urgent(&mut peer, 2, 2);
    assert_eq!(peer.recv(0, 10), Ok(3), "the old one became data");
    assert_eq!(peer.recv(0, 10), Err(Error::Again));
    assert_eq!(peer.recv(MSG_OOB, 1), Err(Error::Inval));

    // RV-31.
    let mut peer = Peer::established();
    peer.sk().opts.oobinline = true;
    urgent(&mut peer, 0, 3);
    assert_eq!(peer.recv(MSG_OOB, 1), Err(Error::Inval));
    assert_eq!(peer.recv(0, 10), Ok(2));
    assert_eq!(peer.recv(0, 10), Ok(1));
}

/// A receive that finds nothing but the FIN behind the urgent byte has that behind it all the same.
#[test]
fn urgent_byte_before_a_fin() {
    let mut peer = Peer::established();
    peer.send(Seg {
        flags: tcphdr::ACK | tcphdr::URG | tcphdr::PSH,
        len: 1,
        urg_ptr: 1,
        ..SEND
    });
    peer.send(Seg {
        flags: tcphdr::ACK | tcphdr::FIN,
        seq: PEER_ISN + 2,
        ..SEND
    });
    assert_eq!(peer.recv(0, 10), Ok(0));
    assert_eq!(peer.sk().urg_data, 0, "no POLLPRI");
    assert_eq!(peer.recv(MSG_OOB, 1), Err(Error::Inval));
}

/// The FIN stands where the urgent byte was announced: it is read with what is before it, and no mark is left.
#[test]
fn urgent_byte_in_place_of_a_fin() {
    let mut peer = Peer::established();
    peer.send(Seg {
        flags: tcphdr::ACK | tcphdr::URG | tcphdr::PSH,
        len: 10,
        urg_ptr: 11,
        ..SEND
    });
    peer.send(Seg {
        flags: tcphdr::ACK | tcphdr::FIN,
        seq: PEER_ISN + 11,
        ..SEND
    });
    assert_eq!(peer.recv(0, 100), Ok(10));
    assert_eq!(peer.sk().copied_seq, PEER_ISN + 12);
    assert_eq!(peer.recv(0, 100), Ok(0));
}

/// A copy that fails behind the urgent byte leaves that to be read, in one buffer with it or in the next.
#[test]
fn urgent_byte_before_a_bad_address() {
    for (len, more) in [(1, 4), (5, 0)] {
        let mut peer = Peer::established();
        peer.send(Seg {
            flags: tcphdr::ACK | tcphdr::URG | tcphdr::PSH,
            len,
            urg_ptr: 1,
            ..SEND
        });
        if more > 0 {
            data(&mut peer, 1, more);
        }
        assert_eq!(faulty(&mut peer), Step::Ready(Err(Error::Fault)));
        assert_eq!(peer.sk().copied_seq, PEER_ISN + 2);
        assert_eq!(peer.recv(MSG_OOB, 1), Ok(1));
        assert_eq!(peer.recv(0, 10), Ok(4));
    }
}

/// Linux `sk_send_sigurg`: a pointer to a byte that is not here tells the owner and wakes nobody.
#[test]
fn urgent_byte_announced() {
    let mut peer = Peer::established();
    let urgent = |peer: &mut Peer, len: u32, urg_ptr: u16| {
        peer.send(Seg {
            flags: tcphdr::ACK | tcphdr::URG,
            len,
            urg_ptr,
            ..SEND
        });
        peer.events()
    };
    peer.events();
    assert_eq!(urgent(&mut peer, 0, 3), Events::URG);
    assert_eq!(urgent(&mut peer, 0, 3), Events::empty());
    assert!(urgent(&mut peer, 3, 3).contains(Events::PRI | Events::IN));
}

/// Linux `tcp_splice_read`: what is wrong is told where the urgent byte is in the way.
#[test]
fn splice_at_the_urgent_byte() {
    let mut peer = Peer::established();
    peer.send(Seg {
        flags: tcphdr::ACK | tcphdr::URG,
        len: 1,
        urg_ptr: 1,
        ..SEND
    });
    let id = peer.bed.id;
    let splice = |peer: &mut Peer, nonblock| {
        assert_eq!(peer.bed.stack.before_urgent_byte(id), 0);
        peer.bed.stack.splice_at_urgent_byte(id, nonblock)
    };
    assert_eq!(splice(&mut peer, true), Err(Error::Again));
    assert_eq!(splice(&mut peer, false), Ok(0));
    peer.send(Seg {
        flags: tcphdr::RST | tcphdr::ACK,
        seq: PEER_ISN + 2,
        ..SEND
    });
    assert_eq!(splice(&mut peer, true), Err(Error::ConnReset));
    assert_eq!(splice(&mut peer, true), Ok(0));
}

/// Linux `tcp_splice_read` ends its sleep when something is in the queue of which it takes nothing.
#[test]
fn splice_asleep_at_the_urgent_byte() {
    let mut peer = Peer::established();
    let mut call = RecvCall::of_splice(MSG_PEEK, false);
    assert_eq!(step(&mut peer, &mut call, 1), waits(Instant::NEVER));
    peer.send(Seg {
        flags: tcphdr::ACK | tcphdr::URG,
        len: 1,
        urg_ptr: 1,
        ..SEND
    });
    assert_eq!(step(&mut peer, &mut call, 1), Step::Ready(Ok(0)));
    let mut call = RecvCall::of_splice(MSG_PEEK, true);
    assert_eq!(
        step(&mut peer, &mut call, 1),
        Step::Ready(Err(Error::Again))
    );
    assert_eq!(peer.recv(MSG_OOB, 1), Ok(1));
}

/// RV-25: announced, not here.
#[test]
fn urgent_to_come() {
    let mut peer = Peer::established();
    peer.send(Seg {
        flags: tcphdr::ACK | tcphdr::URG,
        len: 3,
        urg_ptr: 10,
        ..SEND
    });
    assert_eq!(peer.recv(MSG_OOB, 1), Err(Error::Again));
    data(&mut peer, 3, 7);
    assert_eq!(peer.recv(MSG_OOB, 1), Ok(1));
}
