//! TCP Fast Open between two hosts: `rows.toml` fastopen.

mod pair;

use pair::{Pair, ROOT, Side, pattern, ready};
use sidewire_engine::error::Error;
use sidewire_engine::errqueue::IcmpPacket;
use sidewire_engine::memory::RegionKind;
use sidewire_engine::sendmsg::{NameArg, SendCall};
use sidewire_engine::sysctl::Sysctl;
use sidewire_engine::trace::{Trace, TraceStep};
use sidewire_engine::{ConnectCall, SocketId, Step};
use sidewire_testkit::memory::{IoVec, ProgramIter};
use sidewire_uapi::TcpState;
use sidewire_uapi::ioctl::SIOCOUTQ;
use sidewire_uapi::socket as so;
use sidewire_uapi::tcp as t;
use sidewire_wire::icmp::{self, IcmpError, IcmpErrorKind};
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpFlags, TcpOptions, TcpView};

const C: Side = Side::Client;
const S: Side = Side::Server;
const FO: i32 = so::MSG_FASTOPEN;

fn tfo(bits: u32) -> Sysctl {
    Sysctl {
        tcp_fastopen: bits,
        ..Sysctl::default()
    }
}

/// Both sides may; the listener takes five at a time.
fn pair() -> Pair {
    pair_with(3, 3)
}

fn pair_with(client: u32, server: u32) -> Pair {
    let mut p = Pair::new(tfo(client), tfo(server));
    let listener = p.listener;
    p.set(S, listener, so::SOL_TCP, t::TCP_FASTOPEN, 5);
    p
}

/// The client has the server's cookie.
fn with_cookie() -> Pair {
    let mut p = pair();
    let id = p.client_socket();
    let r = fastopen(&mut p, id, b"no cookie yet");
    assert_eq!(r, Err(Error::InProgress));
    p.settle();
    p.accept().unwrap();
    p.seen.clear();
    p
}

fn fastopen(p: &mut Pair, id: SocketId, bytes: &[u8]) -> Result<usize, Error> {
    p.send(C, id, FO, Some(&Pair::server_sockaddr()), bytes)
}

/// Flags, options and payload of each packet so far.
fn segments(p: &Pair) -> Vec<(Side, TcpFlags, TcpOptions, Vec<u8>)> {
    let parse = |(side, bytes): &(Side, Vec<u8>)| {
        let ip = Ipv4View::parse(bytes).unwrap();
        let tcp = TcpView::parse(ip.payload()).unwrap();
        let syn = tcp.flags().contains(TcpFlags::SYN);
        let options = TcpOptions::parse(tcp.options(), syn);
        (*side, tcp.flags(), options, tcp.payload().to_vec())
    };
    p.seen.iter().map(parse).collect()
}

/// What is on the client's wire, before anybody answers.
fn look(p: &mut Pair) {
    while let Some(packet) = p.host(C).take_packet() {
        p.seen.push((C, packet.bytes));
    }
}

fn info(p: &mut Pair, side: Side, id: SocketId) -> Vec<u8> {
    p.get(side, id, so::SOL_TCP, t::TCP_INFO, 248)
}

#[test]
fn fo_13_fo_23_fo_26_a_cookie_is_asked_for_and_granted() {
    let mut p = pair();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"hello"), Err(Error::InProgress));
    p.settle();
    let seen = segments(&p);
    let (_, flags, options, payload) = &seen[0];
    assert_eq!(*flags, TcpFlags::SYN);
    assert!(options.fastopen.unwrap().is_request());
    assert!(payload.is_empty());
    let (_, flags, options, _) = &seen[1];
    assert_eq!(*flags, TcpFlags::SYN | TcpFlags::ACK);
    assert_eq!(options.fastopen.unwrap().cookie().len(), 8);
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).err(), Some(Error::Again), "no data queued");
    assert_eq!(info(&mut p, C, id)[7] >> 1, 1, "cookie unavailable");
    // FO-10: the connect was never collected; this send does it, the next finds it collected.
    assert_eq!(fastopen(&mut p, id, b"hello"), Ok(5));
    assert_eq!(fastopen(&mut p, id, b"again"), Err(Error::IsConn));
    p.settle();
    assert_eq!(p.recv(S, child).unwrap(), b"hello");
}

