//! A stack with one socket, memory over vectors and a network that only counts: what the unit tests of calls stand on.

extern crate std;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use sidewire_uapi::TcpState;

use crate::error::Error;
use crate::memory::{Fault, Frag, IovIter, MemRef, Memory, PAGE_FRAG_SIZE, Region, RegionKind};
use crate::net::{Dst, FlowKey, Net, RouteMetrics, Transmit, Tuple, TxVerdict};
use crate::sendmsg::SendCall;
use crate::skb::SKB_TRUESIZE;
use crate::sock::TcpSock;
use crate::stack::{Caps, Io, Secrets, SocketId, Stack, Step, StepResult, WaitReason};
use crate::sysctl::Sysctl;
use crate::time::{Instant, NSEC_PER_SEC};

/// A region of a test's.
struct Page {
    bytes: Mutex<Vec<u8>>,
    base: usize,
    len: usize,
    kind: RegionKind,
}

impl Page {
    fn new(bytes: Vec<u8>, kind: RegionKind) -> Arc<Self> {
        Arc::new(Self {
            base: bytes.as_ptr() as usize,
            len: bytes.len(),
            bytes: Mutex::new(bytes),
            kind,
        })
    }
}

impl Region for Page {
    fn base(&self) -> *const u8 {
        self.base as *const u8
    }
    fn len(&self) -> usize {
        self.len
    }
    fn kind(&self) -> RegionKind {
        self.kind
    }
}

type Pages = Arc<Mutex<Vec<Arc<Page>>>>;

/// Arenas; every page is kept, so that bytes can be looked up by address.
#[derive(Default)]
pub(crate) struct Mem {
    pages: Pages,
    /// Page fragments that are left.
    pub(crate) left: Option<usize>,
    /// Pages of the program's are still mapped.
    pub(crate) user_readable: bool,
}

impl Mem {
    fn page(&self, mem: &MemRef) -> Arc<Page> {
        let base = mem.base() as usize;
        let pages = self.pages.lock().unwrap();
        let page = pages.iter().find(|p| p.base == base);
        page.expect("a page of this memory").clone()
    }

    pub(crate) fn bytes(&self, frag: &Frag) -> Vec<u8> {
        let page = self.page(&frag.mem);
        let all = page.bytes.lock().unwrap();
        all[frag.off as usize..][..frag.len as usize].to_vec()
    }
}

impl Memory for Mem {
    fn alloc_page_frag(&mut self) -> Option<MemRef> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let page = Page::new(vec![0; PAGE_FRAG_SIZE as usize], RegionKind::Arena);
        self.pages.lock().unwrap().push(page.clone());
        // The count that the engine looks at is its own.
        Some(Arc::new(Handle(page)))
    }
    fn read(&mut self, frag: &Frag, dst: &mut [u8]) -> Result<(), Fault> {
        if frag.mem.kind() == RegionKind::User {
            dst.fill(0x5a);
            return if self.user_readable {
                Ok(())
            } else {
                Err(Fault)
            };
        }
        dst.copy_from_slice(&self.bytes(frag));
        Ok(())
    }
    fn write(&mut self, mem: &MemRef, off: u32, src: &[u8]) {
        let page = self.page(mem);
        page.bytes.lock().unwrap()[off as usize..][..src.len()].copy_from_slice(src);
    }
}

/// What the engine holds: its count is the engine's alone.
struct Handle(Arc<Page>);

impl Region for Handle {
    fn base(&self) -> *const u8 {
        self.0.base()
    }
    fn len(&self) -> usize {
        self.0.len
    }
    fn kind(&self) -> RegionKind {
        self.0.kind
    }
}

/// The program's buffers: pieces of which some cannot be touched.
pub(crate) struct Iter {
    pages: Pages,
    /// (bytes, readable)
    parts: Vec<(Vec<u8>, bool)>,
    user: Vec<MemRef>,
    at: usize,
}

impl Iter {
    pub(crate) fn new(bed: &Bed, parts: Vec<(Vec<u8>, bool)>) -> Self {
        let user = parts
            .iter()
            .map(|(b, _)| -> MemRef { Page::new(b.clone(), RegionKind::User) })
            .collect();
        Self {
            pages: bed.mem.pages.clone(),
            parts,
            user,
            at: 0,
        }
    }

    fn flat(&self, len: usize) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        let mut skip = self.at;
        for (bytes, ok) in &self.parts {
            let n = bytes.len().saturating_sub(skip).min(len - out.len());
            if n > 0 {
                if !ok {
                    return Err(Fault);
                }
                out.extend(&bytes[skip..skip + n]);
            }
            skip = skip.saturating_sub(bytes.len());
        }
        Ok(out)
    }
}

