//! `send` and its kin.

use core::cell::Cell;
use core::ffi::{c_int, c_uint, c_void};
use core::mem;
use core::sync::atomic::Ordering;

use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use sidewire_engine::Error;
use sidewire_engine::memory::IovIter;
use sidewire_engine::sendmsg::{NameArg, SendCall};
use sidewire_engine::stack::Caps;
use sidewire_uapi::socket::{MSG_DONTWAIT, MSG_EOR, MSG_FASTOPEN, MSG_MORE, MSG_ZEROCOPY};

use super::address::GivenAddr;
use super::{MOVED, Turn, answer, answer_int, caps, connect, errno_of, rights, run};
use crate::explain::{self, Called};
use crate::file::FileRef;
use crate::iov::{Iovecs, UIO_MAXIOV};
use crate::signals::{ERESTARTSYS, ending};
use crate::ubuf::{self, Promise};
use crate::{copy, fdtable, raw, real, round, signals, syscall};

/// Longest control data of a message, in bytes, however large optmem_max is.
const CONTROL_MAX: usize = 1 << 20;
/// Control data that Linux keeps on its stack, in bytes; more is charged to the socket.
const CONTROL_ON_STACK: usize = 36;

/// What a send is given beside its bytes.
#[derive(Clone, Copy)]
pub(super) struct SendArgs<'a> {
    /// The program's call, by its name.
    pub(super) call: &'static str,
    pub(super) flags: c_int,
    pub(super) control: &'a [u8],
    pub(super) name: Option<&'a [u8]>,
    /// The caller's own completion (Linux `msg_ubuf`).
    pub(super) ubuf: Option<u64>,
    /// The iterator's pages are referenced (sendfile). Of the flags, MSG_MORE and MSG_DONTWAIT count.
    pub(super) splice: bool,
    /// Others of the same call went before it: a signal ends that, and it is not made again.
    pub(super) follows: bool,
    /// Set when a signal came, whatever the send has taken.
    pub(super) interrupted: Option<&'a Cell<bool>>,
    /// The call is no cancellation point ([`whole`]).
    pub(super) whole: bool,
}

impl SendArgs<'_> {
    /// Bytes and flags, and nothing else.
    pub(super) fn of(call: &'static str, flags: c_int) -> Self {
        Self {
            call,
            flags,
            control: &[],
            name: None,
            ubuf: None,
            splice: false,
            follows: false,
            interrupted: None,
            whole: false,
        }
    }
}

/// One engine send to its end, from whatever holds the bytes. SIGPIPE is raised here.
pub(super) fn send_iter<I: IovIter>(
    file: &FileRef,
    args: SendArgs<'_>,
    mut fresh: impl FnMut() -> I,
) -> Result<usize, c_int> {
    let body = || {
        let nonblock = file.nonblock.load(Ordering::Relaxed);
        let zerocopy = args.flags & MSG_ZEROCOPY != 0;
        let caps = if args.control.is_empty() && !zerocopy {
            Caps::default()
        } else {
            caps()
        };
        let name = args.name.map(NameArg);
        let mut call = if args.splice {
            let nonblock = nonblock || args.flags & MSG_DONTWAIT != 0;
            SendCall::splice(args.flags & MSG_MORE != 0, caps, nonblock)
        } else {
            SendCall::new(args.flags, args.control, name, caps, nonblock)
        };
        if zerocopy && !caps.ipc_lock {
            call.memlock_limit = syscall::memlock_limit();
        }
        call.ubuf = args.ubuf;
        let mut iter = fresh();
        call.trace = explain::record();
        let called = call.trace.as_ref().map(|_| Called {
            name: args.call,
            bytes: Some(iter.remaining()),
            flags: args.flags,
        });
        let stack = file.stack();
        // Linux has taken every ack that has come. Here they are looked for where the result depends on them.
        let mut early = nonblock || args.flags & MSG_DONTWAIT != 0;
        let r = run(file, Turn::Send, |i, id, signal| {
            call.signal = signal;
            if mem::take(&mut early) && !i.engine.has_send_room(id, iter.remaining()) {
                round::poll_once(stack, i);
            }
            round::within_round(stack, i, |i| {
                i.net.begin_call();
                let (engine, mut io) = i.split();
                engine.sendmsg(&mut io, id, &mut call, &mut iter)
            })
        });
        if let (Some(called), Some(trace)) = (called, call.trace.take()) {
            explain::tell(file.record(), called, &trace);
        }
        if call.sigpipe {
            ending::raise_sigpipe();
        }
        if let Some(interrupted) = args.interrupted {
            interrupted.set(signals::pending());
        }
        match r {
            // They went to the kernel with the socket.
            Err(MOVED) if call.copied() > 0 => Ok(call.copied()),
            Err(ERESTARTSYS) if args.follows => Err(libc::EINTR),
            r => r,
        }
    };
    if args.whole {
        signals::call_whole(file, body)
    } else {
        signals::call(file, body)
    }
}

