//! Transfers over bad networks. `SIDEWIRE_SIM_SEED=n` runs that seed alone; `SIDEWIRE_LONG=1`, as
//! `make check-long` sets it, runs many more seeds.

use sidewire_engine::cong;
use sidewire_engine::time::{NSEC_PER_MSEC, NSEC_PER_SEC};
use sidewire_testkit::sim::network::LinkConfig;
use sidewire_testkit::sim::program::ProgramConfig;
use sidewire_testkit::sim::{Profile, Summary, run, watch};

const RUNS: u64 = 4;
const LONG_RUNS: u64 = 100;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {value}")),
    )
}

fn run_all(profile: &Profile) -> Vec<Summary> {
    match number("SIDEWIRE_SIM_SEED") {
        Some(seed) => vec![run(profile, seed)],
        None => {
            let runs = if number("SIDEWIRE_LONG").is_some() {
                LONG_RUNS
            } else {
                RUNS
            };
            (1..=runs).map(|seed| run(profile, seed)).collect()
        }
    }
}

/// The transfers take at most `ms` of virtual time in the mean: what recovery by timeouts alone would miss by far. One
/// seed by itself may take longer.
fn assert_mean_below(ms: u64, summaries: &[Summary]) {
    let total: u64 = summaries
        .iter()
        .map(|s| s.transfer_ns / NSEC_PER_MSEC)
        .sum();
    let mean = total / summaries.len() as u64;
    assert!(
        mean < ms || summaries.len() == 1,
        "mean transfer time {mean} ms"
    );
}

fn both_ways(link: LinkConfig) -> Profile {
    Profile {
        forth: link.clone(),
        back: link,
        ..Profile::default()
    }
}

#[test]
fn quiet() {
    for summary in run_all(&Profile::default()) {
        assert_eq!(summary.disturbed, 0);
        assert_eq!(summary.retransmitted, 0, "nothing was lost");
    }
}

#[test]
fn one_percent_loss() {
    assert_mean_below(
        400,
        &run_all(&both_ways(LinkConfig {
            loss: 10_000,
            ..LinkConfig::default()
        })),
    );
}

#[test]
fn ten_percent_loss() {
    let mut profile = both_ways(LinkConfig {
        loss: 100_000,
        ..LinkConfig::default()
    });
    profile.client.sends = 100_000;
    assert_mean_below(4000, &run_all(&profile));
}

#[test]
fn reordering() {
    assert_mean_below(
        250,
        &run_all(&both_ways(LinkConfig {
            reorder: 100_000,
            ..LinkConfig::default()
        })),
    );
}

#[test]
fn duplicates() {
    assert_mean_below(
        200,
        &run_all(&both_ways(LinkConfig {
            duplicate: 100_000,
            ..LinkConfig::default()
        })),
    );
}

#[test]
fn corruption() {
    assert_mean_below(
        700,
        &run_all(&both_ways(LinkConfig {
            corrupt: 20_000,
            ..LinkConfig::default()
        })),
    );
}

#[test]
fn everything_at_once_in_both_directions() {
    let link = LinkConfig {
        loss: 20_000,
        duplicate: 20_000,
        reorder: 50_000,
        corrupt: 5_000,
        ..LinkConfig::default()
    };
    let mut profile = both_ways(link);
    profile.server.sends = 200_000;
    run_all(&profile);
}

#[test]
fn slow_link_with_a_short_queue() {
    let link = LinkConfig {
        rate: 1_250_000,
        queue: 20_000,
        ..LinkConfig::default()
    };
    for summary in run_all(&both_ways(link)) {
        assert!(summary.disturbed > 0, "slow start overruns such a queue");
    }
}

#[test]
fn slow_reader() {
    let server = ProgramConfig {
        read_max: 3_000,
        read_pause_ns: 20 * NSEC_PER_MSEC,
        rcvbuf: Some(10_000),
        ..ProgramConfig::default()
    };
    let mut profile = Profile {
        server,
        ..Profile::default()
    };
    profile.client.sends = 150_000;
    run_all(&profile);
}

#[test]
fn slow_reader_with_loss() {
    let link = LinkConfig {
        loss: 30_000,
        ..LinkConfig::default()
    };
    let mut profile = both_ways(link);
    profile.server = ProgramConfig {
        read_max: 3_000,
        read_pause_ns: 30 * NSEC_PER_MSEC,
        rcvbuf: Some(6_000),
        ..ProgramConfig::default()
    };
    profile.client.sends = 100_000;
    run_all(&profile);
}

