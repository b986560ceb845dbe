//! Port holders: kernel sockets that keep the kernel silent on ports whose TCP is ours.
//!
//! Without one the kernel answers RST to every segment for a port that it does not know. Three kinds exist:
//!
//! | kind | for | how | needs |
//! |---|---|---|---|
//! | repair | one 4-tuple | socket put into ESTABLISHED by TCP_REPAIR, with a filter that drops all | CAP_NET_ADMIN |
//! | filtered | a listening port | listening socket with a filter that drops all but the loopback device's | CAP_NET_ADMIN (older kernels: nothing) |
//! | min-TTL | a port | one listening socket per device with IP_MINTTL 255 | nothing |
//!
//! A connection that came in through a held listener needs no holder of its own while that listener is held: it
//! takes [`ListenHolder::share`]. When the program closes the listener, [`Holders::convert`] gives each such connection
//! its own, so that the port can be bound again at once.
//!
//! # Next to the program's own socket
//!
//! The program's visible socket (the shadow) is bound to the same port. Tried on Linux 6.18:
//!
//! * A repair socket binds and connects next to any bound socket, whatever their options: TCP_REPAIR means forced
//!   reuse. The same 4-tuple twice is EADDRNOTAVAIL; an unbound repair socket gets its local port from the kernel's
//!   own choice for connect(2), which knows 4-tuples.
//! * Left as it is, a repair socket also lets other sockets with SO_REUSEADDR bind. Setting SO_REUSEADDR to the
//!   program's value after the connect brings back what a real connection would allow: 0 refuses the bind.
//! * A listening holder binds next to the shadow only while both have SO_REUSEADDR, and listen(2) checks again. It is
//!   set on the shadow for these two calls and then restored; other programs get EADDRINUSE before and after.
//! * The shadow of a port that only connections hold (the listener was closed) binds with SO_REUSEADDR as in a plain
//!   kernel where the holders are repair sockets. Where they are min-TTL listeners it needs
//!   [`Holders::beside`], which lends SO_REUSEPORT to both sides for the length of the call. So does its end, [`unbind`].
//!
//! Sockets accepted from [`ListenHolder::fd`] inherit its filter, see [`strip_filter`].

mod port;
mod unbind;

use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::packet::filter;
use crate::raw;
use crate::socket_name as name;
use port::PortHold;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use unbind::unbind;

/// IP_BIND_ADDRESS_NO_PORT: bind leaves the port to connect, which knows 4-tuples.
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;

/// What a holder takes over from the program's socket.
#[derive(Clone, Debug, Default)]
pub struct HoldOptions {
    /// SO_MARK, where routing depends on it.
    pub mark: u32,
    /// SO_BINDTODEVICE.
    pub device: Option<String>,
    /// SO_REUSEADDR: whether others with that option may bind the local port.
    pub reuse: bool,
    /// SO_REUSEPORT: the same for a group of its user's.
    pub reuse_port: bool,
    /// IP_LOCAL_PORT_RANGE, where a port is chosen; 0 for none.
    pub port_range: u32,
    /// The program's own socket, if it is bound to the same port.
    pub shadow: Option<RawFd>,
}

type Tuples = Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>;

/// IPv4 repair sockets that hold nothing: to disconnect and connect one again costs a third of a new one.
type Idle = Arc<Mutex<Vec<Fd>>>;

/// How many are kept.
const IDLE_MAX: usize = 16;

/// The ports of which a holder keeps the kernel silent to all that comes, shared with who answers there: at others the kernel
/// answers by itself what belongs to no connection.
#[derive(Clone, Debug, Default)]
pub struct SilentPorts(Arc<Mutex<HashMap<SocketAddr, Weak<PortHold>>>>);

impl SilentPorts {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Weak<PortHold>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The holder of a port on that address, or on all.
    fn holder(&self, local: SocketAddr) -> Option<Arc<PortHold>> {
        let any = SocketAddr::new(port::unspecified(&local), local.port());
        let ports = self.lock();
        [local, any]
            .iter()
            .find_map(|name| ports.get(name).and_then(Weak::upgrade))
    }

