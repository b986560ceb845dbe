//! TCP Fast Open, RFC 7413 (spec/fastopen.md).

use sidewire_uapi::socket::MSG_FASTOPEN;

use crate::error::Error;
use crate::memory::IovIter;
use crate::sendmsg::{Exit, SendCall};
use crate::sock::TcpSock;
use crate::stack::{Io, SocketId, Stack};

/// Bit of `net.ipv4.tcp_fastopen`: clients may.
pub const TFO_CLIENT_ENABLE: u32 = 1;
/// Bytes of one cookie key, and of a key with its predecessor (FO-49).
pub const KEY_LEN: usize = 16;
/// See [`KEY_LEN`].
pub const KEY_BUF_LEN: usize = 32;

/// A client's request in progress: Linux's `struct tcp_fastopen_request`.
#[derive(Debug, Default)]
pub struct FastopenReq {}

/// Cookies and MSS remembered per destination: Linux's tcp_metrics.
#[derive(Debug, Default)]
pub struct MetricsCache {}

/// How far the fast-open phase of a send came.
#[derive(Debug, Default)]
pub(crate) struct SendProgress {}

/// B5: is the fast-open phase to be run?
pub(crate) fn wanted(sk: &TcpSock, call: &SendCall<'_>) -> bool {
    (call.has(MSG_FASTOPEN) || sk.defer_connect) && !sk.repair.on
}

impl Stack {
    /// B5 (Linux `tcp_sendmsg_fastopen`).
    pub(crate) fn tcp_sendmsg_fastopen(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut SendCall<'_>,
        iter: &mut dyn IovIter,
    ) -> Result<(), Exit> {
        let _ = (io, id, call, iter);
        Err(Exit::OutErr(Error::OpNotSupp))
    }
}
