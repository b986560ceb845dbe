use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use sidewire_uapi::TcpState;
use sidewire_uapi::ip;
use sidewire_uapi::socket::{self as so, SOL_IP, SOL_SOCKET, SOL_TCP};
use sidewire_uapi::tcp as t;
use sidewire_uapi::timestamping as sof;

use super::*;
use crate::event::Events;
use crate::sock::nagle;
use crate::testbed::{Bed, NOBODY, ROOT};
use crate::time::HZ;

/// Sets an option as nobody in particular and reads it back.
fn round(bed: &mut Bed, level: i32, name: i32, v: i32) -> Result<i32, Error> {
    bed.set(level, name, v, NOBODY)?;
    bed.get(level, name)
}

/// Values that are accepted and what they read as; values that are refused.
fn table(level: i32, name: i32, default: i32, good: &[(i32, i32)], bad: &[i32]) {
    let mut bed = Bed::closed();
    assert_eq!(bed.get(level, name), Ok(default), "default of {name}");
    for (v, reads) in good {
        assert_eq!(round(&mut bed, level, name, *v), Ok(*reads), "{name} = {v}");
    }
    for v in bad {
        assert_eq!(
            bed.set(level, name, *v, NOBODY),
            Err(Error::Inval),
            "{name} = {v}"
        );
    }
}

#[test]
fn so_1_to_so_5_lengths_of_int_options() {
    let mut bed = Bed::closed();
    for n in 0..4 {
        let val = vec![1; n];
        for (level, name) in [
            (SOL_TCP, t::TCP_NODELAY),
            (SOL_SOCKET, so::SO_KEEPALIVE),
            (SOL_SOCKET, so::SO_ZEROCOPY), // ZC-4
        ] {
            assert_eq!(bed.set_bytes(level, name, &val, NOBODY), Err(Error::Inval));
        }
    }
    let long = [5, 0, 0, 0, 9, 9, 9, 9];
    assert_eq!(
        bed.set_bytes(SOL_TCP, t::TCP_KEEPIDLE, &long, NOBODY),
        Ok(())
    );
    assert_eq!(bed.get(SOL_TCP, t::TCP_KEEPIDLE), Ok(5));
    let mut bed = Bed::closed();
    assert_eq!(
        bed.get_bytes(SOL_TCP, t::TCP_KEEPIDLE, 2),
        Ok(vec![0x20, 0x1c])
    );
    assert_eq!(
        bed.get_bytes(SOL_TCP, t::TCP_KEEPIDLE, 100).unwrap().len(),
        4
    );
    assert_eq!(
        bed.get_bytes(SOL_TCP, t::TCP_KEEPIDLE, -1),
        Err(Error::Inval)
    );
}

#[test]
fn so_6_to_so_9_unknown_and_read_only() {
    let mut bed = Bed::closed();
    for level in [SOL_SOCKET, SOL_TCP] {
        assert_eq!(bed.set(level, 250, 1, ROOT), Err(Error::NoProtoOpt));
        assert_eq!(bed.get(level, 250), Err(Error::NoProtoOpt));
    }
    assert_eq!(bed.set(12345, 1, 1, ROOT), Err(Error::NoProtoOpt));
    assert_eq!(bed.get(12345, 1), Err(Error::OpNotSupp));
    for name in [
        so::SO_TYPE,
        so::SO_ERROR,
        so::SO_PEERCRED,
        so::SO_SNDLOWAT,
        so::SO_ACCEPTCONN,
        so::SO_PROTOCOL,
        so::SO_DOMAIN,
        so::SO_INCOMING_NAPI_ID,
    ] {
        assert_eq!(
            bed.set(SOL_SOCKET, name, 1, ROOT),
            Err(Error::NoProtoOpt),
            "{name}"
        );
    }
    assert_eq!(
        bed.set(SOL_SOCKET, so::SO_PASSCRED, 1, ROOT),
        Err(Error::OpNotSupp)
    );
    assert_eq!(
        bed.set(SOL_TCP, t::TCP_INFO, 1, ROOT),
        Err(Error::NoProtoOpt)
    );
}

