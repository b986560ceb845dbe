//! The secrets behind initial sequence numbers, timestamps and fast-open cookies: per boot, user and network namespace, as
//! the kernel's are per boot. With new ones in every process a quick re-use of a four-tuple would be refused by the peer.

use core::ffi::CStr;
use core::hash::Hasher;
use std::ffi::CString;

use sidewire_engine::stack::Secrets;
use siphasher::sip::SipHasher13;
use syscalls::{Sysno, syscall};

use crate::syscall;

/// Bytes kept in the runtime file.
const SEED: usize = 32;

/// The secrets of the namespace with this cookie.
#[must_use]
pub(crate) fn load(netns_cookie: u64) -> Secrets {
    let mut seed = [0u8; SEED];
    if !shared_seed(&mut seed) {
        syscall::getrandom(&mut seed);
    }
    let mut hash = [0u8; 16];
    syscall::getrandom(&mut hash);
    Secrets {
        isn: derive(&seed, netns_cookie, 1),
        ts: derive(&seed, netns_cookie, 2),
        fastopen: derive(&seed, netns_cookie, 3),
        hash,
    }
}

fn derive(seed: &[u8; SEED], cookie: u64, purpose: u8) -> [u8; 16] {
    let mut out = [0u8; 16];
    for (i, half) in out.chunks_exact_mut(8).enumerate() {
        let mut key = [0u8; 16];
        key.copy_from_slice(&seed[i * 16..i * 16 + 16]);
        let mut h = SipHasher13::new_with_key(&key);
        h.write_u64(cookie);
        h.write_u8(purpose);
        half.copy_from_slice(&h.finish().to_le_bytes());
    }
    out
}

/// Reads the runtime file, or makes it. False where neither can be done.
fn shared_seed(seed: &mut [u8; SEED]) -> bool {
    let Some(path) = path() else {
        return false;
    };
    if read(&path, seed) {
        return true;
    }
    // Written under a name of its own, then linked into place: a reader never sees half a file, and the first one wins.
    syscall::getrandom(seed);
    let tmp = format!("{}.{}", path.to_string_lossy(), syscall::gettid());
    let Ok(tmp) = CString::new(tmp) else {
        return false;
    };
    let how = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: NUL-terminated strings and a live array.
    unsafe {
        let Ok(fd) = syscall!(Sysno::openat, libc::AT_FDCWD, tmp.as_ptr(), how, 0o600) else {
            return false;
        };
        let whole = syscall!(Sysno::write, fd, seed.as_ptr(), SEED) == Ok(SEED);
        let _ = syscall::close(fd as i32);
        if whole {
            let _ = syscall!(
                Sysno::linkat,
                libc::AT_FDCWD,
                tmp.as_ptr(),
                libc::AT_FDCWD,
                path.as_ptr(),
                0
            );
        }
        let _ = syscall!(Sysno::unlinkat, libc::AT_FDCWD, tmp.as_ptr(), 0);
    }
    read(&path, seed)
}

/// Where the file is: named after boot and user, so that an old one is never read.
fn path() -> Option<CString> {
    let mut buf = [0u8; 64];
    let boot = syscall::read_file(c"/proc/sys/kernel/random/boot_id", &mut buf).ok()?;
    let boot = core::str::from_utf8(boot).ok()?.trim();
    // SAFETY: no arguments.
    let uid = unsafe { syscall!(Sysno::geteuid) }.ok()?;
    let dir = if uid == 0 { "/run" } else { "/dev/shm" };
    CString::new(format!("{dir}/sidewire-{uid}-{boot}.secret")).ok()
}

/// Reads the file when it is ours alone.
fn read(path: &CStr, seed: &mut [u8; SEED]) -> bool {
    let how = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: NUL-terminated string, live structures of integers.
    unsafe {
        let Ok(fd) = syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), how, 0) else {
            return false;
        };
        let mut st: libc::stat = core::mem::zeroed();
        let ours = syscall!(Sysno::fstat, fd, &raw mut st).is_ok()
            && syscall!(Sysno::geteuid) == Ok(st.st_uid as usize)
            && st.st_mode & 0o777 == 0o600
            && st.st_mode & libc::S_IFMT == libc::S_IFREG;
        let whole = ours && syscall!(Sysno::read, fd, seed.as_mut_ptr(), SEED) == Ok(SEED);
        let _ = syscall::close(fd as i32);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_namespace_same_secrets_other_namespace_others() {
        let (a, b, c) = (load(7), load(7), load(8));
        assert_eq!(a.isn, b.isn);
        assert_eq!(a.fastopen, b.fastopen);
        assert_ne!(a.isn, c.isn);
        assert_ne!(a.isn, a.ts);
    }
}
