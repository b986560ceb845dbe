//! The cells of the comparison: one shape of load on one shape of link.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cpus::Placement;
use crate::iperf3::{Amount, Iperf3, Role};
use crate::lab::{FAR, Lab, NEAR};
use crate::library::Stack;
use crate::netns::Netns;
use crate::probe::probe;
use crate::process::Finished;
use crate::{Link, Offloads};

const PORT: u16 = 7001;
/// Rounds of one ping-pong.
const ROUND_TRIPS: u32 = 10_000;
/// Short connections of one run: few enough for the ports of a fresh namespace.
const CONNECTIONS: u32 = 4_000;

/// What is done on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The near host sends or receives as fast as it can.
    Bulk {
        /// It sends.
        sends: bool,
        /// Over so many connections.
        streams: u32,
    },
    /// The near host sends `size` bytes a call.
    Send {
        /// How.
        way: Way,
        /// Bytes of a call.
        size: u32,
        /// Threads that do so, each over a connection of its own.
        threads: u32,
    },
    /// 64 bytes there and back, the near host as client.
    RoundTrip,
    /// Short connections, one after another in each of `threads` threads.
    Connections {
        /// The near host's part.
        role: Role,
        /// Of the client.
        threads: u32,
    },
}

/// How the bytes of a send are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `send`.
    Plain,
    /// `send` with MSG_ZEROCOPY. On the kernel both ways are run, and the faster
    /// counts.
    Zerocopy,
    /// `sendmsg` with a control message.
    Cmsg,
}

impl Way {
    /// Its name for `probes/send_rate.c`.
    pub fn name(self) -> &'static str {
        match self {
            Way::Plain => "plain",
            Way::Zerocopy => "zerocopy",
            Way::Cmsg => "cmsg",
        }
    }
}

/// Sizes of single sends.
const SEND_SIZES: [u32; 3] = [16 << 10, 64 << 10, 1 << 20];

/// One cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The load.
    pub load: Load,
    /// The link.
    pub link: Link,
    /// The host's limit for receive buffers, `net.core.rmem_max`, in bytes.
    pub rmem_max: u32,
    /// Where the ends run.
    pub placement: Placement,
}

/// Something measured in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Gbit/s of payload.
    Throughput,
    /// CPU seconds of the near process per 10^9 bytes of payload.
    CpuPerGigabyte,
    /// Microseconds, median.
    RoundTripP50,
    /// Microseconds, 99 of 100.
    RoundTripP99,
    /// Per second.
    ConnectionRate,
}

impl Metric {
    /// Its name with its unit.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Throughput => "Gbit/s",
            Metric::CpuPerGigabyte => "CPU s/GB",
            Metric::RoundTripP50 => "round trip p50 us",
            Metric::RoundTripP99 => "round trip p99 us",
            Metric::ConnectionRate => "connections/s",
        }
    }

    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        matches!(self, Metric::Throughput | Metric::ConnectionRate)
    }
}

/// What one run gave.
pub type Sample = Vec<(Metric, f64)>;

/// The limits that are compared: what a Debian host comes with, and a large one.
pub const RMEM_MAX: [u32; 2] = [212_992, 4 << 20];

