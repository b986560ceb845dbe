//! Frames over veth and tun, between namespaces.

mod netns;
mod segments;

use netns::{Netns, enter, ifindex, sh, veth};
use segments::{A, B, PORT, frame, headers, iov, open_port, pattern, wait};
use sidewire_link::Errno;
use sidewire_link::frame::{Checksum, FrameSink, FrameSource, Rest, TxFrame, TxVerdict};
use sidewire_link::netlink::{LinkKind, Routes};
use sidewire_link::packet::filter::{PortFilter, Target};
use sidewire_link::packet::{BatchSource, PacketSink, PacketSocket, RingConfig, RingSource};
use sidewire_wire::checksum;
use sidewire_wire::ethernet::MacAddr;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::TcpView;
use std::os::fd::AsRawFd;

/// The peer's end of [`PORT`], at work.
fn receiving(peer: &Netns, config: RingConfig) -> RingSource {
    let rx = peer.run(|| open_port(PORT));
    let source = RingSource::new(rx.shared_fd(), config).unwrap();
    rx.start().unwrap();
    source
}

/// One received segment.
#[derive(Debug)]
struct Segment {
    gso_size: u16,
    csum: Checksum,
    ifindex: u32,
    rest: Rest,
    seq: u32,
    payload: Vec<u8>,
}

/// Receives until `bytes` of payload are there. Verifies what is complete.
fn receive(source: &mut dyn FrameSource, bytes: usize) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut have = 0;
    while have < bytes {
        let Some(f) = source.peek().unwrap() else {
            wait(source.readable_fd(), libc::POLLIN);
            continue;
        };
        let ip = Ipv4View::parse_prefix(f.bytes, f.meta.len as usize).unwrap();
        let tcp = TcpView::parse_prefix(ip.payload(), ip.payload_len()).unwrap();
        let skip = ip.header_len() + tcp.header_len();
        let (seq, rest, meta, len) = (tcp.seq(), f.rest, f.meta, tcp.payload_len());
        if meta.csum == Checksum::Unknown && rest == Rest::Here {
            assert!(tcp.checksum_ok(ip.pseudo_header()), "checksum of {seq}");
        }
        let (mut one, mut two) = (vec![0u8; 100.min(len)], vec![0u8; len - 100.min(len)]);
        let into = [
            libc::iovec {
                iov_base: one.as_mut_ptr().cast(),
                iov_len: one.len(),
            },
            libc::iovec {
                iov_base: two.as_mut_ptr().cast(),
                iov_len: two.len(),
            },
        ];
        // SAFETY: two live buffers.
        let got = unsafe { source.take(skip, &into) }.unwrap();
        assert_eq!(got, len);
        one.extend(two);
        have += len;
        let (gso_size, csum, ifindex) = (meta.gso_size, meta.csum, meta.ifindex);
        segments.push(Segment {
            gso_size,
            csum,
            ifindex,
            rest,
            seq,
            payload: one,
        });
    }
    segments
}

fn joined(mut segments: Vec<Segment>) -> Vec<u8> {
    segments.sort_by_key(|s| s.seq);
    segments.into_iter().flat_map(|s| s.payload).collect()
}

#[test]
fn super_frame_arrives_whole_by_ring() {
    if !enter("super_frame_arrives_whole_by_ring") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let mut source = receiving(&peer, RingConfig::SMALL_SLOTS);
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = pattern(65_000);
    let h = headers(data.len());
    let frags = [iov(&data[..1]), iov(&data[1..40_000]), iov(&data[40_000..])];
    assert_eq!(sink.send(&frame(&h, &frags, 1460)), TxVerdict::Sent);
    let got = receive(&mut source, data.len());
    assert_eq!(got.len(), 1);
    assert_eq!(
        (got[0].gso_size, got[0].csum, got[0].rest),
        (1460, Checksum::NotReady, Rest::Queued)
    );
    assert_eq!(got[0].ifindex, peer.run(|| ifindex("vb")));
    assert!(got[0].payload == data);
    // A small frame is whole in its slot.
    let h = headers(100);
    assert_eq!(
        sink.send(&frame(&h, &[iov(&data[..100])], 0)),
        TxVerdict::Sent
    );
    let got = receive(&mut source, 100);
    assert_eq!((got[0].gso_size, got[0].rest), (0, Rest::Here));
    assert!(source.peek().unwrap().is_none());
    assert_eq!(source.take_drops(), 0);
}

