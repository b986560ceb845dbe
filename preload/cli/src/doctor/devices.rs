//! The network devices: which can carry frames, and how well.

use sidewire_link::netlink::{DeviceInfo, LinkKind, Routes};

use super::{Finding, Severity};

/// Below it a device cannot carry IPv6, and headers weigh heavily (RFC 8200 §5).
const SMALL_MTU: u32 = 1280;

pub(super) fn findings() -> Vec<Finding> {
    match Routes::open() {
        Ok(routes) => {
            let mut devices: Vec<&DeviceInfo> = routes.devices().map(AsRef::as_ref).collect();
            devices.sort_by_key(|device| device.ifindex);
            judge(&devices)
        }
        Err(error) => vec![Finding::new(
            Severity::Problem,
            format!("the network devices cannot be listed: {error}"),
            "see netlink(7) for this error",
        )],
    }
}

/// Whether any device can carry frames to other hosts; `None` where the devices cannot be listed.
pub(crate) fn any_usable() -> Option<bool> {
    let routes = Routes::open().ok()?;
    Some(routes.devices().any(|device| is_usable(device)))
}

const MISSING: &str = "no device that is up leads to other hosts";

/// What is said where there is none, with the remedy.
pub(crate) fn missing() -> String {
    format!("{MISSING} (`sidewire doctor`); set one up (ip link set DEVICE up)")
}

fn is_usable(device: &DeviceInfo) -> bool {
    device.up && matches!(device.kind, LinkKind::Ether | LinkKind::None)
}

fn judge(devices: &[&DeviceInfo]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut usable = 0;
    for device in devices {
        let name = &device.name;
        match device.kind {
            LinkKind::Loopback => {}
            LinkKind::Other => findings.push(Finding::new(
                Severity::Note,
                format!(
                    "{name}: not an Ethernet-like device; the kernel carries connections over it"
                ),
                "nothing needs to be done",
            )),
            LinkKind::Ether | LinkKind::None if !is_usable(device) => findings.push(Finding::new(
                Severity::Note,
                format!("{name}: down, or without a carrier"),
                format!("ip link set {name} up, if it is to be used"),
            )),
            LinkKind::Ether | LinkKind::None => {
                usable += 1;
                findings.extend(offloads(device));
            }
        }
    }
    if usable == 0 {
        findings.push(Finding::new(
            Severity::Problem,
            MISSING,
            "set one up; connections within this host stay with the kernel in any case",
        ));
    }
    findings
}

fn offloads(device: &DeviceInfo) -> Vec<Finding> {
    let DeviceInfo {
        name,
        mtu,
        features,
        gso_max_size,
        ..
    } = device;
    let mut findings = Vec::new();
    let off: Vec<&str> = [
        ("sg", features.sg),
        ("tx", features.tx_csum),
        ("tso", features.tso),
    ]
    .into_iter()
    .filter_map(|(feature, on)| (!on).then_some(feature))
    .collect();
    let what = format!("{name}: MTU {mtu}, frames of up to {gso_max_size} bytes at a time");
    if off.is_empty() {
        findings.push(Finding::ok(what));
    } else {
        let switches: Vec<String> = off.iter().map(|feature| format!("{feature} on")).collect();
        findings.push(Finding::new(
            Severity::Warning,
            format!(
                "{what}; {} off: the kernel cuts or sums large frames on the CPU",
                off.join(", ")
            ),
            format!(
                "ethtool -K {name} {}, where the device has it",
                switches.join(" ")
            ),
        ));
    }
    if *mtu < SMALL_MTU {
        findings.push(Finding::new(
            Severity::Warning,
            format!("{name}: an MTU of {mtu} makes many small frames"),
            format!("ip link set {name} mtu 1500, where the link carries it"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidewire_link::netlink::Features;

    fn device(kind: LinkKind, up: bool) -> DeviceInfo {
        DeviceInfo {
            ifindex: 2,
            name: "eth0".to_owned(),
            mac: Default::default(),
            mtu: 1500,
            kind,
            up,
            gso_max_size: 65536,
            gso_max_segs: 65535,
            features: Features {
                sg: true,
                tso: true,
                tx_csum: true,
            },
            copies: false,
        }
    }

    fn worst(devices: &[&DeviceInfo]) -> Severity {
        judge(devices).iter().map(|f| f.severity).max().unwrap()
    }

    #[test]
    fn one_good_device_is_enough() {
        let good = device(LinkKind::Ether, true);
        assert_eq!(
            worst(&[&good, &device(LinkKind::Loopback, true)]),
            Severity::Ok
        );
        assert_eq!(
            worst(&[&good, &device(LinkKind::Other, true)]),
            Severity::Note
        );
        assert_eq!(worst(&[&device(LinkKind::Ether, false)]), Severity::Problem);
        assert_eq!(worst(&[]), Severity::Problem);
    }

    #[test]
    fn what_is_off_is_named() {
        let mut slow = device(LinkKind::Ether, true);
        slow.features.tso = false;
        slow.features.tx_csum = false;
        slow.mtu = 576;
        let findings = judge(&[&slow]);
        assert_eq!(findings.len(), 2);
        assert_eq!(
            findings[0].remedy.as_deref(),
            Some("ethtool -K eth0 tx on tso on, where the device has it")
        );
        assert!(findings[1].what.contains("576"));
    }
}