#[test]
fn fo_14_fo_24_fo_27_fo_30_fo_47_data_in_the_syn() {
    let mut p = with_cookie();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"early"), Ok(5));
    // Only the SYN arrives: its child is there already.
    let syn = p.host(C).take_packet().unwrap().bytes;
    p.seen.push((C, syn.clone()));
    p.host(S).rx(&syn);
    p.host(S).rx_batch_end();
    let (_, flags, options, payload) = segments(&p).remove(0);
    assert_eq!(flags, TcpFlags::SYN);
    assert_eq!(options.fastopen.unwrap().cookie().len(), 8);
    assert_eq!(payload, b"early");
    let child = p.accept().unwrap();
    assert_eq!(p.host(S).stack.state(child), TcpState::SynRecv);
    assert_eq!(p.host(S).stack.poll(child), 0x145);
    assert_eq!(p.recv(S, child).unwrap(), b"early");
    assert_eq!(p.host(S).stack.poll(child), 0x104);
    assert_eq!(p.send(S, child, 0, None, b"answer"), Ok(6));
    p.settle();
    let seen = segments(&p);
    let answer = seen.iter().position(|s| s.3 == b"answer").unwrap();
    let third = seen
        .iter()
        .position(|s| s.0 == C && s.1 == TcpFlags::ACK)
        .unwrap();
    assert!(answer < third, "data leaves before the third ack");
    assert_eq!(p.recv(C, id).unwrap(), b"answer");
    assert_eq!(p.host(S).stack.state(child), TcpState::Established);
    assert_eq!(info(&mut p, C, id)[5], 0x27);
    assert_eq!(info(&mut p, S, child)[5], 0xa7);
    let listener = p.listener;
    let sk = p.host(S).stack.sock(listener).unwrap();
    assert_eq!(sk.listen.as_ref().unwrap().fastopen_qlen, 0);
    p.send_all(C, id, 0, b"more");
    assert_eq!(p.recv(S, child).unwrap(), b"more");
}

#[test]
fn an_icmp_error_about_the_syn_ack_of_an_accepted_child_is_soft() {
    let mut p = with_cookie();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"early"), Ok(5));
    let syn = p.host(C).take_packet().unwrap().bytes;
    p.host(S).rx(&syn);
    p.host(S).rx_batch_end();
    let synack = p.host(S).take_packet().unwrap().bytes;
    let child = p.accept().unwrap();
    let mut message = [0; 600];
    let kind = IcmpErrorKind::Unreachable(1);
    let n = icmp::emit_v4_error(kind, &synack, &mut message).unwrap();
    let error = IcmpError::parse_v4(&message[..n]).unwrap();
    let router = IcmpPacket {
        saddr: error.quoted.dst,
        daddr: error.quoted.src,
        iif: 1,
        ttl: 64,
        tos: 0xc0,
    };
    p.host(S)
        .with(|s, io| s.icmp(io, &error, &router, &message[error.segment_at..n]));
    assert_eq!(p.host(S).stack.state(child), TcpState::SynRecv);
    let soft = p.host(S).stack.sock(child).unwrap().sk_err_soft;
    assert_eq!(soft, Some(Error::HostUnreach));
}

#[test]
fn the_record_of_a_fast_open_says_once_what_went_into_the_syn() {
    let mut p = with_cookie();
    let id = p.client_socket();
    let memory = p.host(C).memory.clone();
    let mut iter = ProgramIter::source(&memory, b"early");
    let name = Pair::server_sockaddr();
    let mut call = SendCall::new(FO, &[], Some(NameArg(&name)), ROOT, false);
    call.trace = Some(Box::new(Trace::new()));
    let mut step = |p: &mut Pair| {
        p.host(C)
            .with(|s, io| s.sendmsg(io, id, &mut call, &mut iter))
    };
    assert!(matches!(step(&mut p), Step::Wait { .. }));
    assert!(matches!(step(&mut p), Step::Wait { .. }));
    p.settle();
    assert_eq!(step(&mut p), Step::Ready(Ok(5)));
    let steps = call.trace.as_ref().unwrap().steps();
    let seen = steps.iter().filter_map(|s| match s {
        TraceStep::Fastopen { copied_syn, err } => Some((*copied_syn, *err)),
        _ => None,
    });
    assert_eq!(seen.collect::<Vec<_>>(), [(5, None)]);
    let connects = |s: &TraceStep| matches!(s, TraceStep::Waited { fastopen: true, .. });
    assert!(steps.iter().any(connects));
}

