//! Nothing in this crate, nor in the crates that it stands on, calls a libc function that libsidewire.so interposes:
//! our own calls must not come back through the hooks.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The functions that are interposed (design: interposition), as far as a Rust crate could reach them.
const HOOKED: &[&str] = &[
    "socket",
    "socketpair",
    "bind",
    "listen",
    "accept",
    "accept4",
    "connect",
    "shutdown",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "read",
    "write",
    "readv",
    "writev",
    "recv",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
    "send",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "pread",
    "pread64",
    "pwrite",
    "pwrite64",
    "preadv",
    "preadv64",
    "preadv2",
    "pwritev",
    "pwritev64",
    "pwritev2",
    "lseek",
    "lseek64",
    "sendfile",
    "sendfile64",
    "splice",
    "vmsplice",
    "tee",
    "copy_file_range",
    "fcntl",
    "fcntl64",
    "ioctl",
    "select",
    "pselect",
    "poll",
    "ppoll",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "close",
    "closefrom",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "fclose",
    "fdopen",
    "fileno",
    "open",
    "open64",
    "openat",
    "openat64",
    "creat",
    "pipe",
    "pipe2",
    "eventfd",
    "signalfd",
    "timerfd_create",
    "memfd_create",
    "fork",
    "vfork",
    "clone",
    "posix_spawn",
    "posix_spawnp",
    "system",
    "popen",
    "execve",
    "execv",
    "execvp",
    "_exit",
    "fstat",
    "fstat64",
    "statx",
    "sigaction",
    "signal",
    "syscall",
];

/// Parts of the standard library that call them, as they stand in a mangled name.
const STD: &[&str] = &[
    "3std2fs",
    "3std3net3tcp",
    "3std3net3udp",
    "3std2os4unix3net",
    "2fd5owned",
    "3std2io5stdio",
];

/// The newest compiled form of a crate in the directory of this test.
fn rlib(deps: &Path, krate: &str) -> PathBuf {
    let prefix = format!("lib{krate}-");
    let newest = std::fs::read_dir(deps)
        .expect("target directory")
        .map(|e| e.expect("entry").path())
        .filter(|p| {
            let name = p.file_name().and_then(|n| n.to_str()).unwrap_or("");
            name.starts_with(&prefix) && name.ends_with(".rlib")
        })
        .max_by_key(|p| p.metadata().and_then(|m| m.modified()).expect("time"));
    newest.unwrap_or_else(|| panic!("{krate} is compiled in {}", deps.display()))
}

#[test]
fn no_interposed_function_is_called() {
    let exe = std::env::current_exe().expect("path of the test");
    let deps = exe.parent().expect("directory");
    for krate in [
        "sidewire_link",
        "sidewire_wire",
        "syscalls",
        "netlink_packet_core",
        "netlink_packet_route",
        "pcap_file",
        "byteorder_slice",
        "arrayvec",
        "log",
    ] {
        let out = Command::new("nm")
            .args(["-u", "-A"])
            .arg(rlib(deps, krate))
            .output()
            .expect("nm(1) runs");
        let symbols = String::from_utf8_lossy(&out.stdout);
        let bad: Vec<_> = symbols
            .lines()
            .filter(|l| {
                let symbol = l.rsplit(' ').next().unwrap_or("");
                HOOKED.contains(&symbol.split('@').next().unwrap_or(symbol))
                    || STD.iter().any(|s| symbol.contains(s))
            })
            .collect();
        assert!(bad.is_empty(), "{krate} imports {bad:#?}");
        // The check sees something at all.
        assert!(
            krate != "sidewire_link" || symbols.contains("memcpy"),
            "{symbols}"
        );
    }
}
