//! `shutdown`, `close`, and harder ends.

use crate::calls::CloseCall;
use crate::error::Error;
use crate::stack::{Io, SocketId, Stack, Step};

impl Stack {
    /// `shutdown`.
    ///
    /// # Errors
    /// `Inval` for another `how` than SHUT_RD, SHUT_WR, SHUT_RDWR; `NotConn` (spec/errors.md ER-1 to ER-11).
    pub fn shutdown(&mut self, io: &mut Io<'_>, id: SocketId, how: i32) -> Result<(), Error> {
        let _ = (io, id, how);
        Err(Error::NotConn)
    }

    /// The last `close`. Afterwards the id belongs to the engine, which ends the connection in the background. With
    /// SO_LINGER on it waits, also when `nonblock` (spec/errors.md ER-74).
    pub fn close(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        nonblock: bool,
        call: &mut CloseCall,
    ) -> Step<()> {
        let _ = (io, id, nonblock, call);
        Step::Ready(())
    }

    /// Ends the connection at once: RST where the peer has to know, and the socket is gone.
    pub fn abort(&mut self, io: &mut Io<'_>, id: SocketId) {
        let _ = (io, id);
    }
}
