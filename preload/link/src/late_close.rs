//! Packet sockets that end without their process.
//!
//! To close a packet socket takes the kernel an RCU grace period (Linux `packet_release`, `synchronize_net`): 10 to 30 ms
//! each, for which a process that ends would wait. A file that is registered with an io_uring is held by that as well, and
//! what a ring of a process that has ended held is closed by a worker of the kernel's.

use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::raw;
use once_cell::sync::OnceCell;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Files that one can hold.
const FILES: u32 = 40;

/// A file that is held.
#[derive(Clone, Copy, Debug)]
pub struct Held(u32);

/// Holds files until after the end of the last process that has it.
#[derive(Debug, Default)]
pub struct LateClose {
    /// Made with the first file; none where the kernel refuses rings.
    ring: OnceCell<Option<Fd>>,
    held: AtomicU32,
}

impl LateClose {
    fn open() -> Result<Fd, Errno> {
        // SAFETY: transparent over a structure of integers; all zero asks for nothing special.
        let mut params: io_uring::Parameters = unsafe { zeroed() };
        let ring = move_high(raw::io_uring_setup(1, &mut params)?)?;
        raw::io_uring_register_sparse(ring.as_raw_fd(), FILES)?;
        Ok(ring)
    }

    /// Holds the file of a descriptor. Beyond 40 of them, and where the kernel has no such rings, it is closed with its last
    /// descriptor, as ever.
    pub fn hold(&self, fd: RawFd) -> Held {
        let slot = self.held.fetch_add(1, Ordering::Relaxed);
        if let Some(ring) = self.ring.get_or_init(|| LateClose::open().ok())
            && slot < FILES
        {
            // A file less is one that is waited for.
            let _ = raw::io_uring_register_file(ring.as_raw_fd(), slot, fd);
        }
        Held(slot)
    }

    /// Lets a file go before: it is closed with its last descriptor.
    pub fn let_go(&self, held: Held) {
        const NONE: RawFd = -1;
        if let Some(Some(ring)) = self.ring.get()
            && held.0 < FILES
        {
            let _ = raw::io_uring_register_file(ring.as_raw_fd(), held.0, NONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Outq;
    use crate::outq::SocketOutq;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    /// A message on its way is charged to its sender until the receiver's file is gone.
    #[test]
    fn a_file_is_held_until_the_ring_goes() {
        let held = LateClose::default();
        let (a, b) = raw::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM).unwrap();
        held.hold(b.as_raw_fd());
        let sent = raw::send(a.as_raw_fd(), b"!", 0);
        assert_eq!(sent, Ok(1));
        let waiting = SocketOutq::new(Arc::new(a));
        drop(b);
        assert!(waiting.bytes() > 0, "nobody holds it");
        drop(held);
        gone(&waiting);
    }

    #[test]
    fn a_file_is_let_go_before_the_ring() {
        let held = LateClose::default();
        let (a, b) = raw::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM).unwrap();
        let file = held.hold(b.as_raw_fd());
        assert_eq!(raw::send(a.as_raw_fd(), b"!", 0), Ok(1));
        let waiting = SocketOutq::new(Arc::new(a));
        drop(b);
        assert!(waiting.bytes() > 0, "nobody holds it");
        held.let_go(file);
        gone(&waiting);
    }

    fn gone(waiting: &SocketOutq) {
        let patience = Instant::now() + Duration::from_secs(20);
        while waiting.bytes() > 0 {
            assert!(Instant::now() < patience, "it is held for ever");
            std::thread::yield_now();
        }
    }
}
