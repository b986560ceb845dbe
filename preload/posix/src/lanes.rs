//! From the engine to the device: queues that are filled under the stack's lock and emptied without it.
//!
//! Handing a frame to the packet socket is most of what a send costs: the kernel copies the payload, and on a virtual link
//! does the receiver's work, too. So the engine only puts frames into the *lane* of their connection. Whoever held the stack's
//! lock then *carries* the lane: it hands its frames over, several in a call, while other threads use the engine. A lane has
//! one carrier at a time, which keeps the frames of a connection in order; what others add meanwhile, it takes along.
//!
//! Nobody carries for others for ever: after [`QUOTA`] frames of a lane the rest is left to whoever adds to it next, or to
//! the pump.
//!
//! Where the queueing discipline drops a frame the lane *halts* until the engine knows: Linux sends nothing behind a segment
//! that was dropped here, so the engine takes back what waits ([`Entrances::recall`]).
//!
//! What has been handed over may wait in the device's queue: the engine asks how much ([`Entrances::small_queue`]). As long as
//! that is little the lanes share a packet socket; a lane before which more waits gets one of its own, for which the kernel
//! tells it alone, and which does not stop the others where its device is slow. (Not from the start: to close a packet socket
//! takes the kernel some milliseconds.)
//!
//! Locks: whoever has a carrier's lock takes those of the arenas at most, never the stack's; so it may be waited for under
//! that one.

use core::net::SocketAddr;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use arrayvec::ArrayVec;
use libc::iovec;
use once_cell::sync::OnceCell;
use rtrb::{Consumer, Producer, RingBuffer};
use sidewire_engine::memory::Frag;
use sidewire_engine::net::{HostQueue, MAX_HEADER, Tuple, TxTicket, TxVerdict};
use sidewire_engine::seq::before;
use sidewire_engine::skb::{MAX_SKB_FRAGS, SKB_TRUESIZE};
use sidewire_engine::tx_late::TxLate;
use sidewire_link::frame::{FrameSink, Outq, TxFrame, TxTime, TxVerdict as Verdict};
use sidewire_link::packet::PacketSink;
use sidewire_wire::ethernet::MacAddr;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpFlags, TcpView};

use crate::lock::Mutex;
use crate::thread;

mod tally;

use tally::Tally;

/// Lanes of a stack; connections share them by their ports.
pub(crate) const LANES: usize = 16;
/// Frames that a lane holds: a megabyte of super-frames.
const DEPTH: usize = 16;
/// Frames that are handed over in one call.
const BATCH: usize = 8;
/// Frames of a lane that one call carries.
const QUOTA: usize = 4 * BATCH;

/// What the kernel charges to the packet socket for a frame beside its payload: headers, its own structures, and the rest of
/// the last page, on the whole; and for a frame that is not longer than [`SMALL_FRAME`].
const FRAME_CHARGE: u32 = 1024;
const SMALL_CHARGE: u32 = 832;
const SMALL_FRAME: u32 = 320;

/// How long a frame that went out by a packet socket that others use as well is looked for among what waits behind that: it
/// may be another connection's, of a device that stands still.
const SHARED_FOR: u64 = 1_000_000_000;

/// How long a queue that was found empty is not asked again on behalf of small tails, in nanoseconds: to ask costs a quarter of
/// a small send.
const CLEAR_FOR: u64 = 10_000;

/// Some of the lanes, a bit for each.
pub(crate) type Which = u16;
/// Every lane.
pub(crate) const ALL: Which = Which::MAX;

/// A frame on its way. Large: filled where it waits.
#[derive(Default)]
pub(crate) struct Parcel {
    pub(crate) ifindex: u32,
    pub(crate) dst_mac: Option<MacAddr>,
    pub(crate) src_mac: MacAddr,
    pub(crate) headers: ArrayVec<u8, MAX_HEADER>,
    pub(crate) frags: ArrayVec<Frag, MAX_SKB_FRAGS>,
    /// Their bytes.
    pub(crate) len: u32,
    pub(crate) gso_size: u16,
    pub(crate) mark: u32,
    pub(crate) priority: u32,
    pub(crate) txtime: Option<TxTime>,
}