#[test]
fn small_send_buffer() {
    let mut profile = Profile::default();
    profile.client.sndbuf = Some(2_304);
    profile.client.sends = 100_000;
    run_all(&profile);
}

#[test]
fn small_writes_both_ways() {
    let mut profile = both_ways(LinkConfig {
        loss: 10_000,
        ..LinkConfig::default()
    });
    let program = ProgramConfig {
        sends: 30_000,
        write_max: 300,
        ..ProgramConfig::default()
    };
    (profile.client, profile.server) = (program.clone(), program);
    assert_mean_below(150, &run_all(&profile));
}

#[test]
fn small_mtu() {
    let mut profile = both_ways(LinkConfig {
        loss: 10_000,
        ..LinkConfig::default()
    });
    profile.mtu = 576;
    run_all(&profile);
}

#[test]
fn jumbo_frames() {
    let mut profile = both_ways(LinkConfig {
        loss: 10_000,
        ..LinkConfig::default()
    });
    profile.mtu = 9_000;
    profile.client.sends = 2_000_000;
    run_all(&profile);
}

#[test]
fn without_options() {
    let mut profile = both_ways(LinkConfig {
        loss: 20_000,
        ..LinkConfig::default()
    });
    profile.sysctl.tcp_sack = false;
    profile.sysctl.tcp_timestamps = 0;
    profile.sysctl.tcp_window_scaling = false;
    assert_mean_below(1000, &run_all(&profile));
}

#[test]
fn reno() {
    let mut profile = both_ways(LinkConfig {
        loss: 20_000,
        ..LinkConfig::default()
    });
    profile.sysctl.tcp_congestion_control = "reno".into();
    run_all(&profile);
}

/// A path of 40 ms that carries `rate` bytes a second, with a queue of a megabyte.
fn bottleneck(congestion: &str, rate: u64, loss: u32) -> Profile {
    let link = LinkConfig {
        delay_ns: 20 * NSEC_PER_MSEC,
        rate,
        loss,
        ..LinkConfig::default()
    };
    let back = LinkConfig {
        rate: 0,
        loss: 0,
        ..link.clone()
    };
    let mut profile = Profile {
        forth: link,
        back,
        ..Profile::default()
    };
    profile.sysctl.tcp_congestion_control = congestion.into();
    profile
}

/// Segments in flight in the mean, from the second second on.
#[derive(Default)]
struct MeanFlight {
    last_ns: u64,
    segs: u64,
    segs_ns: u64,
    ns: u64,
}

impl MeanFlight {
    fn look(&mut self, now_ns: u64, segs: u32) {
        if self.last_ns > NSEC_PER_SEC {
            self.segs_ns += self.segs * (now_ns - self.last_ns);
            self.ns += now_ns - self.last_ns;
        }
        (self.last_ns, self.segs) = (now_ns, segs.into());
    }

    fn mean(&self) -> u64 {
        self.segs_ns / self.ns
    }
}

#[test]
fn bbr_fills_a_link_and_not_its_queue() {
    // 1.25 MB/s: the path itself holds 50 kB, 34 segments.
    let mut flights = [0; 2];
    for (n, name) in ["bbr", "cubic"].iter().enumerate() {
        let mut profile = bottleneck(name, 1_250_000, 0);
        profile.client.sends = 5_000_000;
        let mut flight = MeanFlight::default();
        let summary = watch(&profile, 1, &mut |now, sk| {
            flight.look(now, sk.packets_in_flight());
        });
        // 4 s at the link's rate without headers.
        let ms = summary.transfer_ns / NSEC_PER_MSEC;
        assert!(ms < 4_700, "{name}: {ms} ms");
        flights[n] = flight.mean();
    }
    let [bbr, cubic] = flights;
    assert!((30..60).contains(&bbr), "{bbr} segments in flight");
    assert!(cubic > 2 * bbr, "cubic has {cubic} in flight, bbr {bbr}");
}

#[test]
fn bbr_keeps_its_rate_where_losses_are_random() {
    let time = |name, loss| {
        let mut profile = bottleneck(name, 5_000_000, loss);
        profile.client.sends = 4_000_000;
        run(&profile, 3).transfer_ns / NSEC_PER_MSEC
    };
    for loss in [10_000, 20_000] {
        let (bbr, cubic) = (time("bbr", loss), time("cubic", loss));
        assert!(
            bbr < 1_300,
            "{bbr} ms with {loss} ppm, 0.8 s at the link's rate"
        );
        assert!(cubic > 4 * bbr, "cubic takes {cubic} ms, bbr {bbr}");
    }
}

