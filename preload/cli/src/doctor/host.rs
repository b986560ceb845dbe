//! The kernel, the capabilities, the library, the packet socket.

use std::{fs, io};

use rustix::thread::{CapabilitySet, capabilities};
use sidewire_link::Errno;
use sidewire_link::packet::{PACKET_BUFFER, PacketSocket, RingConfig};

use super::{Finding, Severity};
use crate::{installation, launcher};

/// Oldest kernel that the engine is made for: major, minor.
const OLDEST_KERNEL: (u32, u32) = (5, 16);

pub(super) fn findings() -> Vec<Finding> {
    let uname = rustix::system::uname();
    let mut findings = vec![kernel(&uname.release().to_string_lossy()), library()];
    match PacketSocket::open() {
        Ok(socket) => {
            findings.push(Finding::ok("CAP_NET_RAW: a packet socket can be opened"));
            findings.push(net_admin());
            findings.push(receive_buffer(socket.rcvbuf()));
        }
        Err(Errno::EPERM) if launcher_is_ours() => {
            findings.push(Finding::ok(
                "no CAP_NET_RAW, and none needed: the launcher hands over packet sockets",
            ));
            findings.push(net_admin());
        }
        Err(error) => findings.push(no_packet_socket(error, &UserNamespaces::read())),
    }
    findings
}

/// Whether `sidewire run` has a launcher to go through.
fn launcher_is_ours() -> bool {
    installation::library().is_ok_and(|library| launcher::find(&library).is_some())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Finding {
    let what = format!("kernel {release}");
    match version(release) {
        Some(version) if version < OLDEST_KERNEL => Finding::new(
            Severity::Problem,
            what,
            format!("use Linux {}.{} or later", OLDEST_KERNEL.0, OLDEST_KERNEL.1),
        ),
        _ => Finding::ok(what),
    }
}

fn library() -> Finding {
    match installation::library() {
        Ok(path) => Finding::ok(format!("library {}", path.display())),
        Err(message) => Finding::new(
            Severity::Problem,
            message,
            "install the package again, or set SIDEWIRE_LIBRARY",
        ),
    }
}

fn net_admin() -> Finding {
    if capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN)) {
        return Finding::ok("CAP_NET_ADMIN: the kernel is kept silent port by port");
    }
    Finding::new(
        Severity::Note,
        "no CAP_NET_ADMIN: listening sockets keep the kernel silent instead",
        "nothing needs to be done; the differences are in DEVIATIONS.md, \"Ports and the kernel's own TCP\"",
    )
}

/// `granted` as getsockopt tells it: twice what was asked for, and is charged with overhead.
fn receive_buffer(granted: i32) -> Finding {
    let mib = |bytes: i32| f64::from(bytes) / f64::from(1 << 20);
    let what = format!(
        "receive buffer of the packet socket: {:.1} of {:.0} MiB",
        mib(granted / 2),
        mib(PACKET_BUFFER)
    );
    let remedy =
        format!("sysctl -w net.core.rmem_max={PACKET_BUFFER}, in the host's own network namespace");
    if granted / 2 >= PACKET_BUFFER {
        Finding::ok(what)
    } else if RingConfig::for_rcvbuf(granted) == RingConfig::SMALL_SLOTS {
        Finding::new(
            Severity::Note,
            format!("{what}; bursts beyond that are lost and retransmitted"),
            remedy,
        )
    } else {
        Finding::new(
            Severity::Warning,
            format!("{what}; a slower kind of ring is used, as that would lose large frames"),
            remedy,
        )
    }
}

/// What the host says about user namespaces for everybody.
struct UserNamespaces {
    max: Option<u64>,
    clone: Option<u64>,
    apparmor: Option<u64>,
}

impl UserNamespaces {
    fn read() -> Self {
        let number = |name: &str| {
            fs::read_to_string(format!("/proc/sys/{name}"))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        UserNamespaces {
            max: number("user/max_user_namespaces"),
            clone: number("kernel/unprivileged_userns_clone"),
            apparmor: number("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    fn allowed(&self) -> bool {
        self.max != Some(0) && self.clone != Some(0) && self.apparmor.unwrap_or(0) == 0
    }
}

/// Why no packet socket can be opened, with the remedy.
pub(crate) fn missing_packet_socket(error: Errno) -> String {
    let finding = no_packet_socket(error, &UserNamespaces::read());
    let remedy = finding.remedy.unwrap_or_default();
    format!("{}; {remedy}", finding.what)
}

fn no_packet_socket(error: Errno, namespaces: &UserNamespaces) -> Finding {
    if error == Errno::EPERM || error == Errno::EACCES {
        let mut remedy = String::from(
            "run as root, or as a member of the group sidewire (sidewire(7), \"Ordinary users\")",
        );
        if namespaces.allowed() {
            remedy.push_str(", or in a network of one's own: pasta --config-net (package passt)");
        }
        return Finding::new(
            Severity::Problem,
            "CAP_NET_RAW is missing: frames can be neither sent nor received",
            remedy,
        );
    }
    let remedy = if error == Errno::EAFNOSUPPORT {
        "the kernel has no packet sockets: modprobe af_packet, or a kernel with CONFIG_PACKET"
    } else {
        "see packet(7) for this error"
    };
    Finding::new(
        Severity::Problem,
        format!("no packet socket: {}", io::Error::from(error)),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_older_than_the_oldest_are_a_problem() {
        assert_eq!(kernel("5.15.0-91-generic").severity, Severity::Problem);
        assert_eq!(kernel("4.19.0").severity, Severity::Problem);
        for release in ["5.16.0", "6.1.0-18-amd64", "6.18.44+", "7.0-rc1"] {
            assert_eq!(kernel(release).severity, Severity::Ok, "{release}");
        }
    }

    #[test]
    fn the_granted_buffer_decides() {
        assert_eq!(receive_buffer(2 * PACKET_BUFFER).severity, Severity::Ok);
        assert_eq!(receive_buffer(2 * (8 << 20)).severity, Severity::Note);
        let small = receive_buffer(2 * 212_992);
        assert_eq!(small.severity, Severity::Warning);
        assert!(small.remedy.unwrap().contains("net.core.rmem_max=33554432"));
    }

    #[test]
    fn remedies_fit_the_host() {
        let allowed = UserNamespaces {
            max: Some(1000),
            clone: None,
            apparmor: None,
        };
        let remedy = |namespaces: &UserNamespaces| {
            no_packet_socket(Errno::EPERM, namespaces).remedy.unwrap()
        };
        assert!(remedy(&allowed).contains("pasta"));
        let restricted = UserNamespaces {
            apparmor: Some(1),
            ..allowed
        };
        assert!(!remedy(&restricted).contains("pasta"));
        let missing = no_packet_socket(Errno::EAFNOSUPPORT, &restricted);
        assert!(missing.remedy.unwrap().contains("af_packet"));
    }
}
