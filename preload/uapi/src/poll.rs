//! Bits of `poll` and `epoll`.

/// Readable.
pub const POLLIN: u32 = 0x1;
/// Urgent data.
pub const POLLPRI: u32 = 0x2;
/// Writable.
pub const POLLOUT: u32 = 0x4;
/// Error, always reported.
pub const POLLERR: u32 = 0x8;
/// Hung up, always reported.
pub const POLLHUP: u32 = 0x10;
/// Not an open descriptor.
pub const POLLNVAL: u32 = 0x20;
/// Same as [`POLLIN`] for sockets.
pub const POLLRDNORM: u32 = 0x40;
/// Not used by sockets.
pub const POLLRDBAND: u32 = 0x80;
/// Same as [`POLLOUT`] for sockets.
pub const POLLWRNORM: u32 = 0x100;
/// Not used by TCP.
pub const POLLWRBAND: u32 = 0x200;
/// The peer will send no more.
pub const POLLRDHUP: u32 = 0x2000;

/// `epoll`: wake one waiter.
pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
/// `epoll`: keep the machine awake.
pub const EPOLLWAKEUP: u32 = 1 << 29;
/// `epoll`: one event, then disarmed.
pub const EPOLLONESHOT: u32 = 1 << 30;
/// `epoll`: edges instead of levels.
pub const EPOLLET: u32 = 1 << 31;

/// Add a descriptor.
pub const EPOLL_CTL_ADD: i32 = 1;
/// Remove a descriptor.
pub const EPOLL_CTL_DEL: i32 = 2;
/// Change a descriptor's events.
pub const EPOLL_CTL_MOD: i32 = 3;