#[test]
fn super_frame_fits_a_large_slot_and_a_batch() {
    if !enter("super_frame_fits_a_large_slot_and_a_batch") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let ring = peer.run(|| open_port(PORT));
    let mut large = RingSource::new(ring.shared_fd(), RingConfig::LARGE_SLOTS).unwrap();
    ring.start().unwrap();
    let plain = peer.run(|| open_port(PORT));
    let mut batch = BatchSource::new(plain.shared_fd()).unwrap();
    batch.set_stamps(true).unwrap();
    plain.start().unwrap();
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = pattern(65_481);
    let h = headers(data.len());
    assert_eq!(sink.send(&frame(&h, &[iov(&data)], 1460)), TxVerdict::Sent);
    wait(batch.readable_fd(), libc::POLLIN);
    assert!(batch.peek().unwrap().unwrap().meta.stamp.unwrap() > 1_600_000_000_000_000_000);
    for source in [&mut large as &mut dyn FrameSource, &mut batch] {
        let got = receive(source, data.len());
        assert_eq!(
            (got[0].gso_size, got[0].csum, got[0].rest),
            (1460, Checksum::NotReady, Rest::Here)
        );
        assert!(joined(got) == data);
    }
}

#[test]
fn ring_goes_round() {
    if !enter("ring_goes_round") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let config = RingConfig {
        slot_size: 2048,
        block_size: 8192,
        blocks: 2,
    };
    let mut source = receiving(&peer, config);
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = pattern(5000);
    for round in 0..50 {
        // Queued and whole frames in turn, taken and released in turn.
        let len = if round % 2 == 0 { 5000 } else { 30 };
        let h = headers(len);
        assert_eq!(
            sink.send(&frame(&h, &[iov(&data[..len])], 1460)),
            TxVerdict::Sent
        );
        if round % 3 == 0 {
            wait(source.readable_fd(), libc::POLLIN);
            assert!(source.peek().unwrap().is_some());
            source.release();
        } else {
            assert!(joined(receive(&mut source, len)) == data[..len]);
        }
    }
    // Three more than the ring has slots: the surplus is dropped and counted, the rest comes in order.
    for i in 0..11usize {
        let h = headers(i + 1);
        assert_eq!(
            sink.send(&frame(&h, &[iov(&data[..i + 1])], 0)),
            TxVerdict::Sent
        );
    }
    let got = receive(&mut source, (1..=8).sum());
    assert_eq!(
        got.iter().map(|s| s.payload.len()).collect::<Vec<_>>(),
        (1..=8).collect::<Vec<_>>()
    );
    assert_eq!(source.take_drops(), 3);
    assert!(source.peek().unwrap().is_none());
}

