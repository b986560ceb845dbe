//! Requests of `ioctl` on sockets (spec RD-39 to RD-43).

/// Bytes that can be read.
pub const FIONREAD: u64 = 0x541b;
/// Same as [`FIONREAD`].
pub const SIOCINQ: u64 = FIONREAD;
/// Bytes that are not acknowledged.
pub const TIOCOUTQ: u64 = 0x5411;
/// Same as [`TIOCOUTQ`].
pub const SIOCOUTQ: u64 = TIOCOUTQ;
/// Bytes that were never sent.
pub const SIOCOUTQNSD: u64 = 0x894b;
/// Is the next byte the urgent one?
pub const SIOCATMARK: u64 = 0x8905;
/// Set or clear non-blocking mode.
pub const FIONBIO: u64 = 0x5421;
/// Set or clear signal-driven I/O.
pub const FIOASYNC: u64 = 0x5452;
/// Set close-on-exec.
pub const FIOCLEX: u64 = 0x5451;
/// Clear close-on-exec.
pub const FIONCLEX: u64 = 0x5450;
/// Set the owner of `SIGIO` and `SIGURG`.
pub const FIOSETOWN: u64 = 0x8901;
/// Same as [`FIOSETOWN`].
pub const SIOCSPGRP: u64 = 0x8902;
/// Get the owner of `SIGIO` and `SIGURG`.
pub const FIOGETOWN: u64 = 0x8903;
/// Same as [`FIOGETOWN`].
pub const SIOCGPGRP: u64 = 0x8904;
/// Time of the last packet, microseconds.
pub const SIOCGSTAMP: u64 = 0x8906;
/// Time of the last packet, nanoseconds.
pub const SIOCGSTAMPNS: u64 = 0x8907;