    /// Whether the kernel says nothing at that port of that address.
    #[must_use]
    pub fn has(&self, local: SocketAddr) -> bool {
        self.holder(local).is_some()
    }
}

/// The holders of one network namespace.
#[derive(Debug)]
pub struct Holders {
    silent: SilentPorts,
    /// 4-tuples that share a port's holder: the kernel does not tell them apart.
    tuples: Tuples,
    /// Devices other than lo, by name.
    devices: Vec<String>,
    privileged: bool,
    /// The filter of repair sockets, where it may be shared.
    drop_all: Option<Fd>,
    idle: Idle,
}

impl Holders {
    /// `devices` are the names of all devices but lo.
    pub fn new(devices: impl IntoIterator<Item = String>) -> Holders {
        Holders {
            silent: SilentPorts::default(),
            tuples: Tuples::default(),
            devices: devices.into_iter().collect(),
            privileged: true,
            drop_all: filter::load_drop_all().ok(),
            idle: Idle::default(),
        }
    }

    /// Where the kernel is silent.
    pub fn silent_ports(&self) -> SilentPorts {
        self.silent.clone()
    }

    /// Whether holders of connections are repair sockets, as far as is known.
    pub fn privileged(&self) -> bool {
        self.privileged
    }

    /// Tells which devices there are now, lo excepted: min-TTL listeners follow. `shadows` are the program's bound
    /// sockets.
    ///
    /// # Errors
    /// The first that a new listener met; the others are held all the same.
    pub fn devices_changed(
        &mut self,
        devices: impl IntoIterator<Item = String>,
        shadows: &[RawFd],
    ) -> Result<(), Errno> {
        self.devices = devices.into_iter().collect();
        let mut result = Ok(());
        self.silent.lock().retain(|_, weak| {
            let Some(port) = weak.upgrade() else {
                return false;
            };
            if let Err(e) = port.follow(&self.devices, shadows) {
                result = Err(e);
            }
            true
        });
        result
    }

    /// Keeps the kernel silent to segments from `remote` to `local`. An unspecified address or port of `local` is
    /// chosen by the kernel as for connect(2); [`Holder::local`] tells it.
    ///
    /// # Errors
    /// EADDRNOTAVAIL for a 4-tuple that exists or an address that is not ours, or when no port is free; EADDRINUSE
    /// without CAP_NET_ADMIN for a port that another program holds; ENETUNREACH and its kin without a route; EMFILE,
    /// ENFILE.
    pub fn hold_connection(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        options: &HoldOptions,
    ) -> Result<Holder, Errno> {
        if self.privileged {
            match self.repair(local, remote, options) {
                Err(Errno::EPERM) => self.privileged = false,
                result => return result,
            }
        }
        if local.ip().is_unspecified() {
            // Without a connect of the kernel's own nobody chooses the address: the caller knows the route.
            return Err(Errno::EADDRNOTAVAIL);
        }
        let port = self.port(local, options)?;
        let local = SocketAddr::new(local.ip(), port.name().port());
        self.share(port, local, remote)
    }

    /// Keeps the kernel silent on a listening port, while its clients on this host are served: they arrive at
    /// [`ListenHolder::fd`]. The same as [`Holders::reserve`] and [`ListenHolder::listen`].
    ///
    /// # Errors
    /// EADDRINUSE where another socket listens; EACCES for a privileged port; EMFILE, ENFILE.
    pub fn hold_listener(
        &mut self,
        local: SocketAddr,
        backlog: i32,
        options: &HoldOptions,
    ) -> Result<ListenHolder, Errno> {
        let mut holder = self.reserve(local, options)?;
        holder.listen(backlog, options)?;
        Ok(holder)
    }

