//! What waits behind a socket (SIOCOUTQ).

use crate::fd::Fd;
use crate::frame::Outq;
use crate::raw;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// What a socket's send buffer is charged with.
#[derive(Clone, Debug)]
pub struct SocketOutq(Arc<Fd>);

impl SocketOutq {
    pub(crate) fn new(fd: Arc<Fd>) -> SocketOutq {
        SocketOutq(fd)
    }
}

impl Outq for SocketOutq {
    fn bytes(&self) -> usize {
        raw::unsent(self.0.as_raw_fd()).unwrap_or(0)
    }
}
