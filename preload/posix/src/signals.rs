//! The program's signal handlers, and our own calls.
//!
//! A handler may call `send()` or `close()` on anything, or leave by `siglongjmp`. So it never runs while its thread is
//! inside the stack: every handler that the program installs is wrapped in [`trampoline`], which, when its thread is inside
//! ([`enter`]), queues the signal to its own thread again, keeps it blocked there, and returns. When the outermost
//! [`Inside`] guard drops, the signal is unblocked and the kernel delivers it anew: with its own `siginfo`, `ucontext`, mask
//! and stack, as if it had come at that moment. Sleeping counts as inside: a deferred signal ends the sleep (see
//! [`Sleeping`]), the call unwinds all that it holds, the handler runs, and then the call fails with EINTR or is made again
//! from the start, which is what the kernel does at its own boundary (ERESTARTSYS).
//!
//! The pattern for a call on a descriptor of ours is [`call`].
//!
//! The program's view is unchanged: `sigaction` reports the handler and flags that were set. The kernel's action for a
//! signal stays the truth; the table here only says what the trampoline stands for.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::{from_ref, null, null_mut};
use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst, compiler_fence,
};

use libc::{SIG_DFL, SIG_ERR, SIG_IGN, sigaction as Action, sighandler_t, siginfo_t, ucontext_t};
use syscalls::Sysno;

use crate::calls::MOVED;
use crate::file::FileRef;
use crate::{fdtable, raw, real, sigio};

/// What an interrupted wait returns inside: the call is made again when the handler has SA_RESTART, else it fails with
/// EINTR. Never reaches the program. A wait with a timeout returns EINTR instead (Linux `sock_intr_errno`).
pub const ERESTARTSYS: c_int = 512;

/// Signals have numbers below this.
const NSIG: usize = 65;

/// The handler in the low bits, its flags above (user addresses have at most 56 bits).
static HANDLERS: [AtomicUsize; NSIG] = [const { AtomicUsize::new(SIG_DFL) }; NSIG];
const SIGINFO: usize = 1 << 63;
const RESETHAND: usize = 1 << 62;
const RESTART: usize = 1 << 61;
const NODEFER: usize = 1 << 60;
const ADDRESS: usize = (1 << 56) - 1;

/// Signals for which `siginterrupt` asked that `signal` sets no SA_RESTART.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

/// The faults that the copy routine recovers from are caught from the first accelerated socket on.
static FAULTS_CAUGHT: AtomicBool = AtomicBool::new(false);
static FIXUP: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Maps the address of a faulting instruction to the one that goes on with the failure, if it is one of the copy routine's.
pub type Fixup = fn(pc: usize) -> Option<usize>;

struct Thread {
    /// Nested [`Inside`] guards.
    depth: AtomicU32,
    /// Signals queued again, bit n-1 for signal n; blocked until the outermost guard drops.
    deferred: AtomicU64,
    /// Of the first deferred one: does it restart calls?
    restart: AtomicU8,
    /// What to disturb when a signal comes between the last check and the sleep.
    word: AtomicPtr<AtomicU32>,
    fd: AtomicI32,
    /// In the child of a vfork, on the parent's memory.
    vfork: AtomicBool,
    /// It stops nowhere when the program ends ([`ending`]): it ends it, or has stopped for long enough.
    ends: AtomicBool,
    /// Another thread cancelled this one while it slept.
    cancelled: AtomicBool,
    /// Cancellations in the process when this thread last tested for its own.
    cancels_seen: AtomicU32,
}

const NO_RESTART: u8 = 1;
const DO_RESTART: u8 = 2;

thread_local! {
    static THREAD: Thread = const {
        Thread {
            depth: AtomicU32::new(0),
            deferred: AtomicU64::new(0),
            restart: AtomicU8::new(0),
            word: AtomicPtr::new(null_mut()),
            fd: AtomicI32::new(-1),
            vfork: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            cancels_seen: AtomicU32::new(0),
        }
    };
}

// Not "C-unwind": under panic = "abort" that would stop libc's forced unwinding at our frames, which have nothing to clean
// up and are passed over.
unsafe extern "C" {
    fn pthread_testcancel();
}

/// While it lives, this thread is inside: handlers wait. Nests. Not to be kept across a return to the program.
#[must_use]
pub struct Inside(());

