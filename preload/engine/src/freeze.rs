//! Sockets as bytes: what moves a connection to another process, to the kernel, or back.
//!
//! A frozen socket is a header (magic, version, length of the rest) and the rest in postcard's format: the socket's plain
//! fields, its queues with their payload, the unread error queue, and of a listener the children that nobody accepted.
//! Foreign payload (zerocopy, files, dma-bufs) is read into bytes first, and its notifications complete as COPIED.
//!
//! Time goes on while a socket is frozen: both stacks must be told the same monotonic clock, as processes of one boot are.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sidewire_uapi::TcpState;
use sidewire_uapi::errqueue::SockExtendedErr;

use crate::errqueue::{Charge, ErrEntry, ErrPayload, IcmpReport};
use crate::listen::ListenState;
use crate::memory::{Frag, Memory};
use crate::net::{FlowKey, Net};
use crate::page_frag::{self, PageFrag};
use crate::seq::{after, before};
use crate::skb::{RxSkb, SKB_TRUESIZE, Sacked, Skb, TxFlags, TxSample};
use crate::sock::TcpSock;
use crate::stack::{Ehash, Io, SocketId, Stack};
use crate::time::Instant;
use crate::zerocopy;

/// Longest frozen socket, bytes.
pub const FROZEN_MAX: usize = 256 << 20;
/// What a frozen socket begins with.
const MAGIC: [u8; 4] = *b"SWsk";
/// Format; another number is refused.
const VERSION: u16 = 5;
/// Magic, version, length.
const HEADER_LEN: usize = 10;

/// Why a socket cannot be frozen or thawed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeError {
    /// No such socket.
    NoSocket,
    /// The bytes were written by another version.
    Version,
    /// Truncated, or contradicting itself, or written by the clock of another boot.
    Malformed,
    /// More than [`FROZEN_MAX`].
    TooLong,
    /// The program's pages are gone.
    Fault,
    /// No memory for the payload.
    NoMem,
    /// The address is in use here.
    InUse,
}

/// [`TcpState`] as its number.
pub(crate) mod state_number {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use sidewire_uapi::TcpState;

