//! Round-trip time and retransmission timeout: RFC 6298 in Linux's form (`tcp_rtt_estimator`, `tcp_set_rto`), and the
//! windowed minimum (`tcp_update_rtt_min`).

use crate::ack::AckFlag;
use crate::header::tcp_time_stamp_ts;
use crate::rate::RateSample;
use crate::seq::after;
use crate::sock::{MinRtt, TcpSock};
use crate::stack::Cx;
use crate::time::{HZ, Instant, NSEC_PER_SEC, round_up_to_jiffy_us};

/// `TCP_TIMEOUT_FALLBACK`: RTO when the handshake gave no sample, microseconds.
const TCP_TIMEOUT_FALLBACK_US: u32 = 3_000_000;
/// One jiffy in microseconds.
pub const JIFFY_US: u32 = (1_000_000 / HZ) as u32;

/// Shortest RTO, microseconds (TM-5): the route's, which counts for more than the socket's.
#[inline]
#[must_use]
pub fn tcp_rto_min_us(sk: &TcpSock) -> u32 {
    match sk.route_metrics().rto_min_us {
        0 => sk.opts.rto_min_us,
        of_route => of_route,
    }
}

/// Longest RTO, microseconds (TM-6).
#[inline]
#[must_use]
pub fn tcp_rto_max_us(sk: &TcpSock) -> u32 {
    sk.opts.rto_max_ms.saturating_mul(1_000)
}

/// Smallest RTT of the last minutes, microseconds; `u32::MAX` before the first sample.
#[inline]
#[must_use]
pub fn tcp_min_rtt(sk: &TcpSock) -> u32 {
    sk.rtt_min.s[0].1
}

/// Feeds a sample into the windowed minimum: best, and second and third best of later parts of the window, so that a
/// successor is at hand when the best one ages out (Linux `minmax_running_min`).
fn minmax_running_min(m: &mut MinRtt, win_ns: u64, now: Instant, value: u32) {
    let sample = (now, value);
    if m.s[0].1 == u32::MAX || value <= m.s[0].1 || now.since(m.s[2].0) > win_ns {
        m.s = [sample; 3];
        return;
    }
    if value <= m.s[1].1 {
        m.s[1] = sample;
        m.s[2] = sample;
    } else if value <= m.s[2].1 {
        m.s[2] = sample;
    }
    let age = now.since(m.s[0].0);
    if age > win_ns {
        m.s = [m.s[1], m.s[2], sample];
        if now.since(m.s[0].0) > win_ns {
            m.s = [m.s[1], m.s[2], sample];
        }
    } else if m.s[1].0 == m.s[0].0 && age > win_ns / 4 {
        m.s[1] = sample;
        m.s[2] = sample;
    } else if m.s[2].0 == m.s[1].0 && age > win_ns / 2 {
        m.s[2] = sample;
    }
}

fn tcp_update_rtt_min(sk: &mut TcpSock, cx: &Cx<'_, '_>, rtt_us: u32, flag: AckFlag) {
    // A delayed ack would be picked up when the minimum ages out.
    if flag.contains(AckFlag::ACK_MAYBE_DELAYED) && rtt_us > tcp_min_rtt(sk) {
        return;
    }
    let value = if rtt_us == 0 { JIFFY_US } else { rtt_us };
    let window_ns = u64::from(cx.sh.sysctl.tcp_min_rtt_wlen_s) * NSEC_PER_SEC;
    minmax_running_min(&mut sk.rtt_min, window_ns, cx.now, value);
}

/// Smooths RTT and deviation; `srtt_us` is 8 times, `mdev_us` and `rttvar_us` 4 times the value.
pub fn tcp_rtt_estimator(sk: &mut TcpSock, mrtt_us: u32) {
    let rto_min = tcp_rto_min_us(sk);
    if sk.srtt_us == 0 {
        sk.srtt_us = mrtt_us.saturating_mul(8).max(1);
        sk.mdev_us = mrtt_us.saturating_mul(2);
        sk.rttvar_us = sk.mdev_us.max(rto_min);
        sk.mdev_max_us = sk.rttvar_us;
        sk.rtt_seq = sk.snd_nxt;
        return;
    }
    let mut m = i64::from(mrtt_us) - i64::from(sk.srtt_us >> 3);
    let srtt = i64::from(sk.srtt_us) + m;
    if m < 0 {
        // A falling RTT must not raise the deviation as fast as a rising one (Eifel).
        m = -m - i64::from(sk.mdev_us >> 2);
        if m > 0 {
            m >>= 3;
        }
    } else {
        m -= i64::from(sk.mdev_us >> 2);
    }
    sk.mdev_us = (i64::from(sk.mdev_us) + m) as u32;
    if sk.mdev_us > sk.mdev_max_us {
        sk.mdev_max_us = sk.mdev_us;
        sk.rttvar_us = sk.rttvar_us.max(sk.mdev_max_us);
    }
    if after(sk.snd_una, sk.rtt_seq) {
        if sk.mdev_max_us < sk.rttvar_us {
            sk.rttvar_us -= (sk.rttvar_us - sk.mdev_max_us) >> 2;
        }
        sk.rtt_seq = sk.snd_nxt;
        sk.mdev_max_us = rto_min;
    }
    sk.srtt_us = srtt.max(1) as u32;
}

