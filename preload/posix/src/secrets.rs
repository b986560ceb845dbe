//! The secrets behind initial sequence numbers, timestamps and fast-open cookies: per boot, user and network namespace, as
//! the kernel's are per boot. With new ones in every process a quick re-use of a four-tuple would be refused by the peer.

use core::ffi::CStr;
use core::hash::Hasher;
use std::ffi::CString;

use sidewire_engine::stack::Secrets;
use siphasher::sip::SipHasher13;
use syscalls::{Sysno, syscall};

use crate::{boot_file, syscall};

/// Bytes kept in the file.
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

/// Reads the file that the user's processes share, or makes it. False where neither can be done.
fn shared_seed(seed: &mut [u8; SEED]) -> bool {
    boot_file::open("secret", new_seed).is_some_and(|fd| boot_file::read_at(&fd, seed, 0) == SEED)
}

/// Written under a name of its own, then linked into place: the first one wins.
fn new_seed(path: &CStr) -> bool {
    let mut seed = [0u8; SEED];
    syscall::getrandom(&mut seed);
    let tmp = format!("{}.{}", path.to_string_lossy(), syscall::gettid());
    let Ok(tmp) = CString::new(tmp) else {
        return false;
    };
    let whole = boot_file::create(&tmp).is_some_and(|fd| boot_file::write_at(&fd, &seed, 0));
    let here = libc::AT_FDCWD;
    // SAFETY: NUL-terminated strings.
    unsafe {
        let linked =
            whole && syscall!(Sysno::linkat, here, tmp.as_ptr(), here, path.as_ptr(), 0).is_ok();
        let _ = syscall!(Sysno::unlinkat, here, tmp.as_ptr(), 0);
        linked
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
