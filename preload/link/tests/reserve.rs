//! Packet sockets that were handed over. A program of its own, with one test: what is inherited is the whole process's.

mod netns;

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use netns::{Netns, enter, veth};
use sidewire_link::fd::{close_internal, inherited, is_internal};
use sidewire_link::frame::FrameSource;
use sidewire_link::netlink::Neighbours;
use sidewire_link::packet::PacketSource;
use sidewire_link::packet::filter::{PortFilter, Target};
use sidewire_link::reserve::{Refused, SOCKETS, adopt, take};

const SETS: i32 = 2;

const IPV4: u16 = libc::ETH_P_IP as u16;
/// Frames of this type there are none.
const UNUSED: u16 = 0xffff;

/// A SYN that is refused.
const KNOCK: &str = "! nc.openbsd -w 1 10.9.0.1 7400 </dev/null";

/// As the launcher leaves them; the value of the variable.
fn hand_over() -> String {
    let first = 300;
    // SAFETY: numbers, and a live name; the results are checked.
    unsafe {
        let claims = libc::memfd_create(c"claims".as_ptr(), 0);
        assert_eq!(libc::dup2(claims, first), first);
        for fd in first + 1..=first + SETS * SOCKETS as i32 {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0);
            assert_eq!(libc::dup2(socket, fd), fd);
            libc::close(socket);
        }
        libc::close(claims);
    }
    let inode = std::fs::metadata(format!("/proc/self/fd/{first}"))
        .unwrap()
        .ino();
    format!("{first}:{SETS}:{inode}")
}

fn cookie() -> u64 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut cookie = 0u64;
    let mut length = 8;
    // SAFETY: live locals.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(got, 0);
    cookie
}

/// In a child; a test that fails does not leave it behind.
fn wait_to_be_killed() -> ! {
    // SAFETY: numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::pause();
        libc::_exit(0)
    }
}

/// What a packet socket is bound to.
fn protocol(fd: i32) -> u16 {
    // SAFETY: made of integers; all zero is valid.
    let mut name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&name) as u32;
    // SAFETY: live locals.
    let got = unsafe { libc::getsockname(fd, (&raw mut name).cast(), &raw mut length) };
    assert_eq!(got, 0);
    u16::from_be(name.sll_protocol)
}

fn is_open(fd: i32) -> bool {
    // SAFETY: numbers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

#[test]
fn each_process_takes_a_pair_of_its_own() {
    if !enter("each_process_takes_a_pair_of_its_own") {
        return;
    }
    let far = Netns::new();
    veth(&far);
    let (here, there) = (cookie(), far.run(cookie));
    assert!(matches!(take(here), Err(Refused::Nothing)));
    let place = hand_over();
    adopt(place.as_bytes());
    assert_eq!(inherited(), 300..301 + SETS * SOCKETS as i32);
    assert!(inherited().all(is_internal));

    // Only in their own network namespace.
    assert!(matches!(take(there), Err(Refused::Foreign)));

    // They carry frames.
    let first = take(here).unwrap();
    assert!(is_internal(first.claim.as_raw_fd()));
    let mut source = first.frames.source().unwrap();
    let mut filter = PortFilter::new(false);
    assert!(filter.add(7400, None));
    filter
        .attach(Target::Socket(first.frames.shared_fd().as_raw_fd()))
        .unwrap();
    far.sh(KNOCK);
    assert!(source.peek().unwrap().is_some(), "no frame");
    drop(source);

    let second = take(here).unwrap();
    assert_ne!(
        first.frames.shared_fd().as_raw_fd(),
        second.frames.shared_fd().as_raw_fd()
    );
    assert!(matches!(take(here), Err(Refused::InUse)));
    Neighbours::with_arp(second.arp).unwrap();

    // One that is free again is empty, though frames came for its last owner.
    far.sh(KNOCK);
    drop((first.claim, first.frames, first.arp));
    let again = take(here).unwrap();
    let mut source = again.frames.source().unwrap();
    assert!(source.peek().unwrap().is_none(), "a frame of before");
    assert_eq!(source.take_drops(), 0);

    // A lock lasts as long as any process has it.
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        wait_to_be_killed();
    }
    drop((source, again));
    assert!(matches!(take(here), Err(Refused::InUse)));
    // SAFETY: our own child, which is waited for.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    let again = take(here).unwrap();

    // A forked child does not keep the ring.
    let mut source = again.frames.source().unwrap();
    assert!(matches!(source, PacketSource::Ring(_)));
    let (mut ready, tell) = std::io::pipe().unwrap();
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        close_internal();
        // SAFETY: writes a byte of a literal.
        unsafe { libc::write(tell.as_raw_fd(), c"x".as_ptr().cast(), 1) };
        wait_to_be_killed();
    }
    ready.read_exact(&mut [0]).unwrap();
    source.close();
    assert_eq!(protocol(301), IPV4);
    again.claim.give_back();
    assert_eq!(protocol(301), UNUSED, "its ring could not be taken away");
    assert!(
        matches!(take(here), Err(Refused::InUse)),
        "not ours any more"
    );
    drop((source, again));
    let again = take(here).unwrap();
    let source = again.frames.source().unwrap();
    assert!(matches!(source, PacketSource::Ring(_)));
    // SAFETY: our own child, which is waited for.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }

    // What a process leaves that is killed is cleaned by the next that takes a pair.
    second.frames.start().unwrap();
    drop((source, again, second.frames, second.claim));
    assert_eq!((protocol(301), protocol(303)), (IPV4, IPV4));
    let again = take(here).unwrap();
    assert_eq!(protocol(303), UNUSED);

    // What a forked child keeps.
    std::mem::forget(again);
    close_internal();
    assert!(inherited().all(|fd| is_open(fd) && is_internal(fd)));
    assert!(take(here).is_ok());

    // What a program on the way has closed is not used, nor what comes behind it.
    // SAFETY: nobody else uses this number.
    drop(unsafe { OwnedFd::from_raw_fd(303) });
    adopt(place.as_bytes());
    assert_eq!(inherited(), 300..303);
}
