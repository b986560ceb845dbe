//! Descriptors in messages of Unix sockets (SCM_RIGHTS, Linux `scm_fp_copy`). Whoever is sent one of ours receives the
//! kernel's socket behind it: the connection goes there first.

use core::ffi::c_int;

use libc::{mmsghdr, msghdr};
use sidewire_uapi::socket::SCM_RIGHTS;

use crate::{copy, process, stack};

/// Control data that is looked at, in bytes: the most descriptors of a message (253), with room for what else there is.
const LOOKED_AT: usize = 4096;
/// Bytes of a control message's header, and the alignment of messages.
const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGN: usize = size_of::<usize>();
const _: () = assert!(core::mem::offset_of!(mmsghdr, msg_hdr) == 0);

/// Gives the kernel what `msg` sends of ours. What is wrong with the message the kernel tells.
pub(super) fn share(msg: *const msghdr) {
    if stack::any() {
        // SAFETY: any bytes make a msghdr; a pointer to nothing is a fault.
        if let Ok(hdr) = unsafe { copy::read_value(msg) } {
            share_all(hdr.msg_control.cast(), hdr.msg_controllen);
        }
    }
}

/// [`share`], for the first `n` of `msgs`.
pub(super) fn share_each(msgs: *const mmsghdr, n: usize) {
    if stack::any() {
        for i in 0..n {
            // The header of a message comes first.
            share(msgs.wrapping_add(i).cast());
        }
    }
}

fn share_all(control: *const u8, len: usize) {
    if control.is_null() || len < HEADER {
        return;
    }
    let mut bytes = vec![0; len.min(LOOKED_AT)];
    // SAFETY: the vector has room for them; a source that is not there is a fault.
    if unsafe { copy::from_program(bytes.as_mut_ptr(), control, bytes.len()) }.is_ok() {
        for fd in descriptors(&bytes) {
            process::share_one(fd);
        }
    }
}

/// The descriptors of every SCM_RIGHTS, up to the first message that is none.
fn descriptors(control: &[u8]) -> Vec<c_int> {
    let mut found = Vec::new();
    let mut rest = control;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        let (len, kind) = header.split_at(size_of::<usize>());
        let len = usize::from_ne_bytes(len.try_into().unwrap_or_default());
        let Some(data) = rest.get(HEADER..len) else {
            break;
        };
        let mut kind_of = kind.chunks_exact(4).map(word);
        if kind_of.next() == Some(libc::SOL_SOCKET) && kind_of.next() == Some(SCM_RIGHTS) {
            found.extend(data.chunks_exact(4).map(word));
        }
        rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    found
}

fn word(bytes: &[u8]) -> c_int {
    bytes.try_into().map_or(0, c_int::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: c_int, kind: c_int, data: &[c_int]) -> Vec<u8> {
        let mut m = (HEADER + 4 * data.len()).to_ne_bytes().to_vec();
        for w in [level, kind].iter().chain(data) {
            m.extend(w.to_ne_bytes());
        }
        m.resize(m.len().next_multiple_of(ALIGN), 0);
        m
    }

    #[test]
    fn every_descriptor_is_found() {
        let mut m = message(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &[1, 2, 3]);
        m.extend(message(libc::SOL_SOCKET, SCM_RIGHTS, &[4, 5, 6]));
        m.extend(message(libc::IPPROTO_IP, SCM_RIGHTS, &[7]));
        m.extend(message(libc::SOL_SOCKET, SCM_RIGHTS, &[8]));
        assert_eq!(descriptors(&m), [4, 5, 6, 8]);
        // The last message need not be padded.
        assert_eq!(descriptors(&m[..m.len() - 4]), [4, 5, 6, 8]);
    }

    #[test]
    fn what_is_no_message_ends_it() {
        let mut m = message(libc::SOL_SOCKET, SCM_RIGHTS, &[4]);
        for len in [0, HEADER - 1, HEADER + 5, usize::MAX] {
            m[..8].copy_from_slice(&len.to_ne_bytes());
            let cut = if len == HEADER + 5 {
                HEADER + 4
            } else {
                m.len()
            };
            assert!(descriptors(&m[..cut]).is_empty());
        }
    }
}
