//! Two hosts on one link.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::counters::{TCP_LISTEN, kernel_sockets};
use crate::netns::Netns;
use crate::patience::until;

/// The address of [`Lab::near`] (TEST-NET-1 of RFC 5737).
pub const NEAR: &str = "192.0.2.1";
/// The address of [`Lab::far`].
pub const FAR: &str = "192.0.2.2";
/// The addresses of both.
pub const SUBNET: &str = "192.0.2.0/24";
/// The name of the link's device in both namespaces.
pub const DEVICE: &str = "sw0";

/// Whether the devices cut, join and checksum segments for the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// As veth comes: TSO, GSO, GRO and checksums by the device.
    On,
    /// None of them: every frame as small as the MTU, checksums in software.
    Off,
}

/// The shape of the link.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Bytes of an IP packet, 68 to 65535.
    pub mtu: u32,
    /// Of both devices.
    pub offloads: Offloads,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            mtu: 1500,
            offloads: Offloads::On,
        }
    }
}

/// Two namespaces, the link between them, and a directory for their files. All
/// of it goes when this is dropped.
pub struct Lab {
    // Dropped in this order: the directory is the last.
    /// The host under test.
    pub near: Netns,
    /// Its peer: always the kernel's TCP.
    pub far: Netns,
    dir: TempDir,
}

impl Lab {
    /// Two hosts on a link of shape `link`.
    ///
    /// # Errors
    /// When namespaces or veth are not to be had.
    pub fn new(link: Link) -> Result<Self> {
        Self::from(Netns::new()?, link)
    }

    /// The same with an ordinary user's rights: [`Netns::unprivileged`].
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn unprivileged(link: Link) -> Result<Self> {
        Self::from(Netns::unprivileged()?, link)
    }

    fn from(near: Netns, link: Link) -> Result<Self> {
        let far = near.sibling()?;
        let lab = Lab {
            near,
            far,
            dir: tempfile::Builder::new()
                .prefix("sidewire-lab-")
                .tempdir()
                .context("a directory for the lab")?,
        };
        lab.near.run(
            "ip",
            [
                "link",
                "add",
                DEVICE,
                "type",
                "veth",
                "peer",
                "name",
                DEVICE,
                "netns",
                &lab.far.id().to_string(),
            ],
        )?;
        for (netns, address) in [(&lab.near, NEAR), (&lab.far, FAR)] {
            let address = format!("{address}/24");
            netns.run("ip", ["address", "add", &address, "dev", DEVICE])?;
        }
        lab.shape(link)?;
        for netns in [&lab.near, &lab.far] {
            netns.run("ip", ["link", "set", DEVICE, "up"])?;
        }
        // The host's own choice of congestion control would come along into the
        // namespaces, and an ordinary namespace may not set one that the host
        // does not list as allowed: so the route asks for cubic.
        for (netns, address) in [(&lab.near, NEAR), (&lab.far, FAR)] {
            let route = ["route", "replace", SUBNET, "dev", DEVICE];
            let how = [
                "proto", "kernel", "scope", "link", "src", address, "congctl", "cubic",
            ];
            netns.run("ip", [route.as_slice(), &how].concat())?;
        }
        until("the link to come up", || {
            let state = lab.near.run("ip", ["-br", "link", "show", DEVICE])?;
            Ok(state.contains("LOWER_UP").then_some(()))
        })?;
        Ok(lab)
    }

    /// Gives the link another shape.
    ///
    /// # Errors
    /// When a device refuses it.
    pub fn shape(&self, link: Link) -> Result<()> {
        let on_off = match link.offloads {
            Offloads::On => "on",
            Offloads::Off => "off",
        };
        for netns in [&self.near, &self.far] {
            netns.run("ip", ["link", "set", DEVICE, "mtu", &link.mtu.to_string()])?;
            netns.run(
                "ethtool",
                [
                    "-K", DEVICE, "tx", on_off, "tso", on_off, "gso", on_off, "gro", on_off,
                ],
            )?;
        }
        Ok(())
    }

