//! What the kernel's own TCP of a namespace did: the proof, from outside, of
//! who carried a connection.

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::library::Stats;
use crate::netns::Netns;

/// Counters of one namespace's kernel TCP (`/proc/net/snmp`, RFC 4022 names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTcp {
    /// Segments received, good or bad.
    pub in_segs: u64,
    /// Segments sent, without pure retransmissions.
    pub out_segs: u64,
    /// Segments sent again.
    pub retrans_segs: u64,
    /// RST segments sent.
    pub out_rsts: u64,
}

impl KernelTcp {
    /// Reads them.
    ///
    /// # Errors
    /// When the file is not as Linux writes it.
    pub fn of(netns: &Netns) -> Result<Self> {
        parse(&netns.proc_net("snmp")?)
    }

    /// What came on top since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        KernelTcp {
            in_segs: self.in_segs - before.in_segs,
            out_segs: self.out_segs - before.out_segs,
            retrans_segs: self.retrans_segs - before.retrans_segs,
            out_rsts: self.out_rsts - before.out_rsts,
        }
    }
}

impl KernelTcp {
    /// Every segment that it sent was an RST (Linux counts those in both).
    pub fn sent_only_resets(&self) -> bool {
        self.out_segs == self.out_rsts
    }
}

/// Who carried what between two readings of a lab's counters.
#[derive(Clone, Debug)]
pub struct Carried {
    /// What the shim counted, under the shim.
    pub stats: Option<Stats>,
    /// The near host's kernel TCP.
    pub near: KernelTcp,
    /// The far host's.
    pub far: KernelTcp,
}

impl Carried {
    /// Segments sent again, by whoever carried them, at both ends.
    pub fn retransmits(&self) -> u64 {
        let engine = self.stats.as_ref().map_or(0, |s| s.retransmits);
        engine + self.near.retrans_segs + self.far.retrans_segs
    }

    /// That the engine carried `connections` of the near host's connections and
    /// the kernel none, to their end: the kernel's TCP has sent nothing.
    ///
    /// # Errors
    /// When the shim says otherwise, or when the near host's kernel TCP has sent a
    /// segment; also when nothing was under the shim.
    pub fn all_by_engine(&self, connections: u64) -> Result<()> {
        self.begun_by_engine(connections)?;
        // What comes in is counted by the kernel's TCP before its filters drop it:
        // only what it sends shows that it took part.
        ensure!(
            self.near.out_segs == 0 && self.near.out_rsts == 0,
            "the kernel's TCP took part: {:?}",
            self.near
        );
        Ok(())
    }

    /// The same for programs that end while their peer still sends: the kernel may have told it, by
    /// RST, that nobody is there any more, as it does for its own connections.
    ///
    /// # Errors
    /// When the shim says otherwise, or when the near host's kernel TCP has sent anything else.
    pub fn all_by_engine_but_late_resets(&self, connections: u64) -> Result<()> {
        self.begun_by_engine(connections)?;
        ensure!(
            self.near.sent_only_resets(),
            "the kernel's TCP took part: {:?}",
            self.near
        );
        Ok(())
    }

    /// The same for programs that end before their data has arrived: the rest may
    /// have been handed over to the kernel.
    ///
    /// # Errors
    /// When the shim says otherwise.
    pub fn begun_by_engine(&self, connections: u64) -> Result<()> {
        let stats = self.stats.as_ref().context("not under the shim")?;
        ensure!(
            stats.connections_engine == connections && stats.connections_kernel == 0,
            "{connections} connections should be the engine's: {stats:?}"
        );
        Ok(())
    }
}

/// The counters of both hosts at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    near: KernelTcp,
    far: KernelTcp,
}

impl Before {
    /// Takes them.
    ///
    /// # Errors
    /// As [`KernelTcp::of`].
    pub fn of(lab: &Lab) -> Result<Self> {
        Ok(Before {
            near: KernelTcp::of(&lab.near)?,
            far: KernelTcp::of(&lab.far)?,
        })
    }

    /// What was counted from there to now.
    ///
    /// # Errors
    /// As [`KernelTcp::of`].
    pub fn until_now(self, lab: &Lab, stats: Option<Stats>) -> Result<Carried> {
        Ok(Carried {
            stats,
            near: KernelTcp::of(&lab.near)?.since(self.near),
            far: KernelTcp::of(&lab.far)?.since(self.far),
        })
    }
}

fn parse(snmp: &str) -> Result<KernelTcp> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines
        .next()
        .zip(lines.next())
        .context("no Tcp lines in /proc/net/snmp")?;
    let get = |name: &str| -> Result<u64> {
        let (_, value) = names
            .split(' ')
            .zip(values.split(' '))
            .find(|(n, _)| *n == name)
            .with_context(|| format!("no {name} in /proc/net/snmp"))?;
        value.parse().with_context(|| format!("{name} = {value}"))
    };
    Ok(KernelTcp {
        in_segs: get("InSegs")?,
        out_segs: get("OutSegs")?,
        retrans_segs: get("RetransSegs")?,
        out_rsts: get("OutRsts")?,
    })
}

/// Linux's number of a TCP state in `/proc/net/tcp`: listening.
pub const TCP_LISTEN: u8 = 10;

/// One line of `/proc/net/tcp`.
#[derive(Clone, Copy, Debug)]
pub struct KernelSocket {
    /// Local port.
    pub local_port: u16,
    /// Remote port, 0 when not connected.
    pub remote_port: u16,
    /// Linux's state number.
    pub state: u8,
}

/// The kernel's TCP sockets of a namespace, both address families.
///
/// # Errors
/// When the file is not as Linux writes it.
pub fn kernel_sockets(netns: &Netns) -> Result<Vec<KernelSocket>> {
    let mut sockets = Vec::new();
    for file in ["tcp", "tcp6"] {
        // A kernel without IPv6 has no tcp6.
        let Ok(text) = netns.proc_net(file) else {
            continue;
        };
        for line in text.lines().skip(1) {
            sockets.push(parse_socket(line).with_context(|| line.to_owned())?);
        }
    }
    Ok(sockets)
}

fn parse_socket(line: &str) -> Option<KernelSocket> {
    let mut words = line.split_whitespace().skip(1);
    let mut port = || u16::from_str_radix(words.next()?.rsplit(':').next()?, 16).ok();
    let (local_port, remote_port) = (port()?, port()?);
    Some(KernelSocket {
        local_port,
        remote_port,
        state: u8::from_str_radix(words.next()?, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snmp_is_read_by_name() {
        let text =
            "Ip: A\nIp: 1\nTcp: RtoMin InSegs OutSegs RetransSegs OutRsts\nTcp: 200 7 8 9 1\n";
        let counters = parse(text).unwrap();
        assert_eq!((counters.in_segs, counters.out_segs), (7, 8));
        assert_eq!((counters.retrans_segs, counters.out_rsts), (9, 1));
        assert!(parse("Udp: A\n").is_err());
    }

    #[test]
    fn sockets_are_read() {
        let line = "   0: 0100007F:1451 00000000:0000 0A 00000000:00000000 00:00000000";
        let socket = parse_socket(line).unwrap();
        assert_eq!((socket.local_port, socket.remote_port), (5201, 0));
        assert_eq!(socket.state, TCP_LISTEN);
        assert!(parse_socket("rubbish").is_none());
    }
}
