//! Commands of `fcntl` for signals about a descriptor, and what such a signal says (`linux/fcntl.h`,
//! `asm-generic/siginfo.h`).

/// Set the signal that takes the place of SIGIO; 0 for SIGIO.
pub const F_SETSIG: i32 = 10;
/// Get it.
pub const F_GETSIG: i32 = 11;
/// Set the owner: a thread, a process or a group.
pub const F_SETOWN_EX: i32 = 15;
/// Get the owner.
pub const F_GETOWN_EX: i32 = 16;

/// The owner is a thread.
pub const F_OWNER_TID: i32 = 0;
/// The owner is a process.
pub const F_OWNER_PID: i32 = 1;
/// The owner is a process group.
pub const F_OWNER_PGRP: i32 = 2;

/// `si_code`: data came.
pub const POLL_IN: i32 = 1;
/// `si_code`: there is room to write.
pub const POLL_OUT: i32 = 2;
/// `si_code`: an error.
pub const POLL_ERR: i32 = 4;
/// `si_code`: urgent data.
pub const POLL_PRI: i32 = 5;
/// `si_code`: both directions are shut.
pub const POLL_HUP: i32 = 6;
