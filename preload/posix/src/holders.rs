//! What keeps the kernel silent on our ports: which frames reach us, and which holder stands for which address.

use core::net::SocketAddr;
use std::collections::HashMap;
use std::sync::Arc;

use sidewire_engine::net::Tuple;
use sidewire_link::Errno;
use sidewire_link::fd::Fd;
use sidewire_link::packet::PacketSocket;
use sidewire_link::packet::filter::PortFilter;
use std::os::fd::AsRawFd;

/// What a file has reserved with the kernel.
#[derive(Debug, Default)]
pub struct Port {
    /// The shadow is bound.
    pub bound: bool,
    /// The listening port, while the file listens.
    pub listening: Option<SocketAddr>,
}

impl Port {
    /// Nothing reserved.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bound: false,
            listening: None,
        }
    }
}

/// The holders of a stack.
pub struct Holders {
    socket: Arc<Fd>,
    filter: PortFilter,
    tuples: HashMap<Tuple, ()>,
}

impl Holders {
    pub(crate) fn new(socket: &PacketSocket) -> Self {
        Self {
            socket: socket.shared_fd(),
            filter: PortFilter::new(false),
            tuples: HashMap::new(),
        }
    }

    fn add_port(&mut self, local: SocketAddr) -> Result<(), Errno> {
        let (port, addr) = filter_key(local);
        if self.filter.add(port, addr) {
            self.filter.attach(self.socket.as_raw_fd())?;
        }
        Ok(())
    }

    fn remove_port(&mut self, local: SocketAddr) {
        let (port, addr) = filter_key(local);
        if self.filter.remove(port, addr) {
            // A filter that stays lets frames in that nobody wants: they are dropped behind it.
            let _ = self.filter.attach(self.socket.as_raw_fd());
        }
    }

    /// A listener stands at `local`.
    ///
    /// # Errors
    /// What the kernel says to the filter.
    pub fn listen(&mut self, local: SocketAddr, fd: i32) -> Result<(), Errno> {
        let _ = fd;
        self.add_port(local)
    }

    /// It is gone.
    pub fn unlisten(&mut self, local: SocketAddr) {
        self.remove_port(local);
    }

    /// A connection begins. Before the first frame leaves.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(&mut self, tuple: Tuple) -> Result<(), Errno> {
        self.add_port(tuple.local)?;
        self.tuples.insert(tuple, ());
        Ok(())
    }

    /// A connection was accepted from a listener.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn accepted(&mut self, tuple: Tuple) {
        let _ = self.connect(tuple);
    }

    /// The engine is done with a connection.
    pub fn release(&mut self, tuple: &Tuple) {
        if self.tuples.remove(tuple).is_some() {
            self.remove_port(tuple.local);
        }
    }
}

fn filter_key(local: SocketAddr) -> (u16, Option<core::net::Ipv4Addr>) {
    match local {
        SocketAddr::V4(a) if !a.ip().is_unspecified() => (a.port(), Some(*a.ip())),
        a => (a.port(), None),
    }
}
