use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::sync::Arc;

use sidewire_engine::memory::{Region, RegionKind};
use sidewire_uapi::socket::IPPROTO_TCP;
use sidewire_wire::ipv4::Ipv4Header;
use sidewire_wire::tcp::{TcpHeader, TcpOptions};

use super::*;

/// Payload without bytes: nobody looks at it.
struct Bytes;

impl Region for Bytes {
    fn base(&self) -> *const u8 {
        core::ptr::null()
    }
    fn len(&self) -> usize {
        1 << 20
    }
    fn kind(&self) -> RegionKind {
        RegionKind::Arena
    }
}

fn tuple(port: u16) -> Tuple {
    let addr = |last, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), port);
    Tuple {
        local: addr(1, port),
        remote: addr(2, 80),
    }
}

fn lane(port: u16) -> usize {
    of_ports(port, 80)
}

fn parcel(port: u16, seq: u32, len: u32) -> Parcel {
    let mut headers = ArrayVec::from([0; MAX_HEADER]);
    let ip = Ipv4Header {
        tos: 0,
        total_len: (40 + len) as u16,
        id: 0,
        dont_fragment: true,
        ttl: 64,
        protocol: IPPROTO_TCP,
        src: Ipv4Addr::new(192, 0, 2, 1),
        dst: Ipv4Addr::new(192, 0, 2, 2),
    };
    let tcp = TcpHeader {
        src_port: port,
        dst_port: 80,
        seq,
        ack_seq: 0,
        flags: TcpFlags::ACK,
        window: 0,
        urg_ptr: 0,
    };
    let l4 = ip.emit(&mut headers).unwrap();
    let end = l4
        + tcp
            .emit(&TcpOptions::default(), &mut headers[l4..])
            .unwrap();
    headers.truncate(end);
    let frag = Frag {
        mem: Arc::new(Bytes),
        off: 0,
        len,
    };
    Parcel {
        ifindex: 1,
        dst_mac: None,
        src_mac: MacAddr([0; 6]),
        headers,
        frags: (len > 0).then_some(frag).into_iter().collect(),
        len,
        gso_size: 0,
        mark: 0,
        priority: 0,
        txtime: None,
    }
}

/// What stands behind the packet sockets.
#[derive(Default)]
struct Device {
    /// Port and sequence number of what it took.
    sent: Mutex<Vec<(u16, u32)>>,
    /// How it answers the next frames; then it takes them.
    answers: Mutex<Vec<Verdict>>,
    /// Frames before it is full again, 0 for never.
    fills_after: usize,
    taken: AtomicUsize,
    /// Bytes in its queue.
    holds: AtomicUsize,
    /// What a socket of the lane's own would stand before.
    behind: Option<Arc<Device>>,
    /// It refuses offloads: each sink finds out, and cuts from then on.
    refuses: AtomicBool,
    /// Runs with each frame that it takes.
    meanwhile: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Device {
    fn sent(&self) -> Vec<u32> {
        self.sent.lock().iter().map(|(_, seq)| *seq).collect()
    }

    fn answers(&self, then: &[Verdict]) {
        self.answers.lock().extend(then.iter().rev());
    }
}

/// What it stands before, and the devices that are known to refuse offloads.
struct Sink(Arc<Device>, Vec<u32>);

#[derive(Clone)]
struct Queue(Arc<Device>);

impl Outq for Queue {
    fn bytes(&self) -> usize {
        self.0.holds.load(Ordering::SeqCst)
    }
}

impl FrameSink for Sink {
    type Outq = Queue;

    fn send(&mut self, frame: &TxFrame<'_>) -> Verdict {
        let device = &self.0;
        if let Some(answer) = device.answers.lock().pop()
            && answer != Verdict::Sent
        {
            return answer;
        }
        let n = device.taken.fetch_add(1, Ordering::SeqCst) + 1;
        if device.fills_after > 0 && n.is_multiple_of(device.fills_after) {
            return Verdict::NoSpace;
        }
        if device.refuses.load(Ordering::SeqCst) {
            self.1.push(frame.ifindex);
        }
        let len = frame.payload_len() as u32;
        let frame = tcp_frame(frame.headers, len).expect("a frame of ours");
        device
            .sent
            .lock()
            .push((frame.tuple.local.port(), frame.seq));
        if let Some(meanwhile) = &device.meanwhile {
            meanwhile();
        }
        Verdict::Sent
    }

