//! The C interface: what socket calls cannot say. `include/sidewire.h` is made from this file (`make header`).

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::ffi::CString;

use libc::{msghdr, size_t, ssize_t};
use sidewire_posix::calls::socket::Reason;
use sidewire_posix::carrier::{self, Carrier};
use sidewire_posix::{calls, copy, dmabuf, raw, stats};

/// The version that this header describes: major << 16 | minor << 8 | patch.
pub const SIDEWIRE_VERSION: u32 = 0x000100;

const _: () = {
    const fn number(text: &str) -> u32 {
        match u32::from_str_radix(text, 10) {
            Ok(n) => n,
            Err(_) => panic!("a version has three numbers"),
        }
    }
    let major = number(env!("CARGO_PKG_VERSION_MAJOR"));
    let minor = number(env!("CARGO_PKG_VERSION_MINOR"));
    let patch = number(env!("CARGO_PKG_VERSION_PATCH"));
    assert!(SIDEWIRE_VERSION == major << 16 | minor << 8 | patch);
};

/// Who carries a socket: the engine, or the kernel and why.
#[allow(non_camel_case_types, dead_code)]
#[repr(C)]
pub enum sidewire_carrier {
    /// The engine: it is accelerated.
    Engine = 0,
    /// The kernel: not a TCP socket.
    NotTcp = 1,
    /// The kernel: the settings say so.
    Disabled = 2,
    /// The kernel; why is not known: it came from another process, or thousands of sockets ago.
    Unknown = 3,
    /// The kernel: no packet socket is to be had (CAP_NET_RAW).
    NoPacketSocket = 4,
    /// The kernel: the peer, or the address that it is bound to, is of this host.
    Local = 5,
    /// The kernel: IPv6.
    Ipv6 = 6,
    /// The kernel: others listen on the port as well, by SO_REUSEPORT.
    ReusePort = 7,
    /// The kernel: the way leads through a device without an Ethernet-like header.
    Device = 8,
    /// The kernel: nothing was found that keeps it silent on the port.
    NoHolder = 9,
    /// The kernel: the descriptor's number is too large.
    Descriptor = 10,
    /// The kernel: shared with another process, by fork, exec or spawn.
    Shared = 11,
    /// The kernel: by sidewire_to_kernel.
    HandedOver = 12,
    /// The kernel: an option that the engine does not have, as IP_TRANSPARENT.
    Option = 13,
}

/// A send's completion, in memory of the caller's that stays until it is called; commonly the first member of a larger
/// structure.
///
/// `complete` is called once, when the last byte that the call took has been acknowledged by the peer, or dropped because
/// the connection was reset or closed. `zerocopy` is true when no byte was copied on its way by us or by the kernel, so far
/// as that is known. Then the buffers are the caller's again.
///
/// It runs on a thread of the library's own, one completion after the other: never inside of a call of the program's,
/// never in a signal handler, and with no lock held. All signals are blocked there, and its stack has 2 MiB. It may call
/// anything, sidewire_sendmsg and close included; while it sleeps no other completion is called. It must return: no
/// longjmp, pthread_exit or exception out of it. In the child of a fork, and when the process ends, what is outstanding is not
/// called.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct sidewire_ubuf {
    /// What is called.
    pub complete: Option<unsafe extern "C" fn(ubuf: *mut sidewire_ubuf, zerocopy: bool)>,
}

/// What no socket option tells of a socket.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct sidewire_socket_stats {
    /// enum sidewire_carrier; the other members are 0 unless it is the engine.
    pub carrier: u32,
    /// The device of the socket's route, 0 while there is none.
    pub ifindex: u32,
    /// Buffers that were never sent.
    pub write_queue: u32,
    /// Buffers that were sent and are not acknowledged.
    pub rtx_queue: u32,
    /// Received segments that wait for others before them.
    pub ofo_queue: u32,
    /// Zerocopy sends, of either kind, that are not complete.
    pub zerocopy: u32,
    /// 1 while the packet socket is full.
    pub tx_blocked: u32,
}

fn answer(r: Result<c_int, c_int>) -> c_int {
    r.unwrap_or_else(|e| {
        raw::set_errno(e);
        -1
    })
}