#[test]
fn so_11_to_so_14_simple_ones() {
    let mut bed = Bed::closed();
    let debug = so::SO_DEBUG;
    assert_eq!(bed.set(SOL_SOCKET, debug, 1, NOBODY), Err(Error::Access));
    assert_eq!(bed.set(SOL_SOCKET, debug, 0, NOBODY), Ok(()));
    assert_eq!(bed.set(SOL_SOCKET, debug, 1, ROOT), Ok(()));
    assert_eq!(round(&mut bed, SOL_SOCKET, so::SO_REUSEADDR, 7), Ok(1));
    assert_eq!(bed.get(SOL_SOCKET, so::SO_TYPE), Ok(1));
    assert_eq!(bed.get(SOL_SOCKET, so::SO_PROTOCOL), Ok(6));
    assert_eq!(bed.get(SOL_SOCKET, so::SO_DOMAIN), Ok(2));
    bed.sk().sk_err = Some(Error::ConnReset);
    assert_eq!(bed.get(SOL_SOCKET, so::SO_ERROR), Ok(104));
    assert_eq!(bed.get(SOL_SOCKET, so::SO_ERROR), Ok(0));
    bed.sk().sk_err_soft = Some(Error::HostUnreach);
    assert_eq!(bed.get(SOL_SOCKET, so::SO_ERROR), Ok(113));
    assert_eq!(bed.get(SOL_SOCKET, so::SO_ERROR), Ok(0));
}

#[test]
fn so_15_to_so_17_so_39_buffers() {
    let mut bed = Bed::closed();
    assert_eq!(bed.get(SOL_SOCKET, so::SO_SNDBUF), Ok(16_384));
    assert_eq!(bed.get(SOL_SOCKET, so::SO_RCVBUF), Ok(131_072));
    assert_eq!(bed.get(SOL_SOCKET, so::SO_BUF_LOCK), Ok(0));
    for (v, reads) in [
        (0, 4608),
        (1, 4608),
        (2304, 4608),
        (100_000, 200_000),
        (-1, 2 * 212_992),
    ] {
        assert_eq!(round(&mut bed, SOL_SOCKET, so::SO_SNDBUF, v), Ok(reads));
    }
    assert_eq!(bed.get(SOL_SOCKET, so::SO_BUF_LOCK), Ok(1));
    for (v, reads) in [(1152, 2304), (0, 2304), (-1, 2 * 212_992)] {
        assert_eq!(round(&mut bed, SOL_SOCKET, so::SO_RCVBUF, v), Ok(reads));
    }
    assert_eq!(bed.get(SOL_SOCKET, so::SO_BUF_LOCK), Ok(3));
    for (force, plain) in [
        (so::SO_SNDBUFFORCE, so::SO_SNDBUF),
        (so::SO_RCVBUFFORCE, so::SO_RCVBUF),
    ] {
        let huge = 64 << 20;
        assert_eq!(bed.set(SOL_SOCKET, force, huge, NOBODY), Err(Error::Perm));
        assert_eq!(bed.set(SOL_SOCKET, force, huge, ROOT), Ok(()));
        assert_eq!(bed.get(SOL_SOCKET, plain), Ok(2 * huge));
    }
}

#[test]
fn so_20_so_31_priority_and_mark_need_capabilities() {
    let mut bed = Bed::closed();
    assert_eq!(round(&mut bed, SOL_SOCKET, so::SO_PRIORITY, 6), Ok(6));
    for v in [7, -1] {
        assert_eq!(
            bed.set(SOL_SOCKET, so::SO_PRIORITY, v, NOBODY),
            Err(Error::Perm)
        );
        assert_eq!(bed.set(SOL_SOCKET, so::SO_PRIORITY, v, ROOT), Ok(()));
    }
    assert_eq!(
        bed.set(SOL_SOCKET, so::SO_MARK, 1, NOBODY),
        Err(Error::Perm)
    );
    assert_eq!(bed.set(SOL_SOCKET, so::SO_MARK, 9, ROOT), Ok(()));
    assert_eq!(bed.get(SOL_SOCKET, so::SO_MARK), Ok(9));
}

