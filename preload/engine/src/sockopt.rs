//! `setsockopt` and `getsockopt` (`rows.toml` sockopts). One file a level: `socket`, `tcp`, `ip`.
//!
//! Options that are pure values of the descriptor (SO_BROADCAST, IP_PKTINFO, filters ...) are not known here: whoever calls
//! keeps them elsewhere, asks only for what the TCP has to know, and leaves a note for a listener's children
//! ([`Stack::kernels_option`]).

mod ip;
mod socket;
pub(crate) use socket::SOCK_MIN_RCVBUF;
mod tcp;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use arrayvec::ArrayVec;
use sidewire_uapi::socket::{SOL_IP, SOL_SOCKET, SOL_TCP};

use crate::error::Error;
use crate::opts::{KERNELS_OPTIONS, KernelsOption, SockOpts};
use crate::stack::{Caps, Io, SocketId, Stack};

/// The first four bytes of an option's value as an `int` (SO-1, SO-2).
fn int(val: &[u8]) -> Result<i32, Error> {
    let bytes = val.first_chunk().ok_or(Error::Inval)?;
    Ok(i32::from_ne_bytes(*bytes))
}

/// An `int` within `range`.
fn int_in(val: &[u8], range: core::ops::RangeInclusive<i32>) -> Result<i32, Error> {
    let v = int(val)?;
    if range.contains(&v) {
        Ok(v)
    } else {
        Err(Error::Inval)
    }
}

/// 0 or 1, nothing else.
fn zero_or_one(val: &[u8]) -> Result<bool, Error> {
    int_in(val, 0..=1).map(|v| v == 1)
}

/// Where an option's value goes: at most as many bytes as the program has room for (SO-3, SO-4).
struct Out<'a> {
    room: usize,
    buf: &'a mut [u8],
}

impl Out<'_> {
    fn bytes(self, v: &[u8]) -> Result<usize, Error> {
        let n = v.len().min(self.room).min(self.buf.len());
        self.buf[..n].copy_from_slice(&v[..n]);
        Ok(n)
    }

    fn int(self, v: i32) -> Result<usize, Error> {
        self.bytes(&v.to_ne_bytes())
    }

    fn uint(self, v: u32) -> Result<usize, Error> {
        self.bytes(&v.to_ne_bytes())
    }

    fn flag(self, v: bool) -> Result<usize, Error> {
        self.int(v.into())
    }
}

impl Stack {
    /// Sets an option. `val` is as long as the program said (`optlen`).
    ///
    /// # Errors
    /// By option: `rows.toml` sockopts; `NoProtoOpt` for what is not known (SO-6, SO-7).
    pub fn setsockopt(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        level: i32,
        name: i32,
        val: &[u8],
        caps: Caps,
    ) -> Result<(), Error> {
        let (sk, mut cx) = self.borrow(io, id).ok_or(Error::BadFd)?;
        let r = match level {
            SOL_SOCKET => socket::set(sk, &mut cx, name, val, caps),
            SOL_TCP => tcp::set(sk, &mut cx, name, val, caps),
            SOL_IP => ip::set(sk, name, val),
            _ => Err(Error::NoProtoOpt),
        };
        self.settle(id);
        r
    }

    /// Reads an option: at most `len` bytes to `out`; returns the new `optlen`.
    ///
    /// # Errors
    /// `Inval` for a negative length, `NoProtoOpt` or `OpNotSupp` for what is not known (SO-5..SO-7).
    pub fn getsockopt(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        level: i32,
        name: i32,
        len: i32,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let room = usize::try_from(len).map_err(|_| Error::Inval)?;
        let out = Out { room, buf: out };
        let (sk, mut cx) = self.borrow(io, id).ok_or(Error::BadFd)?;
        match level {
            SOL_SOCKET => socket::get(sk, &mut cx, name, out),
            SOL_TCP => tcp::get(sk, &mut cx, name, out),
            SOL_IP => ip::get(sk, &cx, name, out),
            _ => Err(Error::OpNotSupp),
        }
    }

    /// Notes an option that the kernel's socket was given, so that those of children made from now on get it
    /// (`SockOpts::kernels`). What is longer than a [`KernelsOption`] holds, and what is over their number, is not noted.
    pub fn kernels_option(&mut self, id: SocketId, level: i32, name: i32, val: &[u8]) {
        let (Some(sk), Ok(value)) = (self.socks.get_mut(id), ArrayVec::try_from(val)) else {
            return;
        };
        let noted = Arc::make_mut(sk.opts.kernels.get_or_insert_default());
        noted.retain(|o| (o.level, o.name) != (level, name));
        if noted.len() < KERNELS_OPTIONS {
            noted.push(KernelsOption { level, name, value });
        }
    }
}

/// The options of an accepted socket (SO-41): its listener's, but for SO_PRIORITY, which Linux resets. TCP_NODELAY,
/// TCP_CORK, buffer sizes and the congestion control live in the socket itself and are copied there.
#[must_use]
pub fn inherit(parent: &SockOpts) -> SockOpts {
    SockOpts {
        priority: 0,
        ..parent.clone()
    }
}
