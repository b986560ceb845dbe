//! `sk_error_queue`: what `recvmsg(MSG_ERRQUEUE)` reads (`rows.toml` zerocopy, `rows.toml` timestamping).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use serde::{Deserialize, Serialize};

use sidewire_uapi::errqueue::{
    SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, SO_EE_ORIGIN_TIMESTAMPING, SO_EE_ORIGIN_ZEROCOPY,
    SockExtendedErr,
};
use sidewire_uapi::socket::{MSG_ERRQUEUE, MSG_TRUNC};
use sidewire_uapi::timestamping as sof;

use crate::calls::{RecvCall, RecvCmsg};
use crate::error::Error;
use crate::event::Events;
use crate::memory::{Frag, IovIter};
use crate::skb::{SKB_TRUESIZE, Skb, alloc_skb};
use crate::sock::TcpSock;
use crate::stack::{Cx, Io, SocketId, Stack};
use crate::tstamp::ETH_HLEN;

/// What an entry costs, and whose account it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Charge {
    /// `sk_rmem_alloc` (TS-51).
    Rmem(u32),
    /// `sk_omem_alloc`: the notification object's own charge goes on (ZC-16).
    Optmem(u32),
}

/// What a reader gets as data.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErrPayload {
    /// Header bytes, or the statistics.
    pub(crate) head: Box<[u8]>,
    /// The packet's own payload.
    pub(crate) frags: Vec<Frag>,
}

impl ErrPayload {
    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.frags_len() as usize
    }

    fn frags_len(&self) -> u32 {
        self.frags.iter().map(|f| f.len).sum()
    }

    /// What its buffer is charged: a clone of the frame's, of which the headers cost nothing, or one for the statistics.
    fn truesize(&self) -> u32 {
        if self.frags.is_empty() {
            alloc_skb(self.head.len() as u32).truesize
        } else {
            SKB_TRUESIZE + self.frags_len()
        }
    }
}

/// The IP packet in which an ICMP error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpPacket {
    /// Who sent it: the offender.
    pub saddr: IpAddr,
    /// The address of ours that it was sent to.
    pub daddr: IpAddr,
    /// Index of the device by which it came.
    pub iif: u32,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpReport {
    /// What it is for the socket.
    pub error: Error,
    /// What it came in.
    pub packet: IcmpPacket,
    /// Where the packet that it quotes was going.
    pub destination: SocketAddr,
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct ErrEntry {
    pub(crate) ee: SockExtendedErr,
    /// Of an ICMP error.
    pub(crate) offender: Option<IcmpReport>,
    /// CLOCK_REALTIME nanoseconds, 0 when it is no stamp.
    pub(crate) tstamp_ns: u64,
    /// Hardware stamp, 0 for none.
    pub(crate) hw_ns: u64,
    pub(crate) payload: ErrPayload,
    /// The payload is netlink attributes that are handed out as a control message too.
    pub(crate) opt_stats: bool,
    pub(crate) charge: Charge,
}

/// The queue. Bounded by `rcvbuf` (stamps) and `optmem_max` (zerocopy notifications).
#[derive(Debug, Default)]
pub struct ErrQueue {
    pub(crate) q: VecDeque<ErrEntry>,
}

impl ErrQueue {
    /// True when there is nothing to read: no POLLERR from here (RD-11).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.q.is_empty()
    }

    /// True while an unread stamp shows bytes of this buffer (Linux `skb_cloned`).
    pub(crate) fn shows(&self, skb: &Skb) -> bool {
        let range = |f: &Frag| f.ptr().addr()..f.ptr().addr() + f.len as usize;
        let overlap = |a: &Frag, b: &Frag| {
            let (a, b) = (range(a), range(b));
            a.start < b.end && b.start < a.end
        };
        let mut shown = self.q.iter().flat_map(|entry| &entry.payload.frags);
        shown.any(|shown| skb.frags.iter().any(|f| overlap(shown, f)))
    }

    /// What stands on the account of the receive memory.
    pub(crate) fn rmem(&self) -> u32 {
        let charges = self.q.iter().map(|entry| entry.charge);
        charges
            .map(|charge| match charge {
                Charge::Rmem(n) => n,
                Charge::Optmem(_) => 0,
            })
            .sum()
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.q.len()
    }
}

/// Queues an entry that is charged to receive memory; dropped when there is no room (TS-51; Linux `sock_queue_err_skb`).
pub(crate) fn sock_queue_err_skb(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, mut entry: ErrEntry) {
    let truesize = entry.payload.truesize();
    if sk.rmem_alloc + truesize >= sk.rcvbuf {
        return;
    }
    sk.rmem_alloc += truesize;
    entry.charge = Charge::Rmem(truesize);
    sk.errqueue.q.push_back(entry);
    sk_error_report(sk, cx);
}