#[test]
fn so_21_linger_keeps_its_time_when_switched_off() {
    let mut bed = Bed::closed();
    let pair = |a: i32, b: i32| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
    let linger = so::SO_LINGER;
    assert_eq!(
        bed.set_bytes(SOL_SOCKET, linger, &[0; 7], NOBODY),
        Err(Error::Inval)
    );
    for (set, reads) in [
        (pair(1, 5), pair(1, 5)),
        (pair(0, 7), pair(0, 5)),
        // LONG_MAX jiffies at HZ 250, in seconds, as far as an int goes (seen on 6.18).
        (pair(9, -1), pair(1, 0x978d_4fdf_u32 as i32)),
    ] {
        bed.set_bytes(SOL_SOCKET, linger, &set, NOBODY).unwrap();
        assert_eq!(bed.get_bytes(SOL_SOCKET, linger, 8), Ok(reads));
    }
}

#[test]
fn so_23_rcvlowat() {
    let cap = 6_291_456 / 2;
    table(
        SOL_SOCKET,
        so::SO_RCVLOWAT,
        1,
        &[(0, 1), (10, 10), (-1, cap)],
        &[],
    );
    let mut bed = Bed::closed();
    bed.set(SOL_SOCKET, so::SO_RCVLOWAT, 1 << 20, NOBODY)
        .unwrap();
    assert!(bed.sk().rcvbuf >= 1 << 20, "the buffer grows with it");
    let mut bed = Bed::closed();
    bed.set(SOL_SOCKET, so::SO_RCVBUF, 10_000, NOBODY).unwrap();
    assert_eq!(
        round(&mut bed, SOL_SOCKET, so::SO_RCVLOWAT, 1 << 20),
        Ok(10_000)
    );
}

fn tv(sec: i64, usec: i64) -> Vec<u8> {
    [sec.to_ne_bytes(), usec.to_ne_bytes()].concat()
}

#[test]
fn so_25_timeouts_round_up_to_jiffies() {
    for name in [
        so::SO_RCVTIMEO,
        so::SO_SNDTIMEO,
        so::SO_RCVTIMEO_NEW,
        so::SO_SNDTIMEO_NEW,
    ] {
        let mut bed = Bed::closed();
        assert_eq!(bed.get_bytes(SOL_SOCKET, name, 16), Ok(tv(0, 0)));
        assert_eq!(
            bed.set_bytes(SOL_SOCKET, name, &[0; 15], NOBODY),
            Err(Error::Inval)
        );
        for usec in [-1, 1_000_000] {
            assert_eq!(
                bed.set_bytes(SOL_SOCKET, name, &tv(1, usec), NOBODY),
                Err(Error::Domain)
            );
        }
        for (set, reads) in [
            (tv(0, 1), tv(0, 4000)),
            (tv(2, 4001), tv(2, 8000)),
            (tv(1 << 55, 5), tv(1 << 55, 4000)),
            (tv(1 << 62, 5), tv(0, 0)),
            (tv(-5, 0), tv(0, 0)),
            (tv(0, 0), tv(0, 0)),
        ] {
            bed.set_bytes(SOL_SOCKET, name, &set, NOBODY).unwrap();
            assert_eq!(bed.get_bytes(SOL_SOCKET, name, 16), Ok(reads));
        }
    }
    let mut bed = Bed::closed();
    let mut set = |sec, usec| {
        bed.set_bytes(SOL_SOCKET, so::SO_SNDTIMEO, &tv(sec, usec), NOBODY)
            .unwrap();
        bed.sk().opts.sndtimeo
    };
    assert_eq!(set(0, 0), None);
    assert_eq!(set(-1, 0), Some(0));
    assert_eq!(set(i64::MAX, 0), None);
    assert_eq!(set(1, 1), Some(HZ + 1));
    // As far as Linux's jiffies go.
    assert_eq!(set(1 << 55, 0), Some(HZ << 55));
    assert_eq!(set(1 << 62, 0), None);
}

