//! The runner says no: each of these scripts is wrong in one place, and fails there for that reason.

use sidewire_testkit::script::run;

const OPEN: &str = "\
+0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 65535 <mss 1460>
+0 > S. 0:0(0) ack 1 <mss 1460>
+.02 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 4
";

/// Runs the open connection and `rest`; it must fail `after` lines into `rest` (from 1).
fn fails(rest: &str, after: usize, message: &str) {
    let failure = run(&format!("{OPEN}{rest}")).expect_err(rest);
    let shown = failure.to_string();
    assert_eq!(failure.line, OPEN.lines().count() + after, "{shown}");
    assert!(shown.contains(message), "{shown}");
    assert!(shown.contains("timeline"), "{shown}");
}

#[test]
fn the_opening_itself_is_right() {
    run(OPEN).expect("nothing wrong here");
}

#[test]
fn wrong_value() {
    fails("+0 write(4, ..., 10) = 11\n", 1, "returns 10, not 11");
}

#[test]
fn wrong_errno() {
    let read = "+0 recv(4, ..., 10, MSG_DONTWAIT) = -1 EPIPE\n";
    fails(
        read,
        1,
        "EAGAIN (Resource temporarily unavailable), not -1 EPIPE",
    );
}

#[test]
fn wrong_segment() {
    let write = "+0 write(4, ..., 10) = 10\n";
    fails(
        &format!("{write}+0 > P. 1:12(11) ack 1\n"),
        2,
        "actual: > P. 1:11(10) ack 1",
    );
    fails(
        &format!("{write}+0 > . 1:11(10) ack 1\n"),
        2,
        "actual: > P. 1:11(10) ack 1",
    );
    fails(
        &format!("{write}+0 > P. 1:11(10) ack 1 win 9\n"),
        2,
        "win 64240",
    );
    fails(
        &format!("{write}+0 > P. 1:11(10) ack 1 <mss 1460>\n"),
        2,
        "actual: >",
    );
}

#[test]
fn wrong_time() {
    let write = "+0 write(4, ..., 10) = 10\n";
    fails(
        &format!("{write}+.1 > P. 1:11(10) ack 1\n"),
        2,
        "sent at   0.020000, not   0.120000",
    );
}

#[test]
fn nothing_sent() {
    fails("+0 > P. 1:11(10) ack 1\n", 1, "nothing was sent");
}

#[test]
fn something_left_over() {
    fails(
        "+0 write(4, ..., 10) = 10\n",
        1,
        "nobody expected > P. 1:11(10)",
    );
}

#[test]
fn a_call_blocks_that_should_not() {
    fails("+0 read(4, ..., 10) = 10\n", 1, "the call blocks");
}

#[test]
fn a_call_returns_too_early_or_never() {
    fails(
        "+0...0.1 write(4, ..., 10) = 10\n",
        1,
        "returns at   0.020000, not   0.120000",
    );
    fails(
        "+0...0.1 read(4, ..., 10) = 10\n",
        1,
        "the call does not return",
    );
}

#[test]
fn wrong_option_revents_and_ioctl() {
    let option = "+0 getsockopt(4, SOL_TCP, TCP_NODELAY, [1], [4]) = 0\n";
    fails(option, 1, "the value is \"0\", not \"1\"");
    let poll = "+0 poll([{fd=4, events=POLLOUT, revents=POLLIN}], 1, 0) = 1\n";
    fails(poll, 1, "revents is [4], not [1]");
    fails(
        "+0 ioctl(4, SIOCINQ, [7]) = 0\n",
        1,
        "the value is 0, not 7",
    );
}

#[test]
fn assertion() {
    fails(
        "+0 %{ assert tcpi_snd_cwnd == 3 }%\n",
        1,
        "tcpi_snd_cwnd = 10",
    );
}

#[test]
fn what_is_not_understood() {
    fails(
        "+0 < S 0:0(0) win 1 <mss 1460,wscal 7>\n",
        1,
        "unknown TCP option `wscal`",
    );
    fails("+0 dance(4) = 0\n", 1, "unknown system call `dance`");
}
