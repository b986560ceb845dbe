//! The calls themselves, one file a group. Each takes the C function's arguments, does what the kernel would do for a
//! descriptor of ours and hands every other one to the real function; each sets `errno` itself.

mod accept;
pub(crate) mod address;
mod bind;
pub(crate) mod close;
mod connect;
mod control;
mod dup;
mod file_pages;
pub(crate) mod handover;
mod pieces;
pub(crate) mod pipe_turn;
mod recv;
mod rights;
mod scm;
mod send;
mod sendfile;
mod shutdown;
pub mod socket;
mod sockopt;
mod splice;
pub(crate) mod unbind;
mod zerocopy_receive;

pub use accept::{accept, accept4};
pub use address::{getpeername, getsockname};
pub(crate) use bind::give_group;
pub use bind::{bind, listen};
pub use close::close;
pub use connect::connect;
pub use control::{fcntl, ioctl, sockatmark};
pub use dup::{dup, dup2, dup3};
pub use handover::hand_over;
pub(crate) use recv::readv_with;
pub use recv::{read, readv, recv, recvfrom, recvmmsg, recvmsg};
pub(crate) use send::writev_with;
pub use send::{send, sendmmsg, sendmsg, sendmsg_ubuf, sendto, write, writev};
pub use sendfile::sendfile;
pub use shutdown::shutdown;
pub use socket::socket;
pub use sockopt::{getsockopt, setsockopt};
pub use splice::splice;

use core::ffi::c_int;

use libc::pollfd;
use sidewire_engine::event::Events;
use sidewire_engine::stack::{Caps, StepResult};
use sidewire_engine::{Error, Instant, SocketId, Step, WaitReason};

use crate::driver::{self, Woken};
use crate::file::{File, FileRef};
use crate::lock::MutexGuard;
use crate::signals::ERESTARTSYS;
use crate::stack::Inner;
use crate::wait::Waiter;
use crate::{privilege, raw, round};

/// What a C function returns for a count.
#[inline]
fn answer(r: Result<usize, c_int>) -> isize {
    match r {
        Ok(n) => n as isize,
        Err(e) => {
            raw::set_errno(e);
            -1
        }
    }
}

/// What a C function returns for a number.
#[inline]
fn answer_int(r: Result<c_int, c_int>) -> c_int {
    match r {
        Ok(n) => n,
        Err(e) => {
            raw::set_errno(e);
            -1
        }
    }
}

/// The number of an engine error.
#[inline]
fn errno_of(e: Error) -> c_int {
    e.errno().0
}

/// The poll bits that can end a wait.
fn mask_of(reason: WaitReason) -> u32 {
    let always = Events::ERR | Events::HUP;
    let bits = match reason {
        WaitReason::Data | WaitReason::Accept => always | Events::IN | Events::RDHUP | Events::PRI,
        WaitReason::Memory => always | Events::OUT,
        WaitReason::Connect | WaitReason::Linger => Events::all(),
        WaitReason::Backlog => Events::empty(),
    };
    bits.bits()
}

/// What a call gives that found its socket given to the kernel: it is made again there. A number that no program sees.
pub(crate) const MOVED: c_int = 520;

/// A waiter in a file's queue; leaves it when it goes.
struct Queued<'a> {
    file: &'a File,
    waiter: &'a Waiter,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.file.wait.remove(self.waiter);
    }
}

/// What keeps a call from coming between the steps of another, as Linux's socket lock does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Sends pause ([`WaitReason::Backlog`]): whoever has [`File::sending`] keeps the others out until it ends or sleeps.
    Send,
    /// A receive is one step, which comes before or after those of a splice ([`File::splices`]).
    Receive,
    /// A step of a splice.
    Had,
}

/// Why there is no step now.
enum Busy {
    /// The kernel has the socket.
    Moved,
    /// A splice from it is between its steps.
    Spliced,
}

/// Runs one engine call to its end: takes what the ring holds before it gives up, sleeps where the engine says so.
///
/// `step` gets the engine, the socket, and whether a signal is pending. The result is the call's, with ERESTARTSYS where a
/// signal interrupted a wait without a timeout (Linux `sock_intr_errno`), and [`MOVED`].
fn run<T>(
    file: &FileRef,
    turn: Turn,
    step: impl FnMut(&mut Inner, SocketId, bool) -> StepResult<T>,
) -> Result<T, c_int> {
    let mine = (turn == Turn::Send).then(|| file.sending.lock());
    run_on(file, turn, mine, step)
}

/// The same by a caller that has [`File::sending`] already, where the call's turn is [`Turn::Send`].
fn run_on<'f, T>(
    file: &'f FileRef,
    turn: Turn,
    mut mine: Option<MutexGuard<'f, ()>>,
    mut step: impl FnMut(&mut Inner, SocketId, bool) -> StepResult<T>,
) -> Result<T, c_int> {
    let (stack, id) = (file.stack(), file.id());
    let mut once = |inner: &mut Inner, signal| {
        let s = step(inner, id, signal);
        match s {
            Step::Wait {
                reason: WaitReason::Backlog,
                ..
            } => s,
            Step::Wait { .. } | Step::Ready(Err(Error::Again))
                if round::poll_once(stack, inner) =>
            {
                step(inner, id, signal)
            }
            s => s,
        }
    };
    let waiter = Waiter::new();
    let mut queued = None;
    let mut signal = false;
    let mut timed = false;
    loop {
        let s = stack.with(|inner| {
            if file.moved() {
                return Err(Busy::Moved);
            }
            if turn == Turn::Receive && mine.is_none() && file.splices() {
                return Err(Busy::Spliced);
            }
            waiter.reset();
            let s = once(inner, signal);
            if let (Step::Wait { reason, .. }, None) = (&s, &queued)
                && *reason != WaitReason::Backlog
            {
                // Under the stack lock, where events come from: none can be missed.
                // SAFETY: `queued` takes it out before the waiter goes, which is declared before it.
                unsafe { file.wait.add(&waiter, mask_of(*reason)) };
                queued = Some(Queued {
                    file,
                    waiter: &waiter,
                });
            }
            Ok(s)
        });
        match s {
            Err(Busy::Moved) => {
                drop(mine);
                file.when_moved();
                return Err(MOVED);
            }
            Err(Busy::Spliced) => mine = Some(file.receiving.lock()),
            Ok(Step::Ready(Ok(v))) => return Ok(v),
            Ok(Step::Ready(Err(Error::Intr))) if !timed => return Err(ERESTARTSYS),
            Ok(Step::Ready(Err(e))) => return Err(errno_of(e)),
            Ok(Step::Wait {
                reason: WaitReason::Backlog,
                ..
            }) => {}
            Ok(Step::Wait { deadline, .. }) => {
                timed = deadline != Instant::NEVER;
                drop(mine);
                let woken = driver::sleep(stack, &waiter, deadline, &mut [], None);
                signal = woken == Woken::Signal;
                mine = (turn == Turn::Send).then(|| file.sending.lock());
            }
        }
    }
}

/// The calling thread's effective capabilities.
fn caps() -> Caps {
    let effective = privilege::effective();
    let has = |cap: u32| effective & (1 << cap) != 0;
    Caps {
        net_admin: has(privilege::NET_ADMIN),
        net_raw: has(privilege::NET_RAW),
        ipc_lock: has(privilege::IPC_LOCK),
    }
}

/// An entry of a poll set.
fn want_in(fd: c_int) -> pollfd {
    pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}
