//! What can go wrong in a call, and the one place where it becomes an `errno`.

use serde::{Deserialize, Serialize};
use sidewire_uapi::errno::Errno;

/// The failure of a call, or a socket's pending `sk_err`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Error {
    /// EAGAIN: it would wait, and may not; or SO_RCVTIMEO, SO_SNDTIMEO ran out.
    Again,
    /// EINPROGRESS: the connect has begun and goes on without the caller.
    InProgress,
    /// EALREADY: an earlier connect is not over yet.
    Already,
    /// EISCONN: connected already, or listening.
    IsConn,
    /// ENOTCONN: there is no connection.
    NotConn,
    /// EPIPE: shut down for sending; also a reset in CLOSE_WAIT, and a disconnect under a sleeper.
    Pipe,
    /// ECONNRESET: the peer, or our own disconnect, reset the connection.
    ConnReset,
    /// ECONNREFUSED: the SYN was answered by a reset or by ICMP "port unreachable".
    ConnRefused,
    /// ECONNABORTED: the attempt is over and left no error of its own; or repair dissolved the connection (RP-36).
    ConnAborted,
    /// ETIMEDOUT: the peer does not answer (retries, keepalive, TCP_USER_TIMEOUT).
    TimedOut,
    /// EHOSTUNREACH: no answer from the neighbour, or ICMP "host unreachable", "time exceeded".
    HostUnreach,
    /// ENETUNREACH: no route, or ICMP "net unreachable".
    NetUnreach,
    /// EADDRINUSE: somebody else listens there.
    AddrInUse,
    /// EADDRNOTAVAIL: the tuple is another connection's, or no address or port is free for it.
    AddrNotAvail,
    /// EAFNOSUPPORT: an address of another family than the socket's.
    AfNoSupport,
    /// EINVAL: an argument out of its range, or a call that this state does not allow.
    Inval,
    /// EFAULT: the program's memory cannot be read or written.
    Fault,
    /// EPERM: a capability is missing, or the socket's state forbids it.
    Perm,
    /// EACCES: SO_DEBUG without CAP_NET_ADMIN, a "prohibit" route, or ICMPv6 "administratively prohibited".
    Access,
    /// ENOBUFS: the receive queue (repair) or the zerocopy notifications (`optmem_max`, RLIMIT_MEMLOCK) are at their bound.
    NoBufs,
    /// ENOMEM: no memory for a buffer.
    NoMem,
    /// EOPNOTSUPP: TCP, or this setting of it, does not do that; also ICMP "source route failed".
    OpNotSupp,
    /// ENOPROTOOPT: no such option; also ICMP "protocol unreachable".
    NoProtoOpt,
    /// ENOTTY: no such ioctl.
    NoTty,
    /// EDOM: microseconds of a timeout outside of 0 to 999999.
    Domain,
    /// ENOENT: no congestion control or upper layer protocol of that name.
    NoEnt,
    /// ENODEV: the device is gone, or is not the one that a dma-buf is bound to.
    NoDev,
    /// EFBIG: a window scale above 14 in TCP_REPAIR_OPTIONS.
    FBig,
    /// EMSGSIZE: more than UIO_MAXIOV pieces in a message.
    MsgSize,
    /// EBADF: no such socket.
    BadFd,
    /// EINTR: a signal ended the sleep.
    Intr,
    /// EPROTO: ICMP "parameter problem".
    Proto,
    /// EHOSTDOWN: ICMP "host unknown".
    HostDown,
    /// ENONET: ICMP "source host isolated".
    NoNet,
}

impl Error {
    /// What a receive can fail with, by its Linux number.
    #[must_use]
    pub fn of_receive(errno: i32) -> Option<Self> {
        let all = [
            Self::NotConn,
            Self::Pipe,
            Self::ConnReset,
            Self::ConnRefused,
            Self::TimedOut,
            Self::HostUnreach,
            Self::NetUnreach,
            Self::Proto,
            Self::Inval,
            Self::Fault,
            Self::Perm,
            Self::MsgSize,
        ];
        all.into_iter().find(|e| e.errno().0 == errno)
    }

    /// The Linux number of this failure.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Again => Errno::EAGAIN,
            Self::InProgress => Errno::EINPROGRESS,
            Self::Already => Errno::EALREADY,
            Self::IsConn => Errno::EISCONN,
            Self::NotConn => Errno::ENOTCONN,
            Self::Pipe => Errno::EPIPE,
            Self::ConnReset => Errno::ECONNRESET,
            Self::ConnRefused => Errno::ECONNREFUSED,
            Self::ConnAborted => Errno::ECONNABORTED,
            Self::TimedOut => Errno::ETIMEDOUT,
            Self::HostUnreach => Errno::EHOSTUNREACH,
            Self::NetUnreach => Errno::ENETUNREACH,
            Self::AddrInUse => Errno::EADDRINUSE,
            Self::AddrNotAvail => Errno::EADDRNOTAVAIL,
            Self::AfNoSupport => Errno::EAFNOSUPPORT,
            Self::Inval => Errno::EINVAL,
            Self::Fault => Errno::EFAULT,
            Self::Perm => Errno::EPERM,
            Self::Access => Errno::EACCES,
            Self::NoBufs => Errno::ENOBUFS,
            Self::NoMem => Errno::ENOMEM,
            Self::OpNotSupp => Errno::EOPNOTSUPP,
            Self::NoProtoOpt => Errno::ENOPROTOOPT,
            Self::NoTty => Errno::ENOTTY,
            Self::Domain => Errno::EDOM,
            Self::NoEnt => Errno::ENOENT,
            Self::NoDev => Errno::ENODEV,
            Self::FBig => Errno::EFBIG,
            Self::MsgSize => Errno::EMSGSIZE,
            Self::BadFd => Errno::EBADF,
            Self::Intr => Errno::EINTR,
            Self::Proto => Errno::EPROTO,
            Self::HostDown => Errno::EHOSTDOWN,
            Self::NoNet => Errno::ENONET,
        }
    }
}
