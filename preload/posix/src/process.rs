//! Doubling and end of a process.

/// Before the process ends by `_exit` or by running off the end of `exit`: what the connections still need.
pub fn before_exit() {}

/// What [`before_exec`] has prepared; dropped when the call came back, that is, failed.
#[derive(Debug)]
pub struct ExecPrepared(());

/// Before the process becomes another program: what the connections still need.
pub fn before_exec() -> ExecPrepared {
    ExecPrepared(())
}