fn send_iov(file: &FileRef, fd: c_int, iov: &Iovecs, args: SendArgs<'_>) -> Result<usize, c_int> {
    let sent = send_iter(file, args, || iov.iter());
    if file.moved() || matches!(sent, Err(MOVED)) {
        rest_by_kernel(file, fd, iov, args, sent)
    } else {
        sent
    }
}

/// What the kernel adds to a send under which it got the socket: all, or what a blocking one lacks.
fn rest_by_kernel(
    file: &FileRef,
    fd: c_int,
    iov: &Iovecs,
    args: SendArgs<'_>,
    sent: Result<usize, c_int>,
) -> Result<usize, c_int> {
    let done = match sent {
        Err(MOVED) => 0,
        Ok(n)
            if (1..iov.iter().remaining()).contains(&n)
                && args.ubuf.is_none()
                && args.flags & MSG_DONTWAIT == 0
                && !file.nonblock.load(Ordering::Relaxed) =>
        {
            n
        }
        sent => return sent,
    };
    let mut rest = iov.behind(done);
    // SAFETY: all-zero is a valid msghdr; its entries are the program's, and the control data is ours.
    let sent = unsafe {
        let mut msg: msghdr = core::mem::zeroed();
        msg.msg_iov = rest.as_mut_ptr();
        msg.msg_iovlen = rest.len();
        if done == 0 && !args.control.is_empty() {
            msg.msg_control = args.control.as_ptr().cast_mut().cast();
            msg.msg_controllen = args.control.len();
        }
        kernel_message(fd, &raw const msg, args.flags, args.ubuf)
    };
    match sent {
        Ok(n) => Ok(done + n),
        Err(_) if done > 0 => Ok(done),
        sent => sent,
    }
}

/// MSG_FASTOPEN connects, and not every connection is the engine's: true when the kernel has the socket now.
fn fastopen_to_kernel(
    file: &FileRef,
    fd: c_int,
    call: &'static str,
    flags: c_int,
    name: Option<&[u8]>,
) -> Result<bool, c_int> {
    match name {
        Some(name) if flags & MSG_FASTOPEN != 0 => {
            file.stack().driver.wake_pump();
            signals::call(file, || connect::before_fastopen(file, fd, name))
                .map_err(|e| explain::refused(file.record(), call, flags, e))
        }
        _ => Ok(false),
    }
}

/// What the kernel's own send returned, as ours do.
fn sent_by_kernel(sent: ssize_t) -> Result<usize, c_int> {
    usize::try_from(sent).map_err(|_| raw::errno())
}

/// The kernel's `sendmsg`, which copies what comes with a completion: that is due at once.
unsafe fn kernel_message(
    fd: c_int,
    msg: *const msghdr,
    mut flags: c_int,
    ubuf: Option<u64>,
) -> Result<usize, c_int> {
    if ubuf.is_some() {
        flags &= !MSG_ZEROCOPY;
    }
    // SAFETY: the caller's arguments.
    let sent = sent_by_kernel(unsafe { real::sendmsg(fd, msg, flags) })?;
    if let Some(cookie) = ubuf.filter(|_| sent > 0) {
        ubuf::complete(cookie, false);
    }
    Ok(sent)
}

