//! Transmit timestamps and transmit times of single frames, by the packet socket's own SO_TIMESTAMPING and SO_TXTIME.
//!
//! A frame asks for its stamps in a control message, under a key of the caller's (SCM_TS_OPT_ID, Linux 6.13); they come
//! back by the socket's error queue. The socket is set up when the first frame asks: until then it costs nothing.

use crate::Errno;
use crate::frame::TxFrame;
use crate::raw;
use sidewire_uapi::errqueue::{SO_EE_ORIGIN_TIMESTAMPING, SOCK_EXTENDED_ERR_LEN};
use sidewire_uapi::socket::{SOF_TXTIME_DEADLINE_MODE, SockTxtime};
use sidewire_uapi::timestamping as sof;
use std::mem::zeroed;
use std::os::fd::RawFd;

/// A `sock_extended_err` of SOL_PACKET.
const PACKET_TX_TIMESTAMP: i32 = 16;
/// Room for SCM_TIMESTAMPING (64), a timestamp of the older kinds (32) and PACKET_TX_TIMESTAMP (32), in bytes.
const CONTROL: usize = 256;

/// A stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxStamp {
    /// [`crate::frame::TxTstamp::key`].
    pub key: u32,
    /// `SCM_TSTAMP_*`.
    pub tstype: u32,
    /// The kernel's time, nanoseconds of CLOCK_REALTIME; 0 for none.
    pub software: u64,
    /// The device's, nanoseconds of its clock; 0 for none.
    pub hardware: u64,
}

/// What the kernel has of this, and what the socket is set up for.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// SO_TIMESTAMPING's flags as they were set; 0 before the first frame that asks.
    reporting: u32,
    /// Bits of SOF_TIMESTAMPING_TX_* that the kernel does not know.
    unknown: u32,
    /// There are no keys: nobody could tell whose a stamp is.
    no_keys: bool,
    /// SO_TXTIME as it was set.
    txtime: Option<SockTxtime>,
    /// The frame that was sent last asked for stamps.
    asked: bool,
}

impl Timing {
    /// The frame as this kernel takes it, with the socket set up for it.
    #[cold]
    pub(super) fn prepare<'a>(&mut self, fd: RawFd, frame: &TxFrame<'a>) -> TxFrame<'a> {
        let mut frame = *frame;
        if let Some(t) = &mut frame.tstamp {
            t.flags &= !self.unknown;
            if t.flags == 0 || self.no_keys || !self.report(fd, t.swhw) {
                frame.tstamp = None;
            }
        }
        if let Some(t) = frame.txtime {
            // Reports of missed deadlines would come to us, who have no use for them.
            let wanted = SockTxtime {
                clockid: t.clockid,
                flags: t.flags & SOF_TXTIME_DEADLINE_MODE,
            };
            if !self.clock(fd, wanted) {
                frame.txtime = None;
            }
        }
        self.asked = frame.tstamp.is_some();
        frame
    }

    fn report(&mut self, fd: RawFd, swhw: bool) -> bool {
        let mut flags = sof::SOF_TIMESTAMPING_SOFTWARE
            | sof::SOF_TIMESTAMPING_RAW_HARDWARE
            | sof::SOF_TIMESTAMPING_OPT_ID
            | sof::SOF_TIMESTAMPING_OPT_TSONLY;
        if swhw {
            flags |= sof::SOF_TIMESTAMPING_OPT_TX_SWHW;
        }
        if self.reporting & flags != flags {
            flags |= self.reporting;
            let set = raw::setsockopt(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &flags);
            self.no_keys = set.is_err();
            self.reporting = flags;
        }
        !self.no_keys
    }

    /// One socket has one clock: frames of another one change it.
    fn clock(&mut self, fd: RawFd, wanted: SockTxtime) -> bool {
        if self.txtime != Some(wanted) {
            let set = raw::setsockopt(fd, libc::SOL_SOCKET, libc::SO_TXTIME, &wanted);
            self.txtime = set.is_ok().then_some(wanted);
        }
        self.txtime.is_some()
    }

    /// The kernel answered EINVAL to a frame as [`Timing::prepare`] made it: true when the stamps may be why, and the next
    /// try asks for less.
    pub(super) fn refused(&mut self, frame: &TxFrame<'_>) -> bool {
        let Some(t) = frame.tstamp else {
            return false;
        };
        let newest = sof::SOF_TIMESTAMPING_TX_COMPLETION;
        if t.flags & newest != 0 {
            self.unknown |= newest;
        } else {
            self.no_keys = true;
        }
        true
    }

    /// True when the frame that was sent last asked for stamps.
    pub(super) fn stamps(&self) -> bool {
        self.asked
    }
}

