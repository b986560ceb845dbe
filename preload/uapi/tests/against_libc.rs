//! The constants and layouts against the `libc` crate, wherever it has them (compared as 32 bits).

macro_rules! same {
    ($module:ident: $($name:ident)*) => {
        $(assert_eq!(
            sidewire_uapi::$module::$name as i64 as u32,
            libc::$name as i64 as u32,
            stringify!($name),
        );)*
    };
}

#[test]
fn socket_numbers() {
    same!(socket:
        AF_UNSPEC
        AF_UNIX
        AF_INET
        AF_INET6
        AF_PACKET
        SOCK_STREAM
        SOCK_DGRAM
        SOCK_RAW
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        IPPROTO_ICMP
        IPPROTO_TCP
        IPPROTO_ICMPV6
        SOL_SOCKET
        SOL_IP
        SOL_TCP
        SOL_IPV6
        SOL_PACKET
        SHUT_RD
        SHUT_WR
        SHUT_RDWR
        SOMAXCONN
        UIO_MAXIOV
        SO_DEBUG
        SO_REUSEADDR
        SO_TYPE
        SO_ERROR
        SO_DONTROUTE
        SO_BROADCAST
        SO_SNDBUF
        SO_RCVBUF
        SO_KEEPALIVE
        SO_OOBINLINE
        SO_NO_CHECK
        SO_PRIORITY
        SO_LINGER
        SO_BSDCOMPAT
        SO_REUSEPORT
        SO_PASSCRED
        SO_PEERCRED
        SO_RCVLOWAT
        SO_SNDLOWAT
        SO_RCVTIMEO
        SO_SNDTIMEO
        SO_BINDTODEVICE
        SO_ATTACH_FILTER
        SO_DETACH_FILTER
        SO_PEERNAME
        SO_TIMESTAMP
        SO_ACCEPTCONN
        SO_PEERSEC
        SO_SNDBUFFORCE
        SO_RCVBUFFORCE
        SO_PASSSEC
        SO_TIMESTAMPNS
        SO_MARK
        SO_TIMESTAMPING
        SO_PROTOCOL
        SO_DOMAIN
        SO_RXQ_OVFL
        SO_PEEK_OFF
        SO_LOCK_FILTER
        SO_BUSY_POLL
        SO_MAX_PACING_RATE
        SO_INCOMING_CPU
        SO_ATTACH_BPF
        SO_ATTACH_REUSEPORT_CBPF
        SO_ATTACH_REUSEPORT_EBPF
        SO_MEMINFO
        SO_INCOMING_NAPI_ID
        SO_COOKIE
        SO_ZEROCOPY
        SO_TXTIME
        SO_BINDTOIFINDEX
        SO_TIMESTAMP_NEW
        SO_TIMESTAMPNS_NEW
        SO_TIMESTAMPING_NEW
        SO_RCVTIMEO_NEW
        SO_SNDTIMEO_NEW
        SO_PREFER_BUSY_POLL
        SO_BUSY_POLL_BUDGET
        SO_NETNS_COOKIE
        SO_BUF_LOCK
        SO_RESERVE_MEM
        SO_TXREHASH
        SO_RCVMARK
        SO_PASSPIDFD
        SO_PEERPIDFD
        SO_DEVMEM_DONTNEED
        MSG_OOB
        MSG_PEEK
        MSG_DONTROUTE
        MSG_CTRUNC
        MSG_TRUNC
        MSG_DONTWAIT
        MSG_EOR
        MSG_WAITALL
        MSG_FIN
        MSG_SYN
        MSG_CONFIRM
        MSG_RST
        MSG_ERRQUEUE
        MSG_NOSIGNAL
        MSG_MORE
        MSG_WAITFORONE
        MSG_ZEROCOPY
        MSG_FASTOPEN
        MSG_CMSG_CLOEXEC
        SCM_RIGHTS
        SCM_CREDENTIALS
        SCM_TIMESTAMP
        SCM_TIMESTAMPNS
        SCM_TIMESTAMPING
        SCM_TIMESTAMPING_OPT_STATS
        SCM_TIMESTAMPING_PKTINFO
        SCM_TXTIME
        SCM_DEVMEM_LINEAR
        SCM_DEVMEM_DMABUF
        SOF_TXTIME_DEADLINE_MODE
        SOF_TXTIME_REPORT_ERRORS
    );
}

