//! Queue ioctls: Linux's `tcp_ioctl` (RD-39..RD-43).

use sidewire_uapi::TcpState;
use sidewire_uapi::ioctl::{SIOCATMARK, SIOCINQ, SIOCOUTQ, SIOCOUTQNSD};

use crate::error::Error;
use crate::seq::before;
use crate::sock::TcpSock;
use crate::stack::{Io, SocketId, Stack};

/// Bytes that a plain read would find before the urgent mark (Linux `tcp_inq`); a FIN does not count.
#[must_use]
pub fn tcp_inq(sk: &TcpSock) -> u32 {
    if sk.in_state(&[TcpState::SynSent, TcpState::SynRecv]) {
        return 0;
    }
    let no_mark = sk.opts.oobinline
        || sk.urg_data == 0
        || before(sk.urg_seq, sk.copied_seq)
        || !before(sk.urg_seq, sk.rcv_nxt);
    if no_mark {
        let n = sk.rcv_nxt.wrapping_sub(sk.copied_seq);
        n - u32::from(n > 0 && sk.sock_done)
    } else {
        sk.urg_seq.wrapping_sub(sk.copied_seq)
    }
}

fn tcp_ioctl(sk: &TcpSock, cmd: u64) -> Result<u32, Error> {
    let listening = sk.state == TcpState::Listen;
    let handshake = sk.in_state(&[TcpState::SynSent, TcpState::SynRecv]);
    match cmd {
        SIOCATMARK => Ok(u32::from(sk.urg_data != 0 && sk.urg_seq == sk.copied_seq)),
        SIOCINQ | SIOCOUTQ | SIOCOUTQNSD if listening => Err(Error::Inval),
        SIOCINQ => Ok(tcp_inq(sk)),
        SIOCOUTQ | SIOCOUTQNSD if handshake => Ok(0),
        SIOCOUTQ => Ok(sk.write_seq.wrapping_sub(sk.snd_una)),
        SIOCOUTQNSD => Ok(sk.notsent_bytes()),
        _ => Err(Error::NoTty),
    }
}

impl Stack {
    /// An ioctl that answers an `int`.
    ///
    /// # Errors
    /// `Inval` in LISTEN, `NoTty` for requests that TCP does not know.
    pub fn ioctl_int(&mut self, io: &mut Io<'_>, id: SocketId, cmd: u32) -> Result<i32, Error> {
        let _ = io;
        let sk = self.socks.get(id).ok_or(Error::BadFd)?;
        tcp_ioctl(sk, cmd.into()).map(|n| n as i32)
    }
}
