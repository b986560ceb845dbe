//! Flags of `SO_TIMESTAMPING` (spec TS-1 to TS-19).

/// Stamp transmits in hardware.
pub const SOF_TIMESTAMPING_TX_HARDWARE: u32 = 1 << 0;
/// Stamp transmits when the driver takes them.
pub const SOF_TIMESTAMPING_TX_SOFTWARE: u32 = 1 << 1;
/// Stamp receives in hardware.
pub const SOF_TIMESTAMPING_RX_HARDWARE: u32 = 1 << 2;
/// Stamp receives when they enter the stack.
pub const SOF_TIMESTAMPING_RX_SOFTWARE: u32 = 1 << 3;
/// Report software stamps.
pub const SOF_TIMESTAMPING_SOFTWARE: u32 = 1 << 4;
/// Obsolete.
pub const SOF_TIMESTAMPING_SYS_HARDWARE: u32 = 1 << 5;
/// Report hardware stamps.
pub const SOF_TIMESTAMPING_RAW_HARDWARE: u32 = 1 << 6;
/// Stamps carry a key.
pub const SOF_TIMESTAMPING_OPT_ID: u32 = 1 << 7;
/// Stamp transmits when they are queued.
pub const SOF_TIMESTAMPING_TX_SCHED: u32 = 1 << 8;
/// Stamp the acknowledgement of the last byte.
pub const SOF_TIMESTAMPING_TX_ACK: u32 = 1 << 9;
/// Stamps carry control messages.
pub const SOF_TIMESTAMPING_OPT_CMSG: u32 = 1 << 10;
/// Stamps come without the packet.
pub const SOF_TIMESTAMPING_OPT_TSONLY: u32 = 1 << 11;
/// Stamps carry connection counters.
pub const SOF_TIMESTAMPING_OPT_STATS: u32 = 1 << 12;
/// Hardware stamps name device and length.
pub const SOF_TIMESTAMPING_OPT_PKTINFO: u32 = 1 << 13;
/// Software stamps also where hardware stamps.
pub const SOF_TIMESTAMPING_OPT_TX_SWHW: u32 = 1 << 14;
/// Use a given hardware clock.
pub const SOF_TIMESTAMPING_BIND_PHC: u32 = 1 << 15;
/// Keys of TCP are relative to `write_seq`.
pub const SOF_TIMESTAMPING_OPT_ID_TCP: u32 = 1 << 16;
/// Filter received software stamps.
pub const SOF_TIMESTAMPING_OPT_RX_FILTER: u32 = 1 << 17;
/// Stamp the device's completion.
pub const SOF_TIMESTAMPING_TX_COMPLETION: u32 = 1 << 18;
/// Every flag; others are `EINVAL`.
pub const SOF_TIMESTAMPING_MASK: u32 = (1 << 19) - 1;
/// Flags that a control message may replace for one call (spec CM-19).
pub const SOF_TIMESTAMPING_TX_RECORD_MASK: u32 = SOF_TIMESTAMPING_TX_HARDWARE
    | SOF_TIMESTAMPING_TX_SOFTWARE
    | SOF_TIMESTAMPING_TX_SCHED
    | SOF_TIMESTAMPING_TX_ACK
    | SOF_TIMESTAMPING_TX_COMPLETION;

/// `struct so_timestamping`, the long form of the option's value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoTimestamping {
    /// `SOF_TIMESTAMPING_*`.
    pub flags: i32,
    /// Index of the clock of [`SOF_TIMESTAMPING_BIND_PHC`].
    pub bind_phc: i32,
}
