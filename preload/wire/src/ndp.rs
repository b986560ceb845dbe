//! Neighbour solicitations and advertisements (RFC 4861).

use crate::bytes::{array, put};
use crate::ethernet::MacAddr;
use crate::{ParseError, checksum};
use core::net::Ipv6Addr;

/// Length of a message without options, bytes.
pub const HEADER_LEN: usize = 24;
/// Length of a message with a link-layer address, bytes.
pub const MESSAGE_LEN: usize = HEADER_LEN + 8;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// A neighbour discovery message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpMessage {
    /// Who has the target?
    Solicitation {
        /// The address in question.
        target: Ipv6Addr,
        /// Hardware address of who asks; none in duplicate address detection.
        source_mac: Option<MacAddr>,
    },
    /// The sender has the target.
    Advertisement {
        /// The address in question.
        target: Ipv6Addr,
        /// Its hardware address.
        target_mac: Option<MacAddr>,
        /// The sender is a router.
        router: bool,
        /// This answers a solicitation.
        solicited: bool,
        /// An entry that is known should change.
        overrides: bool,
    },
}

impl NdpMessage {
    /// Reads the payload of an IPv6 packet of protocol ICMPv6, whose pseudo header's sum is
    /// `pseudo_header`. The caller checks that its hop limit is [`HOP_LIMIT`].
    ///
    /// # Errors
    /// [`ParseError::IcmpTruncated`], [`ParseError::IcmpChecksum`], [`ParseError::IcmpType`] when
    /// it is neither message, [`ParseError::NdpFormat`] for a multicast target or bad options.
    pub fn parse(message: &[u8], pseudo_header: u16) -> Result<Self, ParseError> {
        let (b, options) = message
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ParseError::IcmpTruncated)?;
        if !checksum::is_valid(checksum::add(pseudo_header, checksum::sum(message))) {
            return Err(ParseError::IcmpChecksum);
        }
        let wanted = match b[0] {
            SOLICITATION => OPTION_SOURCE,
            ADVERTISEMENT => OPTION_TARGET,
            _ => return Err(ParseError::IcmpType),
        };
        let target = Ipv6Addr::from(array::<16, _>(b, 8));
        if b[1] != 0 || target.is_multicast() {
            return Err(ParseError::NdpFormat);
        }
        let mac = link_layer_address(options, wanted)?;
        Ok(if b[0] == SOLICITATION {
            Self::Solicitation {
                target,
                source_mac: mac,
            }
        } else {
            Self::Advertisement {
                target,
                target_mac: mac,
                router: b[4] & FLAG_ROUTER != 0,
                solicited: b[4] & FLAG_SOLICITED != 0,
                overrides: b[4] & FLAG_OVERRIDE != 0,
            }
        })
    }

    /// Bytes that [`emit`](Self::emit) writes.
    pub fn emitted_len(&self) -> usize {
        match self {
            Self::Solicitation {
                source_mac: None, ..
            }
            | Self::Advertisement {
                target_mac: None, ..
            } => HEADER_LEN,
            _ => MESSAGE_LEN,
        }
    }

    /// Writes the message. `pseudo_header` is [`checksum::pseudo_header_v6`] for
    /// [`emitted_len`](Self::emitted_len).
    pub fn emit(&self, pseudo_header: u16, out: &mut [u8]) -> Option<usize> {
        let len = self.emitted_len();
        let out = out.get_mut(..len)?;
        let (b, rest) = out.split_first_chunk_mut::<HEADER_LEN>()?;
        let (kind, flags, target, option, mac) = match *self {
            Self::Solicitation { target, source_mac } => {
                (SOLICITATION, 0, target, OPTION_SOURCE, source_mac)
            }
            Self::Advertisement {
                target,
                target_mac,
                router,
                solicited,
                overrides,
            } => {
                let flags = if router { FLAG_ROUTER } else { 0 }
                    | if solicited { FLAG_SOLICITED } else { 0 }
                    | if overrides { FLAG_OVERRIDE } else { 0 };
                (ADVERTISEMENT, flags, target, OPTION_TARGET, target_mac)
            }
        };
        put(b, 0, [kind, 0, 0, 0, flags, 0, 0, 0]);
        put(b, 8, target.octets());
        if let (Some(mac), Some(rest)) = (mac, rest.first_chunk_mut::<8>()) {
            put(rest, 0, [option, 1]);
            put(rest, 2, mac.0);
        }
        let sum = checksum::add(checksum::sum(b), checksum::sum(rest));
        put(
            b,
            2,
            checksum::finish(checksum::add(sum, pseudo_header)).to_be_bytes(),
        );
        Some(len)
    }
}