/// A blocking fast open that takes all of `bytes`; `connected` looks when the handshake is over, before the call goes on.
fn blocking(p: &mut Pair, bytes: &[u8], connected: impl FnOnce(&mut Pair)) {
    let id = p.client_socket();
    let memory = p.host(C).memory.clone();
    let mut iter = ProgramIter::source(&memory, bytes);
    let name = Pair::server_sockaddr();
    let mut call = SendCall::new(FO, &[], Some(NameArg(&name)), ROOT, false);
    let mut step = |p: &mut Pair| {
        p.host(C)
            .with(|s, io| s.sendmsg(io, id, &mut call, &mut iter))
    };
    assert!(matches!(step(p), Step::Wait { .. }));
    p.settle();
    connected(p);
    assert_eq!(step(p), Step::Ready(Ok(bytes.len())));
}

#[test]
fn the_ack_of_the_syn_ack_waits_for_what_was_not_in_the_syn() {
    for (size, acked_at_once) in [(0, true), (1420, true), (1421, false)] {
        let mut p = with_cookie();
        let acks = |s: &&(Side, TcpFlags, TcpOptions, Vec<u8>)| s.0 == C && s.1 == TcpFlags::ACK;
        blocking(&mut p, &pattern(size), |p| {
            let n = segments(p).iter().filter(acks).count();
            assert_eq!(n > 0, acked_at_once, "{size} bytes");
        });
    }
}

#[test]
fn fo_15_fo_21_a_syn_takes_1420_bytes() {
    let bytes = pattern(5000);
    let mut p = with_cookie();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, &bytes), Ok(1420));
    look(&mut p);
    assert_eq!(segments(&p)[0].3, bytes[..1420]);
    // Blocking: everything, after the handshake.
    let mut p = with_cookie();
    blocking(&mut p, &bytes, |_| ());
    p.settle();
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), bytes);
}

#[test]
fn fo_16_no_bytes() {
    let mut p = with_cookie();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b""), Err(Error::InProgress));
    look(&mut p);
    let (_, _, options, payload) = segments(&p).remove(0);
    assert!(!options.fastopen.unwrap().is_request() && payload.is_empty());
    // Linux's queue has an empty buffer for the data beside the SYN's.
    let mut p = with_cookie();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b""), Err(Error::InProgress));
    p.settle();
    p.accept().unwrap();
    let tcpi_delivered = &info(&mut p, C, id)[192..196];
    assert_eq!(tcpi_delivered, 2u32.to_ne_bytes());
}

#[test]
fn fo_15_a_syn_takes_what_can_be_read() {
    for readable in [1, 500, 1419] {
        let bytes = pattern(readable);
        let mut p = with_cookie();
        let id = p.client_socket();
        let memory = p.host(C).memory.clone();
        let slab = memory.region(RegionKind::User, bytes.clone());
        let mapped = IoVec::Mapped(slab, 0, readable);
        let mut iter = ProgramIter::new(&memory, vec![mapped, IoVec::Unmapped(1000)]);
        let name = Pair::server_sockaddr();
        let mut call = SendCall::new(FO, &[], Some(NameArg(&name)), ROOT, false);
        let mut step = |p: &mut Pair| {
            p.host(C)
                .with(|s, io| s.sendmsg(io, id, &mut call, &mut iter))
        };
        assert!(matches!(step(&mut p), Step::Wait { .. }));
        p.settle();
        assert_eq!(segments(&p)[0].3, bytes);
        assert_eq!(step(&mut p), Step::Ready(Ok(readable)));
    }
}