fn number(carrier: Carrier) -> sidewire_carrier {
    match carrier {
        Carrier::Engine => sidewire_carrier::Engine,
        Carrier::NotTcp => sidewire_carrier::NotTcp,
        Carrier::Disabled => sidewire_carrier::Disabled,
        Carrier::Unknown => sidewire_carrier::Unknown,
        Carrier::Kernel(reason) => match reason {
            Reason::NoPacketSocket => sidewire_carrier::NoPacketSocket,
            Reason::Local => sidewire_carrier::Local,
            Reason::Ipv6 => sidewire_carrier::Ipv6,
            Reason::ReusePort => sidewire_carrier::ReusePort,
            Reason::Device => sidewire_carrier::Device,
            Reason::NoHolder => sidewire_carrier::NoHolder,
            Reason::Descriptor => sidewire_carrier::Descriptor,
            Reason::Shared => sidewire_carrier::Shared,
            Reason::HandedOver => sidewire_carrier::HandedOver,
            Reason::Option => sidewire_carrier::Option,
            Reason::Rule => sidewire_carrier::Disabled,
        },
    }
}

/// The version of the library that is in front of the program: major << 16 | minor << 8 | patch.
#[unsafe(no_mangle)]
pub extern "C" fn sidewire_version() -> u32 {
    SIDEWIRE_VERSION
}

/// Who carries the socket `fd`: an enum sidewire_carrier. A socket that is neither connected nor listening may still go to
/// the kernel.
///
/// -1 and EBADF when nothing is open under that number.
#[unsafe(no_mangle)]
pub extern "C" fn sidewire_carried_by(fd: c_int) -> c_int {
    answer(carrier::of(fd).map(|c| number(c) as c_int))
}

/// An enum sidewire_carrier in words, for a log line; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sidewire_carrier_text(carrier: c_int) -> *const c_char {
    let texts = [
        c"accelerated",
        c"not a TCP socket",
        c"disabled by the settings",
        c"for an unknown reason",
        Reason::NoPacketSocket.words(),
        Reason::Local.words(),
        Reason::Ipv6.words(),
        Reason::ReusePort.words(),
        Reason::Device.words(),
        Reason::NoHolder.words(),
        Reason::Descriptor.words(),
        Reason::Shared.words(),
        Reason::HandedOver.words(),
        Reason::Option.words(),
    ];
    let text = usize::try_from(carrier).ok().and_then(|i| texts.get(i));
    text.copied().unwrap_or(c"unknown").as_ptr()
}

/// sendmsg(2) of memory that stays the caller's until `ubuf->complete` is called: io_uring's zerocopy send, for any program.
/// The bytes are referenced and sent from where they are; `msg` and its iovecs may go when the call returns. SO_ZEROCOPY and
/// the error queue have no part in it. Where the engine does not carry the socket the bytes are copied, and `complete` is
/// called at once.
///
/// The result is that of sendmsg(2), a short count included. `complete` will be called exactly when it is above 0.
///
/// Also EINVAL when `ubuf` or its function is NULL (any other pointer that leads to no sidewire_ubuf is undefined behaviour),
/// ENOBUFS when 65536 sends are outstanding, EAGAIN when the thread that calls back cannot be started.
#[allow(clippy::missing_safety_doc)] // The text is the header's, and says it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sidewire_sendmsg(
    fd: c_int,
    msg: *const msghdr,
    flags: c_int,
    ubuf: *mut sidewire_ubuf,
) -> ssize_t {
    // SAFETY: the caller's pointer, which may be null.
    if unsafe { ubuf.as_ref() }.is_none_or(|u| u.complete.is_none()) {
        raw::set_errno(libc::EINVAL);
        return -1;
    }
    // SAFETY: the caller's arguments.
    unsafe { calls::sendmsg_ubuf(fd, msg, flags, ubuf as u64, call_back) }
}

fn call_back(cookie: u64, zerocopy: bool) {
    let ubuf = cookie as *mut sidewire_ubuf;
    // SAFETY: the caller of `sidewire_sendmsg` keeps it until now.
    if let Some(complete) = unsafe { (*ubuf).complete } {
        // SAFETY: the caller's function, with what it was given for.
        unsafe { complete(ubuf, zerocopy) }
    }
}

