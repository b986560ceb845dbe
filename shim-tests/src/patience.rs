//! How long the lab waits for a condition before it calls a program hung, and
//! how an interrupt (Ctrl-C) ends every such wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The longest that a program under test may take; only a hung one does.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition that nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes SIGINT, SIGTERM and SIGHUP end every wait of the lab with an error, so
/// that the usual clean-up runs.
///
/// # Errors
/// When the handlers cannot be installed, or were before.
pub fn interrupt_on_signals() -> Result<()> {
    Ok(ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::Relaxed)
    })?)
}

/// Whether such a signal has arrived.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Looks at `condition` until it gives a value.
///
/// # Errors
/// What `condition` failed with; that `what` did not come about within
/// [`PATIENCE`]; or the interrupt.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if interrupted() {
            bail!("interrupted");
        }
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
