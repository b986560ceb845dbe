//! The end of the last thread of the program. libc ends a process with its last thread; the pump is a thread, too, and must
//! not keep alive a process whose main thread left by pthread_exit(3) and whose others have returned.
//!
//! While the main thread is there, the pump looks at it once a second: the kernel tells nobody of the end of a main thread
//! that others survive. From then on it keeps a descriptor of one of the others (a pidfd of a thread: Linux 6.9), which
//! becomes readable when that one ends, and takes the next. When there is none left it does what libc would have done.

use core::sync::atomic::{AtomicI32, Ordering};
use std::os::fd::{AsRawFd, IntoRawFd};

use libc::pollfd;
use sidewire_link::Errno;
use sidewire_link::fd::{Fd, move_high};

use crate::signals::cancel::Off;
use crate::stack::{MAX_STACKS, monotonic_ns};
use crate::syscall;

/// Threads of the library's own: a pump for each stack, one that gives it a ring, and the one that calls completions back.
const OWN_MAX: usize = 2 * MAX_STACKS + 1;
/// Their numbers; 0 for none.
static OWN: [AtomicI32; OWN_MAX] = [const { AtomicI32::new(0) }; OWN_MAX];

/// How often the main thread is looked at, in nanoseconds.
const LOOK_NS: u64 = 1_000_000_000;

/// A thread of the program, being watched.
pub(crate) enum Company {
    /// The main thread, to be looked at then (nanoseconds of the monotonic clock), and its state: open all the time, since a
    /// descriptor that comes and goes would have a number that the program may count on.
    Main(u64, Option<Fd>),
    /// Another one: the main thread has ended.
    Thread(Fd),
    /// The kernel does not tell.
    Unknown,
}

/// What became of the program's threads.
enum Others {
    /// One of them.
    One(Fd),
    None,
    /// The kernel does not tell.
    Unknown,
}

/// In the child of a fork, where none of our own threads is.
pub(crate) fn forked() {
    for thread in &OWN {
        thread.store(0, Ordering::Relaxed);
    }
}

/// The calling thread is the library's own: it is nobody's company.
pub(crate) fn enroll() {
    let me = syscall::gettid();
    for slot in &OWN {
        if slot
            .compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            return;
        }
    }
}

/// The calling thread is about to end.
pub(crate) fn leave() {
    let me = syscall::gettid();
    for slot in &OWN {
        let _ = slot.compare_exchange(me, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn is_own(tid: i32) -> bool {
    OWN.iter().any(|own| own.load(Ordering::Relaxed) == tid)
}

/// A descriptor of a thread that lives; none when it has ended.
fn open(tid: i32) -> Result<Option<Fd>, Errno> {
    let fd = match syscall::pidfd_open_thread(tid) {
        Ok(fd) => move_high(Fd::from_raw(fd))?,
        Err(Errno::ESRCH) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut ended = [readable(fd.as_raw_fd())];
    match syscall::ppoll(&mut ended, 0, None) {
        Ok(0) => Ok(Some(fd)),
        _ => Ok(None),
    }
}

fn readable(fd: i32) -> pollfd {
    pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

/// A thread besides the main one and our own.
fn others() -> Others {
    let Ok(tasks) = std::fs::read_dir("/proc/thread-self/..") else {
        return Others::Unknown;
    };
    let tids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    for tid in tids {
        // The main thread has ended, though its own descriptor would not say so before the last one does.
        let main = tid == syscall::getpid();
        if main || is_own(tid) {
            continue;
        }
        match open(tid) {
            Ok(Some(fd)) => return Others::One(fd),
            Ok(None) => {}
            Err(_) => return Others::Unknown,
        }
    }
    Others::None
}

/// Whether the calling thread is the program's only one. A main thread that has ended counts; so do all where that cannot be
/// told.
pub(crate) fn alone() -> bool {
    let _whole = Off::new();
    let me = syscall::gettid();
    std::fs::read_dir("/proc/thread-self/..").is_ok_and(|tasks| {
        tasks
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
            .all(|tid| tid == me || is_own(tid) || works_for_a_ring(tid))
    })
}

/// One of the kernel's workers for an io_uring, which only the library has.
fn works_for_a_ring(tid: i32) -> bool {
    std::fs::read(format!("/proc/thread-self/../{tid}/comm"))
        .is_ok_and(|name| name.starts_with(b"iou-"))
}

/// Whether the main thread has ended, by /proc/self/stat; none where that cannot be told.
fn main_ended(stat: Option<&Fd>) -> Option<bool> {
    let mut buf = [0; 512];
    let stat = syscall::read_beginning(stat?.as_raw_fd(), &mut buf).ok()?;
    // The name before the state is in parentheses, and may hold any bytes.
    let end = stat.iter().rposition(|&b| b == b')')?;
    Some(*stat[end + 1..].trim_ascii_start().first()? == b'Z')
}

impl Company {
    /// To be called by a pump that starts.
    pub(crate) fn new() -> Self {
        let stat = std::fs::File::open("/proc/self/stat").ok();
        let stat = stat.and_then(|file| move_high(Fd::from_raw(file.into_raw_fd())).ok());
        Self::Main(monotonic_ns() + LOOK_NS, stat)
    }

    /// What to poll along, if anything.
    pub(crate) fn poll_entry(&self) -> pollfd {
        readable(match self {
            Self::Thread(fd) => fd.as_raw_fd(),
            Self::Main(..) | Self::Unknown => -1,
        })
    }

    /// When to call [`Company::look`] at the latest.
    pub(crate) fn look_at(&self) -> u64 {
        match self {
            Self::Main(at, _) => *at,
            Self::Thread(_) | Self::Unknown => u64::MAX,
        }
    }

    /// It is time to look, or the watched thread has ended: another one, or the end of the process.
    pub(crate) fn look(&mut self) {
        if let Self::Main(at, stat) = self {
            match main_ended(stat.as_ref()) {
                Some(false) => {
                    *at = monotonic_ns() + LOOK_NS;
                    return;
                }
                None => {
                    *self = Self::Unknown;
                    return;
                }
                Some(true) => {}
            }
        }
        *self = match others() {
            Others::One(fd) => Self::Thread(fd),
            Others::Unknown => Self::Unknown,
            // SAFETY: what libc does when a process's last thread ends.
            Others::None => unsafe { libc::exit(0) },
        };
    }
}
