//! Transfers over bad networks. `SIDEWIRE_SIM_SEED=n` runs that seed alone; `SIDEWIRE_LONG=1`, as
//! `make check-long` sets it, runs many more seeds.

use sidewire_engine::time::NSEC_PER_MSEC;
use sidewire_testkit::sim::network::LinkConfig;
use sidewire_testkit::sim::program::ProgramConfig;
use sidewire_testkit::sim::{Profile, Summary, run};

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
