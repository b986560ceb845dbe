//! `TCP_ZEROCOPY_RECEIVE`, as Linux answers where nothing that is queued can be mapped: what is there stands in
//! `recv_skip_hint`, to be read, or goes to the copy buffer (Linux `tcp_zerocopy_receive`).

use core::ffi::{c_int, c_void};
use core::mem::offset_of;

use libc::socklen_t;
use sidewire_engine::ioctl::tcp_inq;
use sidewire_engine::recvmsg::tcp_inq_hint;
use sidewire_engine::sock::TcpSock;
use sidewire_uapi::socket::MSG_DONTWAIT;
use sidewire_uapi::tcp::TcpState;

use super::errno_of;
use super::recv::{pending_error, recv_iov};
use crate::file::FileRef;
use crate::iov::Iovecs;
use crate::{copy, round};

/// Linux `struct tcp_zerocopy_receive`.
#[repr(C)]
#[derive(Default)]
struct Receive {
    address: u64,
    length: u32,
    recv_skip_hint: u32,
    inq: u32,
    err: i32,
    copybuf_address: u64,
    copybuf_len: i32,
    flags: u32,
    msg_control: u64,
    msg_controllen: u64,
    msg_flags: u32,
    reserved: u32,
}

const SIZE: usize = size_of::<Receive>();
/// Where fields end: what a program of an older kernel's headers knows is shorter.
const LENGTH_END: usize = offset_of!(Receive, recv_skip_hint);
const INQ_END: usize = offset_of!(Receive, err);
const ERR_END: usize = offset_of!(Receive, copybuf_address);
const WITH_ERR: [usize; 6] = [
    ERR_END,
    offset_of!(Receive, copybuf_len),
    offset_of!(Receive, flags),
    offset_of!(Receive, msg_control),
    offset_of!(Receive, msg_controllen),
    offset_of!(Receive, msg_flags),
];
const MSG_FLAGS_END: usize = offset_of!(Receive, reserved);
/// Linux `TCP_VALID_ZC_MSG_FLAGS`.
const MSG_FLAGS: u32 = 2;

const PAGE: u32 = 4096;
/// As much as one buffer of the kernel's holds.
const HINT_MAX: u32 = 1 << 16;

/// What `getsockopt` does for it.
///
/// # Safety
/// The pointers are the program's; they may be anything.
pub(super) unsafe fn get(
    file: &FileRef,
    fd: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Result<c_int, c_int> {
    let fault = |_| libc::EFAULT;
    // SAFETY: any bytes make a number.
    let room = unsafe { copy::read_value(len) }.map_err(fault)? as c_int;
    let room = usize::try_from(room).map_err(|_| libc::EINVAL)?;
    if room < LENGTH_END {
        return Err(libc::EINVAL);
    }
    let value = value.cast::<u8>();
    let mut zc = Receive::default();
    let n = room.min(SIZE);
    // SAFETY: the program's pointers; any bytes make one.
    unsafe {
        if room > SIZE {
            check_zeroed(value.wrapping_add(SIZE), room - SIZE)?;
            copy::write_value(len, &(SIZE as socklen_t)).map_err(fault)?;
        }
        copy::from_program((&raw mut zc).cast(), value, n).map_err(fault)?;
    }
    if zc.reserved != 0 || zc.msg_flags & !MSG_FLAGS != 0 {
        return Err(libc::EINVAL);
    }
    receive(file, fd, &mut zc)?;
    let with_err = n >= MSG_FLAGS_END || WITH_ERR.contains(&n);
    if with_err {
        zc.err = pending_error(fd).err().map_or(0, |e| -e);
    }
    if with_err || n == INQ_END {
        zc.inq = look(file, tcp_inq_hint)? as u32;
    }
    // SAFETY: a live value; the destination is the program's.
    unsafe { copy::to_program(value, (&raw const zc).cast(), n) }.map_err(fault)?;
    Ok(0)
}

/// Linux `check_zeroed_user`.
unsafe fn check_zeroed(from: *const u8, len: usize) -> Result<(), c_int> {
    let mut buf = [0u8; 256];
    let mut at = 0;
    while at < len {
        let n = (len - at).min(buf.len());
        // SAFETY: the destination holds as many bytes.
        unsafe { copy::from_program(buf.as_mut_ptr(), from.wrapping_add(at), n) }
            .map_err(|_| libc::EFAULT)?;
        if buf[..n].iter().any(|b| *b != 0) {
            return Err(libc::EINVAL);
        }
        at += n;
    }
    Ok(())
}

fn look<R>(file: &FileRef, f: impl FnOnce(&TcpSock) -> R) -> Result<R, c_int> {
    let stack = file.stack();
    stack.with(|i| {
        round::up_to_date(stack, i, |i| i.engine.sock(file.id()).map(f)).ok_or(libc::EBADF)
    })
}

fn receive(file: &FileRef, fd: c_int, zc: &mut Receive) -> Result<(), c_int> {
    let room = core::mem::take(&mut zc.copybuf_len) as u32;
    let length = core::mem::take(&mut zc.length);
    zc.msg_flags = 0;
    if !zc.address.is_multiple_of(u64::from(PAGE)) {
        return Err(libc::EINVAL);
    }
    let (state, inq, done) = look(file, |sk| (sk.state, tcp_inq(sk), sk.sock_done))?;
    if state == TcpState::Listen {
        return Err(libc::ENOTCONN);
    }
    let copy = |n: u32| {
        let iov = Iovecs::whole(zc.copybuf_address as *const u8, n as usize).map_err(errno_of)?;
        recv_iov(file, fd, &iov, MSG_DONTWAIT).map(|n| n as u32)
    };
    if inq > 0 && i64::from(inq) <= i64::from(room as i32) {
        let copied = copy(inq)?;
        zc.copybuf_len = copied as i32;
        zc.recv_skip_hint = (inq - copied.min(inq)).min(HINT_MAX);
        return Ok(());
    }
    zc.recv_skip_hint = inq;
    if inq >= PAGE {
        // No mapping begins there.
        if zc.address == 0 {
            return Err(libc::EINVAL);
        }
        let there = length.min(inq);
        let hint = if there < PAGE {
            there
        } else {
            inq.min(HINT_MAX)
        };
        let n = room.min(hint);
        match if n == 0 { Ok(0) } else { copy(n) } {
            Ok(n) => {
                zc.copybuf_len = n as i32;
                zc.recv_skip_hint = hint - n;
                if n > 0 {
                    return Ok(());
                }
            }
            Err(e) => {
                zc.copybuf_len = -e;
                zc.recv_skip_hint = hint;
            }
        }
    }
    if zc.recv_skip_hint == 0 && done {
        return Err(libc::EIO);
    }
    Ok(())
}