#[test]
fn fo_17_fo_31_fo_46_the_peer_ignores_the_data() {
    let mut p = with_cookie();
    p.hosts[1] = Pair::new(tfo(1), tfo(1)).hosts.into_iter().nth(1).unwrap();
    let at = p.host(C).clock.now();
    p.host(S).clock.advance_to(at);
    let mut listener = None;
    p.host(S).stack.for_each(|id, _| listener = Some(id));
    p.listener = listener.unwrap();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"early"), Ok(5));
    p.settle();
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), b"early");
    let data: Vec<_> = segments(&p)
        .into_iter()
        .filter(|s| s.3 == b"early")
        .collect();
    assert_eq!(data.len(), 2);
    assert_eq!(data[1].1, TcpFlags::PSH | TcpFlags::ACK);
    let info = info(&mut p, C, id);
    assert_eq!((info[5], info[7] >> 1), (0x07, 2));
}

#[test]
fn fo_18_a_reset_is_econnrefused() {
    let mut p = with_cookie();
    let listener = p.listener;
    p.host(S).with(|s, io| s.abort(io, listener));
    let id = p.client_socket();
    let memory = p.host(C).memory.clone();
    let mut iter = ProgramIter::source(&memory, b"data");
    let name = Pair::server_sockaddr();
    let mut call = SendCall::new(FO, &[], Some(NameArg(&name)), ROOT, false);
    let mut step = |p: &mut Pair| {
        p.host(C)
            .with(|s, io| s.sendmsg(io, id, &mut call, &mut iter))
    };
    assert!(matches!(step(&mut p), Step::Wait { .. }));
    // No listener: the frame is the kernel's to answer; here a RST as it would.
    look(&mut p);
    let rst = reset_for(&p.seen[0].1);
    p.host(C).rx(&rst);
    p.host(C).rx_batch_end();
    assert_eq!(step(&mut p), Step::Ready(Err(Error::ConnRefused)));
    assert!(!call.sigpipe);
    assert!(p.host(C).stack.connect_is_fresh(id));
}

/// The RST that a closed port answers a SYN with.
fn reset_for(syn: &[u8]) -> Vec<u8> {
    use sidewire_wire::ipv4::Ipv4Header;
    use sidewire_wire::tcp::TcpHeader;
    let ip = Ipv4View::parse(syn).unwrap();
    let tcp = TcpView::parse(ip.payload()).unwrap();
    let mut out = vec![0; 40];
    let header = TcpHeader {
        src_port: tcp.dst_port(),
        dst_port: tcp.src_port(),
        seq: 0,
        ack_seq: tcp.seq().wrapping_add(1 + tcp.payload_len() as u32),
        flags: TcpFlags::RST | TcpFlags::ACK,
        window: 0,
        urg_ptr: 0,
    };
    let len = header.emit(&TcpOptions::default(), &mut out[20..]).unwrap();
    assert_eq!(len, 20);
    Ipv4Header {
        tos: 0,
        total_len: 40,
        id: 0,
        dont_fragment: true,
        ttl: 64,
        protocol: 6,
        src: ip.dst(),
        dst: ip.src(),
    }
    .emit(&mut out)
    .unwrap();
    let pseudo = sidewire_wire::checksum::pseudo_header_v4(ip.dst(), ip.src(), 6, 20);
    let (_, segment) = out.split_at_mut(20);
    use sidewire_wire::checksum::{add, finish, sum};
    let field = finish(add(sum(segment), pseudo));
    assert!(sidewire_wire::tcp::set_checksum(segment, field));
    out
}

