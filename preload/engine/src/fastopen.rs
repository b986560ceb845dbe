//! TCP Fast Open, RFC 7413 (`rows.toml` fastopen): what both sides share. [`client`] is MSG_FASTOPEN and
//! TCP_FASTOPEN_CONNECT, [`server`] the listener; cookies are among the [`crate::metrics`].

pub mod blackhole;
pub(crate) mod client;
pub(crate) mod server;

#[cfg(test)]
mod tests;

use core::net::SocketAddr;

use sidewire_wire::tcp_options::FastOpen;

use crate::calls::ConnectCall;
use crate::memory::Frag;
use crate::net::Tuple;
use crate::sendmsg::SendCall;
use crate::skb::UbufId;
use crate::sock::TcpSock;

pub use blackhole::Blackhole;

/// Bit of `net.ipv4.tcp_fastopen`: clients may.
pub const TFO_CLIENT_ENABLE: u32 = 1;
/// Listeners may.
pub const TFO_SERVER_ENABLE: u32 = 2;
/// Clients send data without a cookie.
pub const TFO_CLIENT_NO_COOKIE: u32 = 4;
/// Listeners take data without a cookie.
pub const TFO_SERVER_COOKIE_NOT_REQD: u32 = 0x200;
/// Every listener takes fast opens.
pub const TFO_SERVER_WO_SOCKOPT1: u32 = 0x400;
/// Bytes of one cookie key, and of a key with its predecessor (FO-49).
pub const KEY_LEN: usize = 16;
/// See [`KEY_LEN`].
pub const KEY_BUF_LEN: usize = 32;
/// Bytes of the cookies that we give out.
pub const COOKIE_LEN: usize = 8;
/// Option bytes kept free in a SYN with data (FO-21; Linux MAX_TCP_OPTION_SPACE).
pub const MAX_TCP_OPTION_SPACE: u32 = 40;

/// `tcpi_fastopen_client_fail` (FO-31).
pub mod client_fail {
    /// There was no cookie for this peer.
    pub const COOKIE_UNAVAILABLE: u8 = 1;
    /// The SYN's data was not acked.
    pub const DATA_NOT_ACKED: u8 = 2;
    /// The SYN had to be sent again.
    pub const SYN_RETRANSMITTED: u8 = 3;
}

/// A client's request in progress: Linux's `struct tcp_fastopen_request`.
#[derive(Debug, Default)]
pub struct FastopenReq {
    /// Bytes of the call.
    pub(crate) size: usize,
    /// They went into the SYN, all of them: the call has none left that wait for the connection.
    pub(crate) all_in_syn: bool,
    /// The option of the next SYN; none on its retransmissions.
    pub cookie: Option<FastOpen>,
    /// The program's first bytes, as many as a SYN could take.
    pub(crate) data: Option<Frag>,
    /// How many of them went into the SYN.
    pub(crate) copied: u32,
    /// The call's zerocopy object.
    pub(crate) uarg: Option<UbufId>,
}

/// How far the fast-open phase of a send came.
#[derive(Debug, Default)]
pub(crate) struct SendProgress {
    /// The connect that it is, once begun.
    connect: Option<ConnectCall>,
    /// Where to, when the call names it.
    remote: Option<SocketAddr>,
    /// Bytes taken from the program for the SYN.
    syn_taken: u32,
    /// The record of the call has what went into the SYN.
    pub(crate) traced: bool,
}

/// B5: is the fast-open phase to be run (FO-1)?
#[inline]
pub(crate) fn wanted(sk: &TcpSock, call: &SendCall<'_>) -> bool {
    (call.has(sidewire_uapi::socket::MSG_FASTOPEN) || sk.defer_connect) && !sk.repair.on
}

/// The cookie that a key gives the sender of a SYN (Linux `__tcp_fastopen_cookie_gen_cipher`). `tuple` is seen from the
/// listener.
pub(crate) fn cookie_of(key: &[u8; KEY_LEN], tuple: &Tuple) -> [u8; COOKIE_LEN] {
    use core::net::IpAddr;
    use siphasher::sip::SipHasher24;
    let hasher = SipHasher24::new_with_key(key);
    let hash = match (tuple.remote.ip(), tuple.local.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut path = [0; 8];
            path[..4].copy_from_slice(&src.octets());
            path[4..].copy_from_slice(&dst.octets());
            hasher.hash(&path)
        }
        (src, dst) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
                IpAddr::V6(a) => a.octets(),
            };
            let mut path = [0; 32];
            path[..16].copy_from_slice(&octets(src));
            path[16..].copy_from_slice(&octets(dst));
            hasher.hash(&path)
        }
    };
    hash.to_le_bytes()
}
