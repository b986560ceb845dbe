//! What ICMP told of paths: the exceptions of Linux's next hops (`fib_nh_exception`). Every connection to the same destination
//! goes by them, until they expire.

use core::net::IpAddr;

use sidewire_engine::net::Dst;

/// Destinations that are remembered; the one that expires first makes room.
const PATHS_MAX: usize = 512;

/// The path to a destination by a next hop.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Path {
    daddr: IpAddr,
    oif: u32,
    gateway: Option<IpAddr>,
}

impl Path {
    fn of(dst: &Dst, daddr: IpAddr) -> Self {
        let Dst { oif, gateway, .. } = *dst;
        Self {
            daddr,
            oif,
            gateway,
        }
    }
}

struct Exception {
    path: Path,
    mtu: u32,
    /// Its routers shall cut what is larger.
    locked: bool,
    /// Nanoseconds of the monotonic clock.
    until: u64,
}

/// The paths of which something was told.
pub(crate) struct PathMtus {
    told: Vec<Exception>,
    /// When the first one expires.
    next: u64,
    changes: u32,
}

impl PathMtus {
    pub(crate) const fn new() -> Self {
        Self {
            told: Vec::new(),
            next: u64::MAX,
            changes: 0,
        }
    }

    /// Changes when a route may have another MTU than before.
    #[inline]
    pub(crate) fn generation(&self, now: u64) -> u32 {
        self.changes.wrapping_add(u32::from(self.next <= now))
    }

    /// A router of the path to `daddr` takes no more than `dst` has now.
    pub(crate) fn learn(&mut self, dst: &Dst, daddr: IpAddr, until: u64) {
        let path = Path::of(dst, daddr);
        self.told.retain(|e| e.path != path);
        if self.told.len() == PATHS_MAX
            && let Some(first) = self.told.iter().position(|e| e.until == self.next)
        {
            self.told.swap_remove(first);
        }
        self.told.push(Exception {
            path,
            mtu: dst.mtu,
            locked: dst.metrics.mtu_locked,
            until,
        });
        self.changed();
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: u64) {
        if self.next <= now {
            self.told.retain(|e| e.until > now);
            self.changed();
        }
    }

    fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
        self.next = self.told.iter().map(|e| e.until).min().unwrap_or(u64::MAX);
    }

    /// What was told of the path counts for the route.
    pub(crate) fn apply(&self, dst: &mut Dst, daddr: IpAddr) {
        if self.told.is_empty() || dst.metrics.mtu_locked {
            return;
        }
        let path = Path::of(dst, daddr);
        if let Some(e) = self.told.iter().find(|e| e.path == path) {
            dst.mtu = dst.mtu.min(e.mtu);
            dst.metrics.mtu_locked = e.locked;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use sidewire_engine::net::RouteMetrics;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn dst(oif: u32, mtu: u32) -> Dst {
        Dst {
            oif,
            gateway: None,
            saddr: peer(1),
            mtu,
            advmss: 0,
            gso_max_size: 65536,
            gso_max_segs: 64,
            sg: true,
            zerocopy_copied: true,
            copied_in_cutting: false,
            metrics: RouteMetrics::default(),
            generation: 1,
        }
    }

    fn mtu(paths: &PathMtus, oif: u32, to: IpAddr) -> u32 {
        let mut dst = dst(oif, 1500);
        paths.apply(&mut dst, to);
        dst.mtu
    }

    #[test]
    fn what_was_told_counts_for_that_path_until_it_expires() {
        let mut paths = PathMtus::new();
        let before = paths.generation(0);
        paths.learn(&dst(2, 1000), peer(2), 100);
        assert_ne!(paths.generation(0), before);
        assert_eq!(mtu(&paths, 2, peer(2)), 1000);
        assert_eq!(
            [mtu(&paths, 3, peer(2)), mtu(&paths, 2, peer(3))],
            [1500; 2]
        );
        let told = paths.generation(99);
        paths.expire(99);
        assert_eq!(
            (paths.generation(99), mtu(&paths, 2, peer(2))),
            (told, 1000)
        );
        // Who looks at the number before anything is forgotten sees the same as after that.
        let over = paths.generation(100);
        assert_ne!(over, told);
        paths.expire(100);
        assert_eq!(
            (paths.generation(100), mtu(&paths, 2, peer(2))),
            (over, 1500)
        );
    }

    #[test]
    fn a_locked_path_stays_locked() {
        let mut paths = PathMtus::new();
        let mut small = dst(2, 552);
        small.metrics.mtu_locked = true;
        paths.learn(&small, peer(2), 100);
        let mut route = dst(2, 1500);
        paths.apply(&mut route, peer(2));
        assert_eq!((route.mtu, route.metrics.mtu_locked), (552, true));
    }

    #[test]
    fn the_first_to_expire_makes_room() {
        let mut paths = PathMtus::new();
        for i in 0..PATHS_MAX as u32 + 1 {
            let [.., high, low] = i.to_be_bytes();
            let to = Ipv4Addr::new(10, 0, high, low).into();
            paths.learn(&dst(2, 1000), to, 100 + u64::from(i));
        }
        assert_eq!(paths.told.len(), PATHS_MAX);
        assert_eq!(mtu(&paths, 2, Ipv4Addr::new(10, 0, 0, 0).into()), 1500);
        assert_eq!(mtu(&paths, 2, Ipv4Addr::new(10, 0, 0, 1).into()), 1000);
    }
}