impl Parcel {
    /// What the kernel will charge for it, in bytes.
    fn charge(&self) -> u32 {
        charge(self.len)
    }

    fn frame<'a>(&'a self, iov: &'a [iovec]) -> TxFrame<'a> {
        TxFrame {
            ifindex: self.ifindex,
            dst_mac: self.dst_mac,
            src_mac: self.src_mac,
            headers: &self.headers,
            frags: iov,
            gso_size: self.gso_size,
            mark: self.mark,
            priority: self.priority,
            tstamp: None,
            txtime: self.txtime,
        }
    }
}

/// What the kernel will charge for a frame with so many bytes of payload.
fn charge(payload: u32) -> u32 {
    if payload <= SMALL_FRAME - MAX_HEADER as u32 {
        SMALL_CHARGE
    } else {
        payload + FRAME_CHARGE
    }
}

/// What Linux's TCP would.
fn truesize(payload: u32) -> u32 {
    payload + SKB_TRUESIZE
}

/// Where a fragment lies.
fn address(f: &Frag) -> iovec {
    iovec {
        iov_base: f.ptr().cast_mut().cast(),
        iov_len: f.len as usize,
    }
}

/// The payload's addresses.
pub(crate) fn iovecs(frags: &[Frag]) -> ArrayVec<iovec, MAX_SKB_FRAGS> {
    frags.iter().map(address).collect()
}

/// The engine's word for what became of a frame.
pub(crate) fn verdict(v: Verdict) -> TxVerdict {
    match v {
        Verdict::Sent => TxVerdict::Sent,
        Verdict::NoSpace => TxVerdict::NoSpace,
        // The MTU shrank: netlink says so in a moment, and until then it is a local loss.
        Verdict::Dropped | Verdict::TooBig => TxVerdict::Dropped,
        Verdict::Fault => TxVerdict::Fault,
        Verdict::DeviceGone | Verdict::Refused(_) => TxVerdict::DeviceGone,
    }
}

/// A frame that did not leave, or that was copied on the way, by its headers.
pub(crate) struct Late {
    pub(crate) headers: ArrayVec<u8, MAX_HEADER>,
    pub(crate) len: u32,
    pub(crate) verdict: TxVerdict,
    /// The lane that it was in.
    pub(crate) lane: usize,
}

/// Whose frame it was, and what it held.
fn tcp_frame(headers: &[u8], len: u32) -> Option<TxLate> {
    let ip = Ipv4View::parse_prefix(headers, headers.len() + len as usize).ok()?;
    let tcp = TcpView::parse_prefix(&headers[ip.header_len()..], ip.payload_len()).ok()?;
    let fin = u32::from(tcp.flags().contains(TcpFlags::FIN));
    Some(TxLate {
        tuple: Tuple {
            local: SocketAddr::new(ip.src().into(), tcp.src_port()),
            remote: SocketAddr::new(ip.dst().into(), tcp.dst_port()),
        },
        seq: tcp.seq(),
        end_seq: tcp.seq().wrapping_add(len + fin),
    })
}

impl Late {
    /// Whose frame it was, and what it held.
    pub(crate) fn of(&self) -> Option<TxLate> {
        tcp_frame(&self.headers, self.len)
    }
}

/// A frame in a lane, and its number there: from 1, in the order of coming.
#[derive(Default)]
struct Numbered {
    number: u64,
    parcel: Parcel,
}

struct Carrier<S> {
    sink: S,
    parcels: Consumer<Numbered>,
    /// Where the payload of a batch lies; between batches nobody reads it.
    iov: Box<Addresses>,
}

/// Those of a batch: too many for the program's stack.
struct Addresses(ArrayVec<iovec, { BATCH * MAX_SKB_FRAGS }>);

// SAFETY: set anew for each batch, by whoever has the carrier, and not used after it.
unsafe impl Send for Addresses {}

