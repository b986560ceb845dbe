use super::*;

fn one(text: &str) -> Event {
    let mut script = parse(text).unwrap();
    assert_eq!(script.events.len(), 1);
    script.events.remove(0)
}

#[test]
fn times() {
    assert_eq!(one("0.1 close(3) = 0").time, Time::Absolute(100_000));
    assert_eq!(one("+.04 close(3) = 0").time, Time::Relative(40_000));
    assert_eq!(one("* close(3) = 0").time, Time::Any);
    assert_eq!(
        one("+1~+1.5 close(3) = 0").time,
        Time::RelativeRange(1_000_000, 1_500_000)
    );
    assert_eq!(
        one("1~2 close(3) = 0").time,
        Time::AbsoluteRange(1_000_000, 2_000_000)
    );
    let event = one("+0...0.200 close(3) = 0");
    assert_eq!(
        (event.time, event.until),
        (Time::Relative(0), Some(200_000))
    );
}

#[test]
fn segments() {
    let event = one("+0 < S. 5:5(0) ack 1 win 100 <mss 1460,sackOK,TS val 7 ecr 8,nop,wscale 3>");
    let Action::Inject(spec) = event.action else {
        panic!("{:?}", event.action)
    };
    assert_eq!(spec.flags, TcpFlags::SYN | TcpFlags::ACK);
    assert_eq!(
        (spec.seq, spec.len, spec.ack, spec.window),
        (5, 0, Some(1), Some(100))
    );
    let options = TcpOptions {
        mss: Some(1460),
        wscale: Some(3),
        sack_permitted: true,
        timestamps: Some((7, 8)),
        ..TcpOptions::default()
    };
    assert_eq!(spec.options, Some(options));

    let event = one("+0 > P. 1:11(10) ack 1 urg 10 <nop,nop,sack 1:2 3:4>\n");
    let Action::Expect(spec) = event.action else {
        panic!("{:?}", event.action)
    };
    assert_eq!((spec.len, spec.urg, spec.window), (10, Some(10), None));
    assert_eq!(spec.options.unwrap().sack.as_slice(), [(1, 2), (3, 4)]);

    let event = one("+0 > R 1:1(0) <...>");
    assert!(matches!(
        event.action,
        Action::Expect(PacketSpec {
            options: None,
            ack: None,
            ..
        })
    ));
}

#[test]
fn icmp_errors() {
    let event = one("+0 < icmp unreachable frag_needed mtu 1300 [1:1461(1460)]");
    let Action::InjectIcmp(spec) = event.action else {
        panic!("{:?}", event.action)
    };
    assert_eq!(
        spec,
        IcmpSpec {
            kind: IcmpErrorKind::PacketTooBig(1300),
            seq: 1
        }
    );
}

#[test]
fn calls() {
    let event = one("+0 sendto(3, ..., 1000, MSG_DONTWAIT|MSG_MORE, ..., ...) = -1 EAGAIN (later)");
    let Action::Call(call) = event.action else {
        panic!("{:?}", event.action)
    };
    assert_eq!((call.name.as_str(), call.args.len()), ("sendto", 6));
    assert_eq!(call.args[3], Expr::Int(0x8040));
    assert_eq!(call.result, CallResult::Error(Errno::EAGAIN));

    let event = one("+0 poll([{fd=3, events=POLLIN, revents=0}], 1, 0) = 0");
    let Action::Call(call) = event.action else {
        panic!("{:?}", event.action)
    };
    let Expr::List(entries) = &call.args[0] else {
        panic!("{:?}", call.args[0])
    };
    let Expr::Struct(fields) = &entries[0] else {
        panic!("{:?}", entries[0])
    };
    assert_eq!(fields[1], ("events".into(), Expr::Int(1)));

    let event = one("+0 sendmsg(3, {msg_iov(1)=[{..., 10}], msg_flags=0}, 0) = 10");
    let Action::Call(call) = event.action else {
        panic!("{:?}", event.action)
    };
    let Expr::Struct(fields) = &call.args[1] else {
        panic!("{:?}", call.args[1])
    };
    let inner = Expr::Struct(vec![
        (String::new(), Expr::Ellipsis),
        (String::new(), Expr::Int(10)),
    ]);
    assert_eq!(fields[0], ("msg_iov".into(), Expr::List(vec![inner])));

    let event = one("0 setsockopt(3, SOL_TCP, TCP_CONGESTION, \"reno\", 4) = ?");
    let Action::Call(call) = event.action else {
        panic!("{:?}", event.action)
    };
    assert_eq!(
        (&call.args[3], call.result),
        (&Expr::Text("reno".into()), CallResult::Any)
    );
}

#[test]
fn comments_options_settings_and_assertions() {
    let script = parse(
        "// one\n--mtu=1400\n/* two\n lines */\n`sysctl -q net.ipv4.tcp_sack=0\n\
         sysctl net.ipv4.tcp_wmem=\"1 2 3\"`\n# four\n+0 %{ assert tcpi_state == 1, 'text'; \
         assert tcpi_rto > 2 }%\n",
    )
    .unwrap();
    assert_eq!(script.options, [(2, "mtu".into(), "1400".into())]);
    assert_eq!(script.sysctls[0], (5, "tcp_sack".into(), "0".into()));
    assert_eq!(script.sysctls[1], (6, "tcp_wmem".into(), "1 2 3".into()));
    let Action::Assert(assertions) = &script.events[0].action else {
        panic!()
    };
    assert_eq!(assertions.len(), 2);
    assert_eq!(script.events[0].line, 8);
}

#[test]
fn errors_name_the_line() {
    let line = |text| parse(text).unwrap_err().line;
    assert_eq!(line("+0 close(3) = 0\n+0 < Q 0:0(0) win 1"), 2);
    assert_eq!(line("+0 < S 0:5(0) win 1"), 1);
    assert_eq!(line("\n\n+0 close(3)"), 3);
    assert_eq!(line("+0 close(NOBODY) = 0"), 1);
    assert_eq!(line("+0 > . 1:1(0) win 5"), 1);
    assert_eq!(line("`rm x`"), 1);
}