    /// Binds what [`ListenHolder::listen`] will need, while privileges to do so last.
    ///
    /// # Errors
    /// As for [`Holders::hold_listener`].
    pub fn reserve(
        &mut self,
        local: SocketAddr,
        options: &HoldOptions,
    ) -> Result<ListenHolder, Errno> {
        // Connections of an earlier listener may hold the port. A filtered holder is a listener itself, of its own address
        // only; beside a min-TTL one the kernel judges by those for local clients.
        let held = self.silent.holder(local);
        if let Some(port) = held.filter(|held| held.name() == local || !held.is_filtered()) {
            let fd = if port.is_filtered() {
                None
            } else {
                Some(port::local_listener(local, options)?)
            };
            return Ok(ListenHolder { port, fd });
        }
        let (port, fd) = match PortHold::filtered(local, options) {
            Err(Errno::EPERM) => (
                Arc::new(PortHold::min_ttl(local, &self.devices, options)?),
                Some(port::local_listener(local, options)?),
            ),
            result => (Arc::new(result?), None),
        };
        self.silent
            .lock()
            .insert(port.name(), Arc::downgrade(&port));
        Ok(ListenHolder { port, fd })
    }

    /// Gives a connection that shares its listener's holder one of its own, before the listener is closed. Where that
    /// takes CAP_NET_ADMIN and there is none it goes on sharing, and the port stays held.
    ///
    /// # Errors
    /// As for [`Holders::hold_connection`]; the connection goes on sharing.
    pub fn convert(
        &self,
        holder: &mut Holder,
        remote: SocketAddr,
        options: &HoldOptions,
    ) -> Result<(), Errno> {
        if self.privileged && matches!(holder.kind, Kind::Listener { .. }) {
            match self.repair(holder.local, remote, options) {
                Ok(own) => *holder = own,
                Err(Errno::EPERM) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Lets the program's socket `shadow` bind to a port, or listen on it, in `act`, although listening sockets of ours hold
    /// it: both sides have SO_REUSEPORT meanwhile. The caller knows that Linux would allow it: nobody listens there.
    ///
    /// # Errors
    /// EADDRINUSE where no listening socket of ours holds the port; what `act` says.
    pub fn beside(
        &self,
        shadow: RawFd,
        port: u16,
        act: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let holds: Vec<_> = {
            let ports = self.silent.lock();
            let of_port = ports.iter().filter(|(name, _)| name.port() == port);
            of_port.filter_map(|(_, weak)| weak.upgrade()).collect()
        };
        if holds.is_empty() {
            // It is somebody else's.
            return Err(Errno::EADDRINUSE);
        }
        // A group is one user's. A program that changes its effective one may have bound as another than it listened as.
        let owner = raw::owner(shadow)?;
        holds.iter().for_each(|hold| hold.belong_to(owner));
        let lend = |on: i32| {
            for hold in &holds {
                hold.set_option(libc::SO_REUSEPORT, on);
            }
        };
        let before = raw::getsockopt(shadow, libc::SOL_SOCKET, libc::SO_REUSEPORT, 0i32)?;
        raw::setsockopt(shadow, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32)?;
        lend(1);
        let result = act();
        lend(0);
        raw::setsockopt(shadow, libc::SOL_SOCKET, libc::SO_REUSEPORT, &before)?;
        result
    }

    /// Undoes what the kernel remembers of a moment in which SO_REUSEPORT was lent ([`ListenHolder::succeed`]): a socket with
    /// that option would be let in at the port without a look at the others.
    pub fn close_group(&self, local: SocketAddr) {
        let bind = || {
            let fd = raw::socket(name::family(&local), libc::SOCK_STREAM, libc::IPPROTO_TCP)?;
            raw::setsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, &1i32)?;
            name::bind(fd.as_raw_fd(), &local)
        };
        // Without the capability it stays.
        let _ = bind();
    }

    /// Acts as without CAP_NET_ADMIN from now on.
    pub fn without_repair(&mut self) {
        self.privileged = false;
    }

    /// Puts a socket into ESTABLISHED without a packet, deaf to all that comes.
    fn repair(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        options: &HoldOptions,
    ) -> Result<Holder, Errno> {
        // A socket that forced its port, or has options of its own, is not like the others afterwards.
        let plain = remote.is_ipv4()
            && !local.ip().is_unspecified()
            && local.port() == 0
            && options.mark == 0
            && options.device.is_none()
            && !options.reuse
            && !options.reuse_port
            && options.port_range == 0;
        let used = if plain { self.take_idle() } else { None };
        let fd = match used {
            Some(fd) => fd,
            None => self.repair_socket(local, remote, options)?,
        };
        let raw_fd = fd.as_raw_fd();
        if !local.ip().is_unspecified() || local.port() != 0 {
            name::bind(raw_fd, &local)?;
        }
        name::connect(raw_fd, &remote)?;
        if !plain {
            let reuse = i32::from(options.reuse);
            raw::setsockopt(raw_fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &reuse)?;
            let reuse_port = i32::from(options.reuse_port);
            raw::setsockopt(raw_fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &reuse_port)?;
        }
        Ok(Holder {
            local: name::local(raw_fd)?,
            kind: Kind::Repair {
                fd: Some(fd),
                idle: plain.then(|| self.idle.clone()),
            },
        })
    }

    fn take_idle(&self) -> Option<Fd> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    /// A socket in repair mode, deaf, not yet bound.
    fn repair_socket(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        options: &HoldOptions,
    ) -> Result<Fd, Errno> {
        let fd = raw::socket(name::family(&remote), libc::SOCK_STREAM, libc::IPPROTO_TCP)?;
        let raw_fd = fd.as_raw_fd();
        raw::setsockopt(raw_fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, &1i32)?;
        match &self.drop_all {
            Some(program) => filter::attach_loaded(raw_fd, program.as_raw_fd())?,
            None => filter::attach(raw_fd, &filter::drop_all())?,
        }
        port::apply(raw_fd, options)?;
        if local.port() == 0 {
            raw::setsockopt(raw_fd, libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &1i32)?;
            // What repair has forced matters to a bind with a port only.
            raw::setsockopt(raw_fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &0i32)?;
        }
        move_high(fd)
    }

    /// The min-TTL holder of a port: that of the address, that of all addresses, or a new one.
    fn port(&mut self, local: SocketAddr, options: &HoldOptions) -> Result<Arc<PortHold>, Errno> {
        if let Some(port) = self.silent.holder(local) {
            return Ok(port);
        }
        let port = Arc::new(PortHold::min_ttl(local, &self.devices, options)?);
        let mut ports = self.silent.lock();
        ports.retain(|_, weak| weak.strong_count() > 0);
        ports.insert(port.name(), Arc::downgrade(&port));
        drop(ports);
        Ok(port)
    }

    fn share(
        &self,
        port: Arc<PortHold>,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Holder, Errno> {
        let mut tuples = self.tuples.lock().unwrap_or_else(PoisonError::into_inner);
        if !tuples.insert((local, remote)) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let tuples = self.tuples.clone();
        Ok(Holder {
            local,
            kind: Kind::Counted {
                _port: port,
                remote,
                tuples,
            },
        })
    }
}

/// Keeps the kernel silent to one connection's segments until it is dropped.
#[derive(Debug)]
pub struct Holder {
    local: SocketAddr,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A socket of its own.
    Repair {
        /// None once it is dropped.
        fd: Option<Fd>,
        /// Where it goes then, if it can be used again.
        idle: Option<Idle>,
    },
    /// A port's holder, shared; the 4-tuple is ours to watch.
    Counted {
        _port: Arc<PortHold>,
        remote: SocketAddr,
        tuples: Tuples,
    },
    /// The holder of the listener that the connection came in by; the engine's demultiplexer knows the 4-tuples.
    Listener { _port: Arc<PortHold> },
}

impl Holder {
    /// The local name, with what the kernel has chosen.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether the port itself is held, and not only the 4-tuple.
    pub fn holds_port(&self) -> bool {
        !matches!(self.kind, Kind::Repair { .. })
    }

    /// Whether it takes descriptors that the listener's own does not.
    pub fn takes_descriptors(&self) -> bool {
        !matches!(self.kind, Kind::Listener { .. })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Counted { remote, tuples, .. } => {
                tuples
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&(self.local, *remote));
            }
            Kind::Repair { fd, idle } => {
                if let Some(fd) = fd.take() {
                    release(fd, idle.as_ref());
                }
            }
            Kind::Listener { .. } => {}
        }
    }
}

/// Frees the 4-tuple, and keeps the socket for the next connection where there are not enough. To close it would not do: a
/// child that was forked a moment ago has the descriptor, too.
fn release(fd: Fd, idle: Option<&Idle>) {
    if name::disconnect(fd.as_raw_fd()).is_err() {
        return;
    }
    if let Some(idle) = idle {
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(fd);
        }
    }
}

