//! TCP_REPAIR over a real handshake: `rows.toml` repair rows that need a peer.

mod pair;

use pair::{Pair, Side};
use sidewire_engine::error::Error;
use sidewire_engine::{CloseCall, ConnectCall, SocketId, Step};
use sidewire_uapi::TcpState;
use sidewire_uapi::socket as so;
use sidewire_uapi::tcp as t;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpOptions, TcpView};

fn pair() -> (Pair, SocketId, SocketId) {
    let mut p = Pair::new(Default::default(), Default::default());
    let (client, server) = p.connect();
    (p, client, server)
}

fn u32_of(bytes: Vec<u8>) -> u32 {
    u32::from_ne_bytes(bytes.try_into().expect("four bytes"))
}

/// A connection is dumped through the options and restored in a fresh socket on the same host, as CRIU does.
#[test]
fn rp_12_rp_25_rp_26_rp_33_rp_35_dump_and_restore() {
    let (mut p, old, server) = pair();
    p.send_all(Side::Client, old, 0, b"before ");
    p.settle();
    p.send(Side::Server, server, 0, None, b"unread").unwrap();
    p.settle();
    assert_eq!(p.recv(Side::Server, server).unwrap(), b"before ");
    // In flight and never acked: the peer loses it once.
    p.lose = Box::new(|side, _| side == Side::Client);
    p.send(Side::Client, old, 0, None, b"flying ").unwrap();
    p.settle();
    p.lose = Box::new(|_, _| false);
    p.seen.clear();

    let c = Side::Client;
    let tcp = so::SOL_TCP;
    p.set(c, old, tcp, t::TCP_REPAIR, 1);
    let window = p.get(c, old, tcp, t::TCP_REPAIR_WINDOW, 20);
    let stamp = u32_of(p.get(c, old, tcp, t::TCP_TIMESTAMP, 4));
    let mss = u32_of(p.get(c, old, tcp, t::TCP_MAXSEG, 4));
    let info = p.get(c, old, tcp, t::TCP_INFO, 248);
    p.set(c, old, tcp, t::TCP_REPAIR_QUEUE, t::repair::SEND_QUEUE);
    let snd = u32_of(p.get(c, old, tcp, t::TCP_QUEUE_SEQ, 4));
    let (unacked, _) = p.recv_with(c, old, so::MSG_PEEK, 100).unwrap();
    assert_eq!(unacked, b"flying ");
    p.set(c, old, tcp, t::TCP_REPAIR_QUEUE, t::repair::RECV_QUEUE);
    let rcv = u32_of(p.get(c, old, tcp, t::TCP_QUEUE_SEQ, 4));
    let (unread, _) = p.recv_with(c, old, so::MSG_PEEK, 100).unwrap();
    assert_eq!(unread, b"unread");
    let tuple = p.host(c).stack.sock(old).unwrap().tuple;
    let mut close = CloseCall::default();
    p.host(c).with(|s, io| s.close(io, old, true, &mut close));
    p.settle();
    assert!(p.seen.is_empty(), "RP-35: not a packet");

    let new = p.host(c).stack.socket(false, 8);
    p.host(c).stack.bound(new, tuple.local);
    p.set(c, new, tcp, t::TCP_REPAIR, 1);
    p.set(c, new, tcp, t::TCP_REPAIR_QUEUE, t::repair::SEND_QUEUE);
    let una = snd - unacked.len() as u32;
    p.set(c, new, tcp, t::TCP_QUEUE_SEQ, una as i32);
    p.set(c, new, tcp, t::TCP_REPAIR_QUEUE, t::repair::RECV_QUEUE);
    let start = rcv - unread.len() as u32;
    p.set(c, new, tcp, t::TCP_QUEUE_SEQ, start as i32);
    let mut call = ConnectCall::default();
    let r = p
        .host(c)
        .with(|s, io| s.connect(io, new, tuple.remote, false, &mut call));
    assert_eq!(r, Step::Ready(Ok(())));
    let mut call = ConnectCall::default();
    let r = p
        .host(c)
        .with(|s, io| s.connect(io, new, tuple.remote, false, &mut call));
    assert_eq!(r, Step::Ready(Err(Error::IsConn)), "RP-13");
    let wscale = u32::from(info[6] & 15) | u32::from(info[6] >> 4) << 16;
    let opts: Vec<u8> = [2, mss, 3, wscale, 4, 0, 8, 0]
        .iter()
        .flat_map(|w| w.to_ne_bytes())
        .collect();
    p.set_bytes(c, new, tcp, t::TCP_REPAIR_OPTIONS, &opts);
    p.set(c, new, tcp, t::TCP_TIMESTAMP, stamp as i32);
    assert_eq!(p.send(c, new, 0, None, &unread), Ok(unread.len()));
    p.set(c, new, tcp, t::TCP_REPAIR_QUEUE, t::repair::SEND_QUEUE);
    assert_eq!(p.send(c, new, 0, None, &unacked), Ok(unacked.len()));
    p.set_bytes(c, new, tcp, t::TCP_REPAIR_WINDOW, &window);
    let outq = |p: &mut Pair, cmd: u64| {
        p.host(c)
            .with(|s, io| s.ioctl_int(io, new, cmd as u32))
            .unwrap()
    };
    assert_eq!(outq(&mut p, sidewire_uapi::ioctl::SIOCOUTQ), 7);
    assert_eq!(outq(&mut p, sidewire_uapi::ioctl::SIOCOUTQNSD), 0);
    p.settle();
    assert!(p.seen.is_empty(), "nothing was sent so far");
    p.set(c, new, tcp, t::TCP_REPAIR, 0);
    assert_eq!(p.host(c).stack.state(new), TcpState::Established);
    p.settle();
    assert!(!p.seen.is_empty(), "RP-33: a window probe");

    assert_eq!(p.recv(c, new).unwrap(), b"unread");
    p.run_for(2_000_000_000);
    assert_eq!(p.recv(Side::Server, server).unwrap(), b"flying ");
    p.send_all(c, new, 0, b"after");
    p.send(Side::Server, server, 0, None, b"answer").unwrap();
    p.settle();
    assert_eq!(p.recv(Side::Server, server).unwrap(), b"after");
    assert_eq!(p.recv(c, new).unwrap(), b"answer");
}

