//! The program is run in a small interpreter of classic BPF, over frames built by hand.

use super::*;

/// A frame as the kernel shows it to a filter.
struct Frame {
    data: Vec<u8>,
    pkttype: u32,
    hatype: u16,
    vlan: u32,
}

/// Classic BPF, as far as our programs use it. A load outside the frame drops it, as in the kernel.
fn run(program: &[Insn], frame: &Frame) -> u32 {
    let (mut a, mut x, mut mem, mut pc) = (0u32, 0u32, [0u32; 16], 0usize);
    let load = |at: u32, size: u32| -> Option<u32> {
        if at as i32 == libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE {
            return Some(frame.pkttype);
        }
        if at as i32 == libc::SKF_AD_OFF + libc::SKF_AD_HATYPE {
            return Some(u32::from(frame.hatype));
        }
        if at as i32 == libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT {
            return Some(frame.vlan);
        }
        let n = match size {
            libc::BPF_B => 1,
            libc::BPF_H => 2,
            _ => 4,
        };
        let bytes = frame.data.get(at as usize..)?.get(..n)?;
        Some(bytes.iter().fold(0, |v, b| v << 8 | u32::from(*b)))
    };
    loop {
        let i = program[pc];
        pc += 1;
        let code = u32::from(i.code);
        match code & 7 {
            libc::BPF_LD => {
                let loaded = match code & 0xe0 {
                    libc::BPF_ABS => load(i.k, code & 0x18),
                    libc::BPF_IND => load(x.wrapping_add(i.k), code & 0x18),
                    libc::BPF_MEM => Some(mem[i.k as usize]),
                    libc::BPF_IMM => Some(i.k),
                    other => panic!("mode {other:#x}"),
                };
                match loaded {
                    Some(v) => a = v,
                    None => return 0,
                }
            }
            libc::BPF_LDX => {
                x = match code & 0xe0 {
                    libc::BPF_IMM => i.k,
                    libc::BPF_MEM => mem[i.k as usize],
                    other => panic!("mode {other:#x}"),
                }
            }
            libc::BPF_ST => mem[i.k as usize] = a,
            libc::BPF_ALU => {
                let v = if code & 8 == libc::BPF_X { x } else { i.k };
                match code & 0xf0 {
                    libc::BPF_ADD => a = a.wrapping_add(v),
                    libc::BPF_AND => a &= v,
                    libc::BPF_LSH => a <<= v,
                    libc::BPF_RSH => a >>= v,
                    libc::BPF_MUL => a = a.wrapping_mul(v),
                    libc::BPF_XOR => a ^= v,
                    other => panic!("op {other:#x}"),
                }
            }
            libc::BPF_JMP => {
                let taken = match code & 0xf0 {
                    libc::BPF_JA => {
                        pc += i.k as usize;
                        continue;
                    }
                    libc::BPF_JEQ => a == i.k,
                    libc::BPF_JGT => a > i.k,
                    libc::BPF_JGE => a >= i.k,
                    libc::BPF_JSET => a & i.k != 0,
                    other => panic!("jump {other:#x}"),
                };
                pc += usize::from(if taken { i.jt } else { i.jf });
            }
            libc::BPF_RET if code & 0x18 == libc::BPF_A => return a,
            libc::BPF_RET => return i.k,
            libc::BPF_MISC => x = a,
            other => panic!("class {other:#x}"),
        }
    }
}

const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// An IPv4 header with `options` 32-bit words of options, then `payload`.
fn ipv4(protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, options: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0u8; 20 + usize::from(options) * 4];
    p[0] = 0x45 + options;
    p[9] = protocol;
    p[12..16].copy_from_slice(&src.octets());
    p[16..20].copy_from_slice(&dst.octets());
    p.extend_from_slice(payload);
    p
}

fn ports(src: u16, dst: u16) -> Vec<u8> {
    let mut t = vec![0u8; 20];
    t[..2].copy_from_slice(&src.to_be_bytes());
    t[2..4].copy_from_slice(&dst.to_be_bytes());
    t
}

fn ether(packet: Vec<u8>) -> Frame {
    let mut data = vec![0u8; 14];
    data.extend(packet);
    Frame {
        data,
        pkttype: 0,
        hatype: libc::ARPHRD_ETHER,
        vlan: 0,
    }
}

fn tcp_to(dst: Ipv4Addr, port: u16) -> Vec<u8> {
    ipv4(6, OTHER, dst, 0, &ports(1, port))
}

fn build(entries: &[(u16, Option<Ipv4Addr>)]) -> Vec<Insn> {
    let mut filter = PortFilter::new(false);
    for &(port, addr) in entries {
        assert!(filter.add(port, addr));
    }
    program(&filter.spans(0, MAX_SPANS), false, None)
}

/// As a group's program sees it: from the network header on.
fn shown_to_a_group(mut frame: Frame) -> Frame {
    frame.data.drain(..14);
    frame
}

