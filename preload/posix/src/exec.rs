//! Whether an exec will come to pass. What ends with the program must be ended before the call, and live on when it fails.

use core::ffi::{CStr, c_char, c_int};
use core::mem::MaybeUninit;

use syscalls::{Errno, Sysno, syscall};

/// Strings up to a null pointer.
pub type Strings = *const *const c_char;

/// Linux 6.14: execveat(2) says whether it would, and does not.
const AT_EXECVE_CHECK: c_int = 0x1_0000;
/// Where execvp(3) looks without PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

unsafe extern "C" {
    static environ: Strings;
}

/// The program's environment, which the forms without one of their own pass on.
#[must_use]
pub fn environment() -> Strings {
    // SAFETY: libc's own variable; the program may change it, and is here instead.
    unsafe { environ }
}

/// What is to be executed. The pointers are the program's.
#[derive(Clone, Copy)]
pub enum Image {
    /// As execveat(2) takes it.
    At {
        /// Directory that `path` is relative to.
        dir: c_int,
        /// Its path, or "" with AT_EMPTY_PATH.
        path: *const c_char,
        /// AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW.
        flags: c_int,
    },
    /// A name that execvp(3) looks for along PATH.
    Named(*const c_char),
}

impl Image {
    /// As execve(2) takes it.
    #[must_use]
    pub const fn path(path: *const c_char) -> Self {
        Self::At {
            dir: libc::AT_FDCWD,
            path,
            flags: 0,
        }
    }

    /// As fexecve(3) takes it.
    #[must_use]
    pub const fn open(fd: c_int) -> Self {
        Self::At {
            dir: fd,
            path: c"".as_ptr(),
            flags: libc::AT_EMPTY_PATH,
        }
    }

    /// False when the kernel would refuse to execute it. True may be an error: of a file whose format the kernel does not
    /// know, of one whose interpreter is not there.
    ///
    /// # Safety
    /// The contract of the C function that it is for.
    pub(crate) unsafe fn comes_to_pass(self, argv: Strings, envp: Strings) -> bool {
        let may = |dir, path: *const c_char, flags| allowed(dir, path, argv, envp, flags);
        let name = match self {
            Self::At { flags, .. } if flags & AT_EXECVE_CHECK != 0 => return false,
            Self::At { dir, path, flags } => return may(dir, path, flags),
            // SAFETY: the C function reads it, too.
            Self::Named(name) => unsafe { CStr::from_ptr(name) },
        };
        if name.is_empty() || name.to_bytes().contains(&b'/') {
            return may(libc::AT_FDCWD, name.as_ptr(), 0);
        }
        // SAFETY: as execvp(3) does.
        let path = unsafe { libc::getenv(c"PATH".as_ptr()) };
        let path = if path.is_null() {
            DEFAULT_PATH
        } else {
            // SAFETY: the environment's strings end with a null byte.
            unsafe { CStr::from_ptr(path) }.to_bytes()
        };
        path.split(|byte| *byte == b':').any(|folder| {
            let mut found: Vec<u8> = folder.to_vec();
            if !found.is_empty() {
                found.push(b'/');
            }
            found.extend_from_slice(name.to_bytes_with_nul());
            may(libc::AT_FDCWD, found.as_ptr().cast(), 0)
        })
    }
}

/// What execveat(2) would say.
fn allowed(dir: c_int, path: *const c_char, argv: Strings, envp: Strings, flags: c_int) -> bool {
    // SAFETY: the kernel checks the pointers, and executes nothing: a flag that it does not know is EINVAL.
    let asked = unsafe {
        syscall!(
            Sysno::execveat,
            dir,
            path,
            argv,
            envp,
            flags | AT_EXECVE_CHECK
        )
    };
    match asked {
        Ok(_) => true,
        Err(Errno::EINVAL | Errno::ENOSYS) => executable(dir, path, flags),
        Err(_) => false,
    }
}

/// The same, as far as the file's kind and permissions tell.
fn executable(dir: c_int, path: *const c_char, flags: c_int) -> bool {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel checks the path; writes to a live local.
    unsafe {
        let access = flags | libc::AT_EACCESS;
        syscall!(Sysno::faccessat2, dir, path, libc::X_OK, access) != Err(Errno::EACCES)
            && libc::fstatat(dir, path, stat.as_mut_ptr(), flags) == 0
            && stat.assume_init().st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_executed_is_a_file_with_the_permission() {
        for (path, may) in [
            (c"/bin/sh", true),
            (c"/", false),
            (c"/etc/passwd", false),
            (c"/nonexistent", false),
            (c"", false),
        ] {
            let asked = executable(libc::AT_FDCWD, path.as_ptr(), 0);
            assert_eq!(asked, may, "{path:?}");
        }
    }

    #[test]
    fn a_name_is_looked_for_along_the_path() {
        let argv = [c"sh".as_ptr(), core::ptr::null()];
        for (name, found) in [(c"sh", true), (c"no-such-program", false), (c"", false)] {
            // SAFETY: arguments as for execvp(3).
            let comes =
                unsafe { Image::Named(name.as_ptr()).comes_to_pass(argv.as_ptr(), environment()) };
            assert_eq!(comes, found, "{name:?}");
        }
    }
}
