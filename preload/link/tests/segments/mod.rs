//! Segments as the engine makes them, from one end of a veth pair to the other.

#![allow(dead_code)]

use crate::netns::ifindex;
use sidewire_link::frame::TxFrame;
use sidewire_link::packet::PacketSocket;
use sidewire_link::packet::filter::{PortFilter, Target};
use sidewire_wire::checksum;
use sidewire_wire::ethernet::MacAddr;
use sidewire_wire::ipv4::Ipv4Header;
use sidewire_wire::tcp::{TcpFlags, TcpHeader, set_checksum};
use sidewire_wire::tcp_options::TcpOptions;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};

pub(crate) const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const MAC_A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa1]);
pub(crate) const MAC_B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb2]);
pub(crate) const TCP: u8 = 6;
pub(crate) const PORT: u16 = 7777;
pub(crate) const SRC_PORT: u16 = 1234;

/// Headers of a segment from A to B's [`PORT`], as the engine makes them.
pub(crate) fn headers(payload_len: usize) -> Vec<u8> {
    numbered(payload_len, 1000)
}

/// The same with a sequence number of choice.
pub(crate) fn numbered(payload_len: usize, seq: u32) -> Vec<u8> {
    of_connection(payload_len, SRC_PORT, seq)
}

/// The same of a connection of choice.
pub(crate) fn of_connection(payload_len: usize, src_port: u16, seq: u32) -> Vec<u8> {
    let mut out = vec![0; 40];
    let ip = Ipv4Header {
        tos: 0,
        total_len: (40 + payload_len) as u16,
        id: 7,
        dont_fragment: true,
        ttl: 64,
        protocol: TCP,
        src: A,
        dst: B,
    };
    let at = ip.emit(&mut out).unwrap();
    let tcp = TcpHeader {
        src_port,
        dst_port: PORT,
        seq,
        ack_seq: 1,
        flags: TcpFlags::ACK | TcpFlags::PSH,
        window: 500,
        urg_ptr: 0,
    };
    tcp.emit(&TcpOptions::default(), &mut out[at..]).unwrap();
    let partial = checksum::pseudo_header_v4(A, B, TCP, (20 + payload_len) as u32);
    set_checksum(&mut out[at..], partial);
    out
}

pub(crate) fn iov(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

pub(crate) fn frame<'a>(headers: &'a [u8], frags: &'a [libc::iovec], gso_size: u16) -> TxFrame<'a> {
    TxFrame {
        ifindex: ifindex("va"),
        dst_mac: Some(MAC_B),
        src_mac: MAC_A,
        headers,
        frags,
        gso_size,
        mark: 0,
        priority: 0,
        tstamp: None,
        txtime: None,
    }
}

pub(crate) fn wait(fd: RawFd, events: i16) {
    let mut p = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one live pollfd.
    let n = unsafe { libc::poll(&mut p, 1, 10_000) };
    assert_eq!(n, 1, "no event {events:#x} in 10 s");
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Opens a socket in the calling namespace that listens to `port`.
pub(crate) fn open_port(port: u16) -> PacketSocket {
    let socket = PacketSocket::open().unwrap();
    let mut filter = PortFilter::new(false);
    assert!(filter.add(port, None));
    filter
        .attach(Target::Socket(socket.shared_fd().as_raw_fd()))
        .unwrap();
    socket
}