#[test]
fn rp_28_to_rp_30_reading_in_repair_is_peeking() {
    let (mut p, client, server) = pair();
    p.send(Side::Server, server, 0, None, b"data").unwrap();
    p.settle();
    let c = Side::Client;
    p.set(c, client, so::SOL_TCP, t::TCP_REPAIR, 1);
    assert_eq!(p.recv(c, client), Err(Error::Perm));
    let peek = |p: &mut Pair| p.recv_with(c, client, so::MSG_PEEK, 10).map(|(b, _)| b);
    assert_eq!(peek(&mut p), Err(Error::Inval));
    p.set(c, client, so::SOL_TCP, t::TCP_REPAIR_QUEUE, 1);
    assert_eq!(peek(&mut p).unwrap(), b"data");
}

#[test]
fn rp_32_data_from_the_wire_is_still_taken() {
    let (mut p, client, server) = pair();
    let c = Side::Client;
    p.set(c, client, so::SOL_TCP, t::TCP_REPAIR, 1);
    p.send(Side::Server, server, 0, None, b"abc").unwrap();
    p.settle();
    p.set(c, client, so::SOL_TCP, t::TCP_REPAIR_QUEUE, 1);
    assert_eq!(p.send(c, client, 0, None, b"XY"), Ok(2));
    // The peer's next two bytes overlap what was put in.
    p.send(Side::Server, server, 0, None, b"def").unwrap();
    p.settle();
    p.set(c, client, so::SOL_TCP, t::TCP_REPAIR, -1);
    assert_eq!(p.recv(c, client).unwrap(), b"abcXYf");
}

#[test]
fn rp_34_rp_36_rp_37_silence() {
    let (mut p, client, _) = pair();
    let c = Side::Client;
    p.seen.clear();
    p.set(c, client, so::SOL_TCP, t::TCP_REPAIR, 1);
    p.set(c, client, so::SOL_TCP, t::TCP_REPAIR, -1);
    p.set(c, client, so::SOL_TCP, t::TCP_REPAIR, 1);
    p.host(c).with(|s, io| s.disconnect(io, client));
    p.settle();
    assert!(p.seen.is_empty());
    let err = p.get(c, client, so::SOL_SOCKET, so::SO_ERROR, 4);
    assert_eq!(err, 103i32.to_ne_bytes());
    let call = p.send(c, client, so::MSG_NOSIGNAL, None, b"x");
    assert_eq!(call, Err(Error::Pipe));
}

