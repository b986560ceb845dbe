//! A capture, taken apart into connections.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpFlags, TcpOptions, TcpView};

/// Direction bits of the epb_flags option: inbound.
const INBOUND: u32 = 1;
const DIRECTION: u32 = 3;
/// Decimal places of a second: if_tsresol's default, and ours.
const MICROSECONDS: u8 = 6;
const NANOSECONDS: u8 = 9;
/// IP protocol number.
const TCP: u8 = 6;
const ETHERNET: usize = 14;
/// How a pcapng file begins: the type of a section header block.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Payload that was sent, seconds since the connection's first frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Data {
    pub(super) at: f64,
    /// Bytes of the stream before it.
    pub(super) from: u64,
    pub(super) to: u64,
    /// Sent before.
    pub(super) again: bool,
}

/// An acknowledgement of the other direction's stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ack {
    pub(super) at: f64,
    /// Bytes acknowledged.
    pub(super) upto: u64,
    /// Where the window ends.
    pub(super) edge: u64,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) data: Vec<Data>,
    /// What the receiver of this direction acknowledged.
    pub(super) acks: Vec<Ack>,
    /// Sequence number of the first byte.
    first: Option<u32>,
    /// Highest byte sent, and acknowledged.
    sent: u64,
    acked: u64,
    /// Window scale of the receiver.
    scale: u8,
    /// Round trips from data to its ack, milliseconds, where no remark tells them.
    pub(super) round_trips: Vec<(f64, f64)>,
    /// The segment that is timed: when it was sent, and where it ends.
    timed: Option<(f64, u64)>,
    /// Bytes that are not acknowledged.
    pub(super) in_flight: Vec<(f64, u64)>,
}

impl Flow {
    /// Distance from the first byte; `near` is about where it must be.
    fn offset(&mut self, seq: u32, near: u64) -> u64 {
        let first = *self.first.get_or_insert(seq);
        let expected = first.wrapping_add(near as u32);
        near.saturating_add_signed(i64::from(seq.wrapping_sub(expected) as i32))
    }

    fn sent(&mut self, at: f64, seq: u32, len: u64) {
        let from = self.offset(seq, self.sent);
        let to = from + len;
        let again = from < self.sent;
        self.data.push(Data {
            at,
            from,
            to,
            again,
        });
        if again {
            // Karn: an ack may be of either.
            self.timed = None;
        } else if self.timed.is_none() {
            self.timed = Some((at, to));
        }
        self.sent = self.sent.max(to);
        self.in_flight
            .push((at, self.sent.saturating_sub(self.acked)));
    }

    fn acknowledged(&mut self, at: f64, ack: u32, window: u16) {
        if self.first.is_none() {
            return;
        }
        let upto = self.offset(ack, self.acked);
        self.acked = self.acked.max(upto.min(self.sent));
        if let Some((sent_at, end)) = self.timed
            && upto >= end
        {
            self.round_trips.push((at, (at - sent_at) * 1000.0));
            self.timed = None;
        }
        let edge = upto + (u64::from(window) << self.scale);
        self.acks.push(Ack { at, upto, edge });
        self.in_flight
            .push((at, self.sent.saturating_sub(self.acked)));
    }

    /// Bytes of the stream.
    pub(super) fn bytes(&self) -> u64 {
        self.sent
    }
}

/// A connection, seen from the captured host.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) out: Flow,
    pub(super) back: Flow,
    /// Congestion window, bytes, from the engine's remarks.
    pub(super) cwnd: Vec<(f64, u64)>,
    /// Smoothed round trip, milliseconds, from the engine's remarks.
    pub(super) srtt: Vec<(f64, f64)>,
    /// When its last frame came, seconds.
    pub(super) lasts: f64,
    began: u64,
    scales: [Option<u8>; 2],
}

impl Connection {
    fn new(local: SocketAddr, remote: SocketAddr, began: u64) -> Self {
        Connection {
            local,
            remote,
            out: Flow::default(),
            back: Flow::default(),
            cwnd: Vec::new(),
            srtt: Vec::new(),
            lasts: 0.0,
            began,
            scales: [None; 2],
        }
    }

    /// Bytes of both directions.
    pub(super) fn bytes(&self) -> u64 {
        self.out.bytes() + self.back.bytes()
    }

    /// The direction that moves the most.
    pub(super) fn main_flow(&self) -> (&Flow, &'static str) {
        if self.out.bytes() >= self.back.bytes() {
            (&self.out, "sent")
        } else {
            (&self.back, "received")
        }
    }

