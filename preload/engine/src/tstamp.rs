//! Transmit timestamps: requests on buffers, and the stamps that go to the error queue (`rows.toml` timestamping).

use alloc::boxed::Box;
use alloc::vec::Vec;

use sidewire_uapi::errno::Errno;
use sidewire_uapi::errqueue::{
    SCM_TSTAMP_ACK, SCM_TSTAMP_COMPLETION, SCM_TSTAMP_SCHED, SCM_TSTAMP_SND,
    SO_EE_ORIGIN_TIMESTAMPING, SockExtendedErr,
};
use sidewire_uapi::timestamping as sof;

use crate::errqueue::{Charge, ErrEntry, ErrPayload, sock_queue_err_skb};
use crate::info;
use crate::memory::Frag;
use crate::mib::Counter;
use crate::net::TxTstamp;
use crate::seq::before;
use crate::skb::{Skb, TxFlags};
use crate::sock::TcpSock;
use crate::stack::{Cx, Io, SocketId, Stack};
use crate::zerocopy;

/// Frames of a socket whose stamps are awaited; of more, the oldest get none.
const AWAITING_MAX: usize = 256;
/// Bytes of an Ethernet header.
pub(crate) const ETH_HLEN: usize = 14;
/// EtherTypes of what the engine sends.
const ETH_P_IP: [u8; 2] = [0x08, 0x00];
const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];

/// The request bits of a call, for its buffer (Linux `sock_tx_timestamp`).
fn tx_flags(tsflags: u32) -> TxFlags {
    let pairs = [
        (sof::SOF_TIMESTAMPING_TX_HARDWARE, TxFlags::HW_TSTAMP),
        (sof::SOF_TIMESTAMPING_TX_SOFTWARE, TxFlags::SW_TSTAMP),
        (sof::SOF_TIMESTAMPING_TX_SCHED, TxFlags::SCHED_TSTAMP),
        (sof::SOF_TIMESTAMPING_TX_ACK, TxFlags::ACK_TSTAMP),
        (
            sof::SOF_TIMESTAMPING_TX_COMPLETION,
            TxFlags::COMPLETION_TSTAMP,
        ),
    ];
    pairs
        .into_iter()
        .filter(|(bit, _)| tsflags & bit != 0)
        .fold(TxFlags::empty(), |all, (_, flag)| all | flag)
}

/// B14: the call's last buffer gets its request, and the key of its last byte (Linux `tcp_tx_timestamp`). Of several calls on
/// one buffer the requests add up, and the last one's key counts (TS-33).
pub(crate) fn tcp_tx_timestamp(sk: &mut TcpSock, tsflags: u32) {
    if tsflags == 0 {
        return;
    }
    let tail = sk.write_queue.back_mut();
    let Some(skb) = tail.or(sk.rtx_queue.back_mut()) else {
        return;
    };
    skb.tx_flags |= tx_flags(tsflags);
    if tsflags & sof::SOF_TIMESTAMPING_TX_RECORD_MASK != 0 {
        skb.tskey = skb.seq.wrapping_add(skb.len).wrapping_sub(1);
    }
}

/// What the way out is asked to stamp of a frame of this buffer.
pub(crate) fn wanted(sk: &TcpSock, skb: &Skb, sock: SocketId) -> Option<TxTstamp> {
    let flags = skb.tx_flags.difference(TxFlags::ACK_TSTAMP);
    (!flags.is_empty()).then_some(TxTstamp {
        flags,
        tskey: skb.tskey,
        sock,
        swhw: sk.opts.tsflags & sof::SOF_TIMESTAMPING_OPT_TX_SWHW != 0,
    })
}

/// A frame of this buffer was taken by a device that tells no times: they are the engine's own (TS-35, TS-36, TS-40).
/// `headers` are its IP and TCP headers.
pub fn tx_sent(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, skb: &Skb, headers: &[u8]) {
    let frame = Stamped::frame(sk, skb, headers);
    let when = Stamp::software(cx.wall_ns);
    if skb.tx_flags.contains(TxFlags::SCHED_TSTAMP) {
        tstamp_tx(sk, cx, &frame, SCM_TSTAMP_SCHED, when, None);
    }
    if skb.tx_flags.contains(TxFlags::SW_TSTAMP) {
        tstamp_tx(sk, cx, &frame, SCM_TSTAMP_SND, when, None);
    }
}

/// A frame of this buffer is on its way; its stamps come by [`Stack::tx_tstamp`].
pub(crate) fn tx_await(sk: &mut TcpSock, skb: &Skb, headers: &[u8]) {
    if sk.awaiting_tstamps.len() == AWAITING_MAX {
        sk.awaiting_tstamps.pop_front();
    }
    let frame = Stamped::frame(sk, skb, headers);
    sk.awaiting_tstamps.push_back(frame);
}