    pub(crate) fn serialize<S: Serializer>(state: &TcpState, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(*state as u8)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<TcpState, D::Error> {
        let number = u8::deserialize(d)?;
        TcpState::from_number(number).ok_or_else(|| D::Error::custom("state"))
    }
}

/// Everything. `S` is the socket by reference or by value.
#[derive(Serialize, Deserialize)]
struct Image<S> {
    now: Instant,
    sk: S,
    rtx: Vec<SkbImage>,
    write: Vec<SkbImage>,
    receive: Vec<RxImage>,
    ofo: Vec<RxImage>,
    errors: Vec<ErrImage>,
    zckey: u32,
    listen: Option<ListenImage>,
}

#[derive(Serialize, Deserialize)]
struct SkbImage {
    seq: u32,
    end_seq: u32,
    tcp_flags: u8,
    sacked: u8,
    eor: bool,
    gso_segs: u32,
    gso_size: u32,
    skb_mstamp: Instant,
    tx: TxSample,
    tx_flags: u8,
    tskey: u32,
    payload: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct RxImage {
    seq: u32,
    end_seq: u32,
    truesize: u32,
    tstamp_ns: u64,
    fin: bool,
    payload: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct ErrImage {
    /// errno, origin, type, code, info, data.
    ee: (u32, u8, u8, u8, u32, u32),
    offender: Option<IcmpReport>,
    tstamp_ns: u64,
    hw_ns: u64,
    payload: Vec<u8>,
    opt_stats: bool,
    charge: Charge,
}

#[derive(Serialize, Deserialize)]
struct ListenImage {
    backlog: u32,
    children: Vec<Vec<u8>>,
}

fn read_frags<'a>(
    mem: &mut (dyn Memory + '_),
    frags: impl Iterator<Item = &'a Frag>,
) -> Result<Vec<u8>, FreezeError> {
    let mut out = Vec::new();
    for frag in frags {
        let at = out.len();
        out.resize(at + frag.len as usize, 0);
        mem.read(frag, &mut out[at..])
            .map_err(|_| FreezeError::Fault)?;
    }
    Ok(out)
}

impl SkbImage {
    fn of(skb: &Skb, mem: &mut (dyn Memory + '_)) -> Result<Self, FreezeError> {
        Ok(Self {
            seq: skb.seq,
            end_seq: skb.end_seq,
            tcp_flags: skb.tcp_flags,
            sacked: skb.sacked.bits(),
            eor: skb.eor,
            gso_segs: skb.gso_segs,
            gso_size: skb.gso_size,
            skb_mstamp: skb.skb_mstamp,
            tx: skb.tx,
            tx_flags: skb.tx_flags.bits(),
            tskey: skb.tskey,
            payload: read_frags(mem, skb.frags.iter())?,
        })
    }

    /// The buffer, its payload in page fragments.
    fn thaw(self, arena: &mut Arena<'_, '_>) -> Result<Box<Skb>, FreezeError> {
        let len = self.payload.len() as u32;
        let mut skb = Skb {
            seq: self.seq,
            end_seq: self.end_seq,
            len: 0,
            tcp_flags: self.tcp_flags,
            sacked: Sacked::from_bits_truncate(self.sacked),
            eor: self.eor,
            gso_segs: self.gso_segs,
            gso_size: self.gso_size,
            truesize: SKB_TRUESIZE + len,
            skb_mstamp: self.skb_mstamp,
            tx: self.tx,
            tx_flags: TxFlags::from_bits_truncate(self.tx_flags),
            tskey: self.tskey,
            ..Skb::default()
        };
        for frag in arena.store(&self.payload)? {
            if !skb.push_frag(frag) {
                return Err(FreezeError::Malformed);
            }
        }
        Ok(Box::new(skb))
    }
}

impl RxImage {
    fn of(skb: &RxSkb, mem: &mut (dyn Memory + '_)) -> Result<Self, FreezeError> {
        Ok(Self {
            seq: skb.seq,
            end_seq: skb.end_seq,
            truesize: skb.truesize,
            tstamp_ns: skb.tstamp_ns,
            fin: skb.fin,
            payload: read_frags(mem, core::iter::once(&skb.frag))?,
        })
    }

    /// The run, in as many pieces as page fragments it lies in; the last one carries the charge and FIN.
    fn thaw(self, arena: &mut Arena<'_, '_>) -> Result<Vec<RxSkb>, FreezeError> {
        let frags = arena.store(&self.payload)?;
        let (mut seq, pieces) = (self.seq, frags.len());
        let mut out = Vec::with_capacity(pieces);
        for (i, frag) in frags.into_iter().enumerate() {
            let last = i + 1 == pieces;
            let end = seq.wrapping_add(frag.len);
            out.push(RxSkb {
                seq,
                end_seq: if last { self.end_seq } else { end },
                frag,
                truesize: if last { self.truesize } else { 0 },
                tstamp_ns: self.tstamp_ns,
                fin: last && self.fin,
            });
            seq = end;
        }
        Ok(out)
    }
}

impl ErrImage {
    fn of(entry: &ErrEntry, mem: &mut (dyn Memory + '_)) -> Result<Self, FreezeError> {
        let ee = &entry.ee;
        let mut payload = entry.payload.head.to_vec();
        payload.extend(read_frags(mem, entry.payload.frags.iter())?);
        Ok(Self {
            ee: (
                ee.ee_errno,
                ee.ee_origin,
                ee.ee_type,
                ee.ee_code,
                ee.ee_info,
                ee.ee_data,
            ),
            offender: entry.offender,
            tstamp_ns: entry.tstamp_ns,
            hw_ns: entry.hw_ns,
            payload,
            opt_stats: entry.opt_stats,
            charge: entry.charge,
        })
    }

    fn thaw(self) -> ErrEntry {
        let (ee_errno, ee_origin, ee_type, ee_code, ee_info, ee_data) = self.ee;
        ErrEntry {
            ee: SockExtendedErr {
                ee_errno,
                ee_origin,
                ee_type,
                ee_code,
                ee_pad: 0,
                ee_info,
                ee_data,
            },
            offender: self.offender,
            tstamp_ns: self.tstamp_ns,
            hw_ns: self.hw_ns,
            payload: ErrPayload {
                head: self.payload.into_boxed_slice(),
                frags: Vec::new(),
            },
            opt_stats: self.opt_stats,
            charge: self.charge,
        }
    }
}

/// Where thawed payload goes.
struct Arena<'a, 'm> {
    slot: &'a mut Option<PageFrag>,
    mem: &'a mut (dyn Memory + 'm),
}

impl Arena<'_, '_> {
    /// At least one fragment, empty for no bytes.
    fn store(&mut self, bytes: &[u8]) -> Result<Vec<Frag>, FreezeError> {
        let mut out = Vec::new();
        let mut rest = bytes;
        loop {
            let pfrag =
                page_frag::refill(&mut *self.slot, &mut *self.mem).ok_or(FreezeError::NoMem)?;
            let (now, later) = rest.split_at(rest.len().min(pfrag.left() as usize));
            let frag = pfrag.frag(now.len() as u32);
            pfrag.off += frag.len;
            self.mem.write(&frag.mem, frag.off, now);
            out.push(frag);
            rest = later;
            if rest.is_empty() {
                return Ok(out);
            }
        }
    }
}

fn images<'a, T: 'a, I>(
    queue: impl Iterator<Item = &'a T>,
    mem: &mut (dyn Memory + '_),
    of: impl Fn(&T, &mut (dyn Memory + '_)) -> Result<I, FreezeError>,
) -> Result<Vec<I>, FreezeError> {
    queue.map(|item| of(item, mem)).collect()
}

/// Does what was thawed hold together? The engine's own invariants may then be relied on.
fn plausible(sk: &TcpSock) -> bool {
    let mut next = None;
    let mut tiles = true;
    for skb in sk.rtx_queue.iter().chain(&sk.write_queue) {
        let flags = skb.end_seq.wrapping_sub(skb.seq).wrapping_sub(skb.len);
        tiles &= next.is_none_or(|n| n == skb.seq) && flags <= 2;
        next = Some(skb.end_seq);
    }
    let sent: u32 = sk.rtx_queue.iter().map(|s| s.pcount()).sum();
    let received = || sk.receive_queue.iter().chain(&sk.ofo_queue);
    let runs_fit =
        |s: &RxSkb| s.end_seq.wrapping_sub(s.seq) == s.frag.len.wrapping_add(u32::from(s.fin));
    let rmem = received().try_fold(0u32, |sum, s| sum.checked_add(s.truesize));
    let ordered = sk
        .ofo_queue
        .iter()
        .zip(sk.ofo_queue.iter().skip(1))
        .all(|(a, b)| before(a.seq, b.seq));
    tiles
        && sent == sk.packets_out
        && next.is_none_or(|n| n == sk.write_seq)
        && !after(sk.snd_una, sk.snd_nxt)
        && !after(sk.snd_nxt, sk.write_seq)
        && !after(sk.copied_seq, sk.rcv_nxt.wrapping_add(1))
        && received().all(runs_fit)
        && rmem.is_some_and(|r| r <= sk.rmem_alloc)
        && ordered
        && crate::recovery::scoreboard_flaw(sk).is_none()
}

/// Looks the route up; without one the next transmit tries again.
fn route(sk: &mut TcpSock, net: &mut (dyn Net + '_)) {
    if sk.tuple.remote.port() != 0 {
        let key = FlowKey {
            daddr: sk.tuple.remote.ip(),
            saddr: Some(sk.tuple.local.ip()),
            oif: sk.opts.bound_dev_if,
            mark: sk.opts.mark,
            tos: sk.opts.ip_tos,
        };
        sk.dst = net.route(&key).ok();
    }
}

impl Stack {
    /// Takes a socket out of the stack, as bytes; nothing is sent. A listener takes the children with it that nobody
    /// accepted; handshakes in progress are forgotten, their peers try again. Calls that sleep on the socket find it gone.
    ///
    /// Port holders are not told about: they go where the bytes go.
    ///
    /// # Errors
    /// [`FreezeError`]; the socket then stays.
    pub fn freeze(&mut self, io: &mut Io<'_>, id: SocketId) -> Result<Vec<u8>, FreezeError> {
        let bytes = self.image(io, id)?;
        self.remove_frozen(id);
        Ok(bytes)
    }

    /// The bytes of a socket. Zerocopy objects are complete afterwards, everything else is as before.
    fn image(&mut self, io: &mut Io<'_>, id: SocketId) -> Result<Vec<u8>, FreezeError> {
        let sk = self.socks.get(id).ok_or(FreezeError::NoSocket)?;
        let rtx = images(sk.rtx_queue.iter().map(|s| &**s), io.mem, SkbImage::of)?;
        let write = images(sk.write_queue.iter().map(|s| &**s), io.mem, SkbImage::of)?;
        let receive = images(sk.receive_queue.iter(), io.mem, RxImage::of)?;
        let ofo = images(sk.ofo_queue.iter(), io.mem, RxImage::of)?;
        let listen = match &sk.listen {
            None => None,
            Some(l) => {
                let (backlog, children) = (l.backlog, l.accept_queue.clone());
                let children = children
                    .into_iter()
                    .map(|child| self.image(io, child))
                    .collect::<Result<_, _>>()?;
                Some(ListenImage { backlog, children })
            }
        };
        let (sk, mut cx) = self.borrow(io, id).ok_or(FreezeError::NoSocket)?;
        zerocopy::complete_as_copied(sk, &mut cx);
        let errors = images(sk.errqueue.q.iter(), cx.mem, ErrImage::of)?;
        let image = Image {
            now: cx.now,
            rtx,
            write,
            receive,
            ofo,
            errors,
            zckey: sk.zerocopy.zckey,
            listen,
            sk: &*sk,
        };
        let mut out = vec![0; HEADER_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let mut out = postcard::to_extend(&image, out).map_err(|_| FreezeError::TooLong)?;
        if out.len() > FROZEN_MAX {
            return Err(FreezeError::TooLong);
        }
        let len = (out.len() - HEADER_LEN) as u32;
        out[6..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
        Ok(out)
    }

    /// Forgets a socket without a word to anybody.
    fn remove_frozen(&mut self, id: SocketId) {
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        if let Some(listen) = sk.listen.take() {
            let local = sk.tuple.local;
            self.forget_listener(id, local);
            for child in listen.accept_queue {
                self.remove_frozen(child);
            }
        }
        let Some(sk) = self.socks.remove(id) else {
            return;
        };
        if sk.hashed {
            self.unhash(&sk.tuple);
        }
        if sk.orphan {
            self.sh.orphans -= 1;
        }
    }

    /// Puts a frozen socket into this stack. Its cookie is the one that it had; [`Stack::set_user`] gives it another.
    ///
    /// # Errors
    /// [`FreezeError`]; nothing changed then.
    pub fn thaw(&mut self, io: &mut Io<'_>, bytes: &[u8]) -> Result<SocketId, FreezeError> {
        let image = parse(io.now, bytes)?;
        let mut arena = Arena {
            slot: &mut self.sh.page_frag,
            mem: &mut *io.mem,
        };
        let mut sk = Box::new(image.sk);
        for skb in image.rtx {
            sk.rtx_queue.push_back(skb.thaw(&mut arena)?);
        }
        for skb in image.write {
            sk.write_queue.push_back(skb.thaw(&mut arena)?);
        }
        for run in image.receive {
            sk.receive_queue.extend(run.thaw(&mut arena)?);
        }
        for run in image.ofo {
            sk.ofo_queue.extend(run.thaw(&mut arena)?);
        }
        sk.wmem_queued = sk
            .rtx_queue
            .iter()
            .chain(&sk.write_queue)
            .map(|s| s.truesize)
            .sum();
        sk.errqueue.q = image.errors.into_iter().map(ErrImage::thaw).collect();
        sk.zerocopy = zerocopy::ZerocopyState::resumed(image.zckey, &sk.errqueue);
        if !plausible(&sk) {
            return Err(FreezeError::Malformed);
        }
        route(&mut sk, io.net);
        let id = self.insert_thawed(sk)?;
        if let Some(listen) = image.listen {
            self.thaw_listener(io, id, listen)?;
        }
        self.settle(id);
        Ok(id)
    }

    /// Gives a thawed socket its places in the tables.
    fn insert_thawed(&mut self, mut sk: Box<TcpSock>) -> Result<SocketId, FreezeError> {
        let tuple = sk.tuple;
        let connected = !matches!(sk.state, TcpState::Close | TcpState::Listen);
        if connected && self.ehash.contains_key(&tuple) {
            return Err(FreezeError::InUse);
        }
        sk.hashed = connected;
        if sk.orphan {
            self.sh.orphans += 1;
        }
        let id = self.socks.insert(sk);
        if connected {
            self.hash(tuple, Ehash::Sock(id));
        }
        Ok(id)
    }

    fn thaw_listener(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        image: ListenImage,
    ) -> Result<(), FreezeError> {
        let sk = &mut self.socks[id];
        let local = sk.tuple.local;
        sk.listen = Some(Box::new(ListenState {
            backlog: image.backlog,
            ..ListenState::default()
        }));
        if !self.register_listener(id, local) {
            self.socks.remove(id);
            return Err(FreezeError::InUse);
        }
        for bytes in image.children {
            // A child whose tuple was taken in the meantime is lost, as it is when its peer resets it.
            let Ok(child) = self.thaw(io, &bytes) else {
                continue;
            };
            self.socks[child].parent = Some(id);
            if let Some(listen) = &mut self.socks[id].listen {
                listen.accept_queue.push_back(child);
            }
        }
        Ok(())
    }
}

/// Checks the header and reads the rest.
fn parse(now: Instant, bytes: &[u8]) -> Result<Image<TcpSock>, FreezeError> {
    let (header, rest) = bytes
        .split_at_checked(HEADER_LEN)
        .ok_or(FreezeError::Malformed)?;
    if header[..4] != MAGIC {
        return Err(FreezeError::Malformed);
    }
    if header[4..6] != VERSION.to_le_bytes() {
        return Err(FreezeError::Version);
    }
    if bytes.len() > FROZEN_MAX {
        return Err(FreezeError::TooLong);
    }
    if header[6..] != (rest.len() as u32).to_le_bytes() {
        return Err(FreezeError::Malformed);
    }
    let image: Image<TcpSock> = postcard::from_bytes(rest).map_err(|_| FreezeError::Malformed)?;
    if image.now > now {
        return Err(FreezeError::Malformed);
    }
    Ok(image)
}

#[cfg(test)]
mod tests;
