//! TCP segments (RFC 9293).

use crate::bytes::{be16, be32, put};
use crate::tcp_options::MAX_OPTIONS_LEN;
use crate::{ParseError, checksum};
use core::fmt;

pub use crate::tcp_options::TcpOptions;

/// Length of the header without options, bytes.
pub const HEADER_LEN: usize = 20;
/// Longest header, bytes.
pub const MAX_HEADER_LEN: usize = HEADER_LEN + MAX_OPTIONS_LEN;
/// Offset of the checksum field in the header (`csum_offset` of a virtio-net header).
pub const CHECKSUM_OFFSET: usize = 16;

bitflags::bitflags! {
    /// Control bits of a segment.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TcpFlags: u8 {
        /// No more data from the sender.
        const FIN = 0x01;
        /// Synchronise sequence numbers.
        const SYN = 0x02;
        /// Reset the connection.
        const RST = 0x04;
        /// Push.
        const PSH = 0x08;
        /// The acknowledgement field is significant.
        const ACK = 0x10;
        /// The urgent field is significant.
        const URG = 0x20;
        /// A congestion mark was received (RFC 3168).
        const ECE = 0x40;
        /// The congestion window was reduced (RFC 3168).
        const CWR = 0x80;
    }
}

/// As packet dumps write them: `S`, `F`, `R`, `P`, `.` for ACK, `U`, `E`, `W`; `-` for none.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(TcpFlags, &str); 8] = [
            (TcpFlags::FIN, "F"),
            (TcpFlags::SYN, "S"),
            (TcpFlags::RST, "R"),
            (TcpFlags::PSH, "P"),
            (TcpFlags::ACK, "."),
            (TcpFlags::URG, "U"),
            (TcpFlags::ECE, "E"),
            (TcpFlags::CWR, "W"),
        ];
        if self.is_empty() {
            return f.write_str("-");
        }
        for (flag, letter) in LETTERS {
            if self.contains(flag) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// A received segment.
#[derive(Clone, Copy, Debug)]
pub struct TcpView<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
    payload_len: usize,
}

impl<'a> TcpView<'a> {
    /// Checks a segment that is all there: `segment` is the payload of its IP packet.
    ///
    /// # Errors
    /// [`ParseError::TcpTruncated`], [`ParseError::TcpHeaderLen`].
    pub fn parse(segment: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_prefix(segment, segment.len())
    }

    /// Checks a segment of `segment_len` bytes of which `bytes` is the beginning. The header
    /// must be there with its options.
    ///
    /// # Errors
    /// [`ParseError::TcpTruncated`], [`ParseError::TcpHeaderLen`].
    #[inline]
    pub fn parse_prefix(bytes: &'a [u8], segment_len: usize) -> Result<Self, ParseError> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ParseError::TcpTruncated)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let options_len = header_len
            .checked_sub(HEADER_LEN)
            .ok_or(ParseError::TcpHeaderLen)?;
        let (options, payload) = rest
            .split_at_checked(options_len)
            .ok_or(ParseError::TcpTruncated)?;
        let payload_len = segment_len
            .checked_sub(header_len)
            .ok_or(ParseError::TcpTruncated)?;
        let payload = payload.get(..payload_len).unwrap_or(payload);
        Ok(Self {
            header,
            options,
            payload,
            payload_len,
        })
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        be16(self.header, 0)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        be16(self.header, 2)
    }

    /// Sequence number of the first byte, or of the SYN.
    #[inline]
    pub fn seq(&self) -> u32 {
        be32(self.header, 4)
    }

    /// Acknowledgement number.
    #[inline]
    pub fn ack_seq(&self) -> u32 {
        be32(self.header, 8)
    }

    /// Control bits.
    #[inline]
    pub fn flags(&self) -> TcpFlags {
        TcpFlags::from_bits_retain(self.header[13])
    }

    /// Window as it stands in the header, unscaled.
    #[inline]
    pub fn window(&self) -> u16 {
        be16(self.header, 14)
    }

    /// Checksum field.
    pub fn checksum(&self) -> u16 {
        be16(self.header, CHECKSUM_OFFSET)
    }

    /// Urgent pointer.
    #[inline]
    pub fn urg_ptr(&self) -> u16 {
        be16(self.header, 18)
    }

    /// Header length with options, 20..=60 bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Option bytes, see [`TcpOptions::parse`].
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// Length of the payload, bytes, whether at hand or not.
    #[inline]
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// The payload as far as it is at hand.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Sequence number after the segment: SYN and FIN take one each.
    #[inline]
    pub fn end_seq(&self) -> u32 {
        let flags = self.flags();
        let control =
            u32::from(flags.contains(TcpFlags::SYN)) + u32::from(flags.contains(TcpFlags::FIN));
        self.seq()
            .wrapping_add(self.payload_len as u32)
            .wrapping_add(control)
    }

    /// Sum of the header with options, checksum field included: the part of the checksum that
    /// lies beside the pseudo header and the payload.
    #[inline]
    pub fn header_sum(&self) -> u16 {
        checksum::add(checksum::sum(self.header), checksum::sum(self.options))
    }

