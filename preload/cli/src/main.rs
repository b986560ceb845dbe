//! The `sidewire` command: starts programs with the shim in front, and says no
//! beforehand where the shim could not take effect.
#![forbid(unsafe_code)]

mod doctor;
mod doors;
mod installation;
mod launcher;
mod live;
#[cfg(test)]
mod manual;
mod out;
mod plot;
mod reach;
mod run;
mod ss;
mod status;
mod top;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

/// Our own failure, as env(1), nohup(1) and timeout(1) report theirs.
const EXIT_CANCELED: u8 = 125;

/// Carries the TCP connections of unmodified programs on an engine of their own
#[derive(Parser)]
#[command(name = "sidewire", version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a program with its TCP connections on Sidewire
    Run(run::Options),
    /// Run iperf3 and nc on a private link, next to the kernel's TCP
    #[command(disable_help_flag = true)]
    Demo {
        /// See `sidewire demo --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Compare with the kernel's TCP, cell by cell
    #[command(disable_help_flag = true)]
    Bench {
        /// See `sidewire bench --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Show running processes: what is carried by whom and why, and what was counted
    Status(status::Options),
    /// Show the sockets of running processes, as ss(8) does
    Ss(ss::Options),
    /// Show the busiest connections of running processes, again and again
    Top(top::Options),
    /// Draw the connections of a capture: time and sequence, windows and round trips, throughput
    Plot(plot::Options),
    /// Look for what stands in the way on this host, and for rules that accelerated connections
    /// pass by
    Doctor,
    /// Print what a shell needs to complete this command
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    // Of what becomes another program only failures come back.
    let failure = match Cli::parse().command {
        Action::Run(options) => run::run(&options),
        Action::Demo { args } => lab_program("sidewire-demo", &args),
        Action::Bench { args } => lab_program("sidewire-bench", &args),
        Action::Status(options) => return status::show(&options),
        Action::Ss(options) => return ss::show(&options),
        Action::Top(options) => return top::show(&options),
        Action::Plot(options) => return plot::draw(&options),
        Action::Doctor => return doctor::examine(),
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sidewire", &mut script);
            return out::print_all(&String::from_utf8_lossy(&script), ExitCode::SUCCESS);
        }
    };
    out::complain(failure.message);
    ExitCode::from(failure.code)
}

/// Why another program did not take our place.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn canceled(message: impl Into<String>) -> Self {
        Failure {
            code: EXIT_CANCELED,
            message: message.into(),
        }
    }
}

/// Becomes a program of the lab, which is built beside us and not installed.
fn lab_program(name: &str, args: &[OsString]) -> Failure {
    let Some(path) = installation::beside_us(name) else {
        let target = name.trim_start_matches("sidewire-");
        return Failure::canceled(format!(
            "{name} is not beside this program; in the source tree, run `make {target}`"
        ));
    };
    let error = Command::new(&path).args(args).exec();
    Failure::canceled(format!("{}: {error}", path.display()))
}
