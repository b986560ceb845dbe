//! A started program: what it writes, how it ends, and that it does end.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use shared_child::SharedChild;
use shared_child::unix::SharedChildExt;

use crate::patience::interrupted;

/// How often a wait looks whether it was interrupted.
const INTERRUPT_CHECK: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    open_pipes: usize,
    status: Option<ExitStatus>,
}

#[derive(Default)]
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// A running program. Dropping it kills exactly that process and reaps it.
pub struct Running {
    name: String,
    child: Arc<SharedChild>,
    watch: Arc<Watch>,
    patience: Duration,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What was started, for messages.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote to standard output, when that was not sent to a file.
    pub stdout: String,
    /// All that it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Itself, if it ended with status 0.
    ///
    /// # Errors
    /// Otherwise, with what it wrote.
    pub fn success(self) -> Result<Self> {
        ensure!(self.status.success(), "{self}");
        Ok(self)
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.status)?;
        for (stream, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n--- {stream}\n{}", tail(text.trim_end()))?;
            }
        }
        Ok(())
    }
}

/// The end of a long text: what a failed program said last.
fn tail(text: &str) -> &str {
    const KEPT: usize = 1500;
    let mut start = text.len().saturating_sub(KEPT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

impl Running {
    /// Starts `command`; its standard output is captured unless the caller has
    /// sent it to a file, its standard error always.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        name: String,
        mut command: Command,
        capture_stdout: bool,
        patience: Duration,
    ) -> Result<Self> {
        if capture_stdout {
            command.stdout(Stdio::piped());
        }
        command.stderr(Stdio::piped());
        let child = Arc::new(
            SharedChild::spawn(&mut command).with_context(|| format!("cannot start {name}"))?,
        );
        let watch = Arc::new(Watch::default());
        if let Some(pipe) = child.take_stdout() {
            collect(&watch, pipe, |state, bytes| {
                state.stdout.extend_from_slice(bytes)
            });
        }
        if let Some(pipe) = child.take_stderr() {
            collect(&watch, pipe, |state, bytes| {
                state.stderr.extend_from_slice(bytes)
            });
        }
        let (waited, ended) = (Arc::clone(&child), Arc::clone(&watch));
        std::thread::spawn(move || {
            if let Ok(status) = waited.wait() {
                ended.change(|state| state.status = Some(status));
            }
        });
        Ok(Running {
            name,
            child,
            watch,
            patience,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, one of libc's `SIG*`.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.child
            .send_signal(signal)
            .with_context(|| format!("signal {signal} to {}", self.name))
    }

    /// Kills it with SIGKILL and reaps it. It may have ended before.
    pub fn kill(&self) {
        // Both fail only when it is already gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.watch.lock().status.is_some()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.watch.lock().stdout).into_owned()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.watch.lock().stderr).into_owned()
    }

    /// Waits until its standard output contains `text`.
    ///
    /// # Errors
    /// When it ends without, or takes longer than its patience.
    pub fn wait_for_output(&self, text: &str) -> Result<()> {
        let found = |state: &State| contains(&state.stdout, text.as_bytes());
        let state = self.wait_until(&format!("{text:?}"), |state| {
            found(state) || (state.status.is_some() && state.open_pipes == 0)
        })?;
        ensure!(
            found(&state),
            "{} ended without {text:?} on its output\n{}",
            self.name,
            String::from_utf8_lossy(&state.stderr)
        );
        Ok(())
    }

    /// Waits for its end, and for the end of its output.
    ///
    /// # Errors
    /// When that takes longer than its patience; it is then killed.
    pub fn wait(self) -> Result<Finished> {
        let mut state = self.wait_until("its end", |state| {
            state.status.is_some() && state.open_pipes == 0
        })?;
        let Some(status) = state.status else {
            bail!("{} has no status", self.name);
        };
        let take =
            |bytes: &mut Vec<u8>| String::from_utf8_lossy(&std::mem::take(bytes)).into_owned();
        Ok(Finished {
            name: self.name.clone(),
            status,
            stdout: take(&mut state.stdout),
            stderr: take(&mut state.stderr),
        })
    }

    fn wait_until(
        &self,
        what: &str,
        condition: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'_, State>> {
        let deadline = Instant::now() + self.patience;
        let mut state = self.watch.lock();
        while !condition(&state) {
            if interrupted() {
                bail!("interrupted");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = match state.status {
                    Some(status) => format!("ended with {status}, but its output stays open"),
                    None => "is still running".to_owned(),
                };
                bail!(
                    "waited {} s for {what} of {}: it {why}\n--- stdout\n{}\n--- stderr\n{}",
                    self.patience.as_secs(),
                    self.name,
                    tail(&String::from_utf8_lossy(&state.stdout)),
                    tail(&String::from_utf8_lossy(&state.stderr))
                );
            }
            state = self
                .watch
                .changed
                .wait_timeout(state, left.min(INTERRUPT_CHECK))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(state)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

fn collect(
    watch: &Arc<Watch>,
    mut pipe: impl Read + Send + 'static,
    keep: impl Fn(&mut State, &[u8]) + Send + 'static,
) {
    watch.lock().open_pipes += 1;
    let watch = Arc::clone(watch);
    std::thread::spawn(move || {
        let mut buffer = [0u8; 16 * 1024];
        while let Ok(n) = pipe.read(&mut buffer) {
            if n == 0 {
                break;
            }
            watch.change(|state| keep(state, &buffer[..n]));
        }
        watch.change(|state| state.open_pipes -= 1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::PATIENCE;

    fn shell(script: &str, patience: Duration) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start("sh".to_owned(), command, true, patience).unwrap()
    }

    #[test]
    fn output_and_status_are_kept() {
        let ended = shell("echo out; echo err >&2; exit 3", PATIENCE)
            .wait()
            .unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(
            (ended.stdout.as_str(), ended.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert!(ended.success().unwrap_err().to_string().contains("err"));
    }

    #[test]
    fn a_line_is_waited_for() {
        let running = shell("echo ready; exec sleep 1000", PATIENCE);
        running.wait_for_output("ready").unwrap();
        assert!(!running.has_ended());
        assert!(shell("true", PATIENCE).wait_for_output("ready").is_err());
    }

    #[test]
    fn a_hung_program_is_an_error_and_is_killed() {
        let running = shell("exec sleep 1000", Duration::from_millis(10));
        let child = Arc::clone(&running.child);
        assert!(
            running
                .wait()
                .unwrap_err()
                .to_string()
                .contains("still running")
        );
        assert!(child.try_wait().unwrap().is_some());
    }
}