#[test]
fn so_32_to_so_40_values() {
    table(SOL_SOCKET, so::SO_PEEK_OFF, -1, &[(2, 2), (-1, -1)], &[]);
    table(SOL_SOCKET, so::SO_TXREHASH, 1, &[(0, 0), (1, 1)], &[2, -2]);
    table(SOL_SOCKET, so::SO_BUF_LOCK, 0, &[(3, 3), (2, 2)], &[4, -1]);
    table(SOL_SOCKET, so::SO_ZEROCOPY, 0, &[(1, 1), (0, 0)], &[2, -1]);
    let mut bed = Bed::closed();
    assert_eq!(bed.get(SOL_SOCKET, so::SO_MAX_PACING_RATE), Ok(-1));
    let rate = 1u64 << 40;
    bed.set_bytes(
        SOL_SOCKET,
        so::SO_MAX_PACING_RATE,
        &rate.to_ne_bytes(),
        NOBODY,
    )
    .unwrap();
    assert_eq!(bed.get(SOL_SOCKET, so::SO_MAX_PACING_RATE), Ok(-1));
    assert_eq!(
        bed.get_bytes(SOL_SOCKET, so::SO_MAX_PACING_RATE, 8),
        Ok(rate.to_ne_bytes().to_vec())
    );
    assert!(bed.sk().pacing_rate <= rate);
    assert_eq!(
        bed.get_bytes(SOL_SOCKET, so::SO_MEMINFO, 100)
            .unwrap()
            .len(),
        36
    );
}

#[test]
fn so_41_inherited_but_not_priority() {
    let mut o = SockOpts {
        priority: 6,
        keepalive: true,
        zerocopy: true, // ZC-6
        rcvlowat: 9,
        sndtimeo: Some(5),
        ..SockOpts::default()
    };
    o.inq = true; // RV-33
    let child = inherit(&o);
    assert_eq!(child.priority, 0);
    assert!(child.keepalive && child.zerocopy && child.inq);
    assert_eq!((child.rcvlowat, child.sndtimeo), (9, Some(5)));
}

#[test]
fn so_42_so_44_sp_10_sp_12_nodelay_and_cork() {
    let mut bed = Bed::established();
    assert_eq!(round(&mut bed, SOL_TCP, t::TCP_NODELAY, 5), Ok(1));
    assert_eq!(bed.sk().nonagle, nagle::OFF | nagle::PUSH);
    assert_eq!(round(&mut bed, SOL_TCP, t::TCP_CORK, -3), Ok(1));
    bed.sk().nonagle &= !nagle::PUSH;
    assert_eq!(round(&mut bed, SOL_TCP, t::TCP_CORK, 0), Ok(0));
    assert_eq!(bed.sk().nonagle, nagle::OFF | nagle::PUSH);
    assert_eq!(round(&mut bed, SOL_TCP, t::TCP_NODELAY, 0), Ok(0));
}

#[test]
fn so_43_maxseg() {
    table(
        SOL_TCP,
        t::TCP_MAXSEG,
        536,
        &[(88, 88), (32_767, 32_767), (0, 536)],
        &[87, 32_768, -1, 1],
    );
    let mut bed = Bed::established();
    assert_eq!(round(&mut bed, SOL_TCP, t::TCP_MAXSEG, 500), Ok(1460));
    bed.sk().repair.on = true;
    bed.sk().mss_clamp = 777;
    assert_eq!(bed.get(SOL_TCP, t::TCP_MAXSEG), Ok(777)); // RP-17
}

#[test]
fn so_45_to_so_51_ranges() {
    let top = 32_767;
    table(
        SOL_TCP,
        t::TCP_KEEPIDLE,
        7200,
        &[(1, 1), (top, top)],
        &[0, -1, top + 1],
    );
    table(SOL_TCP, t::TCP_KEEPINTVL, 75, &[(1, 1)], &[0, top + 1]);
    table(SOL_TCP, t::TCP_KEEPCNT, 9, &[(127, 127)], &[0, 128]);
    table(SOL_TCP, t::TCP_SYNCNT, 6, &[(127, 127)], &[0, 128]);
    table(
        SOL_TCP,
        t::TCP_LINGER2,
        60,
        &[(-7, -1), (0, 60), (500, 120), (9, 9)],
        &[],
    );
    table(
        SOL_TCP,
        t::TCP_DEFER_ACCEPT,
        0,
        &[(1, 1), (2, 3), (4, 7), (60, 63), (0, 0), (-5, 0)],
        &[],
    );
    table(
        SOL_TCP,
        t::TCP_WINDOW_CLAMP,
        0,
        &[(1, 1152), (5000, 5000), (0, 0)],
        &[],
    );
    let mut bed = Bed::established();
    assert_eq!(
        bed.set(SOL_TCP, t::TCP_WINDOW_CLAMP, 0, NOBODY),
        Err(Error::Inval)
    );
}

