//! The conformance run: every probe of `conformance/` natively and under the
//! shim, against the same peer, and what each row of the behaviour tables says
//! of it. See `conformance/README.md`.

pub mod lines;
pub mod probes;
pub mod rows;
pub mod verdict;