/// Enters the stack. Where the call is a cancellation point, [`test_cancel`] comes first.
#[inline]
pub fn enter() -> Inside {
    if ending::under_way() && THREAD.with(|t| t.depth.load(Relaxed)) == 0 {
        ending::stop();
    }
    let depth = THREAD.with(|t| {
        let depth = t.depth.load(Relaxed);
        t.depth.store(depth + 1, Relaxed);
        depth
    });
    compiler_fence(SeqCst);
    if depth == 0 && held::any() {
        held::take_back();
    }
    Inside(())
}

/// Enters for a few instructions that make no call of a socket's, from anywhere: what is lent out meanwhile stays so.
#[inline]
pub(crate) fn enter_briefly() -> Inside {
    THREAD.with(|t| t.depth.store(t.depth.load(Relaxed) + 1, Relaxed));
    compiler_fence(SeqCst);
    Inside(())
}

/// The guard of an [`enter`] that was forgotten, to be dropped after all.
pub(crate) fn still_inside() -> Inside {
    Inside(())
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        THREAD.with(|t| {
            let depth = t.depth.load(Relaxed) - 1;
            t.depth.store(depth, Relaxed);
            compiler_fence(SeqCst);
            if depth != 0 {
                return;
            }
            if ending::under_way() {
                ending::stop();
            }
            if t.deferred.load(Relaxed) != 0 {
                deliver(t);
            }
        });
    }
}

/// Lets the deferred signals come: the kernel delivers them before the system call returns.
#[cold]
fn deliver(t: &Thread) {
    let errno = raw::errno();
    t.restart.store(0, Relaxed);
    let set = t.deferred.swap(0, Relaxed);
    mask(libc::SIG_UNBLOCK, Some(set));
    raw::set_errno(errno);
}

/// True when a handler waits to run, or the thread is being cancelled: a sleep must not begin, or ends (Linux
/// `signal_pending`).
#[inline]
#[must_use]
pub fn pending() -> bool {
    THREAD.with(|t| t.deferred.load(Relaxed) != 0 || t.cancelled.load(Relaxed))
}

/// True when a handler waits to run.
#[inline]
#[must_use]
pub fn handler_pending() -> bool {
    THREAD.with(|t| t.deferred.load(Relaxed) != 0)
}

/// Whether the call that a signal interrupted is made again: the signal has SA_RESTART, or it was none of the program's
/// (libc's own, for setxid and cancellation). Ask before the guard drops.
#[must_use]
pub fn restartable() -> bool {
    THREAD.with(|t| t.deferred.load(Relaxed) == 0 || t.restart.load(Relaxed) == DO_RESTART)
}

/// A point where a cancelled thread ends, as it does in libc's own calls. `file` is what the caller holds.
#[inline]
pub fn test_cancel(file: Option<&FileRef>) {
    let cancels = cancel::count();
    if cancels != 0 {
        test_cancel_slowly(file, cancels);
    }
}

#[cold]
fn test_cancel_slowly(file: Option<&FileRef>, cancels: u32) {
    THREAD.with(|t| {
        t.cancelled.store(false, Relaxed);
        t.cancels_seen.store(cancels, Relaxed);
    });
    let _lent = file.map(held::Lent::new);
    // SAFETY: what the caller holds is lent out; there is nothing else that an unwinding would have to release.
    unsafe { pthread_testcancel() }
}

/// Makes a call that may sleep: inside for as long as `body` runs, and again from the start when a signal with SA_RESTART
/// interrupted it. `body` returns [`ERESTARTSYS`] as `sock_intr_errno` says, and holds nothing when it returns; the caller
/// holds `file` and nothing else, because a handler may leave the call for good.
///
/// Inside of another call it is a part of that, which goes on as that decides: the handler waits until then.
///
/// # Errors
/// Those of `body`, with EINTR in place of ERESTARTSYS. MOVED when the call is to be made again by its number, and a handler
/// has closed that.
#[inline]
pub fn call<T>(file: &FileRef, body: impl FnMut() -> Result<T, c_int>) -> Result<T, c_int> {
    repeat::<true, T>(file, body)
}

/// [`call`] for what is no cancellation point of libc's, as sendfile: a thread that is cancelled meanwhile has its result.
/// Handlers run between as there, and with the thread's own state.
///
/// # Errors
/// As there.
pub(crate) fn call_whole<T>(
    file: &FileRef,
    body: impl FnMut() -> Result<T, c_int>,
) -> Result<T, c_int> {
    repeat::<false, T>(file, body)
}

