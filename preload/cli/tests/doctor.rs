//! `sidewire doctor` in namespaces of its own.

use std::process::Command;

/// Runs `setup` in a fresh user and network namespace, then the doctor with a
/// library that does nothing. Gives what it printed and whether it found no problem.
fn doctor(setup: &str) -> (String, bool) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "printf 'int sidewire_version;' | gcc -x c -shared -fPIC -o \"$SIDEWIRE_LIBRARY\" -
        {setup}\nexec \"$SIDEWIRE\" doctor"
    );
    let output = Command::new("unshare")
        .args(["-Urn", "sh", "-ec", &script])
        .env("SIDEWIRE", env!("CARGO_BIN_EXE_sidewire"))
        .env("SIDEWIRE_LIBRARY", dir.path().join("lib.so"))
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.is_empty(), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.success())
}

/// A link to a neighbour that is up.
const LINK: &str = "PATH=$PATH:/usr/sbin:/sbin
    ip link add near type veth peer name far
    ip link set near up; ip link set far up";

/// The finding that mentions `what`, with its remedy.
fn finding<'a>(text: &'a str, what: &str) -> (&'a str, &'a str) {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.contains(what))
        .unwrap_or_else(|| panic!("{what:?} is not in\n{text}"));
    let remedy = lines.get(at + 1).copied().unwrap_or_default();
    (
        lines[at],
        remedy.trim_start().strip_prefix("-> ").unwrap_or_default(),
    )
}

#[test]
fn a_good_link_without_rules_is_fine() {
    let (text, fine) = doctor(LINK);
    assert!(fine, "{text}");
    for what in [
        "kernel ",
        "CAP_NET_RAW",
        "CAP_NET_ADMIN",
        "near: MTU 1500",
        "nftables",
        "xfrm",
    ] {
        let (line, _) = finding(&text, what);
        assert!(line.starts_with("ok "), "{line}");
    }
    assert!(text.contains("connections can be accelerated here; 0 problems"));
}

#[test]
fn without_a_device_or_the_capability_nothing_works() {
    let (text, fine) = doctor(":");
    assert!(!fine);
    let (line, _) = finding(&text, "no device");
    assert!(line.starts_with("problem "), "{line}");

    let (text, fine) = doctor(&format!(
        "{LINK}\nexec setpriv --bounding-set -net_raw,-net_admin --inh-caps -net_raw,-net_admin \
         --ambient-caps -all \"$SIDEWIRE\" doctor"
    ));
    assert!(!fine);
    let (line, remedy) = finding(&text, "CAP_NET_RAW is missing");
    assert!(line.starts_with("problem "), "{line}");
    assert!(remedy.contains("root"), "{remedy}");
    let (line, _) = finding(&text, "nftables: cannot be looked at");
    assert!(line.starts_with("note "), "{line}");
}

#[test]
fn offloads_mtu_and_sysctls_come_with_the_command() {
    let (text, fine) = doctor(&format!(
        "{LINK}
        ethtool -K near tso off tx off >/dev/null
        ip link set far mtu 1000
        echo 0 >/proc/sys/net/ipv4/tcp_sack"
    ));
    assert!(fine, "{text}");
    let (line, remedy) = finding(&text, "near: MTU 1500");
    assert!(
        line.starts_with("warning ") && line.contains("tx, tso off"),
        "{line}"
    );
    assert!(
        remedy.starts_with("ethtool -K near tx on tso on"),
        "{remedy}"
    );
    let (_, remedy) = finding(&text, "far: an MTU of 1000");
    assert!(remedy.starts_with("ip link set far mtu 1500"), "{remedy}");
    let (_, remedy) = finding(&text, "tcp_sack = 0");
    assert_eq!(remedy, "sysctl -w net.ipv4.tcp_sack=1");
}

#[test]
fn rules_that_are_passed_by_are_named() {
    let (text, fine) = doctor(&format!(
        "{LINK}
        nft 'add table inet guard
             add chain inet guard in {{ type filter hook input priority 0; policy drop; }}
             add chain inet guard quiet {{ type filter hook output priority 0; }}
             add chain inet guard called
             add rule inet guard called counter
             add table ip masks
             add chain ip masks out {{ type nat hook postrouting priority 100; }}
             add rule ip masks out masquerade
             add table netdev door
             add chain netdev door in {{ type filter hook ingress device near priority 0; }}
             add rule netdev door in counter'
        ip xfrm policy add dir out src 10.0.0.0/8 dst 10.0.0.0/8 \
            tmpl src 10.0.0.1 dst 10.0.0.2 proto esp mode tunnel"
    ));
    assert!(fine, "{text}");
    let (line, remedy) = finding(&text, "firewall:");
    assert!(line.starts_with("warning "), "{line}");
    assert!(
        line.ends_with("pass by inet guard in (input: 0 rules, policy drop)"),
        "{line}"
    );
    assert!(remedy.contains("veth"), "{remedy}");
    let (line, _) = finding(&text, "NAT:");
    assert!(
        line.ends_with("ip masks out (postrouting: 1 rule)"),
        "{line}"
    );
    let (line, _) = finding(&text, "IPsec:");
    assert!(line.contains("1 policy out and 0 in"), "{line}");
}