/// Linux reckons with the timestamps that the handshake would have offered, and never learns better.
#[test]
fn what_tcp_info_and_tcp_maxseg_say_of_a_socket_in_repair() {
    let (mut p, _, _) = pair();
    let (c, tcp) = (Side::Client, so::SOL_TCP);
    let int = |p: &mut Pair, id, name| p.get(c, id, tcp, name, 4);
    let new = p.client_socket();
    p.set(c, new, tcp, t::TCP_REPAIR, 1);
    assert_eq!(int(&mut p, new, t::TCP_MAXSEG), 0i32.to_ne_bytes());
    let mut call = ConnectCall::default();
    let r = p
        .host(c)
        .with(|s, io| s.connect(io, new, Pair::server_addr(), false, &mut call));
    assert_eq!(r, Step::Ready(Ok(())));
    let snd_mss = |p: &mut Pair| p.get(c, new, tcp, t::TCP_INFO, 248)[16..20].to_vec();
    assert_eq!(snd_mss(&mut p), 524i32.to_ne_bytes());
    assert_eq!(int(&mut p, new, t::TCP_MAXSEG), 536i32.to_ne_bytes());
    // Segments have what there is room for without timestamps.
    p.set(c, new, tcp, t::TCP_REPAIR_QUEUE, t::repair::SEND_QUEUE);
    assert_eq!(p.send(c, new, 0, None, &[0; 2500]), Ok(2500));
    let unacked = p.get(c, new, tcp, t::TCP_INFO, 248)[24..28].to_vec();
    assert_eq!(unacked, 5i32.to_ne_bytes());
}

#[test]
fn the_mss_of_an_attempt_and_of_a_dissolved_connection() {
    let (mut p, client, _) = pair();
    let c = Side::Client;
    let mss = |p: &mut Pair, id| p.get(c, id, so::SOL_TCP, t::TCP_MAXSEG, 4);
    p.host(c).with(|s, io| s.disconnect(io, client));
    assert_eq!(mss(&mut p, client), 1448i32.to_ne_bytes());
    let new = p.client_socket();
    let mut call = ConnectCall::default();
    let r = p
        .host(c)
        .with(|s, io| s.connect(io, new, Pair::server_addr(), true, &mut call));
    assert_eq!(r, Step::Ready(Err(Error::InProgress)));
    assert_eq!(mss(&mut p, new), 524i32.to_ne_bytes());
}

/// The lowest bit of TCP_TIMESTAMP: microseconds, on the wire, in what is read back, and where the round trip is measured.
#[test]
fn so_60_so_80_timestamps_in_microseconds() {
    let (mut p, client, server) = pair();
    let (c, tcp) = (Side::Client, so::SOL_TCP);
    p.settle();
    p.set(c, client, tcp, t::TCP_REPAIR, 1);
    let stamp = |p: &mut Pair| u32_of(p.get(c, client, tcp, t::TCP_TIMESTAMP, 4));
    let first = stamp(&mut p) + 1;
    p.set(c, client, tcp, t::TCP_TIMESTAMP, first as i32);
    p.set(c, client, tcp, t::TCP_REPAIR, t::repair::OFF_NO_WP);
    assert_eq!(stamp(&mut p), first);
    p.run_for(2_000_000);
    assert_eq!(stamp(&mut p), first + 2_000);
    assert_ne!(p.get(c, client, tcp, t::TCP_INFO, 248)[5] & 0x40, 0);
    p.seen.clear();
    p.send_all(c, client, 0, b"data");
    p.settle();
    assert_eq!(p.recv(Side::Server, server).unwrap(), b"data");
    let tsval = p.seen.iter().find_map(|(side, bytes)| {
        let ip = Ipv4View::parse(bytes).ok()?;
        let view = TcpView::parse(ip.payload()).ok()?;
        let options = TcpOptions::parse(view.options(), false);
        (*side == c).then_some(options.timestamps?.0)
    });
    assert_eq!(tsval, Some(first + 2_000));
    p.set(c, client, tcp, t::TCP_REPAIR, 1);
    p.set(c, client, tcp, t::TCP_TIMESTAMP, 5_000);
    assert_eq!(stamp(&mut p), 5_000);
    assert_eq!(p.get(c, client, tcp, t::TCP_INFO, 248)[5] & 0x40, 0);
}

/// A row of small sends, which would be held back for the next one on the wire.
#[test]
fn rp_26_each_of_many_small_sends_counts_as_sent() {
    let (mut p, client, _) = pair();
    let (c, tcp) = (Side::Client, so::SOL_TCP);
    p.settle();
    p.set(c, client, tcp, t::TCP_REPAIR, 1);
    p.set(c, client, tcp, t::TCP_REPAIR_QUEUE, t::repair::SEND_QUEUE);
    for _ in 0..20 {
        assert_eq!(p.send(c, client, 0, None, b"0123456789"), Ok(10));
    }
    let mut outq = |cmd: u64| {
        p.host(c)
            .with(|s, io| s.ioctl_int(io, client, cmd as u32))
            .unwrap()
    };
    assert_eq!(outq(sidewire_uapi::ioctl::SIOCOUTQ), 200);
    assert_eq!(outq(sidewire_uapi::ioctl::SIOCOUTQNSD), 0);
}