#[test]
fn a_group_s_program_names_the_ring_of_the_connection() {
    let connections = [(80, 4001), (80, 4002), (80, 4003), (443, 4001)];
    let choice = Choice::fitted(connections.into_iter());
    let mut filter = PortFilter::new(false);
    assert!(filter.add(80, Some(LOCAL)));
    assert!(filter.add(443, None));
    assert!(filter.add(9, Some(OTHER)));
    let p = program(&filter.spans(0, MAX_SPANS), false, Some(choice));
    let rings = connections.map(|(local, remote)| {
        for options in [0, 3] {
            let packet = ipv4(6, OTHER, LOCAL, options, &ports(remote, local));
            let ring = run(&p, &shown_to_a_group(ether(packet)));
            assert_eq!(
                ring as usize,
                FIRST_RING as usize + choice.ring((local, remote))
            );
        }
        choice.ring((local, remote))
    });
    assert!((1..4).all(|n| !rings[..n].contains(&rings[n])));
    // What is not accepted is the first socket's.
    for dst in [(OTHER, 80), (LOCAL, 81), (LOCAL, 9)] {
        assert_eq!(
            run(&p, &shown_to_a_group(ether(tcp_to(dst.0, dst.1)))),
            0,
            "{dst:?}"
        );
    }
    let mut short = shown_to_a_group(ether(tcp_to(LOCAL, 80)));
    short.data.truncate(21);
    assert_eq!(run(&p, &short), 0);
    let mut by_lo = shown_to_a_group(ether(tcp_to(LOCAL, 80)));
    by_lo.hatype = libc::ARPHRD_LOOPBACK;
    assert_eq!(run(&p, &by_lo), 0);
}

#[test]
fn empty_set_drops_all() {
    assert_eq!(run(&build(&[]), &ether(tcp_to(LOCAL, 80))), 0);
}

#[test]
fn exact_port_and_address() {
    let p = build(&[(80, Some(LOCAL)), (443, None)]);
    assert_ne!(run(&p, &ether(tcp_to(LOCAL, 80))), 0);
    assert_eq!(run(&p, &ether(tcp_to(OTHER, 80))), 0);
    assert_eq!(run(&p, &ether(tcp_to(LOCAL, 81))), 0);
    assert_eq!(run(&p, &ether(tcp_to(LOCAL, 79))), 0);
    assert_ne!(run(&p, &ether(tcp_to(OTHER, 443))), 0);
    // A source port is not a local port.
    assert_eq!(run(&p, &ether(ipv4(6, OTHER, LOCAL, 0, &ports(443, 9)))), 0);
    // UDP to the same number.
    assert_eq!(run(&p, &ether(ipv4(17, OTHER, LOCAL, 0, &ports(1, 80)))), 0);
}

#[test]
fn ip_options_move_the_tcp_header() {
    let p = build(&[(80, Some(LOCAL))]);
    assert_ne!(run(&p, &ether(ipv4(6, OTHER, LOCAL, 10, &ports(1, 80)))), 0);
    assert_eq!(run(&p, &ether(ipv4(6, OTHER, LOCAL, 10, &ports(80, 1)))), 0);
}

#[test]
fn only_frames_to_us_without_vlan_tag() {
    let p = build(&[(80, None)]);
    for pkttype in 1..5 {
        assert_eq!(
            run(
                &p,
                &Frame {
                    pkttype,
                    ..ether(tcp_to(LOCAL, 80))
                }
            ),
            0
        );
    }
    assert_eq!(
        run(
            &p,
            &Frame {
                vlan: 1,
                ..ether(tcp_to(LOCAL, 80))
            }
        ),
        0
    );
}

#[test]
fn devices_without_header_and_loopback() {
    let p = build(&[(80, None)]);
    let tun = Frame {
        data: tcp_to(LOCAL, 80),
        pkttype: 0,
        hatype: libc::ARPHRD_NONE,
        vlan: 0,
    };
    assert_ne!(run(&p, &tun), 0);
    let lo = Frame {
        hatype: libc::ARPHRD_LOOPBACK,
        ..ether(tcp_to(LOCAL, 80))
    };
    assert_eq!(run(&p, &lo), 0);
    let mut filter = PortFilter::new(true);
    assert!(filter.add(80, None));
    let with_lo = program(&filter.spans(0, MAX_SPANS), true, None);
    assert_ne!(run(&with_lo, &lo), 0);
    assert_ne!(run(&with_lo, &tun), 0);
    assert_ne!(run(&with_lo, &ether(tcp_to(LOCAL, 80))), 0);
}

#[test]
fn later_fragments_and_runts_are_dropped() {
    let p = build(&[(80, None)]);
    let mut first = tcp_to(LOCAL, 80);
    first[6] = 0x20;
    assert_ne!(run(&p, &ether(first.clone())), 0);
    first[7] = 1;
    assert_eq!(run(&p, &ether(first)), 0);
    let whole = ether(tcp_to(LOCAL, 80)).data;
    for len in 0..14 + 20 + 4 {
        let runt = Frame {
            data: whole[..len].to_vec(),
            pkttype: 0,
            hatype: libc::ARPHRD_ETHER,
            vlan: 0,
        };
        assert_eq!(run(&p, &runt), 0, "{len} bytes");
    }
}

