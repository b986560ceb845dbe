//! Firewalls that swallow fast opens: how long to leave it after one was met (Linux `tcp_fastopen_active_disable` and its
//! neighbours).

use crate::sysctl::Sysctl;
use crate::time::{Instant, NSEC_PER_SEC};

/// Doublings of the time that fast open stays off after a blackhole was met.
const BLACKHOLE_DOUBLINGS: u32 = 6;

/// Is fast open off for a while?
#[derive(Debug, Default)]
pub struct Blackhole {
    /// Met in a row.
    times: u32,
    since: Instant,
}

impl Blackhole {
    /// A firewall swallows what fast open sends: leave it for a while (Linux `tcp_fastopen_active_disable`).
    pub fn disable(&mut self, sysctl: &Sysctl, now: Instant) {
        if sysctl.tcp_fastopen_blackhole_timeout_s != 0 {
            self.times += 1;
            self.since = now;
        }
    }

    /// A fast open went well: the next blackhole counts from the start.
    pub fn worked(&mut self) {
        self.times = 0;
    }

    /// Was there a blackhole of which it is not known yet that it is gone?
    #[must_use]
    pub fn was_disabled(&self) -> bool {
        self.times > 0
    }

    /// Is fast open off (Linux `tcp_fastopen_active_should_disable`)?
    #[must_use]
    pub fn disabled(&self, sysctl: &Sysctl, now: Instant) -> bool {
        let base = u64::from(sysctl.tcp_fastopen_blackhole_timeout_s);
        if base == 0 || self.times == 0 {
            return false;
        }
        let doublings = (self.times - 1).min(BLACKHOLE_DOUBLINGS);
        now.since(self.since) < (base << doublings) * NSEC_PER_SEC
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blackhole_keeps_fast_open_off_for_longer_each_time() {
        let mut m = Blackhole::default();
        let on = Sysctl {
            tcp_fastopen_blackhole_timeout_s: 10,
            ..Sysctl::default()
        };
        let at = |s: u64| Instant(s * NSEC_PER_SEC);
        m.disable(&Sysctl::default(), at(1));
        assert!(!m.disabled(&on, at(1)));
        m.disable(&on, at(1));
        assert!(m.disabled(&on, at(10)) && !m.disabled(&on, at(11)));
        m.disable(&on, at(20));
        assert!(m.disabled(&on, at(39)) && !m.disabled(&on, at(40)));
        m.worked();
        assert!(!m.disabled(&on, at(21)));
    }
}