/// Large frames that are left in the queue wait there in their order, past small ones that are taken.
#[test]
fn frames_are_left_and_taken_later() {
    if !enter("frames_are_left_and_taken_later") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let mut source = receiving(&peer, RingConfig::SMALL_SLOTS);
    let queue = source.queue().clone();
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = pattern(20_000);
    for len in [9000, 30, 12_000] {
        let h = headers(len);
        assert_eq!(
            sink.send(&frame(&h, &[iov(&data[..len])], 1460)),
            TxVerdict::Sent
        );
    }
    let leave = |source: &mut RingSource| {
        while source.peek().unwrap().is_none() {
            wait(source.readable_fd(), libc::POLLIN);
        }
        source.leave()
    };
    let before = leave(&mut source).unwrap();
    // A small frame is in its slot: there is nothing to leave.
    assert_eq!(leave(&mut source), None);
    assert!(joined(receive(&mut source, 30)) == data[..30]);
    assert_eq!(leave(&mut source), Some(before));
    assert_eq!(leave_nothing(&mut source), None);

    let head = before + 40;
    let mut start = vec![0; 1000];
    let mut first = vec![0; 9000];
    let mut second = vec![0; 12_000];
    // SAFETY: live buffers of ours.
    unsafe {
        assert_eq!(queue.peek(head, &[target(&mut start)]), Ok(1000));
        assert_eq!(queue.take(head, &[target(&mut first)]), Ok(9000));
        assert_eq!(queue.take(head, &[target(&mut second)]), Ok(12_000));
        assert_eq!(queue.take(head, &[]), Err(Errno::EAGAIN));
    }
    for got in [start, first, second] {
        assert!(got[..] == data[..got.len()]);
    }
}

fn target(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// Leaves the next frame, when there is none.
fn leave_nothing(source: &mut RingSource) -> Option<usize> {
    assert!(source.peek().unwrap().is_none());
    source.leave()
}

#[test]
fn fault_in_the_target_loses_one_frame_only() {
    if !enter("fault_in_the_target_loses_one_frame_only") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let mut source = receiving(&peer, RingConfig::SMALL_SLOTS);
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = pattern(9000);
    for part in [&data[..4500], &data[4500..]] {
        let h = headers(part.len());
        assert_eq!(sink.send(&frame(&h, &[iov(part)], 1460)), TxVerdict::Sent);
    }
    wait(source.readable_fd(), libc::POLLIN);
    while source.peek().unwrap().is_none() {}
    let bad = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(64),
        iov_len: 4500,
    };
    // SAFETY: the frame is queued, so the kernel checks the target, which is never mapped.
    let taken = unsafe { source.take(40, &[bad]) };
    assert_eq!(taken, Err(Errno::EFAULT));
    assert!(joined(receive(&mut source, 4500)) == data[4500..]);
}

#[test]
fn offloads_switched_off_and_refused() {
    if !enter("offloads_switched_off_and_refused") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    sh("ethtool -K va tso off gso off tx off sg off");
    let mut source = receiving(&peer, RingConfig::SMALL_SLOTS);
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = pattern(65_000);
    let h = headers(data.len());
    for refused in [false, true] {
        if refused {
            sink.refuse_offloads(ifindex("va"));
        }
        assert_eq!(
            sink.send(&frame(&h, &[iov(&data[..9]), iov(&data[9..])], 1448)),
            TxVerdict::Sent
        );
        let got = receive(&mut source, data.len());
        assert_eq!(got.len(), data.len().div_ceil(1448));
        assert!(
            got.iter()
                .all(|s| s.gso_size == 0 && s.csum != Checksum::NotReady)
        );
        assert!(joined(got) == data);
    }
    // The device is offered super-frames again when what it refused is forgotten.
    let va = ifindex("va");
    sink.forget_device(va + 1);
    assert!(sink.cuts(va));
    sh("ethtool -K va tso on gso on tx on sg on");
    sink.forget_device(va);
    assert!(!sink.cuts(va));
    assert_eq!(sink.send(&frame(&h, &[iov(&data)], 1448)), TxVerdict::Sent);
    let got = receive(&mut source, data.len());
    assert_eq!((got.len(), got[0].gso_size), (1, 1448));
    sink.refuse_offloads(va);
    // In user space, too, a bad address is a fault and no crash, and nothing leaves.
    let bad = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(64),
        iov_len: 100,
    };
    assert_eq!(
        sink.send(&frame(&h, &[iov(&data[..9]), bad], 1448)),
        TxVerdict::Fault
    );
    assert!(source.peek().unwrap().is_none());
}

