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
//! Locks: whoever has a carrier's lock takes those of the arenas at most, never the stack's; so it may be waited for under
//! that one.

use core::net::SocketAddr;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use arrayvec::ArrayVec;
use libc::iovec;
use parking_lot::Mutex;
use rtrb::{Consumer, Producer, RingBuffer};
use sidewire_engine::memory::Frag;
use sidewire_engine::net::{MAX_HEADER, Tuple, TxTicket, TxVerdict};
use sidewire_engine::seq::before;
use sidewire_engine::skb::MAX_SKB_FRAGS;
use sidewire_engine::tx_late::TxLate;
use sidewire_link::frame::{FrameSink, TxFrame, TxTime, TxVerdict as Verdict};
use sidewire_link::packet::PacketSink;
use sidewire_wire::ethernet::MacAddr;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpFlags, TcpView};

/// Lanes of a stack; connections share them by their ports.
pub(crate) const LANES: usize = 16;
/// Frames that a lane holds: a megabyte of super-frames.
const DEPTH: usize = 16;
/// Frames that are handed over in one call.
const BATCH: usize = 8;
/// Frames of a lane that one call carries.
const QUOTA: usize = 4 * BATCH;

/// Some of the lanes, a bit for each.
pub(crate) type Which = u16;
/// Every lane.
pub(crate) const ALL: Which = Which::MAX;

/// A frame on its way.
pub(crate) struct Parcel {
    pub(crate) ifindex: u32,
    pub(crate) dst_mac: Option<MacAddr>,
    pub(crate) src_mac: MacAddr,
    pub(crate) headers: ArrayVec<u8, MAX_HEADER>,
    pub(crate) frags: ArrayVec<Frag, MAX_SKB_FRAGS>,
    pub(crate) gso_size: u16,
    pub(crate) mark: u32,
    pub(crate) priority: u32,
    pub(crate) txtime: Option<TxTime>,
}