    /// Has `netns` lose one in `every` of the frames that it sends, the first of
    /// them after `every` others: the same frames in each run. Its sender is told,
    /// as by a full queue.
    ///
    /// # Errors
    /// When nftables or its egress hook is missing (Linux 5.16).
    pub fn lose_one_in(&self, netns: &Netns, every: u32) -> Result<()> {
        Self::lose(netns, "egress", every)
    }

    /// Has one in `every` of the frames to `netns` lost on the way, unknown to the
    /// sender.
    ///
    /// # Errors
    /// When nftables or its ingress hook is missing.
    pub fn lose_one_in_on_the_way_to(&self, netns: &Netns, every: u32) -> Result<()> {
        Self::lose(netns, "ingress", every)
    }

    /// Has every IP packet to `netns` of more than `bytes` lost, and nobody told: a path MTU black hole.
    ///
    /// # Errors
    /// When nftables or its ingress hook is missing.
    pub fn swallow_above_on_the_way_to(&self, netns: &Netns, bytes: u32) -> Result<()> {
        Self::drop_where(netns, "ingress", &format!("ip length > {bytes}"))
    }

    fn lose(netns: &Netns, hook: &str, every: u32) -> Result<()> {
        let one = format!("numgen inc mod {every} {}", every - 1);
        Self::drop_where(netns, hook, &one)
    }

    fn drop_where(netns: &Netns, hook: &str, which: &str) -> Result<()> {
        let rules = format!(
            "table netdev lab {{ chain {hook} {{ type filter hook {hook} device {DEVICE} priority 0; \
             {which} counter drop; }}; }}"
        );
        netns.run("nft", [rules.as_str()])?;
        Ok(())
    }

    /// Has one in `every` of the frames that `netns` sends wait in a slow queue of `rate` (in tc's notation), so that others
    /// overtake it.
    ///
    /// # Errors
    /// When the host lacks hierarchical token buckets (sch_htb), nftables or its egress hook.
    pub fn overtake_one_in(&self, netns: &Netns, every: u32, rate: &str) -> Result<()> {
        let tc = |what: &str| netns.run("tc", what.split_whitespace()).map(drop);
        tc(&format!(
            "qdisc add dev {DEVICE} root handle 1: htb default 1 r2q 100"
        ))?;
        for (class, rate) in [("1:1", "10gbit"), ("1:2", rate)] {
            tc(&format!(
                "class add dev {DEVICE} parent 1: classid {class} htb rate {rate} quantum 3000"
            ))?;
        }
        let rules = format!(
            "table netdev lab {{ chain egress {{ type filter hook egress device {DEVICE} priority 0; \
             numgen inc mod {every} 0 meta priority set 0x00010002; }}; }}"
        );
        netns.run("nft", [rules.as_str()])?;
        Ok(())
    }

    /// Lets `netns` send no faster than `rate`, in tc's notation (`16mbit`).
    ///
    /// # Errors
    /// When the host lacks the token bucket filter (sch_tbf).
    pub fn slow_down(&self, netns: &Netns, rate: &str) -> Result<()> {
        let shape = [
            "root", "tbf", "rate", rate, "burst", "128kb", "latency", "50ms",
        ];
        let replace = ["qdisc", "replace", "dev", DEVICE];
        netns.run("tc", [replace.as_slice(), &shape].concat())?;
        Ok(())
    }

    /// Ends [`Lab::slow_down`].
    ///
    /// # Errors
    /// When it was not slowed down.
    pub fn full_speed(&self, netns: &Netns) -> Result<()> {
        netns.run("tc", ["qdisc", "delete", "dev", DEVICE, "root"])?;
        Ok(())
    }

    /// A path in the lab's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lab's own directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until something listens on `port` of `netns`.
    ///
    /// # Errors
    /// When nothing does in time.
    pub fn wait_for_listener(&self, netns: &Netns, port: u16) -> Result<()> {
        until(&format!("a listener on port {port}"), || {
            let sockets = kernel_sockets(netns)?;
            let found = sockets
                .iter()
                .any(|s| s.state == TCP_LISTEN && s.local_port == port);
            Ok(found.then_some(()))
        })
    }
}