/// What the program's vector came to.
fn imported(
    file: &FileRef,
    args: SendArgs<'_>,
    iov: Result<Iovecs, Error>,
) -> Result<Iovecs, c_int> {
    iov.map_err(|e| explain::refused(file.record(), args.call, args.flags, errno_of(e)))
}

/// `write`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::write(fd, buf, len) };
    };
    let args = SendArgs::of("write", 0);
    let iov = imported(&file, args, Iovecs::whole(buf.cast(), len));
    answer(iov.and_then(|iov| send_iov(&file, fd, &iov, args)))
}

/// `writev`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn writev(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    unsafe { writev_with("writev", fd, iov, n, 0) }
}

/// `writev` with the flags of send(2), by the name of the program's `call`.
///
/// # Safety
/// The contract of writev(2).
pub(crate) unsafe fn writev_with(
    call: &'static str,
    fd: c_int,
    iov: *const iovec,
    n: c_int,
    flags: c_int,
) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::writev(fd, iov, n) };
    };
    // SAFETY: the program's pointer.
    let iov = unsafe { Iovecs::import(iov, n as usize, Error::Inval) };
    let args = SendArgs::of(call, flags);
    answer(imported(&file, args, iov).and_then(|iov| {
        if iov.iter().remaining() == 0 {
            // Linux vfs_writev: the socket is not asked, not even for EPIPE; write(2) of no bytes does ask it.
            return Ok(0);
        }
        send_iov(&file, fd, &iov, args)
    }))
}

/// `send`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::send(fd, buf, len, flags) };
    };
    let args = SendArgs::of("send", flags);
    let iov = imported(&file, args, Iovecs::ubuf(buf.cast(), len));
    answer(iov.and_then(|iov| send_iov(&file, fd, &iov, args)))
}

/// `sendto`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    alen: socklen_t,
) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::sendto(fd, buf, len, flags, addr, alen) };
    };
    let args = SendArgs::of("sendto", flags);
    let iov = match imported(&file, args, Iovecs::ubuf(buf.cast(), len)) {
        Ok(iov) => iov,
        Err(e) => return answer(Err(e)),
    };
    if addr.is_null() {
        return answer(send_iov(&file, fd, &iov, args));
    }
    // SAFETY: the program's pointer.
    let given = unsafe { GivenAddr::read(addr, alen) }
        .map_err(|e| explain::refused(file.record(), args.call, flags, e));
    answer(given.and_then(|given| {
        if fastopen_to_kernel(&file, fd, args.call, flags, Some(given.bytes()))? {
            // SAFETY: the caller's arguments.
            return sent_by_kernel(unsafe { real::sendto(fd, buf, len, flags, addr, alen) });
        }
        let args = SendArgs {
            name: Some(given.bytes()),
            ..args
        };
        send_iov(&file, fd, &iov, args)
    }))
}

/// Linux's `__sys_sendmsg` and its like: the mark of a 32-bit caller is not for a
/// program to give (row A10).
pub(super) fn native_flags(flags: c_int) -> Result<(), c_int> {
    if flags & sidewire_uapi::socket::MSG_CMSG_COMPAT != 0 {
        return Err(libc::EINVAL);
    }
    Ok(())
}

/// `sendmsg`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    let Some(file) = fdtable::get(fd) else {
        rights::share(msg);
        // SAFETY: the caller's arguments.
        return unsafe { real::sendmsg(fd, msg, flags) };
    };
    let args = SendArgs::of("sendmsg", flags);
    if let Err(e) = native_flags(flags) {
        return answer(Err(explain::refused(file.record(), args.call, flags, e)));
    }
    // SAFETY: the program's pointer.
    answer(unsafe { one_message(&file, fd, msg, 0, args) }.map(|sent| sent.bytes))
}