/// Times of one stamp, in nanoseconds of CLOCK_REALTIME and of the device's clock; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The kernel's.
    pub software: u64,
    /// The device's.
    pub hardware: u64,
}

impl Stamp {
    fn software(ns: u64) -> Self {
        Self {
            software: ns,
            hardware: 0,
        }
    }
}

/// What a stamp tells of its frame.
#[derive(Clone, Debug)]
pub(crate) struct Stamped {
    tskey: u32,
    /// When the frame was to leave (attribute 25 of the statistics).
    edt: u64,
    /// What was unsent (attribute 24): while a frame leaves, that includes it.
    notsent: u32,
    /// The stamp of its handing over to the device was told.
    left: bool,
    head: Box<[u8]>,
    frags: Vec<Frag>,
}

impl Stamped {
    fn frame(sk: &TcpSock, skb: &Skb, headers: &[u8]) -> Self {
        let head = if sk.opts.tsflags & sof::SOF_TIMESTAMPING_OPT_TSONLY != 0 {
            Box::default()
        } else {
            frame_head(sk.v6, headers)
        };
        Self {
            head,
            ..Self::payload(sk, skb)
        }
    }

    fn payload(sk: &TcpSock, skb: &Skb) -> Self {
        let tsonly = sk.opts.tsflags & sof::SOF_TIMESTAMPING_OPT_TSONLY != 0;
        Self {
            tskey: skb.tskey,
            edt: skb.skb_mstamp.0,
            notsent: sk.notsent_bytes(),
            left: false,
            head: Box::default(),
            frags: if tsonly {
                Vec::new()
            } else {
                skb.frags.to_vec()
            },
        }
    }
}

impl Stack {
    /// A stamp that [`crate::net::Transmit::tstamp`] asked for: `tstype` is `SCM_TSTAMP_*`, `last` that the frame gets no
    /// more of them. Nothing happens when nobody waits for it.
    pub fn tx_tstamp(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        tskey: u32,
        tstype: u32,
        when: Stamp,
        last: bool,
    ) {
        let Some((sk, mut cx)) = self.borrow(io, id) else {
            return;
        };
        // A buffer that was sent again has a frame for each time, and a device may never tell that one was completed.
        let left = tstype == SCM_TSTAMP_COMPLETION;
        let awaiting = &sk.awaiting_tstamps;
        let at = awaiting
            .iter()
            .position(|s| s.tskey == tskey && s.left == left)
            // The device's own time beside the kernel's.
            .or_else(|| awaiting.iter().position(|s| s.tskey == tskey));
        if let Some(at) = at {
            let frame = sk.awaiting_tstamps[at].clone();
            sk.awaiting_tstamps[at].left |= tstype == SCM_TSTAMP_SND;
            if last {
                sk.awaiting_tstamps.remove(at);
            }
            tstamp_tx(sk, &mut cx, &frame, tstype, when, None);
        }
        self.settle(id);
    }
}

/// `snd_una` has passed the buffer's last stamped byte (TS-37; Linux `tcp_ack_tstamp`). `ttl` is the ack's.
pub fn tx_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, skb: &Skb, ttl: u8) {
    if skb.tx_flags.contains(TxFlags::ACK_TSTAMP) && before(skb.tskey, skb.end_seq) {
        let frame = Stamped::payload(sk, skb);
        let when = Stamp::software(cx.wall_ns);
        tstamp_tx(sk, cx, &frame, SCM_TSTAMP_ACK, when, Some(ttl));
    }
}

/// Queues a stamp (Linux `__skb_tstamp_tx`).
fn tstamp_tx(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    frame: &Stamped,
    tstype: u32,
    when: Stamp,
    ttl: Option<u8>,
) {
    let tsflags = sk.opts.tsflags;
    let tsonly = tsflags & sof::SOF_TIMESTAMPING_OPT_TSONLY != 0;
    if !tsonly && !cx.sh.sysctl.tstamp_allow_data && !sk.opts.opener_net_raw {
        return; // TS-43
    }
    let opt_stats = tsonly && tsflags & sof::SOF_TIMESTAMPING_OPT_STATS != 0;
    let payload = if opt_stats {
        ErrPayload {
            head: opt_stats_attributes(sk, cx, frame, ttl),
            frags: Vec::new(),
        }
    } else if tsonly {
        ErrPayload::default()
    } else {
        ErrPayload {
            head: frame.head.clone(),
            frags: own_frags(&frame.frags, cx),
        }
    };
    let key = if tsflags & sof::SOF_TIMESTAMPING_OPT_ID != 0 {
        frame.tskey.wrapping_sub(sk.tskey)
    } else {
        0 // TS-32
    };
    let entry = ErrEntry {
        ee: SockExtendedErr {
            ee_errno: Errno::ENOMSG.0 as u32,
            ee_origin: SO_EE_ORIGIN_TIMESTAMPING,
            ee_info: tstype,
            ee_data: key,
            ..SockExtendedErr::default()
        },
        offender: None,
        tstamp_ns: when.software,
        hw_ns: when.hardware,
        payload,
        opt_stats,
        charge: Charge::Rmem(0),
    };
    sock_queue_err_skb(sk, cx, entry);
}