impl Cell {
    /// Every cell.
    pub fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for placement in [Placement::TwoCpus, Placement::OneCpu] {
            for sends in [true, false] {
                for streams in [1, 8] {
                    for mtu in [1500, 9000] {
                        for offloads in [Offloads::On, Offloads::Off] {
                            for rmem_max in RMEM_MAX {
                                cells.push(Cell {
                                    load: Load::Bulk { sends, streams },
                                    link: Link { mtu, offloads },
                                    rmem_max,
                                    placement,
                                });
                            }
                        }
                    }
                }
            }
            cells.extend(Self::without_bulk(placement));
        }
        cells
    }

    /// The cells that tell most, in a few minutes.
    pub fn quick() -> Vec<Cell> {
        let placement = Placement::TwoCpus;
        let mut cells: Vec<Cell> = Self::all()
            .into_iter()
            .filter(|cell| {
                cell.placement == placement
                    && cell.link.mtu == 1500
                    && cell.rmem_max == RMEM_MAX[0]
                    && matches!(cell.load, Load::Bulk { streams: 1, .. })
            })
            .collect();
        cells.extend(
            Self::without_bulk(placement)
                .into_iter()
                .filter(|cell| match cell.load {
                    Load::Connections { threads, .. } => threads == 1,
                    Load::Send { way, .. } => way == Way::Zerocopy,
                    _ => true,
                }),
        );
        cells
    }

    fn without_bulk(placement: Placement) -> Vec<Cell> {
        let mut loads = Vec::new();
        for size in SEND_SIZES {
            loads.extend([Way::Plain, Way::Zerocopy].map(|way| Load::Send {
                way,
                size,
                threads: 1,
            }));
        }
        loads.push(Load::Send {
            way: Way::Cmsg,
            size: SEND_SIZES[0],
            threads: 1,
        });
        loads.push(Load::Send {
            way: Way::Plain,
            size: SEND_SIZES[1],
            threads: 4,
        });
        loads.push(Load::RoundTrip);
        for role in [Role::Client, Role::Server] {
            loads.extend([1, 8].map(|threads| Load::Connections { role, threads }));
        }
        let cell = |load| Cell {
            load,
            link: Link::default(),
            rmem_max: RMEM_MAX[0],
            placement,
        };
        loads.into_iter().map(cell).collect()
    }

    /// Its name: unique, and fit for `--only`.
    pub fn name(&self) -> String {
        let load = match self.load {
            Load::Bulk { sends, streams } => {
                let direction = if sends { "send" } else { "receive" };
                let offloads = match self.link.offloads {
                    Offloads::On => "offloads",
                    Offloads::Off => "no-offloads",
                };
                format!(
                    "{direction}/{streams}-streams/mtu-{}/{offloads}/rmem-{}",
                    self.link.mtu, self.rmem_max
                )
            }
            Load::Send { way, size, threads } => {
                let threads = match threads {
                    1 => String::new(),
                    n => format!("/{n}-threads"),
                };
                format!("send-calls/{}/{size}-bytes{threads}", way.name())
            }
            Load::RoundTrip => "round-trip".to_owned(),
            Load::Connections { role, threads } => {
                let role = match role {
                    Role::Client => "client",
                    Role::Server => "server",
                };
                format!("connections/{role}/{threads}-threads")
            }
        };
        format!("{}/{load}", self.placement.name())
    }

    /// Those whose name contains one of the texts; all, without a text.
    ///
    /// # Errors
    /// When a text is in no name.
    pub fn chosen(cells: Vec<Self>, only: &[String]) -> Result<Vec<Self>> {
        let has = |cell: &Self, text: &String| cell.name().contains(text.as_str());
        for text in only {
            ensure!(
                cells.iter().any(|cell| has(cell, text)),
                "--only {text}: no cell's name contains it; --list prints the names"
            );
        }
        let wanted = |cell: &Self| only.is_empty() || only.iter().any(|text| has(cell, text));
        Ok(cells.into_iter().filter(wanted).collect())
    }

    /// Runs it once, with the near end on `stack`, in a fresh lab.
    ///
    /// # Errors
    /// When a program fails, or the shim did not carry what it should.
    pub fn run(&self, stack: &Stack, cpus: &[usize], bulk: Duration) -> Result<Sample> {
        let pin = self.placement.pin(cpus).context("too few CPUs")?;
        let lab = Lab::unprivileged(self.link)?;
        match self.load {
            Load::Bulk { sends, streams } => {
                let streams = streams.to_string();
                let mut args = vec!["-P", &streams];
                if !sends {
                    args.push("-R");
                }
                let mut test = Iperf3::new(Role::Client, &args, Amount::Time(bulk));
                test.cpus = Some(pin);
                let outcome = test.run(&lab, stack)?;
                if stack.is_sidewire() {
                    outcome
                        .carried
                        .all_by_engine_but_late_resets(test.streams() + 1)?;
                }
                #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
                let gigabytes = outcome.bytes as f64 / 1e9;
                Ok(vec![
                    (Metric::Throughput, outcome.bits_per_second / 1e9),
                    (Metric::CpuPerGigabyte, outcome.near_cpu / gigabytes),
                ])
            }
            Load::Send { way, size, threads } => {
                let one = |way| self.send_calls(&lab, stack, pin, (way, size, threads), bulk);
                let sample = one(way)?;
                if way != Way::Zerocopy || stack.is_sidewire() {
                    return Ok(sample);
                }
                let plain = one(Way::Plain)?;
                Ok(if plain[0].1 > sample[0].1 {
                    plain
                } else {
                    sample
                })
            }
            Load::RoundTrip => {
                let count = ROUND_TRIPS.to_string();
                let report = pair(&lab, stack, pin, Role::Client, "round_trip", &[], &[&count])?;
                Ok(vec![
                    (Metric::RoundTripP50, number(&report, "p50_ns")? / 1e3),
                    (Metric::RoundTripP99, number(&report, "p99_ns")? / 1e3),
                ])
            }
            Load::Connections { role, threads } => {
                let (count, threads) = (CONNECTIONS.to_string(), threads.to_string());
                let of_client = [count.as_str(), &threads];
                let report = pair(
                    &lab,
                    stack,
                    pin,
                    role,
                    "connection_rate",
                    &[&count],
                    &of_client,
                )?;
                let rate = number(&report, "connections")? / number(&report, "seconds")?;
                Ok(vec![(Metric::ConnectionRate, rate)])
            }
        }
    }
}

