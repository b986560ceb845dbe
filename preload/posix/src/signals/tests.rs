use sidewire_engine::SocketId;

use super::*;
use crate::file::File;

/// Calls of `count` and of `with_info`: one each, as the tests run side by side.
static RAN: AtomicU32 = AtomicU32::new(0);
static RAN_WITH_INFO: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_signum: c_int) {
    assert_eq!(THREAD.with(|t| t.depth.load(Relaxed)), 0);
    RAN.fetch_add(1, Relaxed);
}

extern "C" fn with_info(signum: c_int, info: *mut siginfo_t, context: *mut c_void) {
    assert!(!context.is_null());
    // SAFETY: the kernel's siginfo.
    unsafe {
        assert_eq!((*info).si_signo, signum);
        assert_eq!((*info).si_code, libc::SI_TKILL);
    }
    RAN_WITH_INFO.fetch_add(1, Relaxed);
}

fn raise(signum: c_int) {
    // SAFETY: numbers.
    unsafe {
        let pid = raw::call(Sysno::getpid, [0; 6]).unwrap();
        let tid = raw::call(Sysno::gettid, [0; 6]).unwrap();
        raw::call(Sysno::tgkill, [pid, tid, signum as usize, 0, 0, 0]).unwrap();
    }
}

fn action_of(signum: c_int) -> Action {
    // SAFETY: all-zero is a valid sigaction; a live local.
    unsafe {
        let mut now: Action = MaybeUninit::zeroed().assume_init();
        assert_eq!(sigaction(signum, null(), &raw mut now), 0);
        now
    }
}

#[test]
fn a_handler_waits_until_its_thread_is_outside() {
    let handler = count as *const () as sighandler_t;
    assert_eq!(signal(libc::SIGUSR1, handler), SIG_DFL);
    let view = action_of(libc::SIGUSR1);
    assert_eq!(view.sa_sigaction, handler);
    assert_eq!(view.sa_flags & libc::SA_SIGINFO, 0);
    assert_ne!(view.sa_flags & libc::SA_RESTART, 0);

    raise(libc::SIGUSR1);
    assert_eq!(RAN.swap(0, Relaxed), 1);

    let before = mask(libc::SIG_BLOCK, None);
    {
        let _outer = enter();
        let _inner = enter();
        raise(libc::SIGUSR1);
        assert_eq!(RAN.load(Relaxed), 0);
        assert!(pending());
        assert!(restartable());
        drop(_inner);
        assert_eq!(RAN.load(Relaxed), 0);
    }
    assert_eq!(RAN.swap(0, Relaxed), 1);
    assert!(!pending());
    assert_eq!(mask(libc::SIG_BLOCK, None), before);

    // The word of a sleeper is changed.
    {
        let _inside = enter();
        let word = AtomicU32::new(0);
        let _sleeping = Sleeping::new(&word, -1);
        raise(libc::SIGUSR1);
        assert_eq!(word.load(Relaxed), Sleeping::SIGNALLED);
    }
    assert_eq!(RAN.swap(0, Relaxed), 1);
}

#[test]
fn calls_restart_or_fail_as_the_handler_says() {
    // SAFETY: all-zero is a valid sigaction.
    let mut act: Action = unsafe { MaybeUninit::zeroed().assume_init() };
    act.sa_sigaction = with_info as *const () as usize;
    act.sa_flags = libc::SA_SIGINFO;
    /// A number that no other test uses.
    const NUMBER: c_int = 900;
    for (flags, open, calls, result) in [
        (0, true, 1, Err(libc::EINTR)),
        (libc::SA_RESTART, true, 2, Ok(2)),
        // By its number, which has gone.
        (libc::SA_RESTART, false, 1, Err(MOVED)),
    ] {
        act.sa_flags = libc::SA_SIGINFO | flags;
        // SAFETY: live action.
        let set = unsafe { sigaction(libc::SIGUSR2, &raw const act, null_mut()) };
        assert_eq!(set, 0);
        assert_ne!(action_of(libc::SIGUSR2).sa_flags & libc::SA_SIGINFO, 0);
        let mut n = 0;
        let file = File::open(None, SocketId::default(), false);
        if open {
            drop(fdtable::install(NUMBER, file.clone()));
        }
        let got = call(&file, || {
            n += 1;
            if n == 1 {
                raise(libc::SIGUSR2);
                assert!(pending());
                return Err(ERESTARTSYS);
            }
            Ok(n)
        });
        drop(fdtable::remove(NUMBER));
        assert_eq!((n, got), (calls, result));
        assert_eq!(RAN_WITH_INFO.swap(0, Relaxed), 1);
    }
}

#[test]
fn one_shot_handlers_reset_when_they_run_not_when_they_are_deferred() {
    static SHOTS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn shot(_signum: c_int) {
        SHOTS.fetch_add(1, Relaxed);
    }
    let handler = shot as *const () as sighandler_t;
    assert_eq!(sysv_signal(libc::SIGWINCH, handler), SIG_DFL);
    assert_ne!(action_of(libc::SIGWINCH).sa_flags & libc::SA_RESETHAND, 0);
    {
        let _inside = enter();
        raise(libc::SIGWINCH);
        assert_eq!(action_of(libc::SIGWINCH).sa_sigaction, handler);
    }
    assert_eq!(SHOTS.load(Relaxed), 1);
    assert_eq!(action_of(libc::SIGWINCH).sa_sigaction, SIG_DFL);
    raise(libc::SIGWINCH);
    assert_eq!(SHOTS.load(Relaxed), 1);
}

#[test]
fn siginterrupt_and_sigset_keep_their_meaning() {
    let handler = count as *const () as sighandler_t;
    assert_eq!(siginterrupt(libc::SIGURG, 1), 0);
    signal(libc::SIGURG, handler);
    assert_eq!(action_of(libc::SIGURG).sa_flags & libc::SA_RESTART, 0);
    assert_eq!(siginterrupt(libc::SIGURG, 0), 0);
    assert_ne!(action_of(libc::SIGURG).sa_flags & libc::SA_RESTART, 0);

    assert_eq!(sigset(libc::SIGURG, SIG_HOLD), handler);
    assert_ne!(mask(libc::SIG_BLOCK, None) & bit(libc::SIGURG), 0);
    assert_eq!(sigset(libc::SIGURG, SIG_IGN), SIG_HOLD);
    assert_eq!(mask(libc::SIG_BLOCK, None) & bit(libc::SIGURG), 0);
    assert_eq!(sigset(libc::SIGURG, SIG_DFL), SIG_IGN);
    assert_eq!(signal(0, handler), SIG_ERR);
    assert_eq!(signal(libc::SIGKILL, handler), SIG_ERR);
}

#[test]
fn the_program_sees_its_own_action_for_faults() {
    // The test harness has a handler of its own (stack overflow); it stays visible.
    let before = action_of(libc::SIGBUS);
    // The copy routine's own: tests beside this one may need it at this moment.
    assert!(catch_faults(crate::copy::fixup));
    let after = action_of(libc::SIGBUS);
    assert_eq!(after.sa_sigaction, before.sa_sigaction);
    assert_eq!(after.sa_flags, before.sa_flags);
}
