//! One test per packet script. Every expectation in them was seen on Linux as well.

use std::collections::BTreeSet;
use std::path::Path;

macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let text = include_str!(concat!("../scripts/", stringify!($name), ".pkt"));
                if let Err(failure) = sidewire_testkit::script::run(text) {
                    panic!("scripts/{}.pkt, {failure}", stringify!($name));
                }
            }
        )*
        const LISTED: &[&str] = &[$(stringify!($name)),*];
    };
}

scripts! {
    ack_of_unsent
    ack_pingpong
    blocked_reader_reset
    busy_time
    challenge_ack
    child_reset
    close_unread
    close_wait_write_rst
    connect_refused
    connect_then_reset
    connect_timeout
    cork
    cubic_window
    data_after_shutdown
    data_in_handshake
    default_retries
    defer_accept
    delayed_ack
    delayed_fin_ack_write
    disconnect
    dsack_of_merged
    fast_retransmit_newreno
    fast_retransmit_sack
    fastopen_strays
    fastopen_synack_timer
    fin_ack_waits
    fin_retransmission
    fin_wait2_timeout
    fin_with_data_pending
    give_up
    half_close
    half_open
    handshake_active
    handshake_blocking
    handshake_passive
    handshake_simultaneous
    icmp_frag_needed
    icmp_unreachable
    initial_window
    keepalive
    keepalive_answered_by_data
    linger
    linger2_negative
    listen_backlog
    listen_close
    max_pacing_rate
    maxseg
    msg_eor
    msg_more
    nagle
    newreno_spurious_dupacks
    notsent_lowat
    out_of_order
    outq
    passive_close
    paws
    peer_shrinks_window
    quickack
    rack_after_undo
    rack_reordering
    rack_timer
    receive_options
    receive_window
    reno_window
    rst
    rst_after_data
    rto_backoff
    sack_many_holes
    sack_recovery_two_holes
    sack_reneging
    sack_reneging_merged
    send_timeout
    shutdown_listener
    shutdown_read
    shutdown_syn_sent
    silly_window
    simultaneous_close
    slow_start_after_idle
    spurious_rto
    syn_ack_again
    syn_recv_rst
    syn_retransmission
    syn_sent_strays
    synack_ack_waits
    tail_loss_probe
    time_wait
    time_wait_reset
    time_wait_reuse
    timeout_after_undo
    tiny_mss
    ts_recent
    unconnected
    urgent
    user_timeout
    window_limits_sender
    window_scale
    zero_window_probe
}

#[test]
fn every_script_has_its_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let found: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("the scripts")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|e| e == "pkt"))
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let listed = LISTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, listed);
}
