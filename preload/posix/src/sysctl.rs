//! Reads the namespace's settings (`/proc/sys/net`), so that the engine behaves as the host's own TCP is told to.

use core::ffi::CStr;
use core::str::FromStr;

use sidewire_engine::sysctl::Sysctl;

use crate::syscall;

/// Longest setting that is read, in bytes (the lists of congestion controls are the longest).
const MAX_TEXT: usize = 512;

/// The text of a setting; `None` where the kernel does not have it.
fn text<'a>(name: &str, buf: &'a mut [u8; MAX_TEXT]) -> Option<&'a str> {
    let mut path = [0u8; 128];
    let prefix = b"/proc/sys/net/";
    path[..prefix.len()].copy_from_slice(prefix);
    path.get_mut(prefix.len()..prefix.len() + name.len())?
        .copy_from_slice(name.as_bytes());
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let bytes = syscall::read_file(path, buf).ok()?;
    core::str::from_utf8(bytes).ok().map(str::trim)
}

fn number<T: FromStr>(name: &str, into: &mut T) {
    if let Some(n) = text(name, &mut [0; MAX_TEXT]).and_then(|t| t.parse().ok()) {
        *into = n;
    }
}

fn flag(name: &str, into: &mut bool) {
    let mut n = i64::from(*into);
    number(name, &mut n);
    *into = n != 0;
}

/// Kernel numbers that may be negative where the engine wants "no limit".
fn unsigned(name: &str, into: &mut u32) {
    let mut n = i64::from(*into);
    number(name, &mut n);
    *into = u32::try_from(n).unwrap_or(u32::MAX);
}

fn triple(name: &str, into: &mut [u32; 3]) {
    let mut buf = [0; MAX_TEXT];
    let Some(t) = text(name, &mut buf) else {
        return;
    };
    for (slot, word) in into.iter_mut().zip(t.split_ascii_whitespace()) {
        if let Ok(n) = word.parse() {
            *slot = n;
        }
    }
}

/// `net.ipv4.ip_local_port_range` as it is now: where the ports of connect(2) come from (ER-42).
#[must_use]
pub(crate) fn local_port_range() -> core::ops::RangeInclusive<u16> {
    let mut buf = [0; MAX_TEXT];
    let text = text("ipv4/ip_local_port_range", &mut buf).unwrap_or_default();
    let mut ports = text.split_ascii_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(low)), Some(Ok(high))) => low..=high,
        _ => 32_768..=60_999,
    }
}

/// The bytes of `tcp_fastopen_key`: one or two keys, each four numbers of 32 bits in hexadecimal; none while it is all zeros,
/// which says that it is not set.
fn fastopen_keys(text: &str) -> Vec<u8> {
    let key = |text: &str| -> Option<Vec<u8>> {
        let words = text.split('-').map(|word| u32::from_str_radix(word, 16));
        let words: Vec<u32> = words.collect::<Result<_, _>>().ok()?;
        let whole = words.len() == 4 && words.iter().any(|word| *word != 0);
        whole.then(|| words.into_iter().flat_map(u32::to_le_bytes).collect())
    };
    text.split(',').map_while(key).flatten().collect()
}

