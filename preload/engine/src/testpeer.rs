//! A stack and the peer that a test plays: segments in by their fields, segments out by theirs. Constructors lead a
//! connection to each state by real segments.

extern crate std;

use alloc::vec::Vec;
use core::net::SocketAddr;

use sidewire_uapi::TcpState;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpFlags, TcpHeader, TcpOptions, TcpView};

use crate::calls::{AcceptCall, CloseCall, ConnectCall, RecvCall};
use crate::error::Error;
use crate::header::{Headers, IpFields};
use crate::memory::{Frag, MemRef, Memory, PAGE_FRAG_SIZE};
use crate::net::Tuple;
use crate::segment::{Ingress, RxCsum};
use crate::skb::tcphdr;
use crate::sock::TcpSock;
use crate::stack::{SocketId, Step};
use crate::sysctl::Sysctl;
use crate::testbed::{Bed, Iter};
use crate::time::{Instant, NSEC_PER_MSEC};

/// Our end.
pub(crate) const LOCAL: ([u8; 4], u16) = ([10, 0, 0, 1], 80);
/// The peer's.
pub(crate) const REMOTE: ([u8; 4], u16) = ([10, 0, 0, 2], 9000);
/// The peer's initial sequence number.
pub(crate) const PEER_ISN: u32 = 7_000;

/// A segment by its fields; `seq` and `ack` are absolute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seg {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) len: u32,
    pub(crate) window: u16,
    pub(crate) urg_ptr: u16,
    pub(crate) tos: u8,
    pub(crate) opts: Option<TcpOptions>,
}

/// What every segment of these tests is made of, if it does not say otherwise.
pub(crate) const SEND: Seg = Seg {
    flags: tcphdr::ACK,
    seq: PEER_ISN + 1,
    ack: 0,
    len: 0,
    window: 30_000,
    urg_ptr: 0,
    tos: 0,
    opts: None,
};

/// What the stack sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) len: u32,
    pub(crate) window: u16,
    pub(crate) opts: TcpOptions,
}

/// The stack, one connection of it, and its peer.
pub(crate) struct Peer {
    pub(crate) bed: Bed,
    pub(crate) listener: Option<SocketId>,
    /// Where our sequence numbers began.
    pub(crate) isn: u32,
    pub(crate) tuple: Tuple,
    page: Option<MemRef>,
}

impl Peer {
    /// A stack with a socket in CLOSE, bound to [`LOCAL`].
    pub(crate) fn closed() -> Self {
        Self::with_sysctl(Sysctl::default())
    }

    pub(crate) fn with_sysctl(sysctl: Sysctl) -> Self {
        let mut bed = Bed::closed();
        bed.stack.sh.sysctl = sysctl;
        let id = bed.id;
        bed.stack.bound(id, LOCAL.into());
        Self {
            bed,
            listener: None,
            isn: 0,
            tuple: Tuple {
                local: LOCAL.into(),
                remote: REMOTE.into(),
            },
            page: None,
        }
    }

    /// LISTEN with `backlog`.
    pub(crate) fn listening(backlog: i32) -> Self {
        let mut peer = Self::closed();
        peer.bed
            .with(|stack, io, id| stack.listen(io, id, backlog))
            .expect("listen");
        peer.listener = Some(peer.bed.id);
        peer
    }

    /// A handshake in progress: the SYN-ACK has been sent.
    pub(crate) fn syn_received() -> Self {
        let mut peer = Self::listening(5);
        peer.syn(TcpOptions::default());
        peer
    }

    /// Sends the SYN and takes the answer's sequence number over.
    pub(crate) fn syn(&mut self, opts: TcpOptions) -> Sent {
        self.send(Seg {
            flags: tcphdr::SYN,
            seq: PEER_ISN,
            window: 65_535,
            opts: Some(TcpOptions {
                mss: Some(1460),
                ..opts
            }),
            ..SEND
        });
        let answer = self.only();
        assert_eq!(answer.flags, tcphdr::SYN | tcphdr::ACK);
        assert_eq!(answer.ack, PEER_ISN + 1);
        self.isn = answer.seq;
        answer
    }

    /// ESTABLISHED by a passive open, accepted; `opts` are the SYN's.
    pub(crate) fn established_with(opts: TcpOptions) -> Self {
        let mut peer = Self::listening(5);
        peer.syn(opts);
        peer.send(SEND);
        assert_eq!(peer.sent(), []);
        peer.accept();
        assert_eq!(peer.sk().state, TcpState::Established);
        peer
    }

    pub(crate) fn established() -> Self {
        Self::established_with(TcpOptions::default())
    }

    /// The same with SACK.
    pub(crate) fn established_sack() -> Self {
        Self::established_with(TcpOptions {
            sack_permitted: true,
            ..TcpOptions::default()
        })
    }

