//! ICMP errors about our segments: Linux's `tcp_v4_err`, `tcp_v6_err` (ER-17 to ER-19).

use core::net::SocketAddr;

use sidewire_uapi::errqueue::{SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, SockExtendedErr};
use sidewire_uapi::tcp::TcpState;
use sidewire_wire::icmp::{IcmpError, IcmpErrorKind, v4_unreachable, v6_unreachable};

use crate::error::Error;
use crate::errqueue::{IcmpPacket, IcmpReport, ip_icmp_error, sk_error_report};
use crate::header::ip_dont_fragment;
use crate::mib::Counter;
use crate::mss::tcp_sync_mss;
use crate::net::{Dst, Tuple};
use crate::recovery::tcp_simple_retransmit;
use crate::rtt::{tcp_rto_estimate, tcp_rto_max_us};
use crate::seq::between;
use crate::sock::TcpSock;
use crate::stack::{Cx, Ehash, Io, Stack};
use crate::state::tcp_done_with_error;
use crate::time::{NSEC_PER_SEC, NSEC_PER_USEC};
use crate::timer::{TCP_TIMEOUT_INIT_US, tcp_reset_xmit_timer};
use crate::timers::IcskPending;

/// Smallest path MTU that an ICMP error is believed (Linux `ip_rt_min_pmtu`), bytes.
const MIN_PMTU: u32 = 552;
/// The same for IPv6 (RFC 8200 §5).
const MIN_PMTU_V6: u32 = 1280;
/// Codes of destination unreachable that are rarely seen (RFC 1122 §3.2.2.1).
const SOURCE_ROUTE_FAILED: u8 = 5;
const HOST_UNKNOWN: u8 = 7;
const HOST_ISOLATED: u8 = 8;
/// Code of time exceeded: a fragment waited too long for the others (Linux ICMP_EXC_FRAGTIME).
const FRAGMENT_REASSEMBLY: u8 = 1;
/// Values of IP_MTU_DISCOVER with which the socket does not care.
const IP_PMTUDISC_DONT: u8 = 0;
const IP_PMTUDISC_INTERFACE: u8 = 4;
const IP_PMTUDISC_OMIT: u8 = 5;

/// The error that a message stands for; `None` when it says nothing to TCP.
fn convert(kind: IcmpErrorKind, v6: bool) -> Option<Error> {
    Some(match kind {
        IcmpErrorKind::PacketTooBig(_) => return None,
        IcmpErrorKind::ParameterProblem(_) => Error::Proto,
        // Fragments that did not come together are nobody's fault (Linux `icmp_unreach`).
        IcmpErrorKind::TimeExceeded(FRAGMENT_REASSEMBLY) if !v6 => return None,
        IcmpErrorKind::TimeExceeded(_) => Error::HostUnreach,
        IcmpErrorKind::Unreachable(code) if v6 => match code {
            v6_unreachable::NO_ROUTE => Error::NetUnreach,
            v6_unreachable::ADMIN_PROHIBITED => Error::Access,
            v6_unreachable::PORT => Error::ConnRefused,
            _ => Error::HostUnreach,
        },
        IcmpErrorKind::Unreachable(code) => match code {
            // Linux's icmp_err_convert.
            v4_unreachable::NET | 6 | 9 | 11 => Error::NetUnreach,
            v4_unreachable::HOST | 10 | 12..=15 => Error::HostUnreach,
            SOURCE_ROUTE_FAILED => Error::OpNotSupp,
            HOST_UNKNOWN => Error::HostDown,
            HOST_ISOLATED => Error::NoNet,
            v4_unreachable::PROTOCOL => Error::NoProtoOpt,
            v4_unreachable::PORT => Error::ConnRefused,
            _ => return None,
        },
    })
}

impl Stack {
    /// Takes an ICMP error about a segment of ours. It came in `packet`, and quotes `segment`, from its TCP header on.
    pub fn icmp(&mut self, io: &mut Io<'_>, err: &IcmpError, packet: &IcmpPacket, segment: &[u8]) {
        let quoted = &err.quoted;
        let tuple = Tuple {
            local: SocketAddr::new(quoted.src, quoted.src_port),
            remote: SocketAddr::new(quoted.dst, quoted.dst_port),
        };
        self.sh.mib.inc(Counter::InIcmp);
        match self.ehash.get(&tuple).copied() {
            Some(Ehash::Sock(id)) => {
                if let Some((sk, mut cx)) = self.borrow_bh(io, id) {
                    sock_icmp(sk, &mut cx, err, packet, segment);
                    self.settle(id);
                }
            }
            Some(Ehash::Request(id)) => {
                let soft = matches!(
                    err.kind,
                    IcmpErrorKind::Unreachable(v4_unreachable::NET | v4_unreachable::HOST)
                        | IcmpErrorKind::TimeExceeded(_)
                        | IcmpErrorKind::ParameterProblem(_)
                );
                // Linux `tcp_req_err`: only an error about our very SYN-ACK ends the handshake.
                let ours = self.reqs.get(id).is_some_and(|r| r.snt_isn == quoted.seq);
                if !ours {
                    self.sh.mib.inc(Counter::OutOfWindowIcmps);
                } else if soft {
                    self.sh.mib.inc(Counter::ListenDrops);
                    self.drop_request(id);
                }
            }
            Some(Ehash::Timewait(_)) | None => {}
        }
    }
}