impl Cell {
    /// Throughput and CPU time of sends in one way, of one size, by so many threads.
    fn send_calls(
        &self,
        lab: &Lab,
        stack: &Stack,
        pin: (usize, usize),
        (way, size, threads): (Way, u32, u32),
        time: Duration,
    ) -> Result<Sample> {
        let (size, threads) = (size.to_string(), threads.to_string());
        let time = time.as_millis().to_string();
        let report = pair(
            lab,
            stack,
            pin,
            Role::Client,
            "send_rate",
            &[&threads],
            &[way.name(), &size, &time, &threads],
        )?;
        let gigabytes = number(&report, "bytes")? / 1e9;
        Ok(vec![
            (
                Metric::Throughput,
                8.0 * gigabytes / number(&report, "seconds")?,
            ),
            (Metric::CpuPerGigabyte, number(&report, "cpu")? / gigabytes),
        ])
    }
}

/// Runs a probe's server and client, the near host in `role`, and gives the
/// client's report.
fn pair(
    lab: &Lab,
    stack: &Stack,
    pin: (usize, usize),
    role: Role,
    name: &str,
    server_args: &[&str],
    client_args: &[&str],
) -> Result<Value> {
    let port = PORT.to_string();
    let on = |netns: &Netns, near: bool| {
        let program = netns.program(probe(name));
        if near {
            program.under(stack).cpu(pin.0)
        } else {
            program.cpu(pin.1)
        }
    };
    let (server_host, client_host, host) = match role {
        Role::Client => (&lab.far, &lab.near, FAR),
        Role::Server => (&lab.near, &lab.far, NEAR),
    };
    let before = crate::counters::KernelTcp::of(&lab.near)?;
    let server = on(server_host, role == Role::Server)
        .args(["server", &port])
        .args(server_args.iter().copied())
        .start()?;
    lab.wait_for_listener(server_host, PORT)?;
    let client: Finished = on(client_host, role == Role::Client)
        .args(["client", host, &port])
        .args(client_args.iter().copied())
        .run()?
        .success()?;
    server.wait()?.success()?;
    let kernel = crate::counters::KernelTcp::of(&lab.near)?.since(before);
    ensure!(
        !stack.is_sidewire() || kernel.sent_only_resets(),
        "the kernel's TCP took part: {kernel:?}"
    );
    serde_json::from_str(&client.stdout).with_context(|| client.to_string())
}

fn number(report: &Value, key: &str) -> Result<f64> {
    report[key]
        .as_f64()
        .with_context(|| format!("{key} in {report}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = Cell::all().iter().map(Cell::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(Cell::quick().len() < count / 4);
    }

    #[test]
    fn a_text_that_is_in_no_name_is_refused() {
        let count = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|text| (*text).to_owned()).collect();
            Cell::chosen(Cell::all(), &only).map(|cells| cells.len())
        };
        assert_eq!(count(&[]).unwrap(), Cell::all().len());
        let trips = count(&["round-trip"]).unwrap();
        assert!(trips > 0 && trips < Cell::all().len());
        let refused = count(&["round-trip", "nosuch"]).unwrap_err().to_string();
        assert!(refused.contains("nosuch") && refused.lines().count() == 1);
    }
}