/// RTO from the estimates, microseconds in whole jiffies, not yet bounded (Linux `__tcp_set_rto`).
#[must_use]
pub fn tcp_rto_estimate(sk: &TcpSock) -> u32 {
    round_up_to_jiffy_us(u64::from(sk.srtt_us >> 3) + u64::from(sk.rttvar_us)) as u32
}

/// Computes `rto_us`.
pub fn tcp_set_rto(sk: &mut TcpSock) {
    sk.rto_us = tcp_rto_estimate(sk).min(tcp_rto_max_us(sk));
}

/// RTT by the peer's echo of our timestamp: microseconds where timestamps count them, else whole milliseconds, `least` where
/// it is less than one; `None` when the echo is absurd.
#[must_use]
pub fn tcp_rtt_tsopt_us(sk: &TcpSock, now: Instant, least: u32) -> Option<u32> {
    let delta = tcp_time_stamp_ts(sk, now).wrapping_sub(sk.rcv_tsecr);
    if sk.tcp_usec_ts {
        return Some(delta);
    }
    (delta < i32::MAX as u32 / 1_000).then(|| delta.max(least) * 1_000)
}

/// Takes the best RTT sample that an ack offers; true when there was one. Negative arguments are absent samples
/// (Linux `tcp_ack_update_rtt`).
pub(crate) fn tcp_ack_update_rtt(
    sk: &mut TcpSock,
    cx: &Cx<'_, '_>,
    flag: AckFlag,
    seq_rtt_us: i64,
    sack_rtt_us: i64,
    ca_rtt_us: i64,
    rs: &mut RateSample,
) -> bool {
    let mut seq_rtt = if seq_rtt_us < 0 {
        sack_rtt_us
    } else {
        seq_rtt_us
    };
    let mut ca_rtt = ca_rtt_us;
    // Timestamps only where Karn's rule forbids the rest: a middlebox may spoil the echo.
    if seq_rtt < 0
        && sk.saw_tstamp
        && sk.rcv_tsecr != 0
        && flag.intersects(AckFlag::ACKED)
        && let Some(us) = tcp_rtt_tsopt_us(sk, cx.now, 1)
    {
        seq_rtt = i64::from(us);
        ca_rtt = seq_rtt;
    }
    rs.rtt_us = ca_rtt;
    if seq_rtt < 0 {
        return false;
    }
    tcp_update_rtt_min(sk, cx, ca_rtt.max(0) as u32, flag);
    tcp_rtt_estimator(sk, seq_rtt as u32);
    tcp_set_rto(sk);
    // RFC 6298 §5.7: only a valid sample ends the backoff.
    sk.backoff = 0;
    true
}

/// RTT of a passive handshake: from the SYN-ACK at `snt_synack` to the third ack. Where that was sent again, or there was
/// none, the echoed timestamp has to do.
pub fn tcp_synack_rtt_meas(sk: &mut TcpSock, cx: &Cx<'_, '_>, snt_synack: Option<Instant>) {
    let us = snt_synack.map_or(-1, |at| cx.now.us_since(at) as i64);
    let mut rs = RateSample::default();
    tcp_ack_update_rtt(sk, cx, AckFlag::SYN_ACKED, us, -1, us, &mut rs);
}

