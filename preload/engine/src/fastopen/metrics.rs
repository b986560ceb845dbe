//! What is remembered of peers between connections: Linux's tcp_metrics, as far as fast open needs it.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use arrayvec::ArrayVec;
use sidewire_wire::tcp_options::FastOpen;

use crate::sysctl::Sysctl;
use crate::time::{Instant, NSEC_PER_SEC};

/// Peers remembered; the one that was longest untouched makes room.
pub const METRICS_MAX: usize = 4096;
/// Peers of which something new is told at a time ([`MetricsCache::take_learned`]); of more it is kept here only.
const LEARNED_MAX: usize = 16;
/// Doublings of the time that fast open stays off after a blackhole was met.
const BLACKHOLE_DOUBLINGS: u32 = 6;

/// What a peer has told, for every connection to it (FO-28).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerMetrics {
    /// Its MSS, in bytes; 0 when it is not known.
    pub mss: u16,
    /// Its cookie.
    pub cookie: Option<FastOpen>,
    /// The experimental option is to be tried next (FO-29): 1; it was tried and did not help: 2.
    pub try_exp: u8,
}

/// One peer.
#[derive(Clone, Debug, Default)]
struct Entry {
    told: PeerMetrics,
    /// SYNs with data that were lost in a row.
    syn_loss: u16,
    touched: Instant,
}

/// Cookies and MSS by destination, and whether fast open is off for a while.
#[derive(Debug, Default)]
pub struct MetricsCache {
    peers: BTreeMap<IpAddr, Entry>,
    /// Peers of which something new is known.
    learned: ArrayVec<IpAddr, LEARNED_MAX>,
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
            Some(Entry { told, .. }) => {
                let request = FastOpen::request(told.try_exp == 1);
                (told.mss, told.cookie.unwrap_or(request))
            }
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
        let e = self.entry(peer, now);
        let before = e.told;
        let told = &mut e.told;
        if mss != 0 {
            told.mss = mss;
        }
        match cookie.filter(|c| !c.is_request()) {
            Some(c) => told.cookie = Some(c),
            None if try_exp > 0 && told.cookie.is_none() && told.try_exp != 2 => {
                told.try_exp = try_exp;
            }
            None => {}
        }
        let news = e.told != before;
        e.syn_loss = if syn_lost {
            e.syn_loss.saturating_add(1)
        } else {
            0
        };
        if news && !self.learned.contains(&peer) {
            let _ = self.learned.try_push(peer);
        }
    }

    /// The entry of a peer that something is known of now.
    fn entry(&mut self, peer: IpAddr, now: Instant) -> &mut Entry {
        if self.peers.len() >= METRICS_MAX && !self.peers.contains_key(&peer) {
            let oldest = self.peers.iter().min_by_key(|(_, e)| e.touched);
            if let Some(oldest) = oldest.map(|(ip, _)| *ip) {
                self.peers.remove(&oldest);
            }
        }
        let e = self.peers.entry(peer).or_default();
        e.touched = now;
        e
    }

    /// Somebody else has met the peer: what it told them counts.
    pub fn learn(&mut self, peer: IpAddr, told: PeerMetrics, now: Instant) {
        self.entry(peer, now).told = told;
    }

    /// Tells of each peer that has told something new since the last time.
    pub fn take_learned(&mut self, mut f: impl FnMut(IpAddr, PeerMetrics)) {
        for peer in self.learned.drain(..) {
            if let Some(e) = self.peers.get(&peer) {
                f(peer, e.told);
            }
        }
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
    fn fo_28_what_is_new_is_told_once_and_what_others_tell_counts() {
        let mut m = MetricsCache::default();
        let mut told = alloc::vec::Vec::new();
        m.set(PEER, 1460, Some(cookie()), false, 0, Instant(1));
        m.set(PEER, 1460, None, false, 0, Instant(2));
        m.take_learned(|peer, e| told.push((peer, e)));
        m.set(PEER, 1460, Some(cookie()), true, 0, Instant(3));
        m.take_learned(|peer, e| told.push((peer, e)));
        let known = PeerMetrics {
            mss: 1460,
            cookie: Some(cookie()),
            try_exp: 0,
        };
        assert_eq!(told, [(PEER, known)]);

        let mut other = MetricsCache::default();
        other.learn(PEER, known, Instant(4));
        assert_eq!(other.get(PEER), (1460, cookie()));
        other.take_learned(|peer, _| panic!("{peer} is no news"));
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
