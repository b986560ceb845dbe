//! Who carries a program's TCP, and what the shim says about it afterwards.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The stack under a program.
#[derive(Clone, Debug)]
pub enum Stack {
    /// The kernel's TCP: nothing is put in front of the program.
    Kernel,
    /// The shim in front of the program.
    Sidewire(Library),
}

impl Stack {
    /// The shim that this build made.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn sidewire() -> Result<Self> {
        Library::find().map(Stack::Sidewire)
    }

    /// `kernel` or `sidewire`.
    pub fn name(&self) -> &'static str {
        match self {
            Stack::Kernel => "kernel",
            Stack::Sidewire(_) => "sidewire",
        }
    }

    /// Whether the shim is in front.
    pub fn is_sidewire(&self) -> bool {
        matches!(self, Stack::Sidewire(_))
    }
}

/// A `libsidewire.so` on disk.
#[derive(Clone, Debug)]
pub struct Library(PathBuf);

impl Library {
    /// The release build in this target directory, or `$SIDEWIRE_LIBRARY`.
    ///
    /// # Errors
    /// When there is none, with the command that makes one.
    pub fn find() -> Result<Self> {
        if let Some(path) = env::var_os("SIDEWIRE_LIBRARY") {
            let path = PathBuf::from(path);
            ensure!(
                path.is_file(),
                "SIDEWIRE_LIBRARY={}: no such file",
                path.display()
            );
            return Ok(Library(path));
        }
        let program = env::current_exe().context("our own path")?;
        program
            .ancestors()
            .map(|dir| dir.join("release/libsidewire.so"))
            .find(|path| path.is_file())
            .map(Library)
            .context("libsidewire.so is not built: run `cargo build --release -p sidewire-shim`")
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// What a process under the shim counted from its start to its end
/// (`SIDEWIRE_STATS`).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Stats {
    /// Connections carried by the engine.
    pub connections_engine: u64,
    /// TCP connections that were left to the kernel.
    pub connections_kernel: u64,
    /// Frames given to the device.
    pub tx_frames: u64,
    /// Frames taken from the device.
    pub rx_frames: u64,
    /// Payload bytes that the kernel copied to where the program read them.
    pub rx_direct_bytes: u64,
    /// Segments sent again.
    pub retransmits: u64,
}

impl Stats {
    /// Reads what a process left.
    ///
    /// # Errors
    /// When it left nothing, or not this.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| {
            format!(
                "the shim left no counters in {}: was it loaded?",
                file.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("counters {text:?}"))
    }
}
