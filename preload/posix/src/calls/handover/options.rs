//! The options of a connection that becomes the kernel's. The kernel's socket has those that the program set before there was a
//! connection; not those that came with the listener, nor those that are set while it lasts ([`moves`]). And TCP_REPAIR takes
//! SO_REUSEADDR away.

use core::ffi::c_int;
use core::sync::atomic::Ordering;

use sidewire_engine::SocketId;
use sidewire_uapi::socket as so;
use sidewire_uapi::tcp;
use syscalls::{Sysno, syscall};

use crate::file::File;
use crate::stack::Inner;

/// What an option's value is.
const INT: usize = size_of::<c_int>();
const RATE: usize = size_of::<u64>();
const LINGER: usize = size_of::<libc::linger>();
const TIME: usize = size_of::<libc::timeval>();
/// TCP_CA_NAME_MAX.
const NAME: usize = 16;

/// The options, in the order in which they are set: IP_TOS sets a priority, and keepalive comes when its times are known.
const OPTIONS: [(c_int, c_int, usize); 36] = [
    (libc::SOL_SOCKET, so::SO_REUSEADDR, INT),
    (libc::SOL_SOCKET, so::SO_BINDTOIFINDEX, INT),
    (libc::SOL_SOCKET, so::SO_MARK, INT),
    (libc::SOL_SOCKET, so::SO_OOBINLINE, INT),
    (libc::SOL_SOCKET, so::SO_PEEK_OFF, INT),
    (libc::SOL_SOCKET, so::SO_ZEROCOPY, INT),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, INT),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, INT),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, INT),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO, TIME),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO, TIME),
    (libc::SOL_SOCKET, libc::SO_LINGER, LINGER),
    (libc::SOL_SOCKET, so::SO_MAX_PACING_RATE, RATE),
    (libc::SOL_SOCKET, so::SO_TIMESTAMP, INT),
    (libc::SOL_SOCKET, so::SO_TIMESTAMPNS, INT),
    (libc::IPPROTO_IP, libc::IP_TOS, INT),
    (libc::SOL_SOCKET, so::SO_PRIORITY, INT),
    (libc::IPPROTO_IP, libc::IP_TTL, INT),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, INT),
    (libc::IPPROTO_IP, libc::IP_RECVERR, INT),
    (libc::IPPROTO_TCP, libc::TCP_CONGESTION, NAME),
    (libc::IPPROTO_TCP, tcp::TCP_SYNCNT, INT),
    (libc::IPPROTO_TCP, tcp::TCP_LINGER2, INT),
    (libc::IPPROTO_TCP, tcp::TCP_USER_TIMEOUT, INT),
    (libc::IPPROTO_TCP, tcp::TCP_NOTSENT_LOWAT, INT),
    (libc::IPPROTO_TCP, tcp::TCP_RTO_MAX_MS, INT),
    (libc::IPPROTO_TCP, tcp::TCP_INQ, INT),
    (libc::IPPROTO_TCP, tcp::TCP_THIN_LINEAR_TIMEOUTS, INT),
    (libc::IPPROTO_TCP, tcp::TCP_CORK, INT),
    (libc::IPPROTO_TCP, tcp::TCP_NODELAY, INT),
    (libc::IPPROTO_TCP, tcp::TCP_WINDOW_CLAMP, INT),
    (libc::IPPROTO_TCP, tcp::TCP_QUICKACK, INT),
    (libc::IPPROTO_TCP, tcp::TCP_KEEPIDLE, INT),
    (libc::IPPROTO_TCP, tcp::TCP_KEEPINTVL, INT),
    (libc::IPPROTO_TCP, tcp::TCP_KEEPCNT, INT),
    (libc::SOL_SOCKET, so::SO_KEEPALIVE, INT),
];

/// Longest value in bytes.
const VALUE_MAX: usize = 16;

/// True for an option that goes with a connection to the kernel: until then the kernel's socket need not know it, which spares a
/// program that sets one for each answer, as TCP_CORK, a system call each time.
pub(in crate::calls) fn moves(level: c_int, name: c_int) -> bool {
    OPTIONS
        .iter()
        .any(|option| (option.0, option.1) == (level, name))
}

/// What was set while there was a connection is at the kernel's socket, too, before it is used as one that is not connected.
pub(in crate::calls) fn bring(file: &File, fd: c_int) {
    if file.options_apart.swap(false, Ordering::Relaxed) {
        let values = file.stack().with(|inner| Values::of(inner, file.id()));
        values.set(fd);
    }
}

/// The values of [`OPTIONS`], where the engine has them.
pub(super) struct Values([Option<[u8; VALUE_MAX]>; OPTIONS.len()]);

impl Values {
    pub(super) fn of(inner: &mut Inner, id: SocketId) -> Self {
        let (engine, mut io) = inner.split();
        let chosen = engine.sock(id).map_or((false, false, false), |sk| {
            let o = &sk.opts;
            (o.buf_lock_snd, o.buf_lock_rcv, o.window_clamp != 0)
        });
        Self(OPTIONS.map(|(level, name, len)| {
            let mut value = [0; VALUE_MAX];
            let got = engine.getsockopt(&mut io, id, level, name, len as c_int, &mut value);
            got.ok()?;
            match (level, name) {
                // A size that the program did not choose is for the kernel to choose.
                (libc::SOL_SOCKET, libc::SO_SNDBUF) if !chosen.0 => None,
                (libc::SOL_SOCKET, libc::SO_RCVBUF) if !chosen.1 => None,
                (libc::IPPROTO_TCP, tcp::TCP_WINDOW_CLAMP) if !chosen.2 => None,
                _ => Some(value),
            }
        }))
    }

    /// Sets them at the kernel's socket, where it has others. What it refuses stays as it is.
    pub(super) fn set(&self, fd: c_int) {
        for ((level, name, len), value) in OPTIONS.iter().zip(&self.0) {
            let Some(mut value) = *value else {
                continue;
            };
            let mut now = [0u8; VALUE_MAX];
            let mut room = *len as libc::socklen_t;
            // SAFETY: the kernel writes `room` bytes at most; values are integers and names.
            unsafe {
                let got = syscall!(
                    Sysno::getsockopt,
                    fd,
                    *level,
                    *name,
                    now.as_mut_ptr(),
                    &raw mut room
                );
                if got.is_err() || now == value {
                    continue;
                }
                if matches!(*name, libc::SO_SNDBUF | libc::SO_RCVBUF) && *level == libc::SOL_SOCKET
                {
                    // It doubles what it is told.
                    let bytes = value[..INT].try_into().map_or(0, c_int::from_ne_bytes);
                    value[..INT].copy_from_slice(&(bytes / 2).to_ne_bytes());
                }
                let _ = syscall!(Sysno::setsockopt, fd, *level, *name, value.as_ptr(), *len);
            }
        }
    }
}
