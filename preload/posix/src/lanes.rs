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
//! Locks: whoever has a carrier's lock takes those of the arenas at most, never the stack's; so it may be waited for under
//! that one.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use arrayvec::ArrayVec;
use libc::iovec;
use parking_lot::Mutex;
use rtrb::{Consumer, Producer, RingBuffer};
use sidewire_engine::memory::Frag;
use sidewire_engine::net::{MAX_HEADER, Tuple, TxVerdict};
use sidewire_engine::skb::MAX_SKB_FRAGS;
use sidewire_engine::tx_late::TxLate;
use sidewire_link::frame::{FrameSink, TxFrame, TxTime, TxVerdict as Verdict};
use sidewire_link::packet::{PacketSink, PacketSocket};
use sidewire_wire::ethernet::MacAddr;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::TcpView;

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
}

impl Lane {
    fn waits(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }
}

impl Late {
    /// Whose frame it was, and what it held.
    pub(crate) fn of(&self) -> Option<TxLate> {
        let ip =
            Ipv4View::parse_prefix(&self.headers, self.headers.len() + self.len as usize).ok()?;
        let tcp = TcpView::parse_prefix(&self.headers[ip.header_len()..], ip.payload_len()).ok()?;
        Some(TxLate {
            tuple: Tuple {
                local: SocketAddr::new(ip.src().into(), tcp.src_port()),
                remote: SocketAddr::new(ip.dst().into(), tcp.dst_port()),
            },
            seq: tcp.seq(),
            len: self.len,
        })
    }
}

struct Carrier {
    sink: PacketSink,
    parcels: Consumer<Parcel>,
}

struct Lane {
    carrier: Mutex<Carrier>,
    /// Frames in it.
    waiting: AtomicUsize,
    /// A frame found no room in it: the engine is to be told when there is some.
    starved: AtomicBool,
    /// The packet socket is full: POLLOUT is awaited.
    full: AtomicBool,
}

/// What a round of carrying leaves to be done.
#[derive(Default)]
pub(crate) struct Carried {
    /// Frames that did not leave.
    pub(crate) late: Vec<Late>,
    /// There is room again in a lane that had none.
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
pub(crate) struct Lanes([Lane; LANES]);

/// Where frames go in. Behind the stack's lock.
pub(crate) struct Entrances([Producer<Parcel>; LANES]);

/// Empty lanes.
pub(crate) fn open(socket: &PacketSocket) -> (Entrances, Lanes) {
    let mut entrances = ArrayVec::<_, LANES>::new();
    let lanes = core::array::from_fn(|_| {
        let (entrance, parcels) = RingBuffer::new(DEPTH);
        entrances.push(entrance);
        Lane {
            carrier: Mutex::new(Carrier {
                sink: socket.sink(),
                parcels,
            }),
            waiting: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
            full: AtomicBool::new(false),
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

impl Entrances {
    /// Puts a frame into a lane. False when it is full: [`Carried::room`] follows.
    pub(crate) fn put(&mut self, lanes: &Lanes, n: usize, parcel: impl FnOnce() -> Parcel) -> bool {
        let (entrance, lane) = (&mut self.0[n], &lanes.0[n]);
        if entrance.is_full() {
            lane.starved.store(true, Ordering::SeqCst);
            // The carrier may have looked at `starved` just before: then there is room.
            if entrance.is_full() {
                return false;
            }
        }
        // Counted first: a carrier takes nothing off that was not added. There is room, and nobody else puts anything in.
        lane.waiting.fetch_add(1, Ordering::SeqCst);
        let taken = entrance.push(parcel()).is_ok();
        debug_assert!(taken);
        taken
    }
}

impl Carrier {
    /// Hands over what the lane holds, at most so many frames; how many. Stops where the packet socket is full.
    fn carry(&mut self, lane: &Lane, most: usize, carried: &mut Carried) -> usize {
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
            let iov: ArrayVec<_, BATCH> = first
                .iter()
                .chain(second)
                .map(|p| iovecs(&p.frags))
                .collect();
            let frames: ArrayVec<_, BATCH> = first
                .iter()
                .chain(second)
                .zip(&iov)
                .map(|(p, iov)| p.frame(iov))
                .collect();
            let mut verdicts = [Verdict::Sent; BATCH];
            let tried = self.sink.send_batch(&frames, &mut verdicts);
            let mut done = 0;
            let mut full = false;
            let parcels = first.iter().chain(second);
            for ((frame, v), parcel) in frames.iter().zip(&verdicts[..tried]).zip(parcels) {
                let copied = self.sink.cuts(frame.ifindex);
                match verdict(*v) {
                    TxVerdict::NoSpace => {
                        full = true;
                        break;
                    }
                    TxVerdict::Sent if copied && parcel.frags.iter().any(Frag::is_user) => {
                        carried.late.push(Late {
                            headers: parcel.headers.clone(),
                            len: frame.payload_len() as u32,
                            verdict: TxVerdict::Copied,
                        });
                    }
                    TxVerdict::Sent => {}
                    verdict => carried.late.push(Late {
                        headers: frame.headers.iter().copied().collect(),
                        len: frame.payload_len() as u32,
                        verdict,
                    }),
                }
                done += 1;
            }
            drop(frames);
            chunk.commit(done);
            lane.waiting.fetch_sub(done, Ordering::SeqCst);
            all += done;
            if full {
                lane.full.store(true, Ordering::SeqCst);
                carried.full = true;
                return all;
            }
        }
    }

    /// Throws away what the lane holds.
    fn discard(&mut self, lane: &Lane, carried: &mut Carried) {
        while let Ok(parcel) = self.parcels.pop() {
            lane.waiting.fetch_sub(1, Ordering::SeqCst);
            carried.late.push(Late {
                len: parcel.frags.iter().map(|f| f.len).sum(),
                headers: parcel.headers,
                verdict: TxVerdict::Dropped,
            });
        }
    }
}

impl Lanes {
    /// Hands over what these lanes hold, unless somebody else is at it. Call without the stack's lock.
    pub(crate) fn carry(&self, which: Which) -> Carried {
        let mut carried = Carried::default();
        for lane in self.some(which) {
            let mut quota = QUOTA;
            // Once more after letting go: who came in between found the carrier's lock taken and left.
            while lane.waits() && !lane.full.load(Ordering::SeqCst) {
                fence(Ordering::SeqCst);
                let Some(mut carrier) = lane.carrier.try_lock() else {
                    break;
                };
                let done = carrier.carry(lane, quota, &mut carried);
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
        }
        carried
    }

    /// Hands over everything, waiting for whoever is at it. Under the stack's lock: when it returns, no frame is on its way
    /// but those that the packet socket has no room for.
    pub(crate) fn drain(&self) -> Carried {
        let mut carried = Carried::default();
        for lane in &self.0 {
            lane.carrier.lock().carry(lane, usize::MAX, &mut carried);
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

    /// The packet socket takes frames again.
    pub(crate) fn space(&self) {
        for lane in &self.0 {
            lane.full.store(false, Ordering::SeqCst);
        }
    }

    fn some(&self, which: Which) -> impl Iterator<Item = &Lane> {
        self.0
            .iter()
            .enumerate()
            .filter(move |(n, _)| which >> n & 1 != 0)
            .map(|(_, lane)| lane)
    }
}