#[inline]
fn repeat<const CANCELS: bool, T>(
    file: &FileRef,
    mut body: impl FnMut() -> Result<T, c_int>,
) -> Result<T, c_int> {
    if THREAD.with(|t| t.depth.load(Relaxed)) != 0 {
        return body();
    }
    loop {
        if CANCELS {
            test_cancel(Some(file));
        }
        let inside = enter();
        let off = (!CANCELS).then(cancel::Off::new);
        if !CANCELS {
            // One that is due waits for the next cancellation point: no sleep ends by it.
            test_cancel(None);
        }
        let result = body();
        drop(off);
        if !pending() {
            drop(inside);
            if matches!(result, Err(ERESTARTSYS)) {
                // A signal of libc's own.
                continue;
            }
            return result;
        }
        let again = restartable();
        let lent = held::Lent::new(file);
        drop(inside);
        drop(lent);
        match result {
            Err(ERESTARTSYS) if again => {
                if fdtable::number_of(file.record()).is_none() {
                    return Err(MOVED);
                }
            }
            Err(ERESTARTSYS | libc::EINTR) => {
                if CANCELS {
                    test_cancel(Some(file));
                }
                return Err(libc::EINTR);
            }
            result => return result,
        }
    }
}

/// A sleep about to begin. A signal that is deferred while this lives sets the bit [`SIGNALLED`](Sleeping::SIGNALLED) of `word`
/// and adds one to the eventfd `fd`, so that a futex wait on the word or a poll that includes the eventfd returns even when
/// the signal came just before it. Check [`pending`] after making this and before sleeping; and after.
#[must_use]
pub struct Sleeping<'a> {
    word: &'a AtomicU32,
    before: (*mut AtomicU32, c_int),
    _listed: cancel::Listed,
}

impl<'a> Sleeping<'a> {
    /// The bit of the word that says that a signal came.
    pub const SIGNALLED: u32 = 1 << 31;

    /// `fd` is -1 for a sleep on the word alone. Nests; the innermost counts.
    pub fn new(word: &'a AtomicU32, fd: c_int) -> Self {
        let before = THREAD.with(|t| (t.word.load(Relaxed), t.fd.load(Relaxed)));
        Self::set(from_ref(word).cast_mut(), fd);
        Self {
            word,
            before,
            _listed: cancel::Listed::new(word, fd),
        }
    }

    fn set(word: *mut AtomicU32, fd: c_int) {
        THREAD.with(|t| {
            t.fd.store(-1, Relaxed);
            t.word.store(word, Relaxed);
            t.fd.store(fd, Relaxed);
        });
        compiler_fence(SeqCst);
    }

    /// The word.
    #[must_use]
    pub fn word(&self) -> &'a AtomicU32 {
        self.word
    }
}

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        let (word, fd) = self.before;
        Self::set(word, fd);
    }
}

/// Changes the calling thread's signal mask (`how` of sigprocmask) and returns the old one; `None` only asks.
pub fn mask(how: c_int, set: Option<u64>) -> u64 {
    let mut old = 0u64;
    let new = set.as_ref().map_or(null(), from_ref);
    // SAFETY: the kernel reads and writes eight bytes each.
    let _ = unsafe {
        raw::call(
            Sysno::rt_sigprocmask,
            [how as usize, new as usize, &raw mut old as usize, 8, 0, 0],
        )
    };
    old
}

fn bit(signum: c_int) -> u64 {
    1 << (signum - 1)
}

/// What the kernel calls in place of the program's handlers.
unsafe extern "C" fn trampoline(signum: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let word = HANDLERS[signum as usize].load(Relaxed);
    // SAFETY: the kernel passes a valid siginfo.
    unsafe { sigio::reveal(info) };
    let fault = is_fault(signum);
    // SAFETY: the kernel passes a valid siginfo.
    if fault && unsafe { (*info).si_code } > 0 {
        // SAFETY: the context is the one the kernel made for this signal.
        if unsafe { fix_up(context) } {
            return;
        }
        if word & ADDRESS <= SIG_IGN {
            // The kernel ignores no fault: the instruction runs again and ends the process as it would without us.
            set_default(signum);
            return;
        }
    } else if fault && word & ADDRESS <= SIG_IGN {
        if word & ADDRESS == SIG_DFL {
            set_default(signum);
            requeue(signum, info);
        }
        return;
    } else if THREAD.with(|t| t.depth.load(Relaxed)) != 0 {
        // SAFETY: both pointers are the kernel's.
        unsafe { defer(signum, word, info, context) };
        return;
    }
    if word & RESETHAND != 0 {
        set_default(signum);
    }
    let address = word & ADDRESS;
    if address <= SIG_IGN {
        return;
    }
    if word & NODEFER != 0 {
        mask(libc::SIG_UNBLOCK, Some(bit(signum)));
    }
    if word & SIGINFO != 0 {
        // SAFETY: the program installed a function of this type with SA_SIGINFO.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { core::mem::transmute(address) };
        handler(signum, info, context);
    } else {
        // SAFETY: the program installed a function of this type without SA_SIGINFO.
        let handler: extern "C" fn(c_int) = unsafe { core::mem::transmute(address) };
        handler(signum);
    }
}