#[test]
fn bbr_looks_for_the_round_trip_time_every_ten_seconds() {
    let mut profile = bottleneck("bbr", 250_000, 0);
    profile.client.sends = 5_600_000;
    let mut begun = Vec::new();
    let mut inside = 0;
    let (mut was, mut since) = (false, 0);
    let summary = watch(&profile, 2, &mut |now, sk| {
        let [.., min_rtt, pacing_gain, cwnd_gain] = cong::info(sk).expect("BBR's model");
        // A connection that has sent nothing yet shows these gains too.
        let probing = sk.info.bytes_acked > 1 && (pacing_gain, cwnd_gain) == (256, 256);
        if probing {
            assert!(sk.snd_cwnd <= 4, "{} segments", sk.snd_cwnd);
        } else if now > 3 * NSEC_PER_SEC {
            assert!(sk.snd_cwnd >= 4);
            assert!((40_000..60_000).contains(&min_rtt), "{min_rtt} us");
        }
        assert!(sk.pacing_rate > 0);
        if probing && !was {
            begun.push(now / NSEC_PER_SEC);
        }
        inside += if was { now - since } else { 0 };
        (was, since) = (probing, now);
    });
    assert!((1..=2).contains(&begun.len()), "{begun:?}");
    assert!((10..=20).contains(&begun[0]), "{begun:?}");
    let each = inside / begun.len() as u64 / NSEC_PER_MSEC;
    assert!((200..400).contains(&each), "{each} ms in PROBE_RTT");
    let ms = summary.transfer_ns / NSEC_PER_MSEC;
    assert!(ms < 26_000, "{ms} ms, 22.4 s at the link's rate");
}

#[test]
fn bbr_with_loss_and_reordering_frozen_on_the_way() {
    let mut profile = both_ways(LinkConfig {
        loss: 20_000,
        reorder: 20_000,
        rate: 5_000_000,
        ..LinkConfig::default()
    });
    profile.sysctl.tcp_congestion_control = "bbr".into();
    profile.server.sends = 200_000;
    profile.client.freeze = 10_000;
    profile.server.freeze = 10_000;
    assert_mean_below(1000, &run_all(&profile));
}

#[test]
fn bbr_on_a_slow_link_with_a_short_queue() {
    let mut profile = both_ways(LinkConfig {
        rate: 1_250_000,
        queue: 20_000,
        ..LinkConfig::default()
    });
    profile.sysctl.tcp_congestion_control = "bbr".into();
    assert_mean_below(500, &run_all(&profile));
}

#[test]
fn bbr_with_many_connections() {
    let mut profile = both_ways(LinkConfig {
        loss: 10_000,
        rate: 12_500_000,
        queue: 200_000,
        ..LinkConfig::default()
    });
    profile.sysctl.tcp_congestion_control = "bbr".into();
    profile.connections = 20;
    profile.client.sends = 50_000;
    run_all(&profile);
}

#[test]
fn frozen_and_thawed_on_the_way() {
    let mut profile = both_ways(LinkConfig {
        loss: 10_000,
        ..LinkConfig::default()
    });
    profile.server.sends = 200_000;
    profile.client.freeze = 50_000;
    profile.server.freeze = 50_000;
    run_all(&profile);
}

#[test]
fn device_without_room() {
    let mut profile = both_ways(LinkConfig {
        loss: 5_000,
        ..LinkConfig::default()
    });
    profile.no_space = 100_000;
    assert_mean_below(500, &run_all(&profile));
}

#[test]
fn queueing_discipline_that_drops() {
    let profile = Profile {
        dropped: 20_000,
        ..Profile::default()
    };
    run_all(&profile);
}

#[test]
fn path_with_a_smaller_mtu() {
    let forth = LinkConfig {
        mtu: 1_300,
        ..LinkConfig::default()
    };
    assert_mean_below(
        250,
        &run_all(&Profile {
            forth,
            ..Profile::default()
        }),
    );
}

#[test]
fn without_receive_offload() {
    let mut profile = both_ways(LinkConfig {
        loss: 10_000,
        ..LinkConfig::default()
    });
    profile.gro = false;
    assert_mean_below(400, &run_all(&profile));
}

#[test]
fn many_connections_at_once() {
    let link = LinkConfig {
        loss: 10_000,
        reorder: 20_000,
        rate: 12_500_000,
        queue: 200_000,
        ..LinkConfig::default()
    };
    let mut profile = both_ways(link);
    profile.connections = 40;
    profile.client.sends = 20_000;
    profile.server.sends = 20_000;
    run_all(&profile);
}