/// Twenty small frames, and twenty of which the thirteenth has a bad address: in order, up to that one.
fn batches_by(sink: &mut PacketSink, source: &mut RingSource) {
    let data = pattern(3000);
    let hs: Vec<_> = (1..=20).map(headers).collect();
    let frags: Vec<_> = (1..=20).map(|i| [iov(&data[..i])]).collect();
    let mut frames: Vec<_> = hs.iter().zip(&frags).map(|(h, f)| frame(h, f, 0)).collect();
    let mut verdicts = [TxVerdict::NoSpace; 20];
    assert_eq!(sink.send_batch(&frames, &mut verdicts), 20);
    assert_eq!(verdicts, [TxVerdict::Sent; 20]);
    let got = receive(source, (1..=20).sum());
    assert_eq!(
        got.iter().map(|s| s.payload.len()).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
    let bad = [libc::iovec {
        iov_base: std::ptr::without_provenance_mut(64),
        iov_len: 13,
    }];
    frames[12].frags = &bad;
    let mut verdicts = [TxVerdict::NoSpace; 20];
    assert_eq!(sink.send_batch(&frames, &mut verdicts), 13);
    assert_eq!(verdicts[..12], [TxVerdict::Sent; 12]);
    assert_eq!(verdicts[12], TxVerdict::Fault);
    let got = receive(source, (1..=12).sum());
    assert_eq!(
        got.iter().map(|s| s.payload.len()).collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>()
    );
}

/// Rings of io_uring that this process has.
fn rings() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|e| std::fs::read_link(e.ok()?.path()).ok())
        .filter(|l| l.to_string_lossy().contains("io_uring"))
        .count()
}

#[test]
fn batch_is_sent_in_order_up_to_the_first_refused() {
    if !enter("batch_is_sent_in_order_up_to_the_first_refused") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let mut source = receiving(&peer, RingConfig::SMALL_SLOTS);
    batches_by(&mut PacketSocket::open().unwrap().sink(), &mut source);
    assert!(source.peek().unwrap().is_none());
    assert_eq!(rings(), 0);
}

#[test]
fn batch_in_one_piece_by_one_ring_for_all() {
    if !enter("batch_in_one_piece_by_one_ring_for_all") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let mut source = receiving(&peer, RingConfig::SMALL_SLOTS);
    let tx = PacketSocket::open().unwrap();
    let others = rings();
    let mut sinks = [tx.sink(), tx.sink()];
    sinks.iter_mut().for_each(PacketSink::in_one_piece);
    assert_eq!(rings(), others, "made for the first batch");
    // A sandbox may refuse: then it is sendmmsg.
    let allowed = io_uring::IoUring::new(2).is_ok();
    for sink in &mut sinks {
        batches_by(sink, &mut source);
        // A ring does not stop at a message that fails.
        let behind = if allowed { 14..=16 } else { 0..=0 };
        let got = receive(&mut source, behind.clone().sum());
        assert_eq!(
            got.iter().map(|s| s.payload.len()).sum::<usize>(),
            behind.sum()
        );
        assert!(source.peek().unwrap().is_none());
        assert_eq!(rings(), others + usize::from(allowed));
    }
}

#[test]
fn verdicts() {
    if !enter("verdicts") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = pattern(70_000);
    let h = headers(2000);
    assert_eq!(
        sink.send(&frame(&h, &[iov(&data[..2000])], 0)),
        TxVerdict::TooBig,
        "above the MTU"
    );
    assert_eq!(
        sink.send(&frame(&h, &[iov(&data)], 1460)),
        TxVerdict::TooBig,
        "above 65535"
    );
    let bad = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(64),
        iov_len: 100,
    };
    assert_eq!(
        sink.send(&frame(&h, &[iov(&data[..9]), bad], 0)),
        TxVerdict::Fault
    );
    let marked = TxFrame {
        mark: 7,
        priority: 3,
        ..frame(&h, &[], 0)
    };
    assert_eq!(sink.send(&marked), TxVerdict::Sent);
    let nowhere = TxFrame {
        ifindex: 9999,
        ..frame(&h, &[], 0)
    };
    assert_eq!(sink.send(&nowhere), TxVerdict::DeviceGone);
    sh("ip link set va down");
    assert_eq!(sink.send(&frame(&h, &[], 0)), TxVerdict::DeviceGone);
    sh("ip link set va up");
    let refused = TxFrame {
        headers: &h[..20],
        ..frame(&h, &[], 0)
    };
    assert!(matches!(sink.send(&refused), TxVerdict::Refused(_)));
}

