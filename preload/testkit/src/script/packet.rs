//! Segments between a script's numbers and the wire's.

use std::fmt::Write;

use sidewire_uapi::socket::IPPROTO_TCP;
use sidewire_wire::icmp;
use sidewire_wire::ipv4::{self, Ipv4Header, Ipv4View};
use sidewire_wire::tcp::{self, TcpFlags, TcpHeader, TcpOptions, TcpView};
use sidewire_wire::tcp_options::SackBlocks;

use super::ast::{IcmpSpec, PacketSpec};
use super::settings::{LOCAL_ADDR, REMOTE_ADDR};
use crate::net::finish_checksum;

/// First port of the peers that connect to us.
pub(super) const FIRST_REMOTE_PORT: u16 = 8081;

/// The connection that a script is about, and how its numbers translate.
///
/// What we send is relative to our initial sequence number, which the first SYN that leaves
/// shows; the peer's numbers are the script's own. Our time stamps are shifted so that the first
/// one that the script names is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Port of the host under test.
    pub(super) local_port: u16,
    /// Port of the peer.
    pub(super) remote_port: u16,
    local_isn: Option<u32>,
    remote_isn: Option<u32>,
    tsval_offset: Option<u32>,
}

impl Flow {
    /// A connection of which nothing was seen.
    #[must_use]
    pub(super) fn new(local_port: u16, remote_port: u16) -> Self {
        Self {
            local_port,
            remote_port,
            local_isn: None,
            remote_isn: None,
            tsval_offset: None,
        }
    }

    /// The peer's initial sequence number.
    #[must_use]
    pub(super) fn remote_isn(&self) -> Option<u32> {
        self.remote_isn
    }

    fn local_seq(&self, relative: u32) -> u32 {
        relative.wrapping_add(self.local_isn.unwrap_or(0))
    }

    fn relative(&self, local_seq: u32) -> u32 {
        local_seq.wrapping_sub(self.local_isn.unwrap_or(0))
    }

    /// The IP packet of a segment that arrives.
    pub(super) fn build(&mut self, spec: &PacketSpec) -> Vec<u8> {
        if spec.flags.contains(TcpFlags::SYN) {
            self.remote_isn = Some(spec.seq);
        }
        let mut options = spec.options.unwrap_or_default();
        if let Some((_, tsecr)) = &mut options.timestamps
            && spec.flags.contains(TcpFlags::ACK)
        {
            *tsecr = tsecr.wrapping_add(self.tsval_offset.unwrap_or(0));
        }
        let blocks = options.sack.as_slice().iter();
        options.sack = blocks
            .map(|(l, r)| (self.local_seq(*l), self.local_seq(*r)))
            .collect::<SackBlocks>();
        let header = TcpHeader {
            src_port: self.remote_port,
            dst_port: self.local_port,
            seq: spec.seq,
            ack_seq: spec.ack.map_or(0, |ack| self.local_seq(ack)),
            flags: spec.flags,
            window: spec.window.unwrap_or(0),
            urg_ptr: spec.urg.unwrap_or(0),
        };
        let mut segment = vec![0; tcp::MAX_HEADER_LEN];
        let len = header
            .emit(&options, &mut segment)
            .expect("room for any header");
        segment.truncate(len);
        segment.extend((0..spec.len).map(|n| pattern(spec.seq.wrapping_add(n))));
        ip_packet(segment)
    }

    /// The IP packet of an ICMP error that quotes a segment of ours.
    #[must_use]
    pub(super) fn build_icmp(&self, spec: &IcmpSpec) -> Vec<u8> {
        let header = TcpHeader {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq: self.local_seq(spec.seq),
            ..TcpHeader::default()
        };
        let mut quote = vec![0; ipv4::HEADER_LEN + tcp::HEADER_LEN];
        let len = header.emit(&TcpOptions::default(), &mut quote[ipv4::HEADER_LEN..]);
        assert_eq!(len, Some(tcp::HEADER_LEN));
        let ip = ip_header(quote.len(), IPPROTO_TCP, true);
        assert!(ip.emit(&mut quote).is_some());
        let mut message = vec![0; icmp::HEADER_LEN + quote.len()];
        let len = icmp::emit_v4_error(spec.kind, &quote, &mut message);
        assert_eq!(len, Some(message.len()));
        let ip = ip_header(
            ipv4::HEADER_LEN + message.len(),
            sidewire_uapi::socket::IPPROTO_ICMP,
            false,
        );
        let mut packet = vec![0; ipv4::HEADER_LEN];
        assert!(ip.emit(&mut packet).is_some());
        packet.extend_from_slice(&message);
        packet
    }

