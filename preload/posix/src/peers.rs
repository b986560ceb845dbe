//! What is known of peers, for all processes of the user: Linux's tcp_metrics (FO-28). A program that connects once has its
//! cookie, and the first timeout, from the one before it.
//!
//! A table in a file: sets of a few records, found by the hash of namespace and addresses. Nobody locks it. A record that two
//! write at a time, or whose writer died, does not have its checksum, and is none.

use core::hash::Hasher;
use core::net::IpAddr;

use sidewire_engine::Instant;
use sidewire_engine::metrics::{MetricsKey, PeerMetrics};
use sidewire_engine::net::{Locked, PathMetrics};
use sidewire_wire::tcp_options::FastOpen;
use siphasher::sip::SipHasher13;

use crate::boot_file;

/// Sets in the table.
const SETS: u64 = 1024;
/// Records of a set: the one that was longest untouched makes room.
const WAYS: usize = 4;
/// Bytes of a record: namespace (8), the peer's address (16), ours (16), when the metrics of the way were touched (8), RTT,
/// its deviation, ssthresh, window, reordering (4 each), which of them are locked (1), length of the cookie (1), whether its
/// option is the experimental one (1), what is known of that option (1), MSS (2), nothing (6), cookie (16), checksum (8).
const RECORD: usize = 104;
const STAMP: usize = 40;
const PATH: usize = 48;
const FLAGS: usize = 68;
const COOKIE: usize = 80;
const SUM: usize = RECORD - 8;

type Record = [u8; RECORD];

/// What another process knows of a peer of this namespace.
pub(crate) fn recall(netns: u64, peer: &MetricsKey) -> Option<PeerMetrics> {
    Set::read(netns, peer)?.find(netns, peer)
}

/// Tells other processes what is known of a peer.
pub(crate) fn remember(netns: u64, peer: &MetricsKey, known: &PeerMetrics) {
    let Some(set) = Set::read(netns, peer) else {
        return;
    };
    let way = set.place_for(netns, peer);
    let mut all = set.find(netns, peer).unwrap_or_default();
    all.learn(known);
    let record = write(netns, peer, &all);
    boot_file::write_at(&set.file, &record, set.at + (way * RECORD) as u64);
}

/// The records among which a peer's is.
struct Set {
    file: sidewire_link::fd::Fd,
    /// Where they begin.
    at: u64,
    records: [Record; WAYS],
}

impl Set {
    fn read(netns: u64, peer: &MetricsKey) -> Option<Self> {
        let file = boot_file::open("metrics", |path| boot_file::create(path).is_some())?;
        let mut key = SipHasher13::new();
        key.write_u64(netns);
        key.write(&address(peer.daddr));
        key.write(&address(peer.saddr));
        let at = key.finish() % SETS * (WAYS * RECORD) as u64;
        let mut bytes = [0; WAYS * RECORD];
        // What was never written is zeros, or beyond the end.
        boot_file::read_at(&file, &mut bytes, at);
        let mut records = [[0; RECORD]; WAYS];
        for (to, from) in records.iter_mut().zip(bytes.chunks_exact(RECORD)) {
            to.copy_from_slice(from);
        }
        Some(Self { file, at, records })
    }

    fn find(&self, netns: u64, peer: &MetricsKey) -> Option<PeerMetrics> {
        self.records.iter().find_map(|r| read(r, netns, peer))
    }

    /// The peer's record, else one that is none, else the oldest.
    fn place_for(&self, netns: u64, peer: &MetricsKey) -> usize {
        let rank = |r: &Record| {
            if read(r, netns, peer).is_some() {
                (0, 0)
            } else if checksum(r) != field(r, SUM) {
                (1, 0)
            } else {
                (2, field(r, STAMP))
            }
        };
        (0..WAYS)
            .min_by_key(|&way| rank(&self.records[way]))
            .unwrap_or(0)
    }
}