struct Lane<S: FrameSink> {
    n: usize,
    carrier: Mutex<Carrier<S>>,
    /// Frames in it.
    waiting: AtomicUsize,
    /// What they will be charged, in bytes.
    charge: AtomicUsize,
    /// The packet socket that all lanes begin with.
    shared: S::Outq,
    /// The lane's own.
    own: OnceCell<S::Outq>,
    /// Frames up to this one may have gone by the shared one.
    behind: AtomicU64,
    /// The next carrier that is a thread of the program's is to open one.
    wants_own: AtomicBool,
    /// None can be had.
    no_own: AtomicBool,
    /// The number of the last frame that has left it.
    carried: AtomicU64,
    /// The number of a frame whose leaving the engine wants to hear of, 0 for none.
    awaited: AtomicU64,
    /// A frame found no room in it: the engine is to be told when there is some.
    starved: AtomicBool,
    /// The packet socket is full: POLLOUT is awaited.
    full: AtomicBool,
    /// A frame was dropped: nothing leaves before the engine was told.
    halted: AtomicBool,
}

impl<S: FrameSink> Lane<S> {
    fn waits(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Frames up to this number have left it.
    fn left(&self, number: u64, frames: usize, charge: u32) {
        self.carried.store(number, Ordering::SeqCst);
        self.waiting.fetch_sub(frames, Ordering::SeqCst);
        self.charge.fetch_sub(charge as usize, Ordering::SeqCst);
    }

    /// True while the frame of that number is in it; [`Carried::room`] says when it has left.
    fn holds(&self, number: u64) -> bool {
        if self.carried.load(Ordering::SeqCst) >= number {
            return false;
        }
        // The first of several: when it has left, all are asked for again.
        let awaited = self.awaited.load(Ordering::SeqCst);
        if awaited == 0 || number < awaited {
            self.awaited.store(number, Ordering::SeqCst);
        }
        // The carrier may have looked at `awaited` just before: then it has left.
        self.carried.load(Ordering::SeqCst) < number
    }

    /// What waits of it here and in the kernel, in bytes; others that share its packet socket count as well. When more than
    /// `parts` waits in the kernel, only a socket of its own can tell whose it is.
    fn backlog(&self, parts: u32) -> u64 {
        // In this order: a frame that is handed over meanwhile counts twice, not never.
        let here = self.charge.load(Ordering::SeqCst);
        let Some(own) = self.own.get() else {
            let shared = self.shared.bytes();
            if shared > parts as usize && !self.no_own.load(Ordering::Relaxed) {
                self.wants_own.store(true, Ordering::Relaxed);
            }
            return (here + shared) as u64;
        };
        (here + own.bytes()) as u64
    }

    /// The last frame that may wait behind the shared packet socket beside the lane's own.
    fn behind(&self) -> u64 {
        self.behind.load(Ordering::SeqCst)
    }

    /// True once when the frame has left that the engine waits for.
    fn awaited_left(&self) -> bool {
        let awaited = self.awaited.load(Ordering::SeqCst);
        awaited != 0
            && self.carried.load(Ordering::SeqCst) >= awaited
            && self.awaited.swap(0, Ordering::SeqCst) != 0
    }

    /// True when frames may leave it.
    fn open(&self) -> bool {
        !self.full.load(Ordering::SeqCst) && !self.halted.load(Ordering::SeqCst)
    }
}

/// What a round of carrying leaves to be done.
#[derive(Default)]
pub(crate) struct Carried {
    /// Frames that did not leave.
    pub(crate) late: Vec<Late>,
    /// There is room again in a lane that had none, or a frame has left that was awaited.
    pub(crate) room: bool,
    /// The shared packet socket is full.
    pub(crate) full: bool,
    /// A lane's own packet socket is full: it is tried again soon.
    pub(crate) own_full: bool,
    /// A quota is used up: somebody else is to carry on.
    pub(crate) left: bool,
}

impl Carried {
    /// Nothing is left to be done.
    pub(crate) fn quiet(&self) -> bool {
        self.late.is_empty() && !self.room && !self.full && !self.own_full && !self.left
    }
}

/// The lanes of a stack: where frames come out.
pub(crate) struct Lanes<S: FrameSink = PacketSink>([Lane<S>; LANES]);

/// Where frames go in. Behind the stack's lock.
pub(crate) struct Entrances([Entrance; LANES]);

struct Entrance {
    parcels: Producer<Numbered>,
    /// The number of the last frame that was put in.
    last: u64,
    tally: Tally,
}

impl Entrance {
    /// Asks what waits of the lane, in bytes of the kernel's.
    fn look<S: FrameSink>(&mut self, lane: &Lane<S>, parts: u32) {
        let mut waiting = lane.backlog(parts);
        if lane.own.get().is_some() && self.tally.until(lane.behind(), 0) > 0 {
            waiting += lane.shared.bytes() as u64;
        }
        self.tally.found(waiting);
    }
}

/// Empty lanes.
pub(crate) fn open<S: FrameSink>(sink: impl Fn() -> S) -> (Entrances, Lanes<S>) {
    let mut entrances = ArrayVec::<_, LANES>::new();
    let lanes = core::array::from_fn(|n| {
        let (entrance, parcels) = RingBuffer::new(DEPTH);
        entrances.push(Entrance {
            parcels: entrance,
            last: 0,
            tally: Tally::new(),
        });
        let sink = sink();
        Lane {
            n,
            shared: sink.outq(),
            carrier: Mutex::new(Carrier {
                sink,
                parcels,
                iov: Box::new(Addresses(ArrayVec::new())),
            }),
            waiting: AtomicUsize::new(0),
            charge: AtomicUsize::new(0),
            own: OnceCell::new(),
            behind: AtomicU64::new(0),
            wants_own: AtomicBool::new(false),
            no_own: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            full: AtomicBool::new(false),
            halted: AtomicBool::new(false),
        }
    });
    let Ok(entrances) = entrances.into_inner() else {
        unreachable!("one for each lane");
    };
    (Entrances(entrances), Lanes(lanes))
}

/// The lane of a connection.
pub(crate) fn of_ports(local: u16, remote: u16) -> usize {
    usize::from(local ^ remote ^ local >> 4 ^ remote >> 4) % LANES
}

/// Numbers of tickets: the frame's in its lane, and the lane.
const TICKET_LANES: u64 = LANES as u64;

impl Entrances {
    /// Puts a frame into the lane of a connection with these ports. None when it is full, and then nothing was filled:
    /// [`Carried::room`] follows.
    pub(crate) fn put<S: FrameSink>(
        &mut self,
        lanes: &Lanes<S>,
        ports: (u16, u16),
        now: u64,
        fill: impl FnOnce(&mut Parcel),
    ) -> Option<TxTicket> {
        let n = of_ports(ports.0, ports.1);
        let (entrance, lane) = (&mut self.0[n], &lanes.0[n]);
        if entrance.parcels.is_full() {
            lane.starved.store(true, Ordering::SeqCst);
            // The carrier may have looked at `starved` just before: then there is room.
            if entrance.parcels.is_full() {
                return None;
            }
        }
        // There is room, and nobody else puts anything in.
        let mut place = entrance.parcels.write_chunk(1).ok()?;
        let numbered = place.as_mut_slices().0.first_mut()?;
        entrance.last += 1;
        let number = entrance.last;
        numbered.number = number;
        fill(&mut numbered.parcel);
        let (charge, truesize) = (numbered.parcel.charge(), truesize(numbered.parcel.len));
        // Counted first: a carrier takes nothing off that was not added.
        lane.waiting.fetch_add(1, Ordering::SeqCst);
        lane.charge.fetch_add(charge as usize, Ordering::SeqCst);
        entrance.tally.add(number, truesize, charge, now, ports);
        place.commit_all();
        NonZeroU64::new(number * TICKET_LANES + n as u64).map(TxTicket)
    }