impl IovIter for Iter {
    fn remaining(&self) -> usize {
        self.parts.iter().map(|(b, _)| b.len()).sum::<usize>() - self.at
    }
    fn copy_in(&mut self, mem: &MemRef, off: u32, len: u32) -> Result<(), Fault> {
        let bytes = self.flat(len as usize)?;
        let base = mem.base() as usize;
        let pages = self.pages.lock().unwrap();
        let page = pages.iter().find(|p| p.base == base).expect("a page");
        page.bytes.lock().unwrap()[off as usize..][..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len();
        Ok(())
    }
    fn copy_out(&mut self, frag: &Frag) -> Result<(), Fault> {
        self.copy_out_bytes(&vec![0; frag.len as usize])
    }
    fn copy_out_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.flat(bytes.len())?;
        let mut at = self.at;
        for b in bytes {
            let mut skip = at;
            for (part, _) in &mut self.parts {
                if skip < part.len() {
                    part[skip] = *b;
                    break;
                }
                skip -= part.len();
            }
            at += 1;
        }
        self.at = at;
        Ok(())
    }
    fn pin(&mut self, max: u32) -> Result<Frag, Fault> {
        let mut skip = self.at;
        for ((bytes, ok), mem) in self.parts.iter().zip(&self.user) {
            if skip < bytes.len() {
                if !ok {
                    return Err(Fault);
                }
                let len = (bytes.len() - skip).min(max as usize);
                self.at += len;
                return Ok(Frag {
                    mem: mem.clone(),
                    off: skip as u32,
                    len: len as u32,
                });
            }
            skip -= bytes.len();
        }
        Err(Fault)
    }
    fn advance(&mut self, n: usize) {
        self.at += n;
    }
    fn revert(&mut self, n: usize) {
        self.at -= n;
    }
}

/// A device that takes everything.
#[derive(Default)]
pub(crate) struct Wire {
    /// TCP headers and payload lengths of what was sent.
    pub(crate) sent: Vec<(Vec<u8>, u32)>,
    /// The last frame's IP header.
    pub(crate) ip: Vec<u8>,
    /// Routes have `mtu lock`.
    pub(crate) mtu_locked: bool,
    /// How many these were at each flush.
    pub(crate) flushed: Vec<usize>,
    /// Nothing leads anywhere.
    pub(crate) no_route: bool,
    /// Where routes lead; 0 for the usual device.
    pub(crate) oif: u32,
    /// Frames wait for the caller to let go of the stack.
    pub(crate) crowded: bool,
    /// The kernel answers what belongs to no connection.
    pub(crate) kernel_answers: bool,
}

/// The route of every test.
pub(crate) fn dst() -> Dst {
    Dst {
        oif: 2,
        gateway: None,
        saddr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        mtu: 1500,
        advmss: 0,
        gso_max_size: 65_536,
        gso_max_segs: 65_535,
        sg: true,
        zerocopy_copied: true,
        copied_in_cutting: false,
        metrics: RouteMetrics::default(),
        generation: 1,
    }
}

impl Net for Wire {
    fn route(&mut self, _: &FlowKey) -> Result<Dst, Error> {
        if self.no_route {
            return Err(Error::NetUnreach);
        }
        let mut dst = dst();
        dst.metrics.mtu_locked = self.mtu_locked;
        if self.oif != 0 {
            dst.oif = self.oif;
        }
        Ok(dst)
    }
    fn route_generation(&self) -> u32 {
        1
    }
    fn transmit(&mut self, frame: &Transmit<'_>) -> TxVerdict {
        let len = frame.frags.iter().map(|f| f.len).sum();
        self.ip = frame.headers[..frame.l4_offset].to_vec();
        self.sent
            .push((frame.headers[frame.l4_offset..].to_vec(), len));
        TxVerdict::Sent
    }
    fn flush(&mut self) {
        self.flushed.push(self.sent.len());
    }
    fn crowded(&self) -> bool {
        self.crowded
    }
    fn kernel_answers(&mut self, _: &Tuple) -> bool {
        self.kernel_answers
    }
}

/// Everything together.
pub(crate) struct Bed {
    pub(crate) stack: Stack,
    pub(crate) mem: Mem,
    pub(crate) wire: Wire,
    pub(crate) now: Instant,
    pub(crate) id: SocketId,
}

/// A thread without any capability.
pub(crate) const NOBODY: Caps = Caps {
    net_admin: false,
    net_raw: false,
    ipc_lock: false,
};
/// One with all.
pub(crate) const ROOT: Caps = Caps {
    net_admin: true,
    net_raw: true,
    ipc_lock: true,
};

impl Bed {
    /// A fresh socket.
    pub(crate) fn closed() -> Self {
        let secrets = Secrets {
            isn: [1; 16],
            ts: [2; 16],
            fastopen: [3; 16],
            hash: [4; 16],
        };
        let mut stack = Stack::new(Sysctl::default(), secrets);
        let id = stack.socket(false, 7);
        Self {
            stack,
            mem: Mem::default(),
            wire: Wire::default(),
            now: Instant(100 * NSEC_PER_SEC),
            id,
        }
    }

