//! What can go wrong in a call, and the one place where it becomes an `errno`.

use serde::{Deserialize, Serialize};
use sidewire_uapi::errno::Errno;

/// The failure of a call, or a socket's pending `sk_err`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // each is the errno of its name; spec/errors.md says when
pub enum Error {
    Again,
    InProgress,
    Already,
    IsConn,
    NotConn,
    Pipe,
    ConnReset,
    ConnRefused,
    ConnAborted,
    TimedOut,
    HostUnreach,
    NetUnreach,
    AddrInUse,
    AddrNotAvail,
    AfNoSupport,
    Inval,
    Fault,
    Perm,
    Access,
    NoBufs,
    NoMem,
    OpNotSupp,
    NoProtoOpt,
    NoTty,
    Domain,
    NoEnt,
    NoDev,
    FBig,
    Busy,
    MsgSize,
    NoMsg,
    BadFd,
    Intr,
    Proto,
    DestAddrReq,
    NetDown,
    HostDown,
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
            Self::NetDown,
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
            Self::Busy => Errno::EBUSY,
            Self::MsgSize => Errno::EMSGSIZE,
            Self::NoMsg => Errno::ENOMSG,
            Self::BadFd => Errno::EBADF,
            Self::Intr => Errno::EINTR,
            Self::Proto => Errno::EPROTO,
            Self::DestAddrReq => Errno::EDESTADDRREQ,
            Self::NetDown => Errno::ENETDOWN,
            Self::HostDown => Errno::EHOSTDOWN,
            Self::NoNet => Errno::ENONET,
        }
    }
}
