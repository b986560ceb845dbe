//! `SOL_IP` and `SOL_IPV6` options that TCP sockets take.

/// Type of service; TCP keeps the two ECN bits for itself.
pub const IP_TOS: i32 = 1;
/// Time to live, 1..=255, -1 for the default.
pub const IP_TTL: i32 = 2;
/// The program writes the IP header (raw sockets).
pub const IP_HDRINCL: i32 = 3;
/// IP options.
pub const IP_OPTIONS: i32 = 4;
/// Receive destination address and device.
pub const IP_PKTINFO: i32 = 8;
/// Path MTU discovery, `IP_PMTUDISC_*`.
pub const IP_MTU_DISCOVER: i32 = 10;
/// Errors go to the error queue.
pub const IP_RECVERR: i32 = 11;
/// Receive the time to live.
pub const IP_RECVTTL: i32 = 12;
/// Receive the type of service.
pub const IP_RECVTOS: i32 = 13;
/// Path MTU of a connected socket, read only.
pub const IP_MTU: i32 = 14;
/// Bind to addresses that are not there.
pub const IP_FREEBIND: i32 = 15;
/// Transparent proxy.
pub const IP_TRANSPARENT: i32 = 19;
/// Smallest time to live that is accepted.
pub const IP_MINTTL: i32 = 21;
/// `bind` leaves port 0 to `connect`.
pub const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
/// Ports for automatic choice: low bound in the low 16 bits, high bound in the high ones.
pub const IP_LOCAL_PORT_RANGE: i32 = 51;
/// Of a raw socket its protocol; of others the local port, read only.
pub const IP_PROTOCOL: i32 = 52;

/// Never set the don't-fragment bit.
pub const IP_PMTUDISC_DONT: i32 = 0;
/// Use per-route settings.
pub const IP_PMTUDISC_WANT: i32 = 1;
/// Always set the don't-fragment bit.
pub const IP_PMTUDISC_DO: i32 = 2;
/// Set it, and ignore the known path MTU.
pub const IP_PMTUDISC_PROBE: i32 = 3;

/// Default time to live.
pub const IPDEFTTL: u8 = 64;

/// Default hop limit of a socket, -1 for the system's.
pub const IPV6_UNICAST_HOPS: i32 = 16;
/// Path MTU discovery.
pub const IPV6_MTU_DISCOVER: i32 = 23;
/// Path MTU of a connected socket, read only.
pub const IPV6_MTU: i32 = 24;
/// Errors go to the error queue.
pub const IPV6_RECVERR: i32 = 25;
/// IPv6 only, no mapped addresses.
pub const IPV6_V6ONLY: i32 = 26;
/// Traffic class; TCP keeps the two ECN bits for itself.
pub const IPV6_TCLASS: i32 = 67;
/// Smallest hop limit that is accepted.
pub const IPV6_MINHOPCOUNT: i32 = 73;