    /// A frame of a connection with these ports, and so many bytes of payload, went out by the shared packet socket behind all
    /// that its lane held. Under the stack's lock.
    pub(crate) fn went_behind<S: FrameSink>(
        &mut self,
        lanes: &Lanes<S>,
        ports: (u16, u16),
        now: u64,
        payload: u32,
    ) {
        let n = of_ports(ports.0, ports.1);
        let (entrance, lane) = (&mut self.0[n], &lanes.0[n]);
        // What a lane that is halted holds has not left.
        if lane.waits() {
            return;
        }
        entrance.last += 1;
        let (truesize, charge) = (truesize(payload), charge(payload));
        (entrance.tally).add(entrance.last, truesize, charge, now, ports);
        lane.carried.store(entrance.last, Ordering::SeqCst);
        lane.behind.fetch_max(entrance.last, Ordering::SeqCst);
    }

    /// Takes the frames of a connection out of its lane that hold data or FIN from `from` on, in their order.
    pub(crate) fn recall<S: FrameSink>(
        &mut self,
        lanes: &Lanes<S>,
        tuple: &Tuple,
        from: u32,
    ) -> Vec<(TxLate, Parcel)> {
        let n = of_ports(tuple.local.port(), tuple.remote.port());
        let (entrance, lane) = (&mut self.0[n], &lanes.0[n]);
        // Nothing is put in meanwhile, so each frame is seen once, and those that stay keep their order.
        let mut carrier = lane.carrier.lock();
        let mut back = Vec::new();
        for _ in 0..carrier.parcels.slots() {
            let Ok(numbered) = carrier.parcels.pop() else {
                break;
            };
            let parcel = &numbered.parcel;
            match tcp_frame(&parcel.headers, parcel.len) {
                Some(frame)
                    if frame.tuple == *tuple
                        && frame.seq != frame.end_seq
                        && !before(frame.seq, from) =>
                {
                    back.push((frame, numbered.parcel));
                }
                _ => {
                    let stays = entrance.parcels.push(numbered);
                    debug_assert!(stays.is_ok());
                }
            }
        }
        lane.waiting.fetch_sub(back.len(), Ordering::SeqCst);
        let charge: u32 = back.iter().map(|(_, parcel)| parcel.charge()).sum();
        lane.charge.fetch_sub(charge as usize, Ordering::SeqCst);
        back
    }