#[test]
fn so_52_so_64_so_70_to_so_72_more_ranges() {
    table(SOL_TCP, t::TCP_USER_TIMEOUT, 0, &[(5, 5)], &[-1]);
    table(SOL_TCP, t::TCP_THIN_LINEAR_TIMEOUTS, 0, &[(1, 1)], &[2, -1]);
    table(SOL_TCP, t::TCP_THIN_DUPACK, 0, &[(1, 0)], &[2]);
    table(SOL_TCP, t::TCP_NOTSENT_LOWAT, 0, &[(-1, -1), (9, 9)], &[]);
    table(SOL_TCP, t::TCP_SAVE_SYN, 0, &[(2, 2)], &[3, -1]);
    table(SOL_TCP, t::TCP_INQ, 0, &[(1, 1)], &[2, -1]);
    let top = (1 << 28) - 1;
    table(SOL_TCP, t::TCP_TX_DELAY, 0, &[(top, top)], &[-1, top + 1]);
    table(
        SOL_TCP,
        t::TCP_RTO_MAX_MS,
        120_000,
        &[(1000, 1000)],
        &[999, 120_001],
    );
    for name in [t::TCP_RTO_MIN_US, t::TCP_DELACK_MAX_US] {
        table(
            SOL_TCP,
            name,
            200_000,
            &[(8000, 8000), (8001, 12_000), (200_000, 200_000)],
            &[4000, 0, -1, 200_001],
        );
    }
    let mut bed = Bed::closed();
    for name in [t::TCP_CC_INFO, t::TCP_ULP, t::TCP_SAVED_SYN] {
        assert_eq!(bed.get_bytes(SOL_TCP, name, 16), Ok(vec![]));
    }
    assert_eq!(bed.get(SOL_TCP, t::TCP_IS_MPTCP), Ok(0));
    assert_eq!(
        bed.set_bytes(SOL_TCP, t::TCP_ULP, b"nope", NOBODY),
        Err(Error::NoEnt)
    );
    assert_eq!(bed.set(SOL_TCP, t::TCP_MD5SIG, 0, ROOT), Err(Error::Inval));
    bed.sk().saved_syn = Some(Box::from([1, 2, 3, 4]));
    assert_eq!(
        bed.get_bytes(SOL_TCP, t::TCP_SAVED_SYN, 3),
        Err(Error::Inval)
    );
    assert_eq!(
        bed.get_bytes(SOL_TCP, t::TCP_SAVED_SYN, 9),
        Ok(vec![1, 2, 3, 4])
    );
    assert_eq!(bed.get_bytes(SOL_TCP, t::TCP_SAVED_SYN, 9), Ok(vec![]));
}

#[test]
fn so_53_quickack() {
    let mut bed = Bed::established();
    assert_eq!(bed.get(SOL_TCP, t::TCP_QUICKACK), Ok(1));
    assert_eq!(round(&mut bed, SOL_TCP, t::TCP_QUICKACK, 0), Ok(0));
    assert_eq!(round(&mut bed, SOL_TCP, t::TCP_QUICKACK, 1), Ok(1));
}

#[test]
fn so_54_congestion_by_name() {
    let mut bed = Bed::closed();
    let name = |bed: &mut Bed| bed.get_bytes(SOL_TCP, t::TCP_CONGESTION, 100).unwrap();
    assert_eq!(name(&mut bed), *b"cubic\0\0\0\0\0\0\0\0\0\0\0");
    let mut set = |v: &[u8], caps| bed.set_bytes(SOL_TCP, t::TCP_CONGESTION, v, caps);
    assert_eq!(set(b"", ROOT), Err(Error::Inval));
    assert_eq!(set(b"nope", ROOT), Err(Error::NoEnt));
    assert_eq!(set(b"reno\0junk", NOBODY), Ok(()));
    assert_eq!(
        bed.get_bytes(SOL_TCP, t::TCP_CONGESTION, 4),
        Ok(b"reno".to_vec())
    );
    bed.stack.sh.sysctl.tcp_allowed_congestion_control = "cubic".into();
    let mut set = |v: &[u8], caps| bed.set_bytes(SOL_TCP, t::TCP_CONGESTION, v, caps);
    assert_eq!(set(b"reno", NOBODY), Ok(()), "nothing to change");
    assert_eq!(set(b"cubic", NOBODY), Ok(()));
    assert_eq!(set(b"reno", NOBODY), Err(Error::Perm));
    assert_eq!(set(b"reno", ROOT), Ok(()));
}

