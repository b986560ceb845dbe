//! The sends of which one `sendfile` or `splice` consists: Linux 6.16 `splice_to_socket` makes one for what a pipe's sixteen
//! pages hold, goes on after a short one, and each waits for itself (SO_SNDTIMEO).

use core::cell::Cell;

use libc::c_int;
use sidewire_engine::memory::IovIter;
use sidewire_uapi::socket::{MSG_DONTWAIT, MSG_MORE};

use super::MOVED;
use super::send::{SendArgs, send_iter};
use crate::file::FileRef;
use crate::signals;

/// Bytes of a piece, at most: sixteen pages, as a new pipe has.
pub(super) const PIECE: usize = 64 * 1024;

/// Bytes from `pos` of a file to the end of its piece, which begins with the page of `pos`.
pub(super) fn piece_from(pos: i64) -> usize {
    PIECE - (pos % 4096) as usize
}

/// How bytes get into the socket's buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bytes {
    Referenced,
    Copied,
}

/// The sends that one call makes to a socket.
pub(super) struct Pieces<'a> {
    to: &'a FileRef,
    /// The program's call, by its name.
    call: &'static str,
    /// It is no cancellation point.
    whole: bool,
    /// They can be told from one by timeouts or timestamps.
    apart: bool,
    /// The first bytes open the connection (TCP_FASTOPEN_CONNECT).
    pub(super) connects: bool,
    /// Bytes that they have taken.
    pub(super) done: usize,
    interrupted: Cell<bool>,
    moved: bool,
}

impl<'a> Pieces<'a> {
    pub(super) fn of_splice(to: &'a FileRef) -> Self {
        Self::new(to, "splice", false)
    }

    pub(super) fn of_sendfile(to: &'a FileRef) -> Self {
        Self::new(to, "sendfile", true)
    }

    fn new(to: &'a FileRef, call: &'static str, whole: bool) -> Self {
        let _inside = signals::enter();
        let (apart, connects) = to.stack().with(|i| match i.engine.sock(to.id()) {
            Some(sk) => (
                sk.opts.sndtimeo.is_some() || sk.opts.tsflags != 0,
                sk.defer_connect,
            ),
            None => (true, false),
        });
        Self {
            to,
            call,
            whole,
            apart,
            connects,
            done: 0,
            interrupted: Cell::new(false),
            moved: false,
        }
    }

    /// The kernel got the socket, and the rest of the `count` bytes is to be sent there.
    pub(super) fn go_on_there(&self, count: usize) -> bool {
        self.moved && self.done < count && !self.interrupted.get()
    }

    /// Bytes of the next piece of a file, at `pos`: where nobody can tell, one send is cheaper.
    pub(super) fn piece_from(&self, pos: i64) -> usize {
        if self.apart {
            piece_from(pos)
        } else {
            usize::MAX
        }
    }

    /// The file is over before all that was asked for: what was sent with more to follow waits no longer.
    pub(super) fn end_of_file(&self) {
        if self.done == 0 || self.moved {
            return;
        }
        let _inside = signals::enter();
        let _turn = self.to.sending.lock();
        self.to.stack().with(|i| {
            let (engine, mut io) = i.split();
            engine.splice_eof(&mut io, self.to.id());
        });
    }

    /// Sends a piece of `len` bytes, `from` so many on; more is to follow when `more`. How many were taken: fewer when a later
    /// send of it failed or would have to wait, and then the call is over.
    pub(super) fn send<I: IovIter>(
        &mut self,
        len: usize,
        more: bool,
        bytes: Bytes,
        mut from: impl FnMut(usize) -> I,
    ) -> Result<usize, c_int> {
        let mut sent = 0;
        while sent < len {
            // With a signal pending Linux still sends what there is room for.
            let wait = if self.interrupted.get() {
                MSG_DONTWAIT
            } else {
                0
            };
            let flags = wait | if more { MSG_MORE } else { 0 };
            let args = SendArgs {
                splice: bytes == Bytes::Referenced,
                follows: self.done > 0,
                interrupted: Some(&self.interrupted),
                whole: self.whole,
                ..SendArgs::of(self.call, flags)
            };
            match send_iter(self.to, args, || from(sent)) {
                Ok(n) => {
                    sent += n;
                    self.done += n;
                }
                Err(e) => {
                    self.moved = e == MOVED;
                    if sent > 0 {
                        break;
                    }
                    return Err(e);
                }
            }
        }
        Ok(sent)
    }
}
