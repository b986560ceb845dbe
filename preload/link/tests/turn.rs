//! From recvmmsg to a ring, while frames come.

mod netns;
mod segments;

use netns::{Netns, enter, veth};
use segments::{PORT, frame, iov, numbered, open_port, pattern, wait};
use sidewire_link::Errno;
use sidewire_link::frame::{FrameSink, FrameSource, TxVerdict};
use sidewire_link::packet::PacketSocket;
use sidewire_link::packet::PacketSource;
use sidewire_link::packet::filter::PortFilter;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::TcpView;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The sequence number of the next frame, taken; none when none waits.
fn next_seq(source: &mut PacketSource) -> Option<u32> {
    let f = source.peek().unwrap()?;
    let ip = Ipv4View::parse_prefix(f.bytes, f.meta.len as usize).unwrap();
    let seq = TcpView::parse_prefix(ip.payload(), ip.payload_len())
        .unwrap()
        .seq();
    source.release();
    Some(seq)
}

#[test]
fn each_frame_is_seen_once_while_a_ring_comes() {
    const FRAMES: u32 = 20_000;
    if !enter("each_frame_is_seen_once_while_a_ring_comes") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    for round in 0..5 {
        let (source, turn) = peer.run(|| open_port(PORT).first_source().unwrap());
        let (mut source, Some(turn)) = (source, turn) else {
            assert_ne!(round, 0, "the receive buffer is large");
            return;
        };
        let turn = Arc::new(turn);
        let seen = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sink = PacketSocket::open().unwrap().sink();
                let data = pattern(600);
                for seq in 0..FRAMES {
                    // The queues of the receiver hold so many. One that has failed takes no more.
                    let patience = Instant::now() + Duration::from_secs(20);
                    while seq > seen.load(Ordering::Relaxed) + 2000 {
                        if Instant::now() > patience {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    let h = numbered(data.len(), seq);
                    let sent = sink.send(&frame(&h, &[iov(&data)], 0));
                    assert_eq!(sent, TxVerdict::Sent);
                }
            });
            let mut expected = 0;
            let mut take = |source: &mut PacketSource, until: u32| {
                while expected < until {
                    match next_seq(source) {
                        Some(seq) => {
                            assert_eq!(seq, expected, "round {round}");
                            expected += 1;
                            seen.store(expected, Ordering::Relaxed);
                        }
                        None if until == u32::MAX => return,
                        None => wait(source.readable_fd(), libc::POLLIN),
                    }
                }
            };
            take(&mut source, 1000);
            assert!(source.wants_ring());
            let theirs = turn.clone();
            let prepared = peer.run(move || theirs.prepare().unwrap());
            // They have come meanwhile.
            take(&mut source, 2000);
            let attach = |fd| {
                let mut filter = PortFilter::new(false);
                assert!(filter.add(PORT, None));
                filter.attach(fd)
            };
            turn.begin(&prepared, &mut source, attach).unwrap();
            take(&mut source, u32::MAX);
            turn.complete(&mut Some(prepared), &mut source).unwrap();
            assert!(matches!(source, PacketSource::Ring(_)));
            turn.settle();
            take(&mut source, FRAMES);
            assert_eq!(next_seq(&mut source), None);
        });
    }
}

/// A second socket that does not come to be used is gone: it would hear all frames, and keep as many as its ring holds.
#[test]
fn a_turn_that_fails_leaves_no_socket() {
    if !enter("a_turn_that_fails_leaves_no_socket") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let (source, turn) = peer.run(|| open_port(PORT).first_source().unwrap());
    let (mut source, Some(turn)) = (source, turn) else {
        return;
    };
    let turn = Arc::new(turn);
    let sockets = || {
        let all = peer.run(|| std::fs::read_to_string("/proc/thread-self/net/packet").unwrap());
        all.lines().count() - 1
    };
    let prepare = || {
        let turn = turn.clone();
        peer.run(move || turn.prepare().unwrap())
    };
    assert_eq!(sockets(), 1);
    let prepared = prepare();
    assert_eq!(sockets(), 2);
    turn.begin(&prepared, &mut source, |_| Err(Errno::ENOMEM))
        .unwrap_err();
    drop(prepared);
    assert_eq!(sockets(), 1);
    // The program has lowered its limit meanwhile.
    let prepared = prepare();
    turn.begin(&prepared, &mut source, |_| Ok(())).unwrap();
    let limit = libc::rlimit {
        rlim_cur: source.readable_fd() as u64,
        rlim_max: source.readable_fd() as u64,
    };
    // SAFETY: a live structure.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    assert_eq!(
        turn.complete(&mut Some(prepared), &mut source).unwrap_err(),
        Errno::EBADF
    );
    assert!(matches!(source, PacketSource::Batch(_)));
    assert_eq!(sockets(), 1);
}
