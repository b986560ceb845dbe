//! `setsockopt` and `getsockopt` (spec/sockopts.md).

use crate::error::Error;
use crate::opts::SockOpts;
use crate::stack::{Caps, Io, SocketId, Stack};

impl Stack {
    /// Sets an option. `val` is as long as the program said (`optlen`).
    ///
    /// # Errors
    /// By option: spec/sockopts.md; `NoProtoOpt` for what is not known.
    pub fn setsockopt(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        level: i32,
        name: i32,
        val: &[u8],
        caps: Caps,
    ) -> Result<(), Error> {
        let _ = (io, id, level, name, val, caps);
        Err(Error::NoProtoOpt)
    }

    /// Reads an option: at most `len` bytes to `out`; returns the new `optlen`.
    ///
    /// # Errors
    /// `Inval` for a negative length, `NoProtoOpt` or `OpNotSupp` for what is not known (SO-5..SO-7).
    pub fn getsockopt(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        level: i32,
        name: i32,
        len: i32,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let _ = (io, id, level, name, len, out);
        Err(Error::NoProtoOpt)
    }
}

/// The options of an accepted socket (SO-41): its listener's, but for those that Linux resets.
#[must_use]
pub fn inherit(parent: &SockOpts) -> SockOpts {
    SockOpts {
        priority: 0,
        fastopen_qlen: 0,
        ..parent.clone()
    }
}
