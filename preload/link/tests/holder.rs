//! Port holders: the kernel is silent on the wire, and serves its own host.

mod netns;

use netns::{Netns, enter, ifindex, veth};
use sidewire_link::Errno;
use sidewire_link::frame::{FrameSink, FrameSource, TxFrame, TxVerdict};
use sidewire_link::holder::{HoldOptions, Holders, strip_filter};
use sidewire_link::packet::filter::{PortFilter, Target};
use sidewire_link::packet::{PacketSink, PacketSocket, PacketSource};
use sidewire_wire::checksum;
use sidewire_wire::ethernet::MacAddr;
use sidewire_wire::ipv4::{Ipv4Header, Ipv4View};
use sidewire_wire::tcp::{TcpFlags, TcpHeader, TcpView, set_checksum};
use sidewire_wire::tcp_options::TcpOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};

const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const TCP: u8 = 6;
/// The peer's port for what is tested, and for the marker that is answered.
const PEER: u16 = 1234;
const MARKER: u16 = 4321;
/// A port of ours where nobody is.
const NOBODY: u16 = 9;

fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(ip, port).into()
}

/// A raw peer in the other namespace.
struct Peer {
    _ns: Netns,
    sink: PacketSink,
    source: PacketSource,
    ifindex: u32,
}

impl Peer {
    fn new() -> Peer {
        let ns = Netns::new();
        veth(&ns);
        let (sink, source, ifindex) = ns.run(|| {
            let socket = PacketSocket::open().unwrap();
            let mut filter = PortFilter::new(false);
            let _ = (filter.add(PEER, None), filter.add(MARKER, None));
            filter
                .attach(Target::Socket(socket.shared_fd().as_raw_fd()))
                .unwrap();
            let source = socket.source().unwrap();
            (socket.sink(), source, ifindex("vb"))
        });
        Peer {
            _ns: ns,
            sink,
            source,
            ifindex,
        }
    }

    fn send(&mut self, from: u16, to: u16, flags: TcpFlags, payload: &[u8]) {
        let mut headers = vec![0; 40];
        let ip = Ipv4Header {
            tos: 0,
            total_len: (40 + payload.len()) as u16,
            id: 1,
            dont_fragment: true,
            ttl: 64,
            protocol: TCP,
            src: B,
            dst: A,
        };
        ip.emit(&mut headers).unwrap();
        let tcp = TcpHeader {
            src_port: from,
            dst_port: to,
            seq: 77,
            ack_seq: 88,
            flags,
            window: 5000,
            urg_ptr: 0,
        };
        tcp.emit(&TcpOptions::default(), &mut headers[20..])
            .unwrap();
        let sum = checksum::pseudo_header_v4(B, A, TCP, (20 + payload.len()) as u32);
        set_checksum(&mut headers[20..], sum);
        let frags = [libc::iovec {
            iov_base: payload.as_ptr().cast_mut().cast(),
            iov_len: payload.len(),
        }];
        let frame = TxFrame {
            ifindex: self.ifindex,
            dst_mac: Some(MacAddr([2, 0, 0, 0, 0, 0xa1])),
            src_mac: MacAddr([2, 0, 0, 0, 0, 0xb2]),
            headers: &headers,
            frags: &frags[..usize::from(!payload.is_empty())],
            gso_size: 0,
            mark: 0,
            priority: 0,
            tstamp: None,
            txtime: None,
        };
        assert_eq!(self.sink.send(&frame), TxVerdict::Sent);
    }

