//! What the head of a script sets: sysctls and `--name=value` options.

use std::net::Ipv4Addr;

use sidewire_engine::sysctl::Sysctl;

use super::ast::Script;
use crate::host::HostConfig;

/// Address of the host under test.
pub const LOCAL_ADDR: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
/// Address that the script speaks for.
pub const REMOTE_ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Port of `bind(3, ..., ...)` and `connect(3, ..., ...)`.
pub const PORT: u16 = 8080;
/// How far a time may be off, microseconds, when the script does not say: one jiffy.
pub const DEFAULT_TOLERANCE_US: u64 = 4_000;

/// A script's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host under test.
    pub host: HostConfig,
    /// How far a time may be off, microseconds.
    pub tolerance_us: u64,
}

impl Settings {
    /// Reads the head of `script`.
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub fn of(script: &Script) -> Result<Self, (usize, String)> {
        let mut settings = Self {
            host: HostConfig {
                addr: LOCAL_ADDR,
                mtu: 1500,
                gso_max_segs: 65_535,
                sysctl: Sysctl::default(),
                seed: 1,
            },
            tolerance_us: DEFAULT_TOLERANCE_US,
        };
        for (line, name, value) in &script.options {
            settings
                .option(name, value)
                .map_err(|message| (*line, message))?;
        }
        for (line, name, value) in &script.sysctls {
            sysctl(&mut settings.host.sysctl, name, value).map_err(|message| (*line, message))?;
        }
        Ok(settings)
    }

    fn option(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number: u64 = value
            .parse()
            .map_err(|_| format!("`{value}` is not a number"))?;
        match name {
            "mtu" => self.host.mtu = number as u32,
            "gso_max_segs" => self.host.gso_max_segs = number as u16,
            "seed" => self.host.seed = number,
            "tolerance_usecs" => self.tolerance_us = number,
            _ => return Err(format!("unknown option `--{name}`")),
        }
        Ok(())
    }
}

fn sysctl(sysctl: &mut Sysctl, name: &str, value: &str) -> Result<(), String> {
    let numbers: Vec<u64> = value
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    macro_rules! set {
        ($($number:ident)*; $($flag:ident)*; $($triple:ident)*; $($text:ident)*) => {
            match (name, numbers.as_slice()) {
                $((stringify!($number), [n]) => {
                    let n = *n;
                    sysctl.$number = n.try_into().map_err(|_| format!("{n} is out of range"))?;
                })*
                $((stringify!($flag), [n]) => sysctl.$flag = *n != 0,)*
                $((stringify!($triple), [a, b, c]) => {
                    sysctl.$triple = [*a as u32, *b as u32, *c as u32];
                })*
                $((stringify!($text), _) => sysctl.$text = value.into(),)*
                _ => return Err(format!("unknown setting `{name}={value}`")),
            }
        };
    }
    set!(
        rmem_max wmem_max somaxconn tcp_max_syn_backlog tcp_notsent_lowat tcp_limit_output_bytes
        tcp_min_tso_segs tcp_tso_win_divisor tcp_timestamps tcp_ecn tcp_early_retrans tcp_recovery
        tcp_reordering tcp_max_reordering tcp_frto tcp_syn_retries tcp_synack_retries
        tcp_syn_linear_timeouts tcp_retries1 tcp_retries2 tcp_orphan_retries tcp_rto_min_us
        tcp_rto_max_ms tcp_fin_timeout_s tcp_keepalive_time_s tcp_keepalive_intvl_s
        tcp_keepalive_probes tcp_invalid_ratelimit_ms tcp_challenge_ack_limit tcp_min_snd_mss
        tcp_mtu_probing tcp_base_mss tcp_mtu_probe_floor tcp_probe_threshold tcp_probe_interval_s
        tcp_comp_sack_delay_ns tcp_comp_sack_nr tcp_fastopen tcp_pingpong_thresh ip_default_ttl
        tcp_tw_reuse_delay_ms tcp_min_rtt_wlen_s tcp_app_win;
        tcp_autocorking tcp_sack tcp_dsack tcp_window_scaling tcp_slow_start_after_idle
        tcp_shrink_window tcp_moderate_rcvbuf tcp_stdurg tcp_rfc1337 tcp_abort_on_overflow
        tcp_ecn_fallback tcp_reflect_tos;
        tcp_wmem tcp_rmem;
        tcp_congestion_control tcp_allowed_congestion_control
        tcp_available_congestion_control
    );
    Ok(())
}
