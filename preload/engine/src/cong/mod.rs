//! Congestion control: Linux's `tcp_congestion_ops` as an enum, so that a socket's state stays plain data.

mod bbr;
mod cubic;
mod minmax;
mod reno;

use alloc::boxed::Box;

pub use bbr::Bbr;
pub use cubic::Cubic;

use crate::rate::RateSample;
use crate::sock::{CaState, TcpSock};
use crate::stack::Cx;
use crate::sysctl::Sysctl;
use crate::time::Instant;
use serde::{Deserialize, Serialize};

/// The algorithm and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CongestionControl {
    /// RFC 5681.
    Reno,
    /// RFC 9438 with HyStart, as Linux's tcp_cubic.
    Cubic(Cubic),
    /// BBR version 1, as Linux's tcp_bbr; without state, all zeros, until there is something to do.
    Bbr(Option<Box<Bbr>>),
}

impl Default for CongestionControl {
    fn default() -> Self {
        Self::Cubic(Cubic::default())
    }
}

impl CongestionControl {
    /// The algorithm of that name, or `None` when we lack it (SO-54).
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "reno" => Some(Self::Reno),
            "cubic" => Some(Self::Cubic(Cubic::default())),
            "bbr" => Some(Self::Bbr(None)),
            _ => None,
        }
    }

    /// The name that TCP_CONGESTION reads.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reno => "reno",
            Self::Cubic(_) => "cubic",
            Self::Bbr(_) => "bbr",
        }
    }

    /// The same algorithm without state.
    #[must_use]
    pub fn fresh(&self) -> Self {
        match self {
            Self::Reno => Self::Reno,
            Self::Cubic(_) => Self::Cubic(Cubic::default()),
            Self::Bbr(_) => Self::Bbr(None),
        }
    }

    /// Does it set window and pacing rate all by itself (Linux `cong_control`)? Growth, reduction and decay of the window
    /// are then none of anybody else's business.
    #[inline]
    #[must_use]
    pub const fn has_control(&self) -> bool {
        matches!(self, Self::Bbr(_))
    }

    /// What the send buffer holds, as a multiple of the window: loss recovery needs two, and BBR goes on sending at full
    /// rate meanwhile (Linux `sndbuf_expand`).
    #[must_use]
    pub const fn sndbuf_factor(&self) -> u32 {
        match self {
            Self::Reno | Self::Cubic(_) => 2,
            Self::Bbr(_) => 3,
        }
    }
}

/// The connection is established, or the algorithm was changed: Linux `tcp_init_congestion_control`.
pub fn init(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    sk.prior_ssthresh = 0;
    with_cubic(sk, |ca, sk| ca.init(sk, cx.now));
    with_bbr(sk, |ca, sk| ca.init(sk, cx.now, cx.jitter(u32::MAX)));
}

/// Takes an ack over from everybody else, where the algorithm wants that (Linux `cong_control`).
pub fn control(sk: &mut TcpSock, rs: &RateSample, now: Instant) {
    with_bbr(sk, |ca, sk| ca.on_ack(sk, rs, now));
}

/// Fewest segments of a super-frame.
#[must_use]
pub fn min_tso_segs(sk: &TcpSock, sysctl: &Sysctl) -> u32 {
    match sk.ca {
        CongestionControl::Reno | CongestionControl::Cubic(_) => sysctl.tcp_min_tso_segs,
        CongestionControl::Bbr(_) => bbr::min_tso_segs(sk),
    }
}

/// What TCP_CC_INFO reads, as words: BBR's `struct tcp_bbr_info`. The others tell nothing.
#[must_use]
pub fn info(sk: &TcpSock) -> Option<[u32; 5]> {
    match &sk.ca {
        CongestionControl::Reno | CongestionControl::Cubic(_) => None,
        CongestionControl::Bbr(None) => Some([0; 5]),
        CongestionControl::Bbr(Some(bbr)) => Some(bbr.info(sk)),
    }
}

/// The slow-start threshold after a loss, in segments, at least 2.
pub fn ssthresh(sk: &mut TcpSock) -> u32 {
    match &mut sk.ca {
        CongestionControl::Reno => reno::ssthresh(sk),
        CongestionControl::Cubic(ca) => ca.recalc_ssthresh(sk.snd_cwnd),
        CongestionControl::Bbr(_) => {
            // Losses leave the threshold alone; the window is remembered.
            with_bbr(sk, |ca, sk| ca.save_cwnd(sk));
            sk.snd_ssthresh
        }
    }
}

