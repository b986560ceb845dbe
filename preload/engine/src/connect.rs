//! `connect` and its undoing.

use core::net::SocketAddr;

use crate::calls::ConnectCall;
use crate::error::Error;
use crate::stack::{Io, SocketId, Stack, Step, StepResult};

impl Stack {
    /// True when `connect` would start an attempt: the caller then checks the address, binds the shadow and takes a
    /// holder first. When false, `connect` answers by the socket's state alone and the address does not matter
    /// (spec/errors.md ER-22).
    #[must_use]
    pub fn connect_is_fresh(&self, id: SocketId) -> bool {
        let _ = id;
        true
    }

    /// `connect` (spec/errors.md ER-22 to ER-43), for a socket whose local address and port are known ([`Stack::bound`],
    /// [`Stack::autobound`]). When an attempt was started, [`Stack::take_released`] tells when its holder may go; when it
    /// fails with the state still CLOSE and was never started, the caller drops the holder itself.
    ///
    /// # Errors
    /// As connect(2).
    pub fn connect(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        remote: SocketAddr,
        nonblock: bool,
        call: &mut ConnectCall,
    ) -> StepResult<()> {
        let _ = (io, id, remote, nonblock, call);
        Step::Ready(Err(Error::NetUnreach))
    }

    /// `connect` to AF_UNSPEC: dissolves whatever the socket is (spec/errors.md ER-20, ER-25).
    pub fn disconnect(&mut self, io: &mut Io<'_>, id: SocketId) {
        let _ = (io, id);
    }
}
