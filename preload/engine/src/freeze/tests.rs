use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use sidewire_uapi::socket as so;
use sidewire_uapi::tcp::TCP_CONGESTION;

use super::*;
use crate::sendmsg::SendCall;
use crate::stack::Step;
use crate::testbed::{Bed, Iter, NOBODY};

fn freeze(bed: &mut Bed) -> Result<Vec<u8>, FreezeError> {
    bed.with(|stack, io, id| stack.freeze(io, id))
}

/// Another process: other memory, another stack.
fn thaw(bytes: &[u8]) -> Result<Bed, FreezeError> {
    let mut bed = Bed::closed();
    bed.id = bed.with(|stack, io, _| stack.thaw(io, bytes))?;
    Ok(bed)
}

fn write(bed: &mut Bed, bytes: &[u8]) {
    let mut iter = Iter::new(bed, vec![(bytes.to_vec(), true)]);
    let mut call = SendCall::new(0, &[], None, NOBODY, true);
    let r = bed.step(&mut call, &mut iter);
    assert_eq!(r, Step::Ready(Ok(bytes.len())));
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn queued(bed: &mut Bed) -> Vec<u8> {
    let sk = bed.sk();
    let skbs = sk.rtx_queue.iter().chain(&sk.write_queue);
    let frags: Vec<_> = skbs.flat_map(|s| s.frags.clone()).collect();
    frags.iter().flat_map(|f| bed.mem.bytes(f)).collect()
}

/// A connection with data in flight, unsent and received.
fn busy() -> Bed {
    busy_with(100_000)
}

fn busy_with(unacked: usize) -> Bed {
    let mut bed = Bed::established();
    bed.sk().snd_cwnd = 10;
    bed.sk().tstamp_ok = true;
    bed.sk().tsoffset = 0x1234;
    bed.sk().opts.keepidle_s = 77;
    let tuple = bed.sk().tuple;
    bed.sk().hashed = true;
    let id = bed.id;
    bed.stack.hash(tuple, Ehash::Sock(id));
    write(&mut bed, &pattern(unacked));
    let mem: Vec<u8> = pattern(3000);
    let page = bed.mem.alloc_page_frag().unwrap();
    bed.mem.write(&page, 0, &mem);
    let sk = bed.sk();
    sk.receive_queue.push_back(RxSkb {
        seq: 5000,
        end_seq: 8000,
        frag: Frag {
            mem: page,
            off: 0,
            len: 3000,
        },
        truesize: 4096,
        tstamp_ns: 9,
        fin: false,
    });
    sk.rcv_nxt = 8000;
    sk.rmem_alloc = 4096;
    bed
}

#[test]
fn a_connection_goes_on_in_mid_transfer() {
    let mut bed = busy();
    assert!(!bed.sk().rtx_queue.is_empty() && !bed.sk().write_queue.is_empty());
    let before: Vec<_> = {
        let sk = bed.sk();
        vec![
            sk.snd_una,
            sk.snd_nxt,
            sk.write_seq,
            sk.packets_out,
            sk.tsoffset,
            sk.opts.keepidle_s,
            sk.snd_cwnd,
        ]
    };
    let deadline = bed.sk().timers.earliest();
    let bytes = freeze(&mut bed).unwrap();
    assert!(!bed.stack.exists(bed.id));
    assert_eq!(bed.stack.tuples().count(), 0);
    assert_eq!(
        bed.with(|stack, io, id| stack.sendmsg(
            io,
            id,
            &mut SendCall::new(0, &[], None, NOBODY, true),
            &mut Iter::new(&Bed::closed(), vec![])
        )),
        Step::Ready(Err(crate::Error::BadFd))
    );

    let mut new = thaw(&bytes).unwrap();
    let sk = new.sk();
    let after = vec![
        sk.snd_una,
        sk.snd_nxt,
        sk.write_seq,
        sk.packets_out,
        sk.tsoffset,
        sk.opts.keepidle_s,
        sk.snd_cwnd,
    ];
    assert_eq!(before, after);
    assert_eq!(sk.timers.earliest(), deadline);
    assert!(sk.dst.is_some() && sk.hashed);
    assert_eq!(sk.rmem_alloc, 4096);
    sk.check();
    assert_eq!(new.stack.next_deadline(), deadline);
    assert_eq!(queued(&mut new), pattern(100_000));
    let run = new.sk().receive_queue[0].frag.clone();
    assert_eq!(new.mem.bytes(&run), pattern(3000));
    new.ack_all();
    write(&mut new, b"more");
    assert_eq!(new.sk().write_seq, 101_004);
}

#[test]
fn a_second_round_gives_the_same_bytes() {
    let bytes = freeze(&mut busy()).unwrap();
    let mut new = thaw(&bytes).unwrap();
    assert_eq!(freeze(&mut new).unwrap(), bytes);
}

#[test]
fn bbrs_model_comes_along() {
    let mut bed = busy();
    bed.stack.sh.sysctl.tcp_allowed_congestion_control = "bbr".into();
    bed.set_bytes(so::SOL_TCP, TCP_CONGESTION, b"bbr", NOBODY)
        .unwrap();
    let before = bed.sk().ca.clone();
    let rate = bed.sk().pacing_rate;
    let bytes = freeze(&mut bed).unwrap();
    let mut new = thaw(&bytes).unwrap();
    assert_eq!(new.sk().ca, before);
    assert!(new.sk().opts.pacing_needed);
    assert_eq!(new.sk().pacing_rate, rate);
    assert_eq!(freeze(&mut new).unwrap(), bytes);
}

#[test]
fn zerocopy_is_read_and_completes_as_copied() {
    let mut bed = Bed::established();
    bed.sk().opts.zerocopy = true;
    bed.sk().dst.as_mut().unwrap().zerocopy_copied = false;
    bed.send(so::MSG_ZEROCOPY, 5000).unwrap();
    // The program's pages cannot be read here: the socket stays as it is.
    assert_eq!(freeze(&mut bed), Err(FreezeError::Fault));
    assert!(bed.stack.exists(bed.id));
    assert!(bed.sk().errqueue.is_empty());
    bed.mem.user_readable = true;
    let bytes = freeze(&mut bed).unwrap();
    let mut new = thaw(&bytes).unwrap();
    assert_eq!(queued(&mut new), vec![0x5a; 5000]);
    let e = &new.sk().errqueue.q[0];
    assert_eq!((e.ee.ee_info, e.ee.ee_data, e.ee.ee_code), (0, 0, 1));
    assert_eq!(new.sk().zerocopy.optmem(), SKB_TRUESIZE);
    assert_eq!(new.sk().zerocopy.zckey, 1);
    assert_eq!(new.sk().wmem_queued, SKB_TRUESIZE + 5000);
}

#[test]
fn a_listener_takes_its_unaccepted_children_along() {
    let mut bed = busy();
    let child = bed.id;
    let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1000);
    let listener = bed.stack.socket(false, 9);
    bed.stack.bound(listener, addr);
    bed.id = listener;
    bed.with(|stack, io, id| stack.listen(io, id, 7)).unwrap();
    bed.stack.socks[child].parent = Some(listener);
    let l = bed.sk().listen.as_mut().unwrap();
    l.accept_queue.push_back(child);
    let bytes = freeze(&mut bed).unwrap();
    assert!(!bed.stack.exists(child) && !bed.stack.port_in_use(1000));

    let mut new = thaw(&bytes).unwrap();
    assert_eq!(new.stack.state(new.id), TcpState::Listen);
    assert!(new.stack.port_in_use(1000));
    let l = new.sk().listen.as_ref().unwrap();
    assert_eq!((l.backlog, l.accept_queue.len()), (7, 1));
    let child = l.accept_queue[0];
    new.id = child;
    assert_eq!(queued(&mut new), pattern(100_000));
}

#[test]
fn what_is_not_a_frozen_socket_is_refused() {
    let bytes = freeze(&mut busy_with(100)).unwrap();
    let refuse = |b: &[u8]| thaw(b).map(|_| ()).unwrap_err();
    for n in [0, 3, HEADER_LEN - 1, HEADER_LEN, bytes.len() - 1] {
        assert_eq!(refuse(&bytes[..n]), FreezeError::Malformed, "{n} bytes");
    }
    let mut other = bytes.clone();
    other[4] += 1;
    assert_eq!(refuse(&other), FreezeError::Version);
    let mut other = bytes.clone();
    other[0] = b'X';
    assert_eq!(refuse(&other), FreezeError::Malformed);
    // Any single byte changed: refused or harmless, never a panic.
    for at in HEADER_LEN..bytes.len().min(1500) {
        let mut other = bytes.clone();
        other[at] ^= 0x55;
        if let Ok(mut bed) = thaw(&other) {
            bed.sk().check();
        }
    }
    // Two of the same do not fit into one stack.
    let mut new = thaw(&bytes).unwrap();
    assert_eq!(
        new.with(|stack, io, _| stack.thaw(io, &bytes)),
        Err(FreezeError::InUse)
    );
}