    /// SYN_SENT.
    pub(crate) fn syn_sent() -> Self {
        let mut peer = Self::closed();
        assert!(matches!(
            peer.connect(),
            Step::Ready(Err(Error::InProgress))
        ));
        let syn = peer.only();
        assert_eq!(syn.flags, tcphdr::SYN);
        peer.isn = syn.seq;
        peer
    }

    /// FIN_WAIT1 after shutdown(WR); the FIN has been seen.
    pub(crate) fn fin_wait1() -> Self {
        let mut peer = Self::established();
        peer.shutdown(1).expect("shutdown");
        assert_eq!(peer.only().flags, tcphdr::FIN | tcphdr::ACK);
        assert_eq!(peer.sk().state, TcpState::FinWait1);
        peer
    }

    /// FIN_WAIT2.
    pub(crate) fn fin_wait2() -> Self {
        let mut peer = Self::fin_wait1();
        peer.send(peer.ack_of(2));
        assert_eq!(peer.sk().state, TcpState::FinWait2);
        peer
    }

    /// CLOSE_WAIT: the peer's FIN came and was acked.
    pub(crate) fn close_wait() -> Self {
        let mut peer = Self::established();
        peer.send(Seg {
            flags: tcphdr::FIN | tcphdr::ACK,
            ..SEND
        });
        assert_eq!(peer.sk().state, TcpState::CloseWait);
        peer.settle_acks();
        peer
    }

    /// LAST_ACK.
    pub(crate) fn last_ack() -> Self {
        let mut peer = Self::close_wait();
        peer.shutdown(1).expect("shutdown");
        assert_eq!(peer.only().flags, tcphdr::FIN | tcphdr::ACK);
        assert_eq!(peer.sk().state, TcpState::LastAck);
        peer
    }

    /// A TIME_WAIT remnant, its socket closed.
    pub(crate) fn time_wait() -> Self {
        let mut peer = Self::fin_wait2();
        peer.send(Seg {
            flags: tcphdr::FIN | tcphdr::ACK,
            ack: peer.isn.wrapping_add(2),
            ..SEND
        });
        assert_eq!(peer.only().flags, tcphdr::ACK);
        peer.close();
        assert_eq!(peer.bed.stack.timewait_count(), 1);
        peer
    }

    /// Acks all up to `n` bytes behind our initial sequence number.
    pub(crate) fn ack_of(&self, n: u32) -> Seg {
        Seg {
            ack: self.isn.wrapping_add(n),
            ..SEND
        }
    }

    /// Sends one segment as a batch of its own. An `ack` of 0 with the ACK flag becomes the ack of our SYN.
    pub(crate) fn send(&mut self, seg: Seg) {
        self.send_in_batch(seg);
        self.bed.with(|stack, io, _| stack.rx_batch_end(io));
        self.check();
    }

    /// Sends one segment of a batch.
    pub(crate) fn send_in_batch(&mut self, seg: Seg) {
        self.send_with(seg, RxCsum::Good);
    }

    /// Sends one segment with a wrong checksum.
    pub(crate) fn send_broken(&mut self, seg: Seg) {
        self.send_with(seg, RxCsum::Bad);
    }

    fn send_with(&mut self, mut seg: Seg, csum: RxCsum) {
        if seg.flags & tcphdr::ACK != 0 && seg.ack == 0 {
            seg.ack = self.isn.wrapping_add(1);
        }
        let back = Tuple {
            local: self.tuple.remote,
            remote: self.tuple.local,
        };
        let tcp = TcpHeader {
            src_port: back.local.port(),
            dst_port: back.remote.port(),
            seq: seg.seq,
            ack_seq: seg.ack,
            flags: TcpFlags::from_bits_retain(seg.flags),
            window: seg.window,
            urg_ptr: seg.urg_ptr,
        };
        let ip = IpFields {
            ttl: 64,
            tos: seg.tos,
            ..IpFields::default()
        };
        let headers = Headers::build(&back, &ip, &tcp, &seg.opts.unwrap_or_default(), seg.len)
            .expect("headers");
        let payload = (seg.len > 0).then(|| self.payload(seg.seq, seg.len));
        let mut frame = Ingress {
            headers: headers.bytes(),
            payload,
            csum,
            gso_segs: 1,
            gso_size: 0,
            iif: 2,
            tstamp_ns: 0,
        };
        self.bed.with(|stack, io, _| stack.rx(io, &mut frame));
    }