#[test]
fn tcp_numbers() {
    same!(tcp:
        TCP_NODELAY
        TCP_MAXSEG
        TCP_CORK
        TCP_KEEPIDLE
        TCP_KEEPINTVL
        TCP_KEEPCNT
        TCP_SYNCNT
        TCP_LINGER2
        TCP_DEFER_ACCEPT
        TCP_WINDOW_CLAMP
        TCP_INFO
        TCP_QUICKACK
        TCP_CONGESTION
        TCP_MD5SIG
        TCP_THIN_LINEAR_TIMEOUTS
        TCP_THIN_DUPACK
        TCP_USER_TIMEOUT
        TCP_REPAIR
        TCP_REPAIR_QUEUE
        TCP_QUEUE_SEQ
        TCP_REPAIR_OPTIONS
        TCP_FASTOPEN
        TCP_TIMESTAMP
        TCP_NOTSENT_LOWAT
        TCP_CC_INFO
        TCP_SAVE_SYN
        TCP_SAVED_SYN
        TCP_REPAIR_WINDOW
        TCP_FASTOPEN_CONNECT
        TCP_ULP
        TCP_MD5SIG_EXT
        TCP_FASTOPEN_KEY
        TCP_FASTOPEN_NO_COOKIE
        TCP_ZEROCOPY_RECEIVE
        TCP_INQ
        TCP_CM_INQ
    );
}

#[test]
fn errqueue_numbers() {
    same!(errqueue:
        SO_EE_ORIGIN_NONE
        SO_EE_ORIGIN_LOCAL
        SO_EE_ORIGIN_ICMP
        SO_EE_ORIGIN_ICMP6
        SO_EE_ORIGIN_TXSTATUS
        SO_EE_ORIGIN_TIMESTAMPING
    );
}

#[test]
fn timestamping_numbers() {
    same!(timestamping:
        SOF_TIMESTAMPING_TX_HARDWARE
        SOF_TIMESTAMPING_TX_SOFTWARE
        SOF_TIMESTAMPING_RX_HARDWARE
        SOF_TIMESTAMPING_RX_SOFTWARE
        SOF_TIMESTAMPING_SOFTWARE
        SOF_TIMESTAMPING_SYS_HARDWARE
        SOF_TIMESTAMPING_RAW_HARDWARE
        SOF_TIMESTAMPING_OPT_ID
        SOF_TIMESTAMPING_TX_SCHED
        SOF_TIMESTAMPING_TX_ACK
        SOF_TIMESTAMPING_OPT_CMSG
        SOF_TIMESTAMPING_OPT_TSONLY
        SOF_TIMESTAMPING_OPT_STATS
        SOF_TIMESTAMPING_OPT_PKTINFO
        SOF_TIMESTAMPING_OPT_TX_SWHW
        SOF_TIMESTAMPING_BIND_PHC
        SOF_TIMESTAMPING_OPT_ID_TCP
        SOF_TIMESTAMPING_OPT_RX_FILTER
    );
}

#[test]
fn ioctl_numbers() {
    same!(ioctl:
        FIONREAD
        TIOCOUTQ
        SIOCOUTQNSD
        FIONBIO
        FIOASYNC
        FIOCLEX
        FIONCLEX
    );
}

#[test]
fn poll_numbers() {
    same!(poll:
        POLLIN
        POLLPRI
        POLLOUT
        POLLERR
        POLLHUP
        POLLNVAL
        POLLRDNORM
        POLLRDBAND
        POLLWRNORM
        POLLWRBAND
        POLLRDHUP
        EPOLLEXCLUSIVE
        EPOLLWAKEUP
        EPOLLONESHOT
        EPOLLET
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
    );
}

