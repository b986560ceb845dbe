//! What keeps the kernel silent on our ports: a holder for each connection and listener of the engine, orphans and TIME_WAIT
//! included; and the filter that lets their frames reach us.

use core::ffi::c_int;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::HashMap;

use sidewire_engine::Stack;
use sidewire_engine::net::Tuple;
use sidewire_link::Errno;
use sidewire_link::epoll::Epoll;
use sidewire_link::fd::Fd;
use sidewire_link::holder::{
    self, HoldOptions, Holder, Holders as KernelHolders, ListenHolder, SilentPorts, strip_filter,
};
use sidewire_link::packet::PacketSocket;
use sidewire_link::packet::filter::{PortFilter, Target};
use std::os::fd::AsRawFd;

use crate::calls::socket::Reason;
use crate::syscall;

/// What a file has reserved with the kernel.
#[derive(Debug, Default)]
pub struct Port {
    /// The program's own descriptor is bound, by the program or by `listen`.
    pub bound: bool,
    /// To a port that the program named (Linux SOCK_BINDPORT_LOCK).
    pub locked: bool,
    /// A connect or listen has begun since: when it is over, a port that is not locked is given up.
    pub used: bool,
    /// How many have begun.
    uses: u32,
    /// Its holder while it listens.
    pub listener: Option<Listener>,
    /// The kernel listens in its place, at this duplicate of the program's socket; what came in before is still accepted.
    pub(crate) leaving: Option<(Fd, Reason)>,
}

impl Port {
    /// Nothing reserved.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bound: false,
            locked: false,
            used: false,
            uses: 0,
            listener: None,
            leaving: None,
        }
    }

    /// A connect or listen begins.
    pub(crate) fn begin(&mut self) {
        self.used = true;
        self.uses = self.uses.wrapping_add(1);
    }

    /// When the port was chosen by the kernel for the program's descriptor, and is given up with the end of what uses it: which
    /// use that is.
    pub(crate) fn ends_with(&self) -> Option<u32> {
        (self.used && self.bound && !self.locked).then_some(self.uses)
    }
}

/// A listening port, held.
#[derive(Debug)]
pub struct Listener {
    local: SocketAddr,
    holder: ListenHolder,
    /// Of an AF_INET6 listener: the kernel's listener for IPv6 clients, and an epoll descriptor over both.
    v6: Option<(Fd, Epoll)>,
    options: HoldOptions,
}

impl Listener {
    /// Polls POLLIN when a client of a kernel listener waits.
    #[must_use]
    pub fn poll_fd(&self) -> c_int {
        self.v6
            .as_ref()
            .map_or_else(|| self.holder.fd(), |(_, both)| both.as_raw_fd())
    }

    /// Takes a client of a kernel listener.
    ///
    /// # Errors
    /// As accept(2) when none waits, EMFILE and ENFILE among them: Linux looks for a descriptor first.
    pub fn accept(&self, flags: c_int) -> Result<c_int, Errno> {
        let v4 = syscall::accept4(self.holder.fd(), flags);
        let child = match &self.v6 {
            Some((v6, _)) => v4.or_else(|_| syscall::accept4(v6.as_raw_fd(), flags)),
            None => v4,
        }?;
        strip_filter(child);
        Ok(child)
    }

    /// Where it listens.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether connections need its holder, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.holder.is_shared()
    }

    /// Changes the backlog.
    ///
    /// # Errors
    /// As listen(2).
    pub fn set_backlog(&mut self, backlog: c_int) -> Result<(), Errno> {
        if let Some((v6, _)) = &self.v6 {
            syscall::listen(v6.as_raw_fd(), backlog)?;
        }
        self.holder.listen(backlog, &self.options)
    }
}

/// A connection's holder.
struct Held {
    holder: Holder,
    /// Its socket has SO_REUSEADDR.
    reuse: bool,
}

/// The holders of a stack.
pub struct Holders {
    /// What the filter decides for: where frames come in.
    way_in: Target,
    filter: PortFilter,
    kernel: KernelHolders,
    tuples: HashMap<Tuple, Held>,
    /// Listeners of ours, by their ports.
    listening: HashMap<u16, usize>,
    /// How many of `tuples` take descriptors, which the program has a right to.
    descriptors: usize,
    /// `descriptors` when TIME_WAIT last had to give some up.
    spared: usize,
}

/// As many TIME_WAIT remnants may keep descriptors as one in so many that RLIMIT_NOFILE allows: the limit is the program's,
/// and the kernel's own remnants have none.
const TIMEWAIT_SHARE: usize = 8;

/// What a holder takes over from the program's descriptor `fd`.
fn options(fd: c_int, bound: bool) -> HoldOptions {
    let int = |name| syscall::getsockopt_int(fd, libc::SOL_SOCKET, name).unwrap_or(0);
    HoldOptions {
        mark: int(libc::SO_MARK) as u32,
        device: syscall::bound_device(fd),
        reuse: int(libc::SO_REUSEADDR) != 0,
        reuse_port: int(libc::SO_REUSEPORT) != 0,
        port_range: 0,
        shadow: bound.then_some(fd),
    }
}