#[test]
fn so_54_bbr_where_the_host_has_it() {
    let mut bed = Bed::established();
    let sysctl = &mut bed.stack.sh.sysctl;
    sysctl.tcp_available_congestion_control = "reno cubic".into();
    sysctl.tcp_allowed_congestion_control = "reno cubic".into();
    let set = |bed: &mut Bed, v: &[u8], caps| bed.set_bytes(SOL_TCP, t::TCP_CONGESTION, v, caps);
    assert_eq!(set(&mut bed, b"bbr", NOBODY), Err(Error::NoEnt));
    bed.stack.sh.sysctl.tcp_available_congestion_control = "reno cubic bbr".into();
    assert_eq!(set(&mut bed, b"bbr", NOBODY), Err(Error::Perm));
    bed.stack.sh.sysctl.tcp_allowed_congestion_control = "reno cubic bbr".into();
    bed.sk().srtt_us = 8 * 20_000;
    bed.sk().rtt_min.s[0].1 = 20_000;
    bed.sk().snd_cwnd = 10;
    assert_eq!(set(&mut bed, b"bbr", NOBODY), Ok(()));
    assert_eq!(
        bed.get_bytes(SOL_TCP, t::TCP_CONGESTION, 3),
        Ok(b"bbr".to_vec())
    );
    // On a connection it takes effect at once.
    assert!(bed.sk().opts.pacing_needed);
    let rate = bed.sk().pacing_rate;
    assert!(rate.abs_diff(10 * 1460 * 50 * 739 / 256 * 99 / 100) < rate / 1000);
    let info = bed.get_bytes(SOL_TCP, t::TCP_CC_INFO, 100).unwrap();
    let words: Vec<u32> = info
        .chunks(4)
        .map(|w| u32::from_ne_bytes(w.try_into().unwrap()))
        .collect();
    assert_eq!(words, [0, 0, 20_000, 0, 0]);
    assert_eq!(
        bed.get_bytes(SOL_TCP, t::TCP_CC_INFO, 9).unwrap(),
        info[..9]
    );
    assert_eq!(set(&mut bed, b"cubic", NOBODY), Ok(()));
    assert_eq!(bed.get_bytes(SOL_TCP, t::TCP_CC_INFO, 100), Ok(vec![]));
    // Without a connection there is no model yet.
    let mut bed = Bed::closed();
    assert_eq!(set(&mut bed, b"bbr", ROOT), Ok(()));
    assert_eq!(bed.get_bytes(SOL_TCP, t::TCP_CC_INFO, 100), Ok(vec![0; 20]));
}

#[test]
fn so_60_timestamp_reads_even_and_is_set_in_repair_only() {
    let mut bed = Bed::established();
    assert_eq!(bed.get(SOL_TCP, t::TCP_TIMESTAMP).unwrap() & 1, 0);
    assert_eq!(
        bed.set(SOL_TCP, t::TCP_TIMESTAMP, 4, ROOT),
        Err(Error::Perm)
    );
    bed.set(SOL_TCP, t::TCP_REPAIR, 1, ROOT).unwrap();
    assert_eq!(
        round(&mut bed, SOL_TCP, t::TCP_TIMESTAMP, 12_346),
        Ok(12_346)
    ); // RP-23
}

#[test]
fn rd_36_notsent_lowat_wakes_writers() {
    let mut bed = Bed::established();
    bed.set(SOL_TCP, t::TCP_NOTSENT_LOWAT, 1000, NOBODY)
        .unwrap();
    let mut woken = Vec::new();
    bed.stack.take_events(|_, _, e| woken.push(e));
    assert_eq!(woken, [Events::OUT]);
}

