use core::fmt;

macro_rules! parse_errors {
    ($($name:ident = $text:literal,)*) => {
        /// Why bytes are not what they should be: one counter each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ParseError {
            $(#[doc = $text] $name,)*
        }

        impl ParseError {
            /// Every reason, in the order of [`index`](Self::index).
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason in words.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

parse_errors! {
    FrameTruncated = "frame shorter than its link-layer header",
    ArpTruncated = "ARP packet too short",
    ArpFormat = "ARP packet not for IPv4 over Ethernet",
    Ipv4Truncated = "IPv4 packet shorter than its header",
    Ipv4Version = "not IPv4",
    Ipv4HeaderLen = "IPv4 header length below 20 bytes",
    Ipv4TotalLen = "IPv4 total length impossible",
    Ipv4Checksum = "IPv4 header checksum wrong",
    Ipv6Truncated = "IPv6 packet shorter than its header",
    Ipv6Version = "not IPv6",
    Ipv6PayloadLen = "IPv6 payload length impossible",
    Ipv6ExtensionHeader = "IPv6 extension headers malformed, too many, or asking for routing",
    Ipv6Fragment = "IPv6 fragment",
    TcpTruncated = "TCP segment shorter than its header",
    TcpHeaderLen = "TCP data offset below 5",
    IcmpTruncated = "ICMP message too short",
    IcmpChecksum = "ICMP checksum wrong",
    IcmpType = "ICMP message of a kind that says nothing about a connection",
    IcmpEmbedded = "ICMP error about something other than a TCP segment",
    NdpFormat = "neighbour discovery message malformed",
    VnetTruncated = "virtio-net header too short",
    SegmentHeaders = "headers of a super-frame that are not IP and TCP",
}

impl ParseError {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in a table of [`COUNT`](Self::COUNT) counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_fill_the_table() {
        for (at, reason) in ParseError::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
        assert_eq!(ParseError::COUNT, ParseError::ALL.len());
    }
}
