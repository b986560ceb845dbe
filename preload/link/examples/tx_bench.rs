//! What sending, holding and filtering cost. Run as root or under `unshare -Urn`:
//! `cargo run --release -p sidewire-link --example tx_bench [seconds]`.

#[path = "../tests/netns/mod.rs"]
mod netns;

use io_uring::{IoUring, cqueue, opcode, types};
use netns::{Netns, ifindex, sh, veth};
use sidewire_link::frame::{FrameSink, MAX_L2, TxFrame, TxVerdict};
use sidewire_link::holder::{HoldOptions, Holders};
use sidewire_link::packet::PacketSocket;
use sidewire_link::packet::filter::{PortFilter, Target};
use sidewire_link::packet::vnet::{self, VNET_HDR_LEN};
use sidewire_wire::ethernet::MacAddr;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::Instant;

fn headers(payload: usize) -> [u8; 40] {
    let mut h = [0u8; 40];
    h[0] = 0x45;
    h[2..4].copy_from_slice(&((40 + payload) as u16).to_be_bytes());
    h[8] = 64;
    h[9] = 6;
    h[12..16].copy_from_slice(&[10, 9, 0, 1]);
    h[16..20].copy_from_slice(&[10, 9, 0, 2]);
    h[32] = 0x50;
    h[33] = 0x10;
    h
}

/// The same super-frames, eight a batch, as SENDMSG of an io_uring; with SQPOLL a kernel thread takes them.
fn by_io_uring(offloads: &str, way: &str, seconds: f64, data: &[u8]) {
    const BATCH: usize = 8;
    let mut builder = IoUring::builder();
    if way.contains("SQPOLL") {
        builder.setup_sqpoll(1000);
    }
    let mut ring = match builder.build(4 * BATCH as u32) {
        Ok(ring) => ring,
        Err(e) => return println!("io_uring: {e}"),
    };
    let socket = PacketSocket::open().expect("packet socket");
    let fd = types::Fd(socket.shared_fd().as_raw_fd());
    let tcp = headers(data.len());
    let offload = vnet::for_tcp(&tcp, MAX_L2, 1460).expect("a TCP header");
    let mut head = vec![0; VNET_HDR_LEN];
    offload.emit(&mut head);
    head.extend([2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 0xa1, 8, 0]);
    head.extend(tcp);
    // SAFETY: integers; all zero is valid.
    let mut name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    name.sll_family = libc::AF_PACKET as u16;
    name.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    name.sll_ifindex = ifindex("va") as i32;
    let mut iov = [&head[..], data].map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    // SAFETY: integers and pointers; all zero is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_name = (&raw mut name).cast();
    msg.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = iov.len();
    let (began, mut bytes) = (Instant::now(), 0usize);
    while began.elapsed().as_secs_f64() < seconds {
        let entry = opcode::SendMsg::new(fd, &raw const msg).build();
        for _ in 0..BATCH {
            // SAFETY: the message outlives the wait below. A thread of the kernel's may lag behind: then there is no room.
            let _ = unsafe { ring.submission().push(&entry) };
        }
        ring.submit_and_wait(BATCH).expect("io_uring");
        let done = ring.completion();
        bytes += done.filter(|c: &cqueue::Entry| c.result() > 0).count() * data.len();
    }
    let ns = began.elapsed().as_nanos() as f64;
    println!(
        "{offloads:10} {way:30} {:>9.2} {:>8.3}",
        bytes as f64 * 8.0 / ns,
        ns / bytes as f64
    );
}

