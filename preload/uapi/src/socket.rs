//! Address families, `SOL_SOCKET` options, message flags and control message types.

/// Unspecified address family; `connect` to it dissolves an association.
pub const AF_UNSPEC: u16 = 0;
/// Local sockets.
pub const AF_UNIX: u16 = 1;
/// IPv4.
pub const AF_INET: u16 = 2;
/// IPv6.
pub const AF_INET6: u16 = 10;
/// Packet sockets.
pub const AF_PACKET: u16 = 17;

/// Byte stream.
pub const SOCK_STREAM: i32 = 1;
/// Datagrams.
pub const SOCK_DGRAM: i32 = 2;
/// Raw frames or packets.
pub const SOCK_RAW: i32 = 3;
/// Mask of the type proper in the `type` argument of `socket`.
pub const SOCK_TYPE_MASK: i32 = 0xf;
/// Non-blocking descriptor, a flag beside the type.
pub const SOCK_NONBLOCK: i32 = 0x800;
/// Close-on-exec descriptor, a flag beside the type.
pub const SOCK_CLOEXEC: i32 = 0x80000;

/// ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// TCP.
pub const IPPROTO_TCP: u8 = 6;
/// ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;

/// Option level of the socket layer.
pub const SOL_SOCKET: i32 = 1;
/// Option level of IPv4.
pub const SOL_IP: i32 = 0;
/// Option level of TCP.
pub const SOL_TCP: i32 = 6;
/// Option level of IPv6.
pub const SOL_IPV6: i32 = 41;
/// Option level of packet sockets.
pub const SOL_PACKET: i32 = 263;

/// No more receives.
pub const SHUT_RD: i32 = 0;
/// No more sends.
pub const SHUT_WR: i32 = 1;
/// Neither.
pub const SHUT_RDWR: i32 = 2;

/// Largest accept backlog of a stock host (`net.core.somaxconn`).
pub const SOMAXCONN: i32 = 4096;
/// Most iovec entries of one call; more is `EMSGSIZE`.
pub const UIO_MAXIOV: usize = 1024;