#[test]
fn fo_2_to_fo_8_fo_12_what_is_refused() {
    let mut p = pair_with(2, 3);
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"x"), Err(Error::OpNotSupp));
    let mut p = pair();
    let id = p.client_socket();
    let mut with = |name: Option<&[u8]>| p.send(C, id, FO, name, b"x");
    assert_eq!(with(Some(&[0, 0])), Err(Error::OpNotSupp));
    assert_eq!(with(Some(&[0])), Err(Error::Inval));
    assert_eq!(with(Some(&[])), Err(Error::Inval));
    assert_eq!(with(None), Err(Error::Inval));
    let addr = Pair::server_sockaddr();
    assert_eq!(with(Some(&addr[..15])), Err(Error::Inval));
    let mut v6 = addr;
    v6[..2].copy_from_slice(&so::AF_INET6.to_ne_bytes());
    assert_eq!(with(Some(&v6)), Err(Error::AfNoSupport));
    let mut multicast = addr;
    multicast[4..8].copy_from_slice(&[224, 0, 0, 1]);
    assert_eq!(with(Some(&multicast)), Err(Error::NetUnreach));
    // Nothing of all this spoilt the socket.
    assert_eq!(with(Some(&addr)), Err(Error::InProgress));
}

#[test]
fn fo_9_fo_11_connected_and_connecting() {
    let mut p = pair();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"x"), Err(Error::InProgress));
    assert_eq!(fastopen(&mut p, id, b"x"), Err(Error::Already));
    assert_eq!(p.send(C, id, 0, None, b"x"), Err(Error::Again));
    p.settle();
    let mut call = ConnectCall::default();
    let r = p
        .host(C)
        .with(|s, io| s.connect(io, id, Pair::server_addr(), true, &mut call));
    assert_eq!(ready(r), Ok(()));
    assert_eq!(fastopen(&mut p, id, b"x"), Err(Error::IsConn));
    assert_eq!(p.send(C, id, 0, None, b"x"), Ok(1));
    let listener = p.listener;
    let name = Pair::server_sockaddr();
    assert_eq!(
        p.send(S, listener, FO, Some(&name), b"x"),
        Err(Error::IsConn)
    );
}

#[test]
fn fo_19_a_bad_cmsg_with_data_in_the_syn() {
    let mut bad = Vec::new();
    bad.extend(16u64.to_ne_bytes());
    bad.extend(so::SOL_SOCKET.to_ne_bytes());
    bad.extend(99i32.to_ne_bytes());
    for nonblock in [true, false] {
        let mut p = with_cookie();
        let id = p.client_socket();
        let memory = p.host(C).memory.clone();
        let mut iter = ProgramIter::source(&memory, b"data");
        let name = Pair::server_sockaddr();
        let mut call = SendCall::new(FO, &bad, Some(NameArg(&name)), ROOT, nonblock);
        let mut step = |p: &mut Pair| {
            p.host(C)
                .with(|s, io| s.sendmsg(io, id, &mut call, &mut iter))
        };
        if nonblock {
            assert_eq!(step(&mut p), Step::Ready(Ok(4)));
            p.settle();
        } else {
            assert!(matches!(step(&mut p), Step::Wait { .. }));
            p.settle();
            assert_eq!(step(&mut p), Step::Ready(Err(Error::Inval)));
        }
        let child = p.accept().unwrap();
        assert_eq!(p.recv(S, child).unwrap(), b"data");
    }
}

#[test]
fn fo_20_zc_12_zerocopy_too() {
    let mut p = with_cookie();
    let id = p.client_socket();
    p.set(C, id, so::SOL_SOCKET, so::SO_ZEROCOPY, 1);
    let name = Pair::server_sockaddr();
    let flags = FO | so::MSG_ZEROCOPY;
    assert_eq!(p.send(C, id, flags, Some(&name), b"data"), Ok(4));
    p.settle();
    let (_, call) = p.recv_with(C, id, so::MSG_ERRQUEUE, 10).unwrap();
    let Some(sidewire_engine::RecvCmsg::RecvErr { ee, .. }) = call.cmsgs.last() else {
        panic!("{:?}", call.cmsgs)
    };
    assert_eq!((ee.ee_info, ee.ee_data, ee.ee_code), (0, 0, 1));
}

#[test]
fn fo_22_fo_31_a_lost_syn_goes_again_bare() {
    let mut p = with_cookie();
    let mut first = true;
    p.lose = Box::new(move |side, _| side == C && core::mem::take(&mut first));
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"early"), Ok(5));
    p.run_for(3_000_000_000);
    let syns: Vec<_> = segments(&p)
        .into_iter()
        .filter(|s| s.0 == C && s.1 == TcpFlags::SYN)
        .collect();
    assert_eq!(syns.len(), 2);
    assert!(syns[1].3.is_empty() && syns[1].2.fastopen.is_none());
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), b"early");
    assert_eq!(info(&mut p, C, id)[7] >> 1, 3);
}