#[test]
fn ip_numbers() {
    same!(ip:
        IP_TOS
        IP_TTL
        IP_HDRINCL
        IP_OPTIONS
        IP_PKTINFO
        IP_MTU_DISCOVER
        IP_RECVERR
        IP_RECVTTL
        IP_RECVTOS
        IP_MTU
        IP_FREEBIND
        IP_TRANSPARENT
        IP_MINTTL
        IP_BIND_ADDRESS_NO_PORT
        IP_PMTUDISC_DONT
        IP_PMTUDISC_WANT
        IP_PMTUDISC_DO
        IP_PMTUDISC_PROBE
        IPDEFTTL
        IPV6_UNICAST_HOPS
        IPV6_MTU_DISCOVER
        IPV6_MTU
        IPV6_RECVERR
        IPV6_V6ONLY
        IPV6_TCLASS
        IPV6_MINHOPCOUNT
    );
}

#[test]
fn errno_numbers() {
    use sidewire_uapi::Errno;
    macro_rules! same_errno {
        ($($name:ident)*) => {
            $(assert_eq!(Errno::$name.0, libc::$name, stringify!($name));)*
        };
    }
    same_errno!(
        EPERM
        ENOENT
        EINTR
        EIO
        EBADF
        EAGAIN
        ENOMEM
        EACCES
        EFAULT
        EBUSY
        EEXIST
        ENODEV
        EINVAL
        ENFILE
        EMFILE
        ENOTTY
        EFBIG
        ESPIPE
        EPIPE
        EDOM
        ENOSYS
        ENOMSG
        ENONET
        EPROTO
        EOVERFLOW
        ENOTSOCK
        EDESTADDRREQ
        EMSGSIZE
        EPROTOTYPE
        ENOPROTOOPT
        EPROTONOSUPPORT
        ESOCKTNOSUPPORT
        EOPNOTSUPP
        EPFNOSUPPORT
        EAFNOSUPPORT
        EADDRINUSE
        EADDRNOTAVAIL
        ENETDOWN
        ENETUNREACH
        ENETRESET
        ECONNABORTED
        ECONNRESET
        ENOBUFS
        EISCONN
        ENOTCONN
        ESHUTDOWN
        ETOOMANYREFS
        ETIMEDOUT
        ECONNREFUSED
        EHOSTDOWN
        EHOSTUNREACH
        EALREADY
        EINPROGRESS
        ECANCELED
        EWOULDBLOCK
    );
}

#[test]
fn layouts() {
    use core::mem::{offset_of, size_of};
    use sidewire_uapi::{errqueue, socket, tcp};

    assert_eq!(size_of::<socket::Linger>(), size_of::<libc::linger>());
    assert_eq!(
        size_of::<errqueue::SockExtendedErr>(),
        size_of::<libc::sock_extended_err>()
    );
    macro_rules! same_offset {
        ($($field:ident)*) => {
            $(assert_eq!(
                offset_of!(tcp::TcpInfo, $field),
                offset_of!(libc::tcp_info, $field),
                stringify!($field),
            );)*
        };
    }
    same_offset!(
        tcpi_state tcpi_ca_state tcpi_retransmits tcpi_probes tcpi_backoff tcpi_options tcpi_rto
        tcpi_ato tcpi_snd_mss tcpi_rcv_mss tcpi_unacked tcpi_sacked tcpi_lost tcpi_retrans
        tcpi_fackets tcpi_last_data_sent tcpi_last_ack_sent tcpi_last_data_recv tcpi_last_ack_recv
        tcpi_pmtu tcpi_rcv_ssthresh tcpi_rtt tcpi_rttvar tcpi_snd_ssthresh tcpi_snd_cwnd
        tcpi_advmss tcpi_reordering tcpi_rcv_rtt tcpi_rcv_space tcpi_total_retrans
    );
}