/// Tells those who wait (Linux `sk_error_report`); nobody does on an orphan.
pub(crate) fn sk_error_report(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if !sk.orphan {
        cx.wake(sk, Events::ERR | Events::SIGIO_ERR);
    }
}

/// Queues an ICMP error with the packet that it quotes (Linux `ip_icmp_error`).
pub fn ip_icmp_error(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    ee: SockExtendedErr,
    report: IcmpReport,
    quoted: &[u8],
) {
    let entry = ErrEntry {
        ee,
        offender: Some(report),
        tstamp_ns: cx.wall_ns,
        hw_ns: 0,
        payload: ErrPayload {
            head: quoted.into(),
            frags: Vec::new(),
        },
        opt_stats: false,
        charge: Charge::Rmem(0),
    };
    sock_queue_err_skb(sk, cx, entry);
}

/// Takes the first entry and its charge off (Linux `sock_dequeue_err_skb`).
fn sock_dequeue_err_skb(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> Option<ErrEntry> {
    let entry = sk.errqueue.q.pop_front()?;
    uncharge(sk, entry.charge);
    // The pending error becomes that of the next ICMP error; the last one takes it along.
    let next = sk.errqueue.q.front().and_then(|e| e.offender);
    if next.is_some() || entry.offender.is_some() {
        sk.sk_err = next.map(|report| report.error);
    }
    if !sk.errqueue.is_empty() {
        sk_error_report(sk, cx);
    }
    Some(entry)
}

fn uncharge(sk: &mut TcpSock, charge: Charge) {
    match charge {
        Charge::Rmem(n) => sk.rmem_alloc -= n,
        Charge::Optmem(n) => sk.zerocopy.optmem -= n,
    }
}

/// Drops what is an error, not a notification (Linux `skb_errqueue_purge`).
pub(crate) fn skb_errqueue_purge(sk: &mut TcpSock) {
    for entry in core::mem::take(&mut sk.errqueue.q) {
        match entry.ee.ee_origin {
            SO_EE_ORIGIN_ZEROCOPY | SO_EE_ORIGIN_TIMESTAMPING => sk.errqueue.q.push_back(entry),
            _ => uncharge(sk, entry.charge),
        }
    }
}

/// Drops what nobody will read (close, disconnect).
pub fn purge(sk: &mut TcpSock) {
    while let Some(entry) = sk.errqueue.q.pop_front() {
        uncharge(sk, entry.charge);
    }
}

/// Where an entry came from, when IP_RECVERR's address tells (TS-48; Linux `ipv4_datagram_support_cmsg`).
fn offender(sk: &TcpSock, entry: &ErrEntry) -> Option<SocketAddr> {
    match entry.ee.ee_origin {
        SO_EE_ORIGIN_ICMP | SO_EE_ORIGIN_ICMP6 => {
            entry.offender.map(|n| SocketAddr::new(n.packet.saddr, 0))
        }
        SO_EE_ORIGIN_TIMESTAMPING if frame_shown(sk, entry) => {
            Some(SocketAddr::new(sk.tuple.local.ip(), 0))
        }
        _ => None,
    }
}

/// A stamp that carries its frame from the link-layer header on, and OPT_CMSG, which lets the frame's own messages through.
fn frame_shown(sk: &TcpSock, entry: &ErrEntry) -> bool {
    sk.opts.tsflags & sof::SOF_TIMESTAMPING_OPT_CMSG != 0
        && !entry.opt_stats
        && !entry.payload.head.is_empty()
}

/// The messages of the frame of a stamp, or of an ICMP error (TS-50; Linux `ip_cmsg_recv`).
fn ip_header(sk: &TcpSock, entry: &ErrEntry) -> Option<RecvCmsg> {
    if let Some(IcmpReport {
        packet,
        destination,
        ..
    }) = entry.offender
    {
        let IpAddr::V4(daddr) = packet.daddr else {
            return None;
        };
        return Some(RecvCmsg::IpHeader {
            ifindex: packet.iif,
            // The entry lies where Linux has the packet's own.
            spec_dst: Ipv4Addr::UNSPECIFIED,
            daddr,
            ttl: packet.ttl,
            tos: packet.tos,
            port: destination.port(),
        });
    }
    let stamp = entry.ee.ee_origin == SO_EE_ORIGIN_TIMESTAMPING && frame_shown(sk, entry);
    let (IpAddr::V4(saddr), IpAddr::V4(daddr)) = (sk.tuple.local.ip(), sk.tuple.remote.ip()) else {
        return None;
    };
    let ip = entry.payload.head.get(ETH_HLEN..)?;
    stamp.then_some(RecvCmsg::IpHeader {
        ifindex: sk.dst.map_or(0, |d| d.oif),
        spec_dst: saddr,
        daddr,
        ttl: *ip.get(8)?,
        tos: *ip.get(1)?,
        port: sk.tuple.remote.port(),
    })
}

/// The control messages of an entry, in Linux's order (TS-44; Linux `__sock_recv_timestamp`).
fn put_cmsgs(sk: &TcpSock, entry: &ErrEntry, wall_ns: u64, call: &mut RecvCall) {
    let new = sk.opts.tstamp_new;
    let rcvtstamp = sk.opts.rcvtstamp || sk.opts.rcvtstampns;
    // Linux stamps what has none at the time of reading when SO_TIMESTAMP is on.
    let ns = match entry.tstamp_ns {
        0 if rcvtstamp => wall_ns,
        ns => ns,
    };
    let mut put = |m| call.cmsgs.push(m);
    if sk.opts.rcvtstampns {
        put(RecvCmsg::TimestampNs { ns, new });
    } else if rcvtstamp {
        put(RecvCmsg::Timestamp { ns, new });
    }
    let tsflags = sk.opts.tsflags;
    let mut stamps = [0; 3];
    // Linux does not mark a zerocopy notification as the error queue's own: it counts as received.
    let filtered = matches!(entry.charge, Charge::Optmem(_))
        && tsflags & sof::SOF_TIMESTAMPING_OPT_RX_FILTER != 0
        && tsflags & sof::SOF_TIMESTAMPING_RX_SOFTWARE == 0;
    if tsflags & sof::SOF_TIMESTAMPING_SOFTWARE != 0 && !filtered {
        stamps[0] = ns;
    }
    if tsflags & sof::SOF_TIMESTAMPING_RAW_HARDWARE != 0 {
        stamps[2] = entry.hw_ns;
    }
    if stamps != [0; 3] {
        put(RecvCmsg::Timestamping { ns: stamps, new });
        if entry.opt_stats && !entry.payload.head.is_empty() {
            put(RecvCmsg::OptStats(entry.payload.head.clone()));
        }
    }
    if let Some(header) = ip_header(sk, entry) {
        put(header);
    }
    put(RecvCmsg::RecvErr {
        ee: entry.ee,
        offender: offender(sk, entry),
    });
}

/// `recvmsg(MSG_ERRQUEUE)` on one socket (Linux `ip_recv_error`).
fn ip_recv_error(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut RecvCall,
    iter: &mut dyn IovIter,
) -> Result<usize, Error> {
    let entry = sock_dequeue_err_skb(sk, cx).ok_or(Error::Again)?; // ZC-45
    let mut left = iter.remaining();
    if entry.payload.len() > left {
        call.msg_flags |= MSG_TRUNC; // ZC-49
    }
    let room = left;
    let head = &entry.payload.head[..entry.payload.head.len().min(left)];
    if !head.is_empty() {
        iter.copy_out_bytes(head).map_err(|_| Error::Fault)?;
    }
    left -= head.len();
    for frag in &entry.payload.frags {
        let mut frag = frag.clone();
        let piece = frag.split_to(frag.len.min(u32::try_from(left).unwrap_or(u32::MAX)));
        if piece.len == 0 {
            break;
        }
        iter.copy_out(&piece).map_err(|_| Error::Fault)?;
        left -= piece.len as usize;
    }
    put_cmsgs(sk, &entry, cx.wall_ns, call);
    call.name = entry.offender.map(|n| n.destination);
    call.msg_flags |= MSG_ERRQUEUE;
    Ok(room - left)
}

impl Stack {
    /// `recvmsg` with MSG_ERRQUEUE: one entry, in `call` its control messages and flags; the return value is the bytes of
    /// the entry's payload. Never sleeps; MSG_PEEK is ignored (ZC-46).
    ///
    /// # Errors
    /// `Again` when the queue is empty; `Fault` (the entry is gone then).
    pub fn recv_errqueue(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut RecvCall,
        iter: &mut dyn IovIter,
    ) -> Result<usize, Error> {
        let (sk, mut cx) = self.borrow(io, id).ok_or(Error::BadFd)?;
        let r = ip_recv_error(sk, &mut cx, call, iter);
        self.settle(id);
        r
    }
}

/// True when `entry` is a zerocopy notification.
pub(crate) const fn is_zerocopy(entry: &ErrEntry) -> bool {
    entry.ee.ee_origin == SO_EE_ORIGIN_ZEROCOPY
}