/// The link-layer address in the options, of the kind that is wanted.
fn link_layer_address(options: &[u8], wanted: u8) -> Result<Option<MacAddr>, ParseError> {
    let mut rest = options;
    let mut found = None;
    while let [kind, units, ..] = *rest {
        let len = usize::from(units) * 8;
        let (option, after) = match rest.split_at_checked(len) {
            Some(split) if len > 0 => split,
            _ => return Err(ParseError::NdpFormat),
        };
        if kind == wanted
            && let Some(option) = option.first_chunk::<8>()
            && len == 8
        {
            found = Some(MacAddr(array(option, 2)));
        }
        rest = after;
    }
    if rest.is_empty() {
        Ok(found)
    } else {
        Err(ParseError::NdpFormat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd91, 0, 0, 0, 0, 0, 0, 9);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn round_trip() {
        let mut messages = [
            NdpMessage::Solicitation {
                target: TARGET,
                source_mac: Some(MAC),
            },
            NdpMessage::Solicitation {
                target: TARGET,
                source_mac: None,
            },
            NdpMessage::Advertisement {
                target: TARGET,
                target_mac: Some(MAC),
                router: true,
                solicited: false,
                overrides: true,
            },
            NdpMessage::Advertisement {
                target: TARGET,
                target_mac: None,
                router: false,
                solicited: true,
                overrides: false,
            },
        ];
        let mut out = [0; MESSAGE_LEN];
        for message in &mut messages {
            let len = message.emit(0x1234, &mut out).unwrap();
            assert_eq!(len, message.emitted_len());
            assert_eq!(NdpMessage::parse(&out[..len], 0x1234), Ok(*message));
            assert_eq!(message.emit(0, &mut out[..len - 1]), None);
        }
    }

    #[test]
    fn each_flaw_has_its_reason() {
        let message = NdpMessage::Solicitation {
            target: TARGET,
            source_mac: Some(MAC),
        };
        let reason = |change: fn(&mut [u8])| {
            let mut out = [0; MESSAGE_LEN];
            message.emit(0, &mut out).unwrap();
            change(&mut out);
            out[2..4].fill(0);
            let field = checksum::finish(checksum::sum(&out));
            out[2..4].copy_from_slice(&field.to_be_bytes());
            NdpMessage::parse(&out, 0).unwrap_err()
        };
        assert_eq!(
            NdpMessage::parse(&[135; 23], 0),
            Err(ParseError::IcmpTruncated)
        );
        assert_eq!(reason(|m| m[0] = 134), ParseError::IcmpType);
        assert_eq!(reason(|m| m[1] = 1), ParseError::NdpFormat);
        assert_eq!(reason(|m| m[8] = 0xff), ParseError::NdpFormat);
        assert_eq!(reason(|m| m[25] = 0), ParseError::NdpFormat);
        assert_eq!(reason(|m| m[25] = 2), ParseError::NdpFormat);
        let mut out = [0; MESSAGE_LEN];
        message.emit(0, &mut out).unwrap();
        assert_eq!(NdpMessage::parse(&out, 1), Err(ParseError::IcmpChecksum));
    }
}
