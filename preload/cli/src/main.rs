//! The sidewire command.
fn main() {}
