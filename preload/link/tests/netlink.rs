//! Routes, devices and neighbours as the kernel knows them.

mod netns;

use arrayvec::ArrayString;
use netns::{Netns, enter, ifindex, sh, veth};
use sidewire_link::Errno;
use sidewire_link::netlink::{LinkKind, Metrics, Neighbours, Resolution, Routes, Settled};
use sidewire_wire::ethernet::MacAddr;
use std::net::IpAddr;
use std::os::fd::RawFd;

const MAC_B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb2]);
const SECOND: u64 = 1_000_000_000;

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn wait(fd: RawFd) {
    let mut p = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live pollfd.
    let n = unsafe { libc::poll(&mut p, 1, 10_000) };
    assert_eq!(n, 1, "nothing to read in 10 s");
}

#[test]
fn routes_are_the_kernels() {
    if !enter("routes_are_the_kernels") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    sh(
        "ip route add 10.20.0.0/16 via 10.9.0.2 mtu 1400 advmss 1300 initcwnd 20 hoplimit 9
        ip route add 10.21.0.0/16 via 10.9.0.2 initrwnd 5 window 9000 rto_min 30ms quickack 1 features ecn \
            fastopen_no_cookie 1 congctl lock reno
        ip route add 10.22.0.0/16 via 10.9.0.2 rtt lock 300ms rttvar 20ms ssthresh lock 30 cwnd 40 reordering lock 7
        ip route add 10.23.0.0/16 via 10.9.0.2 rtt 1s rttvar lock 1s ssthresh 3 cwnd lock 4 reordering 5
        ip route add unreachable 10.30.0.0/16
        ip route add prohibit 10.31.0.0/16
        ip route add blackhole 10.32.0.0/16
        ip addr add 10.9.0.11/24 dev va
        ip rule add fwmark 7 table 100
        ip route add 10.40.0.0/16 via 10.9.0.7 table 100",
    );
    let mut routes = Routes::open().unwrap();
    let mut look = |dst: &str| routes.lookup(ip(dst), None, None, 0, 0);
    let direct = look("10.9.0.2").unwrap();
    assert_eq!(
        (direct.ifindex, direct.src, direct.gateway),
        (ifindex("va"), Some(ip("10.9.0.1")), None)
    );
    assert_eq!(
        (direct.mtu, direct.advmss, direct.is_local, direct.loopback),
        (1500, None, false, false)
    );
    assert_eq!(
        (direct.dev.name.as_str(), direct.dev.kind, direct.dev.up),
        ("va", LinkKind::Ether, true)
    );
    assert_eq!(direct.dev.mac, MacAddr([2, 0, 0, 0, 0, 0xa1]));
    assert!(direct.dev.copies, "veth");
    assert!(direct.dev.features.tso && direct.dev.features.sg && direct.dev.features.tx_csum);
    assert!(direct.dev.gso_max_size >= 65536 && direct.dev.gso_max_segs >= 64);
    let far = look("10.20.1.1").unwrap();
    assert_eq!(
        (far.gateway, far.mtu, far.advmss),
        (Some(ip("10.9.0.2")), 1400, Some(1300))
    );
    assert_eq!(
        (far.metrics.initcwnd, far.metrics.hoplimit),
        (Some(20), Some(9))
    );
    assert!(!far.metrics.quickack && !far.metrics.rto_min_locked && far.metrics.congctl.is_none());
    let metrics = look("10.21.1.1").unwrap().metrics;
    let expected = Metrics {
        window: Some(9000),
        initrwnd: Some(5),
        rto_min: Some(30),
        rto_min_locked: true,
        quickack: true,
        ecn: true,
        fastopen_no_cookie: true,
        congctl: ArrayString::from("reno").ok(),
        congctl_locked: true,
        ..Metrics::default()
    };
    assert_eq!(metrics, expected);
    let expected = Metrics {
        rtt: Some(8 * 300),
        rtt_locked: true,
        rttvar: Some(4 * 20),
        ssthresh: Some(30),
        ssthresh_locked: true,
        cwnd: Some(40),
        reordering: Some(7),
        reordering_locked: true,
        ..Metrics::default()
    };
    assert_eq!(look("10.22.1.1").unwrap().metrics, expected);
    let expected = Metrics {
        rtt: Some(8 * 1000),
        rttvar: Some(4 * 1000),
        rttvar_locked: true,
        ssthresh: Some(3),
        cwnd: Some(4),
        cwnd_locked: true,
        reordering: Some(5),
        ..Metrics::default()
    };
    assert_eq!(look("10.23.1.1").unwrap().metrics, expected);
    let own = look("10.9.0.11").unwrap();
    assert!(own.is_local && own.loopback);
    assert!(look("127.0.0.1").unwrap().is_local);
    assert!(look("10.9.0.255").unwrap().not_unicast);
    assert_eq!(look("10.30.0.1"), Err(Errno::EHOSTUNREACH));
    assert_eq!(look("10.31.0.1"), Err(Errno::EACCES));
    assert_eq!(look("10.32.0.1"), Err(Errno::EINVAL));
    assert_eq!(look("10.40.0.1"), Err(Errno::ENETUNREACH));
    assert_eq!(look("2001:db8::1"), Err(Errno::ENETUNREACH));
    let marked = routes.lookup(ip("10.40.0.1"), None, None, 7, 0).unwrap();
    assert_eq!(marked.gateway, Some(ip("10.9.0.7")));
    let bound = routes
        .lookup(ip("10.9.0.2"), Some(ip("10.9.0.11")), None, 0, 0)
        .unwrap();
    assert_eq!(bound.src, Some(ip("10.9.0.11")));
    assert!(
        routes
            .lookup(ip("10.9.0.2"), Some(ip("10.9.0.99")), None, 0, 0)
            .is_err()
    );
    let forced = routes
        .lookup(ip("10.40.0.1"), None, Some(ifindex("va")), 0, 0)
        .unwrap();
    assert_eq!((forced.ifindex, forced.gateway), (ifindex("va"), None));
}

