//! The sysctls that the engine follows, where they cost speed or cannot be
//! followed.

use std::fs;

use sidewire_engine::cong::CongestionControl;

use super::{Finding, Severity};

/// The window that a long fat path needs: 1 Gbit/s over 30 ms.
const MODEST_WINDOW: u64 = 4 << 20;

pub(super) fn findings() -> Vec<Finding> {
    let findings = judge(&|name| {
        let path = format!("/proc/sys/net/{}", name.replace('.', "/"));
        Some(fs::read_to_string(path).ok()?.trim().to_owned())
    });
    if findings.is_empty() {
        vec![Finding::ok("sysctls: nothing slows TCP down")]
    } else {
        findings
    }
}

/// `read` gives the value of a setting below `net.`, if the kernel has it.
fn judge(read: &dyn Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, cost) in [
        (
            "ipv4.tcp_sack",
            "every loss but the first of a window costs a round trip",
        ),
        ("ipv4.tcp_window_scaling", "windows end at 64 KiB"),
        ("ipv4.tcp_timestamps", "round trips are measured less well"),
        (
            "ipv4.tcp_moderate_rcvbuf",
            "receive windows stay at tcp_rmem's default",
        ),
    ] {
        if read(name).as_deref() == Some("0") {
            findings.push(Finding::new(
                Severity::Warning,
                format!("net.{name} = 0, which the engine follows: {cost}"),
                format!("sysctl -w net.{name}=1"),
            ));
        }
    }
    for name in ["ipv4.tcp_rmem", "ipv4.tcp_wmem"] {
        let Some(value) = read(name) else { continue };
        let numbers: Vec<&str> = value.split_ascii_whitespace().collect();
        if let [min, default, max] = numbers[..]
            && max.parse().is_ok_and(|max: u64| max < MODEST_WINDOW)
        {
            findings.push(Finding::new(
                Severity::Warning,
                format!("net.{name} ends at {max} bytes, and so do windows on long paths"),
                format!("sysctl -w net.{name}=\"{min} {default} {MODEST_WINDOW}\" or more"),
            ));
        }
    }
    if let Some(name) = read("ipv4.tcp_congestion_control")
        && CongestionControl::by_name(&name).is_none()
    {
        findings.push(Finding::new(
            Severity::Warning,
            format!(
                "net.ipv4.tcp_congestion_control = {name}, which the engine does not have: \
                 it uses {}",
                CongestionControl::default().name()
            ),
            "nothing needs to be done, unless the paths need that algorithm",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_values_are_fine_and_others_are_named() {
        let stock = |name: &str| {
            Some(match name {
                "ipv4.tcp_rmem" => "4096\t131072\t6291456".to_owned(),
                "ipv4.tcp_wmem" => "4096\t16384\t4194304".to_owned(),
                "ipv4.tcp_congestion_control" => "cubic".to_owned(),
                _ => "1".to_owned(),
            })
        };
        assert_eq!(judge(&stock), []);
        assert_eq!(judge(&|_| None), []);
        let bbr = |name: &str| match name {
            "ipv4.tcp_congestion_control" => Some("bbr".to_owned()),
            other => stock(other),
        };
        assert_eq!(judge(&bbr), []);
        let odd = |name: &str| {
            Some(match name {
                "ipv4.tcp_rmem" => "4096 131072 131072".to_owned(),
                "ipv4.tcp_congestion_control" => "dctcp".to_owned(),
                "ipv4.tcp_sack" => "0".to_owned(),
                other => return stock(other),
            })
        };
        let whats: Vec<String> = judge(&odd).into_iter().map(|f| f.what).collect();
        assert_eq!(whats.len(), 3);
        assert!(whats[0].contains("tcp_sack"));
        assert!(whats[1].contains("tcp_rmem ends at 131072"));
        assert!(whats[2].contains("dctcp") && whats[2].contains("cubic"));
    }
}
