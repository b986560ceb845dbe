//! From recvmmsg to a ring, while frames come.

mod netns;
mod segments;

use netns::{Netns, enter, veth};
use segments::{PORT, SRC_PORT, frame, iov, of_connection, open_port, pattern, wait};
use sidewire_link::Errno;
use sidewire_link::frame::{FrameSink, FrameSource, TxVerdict};
use sidewire_link::packet::filter::PortFilter;
use sidewire_link::packet::{FrameQueue, MAX_RINGS, PacketSocket, PacketSource};
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::TcpView;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Connections that frames come by, where there are several.
const CONNECTIONS: u16 = 5;

/// Port and sequence number of the next frame, taken; none when none waits.
fn next(source: &mut PacketSource) -> Option<(u16, u32)> {
    let f = source.peek().unwrap()?;
    let ip = Ipv4View::parse_prefix(f.bytes, f.meta.len as usize).unwrap();
    let tcp = TcpView::parse_prefix(ip.payload(), ip.payload_len()).unwrap();
    let next = (tcp.src_port(), tcp.seq());
    source.release();
    Some(next)
}

fn spawn(job: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    std::thread::Builder::new().spawn(job).map(drop)
}

/// Frames of so many connections come while the way in gets as many rings as `turns` says, one after the other: each is seen
/// once, and those of a connection in their order.
fn turn_while_frames_come(connections: u16, turns: &[usize]) {
    const FRAMES: u32 = 20_000;
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
                for n in 0..FRAMES {
                    // The queues of the receiver hold so many, also where one connection's are all in one of them. One that
                    // has failed takes no more.
                    let patience = Instant::now() + Duration::from_secs(20);
                    while n > seen.load(Ordering::Relaxed) + 500 {
                        if Instant::now() > patience {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    let connection = n as u16 % connections;
                    let seq = n / u32::from(connections);
                    let h = of_connection(data.len(), SRC_PORT + connection, seq);
                    let sent = sink.send(&frame(&h, &[iov(&data)], 0));
                    assert_eq!(sent, TxVerdict::Sent);
                }
            });
            let mut expected = vec![0; usize::from(connections)];
            let mut all = 0;
            let mut take = |source: &mut PacketSource, until: u32| {
                while all < until {
                    match next(source) {
                        Some((port, seq)) => {
                            let expected = &mut expected[usize::from(port - SRC_PORT)];
                            assert_eq!(seq, *expected, "round {round}, port {port}");
                            *expected += 1;
                            all += 1;
                            seen.store(all, Ordering::Relaxed);
                        }
                        None if until == u32::MAX => return,
                        None => wait(source.readable_fd(), libc::POLLIN),
                    }
                }
            };
            take(&mut source, 1000);
            assert!(source.wants_ring());
            for (nth, &rings) in turns.iter().enumerate() {
                let theirs = turn.clone();
                let ports = (0..connections).map(|n| (PORT, SRC_PORT + n));
                let prepared = peer.run(move || {
                    theirs.open(rings > 1);
                    theirs.prepare(ports, spawn).unwrap()
                });
                assert_eq!(prepared.several(), rings > 1);
                // They have come meanwhile.
                take(&mut source, 2000 + 4000 * nth as u32);
                let attach = |target| {
                    let mut filter = PortFilter::new(false);
                    assert!(filter.add(PORT, None));
                    filter.attach(target)
                };
                turn.begin(&prepared, &mut source, attach).unwrap();
                take(&mut source, u32::MAX);
                let target = turn.complete(&mut Some(prepared), &mut source).unwrap();
                // Where the program's next port is let through.
                attach(target).unwrap();
                assert_eq!(source.queues().count(), rings);
                turn.settle();
            }
            take(&mut source, FRAMES);
            assert_eq!(next(&mut source), None);
            assert_eq!(source.take_drops(), 0);
        });
    }
}

#[test]
fn each_frame_is_seen_once_while_a_ring_comes() {
    if enter("each_frame_is_seen_once_while_a_ring_comes") {
        turn_while_frames_come(1, &[1]);
    }
}

#[test]
fn each_frame_is_seen_once_while_several_rings_come() {
    if enter("each_frame_is_seen_once_while_several_rings_come") {
        turn_while_frames_come(CONNECTIONS, &[MAX_RINGS]);
    }
}

#[test]
fn each_frame_is_seen_once_while_several_rings_follow_one() {
    if enter("each_frame_is_seen_once_while_several_rings_follow_one") {
        turn_while_frames_come(CONNECTIONS, &[1, MAX_RINGS]);
    }
}

/// Each connection's frames are in a queue of their own, and those of other ports in none.
#[test]
fn several_rings_share_what_comes() {
    if !enter("several_rings_share_what_comes") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let (source, turn) = peer.run(|| open_port(PORT).first_source().unwrap());
    let (mut source, Some(turn)) = (source, turn) else {
        return;
    };
    let turn = Arc::new(turn);
    let ports = (0..CONNECTIONS).map(|n| (PORT, SRC_PORT + n));
    let theirs = turn.clone();
    let prepared = peer.run(move || {
        theirs.open(true);
        theirs.prepare(ports, spawn).unwrap()
    });
    let mut filter = PortFilter::new(false);
    assert!(filter.add(PORT, None));
    turn.begin(&prepared, &mut source, |target| filter.attach(target))
        .unwrap();
    let target = turn.complete(&mut Some(prepared), &mut source).unwrap();
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = pattern(60_000);
    let mut send = |n| {
        let h = of_connection(data.len(), SRC_PORT + n, 0);
        assert_eq!(sink.send(&frame(&h, &[iov(&data)], 1400)), TxVerdict::Sent);
    };
    for n in (0..CONNECTIONS).chain(0..CONNECTIONS) {
        send(n);
    }
    let queues: Vec<_> = source.queues().collect();
    let mut of_connection = [None; CONNECTIONS as usize];
    for _ in 0..2 * CONNECTIONS {
        wait(source.readable_fd(), libc::POLLIN);
        let f = source.peek().unwrap().unwrap();
        let ip = Ipv4View::parse_prefix(f.bytes, f.meta.len as usize).unwrap();
        let tcp = TcpView::parse_prefix(ip.payload(), ip.payload_len()).unwrap();
        let its = &mut of_connection[usize::from(tcp.src_port() - SRC_PORT)];
        let head = source.leave().expect("a large frame is queued") + 40;
        let queue = *its.get_or_insert(source_of(&queues, head, &data));
        assert_eq!(its.replace(queue), Some(queue));
    }
    let mut used: Vec<_> = of_connection.into_iter().flatten().collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), usize::from(CONNECTIONS));
    // The program closes its port.
    let _ = filter.remove(PORT, None);
    filter.attach(target).unwrap();
    send(0);
    assert!(source.peek().unwrap().is_none());
    assert!(queues.iter().all(|q| q.charged() == 0));
}

/// The queue that has a frame with this payload behind `head` bytes; the frame is taken.
fn source_of(queues: &[FrameQueue], head: usize, payload: &[u8]) -> usize {
    let full = queues.iter().position(|q| q.charged() > 0).unwrap();
    let mut got = vec![0u8; payload.len()];
    let into = [libc::iovec {
        iov_base: got.as_mut_ptr().cast(),
        iov_len: got.len(),
    }];
    // SAFETY: our own live buffer.
    let taken = unsafe { queues[full].take(head, &into) };
    assert_eq!(taken, Ok(payload.len()));
    assert_eq!(got, payload);
    full
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
        peer.run(move || turn.prepare([].into_iter(), spawn).unwrap())
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