fn address(peer: IpAddr) -> [u8; 16] {
    match peer {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .octets()
}

/// Eight bytes as a number.
fn field(r: &Record, at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&r[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// One of the metrics of the way.
fn metric(r: &Record, which: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&r[PATH + 4 * which..][..4]);
    u32::from_le_bytes(bytes)
}

/// Of the rest of a record.
fn checksum(r: &Record) -> u64 {
    let mut sum = SipHasher13::new();
    sum.write(&r[..SUM]);
    sum.finish()
}

fn write(netns: u64, peer: &MetricsKey, known: &PeerMetrics) -> Record {
    let cookie = known.cookie.unwrap_or_default();
    let path = &known.path;
    let mut r = [0; RECORD];
    r[..8].copy_from_slice(&netns.to_le_bytes());
    r[8..24].copy_from_slice(&address(peer.daddr));
    r[24..40].copy_from_slice(&address(peer.saddr));
    r[STAMP..][..8].copy_from_slice(&known.stamp.0.to_le_bytes());
    let metrics = [
        path.rtt_us,
        path.rttvar_us,
        path.ssthresh,
        path.cwnd,
        path.reordering,
    ];
    for (to, metric) in r[PATH..FLAGS].chunks_exact_mut(4).zip(metrics) {
        to.copy_from_slice(&metric.to_le_bytes());
    }
    r[FLAGS] = path.locked.bits();
    r[FLAGS + 1] = cookie.cookie().len() as u8;
    r[FLAGS + 2] = u8::from(cookie.experimental);
    r[FLAGS + 3] = known.try_exp;
    r[FLAGS + 4..][..2].copy_from_slice(&known.mss.to_le_bytes());
    r[COOKIE..][..cookie.cookie().len()].copy_from_slice(cookie.cookie());
    let sum = checksum(&r);
    r[SUM..].copy_from_slice(&sum.to_le_bytes());
    r
}

/// What a record says of the peer; `None` when it is another's, or none.
fn read(r: &Record, netns: u64, peer: &MetricsKey) -> Option<PeerMetrics> {
    let is = |at: usize, ip: IpAddr| r[at..at + 16] == address(ip);
    let theirs = is(8, peer.daddr) && is(24, peer.saddr);
    if field(r, 0) != netns || !theirs || checksum(r) != field(r, SUM) {
        return None;
    }
    let cookie = r[COOKIE..SUM].get(..usize::from(r[FLAGS + 1]))?;
    Some(PeerMetrics {
        path: PathMetrics {
            rtt_us: metric(r, 0),
            rttvar_us: metric(r, 1),
            ssthresh: metric(r, 2),
            cwnd: metric(r, 3),
            reordering: metric(r, 4),
            locked: Locked::from_bits_truncate(r[FLAGS]),
        },
        stamp: Instant(field(r, STAMP)),
        mss: u16::from_le_bytes([r[FLAGS + 4], r[FLAGS + 5]]),
        cookie: FastOpen::with_cookie(cookie, r[FLAGS + 2] != 0),
        try_exp: r[FLAGS + 3],
    })
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;
    use crate::syscall;

    /// A namespace that no other test has.
    fn netns() -> u64 {
        let mut bytes = [0; 8];
        syscall::getrandom(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn peer(daddr: [u8; 4]) -> MetricsKey {
        MetricsKey {
            saddr: [198, 51, 100, 1].into(),
            daddr: daddr.into(),
        }
    }

    fn known(mss: u16, at: u64) -> PeerMetrics {
        PeerMetrics {
            path: PathMetrics {
                rtt_us: 1_000_000 + u32::from(mss),
                rttvar_us: 2_000_000,
                ssthresh: 3,
                cwnd: 4,
                reordering: 5,
                locked: Locked::CWND | Locked::RTT,
            },
            stamp: Instant(at),
            mss,
            cookie: FastOpen::with_cookie(&[7; 16], true),
            try_exp: 2,
        }
    }

    #[test]
    fn what_one_process_remembers_another_recalls() {
        let (here, there) = (netns(), netns());
        let to = peer([192, 0, 2, 1]);
        assert_eq!(recall(here, &to), None);
        remember(here, &to, &known(1460, 1));
        remember(here, &to, &known(1400, 2));
        assert_eq!(recall(here, &to), Some(known(1400, 2)));
        assert_eq!(recall(there, &to), None);
        assert_eq!(recall(here, &peer([192, 0, 2, 2])), None);
        let from_elsewhere = MetricsKey {
            saddr: [198, 51, 100, 2].into(),
            ..to
        };
        assert_eq!(recall(here, &from_elsewhere), None);
        let v6 = MetricsKey {
            saddr: Ipv6Addr::LOCALHOST.into(),
            daddr: Ipv6Addr::LOCALHOST.into(),
        };
        let without = PeerMetrics {
            cookie: None,
            ..known(536, 1)
        };
        remember(here, &v6, &without);
        assert_eq!(recall(here, &v6), Some(without));
        assert_eq!(recall(here, &to), Some(known(1400, 2)));
    }

    #[test]
    fn who_knows_less_takes_nothing_away() {
        let (ns, to) = (netns(), peer([192, 0, 2, 1]));
        remember(ns, &to, &known(1460, 2));
        let older = PeerMetrics {
            path: PathMetrics::NONE,
            ..known(1460, 1)
        };
        remember(ns, &to, &older);
        assert_eq!(recall(ns, &to), Some(known(1460, 2)));
        let younger = PeerMetrics {
            cookie: None,
            mss: 0,
            try_exp: 0,
            ..known(1400, 3)
        };
        remember(ns, &to, &younger);
        let both = PeerMetrics {
            path: known(1400, 3).path,
            ..known(1460, 3)
        };
        assert_eq!(recall(ns, &to), Some(both));
    }

    #[test]
    fn a_torn_record_is_none() {
        let (ns, to) = (netns(), peer([192, 0, 2, 1]));
        let whole = write(ns, &to, &known(1460, 1));
        assert_eq!(read(&whole, ns, &to), Some(known(1460, 1)));
        for at in 0..RECORD {
            let mut torn = whole;
            torn[at] ^= 1;
            assert_eq!(read(&torn, ns, &to), None, "byte {at}");
        }
        let nobody = MetricsKey {
            saddr: Ipv6Addr::UNSPECIFIED.into(),
            daddr: Ipv6Addr::UNSPECIFIED.into(),
        };
        assert_eq!(read(&[0; RECORD], 0, &nobody), None);
    }

    #[test]
    fn the_peers_own_place_comes_first_then_a_free_one_then_the_oldest() {
        let (ns, to) = (netns(), peer([192, 0, 2, 1]));
        let mut set = Set::read(ns, &to).unwrap();
        let other = |n: u8, at: u64| write(ns, &peer([192, 0, 2, n]), &known(1460, at));
        set.records = [other(2, 30), other(3, 10), other(4, 20), other(5, 40)];
        assert_eq!(set.place_for(ns, &to), 1);
        set.records[3] = [0; RECORD];
        assert_eq!(set.place_for(ns, &to), 3);
        set.records[2] = write(ns, &to, &known(1460, 50));
        assert_eq!(set.place_for(ns, &to), 2);
    }
}
