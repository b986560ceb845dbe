//! What is kept of a peer between connections: Linux's `tcp_metrics.c`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::IpAddr;

use arrayvec::ArrayVec;
use sidewire_wire::tcp_options::FastOpen;

use crate::demux::TupleHash;
use crate::net::{Dst, Locked, PathMetrics, RouteMetrics, Tuple};
use crate::rtt::{JIFFY_US, tcp_rto_fallback, tcp_rto_min_us};
use crate::sock::{CaState, TCP_INFINITE_SSTHRESH, TcpSock};
use crate::stack::{Cx, Shared};
use crate::sysctl::Sysctl;
use crate::time::{Instant, NSEC_PER_SEC};

/// Sets of the table, by the hash of the addresses.
const SETS: u64 = 1024;
/// Peers of a set; the one that was longest untouched makes room (Linux: TCP_METRICS_RECLAIM_DEPTH).
const WAYS: usize = 4;
/// Peers remembered.
pub const METRICS_MAX: usize = SETS as usize * WAYS;
/// What was not touched for so long is the route's again, nanoseconds.
const TCP_METRICS_TIMEOUT: u64 = 3_600 * NSEC_PER_SEC;
/// Peers of which something new is told at a time ([`Stack::take_learned`](crate::Stack::take_learned)); of more it is kept
/// here only.
const LEARNED_MAX: usize = 16;
/// Peers a second of which ends of connections are told to others, and others are asked before a connection begins: who
/// has more connections than that has a table of his own soon, and each costs some system calls.
const SHARED_PER_SECOND: u32 = 16;
/// What is younger is not asked for.
const FRESH: u64 = NSEC_PER_SEC;

/// Whose metrics: as Linux, by both addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MetricsKey {
    /// Ours.
    pub saddr: IpAddr,
    /// The peer's.
    pub daddr: IpAddr,
}

impl MetricsKey {
    pub(crate) const fn of(tuple: &Tuple) -> Self {
        Self {
            saddr: tuple.local.ip(),
            daddr: tuple.remote.ip(),
        }
    }
}

/// What is known of a peer (Linux `struct tcp_metrics_block`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerMetrics {
    /// Of the way to it.
    pub path: PathMetrics,
    /// When that was last touched.
    pub stamp: Instant,
    /// Its MSS for fast open, in bytes; 0 when it is not known.
    pub mss: u16,
    /// Its fast-open cookie.
    pub cookie: Option<FastOpen>,
    /// The experimental option is to be tried next (FO-29): 1; it was tried and did not help: 2.
    pub try_exp: u8,
}

impl PeerMetrics {
    /// Takes what somebody else knows, where it is younger or more.
    pub fn learn(&mut self, told: &Self) {
        if told.stamp >= self.stamp {
            (self.path, self.stamp) = (told.path, told.stamp);
        }
        if told.mss != 0 {
            self.mss = told.mss;
        }
        if told.cookie.is_some() {
            (self.cookie, self.try_exp) = (told.cookie, told.try_exp);
        } else if self.cookie.is_none() {
            self.try_exp = self.try_exp.max(told.try_exp);
        }
    }
}

#[derive(Clone, Debug)]
struct Block {
    key: MetricsKey,
    known: PeerMetrics,
    /// SYNs with data that were lost in a row.
    syn_loss: u16,
}

/// So many a second.
#[derive(Debug, Default)]
struct PerSecond {
    second: u64,
    taken: u32,
}

impl PerSecond {
    fn take(&mut self, now: Instant) -> bool {
        let second = now.0 / NSEC_PER_SEC;
        if second != self.second {
            (self.second, self.taken) = (second, 0);
        }
        let left = self.taken < SHARED_PER_SECOND;
        self.taken += u32::from(left);
        left
    }
}

/// The table.
#[derive(Debug)]
pub struct MetricsTable {
    sets: BTreeMap<u64, Vec<Block>>,
    hash: TupleHash,
    /// Peers of which something new is known.
    learned: ArrayVec<MetricsKey, LEARNED_MAX>,
    told: PerSecond,
    asked: PerSecond,
}

impl MetricsTable {
    /// An empty one.
    #[must_use]
    pub const fn new(hash: TupleHash) -> Self {
        Self {
            sets: BTreeMap::new(),
            hash,
            learned: ArrayVec::new_const(),
            told: PerSecond {
                second: 0,
                taken: 0,
            },
            asked: PerSecond {
                second: 0,
                taken: 0,
            },
        }
    }

    fn set(&self, key: &MetricsKey) -> u64 {
        self.hash.hash_one(key) % SETS
    }

    fn find(&self, key: &MetricsKey) -> Option<&Block> {
        self.sets
            .get(&self.set(key))?
            .iter()
            .find(|b| b.key == *key)
    }

    fn find_mut(&mut self, key: &MetricsKey) -> Option<&mut Block> {
        let set = self.set(key);
        self.sets.get_mut(&set)?.iter_mut().find(|b| b.key == *key)
    }