/// RTO of a connection whose handshake gave no sample and of whose peer none is known (RFC 6298 §5.7; Linux `tcp_init_metrics`).
pub(crate) fn tcp_rto_fallback(sk: &mut TcpSock) {
    if sk.srtt_us == 0 {
        sk.rttvar_us = TCP_TIMEOUT_FALLBACK_US;
        sk.mdev_us = TCP_TIMEOUT_FALLBACK_US;
        sk.mdev_max_us = TCP_TIMEOUT_FALLBACK_US;
        sk.rto_us = TCP_TIMEOUT_FALLBACK_US;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysctl::Sysctl;

    fn sock() -> TcpSock {
        TcpSock::new(false, 0, &Sysctl::default())
    }

    #[test]
    fn a_short_first_sample_gives_204_ms() {
        let mut sk = sock();
        tcp_rtt_estimator(&mut sk, 300);
        tcp_set_rto(&mut sk);
        assert_eq!(
            (sk.srtt_us, sk.mdev_us, sk.rttvar_us),
            (2_400, 600, 200_000)
        );
        assert_eq!(sk.rto_us, 204_000);
    }

    #[test]
    fn a_rising_rtt_raises_the_deviation_at_once() {
        let mut sk = sock();
        tcp_rtt_estimator(&mut sk, 100_000);
        assert_eq!((sk.srtt_us, sk.mdev_us), (800_000, 200_000));
        tcp_rtt_estimator(&mut sk, 500_000);
        // m = 400 ms: srtt += m / 8, mdev += m - mdev / 4.
        assert_eq!((sk.srtt_us, sk.mdev_us), (1_200_000, 550_000));
        assert_eq!(sk.rttvar_us, 550_000);
        tcp_set_rto(&mut sk);
        assert_eq!(sk.rto_us, 700_000);
    }

    #[test]
    fn a_falling_rtt_raises_it_slowly() {
        let mut sk = sock();
        tcp_rtt_estimator(&mut sk, 100_000);
        tcp_rtt_estimator(&mut sk, 20_000);
        // m = -80 ms: 80 - 50 = 30, an eighth of it counts.
        assert_eq!((sk.srtt_us, sk.mdev_us), (720_000, 203_750));
        tcp_rtt_estimator(&mut sk, 88_000);
        // Within the deviation: it shrinks.
        assert!(sk.mdev_us < 203_750);
    }

    #[test]
    fn the_variance_decays_once_a_window() {
        let mut sk = sock();
        tcp_rtt_estimator(&mut sk, 400_000);
        assert_eq!(sk.rttvar_us, 800_000);
        sk.snd_nxt = 1_000;
        sk.snd_una = 1;
        tcp_rtt_estimator(&mut sk, 400_000);
        assert_eq!((sk.rtt_seq, sk.mdev_max_us), (1_000, 200_000));
        sk.snd_una = 1_001;
        sk.snd_nxt = 2_000;
        let before = sk.rttvar_us;
        tcp_rtt_estimator(&mut sk, 400_000);
        assert!(sk.rttvar_us < before);
    }

    #[test]
    fn rto_is_bounded() {
        let mut sk = sock();
        sk.opts.rto_max_ms = 1_000;
        tcp_rtt_estimator(&mut sk, 900_000);
        tcp_set_rto(&mut sk);
        assert_eq!(sk.rto_us, 1_000_000);
    }

    #[test]
    fn minimum_ages_out_to_its_successor() {
        let mut m = MinRtt {
            s: [(Instant::ZERO, u32::MAX); 3],
        };
        let at = |s: u64| Instant(s * NSEC_PER_SEC);
        let win = 300 * NSEC_PER_SEC;
        minmax_running_min(&mut m, win, at(1), 100);
        minmax_running_min(&mut m, win, at(100), 150);
        assert_eq!(m.s[0].1, 100);
        minmax_running_min(&mut m, win, at(200), 140);
        minmax_running_min(&mut m, win, at(290), 160);
        assert_eq!(m.s[0].1, 100);
        minmax_running_min(&mut m, win, at(302), 170);
        assert_eq!(m.s[0].1, 140);
        minmax_running_min(&mut m, win, at(303), 90);
        assert_eq!(m.s[0].1, 90);
    }

    #[test]
    fn echoes_round_up_to_a_millisecond() {
        let mut sk = sock();
        let now = Instant(10 * NSEC_PER_SEC);
        sk.rcv_tsecr = tcp_time_stamp_ts(&sk, now);
        assert_eq!(tcp_rtt_tsopt_us(&sk, now, 1), Some(1_000));
        sk.rcv_tsecr = tcp_time_stamp_ts(&sk, now) - 7;
        assert_eq!(tcp_rtt_tsopt_us(&sk, now, 1), Some(7_000));
        sk.rcv_tsecr = tcp_time_stamp_ts(&sk, now) + 7;
        assert_eq!(tcp_rtt_tsopt_us(&sk, now, 1), None);
    }
}