    /// Where the frames of a connection's lane are, when they are charged with more than `limit` bytes. Under the stack's lock.
    pub(crate) fn small_queue<S: FrameSink>(
        &mut self,
        lanes: &Lanes<S>,
        tuple: &Tuple,
        limit: u32,
    ) -> HostQueue {
        self.beyond(lanes, tuple, limit, limit)
    }

    /// The same. With more than `parts` behind the shared socket the lane gets one of its own.
    fn beyond<S: FrameSink>(
        &mut self,
        lanes: &Lanes<S>,
        tuple: &Tuple,
        limit: u32,
        parts: u32,
    ) -> HostQueue {
        let n = of_ports(tuple.local.port(), tuple.remote.port());
        let (entrance, lane) = (&mut self.0[n], &lanes.0[n]);
        if entrance.tally.most() <= u64::from(limit) {
            return HostQueue::Clear;
        }
        entrance.look(lane, parts);
        let most = entrance.tally.most();
        let Some(excess) = most.checked_sub(u64::from(limit)).filter(|&n| n > 0) else {
            return HostQueue::Clear;
        };
        if lane.holds(entrance.last) {
            HostQueue::Here
        } else {
            HostQueue::Device(u32::try_from(excess).unwrap_or(u32::MAX))
        }
    }

    /// The same for a small tail, at `now` nanoseconds of the monotonic clock: who sends many is told of a queue that was
    /// empty a moment ago.
    pub(crate) fn tail_waits<S: FrameSink>(
        &mut self,
        lanes: &Lanes<S>,
        tuple: &Tuple,
        limit: u32,
        now: u64,
    ) -> HostQueue {
        let n = of_ports(tuple.local.port(), tuple.remote.port());
        let tally = &self.0[n].tally;
        if tally.most() <= u64::from(limit) || tally.clear_at + CLEAR_FOR > now {
            return HostQueue::Clear;
        }
        let queue = self.beyond(lanes, tuple, limit, u32::MAX);
        if queue == HostQueue::Clear {
            self.0[n].tally.clear_at = now;
        }
        queue
    }

