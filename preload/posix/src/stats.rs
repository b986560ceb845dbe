//! Counters of this process, to whoever asks, and as JSON to `SIDEWIRE_STATS` when it ends; what only we know of a socket.

use core::ffi::c_int;
use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use sidewire_link::file_limit;
use sidewire_link::frame::FrameSource;
use syscalls::{Errno, Sysno, syscall};

use crate::calls::socket;
use crate::net::LinkStats;
use crate::{config, fdtable, process, signals, stack};

/// The counters of every stack of this process, summed: the engine's, and the link's.
fn totals() -> (BTreeMap<&'static str, u64>, LinkStats) {
    let mut mib = BTreeMap::new();
    let mut link = LinkStats::default();
    stack::for_each(|stack| {
        stack.with(|inner| {
            for (name, value) in inner.engine.mib().iter() {
                *mib.entry(name).or_insert(0) += value;
            }
            // The kernel's count; asking sets it back.
            inner.net.stats.rx_drops += u64::from(inner.source.take_drops());
            let stats = inner.net.stats;
            link.tx_frames += stats.tx_frames;
            link.tx_bytes += stats.tx_bytes;
            link.rx_frames += stats.rx_frames;
            link.rx_drops += stats.rx_drops;
            link.rx_direct_bytes += inner.deferred.as_ref().map_or(0, |d| d.bytes_read());
        });
    });
    (mib, link)
}

/// Calls `f` for every counter: what a test asks for first, then each under its Linux name. No lock is held.
pub fn for_each(mut f: impl FnMut(&'static str, u64)) {
    let (mib, link) = totals();
    let (engine, kernel) = socket::counts();
    let first = [
        ("connections_engine", engine),
        ("connections_kernel", kernel.iter().sum()),
        ("tx_frames", link.tx_frames),
        ("tx_bytes", link.tx_bytes),
        ("rx_frames", link.rx_frames),
        ("rx_drops", link.rx_drops),
        ("rx_direct_bytes", link.rx_direct_bytes),
        ("retransmits", mib.get("RetransSegs").copied().unwrap_or(0)),
    ];
    first
        .into_iter()
        .chain(mib)
        .for_each(|(name, value)| f(name, value));
}

/// The counters as one JSON object.
#[must_use]
pub fn json() -> String {
    let mut text = String::new();
    for_each(|name, value| {
        let before = if text.is_empty() { '{' } else { ',' };
        let _ = write!(text, "{before}\"{name}\":{value}");
    });
    text.push_str("}\n");
    text
}

/// What no socket option tells of a socket on the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketStats {
    /// Device of its route; 0 while there is none.
    pub ifindex: u32,
    /// Buffers that were never sent.
    pub write_queue: u32,
    /// Buffers that were sent and are not acknowledged.
    pub rtx_queue: u32,
    /// Segments that wait for others before them.
    pub ofo_queue: u32,
    /// Sends whose memory is still the caller's.
    pub zerocopy: u32,
    /// The packet socket is full.
    pub tx_blocked: bool,
}

/// [`SocketStats`] of a descriptor; `None` when the engine does not carry it.
#[must_use]
pub fn of_socket(fd: c_int) -> Option<SocketStats> {
    let file = fdtable::get(fd)?;
    let _inside = signals::enter();
    file.stack().with(|inner| {
        let sk = inner.engine.sock(file.id())?;
        Some(SocketStats {
            ifindex: sk.dst.as_ref().map_or(0, |dst| dst.oif),
            write_queue: sk.write_queue.len() as u32,
            rtx_queue: sk.rtx_queue.len() as u32,
            ofo_queue: sk.ofo_queue.len() as u32,
            zerocopy: sk.zerocopy.live() as u32,
            tx_blocked: sk.tx_blocked,
        })
    })
}

fn write_all(file: &File, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        // SAFETY: a live slice.
        let write =
            || unsafe { syscall!(Sysno::write, file.as_raw_fd(), rest.as_ptr(), rest.len()) };
        match file_limit::within(write) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Writes the counters where the settings say, if they say so and this process has used TCP.
pub fn write() {
    let Some(file) = config::loaded().and_then(|c| c.stats.as_deref()) else {
        return;
    };
    if !process::took_part() {
        return;
    }
    let file = config::of_process(file);
    let written = File::create(&file).and_then(|to| write_all(&to, json().as_bytes()));
    if let Err(e) = written {
        crate::warning!("SIDEWIRE_STATS={}: {e}", file.display());
    }
}
