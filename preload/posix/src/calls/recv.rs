//! `recv` and its kin.

use core::ffi::{c_int, c_uint, c_void};
use core::net::SocketAddr;
use core::sync::atomic::Ordering;

use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use sidewire_engine::calls::RecvCall;
use sidewire_engine::memory::IovIter;
use sidewire_engine::{Error, Step};
use sidewire_uapi::socket::{
    MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_WAITALL, MSG_WAITFORONE,
};

use super::address::{encode, is_v6, write_out};
use super::send::Row;
use super::{MOVED, Turn, answer, answer_int, errno_of, run, scm};
use crate::file::FileRef;
use crate::iov::{Iovecs, ProgramIov, UIO_MAXIOV};
use crate::stack::monotonic_ns;
use crate::{copy, fdtable, raw, real, round, signals, syscall};

/// What a receive came to.
pub(super) struct Received {
    pub(super) n: usize,
    call: RecvCall,
    /// It waited for more when the kernel got the socket.
    cut: bool,
}

/// One engine receive to its end.
pub(super) fn recv_iter<I: IovIter>(
    file: &FileRef,
    flags: c_int,
    fresh: impl FnMut() -> I,
) -> Result<Received, c_int> {
    recv_call(file, Turn::Receive, flags, RecvCall::new, fresh)
}

/// The same by another kind of call, made of the flags and whether it does not wait.
pub(super) fn recv_call<I: IovIter>(
    file: &FileRef,
    turn: Turn,
    flags: c_int,
    begin: fn(c_int, bool) -> RecvCall,
    mut fresh: impl FnMut() -> I,
) -> Result<Received, c_int> {
    signals::call(file, || {
        let nonblock = file.nonblock.load(Ordering::Relaxed);
        let mut call = begin(flags, nonblock);
        let mut iter = fresh();
        let mut cut = false;
        let n = if flags & MSG_ERRQUEUE != 0 {
            file.stack()
                .with(|i| {
                    let (engine, mut io) = i.split();
                    engine.recv_errqueue(&mut io, file.id(), &mut call, &mut iter)
                })
                .map_err(|e| match e {
                    Error::BadFd if file.moved_meanwhile() => MOVED,
                    e => errno_of(e),
                })?
        } else {
            // Who only looks has no other way to see that more has come.
            let mut looks = flags & MSG_PEEK != 0;
            let run = run(file, turn, |i, id, signal| -> Step<Result<usize, Error>> {
                call.signal = signal;
                if core::mem::take(&mut looks) {
                    round::poll_once(file.stack(), i);
                }
                let (engine, mut io) = i.split();
                engine.recvmsg(&mut io, id, &mut call, &mut iter)
            });
            match run {
                // A look begins anew there.
                Err(MOVED) if call.copied() > 0 && flags & MSG_PEEK == 0 => {
                    cut = true;
                    call.copied()
                }
                run => run?,
            }
        };
        Ok(Received { n, call, cut })
    })
}

/// The program's buffers, for a receive with these flags.
fn target(iov: &Iovecs, flags: c_int) -> ProgramIov<'_> {
    iov.iter().taking(flags & MSG_PEEK == 0)
}

pub(super) fn recv_iov(
    file: &FileRef,
    fd: c_int,
    iov: &Iovecs,
    flags: c_int,
) -> Result<usize, c_int> {
    recv_named(file, fd, iov, flags).map(|(n, _)| n)
}

/// The same, with the address that goes with what the error queue had.
fn recv_named(
    file: &FileRef,
    fd: c_int,
    iov: &Iovecs,
    flags: c_int,
) -> Result<(usize, Option<SocketAddr>), c_int> {
    match recv_iter(file, flags, || target(iov, flags)) {
        Err(MOVED) => Ok((by_kernel(fd, iov.behind(0), flags)?, None)),
        Ok(got) if got.cut => Ok((rest_by_kernel(fd, iov, flags, got.n), None)),
        got => got.map(|got| (got.n, got.call.name)),
    }
}

