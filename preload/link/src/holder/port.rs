//! The listening sockets that hold a whole port.

use sidewire_uapi::ip::IP_LOCAL_PORT_RANGE;

use super::HoldOptions;
use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::packet::filter;
use crate::raw;
use crate::socket_name as name;
use sidewire_uapi::ip::IPV6_MINHOPCOUNT;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// No packet that was forwarded, and next to none that was not, has a TTL of 255.
pub(super) const SILENT_TTL: i32 = 255;

/// How many SYNs a silent listener would queue: it sees none.
const SILENT_BACKLOG: i32 = 1;

/// How a port is held.
#[derive(Debug)]
enum How {
    /// One socket with a filter.
    Filtered(Fd),
    /// One socket per device, by its name, and one that is only bound, to keep the port when there is no device.
    MinTtl {
        bound: Fd,
        per_device: Mutex<Vec<(String, Fd)>>,
        mark: u32,
        only: Option<String>,
    },
}

/// A held port.
#[derive(Debug)]
pub(super) struct PortHold {
    name: SocketAddr,
    how: How,
}

/// The unspecified address of the same family.
pub(super) fn unspecified(local: &SocketAddr) -> IpAddr {
    if local.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// Sets what a holder takes over from the program's socket, SO_REUSEADDR excepted.
pub(super) fn apply(fd: RawFd, options: &HoldOptions) -> Result<(), Errno> {
    if options.mark != 0 {
        raw::setsockopt(fd, libc::SOL_SOCKET, libc::SO_MARK, &options.mark)?;
    }
    if options.port_range != 0 {
        raw::setsockopt(
            fd,
            libc::IPPROTO_IP,
            IP_LOCAL_PORT_RANGE,
            &options.port_range,
        )?;
    }
    if let Some(device) = &options.device {
        bind_to_device(fd, device)?;
    }
    Ok(())
}

fn bind_to_device(fd: RawFd, device: &str) -> Result<(), Errno> {
    raw::setsockopt_bytes(
        fd,
        libc::SOL_SOCKET,
        libc::SO_BINDTODEVICE,
        device.as_bytes(),
    )
}

/// Lends SO_REUSEADDR to sockets of the program until it is dropped.
pub(super) struct Lent<'a>(&'a [RawFd], Vec<i32>);

impl<'a> Lent<'a> {
    pub(super) fn to(shadows: &'a [RawFd]) -> Lent<'a> {
        let lend = |&fd: &RawFd| {
            let before =
                raw::getsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0i32).unwrap_or(0);
            // A descriptor that is no socket any more has no say in a bind.
            let _ = set_reuse(fd, 1);
            before
        };
        Lent(shadows, shadows.iter().map(lend).collect())
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        for (fd, before) in self.0.iter().zip(&self.1) {
            let _ = set_reuse(*fd, *before);
        }
    }
}

fn set_reuse(fd: RawFd, value: i32) -> Result<(), Errno> {
    raw::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &value)
}

/// A bound TCP socket, with SO_REUSEADDR.
fn bound(
    local: &SocketAddr,
    options: &HoldOptions,
    prepare: impl FnOnce(RawFd) -> Result<(), Errno>,
) -> Result<Fd, Errno> {
    let fd = raw::socket(
        name::family(local),
        libc::SOCK_STREAM | libc::SOCK_NONBLOCK,
        libc::IPPROTO_TCP,
    )?;
    let raw_fd = fd.as_raw_fd();
    if local.is_ipv6() {
        raw::setsockopt(raw_fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)?;
    }
    apply(raw_fd, options)?;
    set_reuse(raw_fd, 1)?;
    prepare(raw_fd)?;
    let _lent = Lent::to(options.shadow.as_slice());
    name::bind(raw_fd, local)?;
    move_high(fd)
}

/// A socket that will listen for clients on this host by the device lo.
pub(super) fn local_listener(local: SocketAddr, options: &HoldOptions) -> Result<Fd, Errno> {
    bound(&local, options, |fd| bind_to_device(fd, "lo"))
}

/// listen(2) for clients on this host. What is accepted inherits the program's SO_REUSEADDR.
pub(super) fn listen(fd: RawFd, backlog: i32, options: &HoldOptions) -> Result<(), Errno> {
    let _lent = Lent::to(options.shadow.as_slice());
    set_reuse(fd, 1)?;
    let result = raw::listen(fd, backlog);
    set_reuse(fd, i32::from(options.reuse))?;
    result
}

/// Ends a listener that is about to be closed. The close alone would not while a thread polls it: the poll keeps the socket
/// until it returns, and nobody else could listen there.
pub(super) fn stop(fd: RawFd) {
    let _ = set_reuse(fd, 1);
    let _ = name::disconnect(fd);
}