/// Grows the window for `acked` newly acknowledged segments (Linux `cong_avoid`).
pub fn cong_avoid(sk: &mut TcpSock, now: Instant, acked: u32) {
    if !tcp_is_cwnd_limited(sk) {
        return;
    }
    let acked = if sk.in_slow_start() {
        tcp_slow_start(sk, acked)
    } else {
        acked
    };
    if acked == 0 {
        return;
    }
    match &mut sk.ca {
        CongestionControl::Reno => {
            let w = sk.snd_cwnd;
            tcp_cong_avoid_ai(sk, w, acked);
        }
        CongestionControl::Cubic(ca) => {
            ca.update(sk.snd_cwnd, acked, now);
            let cnt = ca.cnt;
            tcp_cong_avoid_ai(sk, cnt, acked);
        }
        CongestionControl::Bbr(_) => {}
    }
}

/// The window to return to when a reduction proves to have been wrong.
pub fn undo_cwnd(sk: &mut TcpSock) -> u32 {
    if sk.ca.has_control() {
        // BBR returns to its own window when recovery ends.
        with_bbr(sk, |ca, sk| ca.undo(sk));
        return sk.snd_cwnd;
    }
    sk.snd_cwnd.max(sk.prior_cwnd)
}

/// The congestion state is about to become `state`.
pub fn set_state(sk: &mut TcpSock, state: CaState, now: Instant) {
    if state == CaState::Loss {
        with_cubic(sk, |ca, sk| ca.reset_on_loss(sk, now));
        with_bbr(sk, |ca, sk| ca.on_loss_state(sk));
    }
}

/// Sending begins again after nothing was in flight (Linux CA_EVENT_TX_START).
pub fn cwnd_event_tx_start(sk: &mut TcpSock, now: Instant) {
    let lsndtime = sk.lsndtime;
    with_cubic(sk, |ca, _| ca.tx_start(lsndtime, now));
    with_bbr(sk, |ca, sk| ca.tx_start(sk, now));
}

/// An ack brought an RTT sample of `rtt_us` microseconds; negative when it brought none.
pub fn pkts_acked(sk: &mut TcpSock, rtt_us: i64, now: Instant) {
    if rtt_us >= 0 {
        with_cubic(sk, |ca, sk| ca.acked(sk, rtt_us as u64, now));
    }
}

fn with_cubic(sk: &mut TcpSock, f: impl FnOnce(&mut Cubic, &mut TcpSock)) {
    if let CongestionControl::Cubic(ca) = &sk.ca {
        let mut ca = ca.clone();
        f(&mut ca, sk);
        sk.ca = CongestionControl::Cubic(ca);
    }
}

fn with_bbr(sk: &mut TcpSock, f: impl FnOnce(&mut Bbr, &mut TcpSock)) {
    if let CongestionControl::Bbr(slot) = &mut sk.ca {
        // Before the connection is established Linux runs on zeros, and some of it stays.
        let mut ca = slot.take().unwrap_or_default();
        f(&mut ca, sk);
        sk.ca = CongestionControl::Bbr(Some(ca));
    }
}

/// RFC 7661 in Linux's form: growing a window that is not used would allow a burst that was never tested.
#[must_use]
pub fn tcp_is_cwnd_limited(sk: &TcpSock) -> bool {
    sk.is_cwnd_limited || (sk.in_slow_start() && sk.snd_cwnd < 2 * sk.max_packets_out)
}

/// One segment for each segment acked, up to ssthresh; what is left over belongs to congestion avoidance.
pub fn tcp_slow_start(sk: &mut TcpSock, acked: u32) -> u32 {
    let cwnd = sk.snd_cwnd.saturating_add(acked).min(sk.snd_ssthresh);
    let left = acked - (cwnd - sk.snd_cwnd);
    sk.snd_cwnd = cwnd.min(sk.snd_cwnd_clamp);
    left
}

/// Additive increase: one segment for every `w` acked.
pub fn tcp_cong_avoid_ai(sk: &mut TcpSock, w: u32, acked: u32) {
    // `w` may have shrunk since the last ack: then what was counted already pays for one segment.
    if sk.snd_cwnd_cnt >= w {
        sk.snd_cwnd_cnt = 0;
        sk.snd_cwnd += 1;
    }
    sk.snd_cwnd_cnt += acked;
    if sk.snd_cwnd_cnt >= w {
        let delta = sk.snd_cwnd_cnt / w;
        sk.snd_cwnd_cnt -= delta * w;
        sk.snd_cwnd += delta;
    }
    sk.snd_cwnd = sk.snd_cwnd.min(sk.snd_cwnd_clamp);
}
