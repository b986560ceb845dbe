//! The error queue: `struct sock_extended_err` and its codes.

/// `struct sock_extended_err`, the payload of `IP_RECVERR` and `IPV6_RECVERR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SockExtendedErr {
    /// errno; 0 for zerocopy, `ENOMSG` for time stamps.
    pub ee_errno: u32,
    /// Who says so, `SO_EE_ORIGIN_*`.
    pub ee_origin: u8,
    /// ICMP type.
    pub ee_type: u8,
    /// ICMP code or `SO_EE_CODE_*`.
    pub ee_code: u8,
    /// Zero.
    pub ee_pad: u8,
    /// Zerocopy: first id; time stamps: `SCM_TSTAMP_*`; ICMP: MTU.
    pub ee_info: u32,
    /// Zerocopy: last id; time stamps: key.
    pub ee_data: u32,
}

/// Size of [`SockExtendedErr`] in bytes.
pub const SOCK_EXTENDED_ERR_LEN: usize = 16;

const _: () = assert!(size_of::<SockExtendedErr>() == SOCK_EXTENDED_ERR_LEN);

impl SockExtendedErr {
    /// The bytes of the C structure, in the byte order of this machine.
    pub fn to_bytes(&self) -> [u8; SOCK_EXTENDED_ERR_LEN] {
        let mut out = [0; SOCK_EXTENDED_ERR_LEN];
        out[..4].copy_from_slice(&self.ee_errno.to_ne_bytes());
        out[4..8].copy_from_slice(&[self.ee_origin, self.ee_type, self.ee_code, self.ee_pad]);
        out[8..12].copy_from_slice(&self.ee_info.to_ne_bytes());
        out[12..].copy_from_slice(&self.ee_data.to_ne_bytes());
        out
    }
}

/// Nobody.
pub const SO_EE_ORIGIN_NONE: u8 = 0;
/// This host.
pub const SO_EE_ORIGIN_LOCAL: u8 = 1;
/// ICMP.
pub const SO_EE_ORIGIN_ICMP: u8 = 2;
/// ICMPv6.
pub const SO_EE_ORIGIN_ICMP6: u8 = 3;
/// Transmit status and time stamps.
pub const SO_EE_ORIGIN_TXSTATUS: u8 = 4;
/// Same as [`SO_EE_ORIGIN_TXSTATUS`].
pub const SO_EE_ORIGIN_TIMESTAMPING: u8 = SO_EE_ORIGIN_TXSTATUS;
/// Zerocopy completions.
pub const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
/// Missed transmit times.
pub const SO_EE_ORIGIN_TXTIME: u8 = 6;

/// Zerocopy: the data was copied after all.
pub const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;
/// Transmit time: bad parameter.
pub const SO_EE_CODE_TXTIME_INVALID_PARAM: u8 = 1;
/// Transmit time: missed.
pub const SO_EE_CODE_TXTIME_MISSED: u8 = 2;

/// The driver took the frame.
pub const SCM_TSTAMP_SND: u32 = 0;
/// The queueing discipline took the packet.
pub const SCM_TSTAMP_SCHED: u32 = 1;
/// The peer acknowledged the last byte.
pub const SCM_TSTAMP_ACK: u32 = 2;
/// The device reported completion.
pub const SCM_TSTAMP_COMPLETION: u32 = 3;