fn min_ttl_socket(local: &SocketAddr, device: &str, options: &HoldOptions) -> Result<Fd, Errno> {
    let (level, option) = match local {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    };
    let fd = bound(local, options, |fd| {
        raw::setsockopt(fd, level, option, &SILENT_TTL)?;
        bind_to_device(fd, device)
    })?;
    let _lent = Lent::to(options.shadow.as_slice());
    raw::listen(fd.as_raw_fd(), SILENT_BACKLOG)?;
    Ok(fd)
}

impl PortHold {
    /// A socket that will listen, and hears only the loopback device.
    pub(super) fn filtered(local: SocketAddr, options: &HoldOptions) -> Result<PortHold, Errno> {
        let fd = bound(&local, options, |fd| {
            filter::attach(fd, &filter::only_loopback())
        })?;
        Ok(PortHold {
            name: name::local(fd.as_raw_fd())?,
            how: How::Filtered(fd),
        })
    }

    /// Silent listeners on every device.
    pub(super) fn min_ttl(
        local: SocketAddr,
        devices: &[String],
        options: &HoldOptions,
    ) -> Result<PortHold, Errno> {
        let fd = bound(&local, options, |_| Ok(()))?;
        let name = name::local(fd.as_raw_fd())?;
        let per_device = Mutex::new(Vec::new());
        let how = How::MinTtl {
            bound: fd,
            per_device,
            mark: options.mark,
            only: options.device.clone(),
        };
        let hold = PortHold { name, how };
        hold.open_on(devices, options.shadow.as_slice())?;
        Ok(hold)
    }

    pub(super) fn name(&self) -> SocketAddr {
        self.name
    }

    pub(super) fn is_filtered(&self) -> bool {
        matches!(self.how, How::Filtered(_))
    }

    /// The socket that local clients arrive at if it is filtered; else one that is only bound.
    pub(super) fn first_fd(&self) -> RawFd {
        match &self.how {
            How::Filtered(fd) | How::MinTtl { bound: fd, .. } => fd.as_raw_fd(),
        }
    }

    pub(super) fn listen(&self, backlog: i32, options: &HoldOptions) -> Result<(), Errno> {
        match &self.how {
            How::Filtered(fd) => {
                // Undoes what the end of an earlier listener may have left. Who has dropped the capability since keeps the
                // filter that is there.
                match filter::attach(fd.as_raw_fd(), &filter::only_loopback()) {
                    Ok(()) | Err(Errno::EPERM) => {}
                    Err(e) => return Err(e),
                }
                listen(fd.as_raw_fd(), backlog, options)
            }
            How::MinTtl { .. } => Ok(()),
        }
    }

    /// Opens and closes min-TTL listeners after the devices.
    pub(super) fn follow(&self, devices: &[String], shadows: &[RawFd]) -> Result<(), Errno> {
        if let How::MinTtl { per_device, .. } = &self.how {
            lock(per_device).retain(|(name, _)| devices.contains(name));
        }
        self.open_on(devices, shadows)
    }

    fn open_on(&self, devices: &[String], shadows: &[RawFd]) -> Result<(), Errno> {
        let How::MinTtl {
            per_device,
            mark,
            only,
            ..
        } = &self.how
        else {
            return Ok(());
        };
        let _lent = Lent::to(shadows);
        let mut open = lock(per_device);
        let options = HoldOptions {
            mark: *mark,
            ..HoldOptions::default()
        };
        for device in devices {
            if only.as_ref().is_none_or(|d| d == device)
                && open.iter().all(|(name, _)| name != device)
            {
                open.push((
                    device.clone(),
                    min_ttl_socket(&self.name, device, &options)?,
                ));
            }
        }
        Ok(())
    }

    /// Sets a SOL_SOCKET option on every socket that holds the port.
    pub(super) fn set_option(&self, option: i32, value: i32) {
        self.for_each(|fd| {
            // A refusal shows in the bind that follows.
            let _ = raw::setsockopt(fd, libc::SOL_SOCKET, option, &value);
        });
    }

    /// Has every socket that holds the port belong to the user `uid`, as far as the program may.
    pub(super) fn belong_to(&self, uid: u32) {
        self.for_each(|fd| {
            if raw::owner(fd) != Ok(uid) {
                // As above.
                let _ = raw::set_owner(fd, uid);
            }
        });
    }

    fn for_each(&self, mut act: impl FnMut(RawFd)) {
        match &self.how {
            How::Filtered(fd) => act(fd.as_raw_fd()),
            How::MinTtl {
                bound, per_device, ..
            } => {
                act(bound.as_raw_fd());
                lock(per_device)
                    .iter()
                    .for_each(|(_, fd)| act(fd.as_raw_fd()));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