impl Holders {
    pub(crate) fn new(socket: &PacketSocket, devices: impl IntoIterator<Item = String>) -> Self {
        Self {
            way_in: Target::Socket(socket.shared_fd().as_raw_fd()),
            filter: PortFilter::new(false),
            kernel: KernelHolders::new(devices),
            tuples: HashMap::new(),
            listening: HashMap::new(),
            descriptors: 0,
            spared: 0,
        }
    }

    /// Where the kernel is silent.
    pub(crate) fn silent_ports(&self) -> SilentPorts {
        self.kernel.silent_ports()
    }

    /// Devices came or went.
    pub(crate) fn devices_changed(&mut self, devices: impl IntoIterator<Item = String>) {
        // A device on which no silent listener could be had answers RST; the connection there ends as it would for a
        // program that was killed.
        let _ = self.kernel.devices_changed(devices, &[]);
    }

    /// Frames come in there: so does the filter go there.
    pub(crate) fn filter_to(&mut self, way_in: Target) -> Result<(), Errno> {
        self.filter.attach(way_in)?;
        self.way_in = way_in;
        Ok(())
    }

    /// What the filter was given to goes by another number.
    pub(crate) fn filter_is_at(&mut self, way_in: Target) {
        self.way_in = way_in;
    }

    /// Where the filter decides.
    pub(crate) fn way_in(&self) -> Target {
        self.way_in
    }

    fn add_port(&mut self, local: SocketAddr) -> Result<(), Errno> {
        let (port, addr) = filter_key(local);
        if self.filter.add(port, addr) {
            self.filter.attach(self.way_in)?;
        }
        Ok(())
    }

    fn remove_port(&mut self, local: SocketAddr) {
        let (port, addr) = filter_key(local);
        if self.filter.remove(port, addr) {
            // A filter that stays lets frames in that nobody wants: they are dropped behind it.
            let _ = self.filter.attach(self.way_in);
        }
    }

    /// Makes the kernel silent at `local`, to which the program's descriptor `fd` is bound, but for clients on this host;
    /// with `v6` it serves IPv6 clients by itself.
    ///
    /// # Errors
    /// EADDRINUSE where another socket listens; what the kernel says to a filter.
    pub fn listen(
        &mut self,
        local: SocketAddr,
        fd: c_int,
        v6: bool,
        backlog: c_int,
    ) -> Result<Listener, Errno> {
        let options = options(fd, true);
        let holder = self.kernel.hold_listener(local, backlog, &options)?;
        let v6 = if v6 && local.ip().is_unspecified() {
            let v6 = syscall::lend_reuse(fd, || syscall::v6_listener(local.port(), backlog))?;
            let both = Epoll::new()?;
            both.add(holder.fd(), libc::EPOLLIN, 0)?;
            both.add(v6.as_raw_fd(), libc::EPOLLIN, 0)?;
            Some((v6, both))
        } else {
            None
        };
        self.add_port(local)?;
        *self.listening.entry(local.port()).or_default() += 1;
        Ok(Listener {
            local,
            holder,
            v6,
            options,
        })
    }

    /// The program's own socket `fd` listens in the place of `listener`, without a moment in which nobody does. Its
    /// connections, and what came in and is `unaccepted`, get holders of their own.
    ///
    /// # Errors
    /// EPERM where they cannot have any; EADDRINUSE where others on the port do not allow it. The listener stays.
    pub(crate) fn succeed(
        &mut self,
        listener: Listener,
        unaccepted: &[Tuple],
        fd: c_int,
        backlog: c_int,
    ) -> Result<(), (Listener, Errno)> {
        for tuple in unaccepted {
            self.accepted(*tuple, &listener);
        }
        let done = if !self.part(&listener, true) {
            Err(Errno::EPERM)
        } else {
            if let Some((v6, _)) = &listener.v6 {
                let v6 = v6.as_raw_fd();
                let _ = syscall::setsockopt(v6, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32);
            }
            listener.holder.succeed(fd, backlog)
        };
        match done {
            Ok(()) => {
                let local = listener.local;
                self.forget(listener);
                self.kernel.close_group(local);
                Ok(())
            }
            Err(e) => {
                for tuple in unaccepted {
                    self.release(tuple);
                }
                Err((listener, e))
            }
        }
    }

