//! The comparison with the kernel: what is measured, how, and how it is shown.

pub mod cell;
pub mod chart;
pub mod measurement;
pub mod report;
pub mod rmem_max;
