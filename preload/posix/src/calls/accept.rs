//! `accept`: the engine's queue for the wire, the kernel's for clients on this host and over IPv6.

use core::ffi::c_int;
use core::net::SocketAddr;

use core::sync::atomic::Ordering;
use std::sync::Arc;

use arrayvec::ArrayVec;
use libc::{sockaddr, socklen_t};
use sidewire_engine::calls::AcceptCall;
use sidewire_engine::event::Events;
use sidewire_engine::opts::KernelsOption;
use sidewire_engine::{Error, Instant, SocketId, Step};
use sidewire_link::Errno;
use sidewire_link::fd::Fd;
use sidewire_uapi::poll::POLLIN;

use super::address::{encode, is_v6, write_out};
use super::handover;
use super::socket::{Reason, adopt, count_engine, count_kernel, forget_stale};
use super::{MOVED, answer_int, errno_of, want_in};
use crate::driver::{self, Woken};
use crate::file::FileRef;
use crate::signals::ERESTARTSYS;
use crate::stack::Inner;
use crate::wait::{EXCLUSIVE, Waiter};
use crate::{fdtable, raw, real, round, signals, syscall};

/// True when a client of a kernel listener waits.
pub(super) fn kernel_client_waits(file: &FileRef) -> bool {
    file.kernel_listener()
        .is_some_and(|fd| syscall::ppoll(&mut [want_in(fd)], 0, None).is_ok_and(|n| n > 0))
}

/// `accept`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { accept_flags(fd, addr, len, None) }
}

/// `accept4`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { accept_flags(fd, addr, len, Some(flags)) }
}

unsafe fn accept_flags(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: Option<c_int>,
) -> c_int {
    let by_kernel = || {
        // SAFETY: the caller's arguments.
        let got = unsafe {
            match flags {
                None => real::accept(fd, addr, len),
                Some(flags) => real::accept4(fd, addr, len, flags),
            }
        };
        if got >= 0 {
            forget_stale(got);
        }
        got
    };
    let Some(file) = fdtable::get(fd) else {
        return by_kernel();
    };
    let flags = flags.unwrap_or(0);
    if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
        raw::set_errno(libc::EINVAL);
        return -1;
    }
    // SAFETY: the program's pointers.
    let got = signals::call(&file, || unsafe { accept_once(&file, addr, len, flags) });
    if got == Err(MOVED) {
        drop(file);
        return by_kernel();
    }
    answer_int(got)
}

/// What came.
enum Client {
    Wire {
        id: SocketId,
        peer: Option<SocketAddr>,
        /// Of the listener's options, those that the kernel's socket of the child has to be told.
        options: Option<Arc<Vec<KernelsOption>>>,
    },
    Here(c_int),
}

unsafe fn accept_once(
    file: &FileRef,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> Result<c_int, c_int> {
    // Before a child is taken: without a descriptor it stays where it is.
    let mut shadow = None;
    match take(file, flags, &mut shadow)? {
        Client::Here(child) => {
            forget_stale(child);
            count_kernel(child, Reason::Local);
            if !addr.is_null() {
                // SAFETY: the program's pointers.
                if unsafe { real::getpeername(child, addr, len) } != 0 {
                    let e = raw::errno();
                    let _ = syscall::close(child);
                    return Err(if e == libc::ENOTCONN {
                        libc::ECONNABORTED
                    } else {
                        e
                    });
                }
            }
            Ok(child)
        }
        Client::Wire { id, peer, options } => {
            let v6 = is_v6(file);
            let Some(child) = shadow.take().map(Fd::into_raw) else {
                unreachable!("a child is taken for a descriptor");
            };
            for o in options.iter().flat_map(|all| all.iter()) {
                let _ = syscall::setsockopt_bytes(child, o.level, o.name, &o.value);
            }
            let nonblock = flags & libc::SOCK_NONBLOCK != 0;
            adopt(file.stack(), child, id, v6, nonblock);
            count_engine();
            match peer {
                Some(peer) => crate::info!("connection from {peer}: carried by the engine"),
                None => crate::info!("connection that has ended: carried by the engine"),
            }
            if let (false, Some(peer)) = (addr.is_null(), peer) {
                let (bytes, n) = encode(peer, v6);
                // SAFETY: the program's pointers.
                if let Err(e) = unsafe { write_out(&bytes[..n], addr, len) } {
                    drop(fdtable::remove(child));
                    let _ = syscall::close(child);
                    return Err(e);
                }
            }
            Ok(child)
        }
    }
}

/// One child of the engine's queue, with its holder taken.
fn from_wire(
    inner: &mut Inner,
    file: &FileRef,
    id: SocketId,
    nonblock: bool,
    call: &mut AcceptCall,
) -> Step<Result<Client, Error>> {
    let (engine, mut io) = inner.split();
    match engine.accept(&mut io, id, nonblock, call) {
        Step::Wait { reason, deadline } => Step::Wait { reason, deadline },
        Step::Ready(Err(e)) => Step::Ready(Err(e)),
        Step::Ready(Ok(child)) => {
            file.stack().driver.accepts.fetch_add(1, Ordering::Relaxed);
            let (tuple, options) = engine
                .sock(child)
                .map(|sk| (sk.tuple, sk.opts.kernels.clone()))
                .unzip();
            inner.files += 1;
            if let (Some(tuple), Some(listener)) = (tuple, &file.port.lock().listener) {
                inner.holders.accepted(tuple, listener);
            }
            Step::Ready(Ok(Client::Wire {
                id: child,
                peer: tuple.map(|t| t.remote),
                options: options.flatten(),
            }))
        }
    }
}

/// The kernel's socket for a child.
fn open_shadow(file: &FileRef, flags: c_int) -> Result<Fd, c_int> {
    let domain = if is_v6(file) {
        libc::AF_INET6
    } else {
        libc::AF_INET
    };
    syscall::socket(domain, libc::SOCK_STREAM | flags, libc::IPPROTO_TCP)
        .map(Fd::from_raw)
        .map_err(|e| e.into_raw())
}

/// A thread that sleeps for a client, in the order in which they came (Linux `inet_csk_wait_for_connect`). It leaves the queue
/// when it goes, and sees that another one is woken for what it leaves there.
struct InTurn<'a> {
    file: &'a FileRef,
    waiter: &'a Waiter,
    /// More clients wait.
    more: bool,
}

