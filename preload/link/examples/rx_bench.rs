//! Compares the ways in: one thread sends over veth, with at most a window of bytes not yet received, one receives
//! into a buffer such as a program's. Run as root or under `unshare -Urn`:
//! `cargo run --release -p sidewire-link --example rx_bench [seconds [one-cpu]]`.

#[path = "../tests/netns/mod.rs"]
mod netns;

use netns::{Netns, ifindex, veth};
use sidewire_link::frame::{FrameSink, FrameSource, TxFrame, TxVerdict};
use sidewire_link::packet::filter::{PortFilter, Target};
use sidewire_link::packet::{BatchSource, PacketSocket, RingConfig, RingSource};
use sidewire_wire::ethernet::MacAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PORT: u16 = 7777;
const WINDOW: u64 = 2 << 20;

/// Sequence position of the sender, of the receiver, bytes lost, and the end.
#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    received: AtomicU64,
    stop: AtomicBool,
}

fn headers(payload: usize) -> [u8; 40] {
    let mut h = [0u8; 40];
    h[0] = 0x45;
    h[2..4].copy_from_slice(&((40 + payload) as u16).to_be_bytes());
    h[8] = 64;
    h[9] = 6;
    h[12..16].copy_from_slice(&[10, 9, 0, 1]);
    h[16..20].copy_from_slice(&[10, 9, 0, 2]);
    let sum = sidewire_wire::checksum::finish(sidewire_wire::checksum::sum(&h[..20]));
    h[10..12].copy_from_slice(&sum.to_be_bytes());
    h[20..24].copy_from_slice(&[4, 210, (PORT >> 8) as u8, PORT as u8]);
    h[32] = 0x50;
    h[33] = 0x10;
    h
}

fn pin(cpu: usize) {
    // SAFETY: a zeroed set is valid; the set lives during the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

fn thread_cpu() -> Duration {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ts) };
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

fn blast(p: &Progress, payload: usize, gso: u16) {
    let index = ifindex("va");
    let mut sink = PacketSocket::open().expect("packet socket").sink();
    let data = vec![7u8; payload];
    let h = headers(payload);
    let frags = [libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: payload,
    }];
    let frame = TxFrame {
        ifindex: index,
        dst_mac: Some(MacAddr([2, 0, 0, 0, 0, 0xb2])),
        src_mac: MacAddr([2, 0, 0, 0, 0, 0xa1]),
        headers: &h,
        frags: &frags,
        gso_size: gso,
        mark: 0,
        priority: 0,
        tstamp: None,
        txtime: None,
    };
    let batch = [frame; 8];
    let mut verdicts = [TxVerdict::NoSpace; 8];
    let mut stalled = Instant::now();
    while !p.stop.load(Ordering::Relaxed) {
        let out = p.sent.load(Ordering::Relaxed) - p.received.load(Ordering::Acquire);
        if out + 8 * payload as u64 > WINDOW {
            // Lost frames would close the window for ever: forgive after a while, as a timeout would.
            if stalled.elapsed() > Duration::from_millis(5) {
                p.sent
                    .store(p.received.load(Ordering::Acquire), Ordering::Relaxed);
            }
            std::thread::yield_now();
            continue;
        }
        stalled = Instant::now();
        let n = sink.send_batch(&batch, &mut verdicts);
        let sent = verdicts[..n]
            .iter()
            .filter(|v| **v == TxVerdict::Sent)
            .count();
        p.sent.fetch_add((sent * payload) as u64, Ordering::Relaxed);
    }
}

fn main() {
    let seconds: f64 = std::env::args()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(2.0);
    let rx_cpu = usize::from(std::env::args().nth(2).is_none());
    // SAFETY: one thread so far.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(unshared, 0, "run as root or under unshare -Urn");
    netns::sh("ip link set lo up");
    let peer = Netns::new();
    veth(&peer);
    println!(
        "{:26} {:>8} {:>9} {:>9} {:>9} {:>8}",
        "source", "payload", "Gbit/s", "us/frame", "rx ns/B", "lost %"
    );
    for (payload, gso) in [(65_000, 1460), (16_000, 1460), (1460, 0), (100, 0)] {
        for kind in [
            "ring 2 KiB + copy",
            "ring 2 KiB, 208K rcvbuf",
            "ring 68 KiB",
            "recvmmsg",
        ] {
            let p = Arc::new(Progress::default());
            let receiver = p.clone();
            let rx = peer.run(move || {
                let socket = PacketSocket::open().expect("packet socket");
                let fd = socket.shared_fd();
                if kind.contains("208K") {
                    let small: i32 = 212_992;
                    // SAFETY: reads one int.
                    unsafe {
                        let v = (&raw const small).cast();
                        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, v, 4)
                    };
                }
                let mut source: Box<dyn FrameSource + Send> = match kind {
                    "ring 68 KiB" => Box::new(
                        RingSource::new(fd.clone(), RingConfig::LARGE_SLOTS).expect("ring"),
                    ),
                    "recvmmsg" => Box::new(BatchSource::new(fd.clone()).expect("source")),
                    _ => Box::new(
                        RingSource::new(fd.clone(), RingConfig::SMALL_SLOTS).expect("ring"),
                    ),
                };
                let mut filter = PortFilter::new(false);
                assert!(filter.add(PORT, None));
                filter
                    .attach(Target::Socket(fd.as_raw_fd()))
                    .expect("filter");
                socket.start().expect("bind");
                std::thread::spawn(move || {
                    pin(rx_cpu);
                    let mut buffer = vec![0u8; 128 << 10];
                    let (mut at, mut frames, mut whole) = (0usize, 0u64, 0u64);
                    let began = thread_cpu();
                    while !receiver.stop.load(Ordering::Relaxed) {
                        let Some(f) = source.peek().expect("frame") else {
                            let mut pfd = libc::pollfd {
                                fd: source.readable_fd(),
                                events: libc::POLLIN,
                                revents: 0,
                            };
                            // SAFETY: one live pollfd.
                            unsafe { libc::poll(&mut pfd, 1, 10) };
                            continue;
                        };
                        let len = f.meta.len as usize - 40;
                        if at + len > buffer.len() {
                            at = 0;
                        }
                        let into = [libc::iovec {
                            iov_base: buffer[at..].as_mut_ptr().cast(),
                            iov_len: len,
                        }];
                        // SAFETY: `len` bytes fit the buffer from `at` on.
                        let got = unsafe { source.take(40, &into) }.expect("take");
                        at += len;
                        frames += 1;
                        whole += got as u64;
                        receiver.received.fetch_add(len as u64, Ordering::Release);
                    }
                    (thread_cpu() - began, frames, whole, source.take_drops())
                })
            });
            let sender = p.clone();
            let tx = std::thread::spawn(move || {
                pin(0);
                blast(&sender, payload, gso);
            });
            std::thread::sleep(Duration::from_secs_f64(seconds));
            p.stop.store(true, Ordering::Relaxed);
            tx.join().expect("sender");
            let (cpu, frames, whole, drops) = rx.join().expect("receiver");
            let claimed = p.received.load(Ordering::Relaxed).max(1);
            let lost =
                100.0 * (1.0 - whole as f64 / (claimed as f64 + f64::from(drops) * payload as f64));
            println!(
                "{kind:26} {payload:>8} {:>9.2} {:>9.2} {:>9.3} {lost:>8.2}",
                whole as f64 * 8.0 / seconds / 1e9,
                cpu.as_secs_f64() * 1e6 / frames.max(1) as f64,
                cpu.as_secs_f64() * 1e9 / whole.max(1) as f64,
            );
        }
    }
}