    /// Where the frame of that ticket is, at `now` nanoseconds of the monotonic clock. Under the stack's lock.
    pub(crate) fn whereabouts<S: FrameSink>(
        &mut self,
        lanes: &Lanes<S>,
        ticket: TxTicket,
        now: u64,
    ) -> HostQueue {
        let n = (ticket.0.get() % TICKET_LANES) as usize;
        let number = ticket.0.get() / TICKET_LANES;
        let (entrance, lane) = (&mut self.0[n], &lanes.0[n]);
        if lane.holds(number) {
            return HostQueue::Here;
        }
        let since = match lane.own.get() {
            Some(_) if !entrance.tally.mixed() && number > lane.behind() => 0,
            _ => now.saturating_sub(SHARED_FOR),
        };
        if entrance.tally.until(number, since) > 0 {
            entrance.look(lane, u32::MAX);
            let left = entrance.tally.until(number, since);
            if left > 0 {
                return HostQueue::Device(u32::try_from(left).unwrap_or(u32::MAX));
            }
            return HostQueue::Left;
        }
        HostQueue::Clear
    }
}

impl<S: FrameSink> Carrier<S> {
    /// Hands over what the lane holds, at most so many frames; how many. Stops where the packet socket is full, and with
    /// `halts` where data was dropped.
    fn carry(&mut self, lane: &Lane<S>, most: usize, halts: bool, carried: &mut Carried) -> usize {
        if lane.wants_own.load(Ordering::Relaxed)
            && !thread::own()
            && lane.wants_own.swap(false, Ordering::Relaxed)
        {
            self.open_own(lane);
        }
        let mut all = 0;
        loop {
            let n = self.parcels.slots().min(BATCH).min(most - all);
            let Ok(chunk) = self.parcels.read_chunk(n) else {
                return all;
            };
            if n == 0 {
                return all;
            }
            let (first, second) = chunk.as_slices();
            let parcels = || first.iter().chain(second).map(|n| &n.parcel);
            // Filled in place: to collect them would copy the whole of them.
            let iov = &mut self.iov.0;
            iov.clear();
            iov.extend(parcels().flat_map(|p| p.frags.iter().map(address)));
            let mut rest = &iov[..];
            let mut frames = ArrayVec::<_, BATCH>::new();
            frames.extend(parcels().map(|p| {
                let (own, others) = rest.split_at(p.frags.len());
                rest = others;
                p.frame(own)
            }));
            let mut verdicts = [Verdict::Sent; BATCH];
            let tried = self.sink.send_batch(&frames, &mut verdicts);
            let (mut done, mut full, mut halted) = (0, false, false);
            for ((frame, v), parcel) in frames.iter().zip(&verdicts[..tried]).zip(parcels()) {
                let verdict = match verdict(*v) {
                    TxVerdict::NoSpace => {
                        full = true;
                        break;
                    }
                    TxVerdict::Sent => {
                        let copied = self.sink.cuts(frame.ifindex);
                        (copied && parcel.frags.iter().any(Frag::is_user))
                            .then_some(TxVerdict::Copied)
                    }
                    verdict => Some(verdict),
                };
                done += 1;
                if let Some(verdict) = verdict {
                    carried.late.push(Late {
                        headers: parcel.headers.clone(),
                        len: parcel.len,
                        verdict,
                        lane: lane.n,
                    });
                    halted = halts && verdict == TxVerdict::Dropped && parcel.len > 0;
                    if halted {
                        break;
                    }
                }
            }
            let last = first
                .iter()
                .chain(second)
                .take(done)
                .last()
                .map(|n| n.number);
            let charge = parcels().take(done).map(Parcel::charge).sum();
            drop(frames);
            chunk.commit(done);
            all += done;
            // Before the frames are off the count, so that nobody else goes on.
            if halted {
                lane.halted.store(true, Ordering::SeqCst);
            }
            if let Some(last) = last {
                lane.left(last, done, charge);
            }
            if full {
                lane.full.store(true, Ordering::SeqCst);
                let own = lane.own.get().is_some();
                carried.full |= !own;
                carried.own_full |= own;
            }
            if full || halted {
                return all;
            }
        }
    }

    /// The lane's frames leave by a packet socket of its own from now on, if one can be had.
    #[cold]
    fn open_own(&mut self, lane: &Lane<S>) {
        if self.sink.separate() {
            let carried = lane.carried.load(Ordering::SeqCst);
            lane.behind.fetch_max(carried, Ordering::SeqCst);
            let _ = lane.own.set(self.sink.outq());
            // It was the shared one that was.
            lane.full.store(false, Ordering::SeqCst);
        } else {
            lane.no_own.store(true, Ordering::Relaxed);
        }
    }