#[test]
fn changes_invalidate() {
    if !enter("changes_invalidate") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let mut routes = Routes::open().unwrap();
    assert_eq!(
        routes.lookup(ip("10.20.0.1"), None, None, 0, 0),
        Err(Errno::ENETUNREACH)
    );
    let mut generation = routes.generation();
    assert!(!routes.refresh().unwrap());
    assert!(routes.take_news().is_empty());
    let va = [ifindex("va")];
    let mut changed = |routes: &mut Routes, command: &str| {
        sh(command);
        wait(routes.fd());
        assert!(routes.refresh().unwrap(), "{command}");
        assert!(routes.generation() > generation);
        generation = routes.generation();
    };
    changed(&mut routes, "ip route add 10.20.0.0/16 via 10.9.0.2");
    let route = routes.lookup(ip("10.20.0.1"), None, None, 0, 0).unwrap();
    assert_eq!(route.mtu, 1500);
    assert!(routes.take_news().is_empty(), "of no device");
    changed(&mut routes, "ip link set va mtu 9000");
    assert!(routes.take_news().into_iter().eq(va));
    assert_eq!(
        routes
            .lookup(ip("10.20.0.1"), None, None, 0, 0)
            .unwrap()
            .mtu,
        9000
    );
    changed(&mut routes, "ethtool -K va tso off tx off sg off");
    assert!(routes.take_news().into_iter().eq(va));
    let features = routes
        .lookup(ip("10.20.0.1"), None, None, 0, 0)
        .unwrap()
        .dev
        .features;
    assert!(!features.tso && !features.tx_csum && !features.sg);
    // A device that appears later is known before its notification is read.
    sh(
        "ip link add name late type veth peer name late2 && ip link set late2 up && ip addr add 10.60.0.1/24 dev late && ip link set late up",
    );
    routes.forget(ip("10.60.0.2"));
    let late = routes.lookup(ip("10.60.0.2"), None, None, 0, 0).unwrap();
    assert_eq!(late.dev.name, "late");
    sh("ip tuntap add name t0 mode tap && ip link set t0 up && ip addr add 10.80.0.1/24 dev t0");
    let tap = routes.lookup(ip("10.80.0.2"), None, None, 0, 0).unwrap();
    assert!(tap.dev.copies, "a program does");
    changed(&mut routes, "ip link del late");
    assert!(routes.take_news().contains(&late.ifindex));
    assert!(routes.device(late.ifindex).is_none());
    assert!(routes.lookup(ip("10.60.0.2"), None, None, 0, 0).is_err());
}

#[test]
fn lost_notifications_mean_a_new_dump() {
    if !enter("lost_notifications_mean_a_new_dump") {
        return;
    }
    let mut routes = Routes::open().unwrap();
    let mut neighbours = Neighbours::open().unwrap();
    for fd in [routes.fd(), neighbours.fd()] {
        let small = 1i32;
        // SAFETY: reads one int.
        let rc = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw const small).cast(),
                4,
            )
        };
        assert_eq!(rc, 0);
    }
    sh(
        "ip link add name d0 type veth peer name d1 && ip link set d0 up
        for i in $(seq 1 40); do
            ip link add name x$i type veth peer name y$i
            ip neigh add 10.1.1.$i lladdr 02:00:00:00:01:01 dev d0
        done
        for i in $(seq 1 39); do ip link del x$i; done",
    );
    assert!(routes.refresh().unwrap());
    let mut names: Vec<_> = routes.devices().map(|d| d.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["d0", "d1", "lo", "x40", "y40"]);
    let news = routes.take_news();
    assert!(routes.devices().all(|d| news.contains(&d.ifindex)));
    neighbours.refresh(0).unwrap();
    let dev = routes.device(ifindex("d0")).unwrap();
    for i in 1..=40 {
        let known = neighbours.resolve(0, dev, ip(&format!("10.1.1.{i}")), ip("10.1.1.254"));
        assert_eq!(
            known,
            Resolution::Resolved(MacAddr([2, 0, 0, 0, 1, 1])),
            "{i}"
        );
    }
}

