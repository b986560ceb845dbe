//! Repair mode of a socket that is not connected and becomes the kernel's: it may be on the way to a connection that is
//! rebuilt, with its sequence numbers set.

use core::ffi::c_int;

use sidewire_engine::header::tsval;
use sidewire_uapi::TcpState;
use sidewire_uapi::tcp::{self, repair};

use crate::file::File;
use crate::syscall;

/// What a closed socket in repair mode has of it.
pub(in crate::calls) struct Repairing {
    queue: c_int,
    write_seq: u32,
    rcv_nxt: u32,
    /// TCP_TIMESTAMP, where the program has set it.
    tsval: Option<u32>,
    reuseaddr: c_int,
}

impl Repairing {
    /// None where the socket is not closed, or not in repair mode.
    pub(in crate::calls) fn of(file: &File) -> Option<Self> {
        file.stack().with(|inner| {
            let (engine, io) = inner.split();
            let sk = engine.sock(file.id())?;
            (sk.repair.on && sk.state == TcpState::Close).then(|| Self {
                queue: sk.repair.queue as c_int,
                write_seq: sk.write_seq,
                rcv_nxt: sk.rcv_nxt,
                // The lowest bit chooses the unit.
                tsval: (sk.tsoffset != 0 || sk.tcp_usec_ts)
                    .then(|| tsval(sk, io.now) & !1 | u32::from(sk.tcp_usec_ts)),
                reuseaddr: sk.opts.reuseaddr.into(),
            })
        })
    }

    /// Puts the kernel's socket `fd` into the same. Without the capability it stays as it is.
    pub(in crate::calls) fn set(&self, fd: c_int) {
        let set = |name, value: u32| syscall::setsockopt(fd, libc::IPPROTO_TCP, name, &value);
        if set(tcp::TCP_REPAIR, repair::ON as u32).is_err() {
            return;
        }
        for (queue, seq) in [
            (repair::SEND_QUEUE, self.write_seq),
            (repair::RECV_QUEUE, self.rcv_nxt),
        ] {
            let _ = set(tcp::TCP_REPAIR_QUEUE, queue as u32);
            // Refused where unread data is there, and right then.
            let _ = set(tcp::TCP_QUEUE_SEQ, seq);
        }
        let _ = set(tcp::TCP_REPAIR_QUEUE, self.queue as u32);
        if let Some(tsval) = self.tsval {
            let _ = set(tcp::TCP_TIMESTAMP, tsval);
        }
        if self.reuseaddr <= 1 {
            // Set since.
            let _ = syscall::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &self.reuseaddr);
        }
    }
}
