//! Socket options: pure values that setsockopt stores and others read. What an option *does* stands where it is used;
//! ranges and defaults are those of `rows.toml` sockopts, and are enforced in `sockopt`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

/// Longest value of a [`KernelsOption`], in bytes: a device's name.
pub const KERNELS_OPTION_MAX: usize = 16;

/// So many [`KernelsOption`]s of a socket are remembered.
pub const KERNELS_OPTIONS: usize = 64;

/// An option of which the engine has no use. The kernel's socket behind the descriptor has its value; the one behind a child's
/// descriptor has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelsOption {
    /// SOL_SOCKET, SOL_IP ...
    pub level: i32,
    /// SO_*, IP_* ...
    pub name: i32,
    /// As the program set it.
    pub value: ArrayVec<u8, KERNELS_OPTION_MAX>,
}

/// Values of SOL_SOCKET, SOL_TCP and SOL_IP options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // each is the option of its name
pub struct SockOpts {
    pub reuseaddr: u8,
    pub reuseport: bool,
    pub keepalive: bool,
    pub oobinline: bool,
    pub priority: u32,
    /// SO_LINGER on, and its seconds.
    pub linger: bool,
    pub linger_s: u32,
    pub rcvlowat: u32,
    /// Jiffies; `None` = infinite, `Some(0)` = do not wait (negative seconds were set).
    pub rcvtimeo: Option<u64>,
    pub sndtimeo: Option<u64>,
    pub bound_dev_if: u32,
    pub mark: u32,
    pub peek_off: i32,
    /// Whoever opened the file had CAP_NET_RAW, which TS-43 asks for.
    pub opener_net_raw: bool,
    pub max_pacing_rate: u64,
    /// Frames keep to the rate: somebody has set a limit once, or the congestion control wants it (Linux
    /// `sk_pacing_status`).
    pub pacing_needed: bool,
    pub buf_lock_snd: bool,
    pub buf_lock_rcv: bool,
    pub zerocopy: bool,
    /// SO_TXTIME {clockid, flags} when set.
    pub txtime: Option<(i32, u32)>,
    /// SO_TIMESTAMPING flags (SOF_TIMESTAMPING_*).
    pub tsflags: u32,
    /// SO_TIMESTAMP / SO_TIMESTAMPNS.
    pub rcvtstamp: bool,
    pub rcvtstampns: bool,
    /// The *_NEW form was used last (TS-28).
    pub tstamp_new: bool,
    pub txrehash: bool,
    pub busy_poll: u32,

    pub maxseg: u16,
    pub keepidle_s: u32,
    pub keepintvl_s: u32,
    pub keepcnt: u8,
    pub syncnt: u8,
    /// Seconds; −1 = no FIN_WAIT2, 0 = default.
    pub linger2: i32,
    /// Retries of the SYN-ACK while waiting for data.
    pub defer_accept: u8,
    pub window_clamp: u32,
    pub user_timeout_ms: u32,
    pub notsent_lowat: u32,
    pub save_syn: u8,
    pub inq: bool,
    pub tx_delay_us: u32,
    pub rto_max_ms: u32,
    pub rto_min_us: u32,
    pub delack_max_us: u32,
    pub thin_lto: bool,
    pub fastopen_connect: bool,
    pub fastopen_no_cookie: bool,
    /// Listener: pending fast-open requests allowed, 0 = off.
    pub fastopen_qlen: u32,
    pub fastopen_key: Vec<u8>,

    pub ip_tos: u8,
    /// −1 = default.
    pub ip_ttl: i16,
    /// IP_MINTTL: what comes with a smaller TTL is dropped.
    pub ip_min_ttl: u8,
    pub ip_mtu_discover: u8,
    pub ip_recverr: bool,
    pub ipv6_v6only: bool,
    pub debug: bool,
    #[serde(skip)]
    pub kernels: Option<Arc<Vec<KernelsOption>>>,
}

impl Default for SockOpts {
    fn default() -> Self {
        Self {
            reuseaddr: 0,
            reuseport: false,
            keepalive: false,
            oobinline: false,
            priority: 0,
            linger: false,
            linger_s: 0,
            rcvlowat: 1,
            rcvtimeo: None,
            sndtimeo: None,
            bound_dev_if: 0,
            mark: 0,
            peek_off: -1,
            opener_net_raw: false,
            max_pacing_rate: u64::MAX,
            pacing_needed: false,
            buf_lock_snd: false,
            buf_lock_rcv: false,
            zerocopy: false,
            txtime: None,
            tsflags: 0,
            rcvtstamp: false,
            rcvtstampns: false,
            tstamp_new: false,
            txrehash: true,
            busy_poll: 0,
            maxseg: 0,
            keepidle_s: 0,
            keepintvl_s: 0,
            keepcnt: 0,
            syncnt: 0,
            linger2: 0,
            defer_accept: 0,
            window_clamp: 0,
            user_timeout_ms: 0,
            notsent_lowat: 0,
            save_syn: 0,
            inq: false,
            tx_delay_us: 0,
            rto_max_ms: 120_000,
            rto_min_us: 200_000,
            delack_max_us: 200_000,
            thin_lto: false,
            fastopen_connect: false,
            fastopen_no_cookie: false,
            fastopen_qlen: 0,
            fastopen_key: Vec::new(),
            ip_tos: 0,
            ip_ttl: -1,
            ip_min_ttl: 0,
            ip_mtu_discover: 1,
            ip_recverr: false,
            ipv6_v6only: false,
            debug: false,
            kernels: None,
        }
    }
}
