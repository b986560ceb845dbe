//! One established connection on a bench: frames are recorded, acks are put in by hand, time is set. For unit tests of the
//! sender.

extern crate std;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU64;

use sidewire_uapi::TcpState;
use sidewire_wire::tcp::{TcpFlags, TcpOptions, TcpView};
use sidewire_wire::tcp_options::Signature;

use crate::ack::{AckFlag, AckOutcome, tcp_ack};
use crate::error::Error;
use crate::memory::{Fault, Frag, MemRef, Memory, Region, RegionKind};
use crate::net::{
    Dst, FlowKey, HostQueue, Net, RouteMetrics, Transmit, Tuple, TxTicket, TxVerdict,
};
use crate::output::{tcp_data_snd_check, tcp_push_pending, tcp_queue_skb, tcp_send_mss};
use crate::segment::Segment;
use crate::seq::before;
use crate::skb::{SKB_TRUESIZE, tcphdr};
use crate::sock::{TcpSock, nagle};
use crate::stack::{Cx, Secrets, SocketId, Stack};
use crate::sysctl::Sysctl;
use crate::time::{Instant, NSEC_PER_MSEC, NSEC_PER_SEC};
use crate::timer::{TimerOutcome, fire_timer};
use crate::tx_late::TxLate;

pub(crate) const MSS: u32 = 1_448;

/// A frame as it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub at: Instant,
    pub seq: u32,
    pub len: u32,
    pub gso_size: u16,
    pub flags: TcpFlags,
    pub options: TcpOptions,
    pub window: u16,
    pub ack_seq: u32,
}

struct Bytes(Vec<u8>);

