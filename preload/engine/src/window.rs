//! The window that we announce (Linux `tcp_select_window`, `tcp_select_initial_window`): it never shrinks, unless
//! `tcp_shrink_window` says so (TM-27 to TM-31).

use crate::init_sock::TCP_MSS_DEFAULT;
use crate::mib::Counter;
use crate::sock::{TcpSock, icsk_ack};
use crate::stack::Cx;
use crate::sysctl::Sysctl;
use crate::time::NSEC_PER_MSEC;

/// `TCP_ATO_MIN`: shortest predicted delay of an ack, nanoseconds.
pub const TCP_ATO_MIN_NS: u64 = 40 * NSEC_PER_MSEC;
/// Largest window without scaling that every TCP understands.
const MAX_TCP_WINDOW: u32 = 32_767;
/// Largest shift.
const TCP_MAX_WSCALE: u32 = 14;
/// Smallest segment that the estimate of the peer's MSS assumes.
pub(crate) const TCP_MIN_MSS: u32 = 88;

/// Window that `space` bytes of buffer allow; negative when the buffer is overdrawn (Linux `tcp_win_from_space`).
#[inline]
#[must_use]
pub fn tcp_win_from_space(sk: &TcpSock, space: i64) -> i32 {
    ((space * i64::from(sk.scaling_ratio)) >> 8) as i32
}

/// Window that the free part of the receive buffer allows.
#[inline]
#[must_use]
pub fn tcp_space(sk: &TcpSock) -> i32 {
    tcp_win_from_space(sk, i64::from(sk.rcvbuf) - i64::from(sk.rmem_alloc))
}

/// Window that the whole receive buffer allows.
#[inline]
#[must_use]
pub fn tcp_full_space(sk: &TcpSock) -> i32 {
    tcp_win_from_space(sk, i64::from(sk.rcvbuf))
}

/// What [`tcp_select_initial_window`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialWindow {
    /// Window of the SYN or SYN-ACK, bytes.
    pub rcv_wnd: u32,
    /// Bound of all later windows.
    pub window_clamp: u32,
    /// Shift.
    pub rcv_wscale: u8,
}

/// Window and shift to begin with, from `space` bytes of window and the segment size `mss`; `init_rcv_wnd` segments at most
/// when it is not 0.
#[must_use]
pub fn tcp_select_initial_window(
    sysctl: &Sysctl,
    space: i32,
    mss: u32,
    window_clamp: u32,
    wscale_ok: bool,
    init_rcv_wnd: u32,
) -> InitialWindow {
    let clamp = if window_clamp == 0 {
        u32::from(u16::MAX) << TCP_MAX_WSCALE
    } else {
        window_clamp
    };
    let mut space = (space.max(0) as u32).min(clamp);
    if mss > 0 && space > mss {
        space -= space % mss;
    }
    let rcv_wnd = if sysctl.tcp_workaround_signed_windows {
        space.min(MAX_TCP_WINDOW)
    } else {
        space
    };
    let rcv_wnd = match init_rcv_wnd {
        0 => rcv_wnd,
        segments => rcv_wnd.min(segments.saturating_mul(mss)),
    };
    let mut shift = 0;
    if wscale_ok {
        let largest = space
            .max(sysctl.tcp_rmem[2])
            .max(sysctl.rmem_max)
            .min(clamp);
        shift = largest
            .checked_ilog2()
            .unwrap_or(0)
            .saturating_sub(15)
            .min(TCP_MAX_WSCALE);
    }
    InitialWindow {
        rcv_wnd,
        window_clamp: clamp.min(u32::from(u16::MAX) << shift),
        rcv_wscale: shift as u8,
    }
}

/// First guess of the peer's segment size (Linux `tcp_initialize_rcv_mss`).
pub fn tcp_initialize_rcv_mss(sk: &mut TcpSock) {
    sk.ack.rcv_mss = u32::from(sk.advmss)
        .min(sk.mss_cache)
        .min(sk.rcv_wnd / 2)
        .clamp(TCP_MIN_MSS, TCP_MSS_DEFAULT);
}

const fn align_down(v: i32, shift: u8) -> i32 {
    v >> shift << shift
}

const fn align_up(v: i32, shift: u8) -> i32 {
    align_down(v + (1 << shift) - 1, shift)
}