/// Offsets that no header on the build machine is sure to have (spec SO-91 to SO-99).
#[test]
fn tcp_info_tail_offsets() {
    use core::mem::offset_of;
    use sidewire_uapi::tcp::TcpInfo;

    let offsets = [
        (offset_of!(TcpInfo, tcpi_pacing_rate), 104),
        (offset_of!(TcpInfo, tcpi_max_pacing_rate), 112),
        (offset_of!(TcpInfo, tcpi_bytes_acked), 120),
        (offset_of!(TcpInfo, tcpi_bytes_received), 128),
        (offset_of!(TcpInfo, tcpi_segs_out), 136),
        (offset_of!(TcpInfo, tcpi_min_rtt), 148),
        (offset_of!(TcpInfo, tcpi_data_segs_in), 152),
        (offset_of!(TcpInfo, tcpi_delivery_rate), 160),
        (offset_of!(TcpInfo, tcpi_sndbuf_limited), 184),
        (offset_of!(TcpInfo, tcpi_delivered), 192),
        (offset_of!(TcpInfo, tcpi_bytes_sent), 200),
        (offset_of!(TcpInfo, tcpi_bytes_retrans), 208),
        (offset_of!(TcpInfo, tcpi_dsack_dups), 216),
        (offset_of!(TcpInfo, tcpi_snd_wnd), 228),
        (offset_of!(TcpInfo, tcpi_rcv_wnd), 232),
        (offset_of!(TcpInfo, tcpi_rehash), 236),
        (offset_of!(TcpInfo, tcpi_total_rto), 240),
        (offset_of!(TcpInfo, tcpi_total_rto_recoveries), 242),
        (offset_of!(TcpInfo, tcpi_total_rto_time), 244),
    ];
    for (at, expected) in offsets {
        assert_eq!(at, expected);
    }
}

#[test]
fn tcp_info_bytes_follow_the_layout() {
    use core::mem::offset_of;
    use sidewire_uapi::tcp::TcpInfo;

    let info = TcpInfo {
        tcpi_state: 1,
        tcpi_rto: 204_000,
        tcpi_total_retrans: 3,
        tcpi_bytes_acked: 1 << 40,
        tcpi_min_rtt: 17,
        tcpi_delivery_rate: 1 << 33,
        tcpi_bytes_sent: 1 << 34,
        tcpi_snd_wnd: 65_535,
        tcpi_total_rto: 5,
        tcpi_total_rto_time: 0x0102_0304,
        ..TcpInfo::default()
    };
    let bytes = info.to_bytes();
    let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes[0], 1);
    assert_eq!(u32_at(offset_of!(TcpInfo, tcpi_rto)), 204_000);
    assert_eq!(u32_at(offset_of!(TcpInfo, tcpi_total_retrans)), 3);
    assert_eq!(u64_at(offset_of!(TcpInfo, tcpi_bytes_acked)), 1 << 40);
    assert_eq!(u32_at(offset_of!(TcpInfo, tcpi_min_rtt)), 17);
    assert_eq!(u64_at(offset_of!(TcpInfo, tcpi_delivery_rate)), 1 << 33);
    assert_eq!(u64_at(offset_of!(TcpInfo, tcpi_bytes_sent)), 1 << 34);
    assert_eq!(u32_at(offset_of!(TcpInfo, tcpi_snd_wnd)), 65_535);
    assert_eq!(bytes[240], 5u16.to_ne_bytes()[0]);
    assert_eq!(u32_at(244), 0x0102_0304);
}

#[test]
fn states_have_linux_numbers() {
    use sidewire_uapi::TcpState;

    assert_eq!(TcpState::from_number(0), None);
    assert_eq!(TcpState::from_number(13), None);
    for number in 1..=12 {
        assert_eq!(TcpState::from_number(number).map(|s| s as u8), Some(number));
    }
    assert_eq!(TcpState::Listen as u8, 10);
    assert!(TcpState::Close.is_in(TcpState::Close.bit() | TcpState::Listen.bit()));
    assert!(!TcpState::Close.is_in(TcpState::Listen.bit()));
}

#[test]
fn errno_prints_its_name() {
    use sidewire_uapi::Errno;

    assert_eq!(Errno::EPIPE.to_string(), "EPIPE (Broken pipe)");
    assert_eq!(Errno(4095).to_string(), "errno 4095");
    assert_eq!(Errno::from_name("ECONNRESET"), Some(Errno::ECONNRESET));
    assert_eq!(Errno::from_name("EWOULDBLOCK"), Some(Errno::EAGAIN));
    assert_eq!(Errno::from_name("ENONSENSE"), None);
}