/// Keeps the kernel silent on a listening port until it and all connections that share it are dropped.
#[derive(Debug)]
pub struct ListenHolder {
    port: Arc<PortHold>,
    /// The listener for clients on this host, where it is not the silent socket itself.
    fd: Option<Fd>,
}

impl ListenHolder {
    /// A kernel socket for clients on this host. Without CAP_NET_ADMIN it serves 127.0.0.0/8 only; clients that
    /// connect to another address of this host meet silence.
    pub fn fd(&self) -> RawFd {
        self.fd
            .as_ref()
            .map_or_else(|| self.port.first_fd(), AsRawFd::as_raw_fd)
    }

    /// Starts to listen, or changes the backlog.
    ///
    /// # Errors
    /// EADDRINUSE where another socket listens.
    pub fn listen(&mut self, backlog: i32, options: &HoldOptions) -> Result<(), Errno> {
        self.port.listen(backlog, options)?;
        match &self.fd {
            Some(fd) => port::listen(fd.as_raw_fd(), backlog, options),
            None => Ok(()),
        }
    }

    /// Whether connections need this holder, too: the kernel lets nobody else listen meanwhile.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.port) > 1
    }

    /// Has the program's own socket `shadow` listen at the port as well, whatever came in by this listener: so that there is
    /// one at each moment of a change. This listener is to be dropped then.
    ///
    /// # Errors
    /// EADDRINUSE where others on the port do not allow a listener.
    pub fn succeed(&self, shadow: RawFd, backlog: i32) -> Result<(), Errno> {
        let lend = |on: i32| {
            self.port.set_option(libc::SO_REUSEPORT, on);
            if let Some(fd) = &self.fd {
                let _ = raw::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, &on);
            }
        };
        let before = raw::getsockopt(shadow, libc::SOL_SOCKET, libc::SO_REUSEPORT, 0i32)?;
        // As in `beside`.
        let owner = raw::owner(shadow)?;
        self.port.belong_to(owner);
        if let Some(fd) = &self.fd {
            let _ = raw::set_owner(fd.as_raw_fd(), owner);
        }
        raw::setsockopt(shadow, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32)?;
        lend(1);
        let result = {
            let _lent = port::Lent::to(core::slice::from_ref(&shadow));
            raw::listen(shadow, backlog)
        };
        if result.is_err() {
            lend(0);
        }
        raw::setsockopt(shadow, libc::SOL_SOCKET, libc::SO_REUSEPORT, &before)?;
        result
    }

    /// The holder of a connection that came in by this listener, to the address `local`.
    pub fn share(&self, local: SocketAddr) -> Holder {
        Holder {
            local,
            kind: Kind::Listener {
                _port: self.port.clone(),
            },
        }
    }
}

impl Drop for ListenHolder {
    fn drop(&mut self) {
        // Connections that could not be converted go on needing the silence; local clients are to be refused, but a
        // filtered listener cannot refuse: silence is the nearest.
        if self.fd.is_none() && self.is_shared() {
            let _ = filter::attach(self.port.first_fd(), &filter::drop_all());
        } else {
            port::stop(self.fd());
        }
    }
}

/// Removes the filter that a socket accepted from [`ListenHolder::fd`] has inherited.
pub fn strip_filter(accepted: RawFd) {
    // ENOENT where none was inherited.
    let _ = raw::setsockopt(accepted, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0i32);
}
