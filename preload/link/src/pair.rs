//! A link over a pair of AF_UNIX sockets, for tests that join two stacks, or two processes, without privilege.
//!
//! A message is a vnet header and the packet from the network header on. Like a ring, the source shows the start of a
//! large frame and lets the rest be taken into memory of the caller's choice.

use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::frame::{
    FrameSink, FrameSource, MAX_FRAGS, MAX_FRAME, MAX_HEADERS, Rest, RxFrame, RxMeta, TxFrame,
    TxVerdict,
};
use crate::outq::SocketOutq;
use crate::packet::vnet::{self, VNET_HDR_LEN};
use crate::raw;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// Bytes that are shown of a frame before it is taken, vnet header included.
const HEAD: usize = 2048;

/// Both ends of a new link; `ifindex` is what each end shows as its device.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pair(ifindex: u32) -> Result<(PairEnd, PairEnd), Errno> {
    let ty = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK;
    let (a, b) = raw::socketpair(libc::AF_UNIX, ty)?;
    let end = |fd: Fd| {
        Ok(PairEnd {
            fd: Arc::new(move_high(fd)?),
            ifindex,
        })
    };
    Ok((end(a)?, end(b)?))
}

/// One end of the link.
#[derive(Debug)]
pub struct PairEnd {
    fd: Arc<Fd>,
    ifindex: u32,
}

impl PairEnd {
    /// An end that another process has made, given as a descriptor.
    pub fn from_fd(fd: Fd, ifindex: u32) -> PairEnd {
        PairEnd {
            fd: Arc::new(fd),
            ifindex,
        }
    }

    /// The descriptor, to be handed to another process.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The way out and the way in.
    pub fn split(self) -> (PairSink, PairSource) {
        let sink = PairSink {
            fd: self.fd.clone(),
        };
        let source = PairSource {
            fd: self.fd,
            ifindex: self.ifindex,
            head: vec![0; HEAD].into(),
            peeked: None,
            scratch: vec![0; VNET_HDR_LEN + MAX_HEADERS].into(),
        };
        (sink, source)
    }
}

/// The way out.
#[derive(Debug)]
pub struct PairSink {
    fd: Arc<Fd>,
}

impl FrameSink for PairSink {
    type Outq = SocketOutq;

    fn send(&mut self, frame: &TxFrame<'_>) -> TxVerdict {
        let Some(header) = vnet::for_tcp(frame.headers, 0, frame.gso_size) else {
            return TxVerdict::Refused(Errno::EINVAL);
        };
        if frame.frags.len() > MAX_FRAGS || frame.headers.len() > MAX_HEADERS {
            return TxVerdict::Refused(Errno::EINVAL);
        }
        if frame.frame_len() > MAX_FRAME {
            return TxVerdict::TooBig;
        }
        let mut head = [0u8; VNET_HDR_LEN];
        header.emit(&mut head);
        let mut iov = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; MAX_FRAGS + 2];
        iov[0] = libc::iovec {
            iov_base: head.as_mut_ptr().cast(),
            iov_len: head.len(),
        };
        let headers = frame.headers;
        iov[1] = libc::iovec {
            iov_base: headers.as_ptr().cast_mut().cast(),
            iov_len: headers.len(),
        };
        iov[2..2 + frame.frags.len()].copy_from_slice(frame.frags);
        // SAFETY: integers and pointers; all zero is valid.
        let mut msg: libc::msghdr = unsafe { zeroed() };
        msg.msg_iov = iov.as_mut_ptr();
        msg.msg_iovlen = 2 + frame.frags.len();
        loop {
            // SAFETY: neither name nor control messages; the kernel checks the payload's addresses.
            match unsafe {
                raw::sendmsg(
                    self.fd.as_raw_fd(),
                    &msg,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            } {
                Ok(_) => return TxVerdict::Sent,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return TxVerdict::DeviceGone,
                Err(e) => return e.into(),
            }
        }
    }

    fn writable_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn outq(&self) -> Self::Outq {
        SocketOutq::new(self.fd.clone())
    }

    fn separate(&mut self) -> bool {
        false
    }
}

/// The way in.
#[derive(Debug)]
pub struct PairSource {
    fd: Arc<Fd>,
    ifindex: u32,
    head: Box<[u8]>,
    /// Length of the message at the head of the queue.
    peeked: Option<usize>,
    scratch: Box<[u8]>,
}

impl PairSource {
    /// The message whose start is in `head`.
    fn frame(&self, len: usize) -> RxFrame<'_> {
        let (gso_size, csum) = vnet::offload(&self.head);
        let bytes = &self.head[VNET_HDR_LEN..len.clamp(VNET_HDR_LEN, HEAD)];
        let protocol = if bytes.first().is_some_and(|b| b >> 4 == 6) {
            libc::ETH_P_IPV6
        } else {
            libc::ETH_P_IP
        };
        let meta = RxMeta {
            ifindex: self.ifindex,
            pkttype: libc::PACKET_HOST,
            protocol: protocol as u16,
            len: len.saturating_sub(VNET_HDR_LEN) as u32,
            gso_size,
            csum,
            stamp: None,
        };
        RxFrame {
            meta,
            bytes,
            rest: if len <= HEAD {
                Rest::Here
            } else {
                Rest::Queued
            },
        }
    }
}

