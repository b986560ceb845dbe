//! ICMP errors about our segments: Linux's `tcp_v4_err` (spec/errors.md ER-17 to ER-19).

use sidewire_wire::icmp::IcmpError;

use crate::mib::Counter;
use crate::stack::{Io, Stack};

impl Stack {
    /// Takes an ICMP error.
    pub fn icmp(&mut self, io: &mut Io<'_>, err: &IcmpError) {
        let _ = (io, err);
        self.sh.mib.inc(Counter::InIcmp);
    }
}