impl Parcel {
    /// Its payload, in bytes.
    pub(crate) fn len(&self) -> u32 {
        self.frags.iter().map(|f| f.len).sum()
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

/// The payload's addresses.
pub(crate) fn iovecs(frags: &[Frag]) -> ArrayVec<iovec, MAX_SKB_FRAGS> {
    frags
        .iter()
        .map(|f| iovec {
            iov_base: f.ptr().cast_mut().cast(),
            iov_len: f.len as usize,
        })
        .collect()
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
struct Numbered {
    number: u64,
    parcel: Parcel,
}

struct Carrier<S> {
    sink: S,
    parcels: Consumer<Numbered>,
}

struct Lane<S> {
    n: usize,
    carrier: Mutex<Carrier<S>>,
    /// Frames in it.
    waiting: AtomicUsize,
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

impl<S> Lane<S> {
    fn waits(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Frames up to this number have left it.
    fn left(&self, number: u64, frames: usize) {
        self.carried.store(number, Ordering::SeqCst);
        self.waiting.fetch_sub(frames, Ordering::SeqCst);
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
    /// The packet socket is full.
    pub(crate) full: bool,
    /// A quota is used up: somebody else is to carry on.
    pub(crate) left: bool,
}

impl Carried {
    /// Nothing is left to be done.
    pub(crate) fn quiet(&self) -> bool {
        self.late.is_empty() && !self.room && !self.full && !self.left
    }
}

/// The lanes of a stack: where frames come out.
pub(crate) struct Lanes<S = PacketSink>([Lane<S>; LANES]);

/// Where frames go in. Behind the stack's lock.
pub(crate) struct Entrances([Entrance; LANES]);

struct Entrance {
    parcels: Producer<Numbered>,
    /// The number of the last frame that was put in.
    last: u64,
}

/// Empty lanes.
pub(crate) fn open<S>(sink: impl Fn() -> S) -> (Entrances, Lanes<S>) {
    let mut entrances = ArrayVec::<_, LANES>::new();
    let lanes = core::array::from_fn(|n| {
        let (entrance, parcels) = RingBuffer::new(DEPTH);
        entrances.push(Entrance {
            parcels: entrance,
            last: 0,
        });
        Lane {
            n,
            carrier: Mutex::new(Carrier {
                sink: sink(),
                parcels,
            }),
            waiting: AtomicUsize::new(0),
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
    /// Puts a frame into a lane. None when it is full: [`Carried::room`] follows.
    pub(crate) fn put<S>(
        &mut self,
        lanes: &Lanes<S>,
        n: usize,
        parcel: impl FnOnce() -> Parcel,
    ) -> Option<TxTicket> {
        let (entrance, lane) = (&mut self.0[n], &lanes.0[n]);
        if entrance.parcels.is_full() {
            lane.starved.store(true, Ordering::SeqCst);
            // The carrier may have looked at `starved` just before: then there is room.
            if entrance.parcels.is_full() {
                return None;
            }
        }
        entrance.last += 1;
        let number = entrance.last;
        // Counted first: a carrier takes nothing off that was not added. There is room, and nobody else puts anything in.
        lane.waiting.fetch_add(1, Ordering::SeqCst);
        let taken = entrance.parcels.push(Numbered {
            number,
            parcel: parcel(),
        });
        debug_assert!(taken.is_ok());
        NonZeroU64::new(number * TICKET_LANES + n as u64).map(TxTicket)
    }

    /// Takes the frames of a connection out of its lane that hold data or FIN from `from` on, in their order.
    pub(crate) fn recall<S>(
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
            match tcp_frame(&parcel.headers, parcel.len()) {
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
        back
    }
}

impl<S: FrameSink> Carrier<S> {
    /// Hands over what the lane holds, at most so many frames; how many. Stops where the packet socket is full, and with
    /// `halts` where data was dropped.
    fn carry(&mut self, lane: &Lane<S>, most: usize, halts: bool, carried: &mut Carried) -> usize {
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
            let iov: ArrayVec<_, BATCH> = parcels().map(|p| iovecs(&p.frags)).collect();
            let frames: ArrayVec<_, BATCH> =
                parcels().zip(&iov).map(|(p, iov)| p.frame(iov)).collect();
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
                        len: parcel.len(),
                        verdict,
                        lane: lane.n,
                    });
                    halted = halts && verdict == TxVerdict::Dropped && parcel.len() > 0;
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
            drop(frames);
            chunk.commit(done);
            all += done;
            // Before the frames are off the count, so that nobody else goes on.
            if halted {
                lane.halted.store(true, Ordering::SeqCst);
            }
            if let Some(last) = last {
                lane.left(last, done);
            }
            if full {
                lane.full.store(true, Ordering::SeqCst);
                carried.full = true;
            }
            if full || halted {
                return all;
            }
        }
    }

    /// Throws away what the lane holds.
    fn discard(&mut self, lane: &Lane<S>, carried: &mut Carried) {
        while let Ok(Numbered { number, parcel }) = self.parcels.pop() {
            lane.left(number, 1);
            carried.late.push(Late {
                len: parcel.len(),
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

    /// [`Lanes::drain`], after which nothing is left: what the packet socket has no room for is thrown away.
    pub(crate) fn empty(&self) -> Carried {
        let mut carried = self.drain();
        if carried.full {
            for lane in &self.0 {
                lane.carrier.lock().discard(lane, &mut carried);
            }
        }
        carried
    }

    /// True while a frame is on its way.
    pub(crate) fn wait(&self) -> bool {
        self.0.iter().any(Lane::waits)
    }

    /// True while the frame of that ticket is in a lane; [`Carried::room`] says when it has left. Under the stack's lock.
    pub(crate) fn holds(&self, ticket: TxTicket) -> bool {
        let lane = &self.0[(ticket.0.get() % TICKET_LANES) as usize];
        let number = ticket.0.get() / TICKET_LANES;
        if lane.carried.load(Ordering::SeqCst) >= number {
            return false;
        }
        // The first of several: when it has left, all are asked for again.
        let awaited = lane.awaited.load(Ordering::SeqCst);
        if awaited == 0 || number < awaited {
            lane.awaited.store(number, Ordering::SeqCst);
        }
        // The carrier may have looked at `awaited` just before: then it has left.
        lane.carried.load(Ordering::SeqCst) < number
    }

    /// The engine was told of what was dropped: frames of this lane may leave again.
    pub(crate) fn resume(&self, n: usize) {
        self.0[n].halted.store(false, Ordering::SeqCst);
    }

    /// The packet socket takes frames again.
    pub(crate) fn space(&self) {
        for lane in &self.0 {
            lane.full.store(false, Ordering::SeqCst);
        }
    }

    fn some(&self, which: Which) -> impl Iterator<Item = &Lane<S>> {
        self.0
            .iter()
            .enumerate()
            .filter(move |(n, _)| which >> n & 1 != 0)
            .map(|(_, lane)| lane)
    }
}

#[cfg(test)]
mod tests;
