//! What outlives a process: connections with unacknowledged data or an unacknowledged FIN.
//!
//! Linux goes on with them after the process is gone, within its limits for orphans, which the engine knows. Here a child of
//! the ending process does: it has a copy of the engine, the packet socket and the port holders, nothing else, and ends when
//! the last connection does. The ending process touches its copy no more ([`NetStack::retire`](crate::stack::NetStack)).

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use libc::pollfd;
use syscalls::{Sysno, syscall};

use crate::calls::close;
use crate::descriptors::around_internal;
use crate::driver;
use crate::lock::MutexGuard;
use crate::stack::{self, Inner, MAX_STACKS, NetStack, monotonic_ns};
use crate::{fdtable, memory, real, round, signals, syscall};

/// An undertaker ends after this time whatever is left, in nanoseconds: longer than Linux keeps an orphan that does not
/// answer (`tcp_orphan_retries`), and `tcp_fin_timeout`.
const LONGEST: u64 = 900_000_000_000;

/// How long the peers' FINs are waited for once everything is acknowledged, in nanoseconds: by the process that ends, as
/// most peers answer at once, and then by an undertaker. A FIN that finds nobody is answered with RST.
const FIN_SOON: u64 = 3_000_000;
const FIN_LATE: u64 = 2_000_000_000;

/// How long the process that ends waits for acknowledgements, where the next program could not have its port meanwhile, in
/// nanoseconds: Linux delays that of a FIN, too, by 40 ms (TCP_DELACK_MIN).
const ACK_SOON: u64 = 60_000_000;

static WORKING: AtomicBool = AtomicBool::new(false);

/// True while the undertaker is being made, and in it.
#[must_use]
pub fn working() -> bool {
    WORKING.load(Ordering::Relaxed)
}

/// Closes the sockets of this process as the end of a process closes them: without waiting, SO_LINGER or not (Linux:
/// PF_EXITING). As an exec does it, a number that `lingers` waits, one after the other, the highest first (Linux: task work).
/// The descriptors stay, with nothing behind them.
pub fn close_all(lingers: impl Fn(c_int) -> bool) {
    if !any() {
        return;
    }
    let mut numbers = Vec::new();
    fdtable::for_each(|fd| numbers.push(fd));
    for fd in numbers.into_iter().rev() {
        if let Some(file) = fdtable::get(fd) {
            close::end_with_program(&file, lingers(fd));
        }
    }
}

/// True when this process has a stack of its own.
#[must_use]
pub fn any() -> bool {
    let mut stacks = 0;
    stack::for_each(|_| stacks += 1);
    stacks > 0
}

type Locked = (&'static NetStack, MutexGuard<'static, Inner>);

/// Hands what is left of every stack to an undertaker, if anything is. The stacks of this process are retired: nothing is
/// received or sent here any more.
pub fn take_over() {
    let mut stacks: ArrayVec<Locked, MAX_STACKS> = ArrayVec::new();
    // A stack that was handed over before (an exec that failed) is somebody else's.
    stack::for_each(|s| {
        if !s.retired() {
            let mut inner = s.lock();
            inner.go_direct();
            stacks.push((s, inner));
        }
    });
    let unsent = |inner: &Inner| !inner.engine.quiescent();
    // A server's port is not to be held by an undertaker for what is acknowledged soon.
    drive(&mut stacks, ACK_SOON, |inner| {
        unsent(inner) && inner.holders.keep_a_servers_port()
    });
    if !any_of(&stacks, unsent) {
        drive(&mut stacks, FIN_SOON, |inner| inner.engine.awaits_fin());
    }
    let mut last = true;
    if any_of(&stacks, |inner| unsent(inner) || awaits_fin(inner)) {
        // The child of the child: nobody's child to wait for.
        WORKING.store(true, Ordering::Relaxed);
        let before = signals::mask(libc::SIG_SETMASK, Some(!0));
        // What is not acknowledged yet has to be there when it is sent again.
        memory::inherit_on_fork();
        // The rings are not inherited: only the undertaker is to have them mapped when it ends.
        for (_, inner) in &mut stacks {
            inner.bring_deferred();
            inner.source.suspend();
        }
        // SAFETY: libc's fork leaves the allocator whole in the child.
        match unsafe { real::fork() } {
            0 => {
                // SAFETY: no arguments that matter; the intermediate process ends at once.
                if unsafe { syscall!(Sysno::clone, libc::SIGCHLD, 0, 0, 0, 0) } == Ok(0) {
                    work(&mut stacks);
                }
                exit()
            }
            child if child > 0 => {
                last = false;
                reap(child);
            }
            _ => crate::warning!("no process for what is left to send: connections end here"),
        }
        signals::mask(libc::SIG_SETMASK, Some(before));
        WORKING.store(false, Ordering::Relaxed);
    }
    for (stack, inner) in &mut stacks {
        stack.retire();
        stack.let_go(inner, last);
    }
}

/// Not where a server's port would be held meanwhile: the next program is to have it.
fn awaits_fin(inner: &Inner) -> bool {
    inner.engine.awaits_fin() && !inner.holders.keep_a_servers_port()
}