/// Registers device memory for sends with the control message SCM_DEVMEM_DMABUF: the id that it returns goes there, and
/// iov_base is then an offset into the memory. `dmabuf` is any descriptor that can be mapped for reading (a dma-buf, a
/// udmabuf, a memfd) of at most 4 GiB less a page; it may be closed afterwards. `ifindex` is the device that the sends leave
/// by, as with the kernel's NETDEV_CMD_BIND_TX; 0 stands for any. It holds in the network namespace of the calling thread.
///
/// -1 and EINVAL for memory of no or too many bytes, ENODEV when there is no such device, ENOBUFS beyond 1024 registrations,
/// EOPNOTSUPP when the engine does not work here; else what lseek(2) or mmap(2) say.
#[unsafe(no_mangle)]
pub extern "C" fn sidewire_dmabuf_bind(dmabuf: c_int, ifindex: c_uint) -> c_int {
    answer(dmabuf::bind(dmabuf, ifindex).map(|id| id as c_int))
}

/// Ends a registration. What was sent from the memory and is not acknowledged keeps it.
///
/// -1 and ENOENT when there is none of that id, EOPNOTSUPP as above.
#[unsafe(no_mangle)]
pub extern "C" fn sidewire_dmabuf_unbind(id: c_int) -> c_int {
    let id = u32::try_from(id).map_err(|_| libc::ENOENT);
    answer(id.and_then(dmabuf::unbind).map(|()| 0))
}

/// Gives the socket to the kernel, a live connection with all that is queued and no byte lost (TCP_REPAIR); for instance
/// before it is passed to a program without Sidewire. What the kernel has already stays there.
///
/// -1 and EBADF; EPERM without CAP_NET_ADMIN; EBUSY while it is being opened; ECONNABORTED when the kernel refused
/// it, and then the connection is lost.
#[unsafe(no_mangle)]
pub extern "C" fn sidewire_to_kernel(fd: c_int) -> c_int {
    answer(calls::hand_over(fd).map(|()| 0))
}

/// Fills `stats`, of `size` bytes: members that the library does not know become 0, and those that the caller does not know
/// are left out.
///
/// -1 and EBADF, or EFAULT.
#[allow(clippy::missing_safety_doc)] // The text is the header's, and says it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sidewire_socket_stats(
    fd: c_int,
    stats: *mut sidewire_socket_stats,
    size: size_t,
) -> c_int {
    let carrier = match carrier::of(fd) {
        Ok(carrier) => number(carrier) as u32,
        Err(e) => return answer(Err(e)),
    };
    let known = stats::of_socket(fd).unwrap_or_default();
    let all = sidewire_socket_stats {
        carrier,
        ifindex: known.ifindex,
        write_queue: known.write_queue,
        rtx_queue: known.rtx_queue,
        ofo_queue: known.ofo_queue,
        zerocopy: known.zerocopy,
        tx_blocked: known.tx_blocked.into(),
    };
    let len = size.min(size_of_val(&all));
    let zeros = [0u8; 64];
    let mut at = len;
    // SAFETY: `all` and `zeros` are live, and no more than they have is read; the program's memory is checked.
    let copied = unsafe {
        let mut copied = copy::to_program(stats.cast(), (&raw const all).cast(), len);
        while copied.is_ok() && at < size {
            let n = (size - at).min(zeros.len());
            copied = copy::to_program(stats.cast::<u8>().wrapping_add(at), zeros.as_ptr(), n);
            at += n;
        }
        copied
    };
    answer(copied.map(|()| 0).map_err(|_| libc::EFAULT))
}

/// Calls `each` with every counter of this process, under Linux's name where it has one (RetransSegs, TCPTimeouts, ...), and
/// `argument`: in the calling thread, with no lock held. A name is good until `each` returns.
#[allow(clippy::missing_safety_doc)] // The text is the header's, and says it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sidewire_counters(
    each: Option<unsafe extern "C" fn(argument: *mut c_void, name: *const c_char, value: u64)>,
    argument: *mut c_void,
) {
    let Some(each) = each else {
        return;
    };
    stats::for_each(|name, value| {
        if let Ok(name) = CString::new(name) {
            // SAFETY: the caller's function and argument.
            unsafe { each(argument, name.as_ptr(), value) }
        }
    });
}