    /// Sends every kind of segment to `port`, then one to a port of nobody; returns the flags of the kernel's answers
    /// to the former. The answers come in the order of the questions.
    fn answers(&mut self, port: u16) -> Vec<TcpFlags> {
        for flags in [
            TcpFlags::SYN,
            TcpFlags::ACK,
            TcpFlags::SYN | TcpFlags::ACK,
            TcpFlags::FIN | TcpFlags::ACK,
            TcpFlags::RST,
            TcpFlags::RST | TcpFlags::ACK,
        ] {
            self.send(PEER, port, flags, &[]);
        }
        self.send(PEER, port, TcpFlags::PSH | TcpFlags::ACK, b"data");
        self.send(MARKER, NOBODY, TcpFlags::SYN, &[]);
        let mut answers = Vec::new();
        loop {
            let Some(f) = self.source.peek().unwrap() else {
                let mut p = libc::pollfd {
                    fd: self.source.readable_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one live pollfd.
                let n = unsafe { libc::poll(&mut p, 1, 10_000) };
                assert_eq!(n, 1, "the marker is answered");
                continue;
            };
            let ip = Ipv4View::parse(f.bytes).unwrap();
            let tcp = TcpView::parse(ip.payload()).unwrap();
            let (to, flags) = (tcp.dst_port(), tcp.flags());
            self.source.release();
            if to == MARKER {
                assert!(flags.contains(TcpFlags::RST));
                return answers;
            }
            answers.push(flags);
        }
    }
}

fn drop_net_admin() {
    // SAFETY: the header and data of capget(2) and capset(2), version 3: two words of three sets.
    unsafe {
        let header: [u32; 2] = [0x2008_0522, 0];
        let mut data = [0u32; 6];
        assert_eq!(
            libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()),
            0
        );
        for set in &mut data[..3] {
            *set &= !(1 << 12);
        }
        assert_eq!(
            libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()),
            0
        );
    }
}

fn holders() -> Holders {
    Holders::new(["va".to_owned()])
}

/// A TCP socket as a program makes it.
fn unbound_socket(reuse: bool) -> OwnedFd {
    // SAFETY: plain system calls on a new socket.
    unsafe {
        let fd = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let on = i32::from(reuse);
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            (&raw const on).cast(),
            4,
        );
        fd
    }
}

/// The same, bound.
fn program_socket(local: SocketAddr, reuse: bool) -> Result<OwnedFd, std::io::Error> {
    let fd = unbound_socket(reuse);
    bind(&fd, local).map(|()| fd)
}

fn bind(fd: &OwnedFd, local: SocketAddr) -> Result<(), std::io::Error> {
    let SocketAddr::V4(local) = local else {
        unreachable!("IPv4 here")
    };
    // SAFETY: bind reads one sockaddr_in.
    unsafe {
        let name = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: local.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(local.ip().octets()),
            },
            sin_zero: [0; 8],
        };
        match libc::bind(fd.as_raw_fd(), (&raw const name).cast(), 16) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

fn bind_error(local: SocketAddr, reuse: bool) -> Option<i32> {
    program_socket(local, reuse)
        .err()
        .and_then(|e| e.raw_os_error())
}

fn reuse_of(fd: RawFd) -> i32 {
    let (mut on, mut len) = (7i32, 4u32);
    // SAFETY: writes one int.
    unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            (&raw mut on).cast(),
            &mut len,
        )
    };
    on
}

/// A client on this host is accepted at `listener` and served.
fn serve_local(listener: RawFd, address: SocketAddr) {
    let mut client = TcpStream::connect(address).unwrap();
    let mut p = libc::pollfd {
        fd: listener,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live pollfd; accept without a name.
    let accepted = unsafe {
        assert_eq!(libc::poll(&mut p, 1, 10_000), 1);
        libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut())
    };
    assert!(accepted >= 0);
    strip_filter(accepted);
    // SAFETY: a new descriptor that nobody else owns.
    let mut server = unsafe { TcpStream::from_raw_fd(accepted) };
    server.write_all(b"hello").unwrap();
    drop(server);
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "hello");
}

#[test]
fn unheld_ports_are_answered() {
    if !enter("unheld_ports_are_answered") {
        return;
    }
    let mut peer = Peer::new();
    let answers = peer.answers(5000);
    assert!(
        answers.len() >= 4 && answers.iter().all(|f| f.contains(TcpFlags::RST)),
        "{answers:?}"
    );
}