#[test]
fn full_socket_says_no_space_and_polls_writable_later() {
    if !enter("full_socket_says_no_space_and_polls_writable_later") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    // Frames stay queued, charged to the socket, while the queue's rate is near zero.
    sh("tc qdisc replace dev va root tbf rate 8kbit burst 1600 limit 100000000");
    let socket = PacketSocket::open().unwrap();
    let mut sink = socket.sink();
    let data = pattern(60_000);
    let h = headers(data.len());
    let mut sent = 0;
    loop {
        match sink.send(&frame(&h, &[iov(&data)], 1460)) {
            TxVerdict::Sent => sent += 1,
            verdict => {
                assert_eq!(verdict, TxVerdict::NoSpace);
                break;
            }
        }
        assert!(sent < 10_000);
    }
    assert!(sent > 1);
    let mut p = libc::pollfd {
        fd: sink.writable_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one live pollfd.
    assert_eq!(unsafe { libc::poll(&mut p, 1, 0) }, 0);
    sh("tc qdisc del dev va root");
    wait(sink.writable_fd(), libc::POLLOUT);
    assert_eq!(sink.send(&frame(&h, &[iov(&data)], 1460)), TxVerdict::Sent);
}

#[test]
fn full_queue_says_dropped() {
    if !enter("full_queue_says_dropped") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    sh("tc qdisc replace dev va root tbf rate 8kbit burst 1600 limit 3000");
    let mut sink = PacketSocket::open().unwrap().sink();
    let h = headers(1400);
    let data = pattern(1400);
    let verdicts: Vec<_> = (0..10)
        .map(|_| sink.send(&frame(&h, &[iov(&data)], 0)))
        .collect();
    assert_eq!(verdicts[0], TxVerdict::Sent);
    assert_eq!(verdicts[9], TxVerdict::Dropped);
}

#[test]
fn of_a_frame_that_is_cut_a_full_queue_drops_the_rest() {
    if !enter("of_a_frame_that_is_cut_a_full_queue_drops_the_rest") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    sh("tc qdisc replace dev va root tbf rate 8kbit burst 1600 limit 3000");
    let mut sink = PacketSocket::open().unwrap().sink();
    sink.refuse_offloads(ifindex("va"));
    let data = pattern(8 * 1400);
    let h = headers(data.len());
    // What has left cannot be unsent: the peer acknowledges it.
    let mut send = || sink.send(&frame(&h, &[iov(&data)], 1400));
    assert_eq!(send(), TxVerdict::Sent);
    assert_eq!(send(), TxVerdict::Dropped);
}

#[test]
fn only_our_ports_reach_us() {
    if !enter("only_our_ports_reach_us") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let socket = PacketSocket::open().unwrap();
    let mut source = socket.source().unwrap();
    let fd = socket.shared_fd();
    let mut filter = PortFilter::new(false);
    let knock = |port: u16| {
        peer.run(move || {
            // The kernel answers RST: nobody listens. So the SYN has been through the tap when connect returns.
            let e = std::net::TcpStream::connect((A, port)).unwrap_err();
            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionRefused);
        });
    };
    let mut ports_seen = || {
        let mut seen = Vec::new();
        while let Some(f) = source.peek().unwrap() {
            let ip = Ipv4View::parse(f.bytes).unwrap();
            seen.push(TcpView::parse(ip.payload()).unwrap().dst_port());
            source.release();
        }
        seen
    };
    knock(80);
    assert_eq!(ports_seen(), []);
    assert!(filter.add(80, Some(A)));
    filter.attach(Target::Socket(fd.as_raw_fd())).unwrap();
    for port in [79, 80, 81] {
        knock(port);
    }
    assert_eq!(ports_seen(), [80]);
    // Clients on this host are the kernel's.
    assert!(std::net::TcpStream::connect((A, 80)).is_err());
    assert_eq!(ports_seen(), []);
    for port in 1000..1400 {
        if filter.add(port * 3, Some(A)) {
            filter.attach(Target::Socket(fd.as_raw_fd())).unwrap();
        }
    }
    for port in [2999, 3000, 4197] {
        knock(port);
    }
    assert_eq!(ports_seen().iter().filter(|&&p| p != 2999).count(), 2);
    assert!(filter.remove(80, Some(A)) || filter.covers(80, Some(A)));
}

