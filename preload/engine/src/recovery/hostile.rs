//! Peers that ack and SACK what they like, devices that refuse frames, paths that change: whatever comes, the counters
//! stay those of the queue (the bench checks them after each step).

use super::*;
use crate::net::TxVerdict;
use crate::testbench::{Bench, MSS};
use crate::timer::TimerOutcome;
use sidewire_uapi::TcpState;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % u64::from(n.max(1))) as u32
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

/// A point in or around what is in flight, on a segment boundary more often than not.
fn point(b: &Bench, rng: &mut Rng) -> u32 {
    let acked = b.sk.snd_una.wrapping_sub(b.base);
    let flight = b.sk.snd_nxt.wrapping_sub(b.sk.snd_una);
    let at = acked.wrapping_add(rng.below(flight + 2 * MSS));
    match rng.below(8) {
        0 => at.wrapping_sub(rng.below(5 * MSS)),
        1..=5 => at / MSS * MSS,
        _ => at,
    }
}

fn ack(b: &mut Bench, rng: &mut Rng) {
    let acked = b.sk.snd_una.wrapping_sub(b.base);
    let n = if rng.below(3) == 0 {
        point(b, rng)
    } else {
        acked
    };
    let mut blocks = alloc::vec::Vec::new();
    for _ in 0..rng.below(5) {
        let start = point(b, rng);
        let end = if rng.below(10) == 0 {
            point(b, rng)
        } else {
            start.wrapping_add((1 + rng.below(12)) * MSS)
        };
        blocks.push((start, end));
    }
    let window = match rng.below(12) {
        0 => 0,
        1 => rng.below(30),
        _ => 7_000,
    };
    let mut seg = b.segment(n, &blocks, window as u16);
    if rng.below(4) == 0 {
        seg.gso_segs = 1 + rng.below(20);
    }
    b.sk.saw_tstamp = b.sk.tstamp_ok;
    b.sk.rcv_tsecr = tcp_time_stamp(b.now).wrapping_sub(rng.below(60));
    b.take(&seg);
}

fn step(b: &mut Bench, rng: &mut Rng) -> bool {
    match rng.below(20) {
        0..=3 => {
            if b.sk.wmem_queued < 2_000_000 && b.sk.state == TcpState::Established {
                let n = rng.pick(&[1, 100, MSS, 5 * MSS, 60 * MSS]);
                b.write_with(n, rng.pick(&[0, 1, 2]));
            }
        }
        4..=13 => ack(b, rng),
        14..=15 => b.after_ms(u64::from(rng.below(30))),
        16 => {
            let verdict = rng.pick(&[
                TxVerdict::Sent,
                TxVerdict::Sent,
                TxVerdict::Dropped,
                TxVerdict::NoSpace,
                TxVerdict::Copied,
                TxVerdict::Unreachable,
                TxVerdict::DeviceGone,
            ]);
            b.verdict(verdict);
        }
        17 => {
            b.verdict(TxVerdict::Sent);
            b.with(crate::output::tcp_tx_space);
        }
        18 if rng.below(4) == 0 => {
            let mtu = rng.pick(&[600, 1_000, MSS + 40, 9_000]);
            b.mtu(mtu);
            b.with(tcp_simple_retransmit);
        }
        18 if rng.below(20) == 0 && b.sk.state == TcpState::Established => {
            b.sk.state = TcpState::FinWait1;
            b.with(crate::output::tcp_send_fin);
        }
        _ => {
            if b.sk.timers.earliest() != Instant::NEVER && b.fire().0 != TimerOutcome::Alive {
                return false;
            }
        }
    }
    b.sent();
    true
}

fn run(seed: u64, sack: bool, tstamp: bool) {
    run_with(seed, sack, tstamp, |_, _| {});
}

fn run_with(seed: u64, sack: bool, tstamp: bool, prepare: fn(&mut Bench, &mut Rng)) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut b = if sack { Bench::new() } else { Bench::reno() };
    b.sk.tstamp_ok = tstamp;
    b.sk.snd_cwnd = 10 + rng.below(60);
    if rng.below(4) == 0 {
        b.sk.opts.pacing_needed = true;
        b.sk.opts.max_pacing_rate = 5_000_000;
    }
    prepare(&mut b, &mut rng);
    for _ in 0..400 {
        if !step(&mut b, &mut rng) {
            break;
        }
        assert!(b.sk.snd_cwnd >= 1);
        assert!(b.sk.rto_us >= 200_000 && b.sk.rto_us <= 120_000_000);
        // Whatever is in flight or unsent has somebody who looks after it.
        if b.sk.packets_out > 0 {
            assert!(
                b.sk.icsk_pending != IcskPending::None,
                "in flight without a timer, seed {seed}"
            );
        }
    }
}

#[test]
fn with_sack() {
    for seed in 1..120 {
        run(seed, true, seed % 2 == 0);
    }
}

/// A peer that acks at will feeds BBR's model with nonsense.
#[test]
fn with_bbr() {
    for seed in 1..120 {
        run_with(seed, seed % 3 != 0, seed % 2 == 0, |b, rng| {
            b.sk.ca = cong::CongestionControl::Bbr(None);
            let cwnd = 4 + rng.below(60);
            b.with(|sk, cx| {
                sk.snd_cwnd = cwnd;
                cong::init(sk, cx);
            });
            assert!(b.sk.pacing_rate > 0);
        });
    }
}

#[test]
fn without_sack() {
    for seed in 1..120 {
        run(seed, false, seed % 2 == 0);
    }
}
