//! Names that scripts use for numbers.

use sidewire_uapi::{Errno, TcpState, ioctl, ip, poll, socket, tcp};

macro_rules! table {
    ($($module:ident: $($name:ident)*;)*) => {
        &[$($((stringify!($name), $module::$name as i64),)*)*]
    };
}

const TABLE: &[(&str, i64)] = table! {
    socket: AF_UNSPEC AF_INET AF_INET6 SOCK_STREAM SOCK_NONBLOCK SOCK_CLOEXEC IPPROTO_TCP
        SOL_SOCKET SOL_IP SOL_TCP SHUT_RD SHUT_WR SHUT_RDWR
        SO_DEBUG SO_REUSEADDR SO_TYPE SO_ERROR SO_SNDBUF SO_RCVBUF SO_KEEPALIVE SO_OOBINLINE
        SO_PRIORITY SO_LINGER SO_MAX_PACING_RATE SO_REUSEPORT SO_RCVLOWAT SO_SNDLOWAT SO_RCVTIMEO SO_SNDTIMEO
        SO_ACCEPTCONN SO_SNDBUFFORCE SO_RCVBUFFORCE SO_MARK SO_PROTOCOL SO_DOMAIN SO_PEEK_OFF
        SO_ZEROCOPY SO_TIMESTAMPING SO_BUF_LOCK
        MSG_OOB MSG_PEEK MSG_CTRUNC MSG_TRUNC MSG_DONTWAIT MSG_EOR MSG_WAITALL MSG_ERRQUEUE
        MSG_NOSIGNAL MSG_MORE MSG_ZEROCOPY MSG_FASTOPEN;
    tcp: TCP_NODELAY TCP_MAXSEG TCP_CORK TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_SYNCNT
        TCP_LINGER2 TCP_DEFER_ACCEPT TCP_WINDOW_CLAMP TCP_INFO TCP_QUICKACK TCP_CONGESTION
        TCP_USER_TIMEOUT TCP_REPAIR TCP_REPAIR_QUEUE TCP_QUEUE_SEQ TCP_FASTOPEN TCP_TIMESTAMP
        TCP_NOTSENT_LOWAT TCP_SAVE_SYN TCP_FASTOPEN_CONNECT TCP_INQ TCP_RTO_MAX_MS TCP_RTO_MIN_US
        TCP_DELACK_MAX_US;
    ioctl: FIONREAD SIOCINQ SIOCOUTQ SIOCOUTQNSD SIOCATMARK FIONBIO;
    ip: IP_TOS IP_TTL IP_MTU_DISCOVER IP_RECVERR IP_MTU;
    poll: POLLIN POLLPRI POLLOUT POLLERR POLLHUP POLLNVAL POLLRDNORM POLLWRNORM POLLRDHUP;
};

/// Names without a constant of their own in uapi.
const OTHERS: &[(&str, i64)] = &[
    ("INADDR_ANY", 0),
    ("IPPROTO_IP", 0),
    ("O_RDONLY", 0),
    ("O_WRONLY", 1),
    ("O_RDWR", 2),
    ("O_NONBLOCK", 0o4000),
    ("F_GETFL", 3),
    ("F_SETFL", 4),
    ("TCP_ESTABLISHED", TcpState::Established as i64),
    ("TCP_SYN_SENT", TcpState::SynSent as i64),
    ("TCP_SYN_RECV", TcpState::SynRecv as i64),
    ("TCP_FIN_WAIT1", TcpState::FinWait1 as i64),
    ("TCP_FIN_WAIT2", TcpState::FinWait2 as i64),
    ("TCP_TIME_WAIT", TcpState::TimeWait as i64),
    ("TCP_CLOSE", TcpState::Close as i64),
    ("TCP_CLOSE_WAIT", TcpState::CloseWait as i64),
    ("TCP_LAST_ACK", TcpState::LastAck as i64),
    ("TCP_LISTEN", TcpState::Listen as i64),
    ("TCP_CLOSING", TcpState::Closing as i64),
    ("TCP_CA_Open", tcp::ca_state::OPEN as i64),
    ("TCP_CA_Disorder", tcp::ca_state::DISORDER as i64),
    ("TCP_CA_CWR", tcp::ca_state::CWR as i64),
    ("TCP_CA_Recovery", tcp::ca_state::RECOVERY as i64),
    ("TCP_CA_Loss", tcp::ca_state::LOSS as i64),
    ("TCPI_OPT_TIMESTAMPS", tcp::info_options::TIMESTAMPS as i64),
    ("TCPI_OPT_SACK", tcp::info_options::SACK as i64),
    ("TCPI_OPT_WSCALE", tcp::info_options::WSCALE as i64),
];

/// The number of that name.
#[must_use]
pub fn lookup(name: &str) -> Option<i64> {
    let errno = || Errno::from_name(name).map(|errno| i64::from(errno.0));
    TABLE
        .iter()
        .chain(OTHERS)
        .find(|(n, _)| *n == name)
        .map(|(_, v)| *v)
        .or_else(errno)
}