    /// Reads a packet that left. An initial SYN tells our sequence number and ports.
    ///
    /// # Errors
    /// What is wrong with the packet, whatever the script expects.
    pub(super) fn read(&mut self, packet: &[u8]) -> Result<Seen, String> {
        let ip = Ipv4View::parse(packet).map_err(|e| e.to_string())?;
        if ip.src() != LOCAL_ADDR || ip.dst() != REMOTE_ADDR {
            return Err(format!("a packet from {} to {}", ip.src(), ip.dst()));
        }
        let tcp = TcpView::parse(ip.payload()).map_err(|e| e.to_string())?;
        if !tcp.checksum_ok(ip.pseudo_header()) {
            return Err("a wrong TCP checksum".into());
        }
        if (tcp.src_port(), tcp.dst_port()) != (self.local_port, self.remote_port) {
            return Err(format!(
                "a segment from port {} to port {}, not from {} to {}",
                tcp.src_port(),
                tcp.dst_port(),
                self.local_port,
                self.remote_port
            ));
        }
        let flags = tcp.flags();
        if flags.contains(TcpFlags::SYN) {
            self.local_isn = Some(tcp.seq());
        }
        let seq = self.relative(tcp.seq());
        for (n, byte) in tcp.payload().iter().enumerate() {
            // The SYN takes sequence number 0; data begins at 1, also in the SYN.
            let at = seq.wrapping_add(n as u32 + u32::from(flags.contains(TcpFlags::SYN)));
            if *byte != pattern(at) {
                return Err(format!("byte {at} of the stream is not what was written"));
            }
        }
        Ok(Seen {
            flags,
            seq,
            len: tcp.payload_len() as u32,
            ack: flags.contains(TcpFlags::ACK).then(|| tcp.ack_seq()),
            window: tcp.window(),
            urg: flags.contains(TcpFlags::URG).then(|| tcp.urg_ptr()),
            options: TcpOptions::parse(tcp.options(), flags.contains(TcpFlags::SYN)),
        })
    }

    /// Compares a segment that left with what the script says, and returns the segment in the
    /// script's numbers. Time stamps may differ by `tolerance_us`.
    pub(super) fn matches(
        &mut self,
        spec: &PacketSpec,
        seen: &Seen,
        tolerance_us: u64,
    ) -> Option<Seen> {
        let mut seen = *seen;
        if let (Some(expected), Some((tsval, _))) = (
            spec.options.and_then(|o| o.timestamps),
            &mut seen.options.timestamps,
        ) {
            let offset = *self
                .tsval_offset
                .get_or_insert(tsval.wrapping_sub(expected.0));
            *tsval = tsval.wrapping_sub(offset);
            let off_by = tsval.wrapping_sub(expected.0) as i32;
            if u64::from(off_by.unsigned_abs()) * 1000 <= tolerance_us {
                *tsval = expected.0;
            }
        }
        let mut flags = spec.flags;
        flags.set(
            TcpFlags::PSH,
            seen.flags.contains(TcpFlags::PSH) && spec.any_psh || flags.contains(TcpFlags::PSH),
        );
        let options = spec.options.unwrap_or(seen.options);
        let wanted = Seen {
            flags,
            seq: spec.seq,
            len: spec.len,
            ack: spec.ack,
            window: spec.window.unwrap_or(seen.window),
            urg: spec.urg,
            options,
        };
        (wanted != seen).then_some(seen)
    }
}

/// A segment in the script's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    flags: TcpFlags,
    seq: u32,
    len: u32,
    ack: Option<u32>,
    window: u16,
    urg: Option<u16>,
    options: TcpOptions,
}

/// As a script would say it.
impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (flags, seq, len) = (self.flags, self.seq, self.len);
        write!(f, "{flags} {seq}:{}({len})", seq.wrapping_add(len))?;
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        write!(f, " win {}", self.window)?;
        if let Some(urg) = self.urg {
            write!(f, " urg {urg}")?;
        }
        let options = show_options(&self.options);
        if options.is_empty() {
            Ok(())
        } else {
            write!(f, " <{options}>")
        }
    }
}

fn show_options(options: &TcpOptions) -> String {
    let mut shown = Vec::new();
    if let Some(mss) = options.mss {
        shown.push(format!("mss {mss}"));
    }
    if options.sack_permitted {
        shown.push("sackOK".to_owned());
    }
    if let Some((tsval, tsecr)) = options.timestamps {
        shown.push(format!("TS val {tsval} ecr {tsecr}"));
    }
    if let Some(shift) = options.wscale {
        shown.push(format!("wscale {shift}"));
    }
    if !options.sack.is_empty() {
        let mut text = "sack".to_owned();
        for (left, right) in options.sack.as_slice() {
            let _ = write!(text, " {left}:{right}");
        }
        shown.push(text);
    }
    if let Some(fastopen) = options.fastopen {
        let cookie: String = fastopen
            .cookie()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        shown.push(format!("FO {cookie}").trim_end().to_owned());
    }
    shown.join(",")
}

/// The byte at a place of a stream: neighbours differ, and so do places a segment apart.
#[must_use]
pub(super) fn pattern(at: u32) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

fn ip_header(total_len: usize, protocol: u8, ours: bool) -> Ipv4Header {
    let (src, dst) = if ours {
        (LOCAL_ADDR, REMOTE_ADDR)
    } else {
        (REMOTE_ADDR, LOCAL_ADDR)
    };
    Ipv4Header {
        tos: 0,
        total_len: u16::try_from(total_len).expect("a packet below 64 KiB"),
        id: 0,
        dont_fragment: true,
        ttl: 64,
        protocol,
        src,
        dst,
    }
}

fn ip_packet(mut segment: Vec<u8>) -> Vec<u8> {
    let ip = ip_header(ipv4::HEADER_LEN + segment.len(), IPPROTO_TCP, false);
    let mut packet = vec![0; ipv4::HEADER_LEN];
    assert!(ip.emit(&mut packet).is_some());
    let pseudo_header = sidewire_wire::checksum::pseudo_header_v4(
        REMOTE_ADDR,
        LOCAL_ADDR,
        IPPROTO_TCP,
        segment.len() as u32,
    );
    finish_checksum(&mut segment, pseudo_header);
    packet.extend_from_slice(&segment);
    packet
}
