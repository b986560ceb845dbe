//! One link of a host: an on-link route to everywhere, and a box that keeps the frames.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use sidewire_engine::error::Error;
use sidewire_engine::net::{Dst, FlowKey, Net, RouteMetrics, Transmit, TxVerdict};
use sidewire_engine::time::Instant;
use sidewire_wire::checksum;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::segment::Segmenter;
use sidewire_wire::tcp::{self, TcpView};

use crate::memory::TestMemory;
use crate::rng::Rng;

/// Interface index of the link.
pub const IFINDEX: u32 = 2;
/// Of the routes, which never change.
const GENERATION: u32 = 1;

/// An IP packet as it would stand on the wire, and when it left.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When.
    pub at: Instant,
    /// From the IP header on.
    pub bytes: Vec<u8>,
}

impl Trouble {
    fn verdict(&mut self) -> TxVerdict {
        if self.rng.chance(self.no_space) {
            TxVerdict::NoSpace
        } else if self.rng.chance(self.dropped) {
            TxVerdict::Dropped
        } else {
            TxVerdict::Sent
        }
    }
}

/// The network side of a host.
pub struct TestNet {
    memory: TestMemory,
    addr: Ipv4Addr,
    mtu: u32,
    gso_max_segs: u16,
    /// The present, as the host told it before the call.
    pub(crate) now: Instant,
    sent: VecDeque<Packet>,
    trouble: Option<Trouble>,
    /// A transmit was answered `NoSpace`, and nobody has said yet that there is room.
    refused: bool,
}

/// A device that has no room, or drops, so many times in a million.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Chance of [`TxVerdict::NoSpace`].
    pub no_space: u32,
    /// Chance of [`TxVerdict::Dropped`].
    pub dropped: u32,
    /// Decides.
    pub rng: Rng,
}

impl TestNet {
    /// A link on which `addr` is ours.
    #[must_use]
    pub fn new(memory: &TestMemory, addr: Ipv4Addr, mtu: u32, gso_max_segs: u16) -> Self {
        Self {
            memory: memory.clone(),
            addr,
            mtu,
            gso_max_segs,
            now: Instant::ZERO,
            sent: VecDeque::new(),
            trouble: None,
            refused: false,
        }
    }

    /// Makes the device an unreliable one.
    pub fn set_trouble(&mut self, trouble: Trouble) {
        self.trouble = Some(trouble);
    }

    /// True once after a transmit found no space: [`sidewire_engine::Stack::tx_space`] is due.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    /// Our address.
    #[must_use]
    pub fn addr(&self) -> Ipv4Addr {
        self.addr
    }

    /// The oldest packet that was sent.
    pub fn take(&mut self) -> Option<Packet> {
        self.sent.pop_front()
    }

    /// Checks what the link relies on, and cuts the frame as the device would.
    fn keep(&mut self, frame: &Transmit<'_>) {
        let payload: Vec<u8> = frame
            .frags
            .iter()
            .flat_map(|f| self.memory.bytes_of(f))
            .collect();
        let whole = [frame.headers, &payload].concat();
        let ip = Ipv4View::parse(&whole).expect("the engine's IP header");
        assert_eq!(ip.total_len(), whole.len(), "IP total length");
        assert_eq!(ip.header_len(), frame.l4_offset, "l4_offset");
        assert_eq!(IpAddr::from(ip.dst()), frame.daddr, "daddr");
        let tcp = TcpView::parse(ip.payload()).expect("the engine's TCP header");
        assert_eq!(tcp.payload_len(), payload.len(), "TCP header length");
        let field = tcp.checksum();
        assert_eq!(
            field,
            ip.pseudo_header(),
            "the checksum field of an unfinished checksum"
        );
        let gso_size = match NonZeroU16::new(frame.gso_size) {
            None => {
                assert!(
                    whole.len() <= self.mtu as usize,
                    "a frame of {} bytes",
                    whole.len()
                );
                NonZeroU16::MAX
            }
            Some(size) => {
                let largest = frame.headers.len() + usize::from(size.get());
                assert!(largest <= self.mtu as usize, "segments of {largest} bytes");
                assert!(
                    payload.len() > usize::from(size.get()),
                    "gso_size for one segment"
                );
                let segs = payload.len().div_ceil(usize::from(size.get()));
                assert!(segs <= usize::from(self.gso_max_segs), "{segs} segments");
                size
            }
        };
        let cut = Segmenter::new(frame.headers, payload.len(), gso_size).expect("IP and TCP");
        for segment in cut.clone() {
            let data = &payload[segment.offset..][..segment.len];
            let mut bytes = vec![0; frame.headers.len()];
            let len = cut.emit(&segment, checksum::sum(data), &mut bytes);
            assert_eq!(len, Some(bytes.len()));
            bytes.extend_from_slice(data);
            self.sent.push_back(Packet {
                at: self.now,
                bytes,
            });
        }
    }
}

impl Net for TestNet {
    fn route(&mut self, key: &FlowKey) -> Result<Dst, Error> {
        let IpAddr::V4(daddr) = key.daddr else {
            return Err(Error::NetUnreach);
        };
        if daddr.is_multicast() || daddr.is_broadcast() {
            return Err(Error::NetUnreach);
        }
        Ok(Dst {
            oif: IFINDEX,
            gateway: None,
            saddr: key.saddr.unwrap_or(self.addr.into()),
            mtu: self.mtu,
            advmss: 0,
            gso_max_size: 65_536,
            gso_max_segs: self.gso_max_segs,
            sg: true,
            zerocopy_copied: true,
            copied_in_cutting: false,
            metrics: RouteMetrics::default(),
            generation: GENERATION,
        })
    }

    fn route_generation(&self) -> u32 {
        GENERATION
    }

    fn transmit(&mut self, frame: &Transmit<'_>) -> TxVerdict {
        let verdict = self
            .trouble
            .as_mut()
            .map_or(TxVerdict::Sent, Trouble::verdict);
        self.refused |= verdict == TxVerdict::NoSpace;
        if matches!(verdict, TxVerdict::Sent | TxVerdict::Queued(_)) {
            self.keep(frame);
        }
        verdict
    }
}

/// Finishes the checksum of a TCP segment whose field is zero.
pub(crate) fn finish_checksum(segment: &mut [u8], pseudo_header: u16) {
    let sum = checksum::add(pseudo_header, checksum::sum(segment));
    assert!(
        tcp::set_checksum(segment, checksum::finish(sum)),
        "a TCP header"
    );
}
