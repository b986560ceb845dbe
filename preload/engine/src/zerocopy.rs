//! MSG_ZEROCOPY: notification objects, their ids, limits and completion (`rows.toml` zerocopy; Linux's `ubuf_info_msgzc`).
//!
//! An object covers a range of ids, one a call, and the bytes of those calls. It completes when no call holds it any more
//! and the last buffer with bytes of it has left the queues; its range then goes to the error queue.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use arrayvec::ArrayVec;
use sidewire_uapi::errqueue::{SO_EE_CODE_ZEROCOPY_COPIED, SO_EE_ORIGIN_ZEROCOPY, SockExtendedErr};

use crate::error::Error;
use crate::errqueue::{Charge, ErrEntry, ErrPayload, ErrQueue, is_zerocopy, sk_error_report};
use crate::memory::{Frag, MemRef};
use crate::mib::Counter;
use crate::output::rebuild_header;
use crate::page_frag;
use crate::seq::after;
use crate::skb::{MAX_SKB_FRAGS, SKB_TRUESIZE, Skb, UbufId};
use crate::sock::TcpSock;
use crate::stack::{Cx, Stack};

/// Bytes that one object covers at most (ZC-13).
const BYTE_LIMIT: u64 = 1 << 19;
/// Ids that one object covers at most (ZC-13).
const ID_LIMIT: u32 = 65_534;
/// What Linux wants to be free below optmem_max for a new object, while it charges [`SKB_TRUESIZE`] (ZC-16).
const OPTMEM_NEEDED: u32 = 576;
/// Registered dma-bufs of a stack.
pub const DMABUFS_MAX: usize = 1024;

/// A notification object.
#[derive(Clone, Debug)]
struct Ubuf {
    name: UbufId,
    /// First id.
    id: u32,
    /// Ids covered; 0 when the only call was given back.
    len: u32,
    bytelen: u64,
    /// No byte was copied.
    zerocopy: bool,
    /// Pages charged against RLIMIT_MEMLOCK.
    num_pg: u64,
    /// Calls that still hold it.
    calls: u32,
    /// One past the last byte of it that stands in a buffer.
    end_seq: Option<u32>,
    /// The caller's own cookie, which completes in place of a notification (Linux's `msg_ubuf`).
    caller: Option<u64>,
}

/// A socket's objects and id counter.
#[derive(Debug, Default)]
pub struct ZerocopyState {
    /// Next id (Linux `sk_zckey`).
    pub(crate) zckey: u32,
    /// Live objects, oldest first.
    live: VecDeque<Ubuf>,
    /// Next object's name.
    next: u32,
    /// Linux `sk_omem_alloc`: live objects and unread notifications.
    pub(crate) optmem: u32,
}

impl ZerocopyState {
    /// Where an object is: they are in the order of their names, some of which have gone.
    fn position(&self, uarg: UbufId) -> Option<usize> {
        let first = self.live.front()?.name.0;
        let age = |name: UbufId| name.0.wrapping_sub(first);
        let at = self.live.partition_point(|u| age(u.name) < age(uarg));
        self.live
            .get(at)
            .is_some_and(|u| u.name == uarg)
            .then_some(at)
    }

    fn get(&mut self, uarg: UbufId) -> Option<&mut Ubuf> {
        let at = self.position(uarg)?;
        self.live.get_mut(at)
    }

    /// Bytes of option memory in use (SO_MEMINFO).
    #[must_use]
    pub fn optmem(&self) -> u32 {
        self.optmem
    }

    /// The last id of an object, and how many it covers.
    pub(crate) fn last_id(&self, uarg: UbufId) -> (u32, u32) {
        let found = self.position(uarg).and_then(|at| self.live.get(at));
        found.map_or((0, 0), |u| {
            (u.id.wrapping_add(u.len).wrapping_sub(1), u.len)
        })
    }

