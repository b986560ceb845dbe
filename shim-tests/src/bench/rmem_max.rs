//! The host's `net.core.rmem_max`: not a namespace's to choose, so it is set for
//! the host while a cell runs, and put back.

use std::fs;

use anyhow::{Context, Result};

const FILE: &str = "/proc/sys/net/core/rmem_max";

/// The host's limit as it was found; dropping this restores it.
pub struct RmemMax {
    found: String,
}

impl RmemMax {
    /// Notes what the host has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn note() -> Result<Self> {
        let found = fs::read_to_string(FILE).context(FILE)?.trim().to_owned();
        Ok(RmemMax { found })
    }

    /// Sets the limit, if it is another one.
    ///
    /// # Errors
    /// When we may not: it is root's.
    pub fn set(&self, bytes: u32) -> Result<()> {
        let now = fs::read_to_string(FILE).context(FILE)?;
        if now.trim() != bytes.to_string() {
            fs::write(FILE, bytes.to_string()).context(FILE)?;
        }
        Ok(())
    }
}

impl Drop for RmemMax {
    fn drop(&mut self) {
        if fs::read_to_string(FILE).is_ok_and(|now| now.trim() == self.found) {
            return;
        }
        if let Err(error) = fs::write(FILE, &self.found) {
            eprintln!("{FILE} could not be put back to {}: {error}", self.found);
        }
    }
}
