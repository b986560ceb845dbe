//! Events by signal: SIGURG to a file's owner, and SIGIO where O_ASYNC asks for it (Linux `fown_struct`, `send_sigurg`,
//! `send_sigio`). The kernel keeps owner and signal at the shadow; they are read back when the program changes them.

use core::ffi::c_int;
use std::sync::Arc;

use libc::siginfo_t;
use sidewire_engine::event::Events;
use sidewire_uapi::fcntl;
use sidewire_uapi::poll::{
    POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM, POLLWRBAND, POLLWRNORM,
};
use syscalls::{Sysno, syscall};

use crate::file::{File, FileRef};
use crate::lock::Mutex;
use crate::syscall;
use crate::wait::Watcher;

/// Bytes of a `siginfo_t`.
const SIGINFO: usize = 128;
/// `si_code` of a queued SIGIO (`asm-generic/siginfo.h`), which Linux itself does not send.
const SI_SIGIO: c_int = -5;
/// `si_code` of a signal that the kernel sends without a reason.
const SI_KERNEL: c_int = 0x80;

/// Linux's `struct f_owner_ex`, its signal, and whether O_ASYNC is set.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Fown {
    kind: c_int,
    id: c_int,
    /// 0 for SIGIO, without information.
    signal: c_int,
    asynchronous: bool,
    /// The descriptor by which that was set (Linux `fasync_struct`).
    fd: c_int,
}

/// Whom a file's events are signalled to.
#[derive(Default)]
pub(crate) struct Owner(Mutex<Fown>);

impl Fown {
    fn of(fd: c_int) -> Self {
        let mut owner = [0 as c_int; 2];
        let asked = syscall::fcntl(fd, fcntl::F_GETOWN_EX, owner.as_mut_ptr() as usize);
        if asked.is_err() {
            return Self::default();
        }
        let flags = syscall::fcntl(fd, libc::F_GETFL, 0).unwrap_or(0);
        Self {
            kind: owner[0],
            id: owner[1],
            signal: syscall::fcntl(fd, fcntl::F_GETSIG, 0).unwrap_or(0),
            asynchronous: flags & libc::O_ASYNC != 0,
            fd,
        }
    }

    /// A bare signal. Whom we may not signal is not told, as in Linux.
    fn kill(self, signal: c_int) {
        // SAFETY: numbers.
        let _ = unsafe {
            match self.kind {
                fcntl::F_OWNER_TID => syscall!(Sysno::tkill, self.id, signal),
                fcntl::F_OWNER_PGRP => syscall!(Sysno::kill, -self.id, signal),
                _ => syscall!(Sysno::kill, self.id, signal),
            }
        };
    }

    /// A signal without information. Only this process knows the face of a queued one.
    fn tell(self, signal: c_int) {
        let ours = match self.kind {
            fcntl::F_OWNER_PGRP => false,
            fcntl::F_OWNER_TID => true,
            _ => self.id == syscall::getpid(),
        };
        if ours {
            self.queue(signal, SI_KERNEL, 0);
        } else {
            self.kill(signal);
        }
    }

    /// A signal that says what happened where, or with the code [`SI_KERNEL`] nothing. A thread may say that to itself only;
    /// so it goes as a queued one, and [`reveal`] gives it its face at the handler.
    fn queue(self, signal: c_int, code: c_int, band: u32) {
        let mut info = [0u64; SIGINFO / 8];
        let halves = |low: c_int, high: c_int| u64::from(low as u32) | u64::from(high as u32) << 32;
        info[0] = halves(signal, code);
        info[1] = halves(SI_SIGIO, 0);
        if code != SI_KERNEL {
            info[2] = u64::from(band);
            info[3] = halves(self.fd, 0);
        }
        let info = info.as_ptr();
        // SAFETY: a live siginfo.
        let told = unsafe {
            match self.kind {
                fcntl::F_OWNER_TID => {
                    let me = syscall::getpid();
                    syscall!(Sysno::rt_tgsigqueueinfo, me, self.id, signal, info)
                }
                fcntl::F_OWNER_PGRP => Err(syscall::Errno::EPERM),
                _ => syscall!(Sysno::rt_sigqueueinfo, self.id, signal, info),
            }
        };
        if told.is_err() {
            self.kill(signal);
        }
    }

    /// What O_ASYNC asks for (Linux `kill_fasync`).
    fn tell_async(self, events: Events) {
        let told = BANDS.iter().filter(|(event, ..)| events.contains(*event));
        if self.signal != 0 {
            for (_, code, band) in told {
                self.queue(self.signal, *code, *band);
            }
        } else if told.count() > usize::from(events.contains(Events::URG)) {
            // Urgent data has a signal of its own. This one is pending once.
            self.tell(libc::SIGIO);
        }
    }
}

/// Before a handler sees it: a signal that [`Fown::queue`] sent gets the code that the kernel's would have.
/// Async-signal-safe.
///
/// # Safety
/// `info` is the kernel's.
pub(crate) unsafe fn reveal(info: *mut siginfo_t) {
    // SAFETY: by the caller.
    let info = unsafe { &mut *info };
    let known =
        (fcntl::POLL_IN..=fcntl::POLL_HUP).contains(&info.si_errno) || info.si_errno == SI_KERNEL;
    if info.si_code == SI_SIGIO && known {
        info.si_code = core::mem::take(&mut info.si_errno);
    }
}

/// Linux's band table: `si_code` and `si_band` of each reason.
const BANDS: [(Events, c_int, u32); 6] = [
    (Events::URG, fcntl::POLL_PRI, POLLPRI | POLLRDBAND),
    (Events::SIGIO_ERR, fcntl::POLL_ERR, POLLERR),
    (Events::SIGIO_HUP, fcntl::POLL_HUP, POLLHUP | POLLERR),
    (Events::SIGIO_IN, fcntl::POLL_IN, POLLIN | POLLRDNORM),
    (Events::SIGIO_IN_AGAIN, fcntl::POLL_IN, POLLIN | POLLRDNORM),
    (
        Events::SIGIO_OUT,
        fcntl::POLL_OUT,
        POLLOUT | POLLWRNORM | POLLWRBAND,
    ),
];

impl Watcher for Owner {
    fn notify(&self, _file: &'static File, events: u32) {
        let owner = *self.0.lock();
        if owner.id == 0 {
            return;
        }
        let events = Events::from_bits_truncate(events);
        if owner.asynchronous {
            owner.tell_async(events);
        }
        // Linux's is the first, and its handler runs last: all are pending by then, and the lowest one is behind.
        if events.contains(Events::URG) {
            owner.tell(libc::SIGURG);
        }
    }

    // The kernel has the owner, and tells it from now on.
    fn to_kernel(&self, _file: &'static File) {}

    fn closed(&self, _file: &'static File) {}
}

/// The program has changed who owns `fd`, by which signal it is told, or O_ASYNC.
pub(crate) fn changed(file: &FileRef, fd: c_int) {
    let mut now = Fown::of(fd);
    let mut owner = file.owner.lock();
    match &*owner {
        Some(known) => {
            let mut known = known.0.lock();
            if known.asynchronous && now.asynchronous {
                now.fd = known.fd;
            }
            *known = now;
        }
        None if now.id != 0 || now.asynchronous => {
            let new = Arc::new(Owner(Mutex::new(now)));
            *owner = Some(new.clone());
            drop(owner);
            file.wait.watch(new, !0);
        }
        None => {}
    }
}