/// Linux's `msg_name` of a receive: only the error queue has addresses (RV-17).
///
/// # Safety
/// The pointers are what the program gave for writing.
unsafe fn write_name(
    file: &FileRef,
    name: Option<SocketAddr>,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> Result<(), c_int> {
    let (bytes, n) = match name {
        Some(name) => encode(name, is_v6(file)),
        None => Default::default(),
    };
    // SAFETY: the caller's pointers.
    unsafe { write_out(&bytes[..n], addr, len) }
}

/// A receive of the kernel's, under which it got the socket.
fn by_kernel(fd: c_int, mut iov: Vec<iovec>, flags: c_int) -> Result<usize, c_int> {
    // SAFETY: all-zero is a valid msghdr; its entries are the program's.
    let got = unsafe {
        let mut msg: msghdr = core::mem::zeroed();
        msg.msg_iov = iov.as_mut_ptr();
        msg.msg_iovlen = iov.len();
        real::recvmsg(fd, &raw mut msg, flags)
    };
    usize::try_from(got).map_err(|_| raw::errno())
}

/// The first `len` bytes of a vector.
fn first(mut iov: Vec<iovec>, mut len: usize) -> Vec<iovec> {
    for e in &mut iov {
        e.iov_len = e.iov_len.min(len);
        len -= e.iov_len;
    }
    iov
}

/// What came in the end of a receive that had `done` bytes when the kernel got the socket, and waited for more (MSG_WAITALL,
/// SO_RCVLOWAT).
fn rest_by_kernel(fd: c_int, iov: &Iovecs, flags: c_int, done: usize) -> usize {
    let room = iov.iter().remaining();
    let lowest = syscall::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT);
    let wants = match lowest.ok().and_then(|n| usize::try_from(n).ok()) {
        Some(lowest) if flags & MSG_WAITALL == 0 => lowest.min(room),
        _ => room,
    };
    let missing = wants.saturating_sub(done);
    let there = first(iov.behind(done), missing);
    let done = done + by_kernel(fd, there, flags | MSG_WAITALL).unwrap_or(0);
    if done < wants || done == room {
        return done;
    }
    done + by_kernel(fd, iov.behind(done), flags | MSG_DONTWAIT).unwrap_or(0)
}

/// `read`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::read(fd, buf, len) };
    };
    if len == 0 {
        // Linux sock_read_iter: nothing is looked at.
        return 0;
    }
    let iov = Iovecs::whole(buf.cast(), len).map_err(errno_of);
    answer(iov.and_then(|iov| recv_iov(&file, fd, &iov, 0)))
}

/// `readv`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn readv(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    unsafe { readv_with(fd, iov, n, 0) }
}

/// `readv` with the flags of recv(2).
///
/// # Safety
/// The contract of readv(2).
pub(crate) unsafe fn readv_with(fd: c_int, iov: *const iovec, n: c_int, flags: c_int) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::readv(fd, iov, n) };
    };
    // SAFETY: the program's pointer.
    let iov = unsafe { Iovecs::import(iov, n as usize, Error::Inval) };
    answer(iov.map_err(errno_of).and_then(|iov| {
        if iov.iter().remaining() == 0 {
            return Ok(0);
        }
        recv_iov(&file, fd, &iov, flags)
    }))
}

/// `recv`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::recv(fd, buf, len, flags) };
    };
    let iov = Iovecs::ubuf(buf.cast(), len).map_err(errno_of);
    answer(iov.and_then(|iov| recv_iov(&file, fd, &iov, flags)))
}

/// `recvfrom`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    alen: *mut socklen_t,
) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::recvfrom(fd, buf, len, flags, addr, alen) };
    };
    let iov = Iovecs::ubuf(buf.cast(), len).map_err(errno_of);
    let r = iov.and_then(|iov| recv_named(&file, fd, &iov, flags));
    answer(r.and_then(|(n, name)| {
        if !addr.is_null() {
            // SAFETY: the program's pointers.
            unsafe { write_name(&file, name, addr, alen) }?;
        }
        Ok(n)
    }))
}

/// `recvmsg`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::recvmsg(fd, msg, flags) };
    };
    if let Err(e) = super::send::native_flags(flags) {
        return answer(Err(e));
    }
    // SAFETY: the program's pointer.
    answer(unsafe { one_message(&file, fd, msg, flags) })
}

/// Linux's `___sys_recvmsg`.
unsafe fn one_message(
    file: &FileRef,
    fd: c_int,
    msg: *mut msghdr,
    flags: c_int,
) -> Result<usize, c_int> {
    // SAFETY: any bytes make a msghdr; its pointers are the program's.
    unsafe {
        let hdr = copy::read_value(msg).map_err(|_| libc::EFAULT)?;
        if !hdr.msg_name.is_null() && (hdr.msg_namelen as c_int) < 0 {
            return Err(libc::EINVAL);
        }
        let iov = Iovecs::import(hdr.msg_iov, hdr.msg_iovlen, Error::MsgSize).map_err(errno_of)?;
        let got = recv_iter(file, flags, || target(&iov, flags));
        let Received { mut n, call, cut } = match got {
            Err(MOVED) => {
                return usize::try_from(real::recvmsg(fd, msg, flags)).map_err(|_| raw::errno());
            }
            got => got?,
        };
        if cut {
            n = rest_by_kernel(fd, &iov, flags, n);
        }
        let mut out = scm::Writer::new(hdr.msg_control.cast(), hdr.msg_controllen, fd);
        for cmsg in &call.cmsgs {
            out.put(cmsg, is_v6(file));
        }
        let echoed = flags & MSG_CMSG_CLOEXEC;
        let msg_flags = call.msg_flags | out.flags() | echoed;
        let fault = |_| libc::EFAULT;
        if !hdr.msg_name.is_null() {
            write_name(
                file,
                call.name,
                hdr.msg_name.cast(),
                &raw mut (*msg).msg_namelen,
            )?;
        }
        copy::write_value(&raw mut (*msg).msg_flags, &msg_flags).map_err(fault)?;
        copy::write_value(&raw mut (*msg).msg_controllen, &out.used()).map_err(fault)?;
        Ok(n)
    }
}