#[test]
fn so_74_to_so_77_sol_ip() {
    let mut bed = Bed::closed();
    assert_eq!(round(&mut bed, SOL_IP, ip::IP_TOS, 0x13), Ok(0x10));
    assert_eq!(bed.sk().opts.priority, 6);
    assert_eq!(bed.set_bytes(SOL_IP, ip::IP_TOS, &[], NOBODY), Ok(()));
    assert_eq!(bed.get(SOL_IP, ip::IP_TOS), Ok(0));
    assert_eq!(bed.set_bytes(SOL_IP, ip::IP_TOS, &[8], NOBODY), Ok(()));
    assert_eq!(bed.get(SOL_IP, ip::IP_TOS), Ok(8));
    for bad in [0, 256, -2] {
        assert_eq!(bed.set(SOL_IP, ip::IP_TTL, bad, NOBODY), Err(Error::Inval));
    }
    assert_eq!(round(&mut bed, SOL_IP, ip::IP_TTL, 255), Ok(255));
    for len in [2, 3] {
        assert_eq!(bed.get_bytes(SOL_IP, ip::IP_TTL, len), Ok(vec![255]));
    }
    assert_eq!(round(&mut bed, SOL_IP, ip::IP_TTL, -1), Ok(64));
    assert_eq!(bed.get(SOL_IP, ip::IP_MTU_DISCOVER), Ok(1));
    assert_eq!(bed.get(SOL_IP, ip::IP_MTU), Err(Error::NotConn));
    assert_eq!(Bed::established().get(SOL_IP, ip::IP_MTU), Ok(1500));
}

const TS: i32 = so::SO_TIMESTAMPING;

#[test]
fn ts_20_to_ts_28_timestamping_flags() {
    let mut closed = Bed::closed();
    let set = |bed: &mut Bed, flags: u32| bed.set(SOL_SOCKET, TS, flags as i32, NOBODY);
    assert_eq!(set(&mut closed, 0x80000), Err(Error::Inval));
    assert_eq!(
        set(&mut closed, sof::SOF_TIMESTAMPING_OPT_ID_TCP),
        Err(Error::Inval)
    );
    assert_eq!(
        set(&mut closed, sof::SOF_TIMESTAMPING_OPT_ID),
        Err(Error::Inval)
    );
    assert_eq!(
        set(&mut closed, sof::SOF_TIMESTAMPING_OPT_STATS),
        Err(Error::Inval)
    );
    assert_eq!(
        set(&mut closed, sof::SOF_TIMESTAMPING_BIND_PHC),
        Err(Error::OpNotSupp)
    );
    assert_eq!(set(&mut closed, 0x18), Ok(())); // TS-25
    assert_eq!(closed.get(SOL_SOCKET, TS), Ok(0x18));
    assert_eq!(
        closed.get_bytes(SOL_SOCKET, TS, 8).unwrap(),
        [0x18, 0, 0, 0, 0, 0, 0, 0]
    );
    let new = so::SO_TIMESTAMPING_NEW;
    closed.set(SOL_SOCKET, new, 0x10, NOBODY).unwrap();
    assert_eq!(closed.get(SOL_SOCKET, TS), Ok(0x10)); // TS-27
    assert_eq!(closed.get(SOL_SOCKET, new), Ok(0x10));
    assert!(closed.sk().opts.tstamp_new);
}

#[test]
fn ts_30_ts_31_base_of_the_key() {
    let mut bed = Bed::established();
    bed.send(0, 100).unwrap();
    let id = sof::SOF_TIMESTAMPING_OPT_ID as i32;
    let id_tcp = sof::SOF_TIMESTAMPING_OPT_ID_TCP as i32;
    bed.set(SOL_SOCKET, TS, id, NOBODY).unwrap();
    assert_eq!(bed.sk().tskey, 1000, "snd_una");
    bed.set(SOL_SOCKET, TS, id | id_tcp, NOBODY).unwrap();
    assert_eq!(bed.sk().tskey, 1000, "set again: the base stays");
    bed.set(SOL_SOCKET, TS, 0, NOBODY).unwrap();
    bed.set(SOL_SOCKET, TS, id | id_tcp, NOBODY).unwrap();
    assert_eq!(bed.sk().tskey, 1100, "write_seq");
}