/// Debugging on the socket.
pub const SO_DEBUG: i32 = 1;
/// Relaxed rules for the local address.
pub const SO_REUSEADDR: i32 = 2;
/// Socket type, read only.
pub const SO_TYPE: i32 = 3;
/// Pending error, read and clear.
pub const SO_ERROR: i32 = 4;
/// Skip routing.
pub const SO_DONTROUTE: i32 = 5;
/// Allow broadcast.
pub const SO_BROADCAST: i32 = 6;
/// Send buffer, in bytes of truesize; stored doubled.
pub const SO_SNDBUF: i32 = 7;
/// Receive buffer, in bytes of truesize; stored doubled.
pub const SO_RCVBUF: i32 = 8;
/// Keepalive on or off.
pub const SO_KEEPALIVE: i32 = 9;
/// Urgent data stays in the stream.
pub const SO_OOBINLINE: i32 = 10;
/// Skip checksums (datagrams).
pub const SO_NO_CHECK: i32 = 11;
/// Queueing priority.
pub const SO_PRIORITY: i32 = 12;
/// Behaviour of `close` with unsent data, `struct linger`.
pub const SO_LINGER: i32 = 13;
/// BSD compatibility, no effect.
pub const SO_BSDCOMPAT: i32 = 14;
/// Several sockets share one port.
pub const SO_REUSEPORT: i32 = 15;
/// Receive credentials.
pub const SO_PASSCRED: i32 = 16;
/// Credentials of the peer.
pub const SO_PEERCRED: i32 = 17;
/// Bytes that make a socket readable.
pub const SO_RCVLOWAT: i32 = 18;
/// Always 1.
pub const SO_SNDLOWAT: i32 = 19;
/// Receive timeout, `struct timeval` of the native word.
pub const SO_RCVTIMEO: i32 = 20;
/// Send timeout, `struct timeval` of the native word.
pub const SO_SNDTIMEO: i32 = 21;
/// Bound device by name.
pub const SO_BINDTODEVICE: i32 = 25;
/// Attach a classic BPF filter.
pub const SO_ATTACH_FILTER: i32 = 26;
/// Detach any filter.
pub const SO_DETACH_FILTER: i32 = 27;
/// Address of the peer as an option.
pub const SO_PEERNAME: i32 = 28;
/// Receive time stamps in microseconds.
pub const SO_TIMESTAMP: i32 = 29;
/// Is the socket listening, read only.
pub const SO_ACCEPTCONN: i32 = 30;
/// Security label of the peer.
pub const SO_PEERSEC: i32 = 31;
/// [`SO_SNDBUF`] without the limit of the namespace.
pub const SO_SNDBUFFORCE: i32 = 32;
/// [`SO_RCVBUF`] without the limit of the namespace.
pub const SO_RCVBUFFORCE: i32 = 33;
/// Receive security labels.
pub const SO_PASSSEC: i32 = 34;
/// Receive time stamps in nanoseconds.
pub const SO_TIMESTAMPNS: i32 = 35;
/// Firewall mark.
pub const SO_MARK: i32 = 36;
/// Stamps by flags, see [`crate::timestamping`].
pub const SO_TIMESTAMPING: i32 = 37;
/// Protocol, read only.
pub const SO_PROTOCOL: i32 = 38;
/// Domain, read only.
pub const SO_DOMAIN: i32 = 39;
/// Receive-queue overflow counter (datagrams).
pub const SO_RXQ_OVFL: i32 = 40;
/// Offset of `MSG_PEEK`, -1 is off.
pub const SO_PEEK_OFF: i32 = 42;
/// Filter may not be removed.
pub const SO_LOCK_FILTER: i32 = 44;
/// Busy polling, microseconds.
pub const SO_BUSY_POLL: i32 = 46;
/// Pacing limit, bytes per second.
pub const SO_MAX_PACING_RATE: i32 = 47;
/// CPU of the receive path.
pub const SO_INCOMING_CPU: i32 = 49;
/// Attach an eBPF filter.
pub const SO_ATTACH_BPF: i32 = 50;
/// Choose in a group by classic BPF.
pub const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
/// Choose in a group by eBPF.
pub const SO_ATTACH_REUSEPORT_EBPF: i32 = 52;
/// Memory counters, `u32[9]`.
pub const SO_MEMINFO: i32 = 55;
/// NAPI id of the last packet.
pub const SO_INCOMING_NAPI_ID: i32 = 56;
/// Unique socket number, `u64`.
pub const SO_COOKIE: i32 = 57;
/// Allow `MSG_ZEROCOPY`.
pub const SO_ZEROCOPY: i32 = 60;
/// Transmit times, `struct sock_txtime`.
pub const SO_TXTIME: i32 = 61;
/// Bound device by index.
pub const SO_BINDTOIFINDEX: i32 = 62;
/// [`SO_TIMESTAMP`] with 64-bit seconds.
pub const SO_TIMESTAMP_NEW: i32 = 63;
/// [`SO_TIMESTAMPNS`] with 64-bit seconds.
pub const SO_TIMESTAMPNS_NEW: i32 = 64;
/// [`SO_TIMESTAMPING`] with 64-bit seconds.
pub const SO_TIMESTAMPING_NEW: i32 = 65;
/// [`SO_RCVTIMEO`] with 64-bit seconds.
pub const SO_RCVTIMEO_NEW: i32 = 66;
/// [`SO_SNDTIMEO`] with 64-bit seconds.
pub const SO_SNDTIMEO_NEW: i32 = 67;
/// Prefer busy polling.
pub const SO_PREFER_BUSY_POLL: i32 = 69;
/// Packets per busy poll.
pub const SO_BUSY_POLL_BUDGET: i32 = 70;
/// Cookie of the network namespace, `u64`, read only.
pub const SO_NETNS_COOKIE: i32 = 71;
/// Which buffers are fixed: [`SOCK_SNDBUF_LOCK`], [`SOCK_RCVBUF_LOCK`].
pub const SO_BUF_LOCK: i32 = 72;
/// Reserved forward memory, bytes.
pub const SO_RESERVE_MEM: i32 = 73;
/// Change the hash of the flow at a timeout.
pub const SO_TXREHASH: i32 = 74;
/// Receive the firewall mark.
pub const SO_RCVMARK: i32 = 75;
/// Receive a pidfd.
pub const SO_PASSPIDFD: i32 = 76;
/// Pidfd of the peer.
pub const SO_PEERPIDFD: i32 = 77;
/// Release device memory tokens.
pub const SO_DEVMEM_DONTNEED: i32 = 80;
/// Receive the queueing priority.
pub const SO_RCVPRIORITY: i32 = 82;

/// Bit of [`SO_BUF_LOCK`]: the send buffer was set by the program.
pub const SOCK_SNDBUF_LOCK: i32 = 1;
/// Bit of [`SO_BUF_LOCK`]: the receive buffer was set by the program.
pub const SOCK_RCVBUF_LOCK: i32 = 2;

