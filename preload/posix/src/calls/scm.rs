//! Control messages out: Linux's `put_cmsg`.

use core::ffi::c_int;
use core::net::SocketAddr;

use sidewire_engine::calls::RecvCmsg;
use sidewire_uapi::socket::{MSG_CTRUNC, SCM_TIMESTAMPING_OPT_STATS};

use super::address::encode;
use crate::{copy, syscall};

/// Bytes of a control message's header, and the alignment of messages.
const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGN: usize = size_of::<usize>();

/// Writes control messages to where the program wants them.
pub(super) struct Writer {
    at: *mut u8,
    room: usize,
    used: usize,
    truncated: bool,
    /// The socket, which has the options that the engine does not know.
    fd: c_int,
}

impl Writer {
    pub(super) fn new(at: *mut u8, room: usize, fd: c_int) -> Self {
        Self {
            fd,
            at,
            room: if at.is_null() { 0 } else { room },
            used: 0,
            truncated: false,
        }
    }

    /// `msg_controllen` on return.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// `msg_flags` on account of the room.
    pub(super) fn flags(&self) -> c_int {
        if self.truncated { MSG_CTRUNC } else { 0 }
    }

    /// Whether an option of SOL_IP is on at the kernel's socket.
    fn ip_option(&self, name: c_int) -> bool {
        syscall::getsockopt_int(self.fd, libc::IPPROTO_IP, name).is_ok_and(|on| on != 0)
    }

    fn raw(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let left = self.room - self.used;
        if left < HEADER {
            self.truncated = true;
            return;
        }
        let mut len = HEADER + data.len();
        if left < len {
            self.truncated = true;
            len = left;
        }
        let mut header = [0u8; HEADER];
        header[..8].copy_from_slice(&len.to_ne_bytes());
        header[8..12].copy_from_slice(&level.to_ne_bytes());
        header[12..16].copy_from_slice(&kind.to_ne_bytes());
        let to = self.at.wrapping_add(self.used);
        // SAFETY: live slices; the program gave the target for writing.
        let written = unsafe {
            copy::to_program(to, header.as_ptr(), HEADER).and_then(|()| {
                copy::to_program(to.wrapping_add(HEADER), data.as_ptr(), len - HEADER)
            })
        };
        // A message that cannot be written is left out, and nobody told.
        if written.is_ok() {
            self.used += len.next_multiple_of(ALIGN).min(left);
        }
    }

    /// Appends one message, cut to the room that is left.
    pub(super) fn put(&mut self, cmsg: &RecvCmsg, v6: bool) {
        use sidewire_uapi::socket as so;
        match cmsg {
            RecvCmsg::Inq(n) => self.raw(
                libc::IPPROTO_TCP,
                sidewire_uapi::tcp::TCP_INQ,
                &n.to_ne_bytes(),
            ),
            RecvCmsg::Timestamp { ns, new } => {
                let mut b = [0u8; 16];
                b[..8].copy_from_slice(&(ns / 1_000_000_000).to_ne_bytes());
                b[8..].copy_from_slice(&(ns % 1_000_000_000 / 1000).to_ne_bytes());
                let kind = if *new {
                    so::SO_TIMESTAMP_NEW
                } else {
                    so::SO_TIMESTAMP
                };
                self.raw(libc::SOL_SOCKET, kind, &b)
            }
            RecvCmsg::TimestampNs { ns, new } => {
                let kind = if *new {
                    so::SO_TIMESTAMPNS_NEW
                } else {
                    so::SO_TIMESTAMPNS
                };
                self.raw(libc::SOL_SOCKET, kind, &timespec(*ns))
            }
            RecvCmsg::Timestamping { ns, new } => {
                let mut b = [0u8; 48];
                for (to, ns) in b.chunks_exact_mut(16).zip(ns) {
                    to.copy_from_slice(&timespec(*ns));
                }
                let kind = if *new {
                    so::SO_TIMESTAMPING_NEW
                } else {
                    so::SO_TIMESTAMPING
                };
                self.raw(libc::SOL_SOCKET, kind, &b)
            }
            RecvCmsg::IpHeader {
                ifindex,
                spec_dst,
                daddr,
                ttl,
                tos,
                port,
            } => {
                let mut info = [0u8; 12];
                info[..4].copy_from_slice(&ifindex.to_ne_bytes());
                info[4..8].copy_from_slice(&spec_dst.octets());
                info[8..].copy_from_slice(&daddr.octets());
                if self.ip_option(libc::IP_PKTINFO) {
                    self.raw(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                }
                if self.ip_option(libc::IP_RECVTTL) {
                    let ttl = i32::from(*ttl).to_ne_bytes();
                    self.raw(libc::IPPROTO_IP, libc::IP_TTL, &ttl);
                }
                if self.ip_option(libc::IP_RECVTOS) {
                    self.raw(libc::IPPROTO_IP, libc::IP_TOS, &[*tos]);
                }
                if self.ip_option(libc::IP_RECVORIGDSTADDR) {
                    let (bytes, n) = encode(SocketAddr::new((*daddr).into(), *port), false);
                    self.raw(libc::IPPROTO_IP, libc::IP_ORIGDSTADDR, &bytes[..n]);
                }
            }
            RecvCmsg::RecvErr { ee, offender } => {
                let mut b = [0u8; 16 + size_of::<libc::sockaddr_in6>()];
                b[..4].copy_from_slice(&ee.ee_errno.to_ne_bytes());
                b[4..8].copy_from_slice(&[ee.ee_origin, ee.ee_type, ee.ee_code, ee.ee_pad]);
                b[8..12].copy_from_slice(&ee.ee_info.to_ne_bytes());
                b[12..16].copy_from_slice(&ee.ee_data.to_ne_bytes());
                let name = if v6 {
                    size_of::<libc::sockaddr_in6>()
                } else {
                    size_of::<libc::sockaddr_in>()
                };
                if let Some(addr) = offender {
                    let (bytes, n) = encode(SocketAddr::new(addr.ip(), 0), v6);
                    b[16..16 + n].copy_from_slice(&bytes[..n]);
                }
                let (level, kind) = if v6 {
                    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
                } else {
                    (libc::IPPROTO_IP, libc::IP_RECVERR)
                };
                self.raw(level, kind, &b[..16 + name])
            }
            RecvCmsg::OptStats(bytes) => {
                self.raw(libc::SOL_SOCKET, SCM_TIMESTAMPING_OPT_STATS, bytes)
            }
        }
    }
}

fn timespec(ns: u64) -> [u8; 16] {
    let mut b = [0u8; 16];
    b[..8].copy_from_slice(&(ns / 1_000_000_000).to_ne_bytes());
    b[8..].copy_from_slice(&(ns % 1_000_000_000).to_ne_bytes());
    b
}