fn any_of(stacks: &[Locked], is: impl Fn(&Inner) -> bool) -> bool {
    stacks.iter().any(|(_, inner)| is(inner))
}

fn exit() -> ! {
    loop {
        // SAFETY: ends the process.
        let _ = unsafe { syscall!(Sysno::exit_group, 0) };
    }
}

/// Waits for the intermediate process; the program does not hear of it.
fn reap(child: c_int) {
    // SAFETY: null pointers are allowed.
    while unsafe { syscall!(Sysno::wait4, child, 0, 0, 0) } == Err(syscalls::Errno::EINTR) {}
    // Its SIGCHLD is pending, because everything is blocked: it goes when it is ignored for a moment.
    // SAFETY: all-zero is a valid sigaction; live locals.
    unsafe {
        let mut now: libc::sigaction = core::mem::zeroed();
        let mut ignore: libc::sigaction = core::mem::zeroed();
        ignore.sa_sigaction = libc::SIG_IGN;
        if real::sigaction(libc::SIGCHLD, &raw const ignore, &raw mut now) == 0 {
            real::sigaction(libc::SIGCHLD, &raw const now, core::ptr::null_mut());
        }
    }
}

/// The undertaker's life. Single-threaded; the locks are held since before the fork.
fn work(stacks: &mut ArrayVec<Locked, MAX_STACKS>) {
    // Out of the program's session, folder and pipes: nobody waits for their end because of us.
    // SAFETY: no memory of ours is touched.
    unsafe {
        let _ = syscall!(Sysno::setsid);
        let _ = syscall!(Sysno::chdir, c"/".as_ptr());
        let _ = syscall!(
            Sysno::prctl,
            libc::PR_SET_NAME,
            c"sidewire-end".as_ptr(),
            0,
            0,
            0
        );
    }
    obey_the_system();
    around_internal(0, u32::MAX, |a, b| {
        real::close_range(a, b, 0);
        0
    });
    let resumed = stacks
        .iter_mut()
        .all(|(_, inner)| inner.source.resume().is_ok());
    if resumed {
        drive(stacks, LONGEST, |inner| !inner.engine.quiescent());
        drive(stacks, FIN_LATE, awaits_fin);
    }
    for (stack, inner) in stacks.iter_mut() {
        stack.let_go(inner, true);
    }
}

/// Drives the stacks as long as one of them has something `left`, at most so many nanoseconds.
fn drive(stacks: &mut [Locked], longest: u64, left: impl Fn(&Inner) -> bool) {
    let end = monotonic_ns() + longest;
    while any_of(stacks, &left) {
        let mut next = end;
        let mut more = false;
        for (stack, inner) in stacks.iter_mut() {
            more |= round::round(stack, inner);
            // A lane's own packet socket was full since before the fork; nobody else carries what waits for it.
            if inner.net.take_laden() != 0 {
                inner.drain();
            }
            inner.engine.take_events(|_, _, _| {});
            stack.remember_peers(inner);
            let Inner {
                engine, holders, ..
            } = &mut **inner;
            engine.take_released(|tuple| holders.release(&tuple));
            next = next.min(inner.next_deadline());
        }
        let now = monotonic_ns();
        if now >= end {
            return;
        }
        if more || next <= now || !any_of(stacks, &left) {
            continue;
        }
        let mut fds: ArrayVec<pollfd, { 3 * MAX_STACKS }> = ArrayVec::new();
        for (stack, inner) in stacks.iter_mut() {
            let [frames, netlink, way_out] = stack.driver.frame_fds();
            let driver = &stack.driver;
            inner.bring_deferred();
            // It may have been full since before the fork.
            let full = inner.net.take_full() || driver.want_tx.load(Ordering::Relaxed);
            driver.want_tx.store(full, Ordering::Relaxed);
            let out = if full { libc::POLLOUT } else { 0 };
            fds.push(want(frames, libc::POLLIN));
            fds.push(want(netlink, libc::POLLIN));
            fds.push(want(way_out, out));
        }
        let _ = syscall::ppoll(&mut fds, next - now, None);
        for ((stack, inner), fds) in stacks.iter_mut().zip(fds.chunks(3)) {
            if fds[2].revents & libc::POLLOUT != 0 {
                stack.driver.want_tx.store(false, Ordering::Relaxed);
                inner.drain();
                let (engine, mut io) = inner.split();
                engine.tx_space(&mut io);
            }
            if fds[1].revents != 0 {
                driver::network_changed(inner);
            }
        }
    }
}

/// What ends a process ends this one; the program's handlers run no more, and everything else stays blocked.
fn obey_the_system() {
    let mut blocked = !0u64;
    for signum in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: all-zero is SIG_DFL.
        unsafe {
            let default: libc::sigaction = core::mem::zeroed();
            real::sigaction(signum, &raw const default, core::ptr::null_mut());
        }
        blocked &= !(1 << (signum - 1));
    }
    signals::mask(libc::SIG_SETMASK, Some(blocked));
}

fn want(fd: c_int, events: i16) -> pollfd {
    pollfd {
        fd,
        events,
        revents: 0,
    }
}