    /// What is known of a peer; what is too old is the route's again (Linux `tcp_get_metrics` and `tcpm_check_stamp`).
    fn get(
        &mut self,
        key: &MetricsKey,
        route: &RouteMetrics,
        now: Instant,
    ) -> Option<&mut PeerMetrics> {
        let known = &mut self.find_mut(key)?.known;
        if now.since(known.stamp) > TCP_METRICS_TIMEOUT {
            (known.path, known.stamp) = (route.path, now);
        }
        Some(known)
    }

    /// A peer that something is known of from now on: it begins with what the route sets (Linux `tcpm_new`).
    fn insert(&mut self, key: &MetricsKey, path: PathMetrics, now: Instant) {
        let set = self.set(key);
        let set = self.sets.entry(set).or_default();
        if set.iter().any(|b| b.key == *key) {
            return;
        }
        if set.len() >= WAYS
            && let Some(oldest) = (0..set.len()).min_by_key(|&i| set[i].known.stamp)
        {
            set.swap_remove(oldest);
        }
        set.push(Block {
            key: *key,
            known: PeerMetrics {
                path,
                stamp: now,
                ..PeerMetrics::default()
            },
            syn_loss: 0,
        });
    }

    /// The peer's MSS (0: unknown) and the option for a SYN to it: its cookie, or a request for one
    /// (Linux `tcp_fastopen_cache_get`).
    #[must_use]
    pub fn cookie(&self, key: &MetricsKey) -> (u16, FastOpen) {
        match self.find(key) {
            Some(Block { known, .. }) => {
                let request = FastOpen::request(known.try_exp == 1);
                (known.mss, known.cookie.unwrap_or(request))
            }
            None => (0, FastOpen::request(false)),
        }
    }

    /// What the handshake of a fast open taught (Linux `tcp_fastopen_cache_set`).
    pub(crate) fn set_cookie(
        &mut self,
        (key, route): (&MetricsKey, &RouteMetrics),
        mss: u16,
        cookie: Option<FastOpen>,
        syn_lost: bool,
        try_exp: u8,
        now: Instant,
    ) {
        self.insert(key, route.path, now);
        let Some(block) = self.find_mut(key) else {
            return;
        };
        let before = block.known;
        let known = &mut block.known;
        if mss != 0 {
            known.mss = mss;
        }
        match cookie.filter(|c| !c.is_request()) {
            Some(c) => known.cookie = Some(c),
            None if try_exp > 0 && known.cookie.is_none() && known.try_exp != 2 => {
                known.try_exp = try_exp;
            }
            None => {}
        }
        let news = block.known != before;
        block.syn_loss = if syn_lost {
            block.syn_loss.saturating_add(1)
        } else {
            0
        };
        if news {
            self.news(key);
        }
    }

    fn news(&mut self, key: &MetricsKey) {
        if !self.learned.contains(key) {
            let _ = self.learned.try_push(*key);
        }
    }

    /// Is somebody else to be asked what he knows of the peer? For a fast open always.
    pub(crate) fn asks(&mut self, key: &MetricsKey, fastopen: bool, now: Instant) -> bool {
        let fresh = self
            .find(key)
            .is_some_and(|b| now.since(b.known.stamp) < FRESH);
        fastopen || (!fresh && self.asked.take(now))
    }

    /// Somebody else has met the peer.
    pub(crate) fn learn(&mut self, key: &MetricsKey, told: &PeerMetrics, now: Instant) {
        // A clock that is ahead of ours would keep it for ever.
        let told = PeerMetrics {
            stamp: told.stamp.min(now),
            ..*told
        };
        self.insert(key, told.path, told.stamp);
        if let Some(block) = self.find_mut(key) {
            block.known.learn(&told);
        }
    }

    /// Tells of each peer of which something new is known since the last time.
    pub(crate) fn take_learned(&mut self, mut f: impl FnMut(MetricsKey, PeerMetrics)) {
        if self.learned.is_empty() {
            return;
        }
        for key in core::mem::take(&mut self.learned) {
            if let Some(block) = self.find(&key) {
                f(key, block.known);
            }
        }
    }
}

/// The route whose metrics count; none where the socket has let go of it.
fn sk_dst(sk: &TcpSock) -> Option<&Dst> {
    sk.dst.as_ref().filter(|d| d.generation != Dst::RESET)
}

