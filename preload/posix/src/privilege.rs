//! The calling thread's capabilities, and those that the program has put aside without giving them up.

use syscalls::{Sysno, syscall};

/// CAP_NET_BIND_SERVICE: low ports.
const NET_BIND_SERVICE: u32 = 10;
/// CAP_NET_ADMIN: TCP_REPAIR.
pub(crate) const NET_ADMIN: u32 = 12;
/// CAP_NET_RAW.
pub(crate) const NET_RAW: u32 = 13;
/// CAP_IPC_LOCK.
pub(crate) const IPC_LOCK: u32 = 14;

/// `struct __user_cap_data_struct` of version 3, twice: effective, permitted and inheritable.
type Sets = [[u32; 3]; 2];

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

impl Header {
    /// Version 3, this thread.
    const OWN: Self = Self {
        version: 0x2008_0522,
        pid: 0,
    };
}

fn capget() -> Option<Sets> {
    let (mut header, mut sets) = (Header::OWN, Sets::default());
    // SAFETY: version 3 fills two structures of three words.
    let got = unsafe { syscall!(Sysno::capget, &raw mut header, sets.as_mut_ptr()) };
    got.is_ok().then_some(sets)
}

fn capset(sets: &Sets) -> bool {
    let mut header = Header::OWN;
    // SAFETY: version 3 reads two structures of three words.
    unsafe { syscall!(Sysno::capset, &raw mut header, sets.as_ptr()) }.is_ok()
}

/// The calling thread's effective capabilities, a bit for each of the first 32.
pub(crate) fn effective() -> u32 {
    capget().map_or(0, |sets| sets[0][0])
}

/// While this lives the calling thread has what moving a socket to the kernel takes, where it is permitted: a server that
/// lowers its effective user before it forks has put it aside, and natively a fork takes none.
#[must_use]
pub(crate) struct Raised(Option<Sets>);

pub(crate) fn raise() -> Raised {
    let wanted = 1 << NET_ADMIN | 1 << NET_BIND_SERVICE;
    let before =
        capget().filter(|[[effective, permitted, _], _]| wanted & permitted & !effective != 0);
    Raised(before.filter(|before| {
        let mut raised = *before;
        raised[0][0] |= wanted & raised[0][1];
        capset(&raised)
    }))
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            capset(before);
        }
    }
}