    /// Bytes of the peer's stream: each is the low byte of its sequence number, so that one page serves for all.
    fn payload(&mut self, seq: u32, len: u32) -> Frag {
        let mem = match &self.page {
            Some(mem) => mem.clone(),
            None => {
                let mem = self.bed.mem.alloc_page_frag().expect("a page");
                let bytes: Vec<u8> = (0..PAGE_FRAG_SIZE).map(|i| i as u8).collect();
                self.bed.mem.write(&mem, 0, &bytes);
                self.page.insert(mem).clone()
            }
        };
        let off = seq & 0xff;
        Frag { mem, off, len }
    }

    /// Everything sent since the last look.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        let frames = core::mem::take(&mut self.bed.wire.sent);
        frames
            .iter()
            .map(|(headers, len)| {
                let tcp = TcpView::parse(headers).expect("a TCP header");
                let flags = tcp.flags().bits();
                Sent {
                    flags,
                    seq: tcp.seq(),
                    ack: tcp.ack_seq(),
                    len: *len,
                    window: tcp.window(),
                    opts: TcpOptions::parse(tcp.options(), flags & tcphdr::SYN != 0),
                }
            })
            .collect()
    }

    /// The one segment sent since the last look.
    pub(crate) fn only(&mut self) -> Sent {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent[0]
    }

    /// TOS, TTL and Don't Fragment of the last frame sent.
    pub(crate) fn ip_fields(&self) -> (u8, u8, bool) {
        let ip = Ipv4View::parse_embedded(&self.bed.wire.ip).expect("an IPv4 header");
        (ip.tos(), ip.ttl(), ip.dont_fragment())
    }

    /// Lets time pass, with its timers.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        let end = self.bed.now + ms * NSEC_PER_MSEC;
        loop {
            let next = self.bed.stack.next_deadline();
            if next > end {
                break;
            }
            self.bed.now = self.bed.now.max(next);
            self.bed.with(|stack, io, _| stack.on_timers(io));
            self.check();
        }
        self.bed.now = end;
    }

    /// Lets delayed acks go, and forgets them.
    pub(crate) fn settle_acks(&mut self) {
        self.pass_ms(250);
        self.sent();
    }

    fn check(&mut self) {
        self.bed.stack.for_each(|_, sk| sk.check());
    }

    /// The connection's socket.
    pub(crate) fn sk(&mut self) -> &mut TcpSock {
        self.bed.sk()
    }

    pub(crate) fn state(&self) -> TcpState {
        self.bed.stack.state(self.bed.id)
    }

    /// Accepts; the child becomes the test's connection.
    pub(crate) fn accept(&mut self) {
        let listener = self.listener.expect("a listener");
        let mut call = AcceptCall::default();
        let step = self
            .bed
            .with(|stack, io, _| stack.accept(io, listener, true, &mut call));
        let Step::Ready(Ok(child)) = step else {
            panic!("accept: {step:?}")
        };
        self.bed.id = child;
    }

    /// A non-blocking connect to the peer.
    pub(crate) fn connect(&mut self) -> Step<Result<(), Error>> {
        let mut call = ConnectCall::default();
        let remote: SocketAddr = REMOTE.into();
        self.bed
            .with(|stack, io, id| stack.connect(io, id, remote, true, &mut call))
    }

    pub(crate) fn shutdown(&mut self, how: i32) -> Result<(), Error> {
        self.bed.with(|stack, io, id| stack.shutdown(io, id, how))
    }

    pub(crate) fn close(&mut self) {
        let mut call = CloseCall::default();
        let step = self
            .bed
            .with(|stack, io, id| stack.close(io, id, false, &mut call));
        assert_eq!(step, Step::Ready(()));
    }

    /// A non-blocking recv of `len` bytes.
    pub(crate) fn recv(&mut self, flags: i32, len: usize) -> Result<usize, Error> {
        self.recv_call(&mut RecvCall::new(flags, true), len)
    }

    pub(crate) fn recv_call(&mut self, call: &mut RecvCall, len: usize) -> Result<usize, Error> {
        let mut iter = Iter::new(&self.bed, alloc::vec![(alloc::vec![0; len], true)]);
        match self
            .bed
            .with(|stack, io, id| stack.recvmsg(io, id, call, &mut iter))
        {
            Step::Ready(r) => r,
            Step::Wait { .. } => panic!("a non-blocking recv sleeps"),
        }
    }

    /// The events since the last look, of the test's socket.
    pub(crate) fn events(&mut self) -> crate::event::Events {
        let id = self.bed.id;
        let mut all = crate::event::Events::empty();
        self.bed.stack.take_events(|_, who, events| {
            if who == id {
                all |= events;
            }
        });
        all
    }

    /// Tuples released since the last look.
    pub(crate) fn released(&mut self) -> usize {
        let mut n = 0;
        self.bed.stack.take_released(|_| n += 1);
        n
    }

    pub(crate) fn now(&self) -> Instant {
        self.bed.now
    }
}
