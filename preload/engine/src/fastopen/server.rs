//! The side that listens: cookies, and children that are born from a SYN.

use alloc::boxed::Box;

use sidewire_wire::tcp_options::FastOpen;

use super::{COOKIE_LEN, KEY_LEN, TFO_SERVER_COOKIE_NOT_REQD, TFO_SERVER_ENABLE, cookie_of};
use crate::data_queue::sk_data_ready;
use crate::handshake::tcp_send_synack;
use crate::header::tcp_time_stamp_ts;
use crate::listen::RequestSock;
use crate::mib::Counter;
use crate::net::Dst;
use crate::rcvbuf::tcp_init_rcv_space;
use crate::recovery::{
    tcp_enter_loss, tcp_retrans_stamp_cleanup, tcp_try_undo_recovery, tcp_update_rto_time,
};
use crate::reply::tcp_send_reset;
use crate::request::check::{Checked, tcp_check_req};
use crate::request::{init_child, openreq_child};
use crate::segment::Segment;
use crate::seq::after;
use crate::skb::{RxSkb, SKB_TRUESIZE};
use crate::sock::{CaState, TcpSock};
use crate::stack::{Cx, Ehash, Io, Shared, SocketId, Stack};
use crate::state::tcp_reset;
use crate::timer::{
    TCP_TIMEOUT_INIT_US, TimerOutcome, tcp_init_transfer_snd, tcp_rearm_rto, tcp_reset_xmit_timer,
    tcp_update_rto_stats, tcp_write_err,
};
use crate::timers::IcskPending;

/// What a listener makes of a SYN (Linux `tcp_try_fastopen`).
pub(crate) struct Passive {
    /// A child is to be made at once.
    pub(crate) child: bool,
    /// The option of the SYN-ACK.
    pub(crate) option: Option<FastOpen>,
}

/// The listener's keys: its own, else the namespace's (`tcp_fastopen_key`), else the stack's; the second is the one before.
fn keys(sk: &TcpSock, sh: &Shared) -> [Option<[u8; KEY_LEN]>; 2] {
    let own = match &sk.opts.fastopen_key {
        none if none.is_empty() => &sh.sysctl.tcp_fastopen_key,
        own => own,
    };
    match own.first_chunk() {
        Some(first) => [
            Some(*first),
            own.get(KEY_LEN..)
                .and_then(|rest| rest.first_chunk().copied()),
        ],
        None => [Some(sh.secrets.fastopen), None],
    }
}

/// Decides about a SYN (FO-44..FO-48).
pub(crate) fn tcp_try_fastopen(
    listener: &TcpSock,
    dst: &Dst,
    sh: &mut Shared,
    seg: &Segment,
) -> Passive {
    let none = Passive {
        child: false,
        option: None,
    };
    let offered = seg.opts.fastopen;
    if offered.is_some_and(|o| o.is_request()) {
        sh.mib.inc(Counter::TCPFastOpenCookieReqd);
    }
    let syn_data = seg.end_seq != seg.seq.wrapping_add(1);
    let enabled = sh.sysctl.tcp_fastopen & TFO_SERVER_ENABLE != 0;
    let max_qlen = listener.opts.fastopen_qlen;
    if !enabled || !(syn_data || offered.is_some()) || max_qlen == 0 {
        return none;
    }
    if listener
        .listen
        .as_ref()
        .is_none_or(|l| l.fastopen_qlen >= max_qlen)
    {
        sh.mib.inc(Counter::TCPFastOpenListenOverflow);
        return none; // FO-48
    }
    let no_cookie = sh.sysctl.tcp_fastopen & TFO_SERVER_COOKIE_NOT_REQD != 0
        || listener.opts.fastopen_no_cookie
        || dst.metrics.fastopen_no_cookie;
    if no_cookie {
        return Passive {
            child: true,
            option: None,
        };
    }
    let Some(offered) = offered else {
        return none;
    };
    let valid = keys(listener, sh).map(|key| Some(cookie_of(&key?, &seg.tuple)));
    let good =
        valid[0].and_then(|c: [u8; COOKIE_LEN]| FastOpen::with_cookie(&c, offered.experimental));
    let matches = valid
        .iter()
        .position(|c| c.is_some_and(|c| c == *offered.cookie()));
    if matches.is_none() && !offered.is_request() {
        sh.mib.inc(Counter::TCPFastOpenPassiveFail);
    }
    match matches {
        Some(0) => Passive {
            child: true,
            option: None,
        },
        // Made with the old key: it is good, and a new one is handed out.
        Some(_) => Passive {
            child: true,
            option: good,
        },
        None => Passive {
            child: false,
            option: good,
        },
    }
}

/// Takes a SYN's payload into the receive queue (Linux `tcp_fastopen_add_skb`).
fn tcp_fastopen_add_skb(sk: &mut TcpSock, seg: &Segment) {
    let Some(frag) = seg.payload.clone().filter(|f| f.len > 0) else {
        return;
    };
    let truesize = SKB_TRUESIZE + frag.len;
    let seq = seg.seq.wrapping_add(1);
    sk.rcv_nxt = seq.wrapping_add(frag.len);
    sk.rmem_alloc += truesize;
    sk.info.bytes_received = frag.len.into();
    sk.info.data_segs_in = 1;
    sk.syn_data_acked = true;
    sk.receive_queue.push_back(RxSkb {
        seq,
        end_seq: sk.rcv_nxt,
        frag,
        truesize,
        tstamp_ns: seg.tstamp_ns,
        fin: false,
    });
}