    fn frame(&mut self, stamp: u64, outbound: bool, tcp: &TcpView<'_>, remark: Option<&str>) {
        #[expect(clippy::cast_precision_loss, reason = "seconds to draw")]
        let at = stamp.saturating_sub(self.began) as f64 / 1e9;
        self.lasts = self.lasts.max(at);
        let flags = tcp.flags();
        let (flow, other) = if outbound {
            (&mut self.out, &mut self.back)
        } else {
            (&mut self.back, &mut self.out)
        };
        if flags.contains(TcpFlags::SYN) {
            flow.first = Some(tcp.seq().wrapping_add(1));
            self.scales[usize::from(outbound)] = TcpOptions::parse(tcp.options(), true).wscale;
            // Both ends must have asked for scaling.
            if let [Some(theirs), Some(ours)] = self.scales {
                (self.out.scale, self.back.scale) = (theirs.min(14), ours.min(14));
            }
            return;
        }
        let len = tcp.payload_len() as u64;
        if len > 0 {
            flow.sent(at, tcp.seq(), len);
        }
        if flags.contains(TcpFlags::ACK) {
            other.acknowledged(at, tcp.ack_seq(), tcp.window());
        }
        if let Some(remark) = remark {
            self.remarked(at, remark);
        }
    }

    /// `cwnd=10 srtt_us=120 mss=1448 ...`, as the engine writes it.
    fn remarked(&mut self, at: f64, remark: &str) {
        let get = |name: &str| -> Option<u64> {
            let mut words = remark.split(' ').filter_map(|w| w.split_once('='));
            words.find(|(key, _)| *key == name)?.1.parse().ok()
        };
        if let (Some(cwnd), Some(mss)) = (get("cwnd"), get("mss")) {
            self.cwnd.push((at, cwnd * mss));
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds to draw")]
        if let Some(srtt) = get("srtt_us").filter(|us| *us > 0) {
            self.srtt.push((at, srtt as f64 / 1000.0));
        }
    }
}

fn in_words(error: PcapError) -> String {
    match error {
        PcapError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            "the file ends within a block".to_owned()
        }
        PcapError::IoError(e) => e.to_string(),
        e => format!("broken pcapng: {e}"),
    }
}

/// Reads a capture; connections without data are left out.
///
/// # Errors
/// What keeps it from being read, in words.
pub(super) fn read(path: &Path) -> Result<Vec<Connection>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut file = BufReader::new(file);
    let start = file.fill_buf().map_err(|e| e.to_string())?;
    if !start.starts_with(&SECTION_HEADER) {
        return Err("no pcapng file (editcap -F pcapng makes one of a pcap file)".to_owned());
    }
    let mut reader = PcapNgReader::new(file).map_err(in_words)?;
    let mut all: HashMap<(SocketAddr, SocketAddr), Connection> = HashMap::new();
    // What the interfaces say: decimal places of a second, and where the IP header begins.
    let mut interfaces: Vec<(u8, usize)> = Vec::new();
    while let Some(block) = reader.next_block() {
        let packet = match block.map_err(in_words)? {
            Block::SectionHeader(_) => {
                interfaces.clear();
                continue;
            }
            Block::InterfaceDescription(interface) => {
                let resolution = interface.options.iter().find_map(|o| match o {
                    InterfaceDescriptionOption::IfTsResol(r) => Some(*r),
                    _ => None,
                });
                let skip = if interface.linktype == DataLink::ETHERNET {
                    ETHERNET
                } else {
                    0
                };
                interfaces.push((resolution.unwrap_or(MICROSECONDS), skip));
                continue;
            }
            Block::EnhancedPacket(packet) => packet,
            _ => continue,
        };
        let Some(&(places, skip)) = interfaces.get(packet.interface_id as usize) else {
            continue;
        };
        let Some(ip_packet) = packet.data.get(skip..) else {
            continue;
        };
        let len = (packet.original_len as usize).saturating_sub(skip);
        let Ok(ip) = Ipv4View::parse_prefix(ip_packet, len) else {
            continue;
        };
        if ip.protocol() != TCP {
            continue;
        }
        let Some(segment) = ip_packet.get(ip.header_len()..) else {
            continue;
        };
        let Ok(tcp) = TcpView::parse_prefix(segment, ip.payload_len()) else {
            continue;
        };
        let from = SocketAddr::new(IpAddr::V4(ip.src()), tcp.src_port());
        let to = SocketAddr::new(IpAddr::V4(ip.dst()), tcp.dst_port());
        let mut direction = 0;
        let mut remark = None;
        for option in &packet.options {
            match option {
                EnhancedPacketOption::Flags(flags) => direction = flags & DIRECTION,
                EnhancedPacketOption::Comment(comment) => remark = Some(comment.as_ref()),
                _ => {}
            }
        }
        // Where the capture does not say, the host is the one that the first frame came from.
        let outbound = match direction {
            0 => !all.contains_key(&(to, from)),
            direction => direction != INBOUND,
        };
        let key = if outbound { (from, to) } else { (to, from) };
        let ticks = packet.timestamp.as_nanos() as u64;
        let stamp = ticks
            .saturating_mul(10u64.saturating_pow(u32::from(NANOSECONDS.saturating_sub(places))))
            / 10u64.saturating_pow(u32::from(places.saturating_sub(NANOSECONDS)));
        let connection = all
            .entry(key)
            .or_insert_with(|| Connection::new(key.0, key.1, stamp));
        connection.frame(stamp, outbound, &tcp, remark);
    }
    Ok(all.into_values().filter(|c| c.bytes() > 0).collect())
}
