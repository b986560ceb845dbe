//! Segments that no socket sends: resets for strangers, acks of TIME_WAIT remnants and request socks (Linux
//! `tcp_v4_send_reset`, `tcp_v4_send_ack`; ER-79, ER-80).

use sidewire_wire::tcp::{TcpFlags, TcpHeader, TcpOptions};
use sidewire_wire::tcp_options::Signature;

use crate::header::{Headers, INET_ECN_MASK, IpFields, ttl};
use crate::mib::Counter;
use crate::net::{Dst, FlowKey, Net, Transmit, Tuple, TxVerdict};
use crate::segment::Segment;
use crate::stack::Shared;

/// An ack sent without a socket.
#[derive(Clone, Copy, Debug)]
pub struct BareAck {
    /// Whose.
    pub tuple: Tuple,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack_seq: u32,
    /// Window field, scaled.
    pub window: u16,
    /// `(tsval, tsecr)` when timestamps are on.
    pub timestamps: Option<(u32, u32)>,
    /// TOS or traffic class.
    pub tos: u8,
    /// SO_MARK.
    pub mark: u32,
    /// SO_PRIORITY.
    pub priority: u32,
}

fn send(
    sh: &Shared,
    net: &mut dyn Net,
    known: Option<&Dst>,
    ack: &BareAck,
    flags: TcpFlags,
) -> Option<TxVerdict> {
    let tuple = &ack.tuple;
    let dst = match known.filter(|d| d.generation == net.route_generation()) {
        Some(dst) => *dst,
        None => net
            .route(&FlowKey {
                daddr: tuple.remote.ip(),
                saddr: Some(tuple.local.ip()),
                oif: 0,
                mark: ack.mark,
                tos: ack.tos & !INET_ECN_MASK,
            })
            .ok()?,
    };
    let tcp = TcpHeader {
        src_port: tuple.local.port(),
        dst_port: tuple.remote.port(),
        seq: ack.seq,
        ack_seq: ack.ack_seq,
        flags,
        window: ack.window,
        urg_ptr: 0,
    };
    let ip = IpFields {
        tos: ack.tos,
        // Linux's control sockets send these: no IP_TTL of a socket's counts.
        ttl: ttl(-1, Some(&dst), &sh.sysctl),
        id: 0,
        df: true,
    };
    let options = TcpOptions {
        timestamps: ack.timestamps,
        ..TcpOptions::default()
    };
    let headers = Headers::build(tuple, &ip, &tcp, &options, 0)?;
    Some(net.transmit(&Transmit {
        dst: &dst,
        daddr: tuple.remote.ip(),
        headers: headers.bytes(),
        l4_offset: headers.l4_offset,
        frags: &[],
        gso_size: 0,
        mark: ack.mark,
        priority: ack.priority,
        tstamp: None,
        txtime: None,
        sock: None,
    }))
}

/// Acknowledges for a TIME_WAIT remnant or a request sock. `dst` is the route that it remembers. Lost when the packet
/// socket is full, as on any other way.
pub fn tcp_send_bare_ack(sh: &mut Shared, net: &mut dyn Net, dst: Option<&Dst>, ack: &BareAck) {
    if send(sh, net, dst, ack, TcpFlags::ACK).is_some() {
        sh.mib.inc(Counter::OutSegs);
    }
}

/// Answers a segment that belongs to nobody, or to a connection that is over, with RST (RFC 9293 §3.10.7.1).
pub fn tcp_send_reset(sh: &mut Shared, net: &mut dyn Net, seg: &Segment) {
    if seg.rst() || seg.signature != Signature::None {
        return;
    }
    let (seq, ack_seq, flags) = if seg.ack() {
        (seg.ack_seq, 0, TcpFlags::RST)
    } else {
        (0, seg.end_seq, TcpFlags::RST | TcpFlags::ACK)
    };
    let ack = BareAck {
        tuple: seg.tuple,
        seq,
        ack_seq,
        window: 0,
        timestamps: None,
        tos: seg.tos & !INET_ECN_MASK,
        mark: 0,
        priority: 0,
    };
    if send(sh, net, None, &ack, flags).is_some() {
        sh.mib.inc(Counter::OutSegs);
        sh.mib.inc(Counter::OutRsts);
    }
}

#[cfg(test)]
mod tests;