#[test]
fn connection_is_silent_next_to_its_shadow() {
    if !enter("connection_is_silent_next_to_its_shadow") {
        return;
    }
    let mut peer = Peer::new();
    let mut holders = holders();
    let options = HoldOptions::default();
    let shadow = program_socket(at(A, 5000), false).unwrap();
    let holder = holders
        .hold_connection(at(A, 5000), at(B, PEER), &options)
        .unwrap();
    assert!(holders.privileged());
    assert_eq!(holder.local(), at(A, 5000));
    assert_eq!(peer.answers(5000), []);
    // The same 4-tuple, another remote, other programs.
    let again = holders.hold_connection(at(A, 5000), at(B, PEER), &options);
    assert_eq!(again.unwrap_err(), Errno::EADDRNOTAVAIL);
    let second = holders
        .hold_connection(at(A, 5000), at(B, 80), &options)
        .unwrap();
    assert_eq!(bind_error(at(A, 5000), false), Some(libc::EADDRINUSE));
    assert_eq!(bind_error(at(A, 5000), true), Some(libc::EADDRINUSE));
    // The port stays taken while a connection lives, as natively without SO_REUSEADDR.
    drop(shadow);
    assert_eq!(bind_error(at(ANY, 5000), true), Some(libc::EADDRINUSE));
    drop(holder);
    assert!(peer.answers(5000).iter().any(|f| f.contains(TcpFlags::RST)));
    drop(second);
    assert_eq!(bind_error(at(ANY, 5000), false), None);
}

#[test]
fn a_holder_that_is_used_again_is_as_silent() {
    if !enter("a_holder_that_is_used_again_is_as_silent") {
        return;
    }
    let mut peer = Peer::new();
    let mut holders = holders();
    let options = HoldOptions::default();
    let mut hold = |remote| holders.hold_connection(at(A, 0), remote, &options).unwrap();
    let first = hold(at(B, PEER));
    let port = first.local().port();
    drop(first);
    // Let go of without a word, and known no more.
    assert!(peer.answers(port).iter().any(|f| f.contains(TcpFlags::RST)));
    assert_eq!(bind_error(at(A, port), false), None);
    let (second, third) = (hold(at(B, PEER)), hold(at(B, PEER)));
    for holder in [&second, &third] {
        assert_eq!(holder.local().ip(), A);
        assert_eq!(peer.answers(holder.local().port()), []);
        assert_eq!(bind_error(holder.local(), true), Some(libc::EADDRINUSE));
    }
    assert_ne!(second.local(), third.local());
}

#[test]
fn kernel_chooses_local_names() {
    if !enter("kernel_chooses_local_names") {
        return;
    }
    let mut peer = Peer::new();
    netns::sh("echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range");
    let mut holders = holders();
    let options = HoldOptions::default();
    let first = holders
        .hold_connection(at(ANY, 0), at(B, PEER), &options)
        .unwrap();
    let second = holders
        .hold_connection(at(A, 0), at(B, PEER), &options)
        .unwrap();
    let (one, two) = (first.local(), second.local());
    assert!(one.ip() == A && two.ip() == A && one != two);
    assert!((40_000..40_002).contains(&one.port()) && (40_000..40_002).contains(&two.port()));
    assert_eq!(peer.answers(one.port()), []);
    assert_eq!(peer.answers(two.port()), []);
    let full = holders.hold_connection(at(A, 0), at(B, PEER), &options);
    assert_eq!(full.unwrap_err(), Errno::EADDRNOTAVAIL);
    // The ports are free for other remotes.
    assert!(
        holders
            .hold_connection(at(A, 0), at(B, 80), &options)
            .is_ok()
    );
    let nowhere = holders.hold_connection(at(ANY, 0), at(Ipv4Addr::new(192, 0, 2, 1), 1), &options);
    assert_eq!(nowhere.unwrap_err(), Errno::ENETUNREACH);
}

