//! An rtnetlink socket: requests and their answers, and notifications.

use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::raw;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};

/// Room for one batch of answers: the kernel fills at most 32 KiB of a dump per call.
const BUFFER: usize = 32 << 10;

/// Bytes of a message header, and the alignment of messages.
const HEADER: usize = 16;

/// A netlink socket of family NETLINK_ROUTE.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: Fd,
    sequence: u32,
    buffer: Box<[u8]>,
}

/// Dumps that a change has disturbed are repeated so often; then the last is used.
const DUMP_TRIES: usize = 8;

impl Channel {
    /// Opens a socket in the calling thread's network namespace, subscribed to `groups` (RTNLGRP_*).
    pub(crate) fn open(groups: &[u32]) -> Result<Channel, Errno> {
        let ty = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        let fd = move_high(raw::socket(libc::AF_NETLINK, ty, libc::NETLINK_ROUTE)?)?;
        // SAFETY: sockaddr_nl is made of integers; all zero is valid (the kernel chooses the port).
        let mut addr: libc::sockaddr_nl = unsafe { zeroed() };
        addr.nl_family = libc::AF_NETLINK as u16;
        raw::bind(fd.as_raw_fd(), &addr)?;
        for group in groups {
            raw::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                group,
            )?;
        }
        Ok(Channel {
            fd,
            sequence: 0,
            buffer: vec![0; BUFFER].into(),
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends a request and hands each message of the answer to `each`. rtnetlink answers before the request's
    /// sendto(2) returns, so nothing is waited for. `flags` beyond NLM_F_REQUEST: 0 for one answer, NLM_F_DUMP, or
    /// NLM_F_ACK (with what else the request needs).
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        raw::send(self.fd(), &bytes, 0)?;
        let single = flags & (NLM_F_DUMP | NLM_F_ACK) == 0;
        loop {
            let n = raw::recv(self.fd.as_raw_fd(), &mut self.buffer, 0)?;
            let sequence = self.sequence;
            for (header, payload) in messages(&self.buffer[..n]) {
                if header.sequence_number != sequence {
                    continue;
                }
                match header.message_type {
                    NLMSG_DONE => return disturbed(&header),
                    NLMSG_ERROR => return error_of(payload),
                    _ => {
                        if let Ok(m) = RouteNetlinkMessage::deserialize(&header, payload) {
                            each(m);
                        }
                        if single && header.flags & NLM_F_MULTIPART == 0 {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// A dump, repeated while changes disturb it. `start` is called before each try, to forget the one before.
    pub(crate) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        each: &mut dyn FnMut(Dump),
    ) -> Result<(), Errno> {
        for _ in 0..DUMP_TRIES {
            each(Dump::Start);
            match self.request(message.clone(), NLM_F_DUMP, &mut |m| {
                each(Dump::Message(Box::new(m)))
            }) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
        Ok(())
    }

    /// Hands waiting notifications to `each`.
    ///
    /// # Errors
    /// ENOBUFS when notifications were lost: what is known must be asked for anew.
    pub(crate) fn notifications(
        &mut self,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<(), Errno> {
        loop {
            let n = match raw::recv(self.fd.as_raw_fd(), &mut self.buffer, 0) {
                Ok(n) => n,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e),
            };
            for (header, payload) in messages(&self.buffer[..n]) {
                if let Ok(m) = RouteNetlinkMessage::deserialize(&header, payload) {
                    each(m);
                }
            }
        }
    }
}

/// A step of a dump.
pub(crate) enum Dump {
    /// What was handed out before is void.
    Start,
    /// The next entry.
    Message(Box<RouteNetlinkMessage>),
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

fn disturbed(header: &NetlinkHeader) -> Result<(), Errno> {
    if header.flags & NLM_F_DUMP_INTR != 0 {
        Err(Errno::EINTR)
    } else {
        Ok(())
    }
}

/// The result in an NLMSG_ERROR: zero is an acknowledgement.
fn error_of(payload: &[u8]) -> Result<(), Errno> {
    let code = payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    if code == 0 {
        Ok(())
    } else {
        Err(Errno::new(-code))
    }
}

/// Splits what recv gave into messages; stops at the first that is cut short.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
    std::iter::from_fn(move || {
        let head: &[u8; HEADER] = bytes.first_chunk()?;
        let word =
            |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let mut header = NetlinkHeader::default();
        header.length = word(0);
        header.message_type = half(4);
        header.flags = half(6);
        header.sequence_number = word(8);
        header.port_number = word(12);
        let payload = bytes.get(HEADER..header.length as usize)?;
        bytes = bytes
            .get((header.length as usize).next_multiple_of(4)..)
            .unwrap_or(&[]);
        Some((header, payload))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_short_messages_end_the_batch() {
        let mut batch = vec![0u8; 40];
        batch[0] = 20;
        batch[20..24].copy_from_slice(&20u32.to_ne_bytes());
        assert_eq!(
            messages(&batch)
                .map(|(h, p)| (h.length, p.len()))
                .collect::<Vec<_>>(),
            [(20, 4), (20, 4)]
        );
        assert_eq!(messages(&batch[..39]).count(), 1);
        assert_eq!(messages(&batch[..15]).count(), 0);
        batch[20] = 3;
        assert_eq!(messages(&batch).count(), 1);
    }

    #[test]
    fn errors_are_negative_numbers() {
        assert_eq!(error_of(&0i32.to_ne_bytes()), Ok(()));
        assert_eq!(error_of(&(-101i32).to_ne_bytes()), Err(Errno::ENETUNREACH));
    }
}
