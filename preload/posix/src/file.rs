//! An open socket of the program's: Linux's `struct file` and `struct socket` in one. Descriptors that were dup'ed share it.

use core::ops::Deref;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use std::sync::Arc;

use sidewire_engine::SocketId;
use slotmap::{Key, KeyData};

use crate::holders::Port;
use crate::lock::Mutex;
use crate::sigio::Owner;
use crate::stack::NetStack;
use crate::wait::WaitQueue;

/// An open socket on the engine. Type-stable: records are reused and never freed, so a stale pointer may be followed.
pub struct File {
    refs: AtomicU32,
    stack: AtomicPtr<NetStack>,
    id: AtomicU64,
    /// O_NONBLOCK as the program sees it (Linux: shared by dups, so it stands here and not at the descriptor).
    pub nonblock: AtomicBool,
    /// AF_INET6: addresses are shown v4-mapped.
    pub v6: AtomicBool,
    /// O_APPEND, with which splice and sendfile refuse it.
    pub(crate) append: AtomicBool,
    /// Options of the connection that the shadow has not been told of.
    pub(crate) options_apart: AtomicBool,
    /// [`File::kernel_listener`], -1 for none.
    listener: AtomicI32,
    /// Who waits.
    pub wait: WaitQueue,
    /// Held by the call that sends, except while it sleeps (Linux: the socket's lock).
    pub(crate) sending: Mutex<()>,
    /// Held by a splice between its look at what came and the taking, and by a receive that found it so.
    pub(crate) receiving: Mutex<()>,
    /// [`File::splices`].
    splicing: AtomicBool,
    /// [`File::moved`].
    moved: AtomicBool,
    /// What is reserved with the kernel.
    pub port: Mutex<Port>,
    /// Whom its events are signalled to; none until the program asks.
    pub(crate) owner: Mutex<Option<Arc<Owner>>>,
}

/// Records that wait for re-use.
static FREE: Mutex<Vec<&'static File>> = Mutex::new(Vec::new());

/// Locks the list of records before a fork, and unlocks it after, in parent and child.
pub(crate) fn across_fork(before: bool) {
    if before {
        core::mem::forget(FREE.lock());
    } else {
        // SAFETY: this thread locked it before the fork.
        unsafe { FREE.force_unlock() };
    }
}

impl File {
    const fn new() -> Self {
        Self {
            refs: AtomicU32::new(0),
            stack: AtomicPtr::new(ptr::null_mut()),
            id: AtomicU64::new(0),
            nonblock: AtomicBool::new(false),
            v6: AtomicBool::new(false),
            append: AtomicBool::new(false),
            options_apart: AtomicBool::new(false),
            listener: AtomicI32::new(-1),
            wait: WaitQueue::new(),
            sending: Mutex::new(()),
            receiving: Mutex::new(()),
            splicing: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            port: Mutex::new(Port::new()),
            owner: Mutex::new(None),
        }
    }

    /// A fresh record with one reference. `stack` is none in tests only.
    pub(crate) fn open(stack: Option<&'static NetStack>, id: SocketId, v6: bool) -> FileRef {
        let file = FREE
            .lock()
            .pop()
            .unwrap_or_else(|| Box::leak(Box::new(Self::new())));
        debug_assert_eq!(file.refs.load(Ordering::Relaxed), 0);
        debug_assert!(file.wait.is_empty());
        for turn in [&file.sending, &file.receiving] {
            if turn.is_locked() {
                // SAFETY: nobody has a reference; a thread of the parent's had it at the fork.
                unsafe { turn.force_unlock() };
            }
        }
        let p = stack.map_or(ptr::null_mut(), |s| ptr::from_ref(s).cast_mut());
        file.stack.store(p, Ordering::Relaxed);
        file.id.store(id.data().as_ffi(), Ordering::Relaxed);
        file.nonblock.store(false, Ordering::Relaxed);
        file.v6.store(v6, Ordering::Relaxed);
        file.append.store(false, Ordering::Relaxed);
        file.options_apart.store(false, Ordering::Relaxed);
        file.moved.store(false, Ordering::Relaxed);
        file.splicing.store(false, Ordering::Relaxed);
        file.set_kernel_listener(None);
        *file.port.lock() = Port::new();
        *file.owner.lock() = None;
        // Publishes the fields to whoever takes a reference.
        file.refs.store(1, Ordering::Release);
        FileRef(file)
    }