fn main() {
    let seconds: f64 = std::env::args()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(1.0);
    // SAFETY: one thread so far.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(unshared, 0, "run as root or under unshare -Urn");
    sh("ip link set lo up");
    let peer = Netns::new();
    veth(&peer);
    let data = vec![7u8; 65_000];
    println!(
        "{:10} {:30} {:>9} {:>8}",
        "offloads", "way out", "Gbit/s", "ns/B"
    );
    for offloads in ["on", "off"] {
        sh(&format!(
            "ethtool -K va tso {offloads} gso {offloads} tx {offloads} sg {offloads}"
        ));
        for (way, len, batch) in [
            ("super-frames, sendmsg", 65_000, 1),
            ("super-frames, sendmmsg of 8", 65_000, 8),
            ("super-frames, cut by us", 65_000, 1),
            ("MTU frames, sendmsg", 1460, 1),
            ("MTU frames, sendmmsg of 8", 1460, 8),
        ] {
            let mut sink = PacketSocket::open().expect("packet socket").sink();
            if way.contains("by us") {
                sink.refuse_offloads(ifindex("va"));
            }
            let h = headers(len);
            let frags = [libc::iovec {
                iov_base: data.as_ptr().cast_mut().cast(),
                iov_len: len,
            }];
            let frame = TxFrame {
                ifindex: ifindex("va"),
                // Not the peer's: its kernel drops the frame at once.
                dst_mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
                src_mac: MacAddr([2, 0, 0, 0, 0, 0xa1]),
                headers: &h,
                frags: &frags,
                gso_size: if len > 1460 { 1460 } else { 0 },
                mark: 0,
                priority: 0,
                tstamp: None,
                txtime: None,
            };
            let (frames, mut verdicts) = ([frame; 8], [TxVerdict::NoSpace; 8]);
            let (began, mut bytes) = (Instant::now(), 0usize);
            while began.elapsed().as_secs_f64() < seconds {
                let n = sink.send_batch(&frames[..batch], &mut verdicts[..batch]);
                bytes += verdicts[..n]
                    .iter()
                    .filter(|v| **v == TxVerdict::Sent)
                    .count()
                    * len;
            }
            let ns = began.elapsed().as_nanos() as f64;
            println!(
                "{offloads:10} {way:30} {:>9.2} {:>8.3}",
                bytes as f64 * 8.0 / ns,
                ns / bytes as f64
            );
        }
        by_io_uring(offloads, "io_uring of 8", seconds, &data);
        by_io_uring(offloads, "io_uring of 8, SQPOLL", seconds, &data);
    }
    let each = |what: &str, n: u32, began: Instant| {
        println!(
            "{what:41} {:>9.2} us",
            began.elapsed().as_secs_f64() * 1e6 / f64::from(n)
        );
    };
    // The first round is warm-up: it grows the kernel's descriptor table.
    for privileged in [true, true, false] {
        let mut holders = Holders::new(["va".to_owned()]);
        if !privileged {
            holders.without_repair();
        }
        let local = std::net::SocketAddr::from((Ipv4Addr::new(10, 9, 0, 1), 0));
        let mut held = Vec::new();
        let began = Instant::now();
        for i in 0..1000u16 {
            let remote = (Ipv4Addr::new(10, 9, 0, 2), 10_000 + i).into();
            held.push(
                holders
                    .hold_connection(local, remote, &HoldOptions::default())
                    .expect("holder"),
            );
        }
        each(
            if privileged {
                "hold a connection, repair"
            } else {
                "hold a connection, min-TTL"
            },
            1000,
            began,
        );
        let began = Instant::now();
        drop(held);
        each("release it", 1000, began);
    }
    for ports in [1u16, 16, 256, 2000] {
        let socket = PacketSocket::open().expect("packet socket");
        let mut filter = PortFilter::new(false);
        for p in 0..ports {
            let _ = filter.add(1000 + 13 * p, Some(Ipv4Addr::new(10, 9, 0, 1)));
        }
        let began = Instant::now();
        for _ in 0..50 {
            filter.tighten();
            filter
                .attach(Target::Socket(socket.shared_fd().as_raw_fd()))
                .expect("filter");
        }
        each(&format!("attach a filter of {ports} ports"), 50, began);
    }
}
