//! A program about to be started in a namespace.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::library::Stack;
use crate::patience::PATIENCE;
use crate::process::{Finished, Running};

/// A program with its arguments, its place and what stands in front of it.
#[derive(Clone)]
pub struct Program {
    enter: Vec<String>,
    wrapper: Vec<String>,
    name: String,
    args: Vec<String>,
    env: Vec<String>,
    stdin: Option<PathBuf>,
    stdout: Option<PathBuf>,
    cpu: Option<usize>,
    patience: Duration,
}

impl Program {
    pub(crate) fn new(enter: Vec<String>, name: String) -> Self {
        Program {
            enter,
            wrapper: Vec::new(),
            name,
            args: Vec::new(),
            env: vec!["LC_ALL=C".to_owned()],
            stdin: None,
            stdout: None,
            cpu: None,
            patience: PATIENCE,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push(format!("{key}={}", value.as_ref().to_string_lossy()));
        self
    }

    /// Puts a wrapper (`strace -f`, `setpriv ...`) in front, outside of the shim:
    /// the shim is loaded into the program only.
    #[must_use]
    pub fn wrapped<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.wrapper.extend(words.into_iter().map(Into::into));
        self
    }

    /// Chooses who carries its TCP.
    #[must_use]
    pub fn under(self, stack: &Stack) -> Self {
        match stack {
            Stack::Kernel => self,
            Stack::Sidewire(library) => self.env("LD_PRELOAD", library.path()),
        }
    }

    /// Has the shim write its counters to `file` when the program ends.
    #[must_use]
    pub fn stats(self, file: &Path) -> Self {
        self.env("SIDEWIRE_STATS", file)
    }

    /// Feeds it a file; otherwise it reads nothing.
    #[must_use]
    pub fn stdin(mut self, file: impl Into<PathBuf>) -> Self {
        self.stdin = Some(file.into());
        self
    }

    /// Sends its standard output to a file instead of capturing it.
    #[must_use]
    pub fn stdout(mut self, file: impl Into<PathBuf>) -> Self {
        self.stdout = Some(file.into());
        self
    }

    /// Pins it to one CPU, or to none.
    #[must_use]
    pub fn cpu(mut self, cpu: impl Into<Option<usize>>) -> Self {
        self.cpu = cpu.into();
        self
    }

    /// How long it may run before it counts as hung.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started or its files not be opened.
    pub fn start(self) -> Result<Running> {
        let mut words = self.enter;
        if let Some(cpu) = self.cpu {
            words.extend(["taskset".to_owned(), "-c".to_owned(), cpu.to_string()]);
        }
        words.extend(self.wrapper);
        words.push("env".to_owned());
        words.extend(self.env);
        words.push(self.name.clone());
        words.extend(self.args);

        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.stdin(match &self.stdin {
            Some(path) => File::open(path)
                .with_context(|| path.display().to_string())?
                .into(),
            None => Stdio::null(),
        });
        if let Some(path) = &self.stdout {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            command.stdout(file);
        }
        Running::start(self.name, command, self.stdout.is_none(), self.patience)
    }

    /// Starts it and waits for its end.
    ///
    /// # Errors
    /// As [`Program::start`] and [`Running::wait`].
    pub fn run(self) -> Result<Finished> {
        self.start()?.wait()
    }
}
