//! Timestamps and times of departure of single frames over veth.

mod netns;

use netns::{Netns, enter, ifindex, sh, veth};
use sidewire_link::frame::{FrameSink, TxFrame, TxTime, TxTstamp, TxVerdict};
use sidewire_link::packet::PacketSocket;
use sidewire_link::packet::tstamp::TxStamp;
use sidewire_uapi::errqueue::{SCM_TSTAMP_SCHED, SCM_TSTAMP_SND};
use sidewire_uapi::timestamping as sof;
use sidewire_wire::checksum;
use sidewire_wire::ethernet::MacAddr;
use sidewire_wire::ipv4::Ipv4Header;
use sidewire_wire::tcp::{TcpFlags, TcpHeader, set_checksum};
use sidewire_wire::tcp_options::TcpOptions;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const SEQ: u32 = 1000;
const BOTH: u32 = sof::SOF_TIMESTAMPING_TX_SCHED | sof::SOF_TIMESTAMPING_TX_SOFTWARE;

fn headers(payload_len: usize) -> Vec<u8> {
    let mut out = vec![0; 40];
    let ip = Ipv4Header {
        tos: 0,
        total_len: (40 + payload_len) as u16,
        id: 7,
        dont_fragment: true,
        ttl: 64,
        protocol: 6,
        src: A,
        dst: B,
    };
    let at = ip.emit(&mut out).unwrap();
    let tcp = TcpHeader {
        src_port: 1234,
        dst_port: 7777,
        seq: SEQ,
        ack_seq: 1,
        flags: TcpFlags::ACK | TcpFlags::PSH,
        window: 500,
        urg_ptr: 0,
    };
    tcp.emit(&TcpOptions::default(), &mut out[at..]).unwrap();
    let partial = checksum::pseudo_header_v4(A, B, 6, (20 + payload_len) as u32);
    set_checksum(&mut out[at..], partial);
    out
}

fn frame<'a>(headers: &'a [u8], frags: &'a [libc::iovec], gso_size: u16) -> TxFrame<'a> {
    TxFrame {
        ifindex: ifindex("va"),
        dst_mac: Some(MacAddr([2, 0, 0, 0, 0, 0xb2])),
        src_mac: MacAddr([2, 0, 0, 0, 0, 0xa1]),
        headers,
        frags,
        gso_size,
        mark: 0,
        priority: 0,
        tstamp: None,
        txtime: None,
    }
}

fn asks(flags: u32, key: u32) -> Option<TxTstamp> {
    Some(TxTstamp {
        flags,
        key,
        swhw: false,
    })
}

fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

#[test]
fn stamps_come_back_under_their_keys() {
    if !enter("stamps_come_back_under_their_keys") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = vec![7; 10_000];
    let parts = [libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    }];
    let (h, small) = (headers(data.len()), headers(0));
    let begin = wall();
    let stamped = TxFrame {
        tstamp: asks(BOTH, SEQ + 9_999),
        ..frame(&h, &parts, 1460)
    };
    assert_eq!(sink.send(&stamped), TxVerdict::Sent);
    assert!(sink.stamps());
    let last = TxFrame {
        tstamp: asks(sof::SOF_TIMESTAMPING_TX_SOFTWARE, 77),
        ..frame(&small, &[], 0)
    };
    assert_eq!(sink.send(&last), TxVerdict::Sent);
    let end = wall();
    let got: Vec<TxStamp> = core::iter::from_fn(|| sink.read_tstamp()).collect();
    let named: Vec<_> = got.iter().map(|s| (s.tstype, s.key)).collect();
    let expected = [
        (SCM_TSTAMP_SCHED, SEQ + 9_999),
        (SCM_TSTAMP_SND, SEQ + 9_999),
        (SCM_TSTAMP_SND, 77),
    ];
    assert_eq!(named, expected);
    assert!(got.is_sorted_by_key(|s| s.software));
    assert!(begin <= got[0].software && got[2].software <= end);
    assert!(got.iter().all(|s| s.hardware == 0));
}

#[test]
fn of_a_frame_that_is_cut_the_segment_of_the_key_is_stamped() {
    if !enter("of_a_frame_that_is_cut_the_segment_of_the_key_is_stamped") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    // 100 KB a second, of which 2 KB at once: the last of seven segments leaves long after the first.
    sh("tc qdisc replace dev va root tbf rate 800kbit burst 2kb latency 2000ms");
    let mut sink = PacketSocket::open().unwrap().sink();
    let data = vec![7; 10_000];
    let parts = [libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    }];
    let h = headers(data.len());
    let stamped = TxFrame {
        tstamp: asks(BOTH, SEQ + 9_999),
        ..frame(&h, &parts, 1460)
    };
    assert_eq!(sink.send(&stamped), TxVerdict::Sent);
    let begun = Instant::now();
    let mut got = Vec::new();
    while got.len() < 2 {
        got.extend(sink.read_tstamp());
        assert!(begun.elapsed() < Duration::from_secs(20), "{got:?}");
        std::thread::yield_now();
    }
    assert_eq!(
        (got[0].tstype, got[1].tstype),
        (SCM_TSTAMP_SCHED, SCM_TSTAMP_SND)
    );
    let waited = Duration::from_nanos(got[1].software - got[0].software);
    assert!(waited > Duration::from_millis(50), "{waited:?}");
}

#[test]
fn a_time_of_departure_sets_the_sockets_clock() {
    if !enter("a_time_of_departure_sets_the_sockets_clock") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let socket = PacketSocket::open().unwrap();
    let mut sink = socket.sink();
    let small = headers(0);
    for clockid in [
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_TAI,
        libc::CLOCK_MONOTONIC,
    ] {
        let timed = TxFrame {
            txtime: Some(TxTime {
                at: 1,
                clockid,
                flags: 2,
            }),
            ..frame(&small, &[], 0)
        };
        assert_eq!(sink.send(&timed), TxVerdict::Sent);
        let mut set = [-1i32; 2];
        let mut len = 8;
        // SAFETY: the kernel writes at most `len` bytes to a live array.
        let got = unsafe {
            libc::getsockopt(
                socket.shared_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TXTIME,
                set.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        // Reports of missed times are not asked for.
        assert_eq!((got, set), (0, [clockid, 0]));
    }
    // A clock that the kernel does not take: the frame leaves without a time.
    let nonsense = TxFrame {
        txtime: Some(TxTime {
            at: 1,
            clockid: 99,
            flags: 0,
        }),
        ..frame(&small, &[], 0)
    };
    assert_eq!(sink.send(&nonsense), TxVerdict::Sent);
}