    /// Throws away what the lane holds.
    fn discard(&mut self, lane: &Lane<S>, carried: &mut Carried) {
        while let Ok(Numbered { number, parcel }) = self.parcels.pop() {
            lane.left(number, 1, parcel.charge());
            carried.late.push(Late {
                len: parcel.len,
                headers: parcel.headers,
                verdict: TxVerdict::Dropped,
                lane: lane.n,
            });
        }
    }
}

impl<S: FrameSink> Lanes<S> {
    /// Hands over what these lanes hold, unless somebody else is at it. Call without the stack's lock.
    pub(crate) fn carry(&self, which: Which) -> Carried {
        let mut carried = Carried::default();
        for lane in self.some(which) {
            let mut quota = QUOTA;
            // Once more after letting go: who came in between found the carrier's lock taken and left.
            while lane.waits() && lane.open() {
                fence(Ordering::SeqCst);
                let Some(mut carrier) = lane.carrier.try_lock() else {
                    break;
                };
                let done = carrier.carry(lane, quota, true, &mut carried);
                drop(carrier);
                fence(Ordering::SeqCst);
                quota -= done;
                if done == 0 {
                    // What is counted is being put in, and carried after that.
                    break;
                }
                if quota == 0 {
                    carried.left |= lane.waits();
                    break;
                }
            }
            // Where there is none, whoever carries looks again when it has made some.
            let room = lane.waiting.load(Ordering::SeqCst) < DEPTH;
            carried.room |= room && lane.starved.swap(false, Ordering::SeqCst);
            carried.room |= lane.awaited_left();
        }
        carried
    }

    /// Hands over everything, waiting for whoever is at it. Under the stack's lock: when it returns, no frame is on its way
    /// but those that the packet socket has no room for.
    pub(crate) fn drain(&self) -> Carried {
        let mut carried = Carried::default();
        for lane in &self.0 {
            lane.carrier
                .lock()
                .carry(lane, usize::MAX, false, &mut carried);
        }
        carried
    }

    /// [`Lanes::drain`] for one lane.
    pub(crate) fn drain_one(&self, n: usize) -> Carried {
        let lane = &self.0[n];
        let mut carried = Carried::default();
        lane.carrier
            .lock()
            .carry(lane, usize::MAX, false, &mut carried);
        carried
    }

    /// [`Lanes::drain`], after which nothing is left: what the packet socket has no room for is thrown away.
    pub(crate) fn empty(&self) -> Carried {
        let mut carried = self.drain();
        if carried.full || carried.own_full {
            for lane in &self.0 {
                lane.carrier.lock().discard(lane, &mut carried);
            }
        }
        carried
    }

    /// Frames for that device are offered to it as they are again, whatever it refused. Waits for whoever carries; under the
    /// stack's lock or without.
    pub(crate) fn forget_device(&self, ifindex: u32) {
        for lane in &self.0 {
            lane.carrier.lock().sink.forget_device(ifindex);
        }
    }

    /// True while a frame is on its way.
    pub(crate) fn wait(&self) -> bool {
        self.0.iter().any(Lane::waits)
    }

    /// True while the shared packet socket is full, as far as a lane has met it.
    pub(crate) fn full(&self) -> bool {
        self.0
            .iter()
            .any(|lane| lane.full.load(Ordering::SeqCst) && lane.own.get().is_none())
    }

    /// The engine was told of what was dropped: frames of this lane may leave again.
    pub(crate) fn resume(&self, n: usize) {
        self.0[n].halted.store(false, Ordering::SeqCst);
    }

    /// The packet sockets may take frames again.
    pub(crate) fn space(&self) {
        for lane in &self.0 {
            lane.full.store(false, Ordering::SeqCst);
        }
    }

    fn some(&self, mut which: Which) -> impl Iterator<Item = &Lane<S>> {
        core::iter::from_fn(move || {
            let lane = self.0.get(which.trailing_zeros() as usize)?;
            which &= which - 1;
            Some(lane)
        })
    }
}

#[cfg(test)]
mod tests;
