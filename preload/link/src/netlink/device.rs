//! Network devices, and what they do for us.

use crate::Errno;
use crate::raw;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use sidewire_wire::ethernet::MacAddr;
use std::mem::zeroed;
use std::os::fd::RawFd;

/// What stands in front of the network header on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// An Ethernet header.
    Ether,
    /// Nothing (tun, wireguard).
    None,
    /// The loopback device.
    Loopback,
    /// Something that a link does not carry.
    Other,
}

/// Offloads that are switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Frames may lie scattered in memory.
    pub sg: bool,
    /// TCP super-frames are cut by the device.
    pub tso: bool,
    /// TCP checksums are finished by the device.
    pub tx_csum: bool,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address; zero without one.
    pub mac: MacAddr,
    /// Largest packet from the network header on, bytes.
    pub mtu: u32,
    /// What its frames start with.
    pub kind: LinkKind,
    /// Administratively up, and with a carrier.
    pub up: bool,
    /// Largest super-frame that the device cuts, bytes from the network header on; larger ones are cut before it.
    pub gso_max_size: u32,
    /// Most segments of a super-frame.
    pub gso_max_segs: u32,
    /// What is switched on.
    pub features: Features,
    /// Its frames go on into a host's own receive path or a program (loopback, veth, tun and tap, bridge): there the
    /// kernel copies what it sent by reference (Linux `skb_orphan_frags_rx`).
    pub copies: bool,
}

/// Linux's GSO_LEGACY_MAX_SIZE and GSO_MAX_SEGS, for kernels that do not tell.
const GSO_LEGACY_MAX_SIZE: u32 = 65536;
const GSO_MAX_SEGS: u32 = 65535;

impl DeviceInfo {
    /// Reads a link message; the features are asked for through `control`, any socket of the same namespace.
    pub(super) fn of(message: &LinkMessage, control: RawFd) -> DeviceInfo {
        let header = &message.header;
        let kind = match header.link_layer_type {
            LinkLayerType::Ether => LinkKind::Ether,
            LinkLayerType::None => LinkKind::None,
            LinkLayerType::Loopback => LinkKind::Loopback,
            _ => LinkKind::Other,
        };
        let mut info = DeviceInfo {
            ifindex: header.index,
            name: String::new(),
            mac: MacAddr::UNSPECIFIED,
            mtu: 0,
            kind,
            up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            gso_max_size: GSO_LEGACY_MAX_SIZE,
            gso_max_segs: GSO_MAX_SEGS,
            features: Features::default(),
            copies: kind == LinkKind::Loopback,
        };
        let mut ipv4_gso = None;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => info.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
                LinkAttribute::Address(a) => {
                    info.mac = a
                        .first_chunk()
                        .map_or(MacAddr::UNSPECIFIED, |m| MacAddr(*m))
                }
                LinkAttribute::GsoMaxSize(n) => info.gso_max_size = *n,
                LinkAttribute::GsoIpv4MaxSize(n) => ipv4_gso = Some(*n),
                LinkAttribute::GsoMaxSegs(n) => info.gso_max_segs = *n,
                LinkAttribute::LinkInfo(about) => {
                    info.copies |= about.iter().any(|i| {
                        use InfoKind::{Bridge, Tun, Veth};
                        matches!(i, LinkInfo::Kind(Bridge | Tun | Veth))
                    });
                }
                _ => {}
            }
        }
        info.gso_max_size = ipv4_gso.unwrap_or(info.gso_max_size);
        info.features = Features {
            sg: ethtool_flag(control, &info.name, ETHTOOL_GSG).unwrap_or(false),
            tso: ethtool_flag(control, &info.name, ETHTOOL_GTSO).unwrap_or(false),
            tx_csum: ethtool_flag(control, &info.name, ETHTOOL_GTXCSUM).unwrap_or(false),
        };
        info
    }
}

const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GSG: u32 = 0x18;
const ETHTOOL_GTSO: u32 = 0x1e;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Asks whether a device feature is switched on.
fn ethtool_flag(control: RawFd, name: &str, cmd: u32) -> Result<bool, Errno> {
    // SAFETY: ifreq is made of integers, arrays and unions of them; all zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::EINVAL);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let mut value = EthtoolValue { cmd, data: 0 };
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads the ifreq and, for these commands, reads and writes the ethtool_value that it names.
    unsafe { raw::ioctl(control, libc::SIOCETHTOOL, &mut request) }?;
    // SAFETY: the kernel has written an initialised value; the read must not be cached across the call.
    Ok(unsafe { (&raw const value.data).read_volatile() } != 0)
}