/// Urgent data.
pub const MSG_OOB: i32 = 0x1;
/// Look without taking.
pub const MSG_PEEK: i32 = 0x2;
/// Send on the own network only.
pub const MSG_DONTROUTE: i32 = 0x4;
/// Control data did not fit.
pub const MSG_CTRUNC: i32 = 0x8;
/// Probe a path (no effect on TCP).
pub const MSG_PROBE: i32 = 0x10;
/// Discard instead of copying (TCP); truncated (returned).
pub const MSG_TRUNC: i32 = 0x20;
/// Do not block in this call.
pub const MSG_DONTWAIT: i32 = 0x40;
/// End of record.
pub const MSG_EOR: i32 = 0x80;
/// Wait for the whole length.
pub const MSG_WAITALL: i32 = 0x100;
/// No effect on TCP.
pub const MSG_FIN: i32 = 0x200;
/// No effect on TCP.
pub const MSG_SYN: i32 = 0x400;
/// Confirm the neighbour.
pub const MSG_CONFIRM: i32 = 0x800;
/// No effect on TCP.
pub const MSG_RST: i32 = 0x1000;
/// Read the error queue.
pub const MSG_ERRQUEUE: i32 = 0x2000;
/// No `SIGPIPE`.
pub const MSG_NOSIGNAL: i32 = 0x4000;
/// More data follows at once.
pub const MSG_MORE: i32 = 0x8000;
/// `recvmmsg`: block for the first message only.
pub const MSG_WAITFORONE: i32 = 0x10000;
/// Kernel-internal, cleared when a program passes it (same bit as [`MSG_WAITFORONE`]).
pub const MSG_SENDPAGE_NOPOLICY: i32 = 0x10000;
/// `sendmmsg`: more messages follow.
pub const MSG_BATCH: i32 = 0x40000;
/// Kernel-internal, ignored.
pub const MSG_NO_SHARED_FRAGS: i32 = 0x80000;
/// Kernel-internal, cleared when a program passes it.
pub const MSG_SENDPAGE_DECRYPTED: i32 = 0x100000;
/// Receive device memory.
pub const MSG_SOCK_DEVMEM: i32 = 0x200_0000;
/// Send from the program's memory.
pub const MSG_ZEROCOPY: i32 = 0x400_0000;
/// Kernel-internal, cleared when a program passes it.
pub const MSG_SPLICE_PAGES: i32 = 0x800_0000;
/// Data in the SYN.
pub const MSG_FASTOPEN: i32 = 0x2000_0000;
/// Received descriptors are close-on-exec.
pub const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
/// Control messages of a 32-bit program.
pub const MSG_CMSG_COMPAT: i32 = i32::MIN;

/// Descriptors.
pub const SCM_RIGHTS: i32 = 1;
/// Credentials.
pub const SCM_CREDENTIALS: i32 = 2;
/// Security label.
pub const SCM_SECURITY: i32 = 3;
/// Pidfd.
pub const SCM_PIDFD: i32 = 4;
/// Receive time in microseconds.
pub const SCM_TIMESTAMP: i32 = SO_TIMESTAMP;
/// Receive time in nanoseconds.
pub const SCM_TIMESTAMPNS: i32 = SO_TIMESTAMPNS;
/// Three time stamps.
pub const SCM_TIMESTAMPING: i32 = SO_TIMESTAMPING;
/// Connection counters as netlink attributes.
pub const SCM_TIMESTAMPING_OPT_STATS: i32 = 54;
/// Device and length of the frame that a hardware stamp belongs to.
pub const SCM_TIMESTAMPING_PKTINFO: i32 = 58;
/// Transmit time, `u64` nanoseconds.
pub const SCM_TXTIME: i32 = SO_TXTIME;
/// Part of a dmabuf receive that lies in linear memory.
pub const SCM_DEVMEM_LINEAR: i32 = 78;
/// Id of a dmabuf binding, `u32`.
pub const SCM_DEVMEM_DMABUF: i32 = 79;
/// Key of a transmit stamp given by the caller (not for TCP).
pub const SCM_TS_OPT_ID: i32 = 81;

/// `struct linger`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Linger {
    /// Non-zero: linger.
    pub l_onoff: i32,
    /// Seconds.
    pub l_linger: i32,
}

/// `struct sock_txtime`, the value of [`SO_TXTIME`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SockTxtime {
    /// Clock that transmit times are on.
    pub clockid: i32,
    /// [`SOF_TXTIME_DEADLINE_MODE`], [`SOF_TXTIME_REPORT_ERRORS`].
    pub flags: u32,
}

/// Transmit times are deadlines.
pub const SOF_TXTIME_DEADLINE_MODE: u32 = 1;
/// Missed deadlines are reported on the error queue.
pub const SOF_TXTIME_REPORT_ERRORS: u32 = 2;