/// Queues the signal to this thread again and keeps it blocked when the trampoline returns.
unsafe fn defer(signum: c_int, word: usize, info: *mut siginfo_t, context: *mut c_void) {
    let errno = raw::errno();
    // SAFETY: the context is the kernel's, the mask is restored from it on return. The kernel's set is the first 8 bytes.
    unsafe {
        let context = context.cast::<ucontext_t>();
        let set = (&raw mut (*context).uc_sigmask).cast::<u64>();
        *set |= bit(signum);
    }
    requeue(signum, info);
    THREAD.with(|t| {
        if t.deferred.fetch_or(bit(signum), Relaxed) == 0 {
            let restart = if word & RESTART != 0 {
                DO_RESTART
            } else {
                NO_RESTART
            };
            t.restart.store(restart, Relaxed);
        }
        // SAFETY: set by `Sleeping`, which outlives the sleep.
        if let Some(word) = unsafe { t.word.load(Relaxed).as_ref() } {
            word.fetch_or(Sleeping::SIGNALLED, SeqCst);
            let fd = t.fd.load(Relaxed);
            if fd >= 0 {
                let one = 1u64;
                // SAFETY: reads eight bytes.
                let _ = unsafe {
                    raw::call(
                        Sysno::write,
                        [fd as usize, &raw const one as usize, 8, 0, 0, 0],
                    )
                };
            }
        }
    });
    raw::set_errno(errno);
}

fn requeue(signum: c_int, info: *mut siginfo_t) {
    // SAFETY: numbers, and the siginfo that the kernel gave us.
    unsafe {
        let pid = raw::call(Sysno::getpid, [0; 6]).unwrap_or(0);
        let tid = raw::call(Sysno::gettid, [0; 6]).unwrap_or(0);
        let queued = raw::call(
            Sysno::rt_tgsigqueueinfo,
            [pid, tid, signum as usize, info as usize, 0, 0],
        );
        if queued.is_err() {
            // The queue of pending signals is full; the signal itself must not be lost.
            let _ = raw::call(Sysno::tgkill, [pid, tid, signum as usize, 0, 0, 0]);
        }
    }
}

/// Resets the handler as the kernel does for SA_RESETHAND: flags and mask stay.
fn set_default(signum: c_int) {
    // SAFETY: all-zero is SIG_DFL without flags; live local.
    unsafe {
        let mut action: Action = MaybeUninit::zeroed().assume_init();
        real::sigaction(signum, null(), &raw mut action);
        program_view(signum, &mut action);
        action.sa_sigaction = SIG_DFL;
        real::sigaction(signum, &raw const action, null_mut());
    }
}

fn is_fault(signum: c_int) -> bool {
    signum == libc::SIGSEGV || signum == libc::SIGBUS
}