    /// The stack that carries it.
    ///
    /// # Panics
    /// For a record without one (unit tests).
    #[must_use]
    pub fn stack(&self) -> &'static NetStack {
        // SAFETY: stacks are never freed.
        unsafe { self.stack.load(Ordering::Relaxed).as_ref() }.expect("a file has a stack")
    }

    /// False when the connection is another process's, or was left to an undertaker.
    #[inline]
    pub(crate) fn usable(&self) -> bool {
        // SAFETY: stacks are never freed.
        let stack = unsafe { self.stack.load(Ordering::Relaxed).as_ref() };
        stack.is_none_or(|s| s.owned() && !s.retired())
    }

    /// The engine's name of the socket.
    #[must_use]
    pub fn id(&self) -> SocketId {
        KeyData::from_ffi(self.id.load(Ordering::Relaxed)).into()
    }

    /// True when the engine has given the socket to the kernel: a call that slept on it meanwhile is made again there, after
    /// [`File::when_moved`].
    #[inline]
    pub(crate) fn moved(&self) -> bool {
        self.moved.load(Ordering::Acquire)
    }

    /// The engine gives the socket away: under the stack lock, by whoever has [`File::sending`].
    pub(crate) fn set_moved(&self) {
        self.moved.store(true, Ordering::Release);
    }

    /// True while a splice has looked at bytes that it has not taken: who receives waits for [`File::receiving`] first. To be
    /// asked under the stack lock.
    #[inline]
    pub(crate) fn splices(&self) -> bool {
        self.splicing.load(Ordering::Acquire)
    }

    /// Returns when the kernel has all of it.
    pub(crate) fn when_moved(&self) {
        drop(self.sending.lock());
    }

    /// Of a call that the engine has refused: true when another thread gave the socket to the kernel in the middle of it. All
    /// of it is there when this returns, and the call is to be made there.
    pub(crate) fn moved_meanwhile(&self) -> bool {
        let moved = self.moved();
        if moved {
            self.when_moved();
        }
        moved
    }

    /// While it listens: polls POLLIN when a client waits that the kernel carries, from this host or over IPv6.
    #[must_use]
    pub fn kernel_listener(&self) -> Option<i32> {
        Some(self.listener.load(Ordering::Acquire)).filter(|fd| *fd >= 0)
    }

    /// True when the kernel listens in its place, and something that came in before is not accepted yet: all but that is the
    /// kernel's.
    pub(crate) fn leaving(&self) -> bool {
        self.port.lock().leaving.is_some()
    }

    pub(crate) fn set_kernel_listener(&self, fd: Option<i32>) {
        self.listener.store(fd.unwrap_or(-1), Ordering::Release);
    }

    /// The cookie that the engine gives back with events.
    pub(crate) fn cookie(&'static self) -> u64 {
        ptr::from_ref(self) as u64
    }

    /// From an event's cookie; `None` for 0 (a socket without a program).
    pub(crate) fn from_cookie(cookie: u64) -> Option<&'static Self> {
        // SAFETY: made by `cookie`, of a record, and records are never freed.
        unsafe { (cookie as *const Self).as_ref() }
    }
}

/// [`File::splices`], while it lives.
pub(crate) struct Splicing<'a>(&'a File);

impl<'a> Splicing<'a> {
    /// Under the stack lock, by whoever has [`File::receiving`].
    pub(crate) fn begin(file: &'a File) -> Self {
        file.splicing.store(true, Ordering::Relaxed);
        Self(file)
    }
}

impl Drop for Splicing<'_> {
    fn drop(&mut self) {
        self.0.splicing.store(false, Ordering::Release);
    }
}

/// A counted reference. Dropping the last one closes the socket.
pub struct FileRef(&'static File);

impl FileRef {
    /// Takes a reference unless the last one is gone.
    #[inline]
    pub(crate) fn try_get(file: &'static File) -> Option<Self> {
        let mut n = file.refs.load(Ordering::Relaxed);
        loop {
            if n == 0 {
                return None;
            }
            match file
                .refs
                .compare_exchange_weak(n, n + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(Self(file)),
                Err(now) => n = now,
            }
        }
    }

    pub(crate) fn into_raw(self) -> *mut File {
        let p = ptr::from_ref(self.0).cast_mut();
        core::mem::forget(self);
        p
    }

    /// # Safety
    /// `p` is null or from [`FileRef::into_raw`], used once.
    pub(crate) unsafe fn from_raw(p: *mut File) -> Option<Self> {
        // SAFETY: records are never freed.
        unsafe { p.as_ref() }.map(Self)
    }

    /// The record, which outlives the reference (type-stable memory).
    #[must_use]
    pub fn record(&self) -> &'static File {
        self.0
    }
}

impl Deref for FileRef {
    type Target = File;

    fn deref(&self) -> &File {
        self.0
    }
}

impl Clone for FileRef {
    fn clone(&self) -> Self {
        self.0.refs.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for FileRef {
    #[inline]
    fn drop(&mut self) {
        if self.0.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            release(self.0);
        }
    }
}

/// Linux's `sock_close`: the last reference went.
#[cold]
fn release(file: &'static File) {
    for w in file.wait.dissolve() {
        w.closed(file);
    }
    if !file.stack.load(Ordering::Relaxed).is_null() {
        crate::calls::close::release(file);
    }
    FREE.lock().push(file);
}