fn sock_icmp(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    err: &IcmpError,
    packet: &IcmpPacket,
    segment: &[u8],
) {
    if sk.state == TcpState::Close {
        return;
    }
    // Nobody but those who see our segments can name what is in flight (RFC 5927 §4.1).
    let from = if sk.fastopen_rsk { sk.iss } else { sk.snd_una };
    if !between(err.quoted.seq, from, sk.snd_nxt) {
        cx.sh.mib.inc(Counter::OutOfWindowIcmps);
        return;
    }
    if let IcmpErrorKind::PacketTooBig(mtu) = err.kind {
        mtu_reduced(sk, cx, mtu);
        return;
    }
    let Some(error) = convert(err.kind, sk.tuple.remote.is_ipv6()) else {
        return;
    };
    if matches!(
        err.kind,
        IcmpErrorKind::Unreachable(v4_unreachable::NET | v4_unreachable::HOST)
    ) && !sk.fastopen_rsk
        && !sk.tuple.remote.is_ipv6()
    {
        tcp_ld_rto_revert(sk, cx, err.quoted.seq);
    }
    // A fast open's child that the program has is as good as connected.
    let accepted = sk.fastopen_rsk && sk.parent.is_none();
    if sk.in_state(&[TcpState::SynSent, TcpState::SynRecv]) && !accepted {
        // Told with or without IP_RECVERR.
        let v6 = err.quoted.dst.is_ipv6();
        let ee = SockExtendedErr {
            ee_errno: error.errno().0 as u32,
            ee_origin: if v6 {
                SO_EE_ORIGIN_ICMP6
            } else {
                SO_EE_ORIGIN_ICMP
            },
            ee_type: err.icmp_type,
            ee_code: err.icmp_code,
            ee_pad: 0,
            ee_info: err.info,
            ee_data: 0,
        };
        let report = IcmpReport {
            error,
            packet: *packet,
            destination: SocketAddr::new(err.quoted.dst, err.quoted.dst_port),
        };
        ip_icmp_error(sk, cx, ee, report, segment);
        tcp_done_with_error(sk, cx, error);
        return;
    }
    if sk.opts.ip_recverr {
        sk.sk_err = Some(error);
        sk_error_report(sk, cx);
    } else {
        // RFC 1122 §4.2.3.9: told only when the connection dies of it.
        sk.sk_err_soft = Some(error);
    }
}

/// A router has no way to the peer at present: the timeout that it answers was not for congestion, and takes one doubling
/// back (RFC 6069; Linux `tcp_ld_RTO_revert`).
fn tcp_ld_rto_revert(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seq: u32) {
    if seq != sk.snd_una || sk.retransmits == 0 || sk.backoff == 0 {
        return;
    }
    let Some(head) = sk.rtx_queue.front() else {
        return;
    };
    let spent = cx.now.since(head.skb_mstamp) / NSEC_PER_USEC;
    sk.backoff -= 1;
    let rto = if sk.srtt_us == 0 {
        TCP_TIMEOUT_INIT_US
    } else {
        tcp_rto_estimate(sk)
    };
    let doubled = u64::from(rto) << sk.backoff.min(31);
    sk.rto_us = doubled.min(u64::from(tcp_rto_max_us(sk))) as u32;
    // Over already, it is tried again at once.
    let left = u64::from(sk.rto_us).saturating_sub(spent);
    tcp_reset_xmit_timer(sk, cx, IcskPending::Retrans, left, false);
}

/// A router says how much it takes (RFC 1191; Linux `tcp_v4_mtu_reduced`).
fn mtu_reduced(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, told: u32) {
    let v6 = sk.tuple.remote.is_ipv6();
    let Some(dst) = &mut sk.dst else {
        return;
    };
    if update_pmtu(dst, told, v6) {
        let lifetime = u64::from(cx.sh.sysctl.mtu_expires_s) * NSEC_PER_SEC;
        cx.net
            .pmtu_told(dst, sk.tuple.remote.ip(), cx.now + lifetime);
    }
    let mtu = dst.mtu;
    if told < mtu && ip_dont_fragment(sk) {
        // Nothing that we may send gets through.
        sk.sk_err_soft = Some(Error::MsgSize);
    }
    let heeds = ![IP_PMTUDISC_DONT, IP_PMTUDISC_INTERFACE, IP_PMTUDISC_OMIT]
        .contains(&sk.opts.ip_mtu_discover);
    if heeds && sk.pmtu_cookie > mtu {
        tcp_sync_mss(sk, cx, mtu);
        // What was too large is lost for certain.
        tcp_simple_retransmit(sk, cx);
    }
}

/// A path that takes less than every host must is not asked any more: what is too large for it, its routers shall cut
/// (Linux `__ip_rt_update_pmtu`). False when that was not news of a smaller MTU.
fn update_pmtu(dst: &mut Dst, told: u32, v6: bool) -> bool {
    if dst.metrics.mtu_locked || told > dst.mtu {
        return false;
    }
    if v6 {
        dst.mtu = told.max(MIN_PMTU_V6).min(dst.mtu);
    } else if told < MIN_PMTU {
        dst.metrics.mtu_locked = true;
        dst.mtu = dst.mtu.min(MIN_PMTU);
    } else {
        dst.mtu = told;
    }
    true
}

#[cfg(test)]
mod tests;