/// `recvmmsg`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn recvmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    n: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::recvmmsg(fd, msgs, n, flags, timeout) };
    };
    if let Err(e) = super::send::native_flags(flags) {
        return answer_int(Err(e));
    }
    let n = (n as usize).min(UIO_MAXIOV);
    // SAFETY: the program's pointers.
    let got = signals::call(&file, || unsafe {
        messages(&file, fd, msgs, n, flags, timeout)
    });
    if matches!(got, Err(MOVED)) {
        // SAFETY: the caller's arguments.
        return unsafe { real::recvmmsg(fd, msgs, n as c_uint, flags, timeout) };
    }
    answer_int(got.map(|got| match got {
        Row { done, ended: false } if done < n => {
            let waits = match flags & MSG_WAITFORONE {
                0 => 0,
                _ => MSG_DONTWAIT,
            };
            let (rest, left) = (msgs.wrapping_add(done), (n - done) as c_uint);
            // SAFETY: the rest of the program's array.
            let rest = unsafe { real::recvmmsg(fd, rest, left, flags | waits, timeout) };
            done as c_int + rest.max(0)
        }
        Row { done, .. } => done as c_int,
    }))
}

/// Takes the socket's error (Linux `sock_error`).
pub(super) fn pending_error(fd: c_int) -> Result<(), c_int> {
    let mut error: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    let (value, len) = ((&raw mut error).cast(), &raw mut len);
    // SAFETY: live locals of the right size.
    let asked = unsafe { super::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, value, len) };
    match (asked, error) {
        (0, 0) | (-1, _) => Ok(()),
        _ => Err(error),
    }
}

unsafe fn messages(
    file: &FileRef,
    fd: c_int,
    msgs: *mut mmsghdr,
    n: usize,
    mut flags: c_int,
    timeout: *mut timespec,
) -> Result<Row, c_int> {
    let deadline = if timeout.is_null() {
        u64::MAX
    } else {
        // SAFETY: any bytes make a timespec.
        let ts = unsafe { copy::read_value(timeout) }.map_err(|_| libc::EFAULT)?;
        if ts.tv_sec < 0 || !(0..1_000_000_000).contains(&ts.tv_nsec) {
            return Err(libc::EINVAL);
        }
        let ns = (ts.tv_sec as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add(ts.tv_nsec as u64);
        monotonic_ns().saturating_add(ns)
    };
    // Linux do_recvmmsg: a pending error comes before what is queued.
    if flags & MSG_ERRQUEUE == 0 {
        pending_error(fd)?;
    }
    let mut done = 0;
    while done < n && !(done > 0 && file.moved()) {
        let entry = msgs.wrapping_add(done);
        // SAFETY: the program's array; the fields' addresses are only computed.
        let got = unsafe {
            let msg = &raw mut (*entry).msg_hdr;
            one_message(file, fd, msg, flags & !MSG_WAITFORONE).and_then(|got| {
                let fault = |_| libc::EFAULT;
                copy::write_value(&raw mut (*entry).msg_len, &(got as c_uint)).map_err(fault)?;
                copy::read_value(&raw const (*msg).msg_flags).map_err(fault)
            })
        };
        let msg_flags = match got {
            Ok(msg_flags) => msg_flags,
            Err(e) if done == 0 => return Err(e),
            Err(e) => {
                if let Some(e) = Error::of_receive(e) {
                    file.stack().with(|i| i.engine.keep_error(file.id(), e));
                }
                return Ok(Row { done, ended: true });
            }
        };
        done += 1;
        if flags & MSG_WAITFORONE != 0 {
            flags |= MSG_DONTWAIT;
        }
        // As in Linux the timeout is looked at between messages only.
        let late = deadline != u64::MAX && monotonic_ns() >= deadline;
        if late || msg_flags & MSG_OOB != 0 {
            return Ok(Row { done, ended: true });
        }
    }
    Ok(Row { done, ended: false })
}