#[test]
fn listener_is_silent_and_serves_this_host() {
    if !enter("listener_is_silent_and_serves_this_host") {
        return;
    }
    let mut peer = Peer::new();
    let mut holders = holders();
    for reuse in [false, true] {
        let port = 6000 + u16::from(reuse);
        let shadow = program_socket(at(ANY, port), reuse).unwrap();
        let options = HoldOptions {
            reuse,
            shadow: Some(shadow.as_raw_fd()),
            ..HoldOptions::default()
        };
        let listener = holders.hold_listener(at(ANY, port), 5, &options).unwrap();
        assert_eq!(reuse_of(shadow.as_raw_fd()), i32::from(reuse));
        assert_eq!(peer.answers(port), []);
        for ip in [Ipv4Addr::LOCALHOST, A] {
            serve_local(listener.fd(), at(ip, port));
        }
        for other in [false, true] {
            assert_eq!(bind_error(at(ANY, port), other), Some(libc::EADDRINUSE));
            assert_eq!(bind_error(at(A, port), other), Some(libc::EADDRINUSE));
        }
    }
}

#[test]
fn listener_closes_in_mid_transfer_and_is_bound_again() {
    if !enter("listener_closes_in_mid_transfer_and_is_bound_again") {
        return;
    }
    let mut peer = Peer::new();
    let mut holders = holders();
    let shadow = program_socket(at(ANY, 6000), true).unwrap();
    let options = |shadow: &OwnedFd| HoldOptions {
        reuse: true,
        shadow: Some(shadow.as_raw_fd()),
        ..HoldOptions::default()
    };
    let listener = holders
        .hold_listener(at(ANY, 6000), 5, &options(&shadow))
        .unwrap();
    let mut connection = listener.share(at(A, 6000));
    assert!(connection.holds_port());
    holders
        .convert(&mut connection, at(B, PEER), &options(&shadow))
        .unwrap();
    assert!(!connection.holds_port());
    drop((listener, shadow));
    assert_eq!(peer.answers(6000), []);
    assert_eq!(
        TcpStream::connect(at(A, 6000)).unwrap_err().raw_os_error(),
        Some(libc::ECONNREFUSED)
    );
    let shadow = program_socket(at(ANY, 6000), true).unwrap();
    let listener = holders
        .hold_listener(at(ANY, 6000), 5, &options(&shadow))
        .unwrap();
    assert_eq!(peer.answers(6000), []);
    serve_local(listener.fd(), at(A, 6000));
    drop(connection);
    drop(listener);
    assert!(!peer.answers(6000).is_empty());
}

#[test]
fn without_net_admin_connections_are_silent() {
    if !enter("without_net_admin_connections_are_silent") {
        return;
    }
    let mut peer = Peer::new();
    drop_net_admin();
    let mut holders = holders();
    let shadow = program_socket(at(A, 5000), false).unwrap();
    let options = HoldOptions {
        shadow: Some(shadow.as_raw_fd()),
        ..HoldOptions::default()
    };
    let holder = holders
        .hold_connection(at(A, 5000), at(B, PEER), &options)
        .unwrap();
    assert!(!holders.privileged());
    assert_eq!(reuse_of(shadow.as_raw_fd()), 0);
    assert_eq!(peer.answers(5000), []);
    let again = holders.hold_connection(at(A, 5000), at(B, PEER), &options);
    assert_eq!(again.unwrap_err(), Errno::EADDRNOTAVAIL);
    let second = holders
        .hold_connection(at(A, 5000), at(B, 80), &options)
        .unwrap();
    assert_eq!(bind_error(at(A, 5000), true), Some(libc::EADDRINUSE));
    drop(holder);
    assert_eq!(
        peer.answers(5000),
        [],
        "the second connection holds the port"
    );
    assert_eq!(
        TcpStream::connect(at(Ipv4Addr::LOCALHOST, 5000))
            .unwrap_err()
            .raw_os_error(),
        Some(libc::ECONNREFUSED)
    );
    drop(second);
    assert!(peer.answers(5000).iter().any(|f| f.contains(TcpFlags::RST)));
    drop(shadow);
    assert_eq!(bind_error(at(ANY, 5000), false), None);
    // An ephemeral port is the kernel's choice here, too.
    let chosen = holders
        .hold_connection(at(A, 0), at(B, PEER), &HoldOptions::default())
        .unwrap();
    assert_ne!(chosen.local().port(), 0);
    assert_eq!(peer.answers(chosen.local().port()), []);
}