    /// Objects that are not complete: each holds memory of a caller's.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// A counter as a thawed socket has it: everything before `zckey` is complete or stands in `errors`.
    pub(crate) fn resumed(zckey: u32, errors: &ErrQueue) -> Self {
        let charged = errors.q.iter().map(|e| match e.charge {
            Charge::Optmem(n) => n,
            Charge::Rmem(_) => 0,
        });
        Self {
            zckey,
            optmem: charged.sum(),
            ..Self::default()
        }
    }
}

/// What a call asks [`msg_zerocopy_realloc`] for.
pub(crate) struct ZcRequest {
    /// Bytes of the call.
    pub(crate) size: u64,
    /// A dma-buf: no pages are locked (ZC-19).
    pub(crate) devmem: bool,
    /// CAP_IPC_LOCK.
    pub(crate) ipc_lock: bool,
    /// RLIMIT_MEMLOCK, bytes.
    pub(crate) memlock_limit: u64,
}

/// Charges the pages of a call (ZC-17; Linux `mm_account_pinned_pages`); `None` when the limit is reached.
fn account_pinned_pages(cx: &mut Cx<'_, '_>, request: &ZcRequest) -> Option<u64> {
    if request.devmem || request.ipc_lock || request.memlock_limit == u64::MAX {
        return Some(0);
    }
    let page = u64::from(crate::memory::PAGE_SIZE);
    let num_pg = request.size / page + 2;
    let total = cx.sh.locked_pages + num_pg;
    if total > request.memlock_limit / page {
        return None;
    }
    cx.sh.locked_pages = total;
    Some(num_pg)
}

/// The object of a MSG_ZEROCOPY call: the unsent tail's, when its range ends at the next id, else a new one (ZC-13).
/// `None` is ENOBUFS.
pub(crate) fn msg_zerocopy_realloc(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    request: &ZcRequest,
) -> Option<UbufId> {
    let tail = sk.write_queue.back().and_then(|skb| skb.ubuf);
    let next = sk.zerocopy.zckey;
    if let Some(u) = tail.and_then(|t| sk.zerocopy.get(t)) {
        if u.caller.is_some() {
            return None;
        }
        let bytelen = u.bytelen + request.size;
        let full = u.len == ID_LIMIT || bytelen > BYTE_LIMIT;
        if !full && u.id.wrapping_add(u.len) == next {
            u.num_pg += account_pinned_pages(cx, request)?;
            u.len += 1;
            u.bytelen = bytelen;
            u.calls += 1;
            let name = u.name;
            sk.zerocopy.zckey = next.wrapping_add(1);
            return Some(name);
        }
    }
    if sk.zerocopy.optmem + OPTMEM_NEEDED > cx.sh.sysctl.optmem_max {
        return None;
    }
    let num_pg = account_pinned_pages(cx, request)?;
    let z = &mut sk.zerocopy;
    let name = UbufId(z.next);
    z.next = z.next.wrapping_add(1);
    z.optmem += SKB_TRUESIZE;
    z.zckey = next.wrapping_add(1);
    z.live.push_back(Ubuf {
        name,
        id: next,
        len: 1,
        bytelen: request.size,
        zerocopy: true,
        num_pg,
        calls: 1,
        end_seq: None,
        caller: None,
    });
    Some(name)
}

/// An object of the caller's (Linux's `msg_ubuf`): it takes no id, costs no option memory, and its completion is a cookie
/// that [`crate::Stack::take_ubufs`] hands out.
pub(crate) fn caller_ubuf(sk: &mut TcpSock, cookie: u64) -> UbufId {
    let z = &mut sk.zerocopy;
    let name = UbufId(z.next);
    z.next = z.next.wrapping_add(1);
    z.live.push_back(Ubuf {
        name,
        id: z.zckey,
        len: 0,
        bytelen: 0,
        zerocopy: true,
        num_pg: 0,
        calls: 1,
        end_seq: None,
        caller: Some(cookie),
    });
    name
}

/// Notes that a byte of the object was or will be copied (ZC-37).
pub(crate) fn mark_copied(sk: &mut TcpSock, uarg: UbufId) {
    if let Some(u) = sk.zerocopy.get(uarg) {
        u.zerocopy = false;
    }
}

