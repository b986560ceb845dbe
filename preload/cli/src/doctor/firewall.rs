//! Rules of the host that accelerated traffic passes by: netfilter, NAT, IPsec.
//!
//! Our frames leave behind netfilter's output and postrouting hooks, and arrive
//! before prerouting and input. Only the hooks of a device (ingress and egress)
//! and tc see them.

use std::collections::BTreeMap;
use std::fs;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, XFRM};

use super::netlink::{attributes, dump};
use super::{Finding, Severity};

/// NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN.
const GET_CHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// `struct nfgenmsg`, bytes.
const NFGENMSG: usize = 4;

const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// Offset of `dir` in `struct xfrm_userpolicy_info`: selector, lifetimes,
/// priority and index stand before it.
const XFRM_DIR: usize = 56 + 64 + 32 + 4 + 4;
const XFRM_POLICY_IN: u8 = 0;
const XFRM_POLICY_OUT: u8 = 1;

const REMEDY: &str = "where these rules have to hold for a program, do not start it with sidewire, \
                      or put it behind a veth pair (sidewire(7), \"Firewalls, NAT and IPsec\")";

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut chains = Vec::new();
    let asked = dump(NETFILTER, GET_CHAIN, &[0; NFGENMSG], |m| {
        chains.extend(Chain::parse(m))
    });
    findings.extend(match asked {
        Ok(()) => judge(&chains),
        Err(error) => vec![unseen("nftables", error)],
    });
    findings.extend(iptables(
        &fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default(),
    ));
    let mut policies = [0usize; 2];
    let asked = dump(XFRM, XFRM_MSG_GETPOLICY, &[], |m| {
        if let Some(dir @ (XFRM_POLICY_IN | XFRM_POLICY_OUT)) = m.get(XFRM_DIR).copied() {
            policies[usize::from(dir)] += 1;
        }
    });
    findings.push(match asked {
        Ok(()) => ipsec(policies),
        Err(error) => unseen("xfrm (IPsec)", error),
    });
    findings
}

/// A chain of nftables that netfilter calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chain {
    family: u8,
    table: String,
    name: String,
    kind: String,
    hook: u32,
    drops: bool,
    rules: u32,
}

impl Chain {
    /// `None` for a chain that only rules jump to, and for rubbish.
    fn parse(message: &[u8]) -> Option<Chain> {
        let number = |b: &[u8]| b.first_chunk().map(|b| u32::from_be_bytes(*b));
        let string = |b: &[u8]| {
            String::from_utf8_lossy(b.split(|&b| b == 0).next().unwrap_or_default()).into_owned()
        };
        let mut chain = Chain {
            family: *message.first()?,
            ..Chain::default()
        };
        let mut hook = None;
        for (kind, value) in attributes(message.get(NFGENMSG..)?) {
            match kind {
                NFTA_CHAIN_TABLE => chain.table = string(value),
                NFTA_CHAIN_NAME => chain.name = string(value),
                NFTA_CHAIN_TYPE => chain.kind = string(value),
                NFTA_CHAIN_POLICY => chain.drops = number(value).unwrap_or(NF_ACCEPT) == NF_DROP,
                // Nothing can jump to a base chain, so what uses it are its rules.
                NFTA_CHAIN_USE => chain.rules = number(value).unwrap_or(0),
                NFTA_CHAIN_HOOK => {
                    hook = attributes(value)
                        .find(|(kind, _)| *kind == NFTA_HOOK_HOOKNUM)
                        .and_then(|(_, value)| number(value));
                }
                _ => {}
            }
        }
        chain.hook = hook?;
        Some(chain)
    }

    /// The hook's name if our IPv4 frames pass it by and the chain says anything.
    fn passed_by(&self) -> Option<&'static str> {
        if !matches!(self.family, NFPROTO_INET | NFPROTO_IPV4) || (self.rules == 0 && !self.drops) {
            return None;
        }
        // NF_INET_*; forwarded packets are none of ours, and ingress (5) sees us.
        match self.hook {
            0 => Some("prerouting"),
            1 => Some("input"),
            3 => Some("output"),
            4 => Some("postrouting"),
            _ => None,
        }
    }
}