/// Continues after the copy routine's faulting instruction.
unsafe fn fix_up(context: *mut c_void) -> bool {
    let fixup = FIXUP.load(Relaxed);
    if fixup.is_null() {
        return false;
    }
    // SAFETY: `catch_faults` stored a `Fixup`.
    let fixup: Fixup = unsafe { core::mem::transmute(fixup) };
    let context = context.cast::<ucontext_t>();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's context.
    let pc = unsafe { &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's context.
    let pc = unsafe { &mut (*context).uc_mcontext.pc };
    match fixup(*pc as usize) {
        Some(to) => {
            *pc = to as _;
            true
        }
        None => false,
    }
}

/// Catches SIGSEGV and SIGBUS for the copy routine, in front of whatever the program has or will set for them. Called at
/// the first accelerated socket; again is harmless. False when the kernel refuses: copies must then be checked ones.
pub fn catch_faults(fixup: Fixup) -> bool {
    // Set when all is in place. Of threads that come before that each does the same: one that waited could wait for ever in
    // the child of a fork.
    static IN_PLACE: AtomicBool = AtomicBool::new(false);
    if IN_PLACE.load(Acquire) {
        return true;
    }
    FIXUP.store(fixup as *mut c_void, Relaxed);
    FAULTS_CAUGHT.store(true, Relaxed);
    let mut caught = true;
    for signum in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: all-zero is a valid sigaction; live locals.
        caught &= unsafe {
            let mut now: Action = MaybeUninit::zeroed().assume_init();
            real::sigaction(signum, null(), &raw mut now) == 0
                && (is_ours(&now) || install(signum, &now) == 0)
        };
    }
    IN_PLACE.store(caught, Release);
    caught
}

fn trampoline_address() -> usize {
    trampoline as *const () as usize
}

fn is_ours(action: &Action) -> bool {
    action.sa_sigaction == trampoline_address()
}

/// Installs the trampoline in front of `act`.
unsafe fn install(signum: c_int, act: &Action) -> c_int {
    let mut word = act.sa_sigaction & ADDRESS;
    for (flag, at) in [
        (libc::SA_SIGINFO, SIGINFO),
        (libc::SA_RESETHAND, RESETHAND),
        (libc::SA_RESTART, RESTART),
        (libc::SA_NODEFER, NODEFER),
    ] {
        if act.sa_flags & flag != 0 {
            word |= at;
        }
    }
    let mut ours = *act;
    ours.sa_sigaction = trampoline_address();
    ours.sa_flags = (act.sa_flags | libc::SA_SIGINFO) & !(libc::SA_RESETHAND | libc::SA_NODEFER);
    if is_fault(signum) && act.sa_sigaction <= SIG_IGN {
        ours.sa_flags |= libc::SA_ONSTACK;
    }
    let before = HANDLERS[signum as usize].swap(word, Relaxed);
    // SAFETY: a valid action.
    let done = unsafe { real::sigaction(signum, &raw const ours, null_mut()) };
    if done != 0 {
        HANDLERS[signum as usize].store(before, Relaxed);
    }
    done
}

/// What the program thinks that `kernel` is.
fn program_view(signum: c_int, kernel: &mut Action) {
    if !is_ours(kernel) {
        return;
    }
    let word = HANDLERS[signum as usize].load(Relaxed);
    kernel.sa_sigaction = word & ADDRESS;
    if word & SIGINFO == 0 {
        kernel.sa_flags &= !libc::SA_SIGINFO;
    }
    if word & RESETHAND != 0 {
        kernel.sa_flags |= libc::SA_RESETHAND;
    }
    if word & NODEFER != 0 {
        kernel.sa_flags |= libc::SA_NODEFER;
    }
    if is_fault(signum) && word & ADDRESS <= SIG_IGN {
        kernel.sa_flags &= !libc::SA_ONSTACK;
    }
}

/// `sigaction`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn sigaction(signum: c_int, act: *const Action, old: *mut Action) -> c_int {
    if !(1..NSIG as c_int).contains(&signum) || in_vfork() {
        // SAFETY: the caller's arguments.
        return unsafe { real::sigaction(signum, act, old) };
    }
    // SAFETY: null or valid by contract; all-zero is a valid sigaction.
    unsafe {
        let mut before: Action = MaybeUninit::zeroed().assume_init();
        // Asks first: `act` and `old` may be the same object.
        if real::sigaction(signum, null(), &raw mut before) != 0 {
            return -1;
        }
        program_view(signum, &mut before);
        if let Some(act) = act.as_ref() {
            let wrap =
                act.sa_sigaction > SIG_IGN || (is_fault(signum) && FAULTS_CAUGHT.load(Relaxed));
            let done = if wrap {
                install(signum, act)
            } else {
                real::sigaction(signum, act, null_mut())
            };
            if done != 0 {
                return done;
            }
        }
        if let Some(old) = old.as_mut() {
            *old = before;
        }
    }
    0
}

