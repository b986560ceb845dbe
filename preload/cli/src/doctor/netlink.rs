//! A netlink dump and the attributes in its answers, as far as the firewall's
//! families need them.

use std::iter;

use rustix::io::{Errno, Result};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
};

/// `struct nlmsghdr`, bytes.
const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER, which are no part of the type.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// The kernel fills at most 32 KiB of a dump per call.
const BUFFER: usize = 32 << 10;

/// Asks `protocol` for everything of type `kind` and hands what stands behind
/// each answer's header to `each`.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; EPROTONOSUPPORT or EINVAL where the kernel lacks
/// the family.
pub(super) fn dump(
    protocol: Protocol,
    kind: u16,
    request: &[u8],
    mut each: impl FnMut(&[u8]),
) -> Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )?;
    let mut message = Vec::with_capacity(HEADER + request.len());
    message.extend(
        u32::try_from(HEADER + request.len())
            .unwrap_or(u32::MAX)
            .to_ne_bytes(),
    );
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence number and port: one question on a socket of its own needs none.
    message.extend([0; 8]);
    message.extend(request);
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &message, SendFlags::empty(), &kernel)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if length == 0 {
            return Ok(());
        }
        for (kind, payload) in messages(&buffer[..length]) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
                    return match code {
                        0 => Ok(()),
                        _ => Err(Errno::from_raw_os_error(-code)),
                    };
                }
                _ => each(payload),
            }
        }
    }
}

/// Type and payload of each message; stops at the first that is cut short.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

/// Type and payload of each attribute; stops at the first that is cut short.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_walked_and_rubbish_ends_the_walk() {
        // Five bytes of type 1, three of padding, then four of nested type 2.
        let bytes = [
            &[9, 0, 1, 0, 1, 2, 3, 4, 5, 0, 0, 0][..],
            &[8, 0, 2, 0x80, 6, 7, 8, 9],
        ]
        .concat();
        let walked: Vec<(u16, &[u8])> = attributes(&bytes).collect();
        assert_eq!(walked, [(1, &[1, 2, 3, 4, 5][..]), (2, &[6, 7, 8, 9])]);
        for end in 0..bytes.len() {
            assert!(attributes(&bytes[..end]).count() <= 1);
        }
        // A length below the header's would never end.
        assert_eq!(attributes(&[0; 64]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