/// The bytes that a stamp shows. The program may take its memory back before it reads them (Linux `skb_orphan_frags_rx`).
fn own_frags(frags: &[Frag], cx: &mut Cx<'_, '_>) -> Vec<Frag> {
    let copied = (frags.iter().any(Frag::is_user)).then(|| zerocopy::copied_frags(frags, cx));
    match copied.flatten() {
        Some(own) => {
            let bytes: u32 = own.iter().map(|f| f.len).sum();
            cx.sh.mib.add(Counter::BytesCopiedOut, bytes.into());
            own.to_vec()
        }
        None => frags.to_vec(),
    }
}

/// The head of the frame as Linux hands it out: from the Ethernet header on. Its addresses are the link's business and
/// read zero here.
fn frame_head(v6: bool, headers: &[u8]) -> Box<[u8]> {
    let mut out = Vec::with_capacity(ETH_HLEN + headers.len());
    out.resize(ETH_HLEN - 2, 0);
    out.extend(if v6 { ETH_P_IPV6 } else { ETH_P_IP });
    out.extend(headers);
    out.into_boxed_slice()
}

/// Netlink attributes of one size class.
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(&mut self, ty: u16, data: &[u8]) {
        self.0.extend((4 + data.len() as u16).to_ne_bytes());
        self.0.extend(ty.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
    fn u8(&mut self, ty: u16, v: u8) {
        self.put(ty, &[v]);
    }
    fn u32(&mut self, ty: u16, v: u32) {
        self.put(ty, &v.to_ne_bytes());
    }
    fn u64(&mut self, ty: u16, v: u64) {
        self.put(ty, &v.to_ne_bytes());
    }
}

/// SCM_TIMESTAMPING_OPT_STATS, in Linux's order (TS-54..TS-69; Linux `tcp_get_timestamping_opt_stats`).
fn opt_stats_attributes(
    sk: &TcpSock,
    cx: &Cx<'_, '_>,
    frame: &Stamped,
    ttl: Option<u8>,
) -> Box<[u8]> {
    let i = &sk.info;
    let chrono = info::chrono_stats(sk, cx.now);
    let mut a = Attributes(Vec::with_capacity(256));
    a.u64(1, chrono.busy_us);
    a.u64(2, chrono.rwnd_limited_us);
    a.u64(3, chrono.sndbuf_limited_us);
    a.u64(4, i.data_segs_out.into());
    a.u64(5, i.total_retrans.into());
    a.u64(6, sk.pacing_rate);
    a.u64(7, info::tcp_compute_delivery_rate(sk));
    a.u32(8, sk.snd_cwnd);
    a.u32(9, sk.reordering);
    a.u32(10, sk.rtt_min.s[0].1);
    a.u8(11, sk.retransmits);
    a.u8(12, sk.rate_app_limited.into());
    a.u32(15, sk.snd_ssthresh);
    a.u32(16, sk.delivered);
    a.u32(17, sk.delivered_ce);
    a.u32(13, sk.write_seq.wrapping_sub(sk.snd_una));
    a.u8(14, sk.ca_state as u8);
    a.u64(18, i.bytes_sent);
    a.u64(19, i.bytes_retrans);
    a.u32(20, i.dsack_dups);
    a.u32(21, i.reord_seen);
    a.u32(22, sk.srtt_us >> 3);
    a.put(23, &i.timeout_rehash.to_ne_bytes());
    a.u32(24, frame.notsent);
    a.u64(25, frame.edt);
    if let Some(ttl) = ttl {
        a.u8(26, ttl);
    }
    // Linux adds `plb_rehash`, which counts only with `tcp_plb_enabled`; load balancing by PLB is not built.
    a.u32(27, u32::from(i.timeout_rehash));
    a.0.into_boxed_slice()
}

#[cfg(test)]
mod tests;