/// Takes a stamp off the socket's error queue; anything else that stands there is thrown away.
pub(super) fn read(fd: RawFd) -> Option<TxStamp> {
    loop {
        let mut control = [0u64; CONTROL / 8];
        // SAFETY: integers and pointers; all zero is valid.
        let mut hdr: libc::msghdr = unsafe { zeroed() };
        hdr.msg_control = control.as_mut_ptr().cast();
        hdr.msg_controllen = CONTROL;
        // SAFETY: the control buffer lives until the call ends; there is no name and no iovec.
        match unsafe { raw::recvmsg(fd, &mut hdr, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) } {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => return None,
        }
        let len = hdr.msg_controllen.min(CONTROL) / 8;
        if let Some(stamp) = parse(&control[..len]) {
            return Some(stamp);
        }
    }
}

/// The stamp that control messages tell, if they tell one.
fn parse(mut control: &[u64]) -> Option<TxStamp> {
    let mut stamp = TxStamp::default();
    let mut keyed = false;
    while let [len, kind, rest @ ..] = control {
        let words = (*len as usize).div_ceil(8).checked_sub(2)?.min(rest.len());
        let (data, next) = rest.split_at(words);
        let (level, kind) = halves(*kind);
        match (level as i32, kind as i32) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) if words >= 6 => {
                stamp.software = data[0] * 1_000_000_000 + data[1];
                stamp.hardware = data[4] * 1_000_000_000 + data[5];
            }
            (libc::SOL_PACKET, PACKET_TX_TIMESTAMP) if words * 8 >= SOCK_EXTENDED_ERR_LEN => {
                let origin = data[0].to_ne_bytes()[4];
                keyed = origin == SO_EE_ORIGIN_TIMESTAMPING;
                (stamp.tstype, stamp.key) = halves(data[1]);
            }
            _ => {}
        }
        control = next;
    }
    (keyed && (stamp.software | stamp.hardware) != 0).then_some(stamp)
}

/// Two 32-bit numbers as they follow each other in memory.
fn halves(word: u64) -> (u32, u32) {
    let b = word.to_ne_bytes();
    (
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
        u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(first: u32, second: u32) -> u64 {
        let mut b = [0; 8];
        b[..4].copy_from_slice(&first.to_ne_bytes());
        b[4..].copy_from_slice(&second.to_ne_bytes());
        u64::from_ne_bytes(b)
    }

    fn messages(times: [u64; 6], origin: u8, tstype: u32, key: u32) -> Vec<u64> {
        let mut out = vec![
            64,
            word(libc::SOL_SOCKET as u32, libc::SCM_TIMESTAMPING as u32),
        ];
        out.extend(times);
        out.extend([
            32,
            word(libc::SOL_PACKET as u32, PACKET_TX_TIMESTAMP as u32),
        ]);
        out.push(word(
            libc::ENOMSG as u32,
            u32::from_ne_bytes([origin, 0, 0, 0]),
        ));
        out.push(word(tstype, key));
        out
    }

    #[test]
    fn software_and_hardware_stamps_are_told_apart() {
        let software = messages(
            [3, 7, 0, 0, 0, 0],
            SO_EE_ORIGIN_TIMESTAMPING,
            1,
            0xfedc_ba98,
        );
        let hardware = messages([0, 0, 0, 0, 5, 9], SO_EE_ORIGIN_TIMESTAMPING, 0, 4);
        let stamp = parse(&software).unwrap();
        assert_eq!((stamp.key, stamp.tstype), (0xfedc_ba98, 1));
        assert_eq!((stamp.software, stamp.hardware), (3_000_000_007, 0));
        let stamp = parse(&hardware).unwrap();
        assert_eq!((stamp.software, stamp.hardware), (0, 5_000_000_009));
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        assert_eq!(parse(&messages([3, 7, 0, 0, 0, 0], 6, 0, 4)), None);
        assert_eq!(
            parse(&messages([0; 6], SO_EE_ORIGIN_TIMESTAMPING, 0, 4)),
            None
        );
        let whole = messages([3, 7, 0, 0, 0, 0], SO_EE_ORIGIN_TIMESTAMPING, 1, 2);
        for cut in 0..whole.len() - 2 {
            assert_eq!(parse(&whole[..cut]), None);
        }
        assert_eq!(parse(&[0, 0, 0]), None);
    }
}
