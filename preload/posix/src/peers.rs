//! What peers told for later connections, for all processes of the user: Linux's tcp_metrics, as far as fast open needs it
//! (FO-28). A program that connects once has its cookie from the one before it.
//!
//! A table in a file: sets of a few records, found by the hash of namespace and address. Nobody locks it. A record that two
//! write at a time, or whose writer died, does not have its checksum, and is none.

use core::hash::Hasher;
use core::net::{IpAddr, Ipv6Addr};

use sidewire_engine::fastopen::PeerMetrics;
use sidewire_wire::tcp_options::FastOpen;
use siphasher::sip::SipHasher13;

use crate::boot_file;
use crate::stack::monotonic_ns;

/// Sets in the table.
const SETS: u64 = 1024;
/// Records of a set: the one that was longest untouched makes room.
const WAYS: usize = 4;
/// Bytes of a record: namespace (8), address (16), when it was written (8), cookie (16), MSS (2), length of the cookie (1),
/// whether its option is the experimental one (1), what is known of that option (1), nothing (3), checksum (8).
const RECORD: usize = 64;
const SUM: usize = RECORD - 8;

type Record = [u8; RECORD];

/// What another process was told by a peer of this namespace.
pub(crate) fn recall(netns: u64, peer: IpAddr) -> Option<PeerMetrics> {
    let set = Set::read(netns, peer)?;
    set.records.iter().find_map(|r| read(r, netns, peer))
}

/// Tells other processes what a peer told us.
pub(crate) fn remember(netns: u64, peer: IpAddr, told: &PeerMetrics) {
    let Some(set) = Set::read(netns, peer) else {
        return;
    };
    let way = set.place_for(netns, peer);
    let record = write(netns, peer, told);
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
    fn read(netns: u64, peer: IpAddr) -> Option<Self> {
        let file = boot_file::open("peers", |path| boot_file::create(path).is_some())?;
        let mut key = SipHasher13::new();
        key.write_u64(netns);
        key.write(&address(peer));
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

    /// The peer's record, else one that is none, else the oldest.
    fn place_for(&self, netns: u64, peer: IpAddr) -> usize {
        let rank = |r: &Record| {
            if read(r, netns, peer).is_some() {
                (0, 0)
            } else if checksum(r) != field(r, SUM) {
                (1, 0)
            } else {
                (2, field(r, 24))
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

/// Of the rest of a record.
fn checksum(r: &Record) -> u64 {
    let mut sum = SipHasher13::new();
    sum.write(&r[..SUM]);
    sum.finish()
}

fn write(netns: u64, peer: IpAddr, told: &PeerMetrics) -> Record {
    let cookie = told.cookie.unwrap_or_default();
    let mut r = [0; RECORD];
    r[..8].copy_from_slice(&netns.to_le_bytes());
    r[8..24].copy_from_slice(&address(peer));
    r[24..32].copy_from_slice(&monotonic_ns().to_le_bytes());
    r[32..32 + cookie.cookie().len()].copy_from_slice(cookie.cookie());
    r[48..50].copy_from_slice(&told.mss.to_le_bytes());
    r[50] = cookie.cookie().len() as u8;
    r[51] = u8::from(cookie.experimental);
    r[52] = told.try_exp;
    let sum = checksum(&r);
    r[SUM..].copy_from_slice(&sum.to_le_bytes());
    r
}

/// What a record says of the peer; `None` when it is another's, or none.
fn read(r: &Record, netns: u64, peer: IpAddr) -> Option<PeerMetrics> {
    let address: [u8; 16] = r[8..24].try_into().ok()?;
    let theirs = Ipv6Addr::from(address).to_canonical() == peer.to_canonical();
    if field(r, 0) != netns || !theirs || checksum(r) != field(r, SUM) {
        return None;
    }
    let cookie = r[32..48].get(..usize::from(r[50]))?;
    Some(PeerMetrics {
        mss: u16::from_le_bytes([r[48], r[49]]),
        cookie: FastOpen::with_cookie(cookie, r[51] != 0),
        try_exp: r[52],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall;

    /// A namespace that no other test has.
    fn netns() -> u64 {
        let mut bytes = [0; 8];
        syscall::getrandom(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn told(mss: u16) -> PeerMetrics {
        PeerMetrics {
            mss,
            cookie: FastOpen::with_cookie(&[7; 12], true),
            try_exp: 2,
        }
    }

    #[test]
    fn what_one_process_remembers_another_recalls() {
        let (here, there) = (netns(), netns());
        let peer: IpAddr = [192, 0, 2, 1].into();
        assert_eq!(recall(here, peer), None);
        remember(here, peer, &told(1460));
        remember(here, peer, &told(1400));
        assert_eq!(recall(here, peer), Some(told(1400)));
        assert_eq!(recall(there, peer), None);
        assert_eq!(recall(here, [192, 0, 2, 2].into()), None);
        let without = PeerMetrics {
            cookie: None,
            ..told(536)
        };
        let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
        remember(here, v6, &without);
        assert_eq!(recall(here, v6), Some(without));
        assert_eq!(recall(here, peer), Some(told(1400)));
    }

    #[test]
    fn a_torn_record_is_none() {
        let (ns, peer) = (netns(), IpAddr::from([192, 0, 2, 1]));
        let whole = write(ns, peer, &told(1460));
        assert_eq!(read(&whole, ns, peer), Some(told(1460)));
        for at in 0..RECORD {
            let mut torn = whole;
            torn[at] ^= 1;
            assert_eq!(read(&torn, ns, peer), None, "byte {at}");
        }
        assert_eq!(read(&[0; RECORD], 0, Ipv6Addr::UNSPECIFIED.into()), None);
    }

    #[test]
    fn the_peers_own_place_comes_first_then_a_free_one_then_the_oldest() {
        let (ns, peer) = (netns(), IpAddr::from([192, 0, 2, 1]));
        let mut set = Set::read(ns, peer).unwrap();
        let other = |n: u8, at: u64| {
            let mut r = write(ns, [192, 0, 2, n].into(), &told(1460));
            r[24..32].copy_from_slice(&at.to_le_bytes());
            let sum = checksum(&r);
            r[SUM..].copy_from_slice(&sum.to_le_bytes());
            r
        };
        set.records = [other(2, 30), other(3, 10), other(4, 20), other(5, 40)];
        assert_eq!(set.place_for(ns, peer), 1);
        set.records[3] = [0; RECORD];
        assert_eq!(set.place_for(ns, peer), 3);
        set.records[2] = write(ns, peer, &told(1460));
        assert_eq!(set.place_for(ns, peer), 2);
    }
}
