//! Which connections are carried: rules of the settings, of which the first that fits decides.

use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;

use ipnet::IpNet;

use super::Refused;

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The program connects.
    Out,
    /// The program listens.
    In,
}

/// `192.0.2.0/24`, or one address.
fn prefix(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

/// One rule: what it leaves open fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    program: Option<String>,
    direction: Option<Direction>,
    address: Option<IpNet>,
    port: Option<RangeInclusive<u16>>,
    accelerate: bool,
}

/// What a rule may say.
pub const KEYS: &str = "accelerate, program, direction, address, port";

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
    (!range.is_empty()).then_some(range)
}

impl Rule {
    /// Reads a table of the settings.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Refused> {
        let mut rule = Self::default();
        let mut decides = false;
        for (key, value) in table {
            let text = match value {
                toml::Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            let refuse = |allowed| Refused {
                key: format!("rule: {key}"),
                value: text.clone(),
                allowed,
                meant: None,
            };
            match key.as_str() {
                "accelerate" => {
                    rule.accelerate = value.as_bool().ok_or_else(|| refuse("true, false"))?;
                    decides = true;
                }
                "program" => rule.program = Some(text),
                "direction" => {
                    rule.direction = match text.as_str() {
                        "in" => Some(Direction::In),
                        "out" => Some(Direction::Out),
                        _ => return Err(refuse("in, out")),
                    }
                }
                "address" => {
                    let allowed = "an address, or a prefix such as 192.0.2.0/24";
                    rule.address = Some(prefix(&text).ok_or_else(|| refuse(allowed))?);
                }
                "port" => {
                    let allowed = "0 to 65535, or a range such as \"8000-8999\"";
                    rule.port = Some(ports(&text).ok_or_else(|| refuse(allowed))?);
                }
                _ => return Err(refuse(KEYS)),
            }
        }
        if decides {
            Ok(rule)
        } else {
            Err(Refused {
                key: "rule".to_owned(),
                value: table.to_string().trim_end().replace('\n', ", "),
                allowed: "with accelerate = true or false",
                meant: None,
            })
        }
    }

    fn fits(&self, programs: &[String], direction: Direction, address: SocketAddr) -> bool {
        self.program.as_ref().is_none_or(|p| programs.contains(p))
            && self.direction.is_none_or(|d| d == direction)
            && self.address.is_none_or(|a| a.contains(&address.ip()))
            && self
                .port
                .as_ref()
                .is_none_or(|p| p.contains(&address.port()))
    }
}

/// Whether the engine may carry what a program with these names opens: to `address`, or listening there. Without a rule that
/// fits, it may.
#[must_use]
pub fn accelerate(
    rules: &[Rule],
    programs: &[String],
    direction: Direction,
    address: SocketAddr,
) -> bool {
    let mut rules = rules.iter();
    rules
        .find(|r| r.fits(programs, direction, address))
        .is_none_or(|r| r.accelerate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        let table: toml::Table = text.parse().unwrap();
        let all = table["rule"].as_array().unwrap().iter();
        all.map(|r| Rule::read(r.as_table().unwrap()).unwrap_or_else(|r| panic!("{}", r.allowed)))
            .collect()
    }

    fn refused(text: &str) -> (String, &'static str) {
        let table: toml::Table = text.parse().unwrap();
        let refused = Rule::read(&table).err().unwrap();
        (refused.key, refused.allowed)
    }

    #[test]
    fn the_first_that_fits_decides() {
        let rules = rules(
            "[[rule]]\nprogram = \"sshd\"\naccelerate = false\n\
             [[rule]]\naddress = \"10.1.0.0/16\"\nport = \"80-89\"\ndirection = \"out\"\naccelerate = true\n\
             [[rule]]\naddress = \"10.0.0.0/8\"\naccelerate = false\n",
        );
        let ask = |program: &str, direction, address: &str| {
            let programs = ["a-file".to_owned(), program.to_owned()];
            accelerate(&rules, &programs, direction, address.parse().unwrap())
        };
        assert!(!ask("sshd", Direction::In, "0.0.0.0:22"));
        assert!(ask("nc", Direction::In, "0.0.0.0:22"));
        assert!(ask("nc", Direction::Out, "10.1.2.3:80"));
        assert!(ask("nc", Direction::Out, "10.1.2.3:89"));
        assert!(!ask("nc", Direction::Out, "10.1.2.3:90"));
        assert!(!ask("nc", Direction::In, "10.1.2.3:80"));
        assert!(!ask("nc", Direction::Out, "10.2.2.3:80"));
        assert!(ask("nc", Direction::Out, "11.0.0.1:80"));
        assert!(accelerate(
            &[],
            &[],
            Direction::In,
            ([0, 0, 0, 0], 1).into()
        ));
    }

    #[test]
    fn prefixes() {
        let holds = |text: &str, address: &str| {
            prefix(text).is_some_and(|p| p.contains(&address.parse::<IpAddr>().unwrap()))
        };
        assert!(holds("0.0.0.0/0", "255.1.2.3"));
        assert!(holds("192.0.2.1", "192.0.2.1") && !holds("192.0.2.1", "192.0.2.0"));
        assert!(holds("192.0.2.128/25", "192.0.2.200") && !holds("192.0.2.128/25", "192.0.2.1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert_eq!(prefix("10.0.0.0/33"), None);
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        assert_eq!(
            refused("accelerate = 1"),
            ("rule: accelerate".to_owned(), "true, false")
        );
        assert_eq!(refused("accelerate = true\nhost = \"x\"").1, KEYS);
        assert_eq!(refused("port = \"9-8\"").0, "rule: port");
        assert_eq!(refused("port = 70000").0, "rule: port");
        assert_eq!(refused("direction = \"up\"").1, "in, out");
        assert_eq!(refused("port = 80").1, "with accelerate = true or false");
    }
}