impl<'a> InTurn<'a> {
    /// To be called under the stack lock.
    fn new(file: &'a FileRef, waiter: &'a Waiter) -> Self {
        let mask = Events::IN | Events::ERR | Events::HUP;
        // SAFETY: `drop` takes it out, and the borrow keeps it until then.
        unsafe { file.wait.add(waiter, mask.bits() | EXCLUSIVE) };
        let more = false;
        Self { file, waiter, more }
    }
}

impl Drop for InTurn<'_> {
    fn drop(&mut self) {
        self.file.wait.remove(self.waiter);
        if self.more || self.waiter.fired() {
            self.file.wait.wake_next();
        }
    }
}

/// The next client; `shadow` is there when it is one of the engine's.
fn take(file: &FileRef, flags: c_int, shadow: &mut Option<Fd>) -> Result<Client, c_int> {
    let (stack, id) = (file.stack(), file.id());
    let nonblock = file.nonblock.load(Ordering::Relaxed);
    let mut call = AcceptCall::default();
    let waiter = Waiter::new();
    let mut queued: Option<InTurn<'_>> = None;
    let mut timed = false;
    let mut refused = None;
    loop {
        let s = stack.with(|inner| {
            if file.moved() {
                return None;
            }
            let woken = waiter.fired();
            waiter.reset();
            if inner.engine.poll(id) & POLLIN == 0 {
                round::poll_once(stack, inner);
            }
            if shadow.is_none() && inner.engine.poll(id) & POLLIN != 0 {
                match open_shadow(file, flags) {
                    Ok(fd) => *shadow = Some(fd),
                    Err(e) => {
                        refused = Some(e);
                        if let Some(queued) = &mut queued {
                            queued.more = true;
                        }
                        return None;
                    }
                }
            }
            let s = from_wire(inner, file, id, nonblock, &mut call);
            match &mut queued {
                // Whom another thread was quicker than stands last.
                queued if matches!(s, Step::Wait { .. }) && (queued.is_none() || woken) => {
                    *queued = None;
                    *queued = Some(InTurn::new(file, &waiter));
                }
                Some(queued) => queued.more = inner.engine.poll(id) & POLLIN != 0,
                None => {}
            }
            Some(s)
        });
        if let Some(e) = refused {
            return Err(e);
        }
        let Some(s) = s else {
            file.when_moved();
            return Err(MOVED);
        };
        let empty = matches!(s, Step::Wait { .. } | Step::Ready(Err(Error::Again)));
        if empty {
            let (child, leaving) = {
                let port = file.port.lock();
                let child = port.listener.as_ref().map(|l| l.accept(flags));
                (child, port.leaving.is_some())
            };
            match child {
                Some(Ok(child)) => return Ok(Client::Here(child)),
                Some(Err(e @ (Errno::EMFILE | Errno::ENFILE))) => return Err(e.into_raw()),
                _ => {}
            }
            if leaving && (handover::finish(stack, file, false) || kernel_client_waits(file)) {
                return Err(MOVED);
            }
        }
        match s {
            Step::Ready(Ok(client)) => return Ok(client),
            Step::Ready(Err(Error::Intr)) if !timed => return Err(ERESTARTSYS),
            Step::Ready(Err(e)) => return Err(errno_of(e)),
            Step::Wait { deadline, .. } => {
                timed = deadline != Instant::NEVER;
                let mut others: ArrayVec<_, 1> =
                    file.kernel_listener().map(want_in).into_iter().collect();
                let woken = driver::sleep(stack, &waiter, deadline, &mut others, None);
                call.signal = woken == Woken::Signal;
            }
        }
    }
}
