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
pub struct SockOpts {
    /// SO_REUSEADDR; 2 (Linux SK_FORCE_REUSE) in repair mode.
    pub reuseaddr: u8,
    /// SO_REUSEPORT; the kernel's socket, which holds the port, goes by it.
    pub reuseport: bool,
    /// SO_KEEPALIVE: an idle peer is probed.
    pub keepalive: bool,
    /// SO_OOBINLINE: the urgent byte stays in the stream.
    pub oobinline: bool,
    /// SO_PRIORITY, also set by IP_TOS; frames have it as their queueing priority.
    pub priority: u32,
    /// SO_LINGER is on.
    pub linger: bool,
    /// Its seconds, kept when it goes off; 0 resets the connection on close.
    pub linger_s: u32,
    /// SO_RCVLOWAT: bytes for which a reader wakes, at least 1.
    pub rcvlowat: u32,
    /// SO_RCVTIMEO in jiffies; `None` = infinite, `Some(0)` = do not wait (negative seconds were set).
    pub rcvtimeo: Option<u64>,
    /// The same for SO_SNDTIMEO.
    pub sndtimeo: Option<u64>,
    /// SO_BINDTOIFINDEX, SO_BINDTODEVICE: index of the device, 0 for any.
    pub bound_dev_if: u32,
    /// SO_MARK, by which routes are chosen; frames have it, too.
    pub mark: u32,
    /// SO_PEEK_OFF: bytes from `copied_seq` at which MSG_PEEK begins; negative = off, each begins at 0.
    pub peek_off: i32,
    /// Whoever opened the file had CAP_NET_RAW, which TS-43 asks for.
    pub opener_net_raw: bool,
    /// SO_MAX_PACING_RATE in bytes a second; `u64::MAX` = no limit.
    pub max_pacing_rate: u64,
    /// Frames keep to the rate: somebody has set a limit once, or the congestion control wants it (Linux
    /// `sk_pacing_status`).
    pub pacing_needed: bool,
    /// SOCK_SNDBUF_LOCK of SO_BUF_LOCK, also set by SO_SNDBUF: `sndbuf` does not grow by itself.
    pub buf_lock_snd: bool,
    /// SOCK_RCVBUF_LOCK of SO_BUF_LOCK, also set by SO_RCVBUF: `rcvbuf` does not grow by itself.
    pub buf_lock_rcv: bool,
    /// SO_ZEROCOPY: MSG_ZEROCOPY counts.
    pub zerocopy: bool,
    /// SO_TXTIME {clockid, flags} when set.
    pub txtime: Option<(i32, u32)>,
    /// SO_TIMESTAMPING flags (SOF_TIMESTAMPING_*).
    pub tsflags: u32,
    /// SO_TIMESTAMP or SO_TIMESTAMPNS.
    pub rcvtstamp: bool,
    /// It is SO_TIMESTAMPNS: nanoseconds.
    pub rcvtstampns: bool,
    /// The *_NEW form was used last (TS-28).
    pub tstamp_new: bool,
    /// SO_TXREHASH: a timeout counts as a change of path (`tcpi_rehash`).
    pub txrehash: bool,
    /// SO_BUSY_POLL in microseconds; only kept.
    pub busy_poll: u32,

    /// TCP_MAXSEG in bytes: bound of the MSS in both directions, 0 = none.
    pub maxseg: u16,
    /// TCP_KEEPIDLE in seconds, 1 to 32767; 0 = `tcp_keepalive_time`.
    pub keepidle_s: u32,
    /// TCP_KEEPINTVL in seconds, 1 to 32767; 0 = `tcp_keepalive_intvl`.
    pub keepintvl_s: u32,
    /// TCP_KEEPCNT, 1 to 127 probes; 0 = `tcp_keepalive_probes`.
    pub keepcnt: u8,
    /// TCP_SYNCNT, 1 to 127 repeated SYNs or SYN-ACKs; 0 = `tcp_syn_retries`, `tcp_synack_retries`.
    pub syncnt: u8,
    /// TCP_LINGER2 in seconds, up to 120; −1 = no FIN_WAIT2, 0 = `tcp_fin_timeout`.
    pub linger2: i32,
    /// TCP_DEFER_ACCEPT: retries of the SYN-ACK while waiting for data, which the seconds given come to; 0 = off.
    pub defer_accept: u8,
    /// TCP_WINDOW_CLAMP in bytes, for the next connection; 0 = none.
    pub window_clamp: u32,
    /// TCP_USER_TIMEOUT in milliseconds: longest time without an answer; 0 = by retries.
    pub user_timeout_ms: u32,
    /// TCP_NOTSENT_LOWAT in unsent bytes, above which there is no room to write; 0 = `tcp_notsent_lowat`.
    pub notsent_lowat: u32,
    /// TCP_SAVE_SYN: 0 off, 1 keeps a SYN's headers from the IP header on; 2, the link's too, counts as 1.
    pub save_syn: u8,
    /// TCP_INQ: TCP_CM_INQ comes with what is received.
    pub inq: bool,
    /// TCP_TX_DELAY in microseconds, below 2^28; only kept.
    pub tx_delay_us: u32,
    /// TCP_RTO_MAX_MS in milliseconds, 1000 to 120000, whole jiffies.
    pub rto_max_ms: u32,
    /// TCP_RTO_MIN_US in microseconds, two jiffies to 200000; a route's counts for more.
    pub rto_min_us: u32,
    /// TCP_DELACK_MAX_US in microseconds, two jiffies to 200000: longest delay of an ack.
    pub delack_max_us: u32,
    /// TCP_THIN_LINEAR_TIMEOUTS: few segments in flight, and a timeout does not double the RTO.
    pub thin_lto: bool,
    /// TCP_FASTOPEN_CONNECT: with a cookie at hand `connect` leaves the SYN to the first send, whose data goes with it.
    pub fastopen_connect: bool,
    /// TCP_FASTOPEN_NO_COOKIE: data in a SYN without one, both ways.
    pub fastopen_no_cookie: bool,
    /// TCP_FASTOPEN of a listener: pending fast-open requests allowed, 0 = off.
    pub fastopen_qlen: u32,
    /// TCP_FASTOPEN_KEY of 16 bytes, or 32 with the key before it; empty = `tcp_fastopen_key`.
    pub fastopen_key: Vec<u8>,

    /// IP_TOS; the two ECN bits are TCP's own.
    pub ip_tos: u8,
    /// IP_TTL, 1 to 255; −1 = the route's or `ip_default_ttl`.
    pub ip_ttl: i16,
    /// IP_MINTTL: what comes with a smaller TTL is dropped.
    pub ip_min_ttl: u8,
    /// IP_MTU_DISCOVER (IP_PMTUDISC_*): 1 and 2 set DF, 0 ignores what routers say of the MTU.
    pub ip_mtu_discover: u8,
    /// IP_RECVERR: a connection's ICMP errors are told at once, not only when it dies of them.
    pub ip_recverr: bool,
    /// IPV6_V6ONLY: a wildcard listener takes no IPv4. No option sets it: such a listener is left to the kernel.
    pub ipv6_v6only: bool,
    /// SO_DEBUG; only kept.
    pub debug: bool,
    /// Options that the kernel's socket has, for the children of a listener.
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