/// Waits until `address` is settled.
fn settle(neighbours: &mut Neighbours, fd: RawFd, address: &str) -> Settled {
    loop {
        wait(fd);
        neighbours.refresh(0).unwrap();
        let settled: Vec<_> = neighbours.take_settled().collect();
        if let Some(s) = settled.iter().find(|s| s.ip == ip(address)) {
            return *s;
        }
    }
}

#[test]
fn kernel_resolves_for_us() {
    if !enter("kernel_resolves_for_us") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    sh("echo 20 > /proc/sys/net/ipv4/neigh/va/retrans_time_ms
        ip neigh add 10.9.0.50 lladdr 02:00:00:00:00:50 dev va nud permanent");
    let routes = Routes::open().unwrap();
    let dev = routes.device(ifindex("va")).unwrap();
    let mut n = Neighbours::open().unwrap();
    let us = ip("10.9.0.1");
    let permanent = n.resolve(0, dev, ip("10.9.0.50"), us);
    assert_eq!(
        permanent,
        Resolution::Resolved(MacAddr([2, 0, 0, 0, 0, 0x50]))
    );
    let fd = n.fd();
    // The kernel may be done before it has answered.
    if n.resolve(0, dev, ip("10.9.0.2"), us) == Resolution::Pending {
        assert_eq!(settle(&mut n, fd, "10.9.0.2").mac, Some(MAC_B));
    }
    assert_eq!(
        n.resolve(0, dev, ip("10.9.0.2"), us),
        Resolution::Resolved(MAC_B)
    );
    assert!(sh("ip neigh show 10.9.0.2").contains("02:00:00:00:00:b2"));
    assert_eq!(n.resolve(0, dev, ip("10.9.0.3"), us), Resolution::Pending);
    assert_eq!(settle(&mut n, fd, "10.9.0.3").mac, None);
    // After a failure, asking starts anew.
    assert_eq!(n.resolve(0, dev, ip("10.9.0.3"), us), Resolution::Pending);
    // The peer moves to another card: the kernel hears it, and so do we.
    peer.sh("ip link set vb address 02:00:00:00:00:b7 && ip link set vb arp off && ip link set vb arp on");
    sh("ip neigh replace 10.9.0.2 lladdr 02:00:00:00:00:b7 dev va nud reachable");
    loop {
        wait(fd);
        n.refresh(0).unwrap();
        if n.resolve(0, dev, ip("10.9.0.2"), us)
            == Resolution::Resolved(MacAddr([2, 0, 0, 0, 0, 0xb7]))
        {
            break;
        }
    }
    sh("ip neigh del 10.9.0.50 dev va");
    while n.resolve(0, dev, ip("10.9.0.50"), us) != Resolution::Pending {
        wait(fd);
        n.refresh(0).unwrap();
    }
}

#[test]
fn our_own_arp() {
    if !enter("our_own_arp") {
        return;
    }
    let peer = Netns::new();
    veth(&peer);
    let routes = Routes::open().unwrap();
    let dev = routes.device(ifindex("va")).unwrap();
    let mut n = Neighbours::open().unwrap();
    n.use_own_arp();
    let us = ip("10.9.0.1");
    assert_eq!(n.next_deadline(), None);
    assert_eq!(n.resolve(0, dev, ip("10.9.0.2"), us), Resolution::Pending);
    assert_eq!(n.next_deadline(), Some(SECOND));
    let fd = n.arp_fd();
    assert_eq!(settle(&mut n, fd, "10.9.0.2").mac, Some(MAC_B));
    assert_eq!(n.next_deadline(), None);
    // The answer holds for 30 s, is confirmed while it is used, and is lost with the peer.
    assert_eq!(
        n.resolve(29 * SECOND, dev, ip("10.9.0.2"), us),
        Resolution::Resolved(MAC_B)
    );
    assert_eq!(n.next_deadline(), None);
    assert_eq!(
        n.resolve(30 * SECOND, dev, ip("10.9.0.2"), us),
        Resolution::Resolved(MAC_B)
    );
    assert_eq!(n.next_deadline(), Some(31 * SECOND));
    assert_eq!(settle(&mut n, fd, "10.9.0.2").mac, Some(MAC_B));
    // Nobody: three requests a second apart, then failure, then anew.
    let mut now = 100 * SECOND;
    assert_eq!(n.resolve(now, dev, ip("10.9.0.3"), us), Resolution::Pending);
    for _ in 0..3 {
        assert_eq!(n.resolve(now, dev, ip("10.9.0.3"), us), Resolution::Pending);
        assert_eq!(n.next_deadline(), Some(now + SECOND));
        now += SECOND;
        n.on_timer(now);
    }
    assert_eq!(n.next_deadline(), None);
    assert_eq!(n.resolve(now, dev, ip("10.9.0.3"), us), Resolution::Failed);
    let settled: Vec<_> = n.take_settled().collect();
    assert_eq!(
        settled,
        [Settled {
            ifindex: dev.ifindex,
            ip: ip("10.9.0.3"),
            mac: None
        }]
    );
    assert_eq!(n.resolve(now, dev, ip("10.9.0.3"), us), Resolution::Pending);
}