/// The settings of the calling thread's network namespace; stock values where one cannot be read.
#[must_use]
pub(crate) fn read() -> Sysctl {
    let mut s = Sysctl::default();
    triple("ipv4/tcp_wmem", &mut s.tcp_wmem);
    triple("ipv4/tcp_rmem", &mut s.tcp_rmem);
    number("core/rmem_max", &mut s.rmem_max);
    number("core/wmem_max", &mut s.wmem_max);
    number("core/optmem_max", &mut s.optmem_max);
    number("core/somaxconn", &mut s.somaxconn);
    flag("core/tstamp_allow_data", &mut s.tstamp_allow_data);
    number("ipv4/tcp_max_syn_backlog", &mut s.tcp_max_syn_backlog);
    unsigned("ipv4/tcp_notsent_lowat", &mut s.tcp_notsent_lowat);
    flag("ipv4/tcp_autocorking", &mut s.tcp_autocorking);
    number("ipv4/tcp_limit_output_bytes", &mut s.tcp_limit_output_bytes);
    number("ipv4/tcp_min_tso_segs", &mut s.tcp_min_tso_segs);
    number("ipv4/tcp_tso_rtt_log", &mut s.tcp_tso_rtt_log);
    number("ipv4/tcp_tso_win_divisor", &mut s.tcp_tso_win_divisor);
    number("ipv4/tcp_timestamps", &mut s.tcp_timestamps);
    flag("ipv4/tcp_sack", &mut s.tcp_sack);
    flag("ipv4/tcp_dsack", &mut s.tcp_dsack);
    flag("ipv4/tcp_window_scaling", &mut s.tcp_window_scaling);
    number("ipv4/tcp_ecn", &mut s.tcp_ecn);
    flag("ipv4/tcp_ecn_fallback", &mut s.tcp_ecn_fallback);
    number("ipv4/tcp_early_retrans", &mut s.tcp_early_retrans);
    number("ipv4/tcp_recovery", &mut s.tcp_recovery);
    number("ipv4/tcp_reordering", &mut s.tcp_reordering);
    number("ipv4/tcp_max_reordering", &mut s.tcp_max_reordering);
    number("ipv4/tcp_frto", &mut s.tcp_frto);
    number("ipv4/tcp_syn_retries", &mut s.tcp_syn_retries);
    number("ipv4/tcp_synack_retries", &mut s.tcp_synack_retries);
    number(
        "ipv4/tcp_syn_linear_timeouts",
        &mut s.tcp_syn_linear_timeouts,
    );
    number("ipv4/tcp_retries1", &mut s.tcp_retries1);
    number("ipv4/tcp_retries2", &mut s.tcp_retries2);
    number("ipv4/tcp_orphan_retries", &mut s.tcp_orphan_retries);
    number("ipv4/tcp_rto_min_us", &mut s.tcp_rto_min_us);
    number("ipv4/tcp_rto_max_ms", &mut s.tcp_rto_max_ms);
    number("ipv4/tcp_fin_timeout", &mut s.tcp_fin_timeout_s);
    number("ipv4/tcp_keepalive_time", &mut s.tcp_keepalive_time_s);
    number("ipv4/tcp_keepalive_intvl", &mut s.tcp_keepalive_intvl_s);
    number("ipv4/tcp_keepalive_probes", &mut s.tcp_keepalive_probes);
    number(
        "ipv4/tcp_invalid_ratelimit",
        &mut s.tcp_invalid_ratelimit_ms,
    );
    unsigned(
        "ipv4/tcp_challenge_ack_limit",
        &mut s.tcp_challenge_ack_limit,
    );
    number("ipv4/tcp_min_snd_mss", &mut s.tcp_min_snd_mss);
    number("ipv4/tcp_mtu_probing", &mut s.tcp_mtu_probing);
    number("ipv4/tcp_base_mss", &mut s.tcp_base_mss);
    number("ipv4/tcp_mtu_probe_floor", &mut s.tcp_mtu_probe_floor);
    number("ipv4/tcp_probe_threshold", &mut s.tcp_probe_threshold);
    number("ipv4/tcp_probe_interval", &mut s.tcp_probe_interval_s);
    flag(
        "ipv4/tcp_slow_start_after_idle",
        &mut s.tcp_slow_start_after_idle,
    );
    flag("ipv4/tcp_shrink_window", &mut s.tcp_shrink_window);
    flag("ipv4/tcp_moderate_rcvbuf", &mut s.tcp_moderate_rcvbuf);
    number("ipv4/tcp_comp_sack_delay_ns", &mut s.tcp_comp_sack_delay_ns);
    number("ipv4/tcp_comp_sack_nr", &mut s.tcp_comp_sack_nr);
    number("ipv4/tcp_pacing_ss_ratio", &mut s.tcp_pacing_ss_ratio);
    number("ipv4/tcp_pacing_ca_ratio", &mut s.tcp_pacing_ca_ratio);
    number("ipv4/tcp_fastopen", &mut s.tcp_fastopen);
    number(
        "ipv4/tcp_fastopen_blackhole_timeout_sec",
        &mut s.tcp_fastopen_blackhole_timeout_s,
    );
    if let Some(keys) = text("ipv4/tcp_fastopen_key", &mut [0; MAX_TEXT]) {
        s.tcp_fastopen_key = fastopen_keys(keys);
    }
    flag("ipv4/tcp_stdurg", &mut s.tcp_stdurg);
    flag("ipv4/tcp_rfc1337", &mut s.tcp_rfc1337);
    flag("ipv4/tcp_abort_on_overflow", &mut s.tcp_abort_on_overflow);
    number("ipv4/tcp_max_tw_buckets", &mut s.tcp_max_tw_buckets);
    number("ipv4/tcp_max_orphans", &mut s.tcp_max_orphans);
    number("ipv4/tcp_tw_reuse", &mut s.tcp_tw_reuse);
    number("ipv4/tcp_tw_reuse_delay", &mut s.tcp_tw_reuse_delay_ms);
    number("ipv4/tcp_min_rtt_wlen", &mut s.tcp_min_rtt_wlen_s);
    number("ipv4/tcp_app_win", &mut s.tcp_app_win);
    flag("ipv4/tcp_reflect_tos", &mut s.tcp_reflect_tos);
    flag(
        "ipv4/tcp_workaround_signed_windows",
        &mut s.tcp_workaround_signed_windows,
    );
    flag(
        "ipv4/tcp_thin_linear_timeouts",
        &mut s.tcp_thin_linear_timeouts,
    );
    number("ipv4/tcp_pingpong_thresh", &mut s.tcp_pingpong_thresh);
    flag("ipv4/tcp_retrans_collapse", &mut s.tcp_retrans_collapse);
    flag("ipv4/tcp_no_metrics_save", &mut s.tcp_no_metrics_save);
    flag(
        "ipv4/tcp_no_ssthresh_metrics_save",
        &mut s.tcp_no_ssthresh_metrics_save,
    );
    number("ipv4/ip_default_ttl", &mut s.ip_default_ttl);
    number("ipv4/ip_no_pmtu_disc", &mut s.ip_no_pmtu_disc);
    number("ipv4/route/mtu_expires", &mut s.mtu_expires_s);
    if let Some(t) = text("ipv4/tcp_congestion_control", &mut [0; MAX_TEXT]) {
        s.tcp_congestion_control = t.to_owned();
    }
    let config = crate::config::get();
    s.message_options = config.message_options;
    s.zerocopy_rtx_copy = config.zerocopy_rtx_copy;
    if let Some(name) = &config.congestion {
        s.tcp_congestion_control.clone_from(name);
    }
    if let Some(t) = text("ipv4/tcp_allowed_congestion_control", &mut [0; MAX_TEXT]) {
        s.tcp_allowed_congestion_control = t.to_owned();
    }
    if let Some(t) = text("ipv4/tcp_available_congestion_control", &mut [0; MAX_TEXT]) {
        s.tcp_available_congestion_control = t.to_owned();
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbers_in_hexadecimal() {
        assert!(fastopen_keys("00000000-00000000-00000000-00000000").is_empty());
        assert!(fastopen_keys("12345678-9abcdef0-1").is_empty());
        let one = fastopen_keys("00000001-00000200-00030000-04000000");
        assert_eq!(one, [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4]);
        let two = fastopen_keys("1-0-0-0,0-0-0-2");
        assert_eq!((two.len(), two[0], two[28]), (32, 1, 2));
    }

    #[test]
    fn settings_are_the_hosts() {
        let s = read();
        let mut buf = [0; MAX_TEXT];
        let wmem = text("ipv4/tcp_wmem", &mut buf).unwrap();
        let ours: Vec<String> = s.tcp_wmem.iter().map(u32::to_string).collect();
        assert_eq!(wmem.split_ascii_whitespace().collect::<Vec<_>>(), ours);
        assert_eq!(text("ipv4/no_such_setting", &mut [0; MAX_TEXT]), None);
    }
}