/// `sendmsg` of memory that stays the caller's: its bytes are referenced, and `callback` gets `cookie` once when the last of
/// those that were taken is acknowledged or dropped. A call that takes nothing does not complete. What the kernel carries is
/// copied, and completes at once.
///
/// # Errors
/// Those of `sendmsg`, and those of [`Promise::new`].
///
/// # Safety
/// The contract of the C function, and the memory stays until the callback.
pub unsafe fn sendmsg_ubuf(
    fd: c_int,
    msg: *const msghdr,
    flags: c_int,
    cookie: u64,
    callback: ubuf::Callback,
) -> ssize_t {
    let args = SendArgs {
        ubuf: Some(cookie),
        ..SendArgs::of("sidewire_sendmsg", flags)
    };
    let file = fdtable::get(fd);
    let promise = match native_flags(flags).and_then(|()| Promise::new(callback)) {
        Ok(promise) => promise,
        Err(e) => {
            if let Some(file) = &file {
                explain::refused(file.record(), args.call, flags, e);
            }
            return answer(Err(e));
        }
    };
    let sent = answer(match &file {
        // SAFETY: the caller's arguments.
        Some(file) => unsafe { one_message(file, fd, msg, 0, args) }.map(|sent| sent.bytes),
        // SAFETY: the same.
        None => unsafe { kernel_message(fd, msg, flags, args.ubuf) },
    });
    if sent > 0 {
        promise.keep();
    }
    sent
}

/// Option memory that a message's control data takes.
struct OptMem<'a> {
    file: &'a FileRef,
    bytes: u32,
}

impl<'a> OptMem<'a> {
    /// None when the socket may not have so much.
    fn charge(file: &'a FileRef, bytes: u32) -> Option<Self> {
        let _inside = signals::enter();
        let charged = file
            .stack()
            .with(|inner| inner.engine.sock_kmalloc(file.id(), bytes));
        charged.then(|| Self { file, bytes })
    }
}

impl Drop for OptMem<'_> {
    fn drop(&mut self) {
        let _inside = signals::enter();
        let id = self.file.id();
        self.file
            .stack()
            .with(|inner| inner.engine.sock_kfree_s(id, self.bytes));
    }
}

/// Linux's `___sys_sendmsg`. Of the flags in the header, those that are `allowed` count.
unsafe fn one_message(
    file: &FileRef,
    fd: c_int,
    msg: *const msghdr,
    allowed: c_int,
    args: SendArgs<'_>,
) -> Result<Sent, c_int> {
    let SendArgs { call, flags, .. } = args;
    // SAFETY: the caller's pointer.
    let message = unsafe { read_message(file, msg) }
        .map_err(|e| explain::refused(file.record(), call, flags, e))?;
    let flags = flags | message.flags & allowed;
    let name = message.name.as_ref().map(GivenAddr::bytes);
    let bytes = if fastopen_to_kernel(file, fd, call, flags, name)? {
        // SAFETY: the same.
        unsafe { kernel_message(fd, msg, flags, args.ubuf) }?
    } else {
        let args = SendArgs {
            flags,
            control: &message.control,
            name,
            ..args
        };
        send_iov(file, fd, &message.iov, args)?
    };
    Ok(Sent {
        bytes,
        left: message.iov.iter().remaining() > bytes,
    })
}

/// What became of a message.
struct Sent {
    bytes: usize,
    /// There is more of it (Linux `msg_data_left`).
    left: bool,
}

/// What a message header points to.
struct Message<'a> {
    name: Option<GivenAddr>,
    iov: Iovecs,
    control: Vec<u8>,
    /// What the control data is charged to, as long as the call takes.
    _optmem: Option<OptMem<'a>>,
    flags: c_int,
}