impl Region for Bytes {
    fn base(&self) -> *const u8 {
        self.0.as_ptr()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn kind(&self) -> RegionKind {
        RegionKind::Arena
    }
}

struct NoMemory;

impl Memory for NoMemory {
    fn alloc_page_frag(&mut self) -> Option<MemRef> {
        None
    }
    fn read(&mut self, _: &Frag, _: &mut [u8]) -> Result<(), Fault> {
        Err(Fault)
    }
    fn write(&mut self, _: &MemRef, _: u32, _: &[u8]) {}
}

struct Wire {
    dst: Dst,
    now: Instant,
    frames: Vec<Sent>,
    verdict: TxVerdict,
    /// Frames go into a queue before the device.
    queues: bool,
    /// What is in it.
    queue: VecDeque<(TxTicket, TxLate)>,
    tickets: u64,
    /// Bytes in the device's queue.
    device: u32,
    /// They have left, and nobody has asked since.
    just_left: bool,
    /// The limits that the queue was compared with.
    asked: Vec<u32>,
}

impl Wire {
    fn queued(&mut self, late: TxLate) -> TxVerdict {
        self.tickets += 1;
        let ticket = TxTicket(NonZeroU64::new(self.tickets).expect("counts from 1"));
        self.queue.push_back((ticket, late));
        TxVerdict::Queued(ticket)
    }
}

impl Net for Wire {
    fn route(&mut self, _: &FlowKey) -> Result<Dst, Error> {
        Ok(self.dst)
    }
    fn route_generation(&self) -> u32 {
        self.dst.generation
    }
    fn transmit(&mut self, t: &Transmit<'_>) -> TxVerdict {
        if self.verdict != TxVerdict::Sent {
            return self.verdict;
        }
        let tcp = TcpView::parse(&t.headers[t.l4_offset..]).expect("a TCP header");
        let len: u32 = t.frags.iter().map(|f| f.len).sum();
        let total = u32::from(u16::from_be_bytes([t.headers[2], t.headers[3]]));
        assert_eq!(total, t.headers.len() as u32 + len, "IP total length");
        self.frames.push(Sent {
            at: self.now,
            seq: tcp.seq(),
            len,
            gso_size: t.gso_size,
            flags: tcp.flags(),
            options: TcpOptions::parse(tcp.options(), tcp.flags().contains(TcpFlags::SYN)),
            window: tcp.window(),
            ack_seq: tcp.ack_seq(),
        });
        if self.queues {
            let fin = tcp.flags().contains(TcpFlags::FIN);
            return self.queued(TxLate {
                tuple: t.sock.expect("a socket's").tuple,
                seq: tcp.seq(),
                end_seq: tcp.seq().wrapping_add(len + u32::from(fin)),
            });
        }
        TxVerdict::Sent
    }
    fn in_host_queue(&mut self, ticket: TxTicket) -> HostQueue {
        if self.queue.iter().any(|(t, _)| *t == ticket) {
            HostQueue::Here
        } else if self.device > 0 && ticket.0.get() == self.tickets {
            HostQueue::Device(self.device)
        } else if core::mem::take(&mut self.just_left) {
            HostQueue::Left
        } else {
            HostQueue::Clear
        }
    }
    fn small_queue(&mut self, _: &Tuple, limit: u32) -> HostQueue {
        self.asked.push(limit);
        let charge = |l: &TxLate| l.end_seq.wrapping_sub(l.seq) + SKB_TRUESIZE;
        if self.queue.iter().map(|(_, l)| charge(l)).sum::<u32>() > limit {
            return HostQueue::Here;
        }
        match self.device.checked_sub(limit) {
            Some(excess) if excess > 0 => HostQueue::Device(excess),
            _ => HostQueue::Clear,
        }
    }
    fn tail_waits(&mut self, tuple: &Tuple, limit: u32) -> HostQueue {
        self.small_queue(tuple, limit)
    }
    fn recall(&mut self, _: &Tuple, from: u32) -> Vec<TxLate> {
        let (back, stays): (VecDeque<_>, _) = core::mem::take(&mut self.queue)
            .into_iter()
            .partition(|(_, l)| l.end_seq != l.seq && !before(l.seq, from));
        self.queue = stays;
        back.into_iter().map(|(_, late)| late).collect()
    }
}

pub(crate) struct Bench {
    pub sk: Box<TcpSock>,
    pub stack: Stack,
    pub now: Instant,
    wire: Wire,
    region: MemRef,
    /// Sequence number of the first data byte.
    pub base: u32,
}

impl Bench {
    /// SACK, no timestamps, MSS 1448, a window of 1 MB, RTT 20 ms.
    pub(crate) fn new() -> Self {
        let stack = Stack::new(
            Sysctl::default(),
            Secrets {
                isn: [1; 16],
                ts: [2; 16],
                fastopen: [3; 16],
                hash: [4; 16],
            },
        );
        let now = Instant(100 * NSEC_PER_SEC);
        let dst = Dst {
            oif: 1,
            gateway: None,
            saddr: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            mtu: MSS + 40,
            advmss: 0,
            gso_max_size: 65_536,
            gso_max_segs: 65_535,
            sg: true,
            zerocopy_copied: false,
            copied_in_cutting: false,
            metrics: RouteMetrics::default(),
            generation: 7,
        };
        let mut sk = Box::new(TcpSock::new(false, 0, &stack.sh.sysctl));
        sk.tuple = Tuple {
            local: SocketAddr::new(dst.saddr, 40_000),
            remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 80),
        };
        sk.state = TcpState::Established;
        crate::window::tcp_initialize_rcv_mss(&mut sk);
        sk.dst = Some(dst);
        sk.sack_ok = true;
        let base = 1_000_000;
        for field in [
            &mut sk.snd_una,
            &mut sk.snd_nxt,
            &mut sk.write_seq,
            &mut sk.pushed_seq,
            &mut sk.snd_sml,
            &mut sk.snd_up,
        ] {
            *field = base;
        }
        sk.rcv_nxt = 5_000;
        sk.rcv_wup = 5_000;
        sk.copied_seq = 5_000;
        sk.rcv_wnd = 64_000;
        sk.rcv_ssthresh = 64_000;
        sk.window_clamp = 64_000;
        sk.snd_wl1 = 5_000;
        sk.snd_wnd = 1_000_000;
        sk.snd_wscale = 7;
        sk.rcv_wscale = 7;
        sk.wscale_ok = true;
        sk.max_window = 1_000_000;
        sk.mss_clamp = 1_460;
        sk.advmss = 1_460;
        sk.sndbuf = 4_000_000;
        sk.app_limited = 0;
        let mut bench = Self {
            sk,
            stack,
            now,
            wire: Wire {
                dst,
                now,
                frames: Vec::new(),
                verdict: TxVerdict::Sent,
                queues: false,
                queue: VecDeque::new(),
                tickets: 0,
                device: 0,
                just_left: false,
                asked: Vec::new(),
            },
            region: Arc::new(Bytes(std::vec![0; 1 << 20])),
            base,
        };
        bench.with(|sk, cx| {
            crate::mss::tcp_sync_mss(sk, cx, MSS + 40);
            crate::cong::init(sk, cx);
            crate::rtt::tcp_rtt_estimator(sk, 20_000);
            crate::rtt::tcp_set_rto(sk);
        });
        bench
    }

