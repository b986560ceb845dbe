//! Sockets that a vfork child passes on: to a descriptor that the program which it becomes finds by its number, or by
//! inheritance. The child has its parent's memory, but descriptors of its own, so that it cannot open and close the parent's:
//! it waits while the parent's pump gives the socket to the kernel. The child's descriptor is of the same kernel's socket.

use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use sidewire_engine::time::NSEC_PER_SEC;

use crate::lock::Mutex;
use crate::stack::monotonic_ns;
use crate::{fdtable, process, syscall};

/// No descriptor is asked for.
const NONE: c_int = -1;
/// How long a child waits for the pump, in nanoseconds.
const PATIENCE: u64 = NSEC_PER_SEC;

/// Children of several threads ask one after the other.
static ASKS: Mutex<()> = Mutex::new(());
/// The descriptor that the pump is asked for.
static WANTED: AtomicI32 = AtomicI32::new(NONE);
/// Counts answers.
static ANSWERS: AtomicU32 = AtomicU32::new(0);

/// In a vfork child: the socket behind this number of the parent's becomes the kernel's, if it is one of ours.
pub(crate) fn pass_on(fd: c_int) {
    let Some(file) = fdtable::get(fd) else {
        return;
    };
    let driver = &file.stack().driver;
    if driver.no_pump.load(Ordering::Relaxed) {
        return;
    }
    let _asks = ASKS.lock();
    let before = ANSWERS.load(Ordering::SeqCst);
    WANTED.store(fd, Ordering::SeqCst);
    driver.kick_pump();
    let until = monotonic_ns() + PATIENCE;
    while ANSWERS.load(Ordering::SeqCst) == before && monotonic_ns() < until {
        let _ = syscall::futex_wait(&ANSWERS, before, until);
    }
    WANTED.store(NONE, Ordering::SeqCst);
}

/// In a vfork child that becomes another program, which inherits what is not closed.
pub(crate) fn pass_on_inherited() {
    fdtable::for_each(|fd| {
        let inherited =
            syscall::fcntl(fd, libc::F_GETFD, 0).is_ok_and(|f| f & libc::FD_CLOEXEC == 0);
        if inherited {
            pass_on(fd);
        }
    });
}

/// The pump's part.
pub(crate) fn serve() {
    let fd = WANTED.swap(NONE, Ordering::SeqCst);
    if fd != NONE {
        process::share_one(fd);
        ANSWERS.fetch_add(1, Ordering::SeqCst);
        syscall::futex_wake(&raw const ANSWERS);
    }
}
