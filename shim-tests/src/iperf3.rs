//! iperf3 between the two hosts, the near one on a stack of choice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::counters::{Before, Carried};
use crate::lab::{FAR, Lab, NEAR};
use crate::library::{Stack, Stats};
use crate::patience::PATIENCE;
use crate::process::Finished;

const PORT: u16 = 5201;

/// Which end of iperf3 the near host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It connects.
    Client,
    /// It listens, for one test.
    Server,
}

/// How much is moved.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// This many bytes, over all streams.
    Bytes(u64),
    /// For this long.
    Time(Duration),
}

/// One iperf3 test.
#[derive(Clone, Debug)]
pub struct Iperf3 {
    /// What the near host runs.
    pub role: Role,
    /// The client's further arguments: `-R`, `-P 8`, `--bidir`.
    pub args: Vec<String>,
    /// How much.
    pub amount: Amount,
    /// The CPUs of the near and of the far end, when they are to be pinned.
    pub cpus: Option<(usize, usize)>,
}

/// What iperf3 measured, and who carried it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Payload bytes that arrived, in both directions, per second times eight.
    pub bits_per_second: f64,
    /// Payload bytes that arrived, in both directions.
    pub bytes: u64,
    /// CPU seconds (user and system) of the near process during the test.
    pub near_cpu: f64,
    /// CPU seconds of the far process.
    pub far_cpu: f64,
    /// Who carried it.
    pub carried: Carried,
}

impl Iperf3 {
    /// A test with the near host in `role`, moving `bytes`.
    pub fn new(role: Role, args: &[&str], amount: Amount) -> Self {
        Iperf3 {
            role,
            args: args.iter().map(|&a| a.to_owned()).collect(),
            amount,
            cpus: None,
        }
    }

    /// How many data connections it opens; its control connection is one more.
    pub fn streams(&self) -> u64 {
        let parallel = self.args.iter().skip_while(|arg| *arg != "-P").nth(1);
        let parallel = parallel.and_then(|n| n.parse().ok()).unwrap_or(1);
        let directions = if self.args.iter().any(|arg| arg == "--bidir") {
            2
        } else {
            1
        };
        parallel * directions
    }

    /// That the engine carried all of it.
    ///
    /// # Errors
    /// As [`Carried::all_by_engine`]; with `--bidir` the client closes while the server still sends, so the kernel may have
    /// reset what came after its end, as it does natively.
    pub fn all_by_engine(&self, outcome: &Outcome) -> Result<()> {
        // The control connection comes on top of the streams.
        let connections = self.streams() + 1;
        if self.role == Role::Client && self.args.iter().any(|arg| arg == "--bidir") {
            outcome.carried.all_by_engine_but_late_resets(connections)
        } else {
            outcome.carried.all_by_engine(connections)
        }
    }

    /// Runs it with the near end on `stack`.
    ///
    /// # Errors
    /// When either program fails, hangs or reports an error.
    pub fn run(&self, lab: &Lab, stack: &Stack) -> Result<Outcome> {
        let stats = lab.path("iperf3-stats.json");
        let (mut server, mut client) = match self.role {
            Role::Client => (lab.far.program("iperf3"), lab.near.program("iperf3")),
            Role::Server => (lab.near.program("iperf3"), lab.far.program("iperf3")),
        };
        server = server.args(["-s", "-1", "-4", "-p", &PORT.to_string()]);
        client = client.args(["--json", "-p", &PORT.to_string()]);
        let mut patience = PATIENCE;
        client = match self.amount {
            Amount::Bytes(bytes) => client.args(["-n", &bytes.to_string()]),
            Amount::Time(time) => {
                patience += time;
                client.args(["-t", &time.as_secs().to_string()])
            }
        };
        client = client.args(self.args.iter().cloned()).patience(patience);
        server = server.patience(patience);
        match self.role {
            Role::Client => {
                client = client.args(["-c", FAR]).under(stack).stats(&stats);
            }
            Role::Server => {
                client = client.args(["-c", NEAR]);
                server = server.under(stack).stats(&stats);
            }
        }
        if let Some((near, far)) = self.cpus {
            let (of_server, of_client) = match self.role {
                Role::Client => (far, near),
                Role::Server => (near, far),
            };
            server = server.cpu(of_server);
            client = client.cpu(of_client);
        }

        let before = Before::of(lab)?;
        let server_host = match self.role {
            Role::Client => &lab.far,
            Role::Server => &lab.near,
        };
        let server = server.start()?;
        lab.wait_for_listener(server_host, PORT)?;
        let client = client.run()?;
        let report = parse(&client).with_context(|| client.to_string())?;
        let server = server.wait()?.success()?;
        let client = client.success()?;
        let stats = stack
            .is_sidewire()
            .then(|| Stats::read(&stats))
            .transpose()?;

        let (near_cpu, far_cpu) = match self.role {
            Role::Client => (report.client_cpu, report.server_cpu),
            Role::Server => (report.server_cpu, report.client_cpu),
        };
        if let Amount::Bytes(wanted) = self.amount {
            // The receiver stops counting when the client says that it is done,
            // with what the client's stack still holds not counted.
            ensure!(
                report.bytes_sent >= wanted,
                "{} bytes arrived of {wanted}\n{client}\n{server}",
                report.bytes
            );
        }
        Ok(Outcome {
            bits_per_second: report.bits_per_second,
            bytes: report.bytes,
            near_cpu,
            far_cpu,
            carried: before.until_now(lab, stats)?,
        })
    }
}

struct Report {
    bits_per_second: f64,
    bytes: u64,
    bytes_sent: u64,
    client_cpu: f64,
    server_cpu: f64,
}

fn parse(client: &Finished) -> Result<Report> {
    let json: Value = serde_json::from_str(&client.stdout).context("iperf3's report")?;
    if let Some(error) = json["error"].as_str() {
        anyhow::bail!("iperf3: {error}");
    }
    let end = &json["end"];
    // With --bidir the second direction stands in fields of its own.
    let directions = [
        ("sum_sent", "sum_received"),
        ("sum_sent_bidir_reverse", "sum_received_bidir_reverse"),
    ];
    let mut report = Report {
        bits_per_second: 0.0,
        bytes: 0,
        bytes_sent: 0,
        client_cpu: 0.0,
        server_cpu: 0.0,
    };
    let mut seconds = 0.0_f64;
    for (sent, received) in directions {
        let (sent, received) = (&end[sent], &end[received]);
        if received.is_null() {
            continue;
        }
        report.bytes += received["bytes"].as_u64().context("bytes received")?;
        report.bytes_sent += sent["bytes"].as_u64().context("bytes sent")?;
        report.bits_per_second += received["bits_per_second"]
            .as_f64()
            .context("rate received")?;
        seconds = seconds.max(received["seconds"].as_f64().context("duration")?);
    }
    ensure!(report.bytes > 0, "nothing arrived");
    let cpu = &end["cpu_utilization_percent"];
    let of =
        |key: &str| -> Result<f64> { Ok(cpu[key].as_f64().context("CPU use")? / 100.0 * seconds) };
    report.client_cpu = of("host_total")?;
    report.server_cpu = of("remote_total")?;
    Ok(report)
}