    fn cuts(&self, ifindex: u32) -> bool {
        self.1.contains(&ifindex)
    }

    fn forget_device(&mut self, ifindex: u32) {
        self.1.retain(|i| *i != ifindex);
    }

    fn writable_fd(&self) -> RawFd {
        -1
    }

    fn outq(&self) -> Queue {
        Queue(self.0.clone())
    }

    fn separate(&mut self) -> bool {
        match self.0.behind.clone() {
            Some(own) => {
                self.0 = own;
                true
            }
            None => false,
        }
    }
}

fn bench(device: Device) -> (Entrances, Lanes<Sink>, Arc<Device>) {
    let device = Arc::new(device);
    let (entrances, lanes) = open(|| Sink(device.clone(), Vec::new()));
    (entrances, lanes, device)
}

/// Puts frames of 100 bytes into their lane; the ticket of the last.
fn put(entrances: &mut Entrances, lanes: &Lanes<Sink>, port: u16, seqs: &[u32]) -> TxTicket {
    let mut last = None;
    for seq in seqs {
        last = entrances.put(lanes, (port, 80), 0, |p| *p = parcel(port, *seq, 100));
        assert!(last.is_some(), "the lane is full");
    }
    last.expect("a frame")
}

fn holds(lanes: &Lanes<Sink>, ticket: TxTicket) -> bool {
    lanes.0[(ticket.0.get() % TICKET_LANES) as usize].holds(ticket.0.get() / TICKET_LANES)
}

const PORT: u16 = 1024;
/// Another one in the lane of [`PORT`].
const NEIGHBOUR: u16 = 1041;

#[test]
fn connections_share_lanes() {
    assert_eq!(lane(PORT), lane(NEIGHBOUR));
    assert_ne!(lane(PORT), lane(PORT + 1));
    assert_eq!(lane(PORT + 1), lane(PORT + 16));
}

#[test]
fn frames_leave_in_order_lap_after_lap() {
    let (mut entrances, lanes, device) = bench(Device::default());
    let mut seq = 0;
    for lap in 0..10 * DEPTH {
        let n = lap % DEPTH + 1;
        let seqs: Vec<u32> = (seq..).take(n).collect();
        seq += n as u32;
        let ticket = put(&mut entrances, &lanes, PORT, &seqs);
        assert!(lanes.wait() && holds(&lanes, ticket));
        let carried = lanes.carry(1 << lane(PORT));
        // It was asked for.
        assert!(carried.room && carried.late.is_empty());
        assert!(!lanes.wait() && !holds(&lanes, ticket));
        assert!(lanes.carry(ALL).quiet());
    }
    assert_eq!(device.sent(), (0..seq).collect::<Vec<_>>());
}

#[test]
fn only_the_lanes_asked_for_are_carried() {
    let (mut entrances, lanes, device) = bench(Device::default());
    put(&mut entrances, &lanes, PORT, &[1]);
    put(&mut entrances, &lanes, PORT + 1, &[2]);
    assert!(lanes.carry(1 << lane(PORT + 1)).quiet());
    assert_eq!(device.sent(), [2]);
    assert!(lanes.carry(ALL).quiet());
    assert_eq!(device.sent(), [2, 1]);
}

#[test]
fn a_lane_that_was_full_tells_of_room_once() {
    let (mut entrances, lanes, device) = bench(Device::default());
    let seqs: Vec<u32> = (0..DEPTH as u32).collect();
    put(&mut entrances, &lanes, PORT, &seqs);
    let refused = entrances.put(&lanes, (PORT, 80), 0, |_| unreachable!("no room"));
    assert_eq!(refused, None);
    assert!(lanes.carry(ALL).room);
    assert!(lanes.carry(ALL).quiet());
    assert_eq!(device.sent(), seqs);
}

#[test]
fn a_full_packet_socket_stops_the_lane_until_there_is_space() {
    let (mut entrances, lanes, device) = bench(Device::default());
    put(&mut entrances, &lanes, PORT, &[1, 2, 3]);
    device.answers(&[Verdict::Sent, Verdict::NoSpace]);
    let carried = lanes.carry(ALL);
    assert!(carried.full && carried.late.is_empty() && !carried.room);
    assert!(lanes.carry(ALL).quiet());
    assert_eq!(device.sent(), [1]);
    lanes.space();
    assert!(lanes.carry(ALL).quiet());
    assert_eq!(device.sent(), [1, 2, 3]);
}

#[test]
fn an_awaited_frame_is_told_of_when_it_has_left_and_not_before() {
    let (mut entrances, lanes, device) = bench(Device::default());
    let first = put(&mut entrances, &lanes, PORT, &[1]);
    let second = put(&mut entrances, &lanes, NEIGHBOUR, &[2]);
    assert!(holds(&lanes, second) && holds(&lanes, first));
    device.answers(&[Verdict::NoSpace]);
    assert!(!lanes.carry(ALL).room);
    lanes.space();
    device.answers(&[Verdict::Sent, Verdict::NoSpace]);
    assert!(lanes.carry(ALL).room, "the first has left");
    assert!(!holds(&lanes, first) && holds(&lanes, second));
    lanes.space();
    assert!(lanes.carry(ALL).room);
    assert!(lanes.carry(ALL).quiet());
}

/// A packet socket for all, before which so many bytes wait, and a lane's own, before which others do.
fn slow(shared: usize, own: usize) -> Device {
    Device {
        holds: AtomicUsize::new(shared),
        behind: Some(Arc::new(Device {
            holds: AtomicUsize::new(own),
            ..Device::default()
        })),
        ..Device::default()
    }
}

/// Bytes that two frames of 100 are charged with: by the engine.
const TWO: u32 = 2 * (100 + SKB_TRUESIZE);

#[test]
fn a_lane_before_which_much_waits_gets_a_socket_of_its_own() {
    let (mut entrances, lanes, device) = bench(slow(9000, 10));
    put(&mut entrances, &lanes, PORT, &[1, 2]);
    let ask = |entrances: &mut Entrances, limit| {
        let queue = entrances.small_queue(&lanes, &tuple(PORT), limit);
        let wants = |n: usize| lanes.0[n].wants_own.load(Ordering::SeqCst);
        assert!((0..LANES).all(|n| n == lane(PORT) || !wants(n)));
        (queue, wants(lane(PORT)))
    };
    // No more than was put in can wait: nobody asks.
    assert_eq!(ask(&mut entrances, TWO), (HostQueue::Clear, false));
    assert_eq!(ask(&mut entrances, TWO - 1), (HostQueue::Here, true));
    assert!(
        lanes.carry(ALL).room,
        "what waited is told when it has left"
    );
    let own = device.behind.clone().expect("slow");
    assert_eq!((device.sent(), own.sent()), (vec![], vec![1, 2]));
    // What waits behind the shared one is not of this lane.
    assert_eq!(ask(&mut entrances, 10), (HostQueue::Clear, false));
    put(&mut entrances, &lanes, PORT, &[3]);
    lanes.carry(ALL);
    own.holds.store(SMALL_CHARGE as usize, Ordering::SeqCst);
    assert_eq!(
        ask(&mut entrances, TWO / 2 - 50),
        (HostQueue::Device(50), false)
    );
    own.holds.store(0, Ordering::SeqCst);
    assert_eq!(ask(&mut entrances, 650), (HostQueue::Clear, false));
}

#[test]
fn where_no_other_socket_can_be_had_all_share_one() {
    let device = Device {
        holds: AtomicUsize::new(9000),
        ..Device::default()
    };
    let (mut entrances, lanes, device) = bench(device);
    put(&mut entrances, &lanes, PORT, &[1, 2]);
    let ask = |entrances: &mut Entrances| entrances.small_queue(&lanes, &tuple(PORT), 100);
    assert_eq!(ask(&mut entrances), HostQueue::Here);
    lanes.carry(ALL);
    assert_eq!(device.sent(), [1, 2]);
    // Most of it is not the lane's.
    assert_eq!(ask(&mut entrances), HostQueue::Device(TWO - 100));
    assert!(!lanes.0[lane(PORT)].wants_own.load(Ordering::SeqCst));
}

/// Two carry: what one meets after the other has looked is seen all the same.
#[test]
fn who_carries_all_may_miss_that_a_lane_is_full() {
    type Shared = (Mutex<Entrances>, Lanes<Sink>);
    let others: Arc<OnceCell<Shared>> = Arc::default();
    let theirs = others.clone();
    let once = AtomicBool::new(false);
    let (entrances, lanes, device) = bench(Device {
        meanwhile: Some(Box::new(move || {
            let (entrances, lanes) = theirs.get().expect("set");
            if !once.swap(true, Ordering::SeqCst) {
                put(&mut entrances.lock(), lanes, PORT, &[1]);
                assert!(lanes.carry(1 << lane(PORT)).full);
            }
        })),
        ..Device::default()
    });
    // A lane behind it, in the order of carrying.
    let later = (PORT..)
        .find(|port| lane(*port) > lane(PORT))
        .expect("one of 16");
    device.answers(&[Verdict::Sent, Verdict::NoSpace]);
    let (entrances, lanes) = others.get_or_init(|| (Mutex::new(entrances), lanes));
    put(&mut entrances.lock(), lanes, later, &[7]);
    assert!(!lanes.carry(ALL).full);
    assert_eq!(device.sent(), [7]);
    assert!(lanes.full());
    lanes.space();
    assert!(!lanes.full() && lanes.carry(ALL).quiet());
    assert_eq!(device.sent(), [7, 1]);
}

#[test]
fn a_lane_that_gets_its_own_socket_is_not_full() {
    let (mut entrances, lanes, device) = bench(slow(9000, 0));
    device.answers(&[Verdict::NoSpace]);
    put(&mut entrances, &lanes, PORT, &[1]);
    assert!(lanes.carry(ALL).full && lanes.full());
    entrances.small_queue(&lanes, &tuple(PORT), 1);
    lanes.drain();
    put(&mut entrances, &lanes, PORT, &[2]);
    lanes.carry(ALL);
    assert_eq!(
        device.behind.as_ref().map(|own| own.sent()),
        Some(vec![1, 2])
    );
}

#[test]
fn an_own_socket_that_is_full_stops_no_other_lane() {
    let (mut entrances, lanes, device) = bench(slow(9000, 0));
    put(&mut entrances, &lanes, PORT, &[1, 2]);
    entrances.small_queue(&lanes, &tuple(PORT), 1);
    let own = device.behind.clone().expect("slow");
    own.answers(&[Verdict::Sent, Verdict::NoSpace]);
    put(&mut entrances, &lanes, PORT + 1, &[7]);
    let carried = lanes.carry(ALL);
    assert!(carried.own_full && !carried.full && !carried.quiet());
    assert_eq!((own.sent(), device.sent()), (vec![1], vec![7]));
    lanes.space();
    assert!(!lanes.carry(ALL).own_full);
    assert_eq!(own.sent(), [1, 2]);
}

#[test]
fn a_frame_is_found_in_the_devices_queue() {
    let (mut entrances, lanes, device) = bench(slow(0, 0));
    let first = put(&mut entrances, &lanes, PORT, &[1]);
    let second = put(&mut entrances, &lanes, PORT, &[2]);
    let ask = |entrances: &mut Entrances, now| {
        [first, second].map(|ticket| entrances.whereabouts(&lanes, ticket, now))
    };
    assert_eq!(ask(&mut entrances, 0), [HostQueue::Here; 2]);
    lanes.carry(ALL);
    device
        .holds
        .store(2 * SMALL_CHARGE as usize, Ordering::SeqCst);
    assert_eq!(
        ask(&mut entrances, 0),
        [HostQueue::Device(TWO / 2), HostQueue::Device(TWO)]
    );
    device.holds.store(SMALL_CHARGE as usize, Ordering::SeqCst);
    assert_eq!(
        ask(&mut entrances, 0),
        [HostQueue::Left, HostQueue::Device(TWO / 2)]
    );
    // That it has left is known now.
    assert_eq!(
        ask(&mut entrances, 0),
        [HostQueue::Clear, HostQueue::Device(TWO / 2)]
    );
    // What waits behind a socket that others use as well may be theirs.
    assert_eq!(ask(&mut entrances, SHARED_FOR + 1), [HostQueue::Clear; 2]);
    // Too many have followed.
    for seq in 0..64 {
        put(&mut entrances, &lanes, PORT, &[seq]);
        lanes.carry(ALL);
    }
    device.holds.store(1 << 20, Ordering::SeqCst);
    assert_eq!(ask(&mut entrances, 0), [HostQueue::Clear; 2]);
}

/// What a frame waits for that had to be sent at once, as those with timestamps, by the socket that all share.
#[test]
fn a_frame_that_went_behind_the_others_is_found_as_well() {
    let (mut entrances, lanes, device) = bench(slow(0, 0));
    let limit = TWO / 2;
    let went = |entrances: &mut Entrances| {
        entrances.went_behind(&lanes, (PORT, 80), 0, 1);
        entrances.small_queue(&lanes, &tuple(PORT), limit)
    };
    assert_eq!(went(&mut entrances), HostQueue::Clear);
    device.holds.store(TWO as usize, Ordering::SeqCst);
    assert!(matches!(went(&mut entrances), HostQueue::Device(_)));
    device.holds.store(0, Ordering::SeqCst);
    assert_eq!(went(&mut entrances), HostQueue::Clear);
    // The lane has one of its own meanwhile, behind which nothing waits.
    put(&mut entrances, &lanes, PORT, &[1]);
    lanes.carry(ALL);
    assert!(lanes.0[lane(PORT)].own.get().is_some());
    device.holds.store(TWO as usize, Ordering::SeqCst);
    assert!(matches!(went(&mut entrances), HostQueue::Device(_)));
}

/// A frame that waits behind the shared socket still does when its lane has one of its own.
#[test]
fn a_lane_that_gets_its_own_socket_still_has_frames_behind_the_shared_one() {
    let (mut entrances, lanes, device) = bench(slow(0, 0));
    let own = device.behind.clone().expect("slow");
    let first = put(&mut entrances, &lanes, PORT, &[1]);
    lanes.carry(ALL);
    device.holds.store(SMALL_CHARGE as usize, Ordering::SeqCst);
    entrances.small_queue(&lanes, &tuple(PORT), 1);
    let second = put(&mut entrances, &lanes, PORT, &[2]);
    lanes.carry(ALL);
    assert_eq!((device.sent(), own.sent()), (vec![1], vec![2]));
    let ask = |entrances: &mut Entrances| {
        [first, second].map(|ticket| entrances.whereabouts(&lanes, ticket, 0))
    };
    own.holds.store(SMALL_CHARGE as usize, Ordering::SeqCst);
    assert_eq!(
        ask(&mut entrances),
        [HostQueue::Device(TWO / 2), HostQueue::Device(TWO)]
    );
    // What waits there from now on is another lane's.
    device.holds.store(0, Ordering::SeqCst);
    assert_eq!(
        ask(&mut entrances),
        [HostQueue::Left, HostQueue::Device(TWO / 2)]
    );
    own.holds.store(0, Ordering::SeqCst);
    device.holds.store(SMALL_CHARGE as usize, Ordering::SeqCst);
    assert_eq!(ask(&mut entrances), [HostQueue::Clear, HostQueue::Left]);
}

/// Behind a lane's own socket, too, what waits may be another connection's, for a device that stands still.
#[test]
fn what_waits_for_a_neighbour_holds_nothing_back_for_ever() {
    let (mut entrances, lanes, device) = bench(slow(9000, 0));
    put(&mut entrances, &lanes, PORT, &[1]);
    entrances.small_queue(&lanes, &tuple(PORT), 1);
    lanes.carry(ALL);
    let own = device.behind.clone().expect("slow");
    assert_eq!(own.sent(), [1]);
    own.holds.store(TWO as usize, Ordering::SeqCst);
    let stands = put(&mut entrances, &lanes, PORT, &[2]);
    let ask = |entrances: &mut Entrances, ticket, now| {
        lanes.carry(ALL);
        entrances.whereabouts(&lanes, ticket, now)
    };
    let device = HostQueue::Device(TWO);
    assert_eq!(ask(&mut entrances, stands, SHARED_FOR + 1), device);
    let left = put(&mut entrances, &lanes, NEIGHBOUR, &[7]);
    assert_eq!(ask(&mut entrances, left, 0), device);
    assert_eq!(ask(&mut entrances, left, SHARED_FOR + 1), HostQueue::Clear);
    // Until nothing waits: from then on it is known whose it is.
    own.holds.store(0, Ordering::SeqCst);
    assert_eq!(ask(&mut entrances, left, 0), HostQueue::Left);
    own.holds.store(TWO as usize / 2, Ordering::SeqCst);
    let waits = put(&mut entrances, &lanes, NEIGHBOUR, &[8]);
    let device = HostQueue::Device(TWO / 2);
    assert_eq!(ask(&mut entrances, waits, SHARED_FOR + 1), device);
}

#[test]
fn who_carries_leaves_the_rest_after_its_quota() {
    type Filled = (Entrances, Arc<Lanes<Sink>>);
    let filled: Arc<Mutex<Option<Filled>>> = Arc::default();
    let seq = AtomicUsize::new(0);
    let others = filled.clone();
    // While a frame is handed over, another one comes.
    let device = Device {
        meanwhile: Some(Box::new(move || {
            if let Some((entrances, lanes)) = others.lock().as_mut() {
                let seq = seq.fetch_add(1, Ordering::SeqCst) as u32;
                entrances.put(lanes, (PORT, 80), 0, |p| *p = parcel(PORT, seq, 100));
            }
        })),
        ..Device::default()
    };
    let (mut entrances, lanes, device) = bench(device);
    let lanes = Arc::new(lanes);
    put(&mut entrances, &lanes, PORT, &[u32::MAX]);
    *filled.lock() = Some((entrances, lanes.clone()));
    for round in 1..=3 {
        let carried = lanes.carry(ALL);
        assert!(carried.left);
        assert_eq!(device.sent().len(), round * QUOTA);
    }
    // Nothing more comes.
    *filled.lock() = None;
    assert!(lanes.carry(ALL).quiet());
    assert_eq!(device.sent().len(), 3 * QUOTA + 1);
}

#[test]
fn a_lane_has_one_carrier_at_a_time() {
    let (mut entrances, lanes, device) = bench(Device::default());
    put(&mut entrances, &lanes, PORT, &[1]);
    let carrier = lanes.0[lane(PORT)].carrier.lock();
    assert!(lanes.carry(ALL).quiet());
    assert!(device.sent().is_empty());
    drop(carrier);
    assert!(lanes.carry(ALL).quiet());
    assert_eq!(device.sent(), [1]);
}

#[test]
fn a_drop_halts_the_lane_until_the_engine_knows() {
    let (mut entrances, lanes, device) = bench(Device::default());
    put(&mut entrances, &lanes, PORT, &[1000, 1100]);
    put(&mut entrances, &lanes, NEIGHBOUR, &[7]);
    put(&mut entrances, &lanes, PORT, &[1200, 900]);
    // A bare ack.
    entrances.put(&lanes, (PORT, 80), 0, |p| *p = parcel(PORT, 1300, 0));
    device.answers(&[Verdict::Sent, Verdict::Dropped]);
    let carried = lanes.carry(ALL);
    let late: Vec<_> = carried.late.iter().filter_map(Late::of).collect();
    let dropped = TxLate {
        tuple: tuple(PORT),
        seq: 1100,
        end_seq: 1200,
    };
    assert_eq!(late, [dropped]);
    assert_eq!(carried.late[0].lane, lane(PORT));
    assert!(lanes.carry(ALL).quiet());
    assert_eq!(device.sent(), [1000]);
    // What is newer is taken back; what others sent, what was sent again, and acks stay where they are.
    let back = entrances.recall(&lanes, &tuple(PORT), 1200);
    let back: Vec<u32> = back.iter().map(|(frame, _)| frame.seq).collect();
    assert_eq!(back, [1200]);
    lanes.resume(lane(PORT));
    assert!(lanes.carry(ALL).quiet());
    assert_eq!(device.sent(), [1000, 7, 900, 1300]);
    assert!(!lanes.wait());
}

#[test]
fn a_refusal_is_forgotten_with_the_device_in_every_lane() {
    let (mut entrances, lanes, device) = bench(Device {
        refuses: true.into(),
        ..Device::default()
    });
    let ports = PORT..PORT + LANES as u16;
    for port in ports.clone() {
        put(&mut entrances, &lanes, port, &[1]);
    }
    assert!(lanes.carry(ALL).quiet());
    let cutting = |ifindex| {
        let cuts = |lane: &Lane<Sink>| lane.carrier.lock().sink.cuts(ifindex);
        lanes.0.iter().filter(|lane| cuts(lane)).count()
    };
    // Frames of `parcel` leave by device 1.
    assert_eq!(cutting(1), LANES);
    lanes.forget_device(2);
    assert_eq!(cutting(1), LANES);
    lanes.forget_device(1);
    assert_eq!(cutting(1), 0);
    // It takes them now.
    device.refuses.store(false, Ordering::SeqCst);
    for port in ports {
        put(&mut entrances, &lanes, port, &[101]);
    }
    assert!(lanes.carry(ALL).quiet());
    assert_eq!((cutting(1), device.sent().len()), (0, 2 * LANES));
}

#[test]
fn an_ack_that_is_dropped_halts_nothing() {
    let (mut entrances, lanes, device) = bench(Device::default());
    entrances.put(&lanes, (PORT, 80), 0, |p| *p = parcel(PORT, 1, 0));
    put(&mut entrances, &lanes, PORT, &[2]);
    device.answers(&[Verdict::Dropped]);
    assert_eq!(lanes.carry(ALL).late.len(), 1);
    assert_eq!(device.sent(), [2]);
}

#[test]
fn draining_waits_for_nobody_and_emptying_throws_away() {
    let (mut entrances, lanes, device) = bench(Device::default());
    put(&mut entrances, &lanes, PORT, &[1, 2, 3, 4]);
    device.answers(&[Verdict::Dropped, Verdict::Sent, Verdict::NoSpace]);
    lanes.carry(ALL);
    // Although the lane has been halted.
    let carried = lanes.drain();
    assert!(carried.full && lanes.wait());
    assert_eq!(device.sent(), [2]);
    device.answers(&[Verdict::NoSpace]);
    let late = lanes.empty().late;
    let seqs: Vec<u32> = late.iter().filter_map(Late::of).map(|f| f.seq).collect();
    assert_eq!(seqs, [3, 4]);
    assert!(!lanes.wait());
}

/// Threads that send as the stack's callers do: frames under a lock, carried without it. Whatever the order in which they run,
/// each connection's frames leave in order, and none is left behind.
#[test]
fn no_frame_is_stranded_or_overtakes_another() {
    /// Two of them share a lane.
    const PORTS: [u16; 4] = [PORT, NEIGHBOUR, PORT + 1, PORT + 16];
    const FRAMES: u32 = 5_000;
    let (entrances, lanes, device) = bench(Device {
        fills_after: 97,
        ..Device::default()
    });
    let stack = Mutex::new(entrances);
    let settle = |mut which: Which| loop {
        let carried = lanes.carry(which);
        if carried.quiet() {
            break;
        }
        assert!(carried.late.is_empty());
        if carried.full {
            lanes.space();
        }
        which = ALL;
    };
    std::thread::scope(|scope| {
        for port in PORTS {
            let (stack, lanes, settle) = (&stack, &lanes, &settle);
            scope.spawn(move || {
                let n = lane(port);
                for seq in 0..FRAMES {
                    loop {
                        let taken = stack
                            .lock()
                            .put(lanes, (port, 80), 0, |p| *p = parcel(port, seq, 1));
                        settle(1 << n);
                        if taken.is_some() {
                            break;
                        }
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    assert!(!lanes.wait());
    let sent = device.sent.lock();
    assert_eq!(sent.len(), PORTS.len() * FRAMES as usize);
    for port in PORTS {
        let seqs = sent.iter().filter(|(p, _)| *p == port).map(|(_, seq)| *seq);
        assert!(seqs.eq(0..FRAMES), "port {port} is out of order");
    }
}