#[test]
fn tun_device_has_no_link_layer_header() {
    if !enter("tun_device_has_no_link_layer_header") {
        return;
    }
    sh(
        "ip tuntap add t0 mode tun && echo 1 > /proc/sys/net/ipv6/conf/t0/disable_ipv6 && ip addr add 10.9.0.1/24 dev t0 && ip link set t0 up",
    );
    let tun = attach_tun("t0");
    wait_running("t0");
    let routes = Routes::open().unwrap();
    let dev = routes.device(ifindex("t0")).unwrap();
    assert_eq!((dev.name.as_str(), dev.kind), ("t0", LinkKind::None));
    let socket = open_port(PORT);
    let mut source = socket.source().unwrap();
    let mut sink = socket.sink();
    let data = pattern(3000);
    let h = headers(data.len());
    let out = TxFrame {
        ifindex: ifindex("t0"),
        dst_mac: None,
        gso_size: 1460,
        ..frame_for_tun(&h)
    };
    assert_eq!(
        sink.send(&TxFrame {
            frags: &[iov(&data)],
            ..out
        }),
        TxVerdict::Sent
    );
    // The tun's file has no GSO, so the kernel has cut the frame and finished the checksums.
    let mut got = Vec::new();
    while got.len() < data.len() {
        wait(tun.as_raw_fd(), libc::POLLIN);
        let mut packet = [0u8; 2000];
        // SAFETY: the kernel writes at most 2000 bytes.
        let n = unsafe { libc::read(tun.as_raw_fd(), packet.as_mut_ptr().cast(), 2000) };
        let ip = Ipv4View::parse(&packet[..n as usize]).unwrap();
        let tcp = TcpView::parse(ip.payload()).unwrap();
        assert!(tcp.checksum_ok(ip.pseudo_header()));
        got.extend_from_slice(tcp.payload());
    }
    assert!(got == data);
    // And in: a segment to us from 10.9.0.2.
    let mut packet = headers(0);
    packet[12..16].copy_from_slice(&B.octets());
    packet[16..20].copy_from_slice(&A.octets());
    packet[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    // SAFETY: the kernel reads the packet.
    let n = unsafe { libc::write(tun.as_raw_fd(), packet.as_ptr().cast(), packet.len()) };
    assert_eq!(n, packet.len() as isize);
    wait(source.readable_fd(), libc::POLLIN);
    let f = source.peek().unwrap().unwrap();
    assert_eq!((f.bytes, f.rest), (&packet[..], Rest::Here));
}

fn frame_for_tun(headers: &[u8]) -> TxFrame<'_> {
    TxFrame {
        ifindex: 0,
        dst_mac: None,
        src_mac: MacAddr::UNSPECIFIED,
        headers,
        frags: &[],
        gso_size: 0,
        mark: 0,
        priority: 0,
        tstamp: None,
        txtime: None,
    }
}

fn attach_tun(name: &str) -> std::fs::File {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .expect("/dev/net/tun opens");
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one struct ifreq of 40 bytes.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    file
}

/// Waits until the device's carrier is on, as `ip monitor` would tell.
fn wait_running(name: &str) {
    while !sh(&format!("ip link show {name}")).contains("LOWER_UP") {}
}