fn judge(chains: &[Chain]) -> Vec<Finding> {
    let mut filters = BTreeMap::new();
    let mut nat = BTreeMap::new();
    for chain in chains {
        let Some(hook) = chain.passed_by() else {
            continue;
        };
        let family = if chain.family == NFPROTO_INET {
            "inet"
        } else {
            "ip"
        };
        let shown = format!(
            "{family} {} {} ({hook}: {} {}{})",
            chain.table,
            chain.name,
            chain.rules,
            super::plural(chain.rules as usize, "rule"),
            if chain.drops { ", policy drop" } else { "" }
        );
        let kind = if chain.kind == "nat" {
            &mut nat
        } else {
            &mut filters
        };
        kind.insert(shown, ());
    }
    let list = |chains: BTreeMap<String, ()>| chains.into_keys().collect::<Vec<_>>().join(", ");
    let mut findings = Vec::new();
    if !filters.is_empty() {
        findings.push(Finding::new(
            Severity::Warning,
            format!(
                "firewall: accelerated connections pass by {}",
                list(filters)
            ),
            REMEDY,
        ));
    }
    if !nat.is_empty() {
        findings.push(Finding::new(
            Severity::Warning,
            format!(
                "NAT: addresses of accelerated connections are not translated by {}",
                list(nat)
            ),
            REMEDY,
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "nftables: no chain that accelerated connections pass by",
        ));
    }
    findings
}

/// What the older iptables has loaded; its rules cannot be counted from here.
fn iptables(tables: &str) -> Option<Finding> {
    let tables: Vec<&str> = tables.split_ascii_whitespace().collect();
    (!tables.is_empty()).then(|| {
        Finding::new(
            Severity::Warning,
            format!(
                "iptables-legacy: tables {}; accelerated connections pass by their rules, if there \
                 are any (iptables-legacy-save shows them)",
                tables.join(", ")
            ),
            REMEDY,
        )
    })
}

fn ipsec([inward, outward]: [usize; 2]) -> Finding {
    if inward + outward == 0 {
        return Finding::ok("xfrm: no IPsec policy");
    }
    Finding::new(
        Severity::Warning,
        format!(
            "IPsec: {outward} {} out and {inward} in are not applied to accelerated connections, \
             which would go in the clear",
            super::plural(outward, "policy").replace("policys", "policies")
        ),
        "do not start programs with sidewire whose connections a policy has to protect; \
         ip xfrm policy shows them",
    )
}

fn unseen(what: &str, error: Errno) -> Finding {
    match error {
        Errno::PERM | Errno::ACCESS => Finding::new(
            Severity::Note,
            format!("{what}: cannot be looked at without CAP_NET_ADMIN"),
            "run sidewire doctor as root to know what accelerated connections pass by",
        ),
        Errno::PROTONOSUPPORT | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOENT => {
            Finding::ok(format!("{what}: not in this kernel"))
        }
        error => Finding::new(
            Severity::Note,
            format!("{what}: cannot be looked at: {error}"),
            "look at it by hand: nft list ruleset, ip xfrm policy",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(kind: &str, hook: u32, rules: u32) -> Chain {
        Chain {
            family: NFPROTO_INET,
            table: "t".to_owned(),
            name: "c".to_owned(),
            kind: kind.to_owned(),
            hook,
            drops: false,
            rules,
        }
    }

    #[test]
    fn only_chains_that_say_something_to_us_count() {
        assert_eq!(chain("filter", 1, 0).passed_by(), None);
        assert_eq!(chain("filter", 1, 2).passed_by(), Some("input"));
        assert_eq!(chain("filter", 2, 2).passed_by(), None);
        assert_eq!(chain("filter", 5, 2).passed_by(), None);
        let mut dropping = chain("filter", 3, 0);
        dropping.drops = true;
        assert_eq!(dropping.passed_by(), Some("output"));
        let netdev = Chain {
            family: 5,
            ..chain("filter", 0, 1)
        };
        assert_eq!(netdev.passed_by(), None);
    }

    #[test]
    fn nat_and_filters_are_told_apart() {
        let findings = judge(&[chain("filter", 1, 1), chain("nat", 4, 3)]);
        assert!(
            findings[0]
                .what
                .ends_with("pass by inet t c (input: 1 rule)")
        );
        assert!(
            findings[1]
                .what
                .ends_with("inet t c (postrouting: 3 rules)")
        );
        assert_eq!(judge(&[])[0].severity, Severity::Ok);
    }

    #[test]
    fn other_tools_and_errors_have_their_words() {
        assert_eq!(iptables("\n"), None);
        assert!(
            iptables("nat\nfilter\n")
                .unwrap()
                .what
                .contains("nat, filter")
        );
        assert_eq!(ipsec([0, 0]).severity, Severity::Ok);
        assert!(ipsec([0, 1]).what.contains("1 policy out and 0 in"));
        assert_eq!(unseen("x", Errno::PERM).severity, Severity::Note);
        assert_eq!(Chain::parse(&[]), None);
        assert_eq!(Chain::parse(&[1, 0, 0, 0]), None);
    }
}