#[test]
fn without_net_admin_listeners_are_silent_and_serve_loopback() {
    if !enter("without_net_admin_listeners_are_silent_and_serve_loopback") {
        return;
    }
    let mut peer = Peer::new();
    drop_net_admin();
    let mut holders = Holders::new([]);
    let shadow = program_socket(at(ANY, 6000), true).unwrap();
    let options = HoldOptions {
        reuse: true,
        shadow: Some(shadow.as_raw_fd()),
        ..HoldOptions::default()
    };
    let listener = holders.hold_listener(at(ANY, 6000), 5, &options).unwrap();
    assert!(!peer.answers(6000).is_empty(), "va is not held yet");
    holders
        .devices_changed(["va".to_owned()], &[shadow.as_raw_fd()])
        .unwrap();
    assert_eq!(peer.answers(6000), []);
    serve_local(listener.fd(), at(Ipv4Addr::LOCALHOST, 6000));
    assert_eq!(bind_error(at(ANY, 6000), true), Some(libc::EADDRINUSE));
    let mut connection = listener.share(at(A, 6000));
    holders
        .convert(&mut connection, at(B, PEER), &options)
        .unwrap();
    assert!(connection.holds_port(), "there is no other holder");
    drop((listener, shadow));
    assert_eq!(peer.answers(6000), []);
    // Bound again at once.
    assert_eq!(bind_error(at(ANY, 6000), true), Some(libc::EADDRINUSE));
    let shadow = unbound_socket(true);
    holders
        .beside(shadow.as_raw_fd(), 6000, || {
            bind(&shadow, at(ANY, 6000)).map_err(|e| Errno::from_io_error(e).unwrap())
        })
        .unwrap();
    let options = HoldOptions {
        shadow: Some(shadow.as_raw_fd()),
        ..options
    };
    let listener = holders.hold_listener(at(ANY, 6000), 5, &options).unwrap();
    serve_local(listener.fd(), at(Ipv4Addr::LOCALHOST, 6000));
    assert_eq!(peer.answers(6000), []);
    drop((connection, listener, shadow));
    assert!(!peer.answers(6000).is_empty());
    // Local clients have left TIME_WAIT sockets.
    assert_eq!(bind_error(at(ANY, 6000), true), None);
}

const CHILD: &str = "SIDEWIRE_TEST_HOLD_AND_WAIT";

#[test]
fn nothing_is_left_after_sigkill() {
    if std::env::var_os(CHILD).is_some() {
        let mut holders = holders();
        let options = HoldOptions::default();
        let kept = (
            holders.hold_listener(at(ANY, 6000), 5, &options).unwrap(),
            holders
                .hold_connection(at(A, 5000), at(B, PEER), &options)
                .unwrap(),
        );
        println!("held");
        while kept.1.holds_port() || kept.0.fd() >= 0 {
            std::thread::park();
        }
    }
    if !enter("nothing_is_left_after_sigkill") {
        return;
    }
    let mut peer = Peer::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["nothing_is_left_after_sigkill", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().contains("held")));
    for port in [5000, 6000] {
        assert_eq!(peer.answers(port), []);
        assert_eq!(bind_error(at(ANY, port), false), Some(libc::EADDRINUSE));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for port in [5000, 6000] {
        assert!(peer.answers(port).iter().any(|f| f.contains(TcpFlags::RST)));
        assert_eq!(bind_error(at(ANY, port), false), None);
    }
    assert_eq!(netns::sh("ss -Htan").trim(), "");
}
