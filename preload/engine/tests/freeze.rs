//! A connection moves to another stack in the middle of a transfer, and its peer does not notice.

mod pair;

use pair::{Pair, Side, pattern};
use sidewire_engine::memory::RegionKind;
use sidewire_testkit::host::{Host, HostConfig};
use sidewire_uapi::socket as so;

const C: Side = Side::Client;

/// The client's host is replaced by another process of it; the connection goes along.
fn move_client(p: &mut Pair, id: sidewire_engine::SocketId) -> sidewire_engine::SocketId {
    let bytes = p.host(C).with(|s, io| s.freeze(io, id)).expect("freeze");
    let addr = p.host(C).net.addr();
    let clock = p.host(C).clock;
    let mut new = Host::new(&HostConfig {
        addr,
        mtu: 1500,
        gso_max_segs: 64,
        sysctl: Default::default(),
        seed: 99,
    });
    new.clock = clock;
    // Frames on their way stay on their way.
    p.settle_in_flight();
    p.hosts[0] = new;
    p.host(C).with(|s, io| s.thaw(io, &bytes)).expect("thaw")
}

fn transfer(flags: i32, loss: bool) {
    let mut p = Pair::new(Default::default(), Default::default());
    let (mut client, server) = p.connect();
    p.set(C, client, so::SOL_SOCKET, so::SO_ZEROCOPY, 1);
    if loss {
        let mut n = 0u32;
        p.lose = Box::new(move |side, packet| {
            n += u32::from(side == Side::Client && packet.len() > 1000);
            side == Side::Client && packet.len() > 1000 && n.is_multiple_of(23)
        });
    }
    let bytes = pattern(400_000);
    let mut got = Vec::new();
    let mut sent = 0;
    for round in 0..20 {
        let n = p
            .send(C, client, flags, None, &bytes[sent..(sent + 20_000)])
            .unwrap_or(0);
        sent += n;
        if round % 5 == 2 {
            client = move_client(&mut p, client);
        }
        p.run_for(50_000_000);
        got.extend(p.recv(Side::Server, server).unwrap_or_default());
    }
    while sent < bytes.len() {
        sent += p.send(C, client, flags, None, &bytes[sent..]).unwrap_or(0);
        p.run_for(50_000_000);
        got.extend(p.recv(Side::Server, server).unwrap_or_default());
    }
    for _ in 0..200 {
        if got.len() == bytes.len() {
            break;
        }
        p.run_for(100_000_000);
        got.extend(p.recv(Side::Server, server).unwrap_or_default());
    }
    assert_eq!(got.len(), bytes.len());
    assert_eq!(got, bytes);
    // The way back works too.
    p.send(Side::Server, server, 0, None, b"done").unwrap();
    p.settle();
    assert_eq!(p.recv(C, client).unwrap(), b"done");
    assert_eq!(p.host(C).memory.alive(RegionKind::User), 0);
}

#[test]
fn copied_data() {
    transfer(0, false);
}

#[test]
fn zerocopy_data() {
    transfer(so::MSG_ZEROCOPY, false);
}

#[test]
fn with_losses() {
    transfer(0, true);
}