unsafe fn read_message(file: &FileRef, msg: *const msghdr) -> Result<Message<'_>, c_int> {
    // SAFETY: any bytes make a msghdr; its pointers are the program's.
    unsafe {
        let hdr = copy::read_value(msg).map_err(|_| libc::EFAULT)?;
        let name = if hdr.msg_name.is_null() || hdr.msg_namelen == 0 {
            None
        } else {
            if (hdr.msg_namelen as c_int) < 0 {
                return Err(libc::EINVAL);
            }
            Some(GivenAddr::read(
                hdr.msg_name.cast(),
                hdr.msg_namelen
                    .min(size_of::<libc::sockaddr_storage>() as u32),
            )?)
        };
        let iov = Iovecs::import(hdr.msg_iov, hdr.msg_iovlen, Error::MsgSize).map_err(errno_of)?;
        if hdr.msg_controllen > CONTROL_MAX {
            return Err(libc::ENOBUFS); // A6
        }
        let optmem = if hdr.msg_controllen > CONTROL_ON_STACK {
            let charged = OptMem::charge(file, hdr.msg_controllen as u32);
            Some(charged.ok_or(libc::ENOBUFS)?) // A7
        } else {
            None
        };
        let mut control = Vec::new();
        if hdr.msg_controllen > 0 {
            control.resize(hdr.msg_controllen, 0);
            copy::from_program(
                control.as_mut_ptr(),
                hdr.msg_control.cast(),
                hdr.msg_controllen,
            )
            .map_err(|_| libc::EFAULT)?;
        }
        Ok(Message {
            name,
            iov,
            control,
            _optmem: optmem,
            flags: hdr.msg_flags,
        })
    }
}

/// `sendmmsg`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn sendmmsg(fd: c_int, msgs: *mut mmsghdr, n: c_uint, flags: c_int) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        rights::share_each(msgs, (n as usize).min(UIO_MAXIOV));
        // SAFETY: the caller's arguments.
        return unsafe { real::sendmmsg(fd, msgs, n, flags) };
    };
    if let Err(e) = native_flags(flags) {
        return answer_int(Err(explain::refused(file.record(), "sendmmsg", flags, e)));
    }
    let n = (n as usize).min(UIO_MAXIOV);
    // SAFETY: the program's array.
    let sent = signals::call(&file, || unsafe { messages(&file, fd, msgs, n, flags) });
    if matches!(sent, Err(MOVED)) {
        // SAFETY: the caller's arguments.
        return unsafe { real::sendmmsg(fd, msgs, n as c_uint, flags) };
    }
    answer_int(sent.map(|sent| match sent {
        // A message has made the socket the kernel's, or another thread has.
        Row { done, ended: false } if done < n => {
            // SAFETY: the rest of the program's array.
            let rest =
                unsafe { real::sendmmsg(fd, msgs.wrapping_add(done), (n - done) as c_uint, flags) };
            done as c_int + rest.max(0)
        }
        Row { done, .. } => done as c_int,
    }))
}

/// How a row of messages went.
pub(super) struct Row {
    /// Messages that were moved.
    pub(super) done: usize,
    /// No other is to be.
    pub(super) ended: bool,
}

/// Linux's `__sys_sendmmsg`, for as long as the socket is ours.
unsafe fn messages(
    file: &FileRef,
    fd: c_int,
    msgs: *mut mmsghdr,
    n: usize,
    flags: c_int,
) -> Result<Row, c_int> {
    let mut done = 0;
    while done < n && !(done > 0 && file.moved()) {
        let entry = msgs.wrapping_add(done);
        let more = if done + 1 < n {
            sidewire_uapi::socket::MSG_BATCH
        } else {
            0
        };
        // SAFETY: the program's array; the fields' addresses are only computed.
        let sent = unsafe {
            let msg = &raw const (*entry).msg_hdr;
            let args = SendArgs::of("sendmmsg", flags | more);
            one_message(file, fd, msg, MSG_EOR, args).and_then(|sent| {
                copy::write_value(&raw mut (*entry).msg_len, &(sent.bytes as c_uint))
                    .map_err(|_| libc::EFAULT)?;
                Ok(sent.left)
            })
        };
        match sent {
            Ok(left) => {
                done += 1;
                if left {
                    return Ok(Row { done, ended: true });
                }
            }
            Err(e) if done == 0 => return Err(e),
            Err(_) => return Ok(Row { done, ended: true }),
        }
    }
    Ok(Row { done, ended: false })
}