fn set_handler(
    signum: c_int,
    handler: sighandler_t,
    flags: c_int,
    mask_itself: bool,
) -> sighandler_t {
    if handler == SIG_ERR || !(1..NSIG as c_int).contains(&signum) {
        raw::set_errno(libc::EINVAL);
        return SIG_ERR;
    }
    // SAFETY: all-zero is a valid sigaction; live locals.
    unsafe {
        let mut act: Action = MaybeUninit::zeroed().assume_init();
        act.sa_sigaction = handler;
        act.sa_flags = flags;
        if mask_itself {
            libc::sigaddset(&raw mut act.sa_mask, signum);
        }
        let mut old: Action = MaybeUninit::zeroed().assume_init();
        if sigaction(signum, &raw const act, &raw mut old) != 0 {
            return SIG_ERR;
        }
        old.sa_sigaction
    }
}

/// `signal` as glibc has it: BSD semantics.
pub fn signal(signum: c_int, handler: sighandler_t) -> sighandler_t {
    let interrupts =
        (1..NSIG as c_int).contains(&signum) && INTERRUPTS.load(Relaxed) & bit(signum) != 0;
    let flags = if interrupts { 0 } else { libc::SA_RESTART };
    set_handler(signum, handler, flags, true)
}

/// `sysv_signal`: one shot, not masked.
pub fn sysv_signal(signum: c_int, handler: sighandler_t) -> sighandler_t {
    const SA_INTERRUPT: c_int = 0x2000_0000;
    let flags = libc::SA_RESETHAND | libc::SA_NODEFER | SA_INTERRUPT;
    set_handler(signum, handler, flags, false)
}

/// `SIG_HOLD` of `sigset`.
const SIG_HOLD: sighandler_t = 2;

/// `sigset`: sets the handler and unblocks the signal, or blocks it (SIG_HOLD).
pub fn sigset(signum: c_int, handler: sighandler_t) -> sighandler_t {
    if !(1..NSIG as c_int).contains(&signum) {
        raw::set_errno(libc::EINVAL);
        return SIG_ERR;
    }
    let old = if handler == SIG_HOLD {
        // SAFETY: all-zero is a valid sigaction; a live local.
        unsafe {
            let mut now: Action = MaybeUninit::zeroed().assume_init();
            if sigaction(signum, null(), &raw mut now) != 0 {
                return SIG_ERR;
            }
            now.sa_sigaction
        }
    } else {
        match set_handler(signum, handler, 0, false) {
            SIG_ERR => return SIG_ERR,
            old => old,
        }
    };
    let how = if handler == SIG_HOLD {
        libc::SIG_BLOCK
    } else {
        libc::SIG_UNBLOCK
    };
    let before = mask(how, Some(bit(signum)));
    if before & bit(signum) != 0 {
        SIG_HOLD
    } else {
        old
    }
}

/// `siginterrupt`.
pub fn siginterrupt(signum: c_int, flag: c_int) -> c_int {
    if !(1..NSIG as c_int).contains(&signum) {
        raw::set_errno(libc::EINVAL);
        return -1;
    }
    // SAFETY: all-zero is a valid sigaction; live locals.
    unsafe {
        let mut act: Action = MaybeUninit::zeroed().assume_init();
        if sigaction(signum, null(), &raw mut act) != 0 {
            return -1;
        }
        if flag != 0 {
            INTERRUPTS.fetch_or(bit(signum), Relaxed);
            act.sa_flags &= !libc::SA_RESTART;
        } else {
            INTERRUPTS.fetch_and(!bit(signum), Relaxed);
            act.sa_flags |= libc::SA_RESTART;
        }
        sigaction(signum, &raw const act, null_mut())
    }
}

/// Signals that wait for the thread's mask, which blocks them: bit 0 is number 1.
pub fn blocked_pending() -> u64 {
    let mut set = 0u64;
    // SAFETY: a live word, of the size that is named.
    let asked = unsafe {
        raw::call(
            Sysno::rt_sigpending,
            [(&raw mut set) as usize, 8, 0, 0, 0, 0],
        )
    };
    asked.map_or(0, |_| set)
}

/// True in the child of a vfork, which runs on its parent's memory: every hook passes through and touches nothing.
#[inline]
#[must_use]
pub fn in_vfork() -> bool {
    THREAD.with(|t| t.vfork.load(Relaxed))
}

/// The shim's vfork sets this before, and clears it in the parent after.
pub fn set_in_vfork(on: bool) {
    THREAD.with(|t| t.vfork.store(on, Relaxed));
}

pub mod cancel;
pub(crate) mod ending;
pub(crate) mod held;
#[cfg(test)]
mod tests;