impl FrameSource for PairSource {
    fn peek(&mut self) -> Result<Option<RxFrame<'_>>, Errno> {
        if self.peeked.is_none() {
            let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT;
            match raw::recv(self.fd.as_raw_fd(), &mut self.head, flags) {
                // The end of the other side: no message is empty.
                Ok(0) | Err(Errno::ECONNRESET) => return Err(Errno::ENODEV),
                Ok(n) => self.peeked = Some(n),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.peeked.map(|len| self.frame(len)))
    }

    unsafe fn take(&mut self, skip: usize, into: &[libc::iovec]) -> Result<usize, Errno> {
        if self.peeked.take().is_none() {
            return Ok(0);
        }
        let skip = (VNET_HDR_LEN + skip).min(self.scratch.len());
        let mut iov = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; MAX_FRAGS + 1];
        let parts = into.len().min(MAX_FRAGS);
        iov[0] = libc::iovec {
            iov_base: self.scratch.as_mut_ptr().cast(),
            iov_len: skip,
        };
        iov[1..=parts].copy_from_slice(&into[..parts]);
        // SAFETY: integers and pointers; all zero is valid.
        let mut msg: libc::msghdr = unsafe { zeroed() };
        msg.msg_iov = iov.as_mut_ptr();
        msg.msg_iovlen = parts + 1;
        // SAFETY: the first part is ours, the others by the caller.
        let got = unsafe { raw::recvmsg(self.fd.as_raw_fd(), &mut msg, libc::MSG_DONTWAIT) }?;
        Ok(got.saturating_sub(skip))
    }

    fn release(&mut self) {
        if self.peeked.take().is_some() {
            // The message is there, and its end is thrown away.
            let _ = raw::recv(self.fd.as_raw_fd(), &mut [], libc::MSG_DONTWAIT);
        }
    }

    fn take_drops(&mut self) -> u32 {
        0
    }

    fn readable_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Checksum;
    use sidewire_wire::ethernet::MacAddr;

    fn headers() -> [u8; 40] {
        let mut h = [0u8; 40];
        h[0] = 0x45;
        h[32] = 0x50;
        h
    }

    fn frame<'a>(headers: &'a [u8], frags: &'a [libc::iovec], gso_size: u16) -> TxFrame<'a> {
        let src_mac = MacAddr::UNSPECIFIED;
        TxFrame {
            ifindex: 1,
            dst_mac: None,
            src_mac,
            headers,
            frags,
            gso_size,
            mark: 0,
            priority: 0,
            tstamp: None,
            txtime: None,
        }
    }

    fn iov(bytes: &[u8]) -> libc::iovec {
        libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        }
    }

    #[test]
    fn frames_go_through_in_order() {
        let (a, b) = pair(5).unwrap();
        let (mut sink, _) = a.split();
        let (_, mut source) = b.split();
        assert!(source.peek().unwrap().is_none());
        let data: Vec<u8> = (0..60_000u32).map(|i| i as u8).collect();
        let h = headers();
        assert_eq!(
            sink.send(&frame(&h, &[iov(&data[..7]), iov(&data[7..])], 1000)),
            TxVerdict::Sent
        );
        assert_eq!(
            sink.send(&frame(&h, &[iov(&data[..100])], 0)),
            TxVerdict::Sent
        );
        assert_eq!(sink.send(&frame(&h, &[], 0)), TxVerdict::Sent);
        let f = source.peek().unwrap().unwrap();
        assert_eq!(
            (f.meta.len, f.meta.gso_size, f.rest, f.meta.ifindex),
            (60_040, 1000, Rest::Queued, 5)
        );
        assert_eq!((f.meta.csum, &f.bytes[..40]), (Checksum::NotReady, &h[..]));
        let mut got = vec![0u8; 60_000];
        let into = libc::iovec {
            iov_base: got.as_mut_ptr().cast(),
            iov_len: got.len(),
        };
        // SAFETY: a live buffer.
        assert_eq!(unsafe { source.take(40, &[into]) }, Ok(60_000));
        assert!(got == data);
        let f = source.peek().unwrap().unwrap();
        assert_eq!((f.rest, &f.bytes[40..]), (Rest::Here, &data[..100]));
        source.release();
        assert_eq!(source.peek().unwrap().unwrap().meta.len, 40);
        source.release();
        assert!(source.peek().unwrap().is_none());
    }

    #[test]
    fn verdicts() {
        let (a, b) = pair(5).unwrap();
        let (mut sink, _) = a.split();
        let h = headers();
        let bad = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(64),
            iov_len: 10,
        };
        assert_eq!(sink.send(&frame(&h, &[bad], 0)), TxVerdict::Fault);
        let data = vec![0u8; 65_536];
        assert_eq!(
            sink.send(&frame(&h, &[iov(&data)], 1000)),
            TxVerdict::TooBig
        );
        let full = (0..10_000)
            .map(|_| sink.send(&frame(&h, &[iov(&data[..60_000])], 1000)))
            .find(|v| *v != TxVerdict::Sent);
        assert_eq!(full, Some(TxVerdict::NoSpace));
        drop(b);
        assert_eq!(sink.send(&frame(&h, &[], 0)), TxVerdict::DeviceGone);
    }

    #[test]
    fn end_of_the_other_side() {
        let (a, b) = pair(5).unwrap();
        let (_, mut source) = b.split();
        drop(a);
        assert_eq!(source.peek().unwrap_err(), Errno::ENODEV);
    }
}