/// A connection ends in good order: what it has met is kept (Linux `tcp_update_metrics`).
pub(crate) fn tcp_update_metrics(sk: &TcpSock, cx: &mut Cx<'_, '_>) {
    let Shared {
        metrics, sysctl, ..
    } = &mut *cx.sh;
    let Some(dst) = sk_dst(sk).filter(|_| !sysctl.tcp_no_metrics_save) else {
        return;
    };
    let (key, route) = (MetricsKey::of(&sk.tuple), &dst.metrics);
    let measured = sk.backoff == 0 && sk.srtt_us != 0;
    if measured {
        metrics.insert(&key, route.path, cx.now);
    }
    let Some(known) = metrics.get(&key, route, cx.now) else {
        return;
    };
    if measured {
        known.path.update(sk, sysctl);
        known.stamp = cx.now;
    } else if !known.path.locked.contains(Locked::RTT) {
        // No packet returned in time: what was known of the time does not hold.
        known.path.rtt_us = 0;
    }
    if metrics.told.take(cx.now) {
        metrics.news(&key);
    }
}

/// What earlier connections have met counts for the new one: bound of the window, ssthresh, reordering, and the first RTO
/// (Linux `tcp_init_metrics`).
pub(crate) fn tcp_init_metrics(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    sk.snd_ssthresh = TCP_INFINITE_SSTHRESH;
    let Shared {
        metrics, sysctl, ..
    } = &mut *cx.sh;
    let key = MetricsKey::of(&sk.tuple);
    let known = sk_dst(sk).and_then(|dst| metrics.get(&key, &dst.metrics, cx.now));
    let path = known.map_or(PathMetrics::NONE, |known| known.path);
    if path.locked.contains(Locked::CWND) && path.cwnd != 0 {
        sk.snd_cwnd_clamp = path.cwnd;
    }
    if path.ssthresh != 0 && !sysctl.tcp_no_ssthresh_metrics_save {
        sk.snd_ssthresh = path.ssthresh.min(sk.snd_cwnd_clamp);
    }
    if path.reordering != 0 {
        sk.reordering = path.reordering;
    }
    if path.rtt_us > sk.srtt_us {
        // SYNs are small: data may take longer. The estimates stay as they are.
        let rtt = path.rtt_us / 8 / JIFFY_US * JIFFY_US;
        sk.rto_us = rtt.saturating_add(rtt.saturating_mul(2).max(tcp_rto_min_us(sk)));
    } else {
        tcp_rto_fallback(sk);
    }
}

/// Has a connection with the peer ended well before (Linux `tcp_peer_is_proven`)?
pub(crate) fn tcp_peer_is_proven(
    metrics: &mut MetricsTable,
    key: &MetricsKey,
    route: &RouteMetrics,
    now: Instant,
) -> bool {
    metrics
        .get(key, route, now)
        .is_some_and(|known| known.path.rtt_us != 0)
}

impl PathMetrics {
    /// What a connection that ends has met, but for what is locked.
    fn update(&mut self, sk: &TcpSock, sysctl: &Sysctl) {
        let free = !self.locked;
        let shorter = i64::from(self.rtt_us) - i64::from(sk.srtt_us);
        if free.contains(Locked::RTT) {
            self.rtt_us = if shorter <= 0 {
                // Better too long than too short.
                sk.srtt_us
            } else {
                self.rtt_us - (shorter >> 3) as u32
            };
        }
        if free.contains(Locked::RTTVAR) {
            // Half of eight times the difference is four times its deviation.
            let var = ((shorter.unsigned_abs() >> 1) as u32).max(sk.mdev_us);
            self.rttvar_us = if var >= self.rttvar_us {
                var
            } else {
                self.rttvar_us - ((self.rttvar_us - var) >> 2)
            };
        }
        self.update_window(sk, sysctl);
    }

    fn update_window(&mut self, sk: &TcpSock, sysctl: &Sysctl) {
        let free = !self.locked;
        let ssthresh = free.contains(Locked::SSTHRESH) && !sysctl.tcp_no_ssthresh_metrics_save;
        let cwnd = free.contains(Locked::CWND);
        if sk.snd_ssthresh >= TCP_INFINITE_SSTHRESH {
            // The first slow start did not end.
            if ssthresh && self.ssthresh != 0 {
                self.ssthresh = self.ssthresh.max(sk.snd_cwnd >> 1);
            }
            if cwnd {
                self.cwnd = self.cwnd.max(sk.snd_cwnd);
            }
        } else if !sk.in_slow_start() && sk.ca_state == CaState::Open {
            // Congestion avoidance: the window says something.
            if ssthresh {
                self.ssthresh = sk.snd_ssthresh.max(sk.snd_cwnd >> 1);
            }
            if cwnd {
                self.cwnd = self.cwnd.midpoint(sk.snd_cwnd);
            }
        } else {
            // The window says nothing, and ssthresh perhaps not, either.
            if cwnd {
                self.cwnd = self.cwnd.midpoint(sk.snd_ssthresh);
            }
            if ssthresh && self.ssthresh != 0 {
                self.ssthresh = self.ssthresh.max(sk.snd_ssthresh);
            }
            if free.contains(Locked::REORDERING)
                && self.reordering < sk.reordering
                && sk.reordering != sysctl.tcp_reordering
            {
                self.reordering = sk.reordering;
            }
        }
    }
}

#[cfg(test)]
mod tests;