/// The first unsent buffer is about to leave: with `zerocopy_rtx = "copy"` what it references of the program's pages
/// becomes bytes of our own, so that a retransmission is what was sent first. Pages that cannot be read are left to the
/// way out, which finds the same.
pub(crate) fn private_copy(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if !cx.sh.sysctl.zerocopy_rtx_copy {
        return;
    }
    let Some(skb) = sk.write_queue.front_mut() else {
        return;
    };
    let Some(uarg) = skb.ubuf.filter(|_| skb.frags.iter().any(Frag::is_user)) else {
        return;
    };
    if let Some(frags) = copied_frags(&skb.frags, cx) {
        cx.sh.mib.add(Counter::BytesCopiedOut, u64::from(skb.len));
        skb.frags = frags;
        mark_copied(sk, uarg);
    }
}

/// The same bytes in page fragments; `None` when the arena has no room, when they do not fit into one buffer, or on a
/// fault.
pub(crate) fn copied_frags(
    frags: &[Frag],
    cx: &mut Cx<'_, '_>,
) -> Option<ArrayVec<Frag, MAX_SKB_FRAGS>> {
    let mut out = ArrayVec::<Frag, MAX_SKB_FRAGS>::new();
    for frag in frags {
        let mut rest = frag.clone();
        while rest.len > 0 {
            let pfrag = page_frag::refill(&mut cx.sh.page_frag, cx.mem)?;
            let piece = rest.split_to(rest.len.min(pfrag.left()));
            let merge = out.last().is_some_and(|last| pfrag.continues(last));
            let copy = pfrag.frag(piece.len);
            cx.mem.copy(&piece, &copy).ok()?;
            pfrag.off += piece.len;
            match out.last_mut() {
                Some(last) if merge => last.len += piece.len,
                _ => out.try_push(copy).ok()?,
            }
        }
    }
    Some(out)
}

/// A buffer that ends there holds the object: it has bytes of it, or was split from one that has (Linux
/// `skb_zerocopy_clone`).
pub(crate) fn attach(z: &mut ZerocopyState, uarg: UbufId, end_seq: u32) {
    if let Some(u) = z.get(uarg)
        && u.end_seq.is_none_or(|end| after(end_seq, end))
    {
        u.end_seq = Some(end_seq);
    }
}

/// A call is through with its object (Linux `net_zcopy_put`).
pub(crate) fn net_zcopy_put(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, uarg: UbufId) {
    if let Some(u) = sk.zerocopy.get(uarg) {
        u.calls -= 1;
        complete(sk, cx, uarg);
    }
}

/// A call that took nothing gives its id back (E2, ZC-10; Linux `net_zcopy_put_abort`).
pub(crate) fn net_zcopy_put_abort(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, uarg: UbufId) {
    let Some(u) = sk.zerocopy.get(uarg) else {
        return;
    };
    if u.caller.is_some() {
        // The error tells the caller.
        sk.zerocopy.live.retain(|u| u.name != uarg);
        return;
    }
    u.len -= 1;
    sk.zerocopy.zckey = sk.zerocopy.zckey.wrapping_sub(1);
    net_zcopy_put(sk, cx, uarg);
}

/// A buffer that was sent left the queues, acked or thrown away: completes the object whose last buffer it was (ZC-20,
/// ZC-22).
///
/// Both queues are in sequence order and so are the objects' buffers, so that splitting and merging them needs no count.
pub fn skb_acked(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, skb: &Skb) {
    let Some(uarg) = skb.ubuf else {
        return;
    };
    let copied = sk
        .dst
        .is_some_and(|d| d.zerocopy_copied && !(d.copied_in_cutting && skb.cut));
    if copied {
        mark_copied(sk, uarg);
    }
    released(sk, cx, uarg, skb.end_seq);
}