/// As Linux 6.18 does: the request of the second call is a new one.
#[test]
fn a_fast_open_that_is_made_again_asks_for_a_cookie_again() {
    let mut p = with_cookie();
    p.lose = Box::new(|side, _| side == C);
    let id = p.client_socket();
    let memory = p.host(C).memory.clone();
    let name = Pair::server_sockaddr();
    let mut iter = ProgramIter::source(&memory, b"early");
    let mut call = SendCall::new(FO, &[], Some(NameArg(&name)), ROOT, false);
    let mut again = SendCall::new(FO, &[], Some(NameArg(&name)), ROOT, false);
    let mut step = |p: &mut Pair, call: &mut SendCall<'_>| {
        p.host(C).with(|s, io| s.sendmsg(io, id, call, &mut iter))
    };
    assert!(matches!(step(&mut p, &mut call), Step::Wait { .. }));
    p.run_for(300_000_000);
    call.signal = true;
    assert_eq!(step(&mut p, &mut call), Step::Ready(Err(Error::Intr)));
    assert!(matches!(step(&mut p, &mut again), Step::Wait { .. }));
    p.run_for(2_000_000_000);
    let options = segments(&p).into_iter().map(|s| (s.2.fastopen, s.3.len()));
    let options: Vec<_> = options.collect();
    assert_eq!(options.len(), 3);
    assert!(options[0].0.is_some_and(|o| !o.is_request()) && options[0].1 == 5);
    for (option, len) in &options[1..] {
        assert!(option.is_some_and(|o| o.is_request()) && *len == 0);
    }
}

#[test]
fn a_lost_syn_ack_of_a_fast_open_child_goes_again() {
    let mut p = with_cookie();
    let mut first = true;
    p.lose = Box::new(move |side, _| side == S && core::mem::take(&mut first));
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"early"), Ok(5));
    p.settle();
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), b"early");
    p.run_for(3_000_000_000);
    assert_eq!(p.host(S).stack.state(child), TcpState::Established);
    assert_eq!(p.host(C).stack.state(id), TcpState::Established);
    p.send_all(C, id, 0, b"on");
    assert_eq!(p.recv(S, child).unwrap(), b"on");
}

fn deferred(p: &mut Pair) -> SocketId {
    let id = p.client_socket();
    p.set(C, id, so::SOL_TCP, t::TCP_FASTOPEN_CONNECT, 1);
    let mut call = ConnectCall::default();
    let r = p
        .host(C)
        .with(|s, io| s.connect(io, id, Pair::server_addr(), false, &mut call));
    assert_eq!(r, Step::Ready(Ok(())));
    id
}

#[test]
fn fo_35_fo_37_fo_38_fo_39_rd_32_deferred_connect() {
    let mut p = with_cookie();
    let id = deferred(&mut p);
    look(&mut p);
    assert!(p.seen.is_empty(), "no packet");
    assert_eq!(info(&mut p, C, id)[0], 2);
    assert_eq!(p.host(C).stack.poll(id), 0x104);
    assert!(p.host(C).stack.peer(id).is_err());
    let outq = p.host(C).with(|s, io| s.ioctl_int(io, id, SIOCOUTQ as u32));
    assert_eq!(outq, Ok(0));
    let mut call = ConnectCall::default();
    let again = p
        .host(C)
        .with(|s, io| s.connect(io, id, Pair::server_addr(), true, &mut call));
    assert_eq!(ready(again), Err(Error::IsConn));
    assert_eq!(p.recv(C, id), Err(Error::Again));
    assert_eq!(p.send(C, id, 0, None, b"first"), Ok(5));
    p.settle();
    assert_eq!(segments(&p)[0].3, b"first");
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), b"first");
    p.send_all(C, id, 0, b"second");
    assert_eq!(p.recv(S, child).unwrap(), b"second");
}

