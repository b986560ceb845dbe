//! Super-frames cut into MTU-sized ones with finished checksums, for devices that take no offloads.

use crate::Errno;
use crate::frame::{MAX_FRAME, MAX_HEADERS, MAX_L2, TxFrame, TxVerdict};
use crate::packet::vnet::VNET_HDR_LEN;
use crate::raw;
use sidewire_wire::checksum;
use sidewire_wire::ethernet::EthernetHeader;
use sidewire_wire::segment::Segmenter;
use std::mem::zeroed;
use std::num::NonZeroU16;
use std::os::fd::RawFd;

/// Frames per sendmmsg.
const BATCH: usize = 64;

/// Smallest gso_size that a super-frame may have: TCP_MIN_GSO_SIZE, 8 bytes, would make 8192 frames of one.
pub(crate) const MIN_GSO: usize = 88;

/// Room for all headers of one frame, empty vnet header included.
const HEAD: usize = VNET_HDR_LEN + MAX_L2 + MAX_HEADERS;

/// The frames that one super-frame was cut into. All memory is allocated once.
pub(crate) struct Cutter {
    /// The payload, copied out of what may be the program's memory: it must not change between checksum and sending.
    payload: Box<[u8]>,
    /// [`HEAD`] bytes for each segment.
    heads: Box<[u8]>,
    head_len: usize,
    len: usize,
    size: usize,
    name: libc::sockaddr_ll,
}

impl Default for Cutter {
    fn default() -> Cutter {
        Cutter {
            payload: vec![0; MAX_FRAME].into(),
            heads: vec![0; HEAD * MAX_FRAME.div_ceil(MIN_GSO)].into(),
            head_len: 0,
            len: 0,
            size: 1,
            // SAFETY: integers; all zero is valid.
            name: unsafe { zeroed() },
        }
    }
}

impl Cutter {
    fn segments(&self) -> usize {
        self.len.div_ceil(self.size).max(1)
    }

    /// Cuts `frame` into segments. Its length has been checked.
    pub(crate) fn cut(&mut self, frame: &TxFrame<'_>) -> Result<(), TxVerdict> {
        self.len = frame.payload_len();
        self.size = if frame.gso_size == 0 {
            self.len.max(1)
        } else {
            usize::from(frame.gso_size)
        };
        if self.size < MIN_GSO && self.segments() > 1 {
            return Err(TxVerdict::Refused(Errno::EINVAL));
        }
        if self.len > 0 {
            // A short count is a fault in a later part.
            match raw::read_own_memory(raw::getpid(), frame.frags, &mut self.payload[..self.len]) {
                Ok(n) if n == self.len => {}
                Ok(_) | Err(Errno::EFAULT) => return Err(TxVerdict::Fault),
                Err(e) => return Err(TxVerdict::Refused(e)),
            }
        }
        let l2 = if frame.dst_mac.is_some() { MAX_L2 } else { 0 };
        let at = VNET_HDR_LEN + l2;
        self.head_len = at + frame.headers.len();
        let ethertype = frame.ethertype();
        let segmenter = NonZeroU16::new(self.size as u16)
            .and_then(|size| Segmenter::new(frame.headers, self.len, size).ok())
            .ok_or(TxVerdict::Refused(Errno::EINVAL))?;
        for (segment, head) in segmenter.clone().zip(self.heads.chunks_exact_mut(HEAD)) {
            head[..VNET_HDR_LEN].fill(0);
            if let Some(dst) = frame.dst_mac {
                let ethernet = EthernetHeader {
                    dst,
                    src: frame.src_mac,
                    ethertype,
                };
                ethernet.emit(&mut head[VNET_HDR_LEN..]);
            }
            let sum = checksum::sum(&self.payload[segment.offset..][..segment.len]);
            segmenter
                .emit(&segment, sum, &mut head[at..])
                .ok_or(TxVerdict::TooBig)?;
        }
        self.name.sll_family = libc::AF_PACKET as u16;
        self.name.sll_protocol = ethertype.to_be();
        self.name.sll_ifindex = frame.ifindex as i32;
        self.name.sll_halen = 6;
        self.name.sll_addr[..6].copy_from_slice(&frame.dst_mac.unwrap_or_default().0);
        Ok(())
    }

    /// Sends the segments. Not [`TxVerdict::Sent`] when the socket took only some; what the queueing discipline drops of
    /// several is lost on the way, unless it is all of them (Linux `tbf_segment`).
    pub(crate) fn send(&mut self, fd: RawFd) -> TxVerdict {
        let count = self.segments();
        let (mut done, mut dropped) = (0, 0);
        while done < count {
            let batch = (count - done).min(BATCH);
            // SAFETY: integers and pointers; all zero is valid.
            let mut iov: [[libc::iovec; 2]; BATCH] = unsafe { zeroed() };
            // SAFETY: as above.
            let mut msgs: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
            for (k, (msg, iov)) in msgs.iter_mut().zip(&mut iov).take(batch).enumerate() {
                let i = done + k;
                let from = i * self.size;
                let part = &self.payload[from..self.len.min(from + self.size)];
                let head = &self.heads[i * HEAD..][..self.head_len];
                iov[0] = libc::iovec {
                    iov_base: head.as_ptr().cast_mut().cast(),
                    iov_len: head.len(),
                };
                iov[1] = libc::iovec {
                    iov_base: part.as_ptr().cast_mut().cast(),
                    iov_len: part.len(),
                };
                let hdr = &mut msg.msg_hdr;
                hdr.msg_name = (&raw mut self.name).cast();
                hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
                hdr.msg_iov = iov.as_mut_ptr();
                hdr.msg_iovlen = 2;
            }
            // SAFETY: every pointer set above names memory that lives until the call ends and is only read.
            match unsafe { raw::sendmmsg(fd, &mut msgs[..batch], libc::MSG_DONTWAIT) } {
                Ok(n) => done += n,
                Err(Errno::EINTR) => {}
                Err(e) => match e.into() {
                    TxVerdict::Dropped => (done, dropped) = (done + 1, dropped + 1),
                    verdict => return verdict,
                },
            }
        }
        if dropped == count {
            TxVerdict::Dropped
        } else {
            TxVerdict::Sent
        }
    }
}
