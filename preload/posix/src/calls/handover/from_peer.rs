//! The peer's last segments for a connection that has become the kernel's.
//!
//! TCP_REPAIR makes established connections only. Where the peer has finished, its FIN was acknowledged by us, and it will not
//! send another one: the kernel gets one from here. So it does the RST of a connection that is over ([`super::ended`]). They
//! come in by the loopback device, under the peer's name.

use core::ffi::c_int;
use core::net::SocketAddr;

use arrayvec::ArrayVec;
use libc::pollfd;
use sidewire_engine::net::{MAX_HEADER, TxVerdict};
use sidewire_engine::sock::TcpSock;
use sidewire_link::Errno;
use sidewire_uapi::TcpState;
use sidewire_uapi::socket::IPPROTO_TCP;
use sidewire_wire::checksum;
use sidewire_wire::ipv4::{HEADER_LEN, Ipv4Header};
use sidewire_wire::tcp::{MAX_HEADER_LEN, TcpFlags, TcpHeader, set_checksum};
use sidewire_wire::tcp_options::TcpOptions;

use crate::stack::NetStack;
use crate::syscall;

/// How long the kernel may take to receive what comes by `lo`, in nanoseconds. As a rule it has it at once.
const ARRIVES_WITHIN: u64 = 100_000_000;

/// A FIN or RST of the peer's.
pub(super) struct FromPeer {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack_seq: u32,
    pub(super) window: u16,
    pub(super) timestamps: Option<(u32, u32)>,
    pub(super) flags: TcpFlags,
}

impl FromPeer {
    /// The FIN that is not in the connection's image. None when the peer has not finished, as far as the connection knows.
    pub(super) fn fin_of(sk: &TcpSock, tsval: Option<u32>) -> Option<Self> {
        let finished = [TcpState::CloseWait, TcpState::Closing, TcpState::LastAck];
        finished.contains(&sk.state).then(|| Self {
            local: sk.tuple.local,
            remote: sk.tuple.remote,
            seq: sk.rcv_nxt.wrapping_sub(1),
            ack_seq: sk.snd_una,
            window: u16::try_from(sk.snd_wnd >> sk.snd_wscale).unwrap_or(u16::MAX),
            timestamps: tsval.map(|tsval| (sk.ts_recent, tsval)),
            flags: TcpFlags::FIN | TcpFlags::ACK,
        })
    }

    /// Lets the kernel's socket `fd` receive it, and waits for what it makes of the socket's mask. False where nothing comes
    /// in by `lo`: it is down, `rp_filter` strict, or the socket bound to a device.
    pub(super) fn arrives(&self, fd: c_int, stack: &'static NetStack, mask: i16) -> bool {
        let sent = self
            .segment()
            .is_some_and(|segment| stack.with(|i| i.net.by_loopback(&segment) == TxVerdict::Sent));
        sent && arrived(fd, mask)
    }

    fn segment(&self) -> Option<ArrayVec<u8, MAX_HEADER>> {
        let (SocketAddr::V4(local), SocketAddr::V4(remote)) = (self.local, self.remote) else {
            return None;
        };
        let options = TcpOptions {
            timestamps: self.timestamps,
            ..TcpOptions::default()
        };
        let tcp = TcpHeader {
            src_port: remote.port(),
            dst_port: local.port(),
            seq: self.seq,
            ack_seq: self.ack_seq,
            flags: self.flags,
            window: self.window,
            urg_ptr: 0,
        };
        let mut out = [0; HEADER_LEN + MAX_HEADER_LEN];
        let tcp_len = tcp.emit(&options, &mut out[HEADER_LEN..])? as u16;
        let ip = Ipv4Header {
            tos: 0,
            total_len: HEADER_LEN as u16 + tcp_len,
            id: 0,
            dont_fragment: true,
            ttl: 64,
            protocol: IPPROTO_TCP,
            src: *remote.ip(),
            dst: *local.ip(),
        };
        ip.emit(&mut out)?;
        let pseudo = checksum::pseudo_header_v4(ip.src, ip.dst, IPPROTO_TCP, tcp_len.into());
        set_checksum(&mut out[HEADER_LEN..], pseudo);
        let segment = out.get(..ip.total_len.into())?;
        Some(segment.iter().copied().collect())
    }
}

/// True when the kernel has had it.
fn arrived(fd: c_int, mask: i16) -> bool {
    let mut fds = [pollfd {
        fd,
        events: mask,
        revents: 0,
    }];
    loop {
        match syscall::ppoll(&mut fds, ARRIVES_WITHIN, None) {
            Err(Errno::EINTR) => {}
            polled => return polled.is_ok_and(|n| n > 0),
        }
    }
}