#[test]
fn icmp_errors_about_our_segments() {
    let p = build(&[(80, Some(LOCAL))]);
    let icmp = |kind: u8, inner: &[u8]| {
        let mut m = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        m.extend_from_slice(inner);
        ether(ipv4(1, OTHER, LOCAL, 0, &m))
    };
    for options in [0, 5] {
        let sent = ipv4(6, LOCAL, OTHER, options, &ports(80, 999)[..8]);
        assert_ne!(run(&p, &icmp(3, &sent)), 0);
        assert_ne!(run(&p, &icmp(11, &sent)), 0);
        assert_ne!(run(&p, &icmp(12, &sent)), 0);
        assert_eq!(run(&p, &icmp(8, &sent)), 0);
        assert_eq!(run(&p, &icmp(5, &sent)), 0);
    }
    // Somebody else's port or address, and UDP.
    assert_eq!(
        run(&p, &icmp(3, &ipv4(6, LOCAL, OTHER, 0, &ports(81, 80)[..8]))),
        0
    );
    assert_eq!(
        run(&p, &icmp(3, &ipv4(6, OTHER, LOCAL, 0, &ports(80, 80)[..8]))),
        0
    );
    assert_eq!(
        run(
            &p,
            &icmp(3, &ipv4(17, LOCAL, OTHER, 0, &ports(80, 80)[..8]))
        ),
        0
    );
}

#[test]
fn many_ports_stay_exact_up_to_the_bound_and_merge_beyond() {
    let exact: Vec<_> = (0..MAX_SPANS as u16)
        .map(|i| (1000 + 7 * i, Some(LOCAL)))
        .collect();
    let p = build(&exact);
    assert!(p.len() <= MAX_INSNS, "{}", p.len());
    for port in 990..1000 + 7 * MAX_SPANS as u16 + 10 {
        let ours = exact.iter().any(|e| e.0 == port);
        assert_eq!(run(&p, &ether(tcp_to(LOCAL, port))) != 0, ours, "{port}");
    }
    let many: Vec<_> = (0..5000u16)
        .map(|i| (40_000 + 5 * i, Some(LOCAL)))
        .collect();
    let p = build(&many);
    assert!(p.len() <= MAX_INSNS);
    for (port, _) in many {
        assert_ne!(run(&p, &ether(tcp_to(LOCAL, port))), 0, "{port}");
    }
    assert_eq!(run(&p, &ether(tcp_to(LOCAL, 39_999))), 0);
}

#[test]
fn largest_program_fits() {
    let mut entries = Vec::new();
    for i in 0..MAX_SPANS as u16 {
        entries.push((1000 + 7 * i, Some(LOCAL)));
        entries.push((1000 + 7 * i, Some(OTHER)));
    }
    assert!(build(&entries).len() <= MAX_INSNS);
}

#[test]
fn counted_users_and_rebuilds() {
    let mut f = PortFilter::new(false);
    assert!(f.add(80, None));
    f.attached = f.spans(0, MAX_SPANS);
    assert!(!f.add(80, None));
    assert!(!f.add(80, Some(LOCAL)));
    assert!(f.add(81, Some(LOCAL)));
    assert!(!f.remove(81, Some(LOCAL)));
    assert!(!f.remove(80, None));
    assert!(!f.remove(80, None));
    assert!(f.remove(80, Some(LOCAL)));
}

#[test]
fn blocks_cover_the_neighbourhood() {
    let mut f = PortFilter::new(false);
    assert!(f.add(40_001, Some(LOCAL)));
    assert!(f.add(50_001, Some(LOCAL)));
    f.attached = f.spans(8, MAX_SPANS);
    assert!(!f.add(40_000 | 0xff, Some(LOCAL)));
    assert!(f.covers(50_001 & !0xff, Some(LOCAL)));
    assert!(!f.covers(45_000, Some(LOCAL)));
    f.attached = f.spans(16, MAX_SPANS);
    assert!(f.covers(1, Some(LOCAL)) && f.covers(65_535, Some(LOCAL)));
    assert!(!f.covers(1, Some(OTHER)));
}

#[test]
fn many_connections_one_after_the_other_stop_costing_a_program_each() {
    let mut f = PortFilter::new(false);
    let mut built = 0;
    let mut port = 40_000u16;
    for _ in 0..2000 {
        port = 32_768 + port.wrapping_mul(25_173).wrapping_add(13_849) % 28_232;
        if f.add(port, Some(LOCAL)) {
            let bits = f.rebuilds.saturating_sub(EXACT_REBUILDS).min(16);
            f.attached = f.spans(bits, MAX_SPANS);
            f.rebuilds += 1;
            built += 1;
        }
        if f.remove(port, Some(LOCAL)) {
            f.attached = f.spans(0, MAX_SPANS);
            f.rebuilds += 1;
            built += 1;
        }
    }
    assert!(built <= 2 * EXACT_REBUILDS, "{built}");
    assert!(f.is_loose());
    f.tighten();
    assert!(!f.is_loose());
}