    /// Connections of `listener` get holders of their own, so that the port can be bound again. False where some go on
    /// sharing the listener's, without CAP_NET_ADMIN. `reuse`: they let another socket bind there.
    pub fn part(&mut self, listener: &Listener, reuse: bool) -> bool {
        let local = listener.local;
        let own = HoldOptions {
            shadow: None,
            reuse,
            ..listener.options.clone()
        };
        for (tuple, Held { holder, .. }) in &mut self.tuples {
            if tuple.local.port() == local.port() {
                let shared = !holder.takes_descriptors();
                let _ = self.kernel.convert(holder, tuple.remote, &own);
                self.descriptors += usize::from(shared && holder.takes_descriptors());
            }
        }
        !listener.holder.is_shared()
    }

    /// The listener closes. What goes on sharing its holder keeps the port held.
    pub fn unlisten(&mut self, listener: Listener) {
        self.part(&listener, listener.options.reuse);
        self.forget(listener);
    }

    fn forget(&mut self, listener: Listener) {
        let local = listener.local;
        self.remove_port(local);
        if let Some(n) = self.listening.get_mut(&local.port()) {
            *n -= 1;
            if *n == 0 {
                self.listening.remove(&local.port());
            }
        }
    }

    /// Has `bind` bind `fd`, which met EADDRINUSE at `port`, where it is only holders of connections that the kernel takes
    /// for listeners there. Linux allows it when every socket has SO_REUSEADDR.
    ///
    /// # Errors
    /// EADDRINUSE where Linux would refuse it as well; what else bind(2) says.
    pub fn bind_over(
        &self,
        fd: c_int,
        port: u16,
        bind: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let reuse = syscall::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR) == Ok(1);
        let of_port = self.tuples.iter().filter(|(t, _)| t.local.port() == port);
        let held = of_port.map(|(_, held)| held.reuse).reduce(|a, b| a && b);
        if !reuse || held != Some(true) || self.listening.contains_key(&port) {
            return Err(Errno::EADDRINUSE);
        }
        self.kernel.beside(fd, port, bind)
    }

    /// Unbinds `fd` from `port`, which its connections may go on holding.
    ///
    /// # Errors
    /// EADDRINUSE where others on the port do not allow it; it stays bound.
    pub fn unbind(&self, fd: c_int, port: u16) -> Result<(), Errno> {
        match holder::unbind(fd) {
            Err(Errno::EADDRINUSE) => self.kernel.beside(fd, port, || holder::unbind(fd)),
            done => done,
        }
    }

    /// Makes the kernel silent to `remote`, before the first frame leaves. `local` may lack a port, which is then chosen as
    /// for connect(2); returns the local name.
    ///
    /// # Errors
    /// EADDRNOTAVAIL where the four-tuple is taken or no port is free; what else connect(2) says.
    pub fn connect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        options: &HoldOptions,
    ) -> Result<SocketAddr, Errno> {
        let holder = self.kernel.hold_connection(local, remote, options)?;
        let local = holder.local();
        self.add_port(local)?;
        self.descriptors += usize::from(holder.takes_descriptors());
        let held = Held {
            holder,
            reuse: options.reuse,
        };
        let before = self.tuples.insert(Tuple { local, remote }, held);
        debug_assert!(before.is_none(), "the kernel holds a four-tuple once");
        Ok(local)
    }

    /// Before a connect: lets the oldest TIME_WAIT remnants go when they keep too many descriptors from the program.
    pub fn spare_descriptors(&mut self, engine: &mut Stack) {
        let share = usize::try_from(syscall::nofile_limit()).unwrap_or(usize::MAX) / TIMEWAIT_SHARE;
        if self.descriptors < share {
            self.spared = 0;
        // Not at each connect while it is living connections that have them.
        } else if self.descriptors >= self.spared + share / TIMEWAIT_SHARE {
            engine.end_timewaits(share / 2, |tuple| {
                self.tuples
                    .get(tuple)
                    .is_some_and(|held| held.holder.takes_descriptors())
            });
            engine.take_released(|tuple| self.release(&tuple));
            self.spared = self.descriptors;
        }
    }

    /// A connection came in by `listener`.
    pub fn accepted(&mut self, tuple: Tuple, listener: &Listener) {
        // The filter covers the port of the listener, on every address that it had.
        if self.add_port(tuple.local).is_ok() {
            let held = Held {
                holder: listener.holder.share(tuple.local),
                reuse: listener.options.reuse,
            };
            self.tuples.insert(tuple, held);
        }
    }

    /// True when connections of a listener that is closed go on sharing its holder, which nobody else can have beside.
    pub(crate) fn keep_a_servers_port(&self) -> bool {
        self.tuples
            .values()
            .any(|held| !held.holder.takes_descriptors())
    }

    /// The engine is done with a connection.
    pub fn release(&mut self, tuple: &Tuple) {
        if let Some(Held { holder, .. }) = self.tuples.remove(tuple) {
            self.descriptors -= usize::from(holder.takes_descriptors());
            self.remove_port(tuple.local);
        }
    }
}

fn filter_key(local: SocketAddr) -> (u16, Option<Ipv4Addr>) {
    match local.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() => (local.port(), Some(ip)),
        _ => (local.port(), None),
    }
}
