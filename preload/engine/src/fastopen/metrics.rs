//! What is remembered of peers between connections: Linux's tcp_metrics, as far as fast open needs it.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use sidewire_wire::tcp_options::FastOpen;

use crate::sysctl::Sysctl;
use crate::time::{Instant, NSEC_PER_SEC};

/// Peers remembered; the one that was longest untouched makes room.
pub const METRICS_MAX: usize = 4096;
/// Doublings of the time that fast open stays off after a blackhole was met.
const BLACKHOLE_DOUBLINGS: u32 = 6;

/// One peer (FO-28).
#[derive(Clone, Debug, Default)]
struct Entry {
    mss: u16,
    cookie: Option<FastOpen>,
    /// The experimental option is to be tried next (FO-29): 1; it was tried and did not help: 2.
    try_exp: u8,
    /// SYNs with data that were lost in a row.
    syn_loss: u16,
    touched: Instant,
}

/// Cookies and MSS by destination, and whether fast open is off for a while.
#[derive(Debug, Default)]
pub struct MetricsCache {
    peers: BTreeMap<IpAddr, Entry>,
    /// Blackholes met in a row.
    disabled_times: u32,
    disabled_since: Instant,
}

impl MetricsCache {
    /// The peer's MSS (0: unknown) and the option for a SYN to it: its cookie, or a request for one
    /// (Linux `tcp_fastopen_cache_get`).
    #[must_use]
    pub fn get(&self, peer: IpAddr) -> (u16, FastOpen) {
        match self.peers.get(&peer) {
            Some(e) => (e.mss, e.cookie.unwrap_or(FastOpen::request(e.try_exp == 1))),
            None => (0, FastOpen::request(false)),
        }
    }

    /// What a handshake taught (Linux `tcp_fastopen_cache_set`).
    pub fn set(
        &mut self,
        peer: IpAddr,
        mss: u16,
        cookie: Option<FastOpen>,
        syn_lost: bool,
        try_exp: u8,
        now: Instant,
    ) {
        if self.peers.len() >= METRICS_MAX && !self.peers.contains_key(&peer) {
            let oldest = self.peers.iter().min_by_key(|(_, e)| e.touched);
            if let Some(oldest) = oldest.map(|(ip, _)| *ip) {
                self.peers.remove(&oldest);
            }
        }
        let e = self.peers.entry(peer).or_default();
        e.touched = now;
        if mss != 0 {
            e.mss = mss;
        }
        match cookie.filter(|c| !c.is_request()) {
            Some(c) => e.cookie = Some(c),
            None if try_exp > 0 && e.cookie.is_none() && e.try_exp != 2 => e.try_exp = try_exp,
            None => {}
        }
        e.syn_loss = if syn_lost {
            e.syn_loss.saturating_add(1)
        } else {
            0
        };
    }

    /// A firewall swallows what fast open sends: leave it for a while (Linux `tcp_fastopen_active_disable`).
    pub fn disable(&mut self, sysctl: &Sysctl, now: Instant) {
        if sysctl.tcp_fastopen_blackhole_timeout_s != 0 {
            self.disabled_times += 1;
            self.disabled_since = now;
        }
    }

    /// A fast open went well: the next blackhole counts from the start.
    pub fn worked(&mut self) {
        self.disabled_times = 0;
    }

    /// Was there a blackhole of which it is not known yet that it is gone?
    #[must_use]
    pub fn was_disabled(&self) -> bool {
        self.disabled_times > 0
    }

    /// Is fast open off (Linux `tcp_fastopen_active_should_disable`)?
    #[must_use]
    pub fn disabled(&self, sysctl: &Sysctl, now: Instant) -> bool {
        let base = u64::from(sysctl.tcp_fastopen_blackhole_timeout_s);
        if base == 0 || self.disabled_times == 0 {
            return false;
        }
        let doublings = (self.disabled_times - 1).min(BLACKHOLE_DOUBLINGS);
        now.since(self.disabled_since) < (base << doublings) * NSEC_PER_SEC
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn cookie() -> FastOpen {
        FastOpen::with_cookie(&[1; 8], false).unwrap()
    }

    #[test]
    fn fo_28_a_cookie_stays_until_another_comes() {
        let mut m = MetricsCache::default();
        assert!(m.get(PEER).1.is_request());
        m.set(PEER, 1460, Some(cookie()), false, 0, Instant(1));
        m.set(PEER, 0, None, true, 0, Instant(2));
        assert_eq!(m.get(PEER), (1460, cookie()));
    }

    #[test]
    fn fo_29_the_experimental_option_is_tried_once() {
        let mut m = MetricsCache::default();
        m.set(PEER, 0, None, false, 1, Instant(1));
        assert!(m.get(PEER).1.experimental);
        m.set(PEER, 0, None, false, 2, Instant(1));
        assert!(!m.get(PEER).1.experimental);
        m.set(PEER, 0, None, false, 1, Instant(1));
        assert!(!m.get(PEER).1.experimental);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut m = MetricsCache::default();
        for i in 0..METRICS_MAX as u32 + 10 {
            let peer = IpAddr::V4(Ipv4Addr::from(i));
            m.set(peer, 1000, None, false, 0, Instant(u64::from(i)));
        }
        assert_eq!(m.peers.len(), METRICS_MAX);
        assert_eq!(m.get(IpAddr::V4(Ipv4Addr::from(0))).0, 0);
    }

    #[test]
    fn a_blackhole_keeps_fast_open_off_for_longer_each_time() {
        let mut m = MetricsCache::default();
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
