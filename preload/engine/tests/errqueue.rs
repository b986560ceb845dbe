//! The error queue over a real connection: zerocopy notifications and transmit timestamps (`rows.toml` zerocopy,
//! `rows.toml` timestamping).

mod pair;

use pair::{Pair, Side, pattern};
use sidewire_engine::error::Error;
use sidewire_engine::memory::RegionKind;
use sidewire_engine::{RecvCmsg, SocketId};
use sidewire_uapi::errqueue::SockExtendedErr;
use sidewire_uapi::poll::POLLERR;
use sidewire_uapi::socket as so;
use sidewire_uapi::timestamping as sof;

const C: Side = Side::Client;
const ZC: i32 = so::MSG_ZEROCOPY;

fn pair() -> (Pair, SocketId, SocketId) {
    let mut p = Pair::new(Default::default(), Default::default());
    let (client, server) = p.connect();
    (p, client, server)
}

fn next(p: &mut Pair, id: SocketId) -> Result<(Vec<u8>, SockExtendedErr), Error> {
    let (bytes, call) = p.recv_with(C, id, so::MSG_ERRQUEUE, 4096)?;
    match call.cmsgs.last() {
        Some(RecvCmsg::RecvErr { ee, .. }) => Ok((bytes, *ee)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn zc_20_zc_25_completions_follow_the_acks() {
    let (mut p, client, server) = pair();
    p.set(C, client, so::SOL_SOCKET, so::SO_ZEROCOPY, 1);
    let bytes = pattern(300_000);
    p.transfer(client, server, ZC, &bytes);
    p.transfer(client, server, ZC, &bytes[..100]);
    assert_ne!(p.host(C).stack.poll(client) & POLLERR, 0);
    let mut ids = Vec::new();
    while let Ok((payload, ee)) = next(&mut p, client) {
        assert!(payload.is_empty());
        assert_eq!((ee.ee_errno, ee.ee_origin), (0, 5));
        ids.extend(ee.ee_info..=ee.ee_data);
    }
    assert_eq!(ids, [0, 1]);
    assert_eq!(p.host(C).memory.alive(RegionKind::User), 0, "all unpinned");
}

#[test]
fn zc_22_a_reset_completes_what_is_pending() {
    let (mut p, client, _) = pair();
    p.set(C, client, so::SOL_SOCKET, so::SO_ZEROCOPY, 1);
    p.lose = Box::new(|side, _| side == Side::Client);
    p.send(C, client, ZC, None, b"never arrives").unwrap();
    p.settle();
    assert_eq!(next(&mut p, client).err(), Some(Error::Again), "ZC-24");
    p.host(C).with(|s, io| s.disconnect(io, client));
    let (_, ee) = next(&mut p, client).unwrap();
    assert_eq!((ee.ee_info, ee.ee_data), (0, 0));
}

#[test]
fn zc_21_a_lost_tail_keeps_the_notification_back() {
    let (mut p, client, _) = pair();
    p.set(C, client, so::SOL_SOCKET, so::SO_ZEROCOPY, 1);
    let mut left = 1;
    // The second full segment is lost.
    let mut seen = 0;
    p.lose = Box::new(move |side, packet| {
        if side == Side::Client && packet.len() > 1000 {
            seen += 1;
            if seen == 2 && left > 0 {
                left -= 1;
                return true;
            }
        }
        false
    });
    p.send(C, client, ZC, None, &pattern(3000)).unwrap();
    let mut early = None;
    p.settle();
    if let Ok((_, ee)) = next(&mut p, client) {
        early = Some(ee);
    }
    assert_eq!(early, None);
    p.run_for(2_000_000_000);
    let (_, ee) = next(&mut p, client).unwrap();
    assert_eq!((ee.ee_info, ee.ee_data), (0, 0));
}

#[test]
fn ts_35_to_ts_39_stamps_and_zerocopy_in_order() {
    let (mut p, client, _) = pair();
    p.set(C, client, so::SOL_SOCKET, so::SO_ZEROCOPY, 1);
    let flags = sof::SOF_TIMESTAMPING_TX_SCHED
        | sof::SOF_TIMESTAMPING_TX_SOFTWARE
        | sof::SOF_TIMESTAMPING_TX_ACK
        | sof::SOF_TIMESTAMPING_SOFTWARE
        | sof::SOF_TIMESTAMPING_OPT_ID;
    p.set(C, client, so::SOL_SOCKET, so::SO_TIMESTAMPING, flags as i32);
    p.send(C, client, ZC, None, b"12345").unwrap();
    p.settle();
    let mut seen = Vec::new();
    while let Ok((payload, ee)) = next(&mut p, client) {
        seen.push((ee.ee_origin, ee.ee_info, ee.ee_data, payload.len()));
    }
    // Ethernet 14, IP 20, TCP 32, and the five bytes.
    assert_eq!(
        seen,
        [(4, 1, 4, 71), (4, 0, 4, 71), (4, 2, 4, 5), (5, 0, 0, 0)]
    );
}

#[test]
fn ts_40_a_retransmission_is_stamped_again() {
    let (mut p, client, _) = pair();
    let flags = sof::SOF_TIMESTAMPING_TX_SOFTWARE
        | sof::SOF_TIMESTAMPING_TX_ACK
        | sof::SOF_TIMESTAMPING_OPT_TSONLY;
    p.set(C, client, so::SOL_SOCKET, so::SO_TIMESTAMPING, flags as i32);
    let mut first = true;
    p.lose = Box::new(move |side, packet| {
        side == Side::Client && packet.len() > 60 && core::mem::take(&mut first)
    });
    p.send(C, client, 0, None, b"lost once").unwrap();
    p.run_for(1_000_000_000);
    let mut kinds = Vec::new();
    while let Ok((_, ee)) = next(&mut p, client) {
        kinds.push(ee.ee_info);
    }
    assert_eq!(kinds, [0, 0, 2]);
}

#[test]
fn ts_37_a_partial_ack_does_not_stamp() {
    let (mut p, client, _) = pair();
    let flags = sof::SOF_TIMESTAMPING_TX_ACK
        | sof::SOF_TIMESTAMPING_OPT_TSONLY
        | sof::SOF_TIMESTAMPING_OPT_ID;
    p.set(C, client, so::SOL_SOCKET, so::SO_TIMESTAMPING, flags as i32);
    let bytes = pattern(10_000);
    let mut full = 0;
    // All but the first segment of the burst is lost once.
    p.lose = Box::new(move |side, packet| {
        if side == Side::Client && packet.len() > 1000 {
            full += 1;
            return (2..=7).contains(&full);
        }
        false
    });
    p.send(C, client, 0, None, &bytes).unwrap();
    p.settle();
    p.run_for(3_000_000_000);
    let mut seen = Vec::new();
    while let Ok((_, ee)) = next(&mut p, client) {
        seen.push((ee.ee_info, ee.ee_data));
    }
    assert_eq!(seen, [(2, 9999)]);
}