    /// Without SACK.
    pub(crate) fn reno() -> Self {
        let mut bench = Self::new();
        bench.sk.sack_ok = false;
        bench
    }

    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut TcpSock, &mut Cx<'_, '_>) -> R) -> R {
        self.wire.now = self.now;
        let mut mem = NoMemory;
        let mut cx = Cx {
            now: self.now,
            wall_ns: 0,
            bh: false,
            id: SocketId::default(),
            mem: &mut mem,
            net: &mut self.wire,
            sh: &mut self.stack.sh,
        };
        let out = f(&mut self.sk, &mut cx);
        self.sk.check();
        out
    }

    pub(crate) fn verdict(&mut self, verdict: TxVerdict) {
        self.wire.verdict = verdict;
    }

    /// From now on frames wait before the device.
    pub(crate) fn queues(&mut self) {
        self.wire.queues = true;
    }

    /// The device takes the first frame that waits, if it does.
    pub(crate) fn carry(&mut self) -> TxLate {
        let (_, frame) = self.wire.queue.pop_front().expect("a frame waits");
        frame
    }

    /// Frames that wait before the device.
    pub(crate) fn waits(&self) -> usize {
        self.wire.queue.len()
    }

    /// From now on so many bytes wait in the device's queue, the newest frame among them.
    pub(crate) fn device_holds(&mut self, bytes: u32) {
        self.wire.just_left = bytes == 0 && self.wire.device > 0;
        self.wire.device = bytes;
    }

    /// The limits of small queues that the device's was compared with since the last call.
    pub(crate) fn asked(&mut self) -> Vec<u32> {
        core::mem::take(&mut self.wire.asked)
    }

    pub(crate) fn mtu(&mut self, mtu: u32) {
        self.wire.dst.mtu = mtu;
        self.wire.dst.generation += 1;
    }

    pub(crate) fn gso(&mut self, max_size: u32, max_segs: u16) {
        self.wire.dst.gso_max_size = max_size;
        self.wire.dst.gso_max_segs = max_segs;
        self.wire.dst.generation += 1;
    }

    pub(crate) fn after_ms(&mut self, ms: u64) {
        self.now = self.now + ms * NSEC_PER_MSEC;
    }

    /// Queues bytes in buffers of up to `size_goal`, without sending.
    pub(crate) fn queue(&mut self, mut n: u32) {
        let region = self.region.clone();
        self.with(|sk, cx| {
            let (_, goal) = tcp_send_mss(sk, cx, 0);
            while n > 0 {
                let len = n.min(goal);
                n -= len;
                let mut skb = cx.sh.pool.alloc();
                skb.seq = sk.write_seq;
                skb.end_seq = sk.write_seq.wrapping_add(len);
                skb.tcp_flags = tcphdr::ACK;
                skb.truesize = SKB_TRUESIZE + len;
                // As a sender fills page fragments: a page boundary may come at any place.
                let mut off = sk.write_seq % (1 << 19);
                let mut left = len;
                while left > 0 {
                    let part = left.min(32_768 - off % 32_768);
                    assert!(skb.push_frag(Frag {
                        mem: region.clone(),
                        off,
                        len: part,
                    }));
                    off += part;
                    left -= part;
                }
                tcp_queue_skb(sk, cx, skb);
            }
        });
    }

    /// Queues bytes and sends what may go.
    pub(crate) fn write(&mut self, n: u32) -> Vec<Sent> {
        self.write_with(n, nagle::OFF)
    }

    pub(crate) fn write_with(&mut self, n: u32, nonagle: u8) -> Vec<Sent> {
        self.queue(n);
        self.with(|sk, cx| {
            let (mss_now, _) = tcp_send_mss(sk, cx, 0);
            tcp_push_pending(sk, cx, mss_now, nonagle);
        });
        self.sent()
    }

    /// Shared state and the wire, for what is sent without a socket.
    pub(crate) fn parts(&mut self) -> (&mut crate::stack::Shared, &mut dyn Net) {
        self.wire.now = self.now;
        (&mut self.stack.sh, &mut self.wire)
    }

    /// Frames since the last look.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        core::mem::take(&mut self.wire.frames)
    }

    /// An ack for `n` bytes from the beginning, with SACK blocks in bytes from the beginning.
    pub(crate) fn ack(&mut self, n: u32, sacks: &[(u32, u32)]) -> Vec<Sent> {
        let window = (self.sk.snd_wnd >> self.sk.snd_wscale) as u16;
        self.ack_window(n, sacks, window)
    }

    pub(crate) fn ack_window(&mut self, n: u32, sacks: &[(u32, u32)], window: u16) -> Vec<Sent> {
        let seg = self.segment(n, sacks, window);
        let out = self.take(&seg);
        assert_eq!(out, AckOutcome::Ok);
        self.sent()
    }

    pub(crate) fn segment(&self, n: u32, sacks: &[(u32, u32)], window: u16) -> Segment {
        Segment {
            tuple: self.sk.tuple,
            seq: self.sk.rcv_nxt,
            end_seq: self.sk.rcv_nxt,
            ack_seq: self.base.wrapping_add(n),
            flags: tcphdr::ACK,
            window,
            urg_ptr: 0,
            opts: TcpOptions {
                sack: sacks
                    .iter()
                    .map(|(a, b)| (self.base.wrapping_add(*a), self.base.wrapping_add(*b)))
                    .collect(),
                ..TcpOptions::default()
            },
            payload: None,
            headers: Default::default(),
            signature: Signature::None,
            opt_len: 0,
            len: 0,
            gso_segs: 1,
            gso_size: 0,
            tos: 0,
            ttl: 64,
            iif: 1,
            tstamp_ns: 0,
        }
    }

    pub(crate) fn take(&mut self, seg: &Segment) -> AckOutcome {
        self.with(|sk, cx| {
            cx.bh = true;
            let out = tcp_ack(sk, cx, seg, AckFlag::SLOWPATH);
            if out == AckOutcome::Ok {
                tcp_data_snd_check(sk, cx);
            }
            out
        })
    }

    /// Goes to the next deadline and lets the timer fire.
    pub(crate) fn fire(&mut self) -> (TimerOutcome, Vec<Sent>) {
        let at = self.sk.timers.earliest();
        assert!(at != Instant::NEVER, "no timer is armed");
        self.now = self.now.max(at);
        let timer = self.sk.timers.take_due(self.now).expect("a timer is due");
        let out = self.with(|sk, cx| {
            cx.bh = true;
            fire_timer(sk, cx, timer)
        });
        (out, self.sent())
    }

    /// Milliseconds until the next deadline.
    pub(crate) fn due_ms(&self) -> u64 {
        self.sk.timers.earliest().since(self.now) / NSEC_PER_MSEC
    }

    /// Byte ranges of frames, from the beginning.
    pub(crate) fn ranges(&self, sent: &[Sent]) -> Vec<(u32, u32)> {
        sent.iter()
            .map(|s| {
                let start = s.seq.wrapping_sub(self.base);
                (start, start + s.len)
            })
            .collect()
    }
}