#[test]
fn ts_70_to_ts_74_txtime() {
    let mut bed = Bed::closed();
    let val = |clock: i32, flags: u32| [clock.to_ne_bytes(), flags.to_ne_bytes()].concat();
    let mut set = |v: &[u8], caps| bed.set_bytes(SOL_SOCKET, so::SO_TXTIME, v, caps);
    assert_eq!(set(&[0; 4], ROOT), Err(Error::Inval));
    assert_eq!(set(&[0; 12], ROOT), Err(Error::Inval));
    assert_eq!(set(&val(0, 4), NOBODY), Err(Error::Inval));
    assert_eq!(set(&val(99, 0), NOBODY), Err(Error::Perm));
    assert_eq!(set(&val(99, 0), ROOT), Err(Error::Inval));
    assert_eq!(set(&val(11, 3), ROOT), Ok(()));
    assert_eq!(set(&val(1, 2), NOBODY), Ok(()));
    assert_eq!(bed.get_bytes(SOL_SOCKET, so::SO_TXTIME, 8), Ok(val(1, 2)));
    assert_eq!(
        Bed::closed().get_bytes(SOL_SOCKET, so::SO_TXTIME, 8),
        Ok(vec![0; 8])
    );
}

#[test]
fn ts_80_readback_of_the_receive_stamps() {
    let mut bed = Bed::closed();
    bed.set(SOL_SOCKET, so::SO_TIMESTAMP, 1, NOBODY).unwrap();
    let read = |bed: &mut Bed| {
        [
            so::SO_TIMESTAMP,
            so::SO_TIMESTAMPNS,
            so::SO_TIMESTAMP_NEW,
            so::SO_TIMESTAMPNS_NEW,
        ]
        .map(|n| bed.get(SOL_SOCKET, n).unwrap())
    };
    assert_eq!(read(&mut bed), [1, 0, 0, 0]);
    bed.set(SOL_SOCKET, so::SO_TIMESTAMPNS_NEW, 1, NOBODY)
        .unwrap();
    assert_eq!(read(&mut bed), [0, 0, 1, 1]);
    bed.set(SOL_SOCKET, so::SO_TIMESTAMP, 0, NOBODY).unwrap();
    assert_eq!(read(&mut bed), [0; 4]);
}

#[test]
fn fo_32_to_fo_34_fo_44_fo_45_fo_49_fo_50_fast_open_options() {
    table(SOL_TCP, t::TCP_FASTOPEN_CONNECT, 0, &[(1, 1)], &[2, -1]);
    table(SOL_TCP, t::TCP_FASTOPEN_NO_COOKIE, 0, &[(1, 1)], &[2, -1]);
    table(SOL_TCP, t::TCP_FASTOPEN, 0, &[(5, 5), (9999, 4096)], &[-1]);
    let mut bed = Bed::established();
    for name in [
        t::TCP_FASTOPEN_CONNECT,
        t::TCP_FASTOPEN_NO_COOKIE,
        t::TCP_FASTOPEN,
    ] {
        assert_eq!(bed.set(SOL_TCP, name, 1, ROOT), Err(Error::Inval));
    }
    let mut bed = Bed::closed();
    bed.stack.sh.sysctl.tcp_fastopen = 2;
    let connect = t::TCP_FASTOPEN_CONNECT;
    assert_eq!(bed.set(SOL_TCP, connect, 2, ROOT), Err(Error::Inval));
    assert_eq!(bed.set(SOL_TCP, connect, 1, ROOT), Err(Error::OpNotSupp));
    for (n, r) in [
        (15, Err(Error::Inval)),
        (16, Ok(())),
        (24, Err(Error::Inval)),
        (32, Ok(())),
    ] {
        let key = vec![3; n];
        assert_eq!(bed.set_bytes(SOL_TCP, t::TCP_FASTOPEN_KEY, &key, NOBODY), r);
    }
}

#[test]
fn so_10_options_can_be_set_in_close() {
    let mut bed = Bed::established();
    bed.sk().state = TcpState::Close;
    assert_eq!(round(&mut bed, SOL_TCP, t::TCP_NODELAY, 1), Ok(1));
    assert_eq!(round(&mut bed, SOL_SOCKET, so::SO_KEEPALIVE, 1), Ok(1));
}