#[test]
fn fo_36_without_a_cookie_it_is_an_ordinary_connect() {
    let mut p = pair();
    let id = p.client_socket();
    p.set(C, id, so::SOL_TCP, t::TCP_FASTOPEN_CONNECT, 1);
    let mut call = ConnectCall::default();
    let r = p
        .host(C)
        .with(|s, io| s.connect(io, id, Pair::server_addr(), true, &mut call));
    assert_eq!(ready(r), Err(Error::InProgress));
    p.settle();
    assert!(segments(&p)[0].2.fastopen.unwrap().is_request());
    assert_eq!(p.send(C, id, 0, None, b"x"), Ok(1));
}

#[test]
fn fo_40_fo_43_nothing_sent_and_shutdown() {
    let mut p = with_cookie();
    let id = deferred(&mut p);
    let memory = p.host(C).memory.clone();
    let mut iter = ProgramIter::source(&memory, b"");
    let mut call = SendCall::new(0, &[], None, ROOT, false);
    let mut step = |p: &mut Pair| {
        p.host(C)
            .with(|s, io| s.sendmsg(io, id, &mut call, &mut iter))
    };
    assert!(matches!(step(&mut p), Step::Wait { .. }));
    p.settle();
    assert_eq!(step(&mut p), Step::Ready(Ok(0)));
    let mut p = with_cookie();
    let id = deferred(&mut p);
    let r = p.host(C).with(|s, io| s.shutdown(io, id, so::SHUT_WR));
    assert_eq!(r, Ok(()));
    assert_eq!(p.host(C).stack.state(id), TcpState::Close);
    assert_eq!(p.send(C, id, 0, None, b"x"), Err(Error::ConnReset));
}

#[test]
fn fo_47_without_cookies() {
    let mut p = pair_with(1 | 4, 2 | 0x200);
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"first ever"), Ok(10));
    p.settle();
    let (_, _, options, payload) = segments(&p).remove(0);
    assert!(options.fastopen.is_none());
    assert_eq!(payload, b"first ever");
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), b"first ever");
}

#[test]
fn fo_48_more_than_the_queue_takes() {
    let mut p = with_cookie();
    let listener = p.listener;
    p.set(S, listener, so::SOL_TCP, t::TCP_FASTOPEN, 1);
    // The first one's SYN-ACK never arrives: it stays pending.
    p.lose = Box::new(|side, _| side == S);
    let one = p.client_socket();
    assert_eq!(fastopen(&mut p, one, b"one"), Ok(3));
    p.settle();
    p.lose = Box::new(|_, _| false);
    let two = p.client_socket();
    assert_eq!(fastopen(&mut p, two, b"two"), Ok(3));
    p.settle();
    let info = info(&mut p, C, two);
    assert_eq!(info[5] & 0x20, 0, "not by fast open");
    assert_eq!(p.host(C).stack.state(two), TcpState::Established);
    p.accept().unwrap();
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), b"two");
}

#[test]
fn fo_49_a_new_key_takes_old_cookies_for_a_while() {
    let mut p = pair();
    let listener = p.listener;
    let key = |n: u8| vec![n; 16];
    p.set_bytes(S, listener, so::SOL_TCP, t::TCP_FASTOPEN_KEY, &key(1));
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"x"), Err(Error::InProgress));
    p.settle();
    p.accept().unwrap();
    let both = [key(2), key(1)].concat();
    p.set_bytes(S, listener, so::SOL_TCP, t::TCP_FASTOPEN_KEY, &both);
    p.seen.clear();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"old"), Ok(3));
    p.settle();
    let fresh = segments(&p)[1].2.fastopen.unwrap();
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), b"old");
    p.set_bytes(S, listener, so::SOL_TCP, t::TCP_FASTOPEN_KEY, &key(2));
    p.seen.clear();
    let id = p.client_socket();
    assert_eq!(fastopen(&mut p, id, b"new"), Ok(3));
    p.settle();
    assert_eq!(segments(&p)[0].2.fastopen.unwrap(), fresh);
    let child = p.accept().unwrap();
    assert_eq!(p.recv(S, child).unwrap(), b"new");
}