    /// A socket in ESTABLISHED with MSS 1460, a peer's window of 64 KiB and room in every queue; the congestion window is
    /// shut, so that nothing leaves.
    pub(crate) fn established() -> Self {
        let mut bed = Self::closed();
        let addr = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), 1000);
        let sk = bed.sk();
        sk.state = TcpState::Established;
        sk.ss_connected = true;
        sk.tuple.local = addr(1);
        sk.tuple.remote = addr(2);
        sk.dst = Some(dst());
        for seq in [
            &mut sk.snd_una,
            &mut sk.snd_nxt,
            &mut sk.write_seq,
            &mut sk.pushed_seq,
            &mut sk.snd_up,
            &mut sk.snd_sml,
        ] {
            *seq = 1000;
        }
        for seq in [&mut sk.rcv_nxt, &mut sk.copied_seq, &mut sk.rcv_wup] {
            *seq = 5000;
        }
        sk.rcv_wnd = 65_535;
        sk.snd_wnd = 65_535;
        sk.max_window = 65_535;
        sk.mss_cache = 1460;
        sk.mss_clamp = 1460;
        sk.sndbuf = 1 << 20;
        sk.snd_cwnd = 0;
        crate::window::tcp_initialize_rcv_mss(sk);
        bed
    }

    pub(crate) fn sk(&mut self) -> &mut TcpSock {
        &mut self.stack.socks[self.id]
    }

    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut Stack, &mut Io<'_>, SocketId) -> R) -> R {
        let mut io = Io {
            now: self.now,
            wall_ns: 1_700_000_000 * NSEC_PER_SEC,
            mem: &mut self.mem,
            net: &mut self.wire,
        };
        f(&mut self.stack, &mut io, self.id)
    }

    /// One call, up to where it ends or sleeps; pauses in which nothing comes but for those of a crowded wire.
    pub(crate) fn step(&mut self, call: &mut SendCall<'_>, iter: &mut Iter) -> StepResult<usize> {
        loop {
            let step = self.with(|stack, io, id| stack.sendmsg(io, id, call, iter));
            let pauses = matches!(
                step,
                Step::Wait {
                    reason: WaitReason::Backlog,
                    ..
                }
            );
            if !pauses || self.wire.crowded {
                return step;
            }
        }
    }

    /// One call that must not sleep.
    pub(crate) fn call(
        &mut self,
        flags: i32,
        control: &[u8],
        len: usize,
    ) -> (Result<usize, Error>, bool) {
        let mut iter = Iter::new(self, vec![(vec![0x5a; len], true)]);
        let mut call = SendCall::new(flags, control, None, NOBODY, true);
        match self.step(&mut call, &mut iter) {
            Step::Ready(r) => (r, call.sigpipe),
            Step::Wait { .. } => panic!("a non-blocking call sleeps"),
        }
    }

    /// The same, without control messages and with the result alone.
    pub(crate) fn send(&mut self, flags: i32, len: usize) -> Result<usize, Error> {
        self.call(flags, &[], len).0
    }

    /// All unsent buffers and all unacknowledged ones as the peer would ack them.
    pub(crate) fn ack_all(&mut self) {
        let id = self.id;
        let mut io = Io {
            now: self.now,
            wall_ns: 1_700_000_000 * NSEC_PER_SEC,
            mem: &mut self.mem,
            net: &mut self.wire,
        };
        let (sk, mut cx) = self.stack.borrow(&mut io, id).unwrap();
        let skbs: Vec<Box<_>> = sk
            .rtx_queue
            .drain(..)
            .chain(sk.write_queue.drain(..))
            .collect();
        sk.packets_out = 0;
        sk.snd_una = sk.write_seq;
        sk.snd_nxt = sk.write_seq;
        for skb in skbs {
            sk.wmem_queued -= skb.truesize;
            crate::tstamp::tx_ack(sk, &mut cx, &skb, 64);
            crate::zerocopy::skb_acked(sk, &mut cx, &skb);
        }
        assert_eq!(sk.wmem_queued, 0);
        self.stack.settle(id);
    }

    /// Lengths of the unsent buffers.
    pub(crate) fn unsent(&mut self) -> Vec<u32> {
        self.sk().write_queue.iter().map(|s| s.len).collect()
    }

    /// `setsockopt` with an `int`.
    pub(crate) fn set(&mut self, level: i32, name: i32, v: i32, caps: Caps) -> Result<(), Error> {
        self.set_bytes(level, name, &v.to_ne_bytes(), caps)
    }

    pub(crate) fn set_bytes(
        &mut self,
        level: i32,
        name: i32,
        val: &[u8],
        caps: Caps,
    ) -> Result<(), Error> {
        self.with(|stack, io, id| stack.setsockopt(io, id, level, name, val, caps))
    }

    /// `getsockopt` of an `int`.
    pub(crate) fn get(&mut self, level: i32, name: i32) -> Result<i32, Error> {
        let bytes = self.get_bytes(level, name, 4)?;
        Ok(i32::from_ne_bytes(bytes.try_into().expect("four bytes")))
    }

    pub(crate) fn get_bytes(&mut self, level: i32, name: i32, len: i32) -> Result<Vec<u8>, Error> {
        let mut out = vec![0xee; 512];
        let n = self.with(|stack, io, id| stack.getsockopt(io, id, level, name, len, &mut out))?;
        out.truncate(n);
        Ok(out)
    }
}

/// What an empty buffer costs, for sums in tests.
pub(crate) const SKB: u32 = SKB_TRUESIZE;
