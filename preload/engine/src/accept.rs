//! `listen` and `accept`.

use crate::calls::AcceptCall;
use crate::error::Error;
use crate::stack::{Io, SocketId, Stack, Step, StepResult};

impl Stack {
    /// `listen`: CLOSE to LISTEN, or another backlog. The caller has bound the socket.
    ///
    /// # Errors
    /// `Inval` in any other state; `AddrInUse` when a listener stands at the address.
    pub fn listen(&mut self, io: &mut Io<'_>, id: SocketId, backlog: i32) -> Result<(), Error> {
        let _ = (io, id, backlog);
        Err(Error::Inval)
    }

    /// `accept`: takes the oldest established child.
    ///
    /// # Errors
    /// `Inval` when the socket does not listen, `Again` when it may not wait, `Intr`.
    pub fn accept(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        nonblock: bool,
        call: &mut AcceptCall,
    ) -> StepResult<SocketId> {
        let _ = (io, id, nonblock, call);
        Step::Ready(Err(Error::Inval))
    }
}
