//! What a segment is to a handshake, also to that of a child that was born from a SYN (Linux `tcp_check_req`).

use super::tcp_reqsk_timeout_ns;
use crate::header::INET_ECN_MASK;
use crate::input::{now_s, paws_reject, tcp_oow_rate_limited};
use crate::listen::RequestSock;
use crate::mib::Counter;
use crate::net::Net;
use crate::reply::{BareAck, tcp_send_bare_ack, tcp_send_reset};
use crate::segment::Segment;
use crate::seq::between;
use crate::skb::tcphdr;
use crate::stack::Shared;
use crate::time::{Instant, NSEC_PER_SEC};
use crate::timewait::tcp_in_window;

/// What [`tcp_check_req`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The SYN again: our answer was lost.
    SynAgain,
    /// Nothing is left to be done.
    Done,
    /// A RST, or a SYN that has no place here.
    Over,
    /// An ack, which may complete the handshake.
    Ack,
}

/// Judges a segment, and answers what is out of the window. `child` is the next sequence number of a fast-open child, whose
/// ack field is its own to judge.
pub(crate) fn tcp_check_req(
    sh: &mut Shared,
    net: &mut dyn Net,
    now: Instant,
    req: &mut RequestSock,
    seg: &Segment,
    child: Option<u32>,
) -> Checked {
    let flags = seg.flags & (tcphdr::RST | tcphdr::SYN | tcphdr::ACK);
    let mut paws = false;
    let mut tsecr_reject = false;
    if let Some((tsval, tsecr)) = seg.opts.timestamps {
        if tsecr != 0 && req.tstamp_ok && child.is_none() {
            let (first, last) = (req.tsval(req.snt_synack), req.tsval(req.snt_synack_last));
            tsecr_reject = !between(tsecr, first, last);
        }
        // When the SYN came is not kept; its last timeout says enough.
        let age_s = tcp_reqsk_timeout_ns(req, &sh.sysctl) / NSEC_PER_SEC;
        let stamp = now_s(now).saturating_sub(age_s);
        paws = paws_reject(req.ts_recent, stamp, tsval, seg.rst(), now);
    }

    if seg.seq == req.rcv_isn && flags == tcphdr::SYN && !paws {
        return if tcp_oow_rate_limited(sh, seg, &mut req.last_oow_ack_time, now) {
            Checked::Done
        } else {
            Checked::SynAgain
        };
    }
    let snd_nxt = child.unwrap_or(req.snt_isn.wrapping_add(1));
    let right = req.rcv_nxt.wrapping_add(tcp_synack_window(req));
    let in_window = tcp_in_window(seg.seq, seg.end_seq, req.rcv_nxt, right);
    if seg.rst() && !paws && !tsecr_reject && in_window && seg.seq != req.rcv_nxt {
        // RFC 5961 §3.2: who only guesses the window does not end the handshake.
        challenge(sh, net, now, req, seg, snd_nxt);
        return Checked::Done;
    }
    if flags & tcphdr::ACK != 0 && child.is_none() && seg.ack_seq != snd_nxt {
        // Not the ack of our SYN: as for a listener (RFC 9293 §3.10.7.4, "fifth").
        if !seg.rst() {
            tcp_send_reset(sh, net, seg);
        }
        return Checked::Done;
    }
    if paws || tsecr_reject || !in_window {
        if !seg.rst() {
            challenge(sh, net, now, req, seg, snd_nxt);
        }
        sh.mib.inc(if paws {
            Counter::PAWSEstab
        } else if tsecr_reject {
            Counter::TSEcrRejected
        } else {
            Counter::OutOfWindow
        });
        return Checked::Done;
    }
    let syn = flags & tcphdr::SYN != 0 && seg.seq != req.rcv_isn;
    if flags & tcphdr::RST != 0 || syn {
        sh.mib.inc(Counter::AttemptFails);
        Checked::Over
    } else if flags & tcphdr::ACK == 0 {
        Checked::Done
    } else {
        Checked::Ack
    }
}

/// The window of the SYN-ACK, which is never scaled (Linux `tcp_synack_window`).
fn tcp_synack_window(req: &RequestSock) -> u32 {
    req.rsk_rcv_wnd.min(u32::from(u16::MAX))
}

/// Acks with what the request has, and the TOS of what it answers, unless that was done a moment ago (Linux
/// `tcp_v4_reqsk_send_ack`, `tcp_oow_rate_limited`).
fn challenge(
    sh: &mut Shared,
    net: &mut dyn Net,
    now: Instant,
    req: &mut RequestSock,
    seg: &Segment,
    snd_nxt: u32,
) {
    if tcp_oow_rate_limited(sh, seg, &mut req.last_oow_ack_time, now) {
        return;
    }
    let ack = BareAck {
        tuple: req.tuple,
        seq: snd_nxt,
        ack_seq: req.rcv_nxt,
        window: (tcp_synack_window(req) >> req.rcv_wscale) as u16,
        timestamps: req.tstamp_ok.then(|| (req.tsval(now), req.ts_recent)),
        tos: seg.tos & !INET_ECN_MASK,
        mark: req.mark,
        priority: req.priority,
    };
    tcp_send_bare_ack(sh, net, Some(&req.dst), &ack);
}