    /// Is the checksum right? Needs the whole payload at hand, and the pseudo header's sum.
    pub fn checksum_ok(&self, pseudo_header: u16) -> bool {
        let payload = checksum::sum(self.payload);
        let sum = checksum::add(pseudo_header, checksum::add(self.header_sum(), payload));
        self.payload.len() == self.payload_len && checksum::is_valid(sum)
    }
}

/// Fields of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack_seq: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urg_ptr: u16,
}

impl TcpHeader {
    /// Writes header and options, at most [`MAX_HEADER_LEN`] bytes, the checksum field zero (see
    /// [`set_checksum`]).
    #[inline]
    pub fn emit(&self, options: &TcpOptions, out: &mut [u8]) -> Option<usize> {
        let (b, rest) = out.split_first_chunk_mut::<HEADER_LEN>()?;
        let header_len = HEADER_LEN + options.emit(rest)?;
        put(b, 0, self.src_port.to_be_bytes());
        put(b, 2, self.dst_port.to_be_bytes());
        put(b, 4, self.seq.to_be_bytes());
        put(b, 8, self.ack_seq.to_be_bytes());
        put(b, 12, [(header_len as u8 / 4) << 4, self.flags.bits()]);
        put(b, 14, self.window.to_be_bytes());
        put(b, CHECKSUM_OFFSET, [0, 0]);
        put(b, 18, self.urg_ptr.to_be_bytes());
        Some(header_len)
    }
}

/// Writes `field` into the checksum field of the TCP header that `segment` begins with; false
/// when it is too short. For an unfinished checksum the field is the pseudo header's sum.
#[inline]
pub fn set_checksum(segment: &mut [u8], field: u16) -> bool {
    match segment.first_chunk_mut::<HEADER_LEN>() {
        Some(header) => {
            put(header, CHECKSUM_OFFSET, field.to_be_bytes());
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::net::Ipv4Addr;
    use std::string::ToString;

    const HEADER: TcpHeader = TcpHeader {
        src_port: 5001,
        dst_port: 80,
        seq: u32::MAX - 1,
        ack_seq: 77,
        flags: TcpFlags::ACK.union(TcpFlags::FIN),
        window: 1024,
        urg_ptr: 3,
    };

    #[test]
    fn fields_come_back() {
        let mut out = [5; 64];
        let options = TcpOptions {
            timestamps: Some((1, 2)),
            ..TcpOptions::default()
        };
        assert_eq!(HEADER.emit(&options, &mut out), Some(32));
        let view = TcpView::parse(&out[..35]).unwrap();
        assert_eq!((view.src_port(), view.dst_port()), (5001, 80));
        assert_eq!((view.seq(), view.ack_seq()), (u32::MAX - 1, 77));
        assert_eq!(
            (view.flags(), view.window(), view.urg_ptr()),
            (HEADER.flags, 1024, 3)
        );
        assert_eq!((view.header_len(), view.payload_len()), (32, 3));
        assert_eq!(view.payload(), [5; 3]);
        assert_eq!(view.end_seq(), 2, "three bytes and a FIN, past zero");
        assert_eq!(TcpOptions::parse(view.options(), false), options);
        assert_eq!(view.flags().to_string(), "F.");
    }

    #[test]
    fn a_prefix_keeps_the_length_of_the_whole() {
        let mut out = [0; 40];
        HEADER.emit(&TcpOptions::default(), &mut out).unwrap();
        let view = TcpView::parse_prefix(&out[..30], 1000).unwrap();
        assert_eq!((view.payload_len(), view.payload().len()), (980, 10));
        assert_eq!(
            TcpView::parse_prefix(&out, 19).unwrap_err(),
            ParseError::TcpTruncated
        );
    }

    #[test]
    fn each_flaw_has_its_reason() {
        let mut out = [0; 24];
        assert_eq!(
            TcpView::parse(&out[..19]).unwrap_err(),
            ParseError::TcpTruncated
        );
        out[12] = 0x40;
        assert_eq!(TcpView::parse(&out).unwrap_err(), ParseError::TcpHeaderLen);
        out[12] = 0x70;
        assert_eq!(TcpView::parse(&out).unwrap_err(), ParseError::TcpTruncated);
    }

    #[test]
    fn checksums_of_odd_payloads() {
        let mut out = [0x5a; 27];
        HEADER.emit(&TcpOptions::default(), &mut out).unwrap();
        let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let pseudo = checksum::pseudo_header_v4(src, dst, 6, 27);
        let field = checksum::finish(checksum::add(pseudo, checksum::sum(&out)));
        assert!(set_checksum(&mut out, field));
        assert!(TcpView::parse(&out).unwrap().checksum_ok(pseudo));
        out[26] ^= 4;
        assert!(!TcpView::parse(&out).unwrap().checksum_ok(pseudo));
        assert!(!set_checksum(&mut out[..19], 0));
    }
}