/// The unsent buffers go, before those that were sent: nobody has copied of them, and an object that stands in both queues is
/// complete with the latter.
pub(crate) fn purge_unsent(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let sent = sk.rtx_queue.iter().rev().find_map(|skb| {
        let uarg = skb.ubuf?;
        Some((uarg, skb.end_seq))
    });
    while let Some(skb) = sk.write_queue.pop_front() {
        sk.wmem_queued -= skb.truesize;
        if let Some(uarg) = skb
            .ubuf
            .filter(|uarg| sent.is_none_or(|(of, _)| of != *uarg))
        {
            released(sk, cx, uarg, skb.end_seq);
        }
        cx.sh.pool.free(skb);
    }
    if let Some((uarg, end_seq)) = sent
        && let Some(u) = sk.zerocopy.get(uarg)
    {
        u.end_seq = Some(end_seq);
    }
}

/// The object's buffers up to `end_seq` are gone.
fn released(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, uarg: UbufId, end_seq: u32) {
    if let Some(u) = sk.zerocopy.get(uarg)
        && u.end_seq.is_some_and(|end| !after(end, end_seq))
    {
        u.end_seq = None;
        complete(sk, cx, uarg);
    }
}

/// Everything that still lives is over: the queues were thrown away.
pub fn purge(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    for i in (0..sk.zerocopy.live.len()).rev() {
        sk.zerocopy.live[i].end_seq = None;
    }
    while let Some(u) = sk.zerocopy.live.front() {
        if u.calls > 0 {
            break;
        }
        let name = u.name;
        complete(sk, cx, name);
    }
}

/// The payload was read into bytes of our own: everything completes, in order, as copied.
pub(crate) fn complete_as_copied(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    for u in &mut sk.zerocopy.live {
        u.zerocopy = false;
    }
    for skb in sk.rtx_queue.iter_mut().chain(&mut sk.write_queue) {
        skb.ubuf = None;
        skb.pure_zerocopy = false;
    }
    purge(sk, cx);
}

/// Queues the notification when nothing refers to the object any more (Linux `__msg_zerocopy_callback`).
fn complete(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, uarg: UbufId) {
    let z = &mut sk.zerocopy;
    let Some(at) = z.position(uarg) else {
        return;
    };
    if z.live[at].calls > 0 || z.live[at].end_seq.is_some() {
        return;
    }
    let Some(u) = z.live.remove(at) else {
        return;
    };
    cx.sh.zerocopy_done = true;
    if let Some(cookie) = u.caller {
        cx.sh.ubufs_done.push((cookie, u.zerocopy));
        return;
    }
    cx.sh.locked_pages -= u.num_pg;
    if u.len == 0 || sk.orphan {
        z.optmem -= SKB_TRUESIZE; // ZC-10, ZC-23
        return;
    }
    if notify_extend(sk, &u) {
        sk.zerocopy.optmem -= SKB_TRUESIZE;
    } else {
        let code = if u.zerocopy {
            0
        } else {
            SO_EE_CODE_ZEROCOPY_COPIED
        };
        sk.errqueue.q.push_back(ErrEntry {
            ee: SockExtendedErr {
                ee_origin: SO_EE_ORIGIN_ZEROCOPY,
                ee_code: code,
                ee_info: u.id,
                ee_data: u.id.wrapping_add(u.len - 1),
                ..SockExtendedErr::default()
            },
            offender: None,
            tstamp_ns: 0,
            hw_ns: 0,
            payload: ErrPayload::default(),
            opt_stats: false,
            charge: Charge::Optmem(SKB_TRUESIZE),
        });
    }
    sk_error_report(sk, cx);
}

/// Appends the range to the last unread entry (ZC-25..ZC-27; Linux `skb_zerocopy_notify_extend`).
fn notify_extend(sk: &mut TcpSock, u: &Ubuf) -> bool {
    let Some(tail) = sk.errqueue.q.back_mut().filter(|e| is_zerocopy(e)) else {
        return false;
    };
    let (lo, hi) = (tail.ee.ee_info, tail.ee.ee_data);
    let sum = u64::from(hi.wrapping_sub(lo)) + 1 + u64::from(u.len);
    if sum >= 1 << 32 || u.id != hi.wrapping_add(1) {
        return false;
    }
    tail.ee.ee_data = hi.wrapping_add(u.len);
    true
}

