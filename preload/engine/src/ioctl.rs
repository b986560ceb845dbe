//! Queue ioctls: Linux's `tcp_ioctl` (spec/readiness.md RD-39..RD-43).

use crate::error::Error;
use crate::stack::{Io, SocketId, Stack};

impl Stack {
    /// An ioctl that answers an `int`.
    ///
    /// # Errors
    /// `Inval` in LISTEN, `NoTty` for requests that TCP does not know.
    pub fn ioctl_int(&mut self, io: &mut Io<'_>, id: SocketId, cmd: u32) -> Result<i32, Error> {
        let _ = (io, id, cmd);
        Err(Error::NoTty)
    }
}
