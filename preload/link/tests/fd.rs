//! Descriptors of the library's own. A program of its own, with one test: what is internal is the whole process's, and a
//! number that was let go of may be somebody else's at once.

use sidewire_link::fd::{Fd, is_internal, move_high};
use std::os::fd::AsRawFd;

#[test]
fn moved_descriptors_are_high_and_close_on_exec() {
    // SAFETY: numbers.
    let low = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0) };
    assert!(low >= 0);
    let fd = move_high(Fd::from_raw(low)).unwrap();
    let number = fd.as_raw_fd();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes to a live local.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(got, 0);
    // From 65536 on a larger limit changes nothing.
    let base = limit.rlim_cur.min(65536) / 2;
    assert!(u64::try_from(number).unwrap() >= base, "{number} of {base}");
    // SAFETY: numbers.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    assert!(is_internal(number));
    drop(fd);
    assert!(!is_internal(number));
}
