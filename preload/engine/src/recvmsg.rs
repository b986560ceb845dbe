//! `recvmsg`: Linux's `tcp_recvmsg_locked` (spec/recv-path.md R1 to R8).

use crate::calls::RecvCall;
use crate::error::Error;
use crate::memory::IovIter;
use crate::stack::{Io, SocketId, Stack, Step, StepResult};

impl Stack {
    /// `recvmsg` without MSG_ERRQUEUE, which is [`Stack::recv_errqueue`]'s. Flags and control messages to hand out are
    /// left in `call`.
    ///
    /// # Errors
    /// As recv(2); `Intr` when `call.signal` is set and nothing was copied.
    pub fn recvmsg(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut RecvCall,
        iter: &mut dyn IovIter,
    ) -> StepResult<usize> {
        let _ = (io, id, call, iter);
        Step::Ready(Err(Error::NotConn))
    }
}