/// Plain bytes are about to join a buffer that was accounted by pages (F16). Linux charges the difference to the socket's
/// forward allocation, which this engine has none of: what is left is the mark.
#[inline]
pub(crate) fn tcp_downgrade_zcopy_pure(skb: &mut Skb) {
    skb.pure_zerocopy = false;
}

/// A registered dma-buf.
struct Dmabuf {
    mem: MemRef,
    /// Device that it is bound to; 0 is any.
    oif: u32,
}

/// The dma-bufs that SCM_DEVMEM_DMABUF can name. Ids begin at 1.
#[derive(Default)]
pub struct Dmabufs {
    bound: Vec<Option<Dmabuf>>,
}

impl fmt::Debug for Dmabufs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dmabufs({})", self.bound.len())
    }
}

impl Dmabufs {
    fn bind(&mut self, mem: MemRef, oif: u32) -> Result<u32, Error> {
        let free = self.bound.iter().position(Option::is_none);
        let place = free.unwrap_or(self.bound.len());
        if place == DMABUFS_MAX {
            return Err(Error::NoBufs);
        }
        if free.is_none() {
            self.bound.push(None);
        }
        self.bound[place] = Some(Dmabuf { mem, oif });
        Ok(place as u32 + 1)
    }

    fn unbind(&mut self, id: u32) -> bool {
        let place = (id as usize)
            .checked_sub(1)
            .and_then(|i| self.bound.get_mut(i));
        place.is_some_and(|p| p.take().is_some())
    }

    fn find(&self, id: u32) -> Option<&Dmabuf> {
        self.bound.get((id as usize).checked_sub(1)?)?.as_ref()
    }

    /// The memory of an id.
    pub(crate) fn get(&self, id: u32) -> Option<&MemRef> {
        Some(&self.find(id)?.mem)
    }
}

impl Stack {
    /// Hands out the completions of sends with [`crate::sendmsg::SendCall::ubuf`] set: the cookie, and true when no byte
    /// was copied on its way. Each cookie comes once, when the last byte of its call is acknowledged or dropped.
    pub fn take_ubufs(&mut self, mut f: impl FnMut(u64, bool)) {
        for (cookie, zerocopy) in self.sh.ubufs_done.drain(..) {
            f(cookie, zerocopy);
        }
    }

    /// True once after a completion: the program may have its pages back, and frames that still refer to them must not
    /// leave any more when it hears of it.
    pub fn take_zerocopy_done(&mut self) -> bool {
        core::mem::take(&mut self.sh.zerocopy_done)
    }

    /// Registers a dma-buf for sending through device `oif` (0: any); the id is SCM_DEVMEM_DMABUF's.
    ///
    /// # Errors
    /// `NoBufs` when there are [`DMABUFS_MAX`].
    pub fn bind_dmabuf(&mut self, mem: MemRef, oif: u32) -> Result<u32, Error> {
        self.sh.dmabufs.bind(mem, oif)
    }

    /// Forgets a dma-buf; what is in flight keeps its reference. False when there is none of that id.
    pub fn unbind_dmabuf(&mut self, id: u32) -> bool {
        self.sh.dmabufs.unbind(id)
    }
}

/// B3d: is the binding there, and on the route's device (ZC-56..ZC-58)?
pub(crate) fn dmabuf_binding(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, id: u32) -> Result<(), Error> {
    let oif = cx.sh.dmabufs.find(id).ok_or(Error::Inval)?.oif;
    if !rebuild_header(sk, cx) {
        return Err(Error::HostUnreach);
    }
    if oif != 0 && sk.dst.is_none_or(|dst| dst.oif != oif) {
        return Err(Error::NoDev);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