/// The window that the buffer allows now, in bytes (Linux `__tcp_select_window`).
#[must_use]
pub fn tcp_window_by_space(sk: &mut TcpSock, sysctl: &Sysctl) -> u32 {
    let allowed = tcp_full_space(sk);
    let mut free = tcp_space(sk);
    let full = allowed.min(sk.window_clamp.min(i32::MAX as u32) as i32);
    let mut mss = sk.ack.rcv_mss as i32;
    if mss > full {
        mss = full;
        if mss <= 0 {
            return 0;
        }
    }
    let shift = sk.rcv_wscale;
    let ssthresh = sk.rcv_ssthresh.min(i32::MAX as u32) as i32;
    if sysctl.tcp_shrink_window && shift > 0 {
        free = align_down(free, shift);
        if free < full >> 1 {
            sk.ack.quick = 0;
            if free < allowed >> 4 || free < mss || free < 1 << shift {
                return 0;
            }
        }
        if free > ssthresh {
            free = align_up(ssthresh, shift);
        }
        return free.max(0) as u32;
    }
    if free < full >> 1 {
        sk.ack.quick = 0;
        // A window that rounding made larger than the buffer would cost data.
        free = align_down(free, shift);
        if free < allowed >> 4 || free < mss {
            return 0;
        }
    }
    free = free.min(ssthresh);
    if shift > 0 {
        // Rounded up: a small window must not vanish in the shift.
        return align_up(free, shift).max(0) as u32;
    }
    let mut window = sk.rcv_wnd as i32;
    if window <= free - mss || window > free {
        window = free / mss * mss;
    } else if mss == full && free > window + (full >> 1) {
        window = free;
    }
    window.max(0) as u32
}

/// Chooses the window of the next segment and notes it as announced; returns the header field (scaled).
#[inline]
pub fn tcp_select_window(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> u16 {
    let old = sk.rcv_wnd;
    // Data had to be dropped for memory: the peer shall stop at once.
    if sk.ack.pending & icsk_ack::NOMEM != 0 {
        sk.rcv_wnd = 0;
        sk.rcv_wup = sk.rcv_nxt;
        return 0;
    }
    let current = sk.receive_window();
    let mut window = tcp_window_by_space(sk, &cx.sh.sysctl);
    if window < current && !(cx.sh.sysctl.tcp_shrink_window && sk.rcv_wscale > 0) {
        window = current.next_multiple_of(1 << u32::from(sk.rcv_wscale));
    }
    sk.rcv_wnd = window;
    sk.rcv_wup = sk.rcv_nxt;
    let largest = if sk.rcv_wscale == 0 && cx.sh.sysctl.tcp_workaround_signed_windows {
        MAX_TCP_WINDOW
    } else {
        u32::from(u16::MAX) << u32::from(sk.rcv_wscale)
    };
    let field = window.min(largest) >> u32::from(sk.rcv_wscale);
    if field == 0 && old > 0 {
        cx.sh.mib.inc(Counter::TCPToZeroWindowAdv);
    } else if field > 0 && old == 0 {
        cx.sh.mib.inc(Counter::TCPFromZeroWindowAdv);
    }
    field as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial(rcvbuf: u32, mss: u32, clamp: u32) -> InitialWindow {
        let sysctl = Sysctl {
            tcp_rmem: [4096, 131_072, 6_291_456],
            ..Sysctl::default()
        };
        let mut sk = TcpSock::new(false, 0, &sysctl);
        sk.rcvbuf = rcvbuf;
        tcp_select_initial_window(&sysctl, tcp_full_space(&sk), mss, clamp, true, 0)
    }

    /// TM-27, TM-29.
    #[test]
    fn syn_windows() {
        assert_eq!(initial(131_072, 1_460, 0).rcv_wnd, 64_240);
        assert_eq!(initial(20_000, 1_460, 0).rcv_wnd, 8_760);
        assert_eq!(initial(8_192, 1_460, 0).rcv_wnd, 2_920);
        assert_eq!(initial(4_608, 1_460, 0).rcv_wnd, 1_460);
        assert_eq!(initial(131_072, 1_460, 5_000).rcv_wnd, 4_380);
    }

    /// TM-28: with a fixed buffer the clamp is its window.
    #[test]
    fn window_scales() {
        assert_eq!(initial(131_072, 1_460, 0).rcv_wscale, 7);
        for (rcvbuf, shift) in [(131_072, 1), (400_000, 2), (2_000_000, 4), (65_536, 0)] {
            assert_eq!(initial(rcvbuf, 1_460, rcvbuf / 2).rcv_wscale, shift);
        }
    }

    fn open(shift: u8) -> TcpSock {
        let mut sk = TcpSock::new(false, 0, &Sysctl::default());
        sk.window_clamp = 65_535 << 7;
        sk.rcv_ssthresh = 64_240;
        sk.rcv_wnd = 64_240;
        sk.rcv_wscale = shift;
        sk.ack.rcv_mss = 1_460;
        sk
    }

    #[test]
    fn an_unscaled_window_is_whole_segments() {
        let mut sk = open(0);
        sk.rmem_alloc = 40_000;
        // 45536 of window are free: 31 segments.
        assert_eq!(tcp_window_by_space(&mut sk, &Sysctl::default()), 45_260);
    }

    #[test]
    fn a_scaled_window_rounds_up() {
        let mut sk = open(7);
        sk.rmem_alloc = 40_000;
        assert_eq!(
            tcp_window_by_space(&mut sk, &Sysctl::default()),
            45_536u32.next_multiple_of(128)
        );
    }

    #[test]
    fn little_space_means_none() {
        let mut sk = open(7);
        sk.rmem_alloc = 131_072 - 8_000;
        assert_eq!(tcp_window_by_space(&mut sk, &Sysctl::default()), 0);
        sk.rmem_alloc = 200_000;
        assert_eq!(tcp_window_by_space(&mut sk, &Sysctl::default()), 0);
    }
}