impl Stack {
    /// A child in SYN_RECV, acceptable at once, and its SYN-ACK (FO-47; Linux `tcp_fastopen_create_child`).
    pub(crate) fn tcp_fastopen_create_child(
        &mut self,
        io: &mut Io<'_>,
        listener: SocketId,
        seg: &Segment,
        mut req: RequestSock,
        option: Option<FastOpen>,
    ) -> Option<()> {
        let parent = self.socks.get(listener)?;
        let mut child = openreq_child(parent, &req, seg, &self.sh.sysctl, io.now);
        child.fastopen_rsk = true;
        child.syn_fastopen_child = true;
        // RFC 7323 §2.2: the window of a SYN is never scaled.
        child.snd_wnd = seg.window.into();
        child.max_window = child.snd_wnd;
        let id = self.socks.insert(Box::new(child));
        self.hash(req.tuple, Ehash::Sock(id));
        self.sh.mib.inc(Counter::TCPFastOpenPassive);
        let (sk, mut cx) = self.borrow_bh(io, id)?;
        init_child(sk, &mut cx, &req);
        tcp_init_transfer_snd(sk, &mut cx);
        tcp_fastopen_add_skb(sk, seg);
        tcp_init_rcv_space(sk, &cx.sh.sysctl, cx.now);
        sk.rcv_wup = sk.rcv_nxt;
        req.rcv_nxt = sk.rcv_nxt;
        tcp_reset_xmit_timer(
            sk,
            &cx,
            IcskPending::Retrans,
            TCP_TIMEOUT_INIT_US.into(),
            false,
        );
        tcp_send_synack(cx.sh, cx.net, &req, option, req.ecn_ok, cx.now);
        sk.fastopen_synack = Some(Box::new(req));
        self.settle(id);
        if let Some(listen) = self
            .socks
            .get_mut(listener)
            .and_then(|sk| sk.listen.as_mut())
        {
            listen.fastopen_qlen += 1;
            listen.accept_queue.push_back(id);
        }
        let (sk, mut cx) = self.borrow_bh(io, listener)?;
        sk_data_ready(sk, &mut cx);
        Some(())
    }

    /// A fast-open child's handshake is over: the listener may take another (Linux `reqsk_fastopen_remove`).
    pub(crate) fn reqsk_fastopen_remove(&mut self, req: &RequestSock) {
        if let Some(listen) = self
            .socks
            .get_mut(req.listener)
            .and_then(|sk| sk.listen.as_mut())
        {
            listen.fastopen_qlen = listen.fastopen_qlen.saturating_sub(1);
        }
    }
}

/// Sends a fast-open child's SYN-ACK again.
fn rtx_syn_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if let Some(req) = &mut sk.fastopen_synack
        && tcp_send_synack(cx.sh, cx.net, req, None, req.ecn_ok, cx.now).is_some()
    {
        cx.sh.mib.inc(Counter::RetransSegs);
        req.num_retrans = req.num_retrans.saturating_add(1);
        sk.info.total_retrans += 1;
    }
}

/// A segment before a child's handshake is over. False when it has been dealt with.
pub(crate) fn check_child(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) -> bool {
    let Some(req) = sk.fastopen_synack.as_mut().filter(|_| sk.fastopen_rsk) else {
        return true;
    };
    match tcp_check_req(cx.sh, cx.net, cx.now, req, seg, Some(sk.snd_nxt)) {
        Checked::SynAgain => rtx_syn_ack(sk, cx),
        Checked::Done => {}
        Checked::Over if seg.rst() => tcp_reset(sk, cx),
        // No reason to end what the program may use already.
        Checked::Over => tcp_send_reset(cx.sh, cx.net, seg),
        Checked::Ack => {
            if let Some((tsval, _)) = seg.opts.timestamps
                && req.tstamp_ok
                && !after(seg.seq, req.rcv_nxt)
            {
                req.ts_recent = tsval;
            }
            return true;
        }
    }
    false
}

/// The SYN-ACK of a fast-open child is due again (Linux `tcp_fastopen_synack_timer`).
pub(crate) fn tcp_fastopen_synack_timer(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> TimerOutcome {
    let max_retries = match sk.opts.syncnt {
        0 => cx.sh.sysctl.tcp_synack_retries + 1,
        n => n,
    };
    let Some(num_timeout) = sk.fastopen_synack.as_ref().map(|r| r.num_timeout) else {
        return TimerOutcome::Alive;
    };
    cx.sh.mib.inc(Counter::TCPTimeouts);
    if num_timeout >= max_retries {
        return tcp_write_err(sk, cx);
    }
    // As after a handshake that had to be repeated twice: one segment to begin with.
    if sk.retransmits == 1 {
        tcp_enter_loss(sk, cx);
    }
    rtx_syn_ack(sk, cx);
    if let Some(req) = &mut sk.fastopen_synack {
        req.num_timeout += 1;
    }
    tcp_update_rto_stats(sk, cx.now);
    if sk.retrans_stamp == 0 {
        sk.retrans_stamp = tcp_time_stamp_ts(sk, cx.now);
    }
    let timeout = u64::from(TCP_TIMEOUT_INIT_US) << (num_timeout + 1);
    tcp_reset_xmit_timer(sk, cx, IcskPending::Retrans, timeout, false);
    TimerOutcome::Alive
}

/// The third ack for a fast-open child (Linux `tcp_rcv_synrecv_state_fastopen`).
pub(crate) fn tcp_rcv_synrecv_state_fastopen(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.ca_state == CaState::Loss && sk.packets_out == 0 {
        tcp_try_undo_recovery(sk, cx);
    }
    tcp_update_rto_time(sk, cx.now);
    sk.retransmits = 0;
    tcp_retrans_stamp_cleanup(sk);
    // The stack tells the listener when it settles.
    sk.fastopen_rsk = false;
    tcp_rearm_rto(sk, cx);
}
