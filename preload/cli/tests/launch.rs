//! The launcher, in a user and network namespace in which root is an ordinary user
//! (SECBIT_NOROOT), so that file capabilities are all that counts.

use std::process::{Command, Output};

/// Runs `script` there, with `$LAUNCH` a copy of the launcher that carries the
/// capability, beside a library that does nothing.
fn outcome(script: &str) -> Output {
    outcome_after(":", script)
}

/// The same after `setup`, which has every capability.
fn outcome_after(setup: &str, script: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let drop = "exec setpriv --securebits +noroot --inh-caps -all --ambient-caps -all sh -ec";
    let script = format!(
        "PATH=$PATH:/usr/sbin:/sbin
        ip link add sw0 type veth peer name sw1
        ip link set sw0 up
        ip link set sw1 up
        cp \"$LAUNCHER\" \"$DIR/sidewire-launch\"
        printf 'int sidewire_version;' | gcc -x c -shared -fPIC -o \"$DIR/lib.so\" -
        setcap cap_net_raw=p \"$DIR/sidewire-launch\"
        export LAUNCH=\"$DIR/sidewire-launch\" SIDEWIRE_LIBRARY=\"$DIR/lib.so\"
        cp \"$(command -v cat)\" \"$DIR/cat\"
        cp \"$DIR/cat\" \"$DIR/capable\"; setcap cap_chown=p \"$DIR/capable\"
        {setup}
        {drop} '{script}'"
    );
    Command::new("unshare")
        .args(["-Urn", "sh", "-ec", &script])
        .env("DIR", dir.path())
        .env("LAUNCHER", env!("CARGO_BIN_EXE_sidewire-launch"))
        .env("SIDEWIRE", env!("CARGO_BIN_EXE_sidewire"))
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap()
}

/// The line of /proc/self/status that begins with `name`.
fn set(output: &Output, name: &str) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("{name} is not in {output:?}"));
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

const NET_RAW: u64 = 1 << 13;

#[test]
fn the_program_gets_sockets_and_no_capability() {
    let output = outcome(
        "\"$SIDEWIRE\" run --strict -- cat /proc/self/status
        exec \"$SIDEWIRE\" run --strict -- sh -c \
         \"echo \\$SIDEWIRE_SOCKETS; exec ls -l /proc/self/fd\"",
    );
    assert!(output.status.success(), "{output:?}");
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(set(&output, name), 0, "{name}");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let place = text
        .lines()
        .find(|line| line.matches(':').count() == 2 && !line.contains(' '));
    let place: Vec<u64> = place
        .unwrap_or_else(|| panic!("no place in {text}"))
        .split(':')
        .map(|number| number.parse().unwrap())
        .collect();
    let [first, sets, _] = place[..] else {
        panic!("{place:?}");
    };
    let open = |number: u64, what: &str| {
        let link = format!(" {number} -> {what}");
        text.lines().any(|line| line.contains(&link))
    };
    assert!(open(first, "/memfd:sidewire-claims"), "{text}");
    for number in first + 1..=first + 2 * sets {
        assert!(open(number, "socket:"), "{number} in {text}");
    }
    assert!(!open(first + 2 * sets + 1, ""), "{text}");
}

#[test]
fn fewer_are_handed_over_where_numbers_are_scarce() {
    let output =
        outcome("ulimit -n 64; exec \"$SIDEWIRE\" run -- sh -c \"echo \\$SIDEWIRE_SOCKETS\"");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("48:4:"), "{output:?}");
}

/// By the option, by --set, by the environment, by the settings.
#[test]
fn a_program_that_asks_has_net_raw_and_nothing_else() {
    for how in [
        "run --strict --capability ambient --",
        "run --strict --capability ambient --set capability=sockets --",
        "run --strict --set capability=ambient --",
        "run --strict --profile x --",
    ] {
        let output = outcome(&format!(
            "printf \"[profile.x]\\ncapability = \\\"ambient\\\"\\n\" >\"$DIR/settings\"
            export SIDEWIRE_CONFIG=\"$DIR/settings\" SIDEWIRE_SOCKETS=1:1:1
            exec \"$SIDEWIRE\" {how} sh -c \
             \"test -z \\$SIDEWIRE_SOCKETS; exec cat /proc/self/status\""
        ));
        assert!(output.status.success(), "{how}: {output:?}");
        for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(set(&output, name), NET_RAW, "{how}: {name}");
        }
    }
    let output = outcome("exec \"$SIDEWIRE\" run --capability socket -- true");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn without_the_launcher_it_is_refused_or_has_nothing() {
    let run = |options: &str| {
        outcome(&format!(
            "rm \"$LAUNCH\"; exec \"$SIDEWIRE\" run {options} -- cat /proc/self/status"
        ))
    };
    let output = run("");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(set(&run("--fallback"), "CapEff"), 0);
}

/// An installation on a file system that gives no capabilities: the launcher finds out, as the kernel ignores what
/// it carries.
#[test]
fn a_launcher_that_gets_nothing_says_so() {
    let run = |options: &str| {
        outcome_after(
            ":",
            &format!(
                "exec setpriv --no-new-privs \"$SIDEWIRE\" run {options} -- \
                 sh -c \"echo started \\$SIDEWIRE_SOCKETS; cat /proc/self/status\""
            ),
        )
    };
    for options in ["", "--strict", "--capability ambient"] {
        let output = run(options);
        assert_eq!(output.status.code(), Some(125), "{options}: {output:?}");
        assert!(output.stdout.is_empty(), "{options}: {output:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        for word in ["CAP_NET_RAW", "getcap", "--fallback"] {
            assert!(message.contains(word), "{message}");
        }
    }
    for options in ["--fallback", "--fallback --capability ambient"] {
        let output = run(options);
        assert!(output.status.success(), "{options}: {output:?}");
        assert!(output.stdout.starts_with(b"started\n"), "{output:?}");
        for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(set(&output, name), 0, "{options}: {name}");
        }
    }
}

#[test]
fn name_arguments_and_environment_arrive() {
    let output = outcome(
        "export TMPDIR=/t; exec \"$SIDEWIRE\" run --set stats=x -- sh -c \
         \"echo \\$0 \\$1 \\$TMPDIR \\$SIDEWIRE_STATS \\${LD_PRELOAD##*/}\" zero one",
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), "zero one /t x lib.so", "{output:?}");
}

#[test]
fn the_doctor_knows_the_launcher() {
    let output = outcome("exec \"$SIDEWIRE\" doctor");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.contains("the launcher hands over packet sockets"),
        "{text}"
    );
    let output = outcome("rm \"$LAUNCH\"; exec \"$SIDEWIRE\" doctor");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn programs_that_gain_privileges_are_refused() {
    for (before, program) in [
        ("chmod u+s \"$DIR/cat\"", "cat"),
        ("chmod g+s \"$DIR/cat\"", "cat"),
        (":", "capable"),
    ] {
        let output = outcome(&format!(
            "{before}; exec \"$LAUNCH\" -- \"$DIR/{program}\" cat /dev/null"
        ));
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("not passed on"), "{message}");
    }
}

/// What is looked at is what is executed.
#[test]
fn the_launcher_takes_paths_only() {
    let output = outcome(
        r#"chmod u+s "$DIR/cat"; cd /; PATH=$DIR; export PATH
        exec "$LAUNCH" -- cat cat /proc/self/status"#,
    );
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("not a path"), "{message}");
    // An empty entry of PATH is the working directory, and the name found there a path.
    let output = outcome(
        r#"cp "$DIR/cat" "$DIR/kitten"; cd "$DIR"; PATH=:$PATH; export PATH
        exec "$SIDEWIRE" run -- kitten /proc/self/comm"#,
    );
    assert_eq!(output.stdout, b"kitten\n", "{output:?}");
}

/// A launcher below a launcher opens nothing.
#[test]
fn what_was_handed_over_is_used_again() {
    let run = r#""$SIDEWIRE" run --strict --"#;
    let show = r#"sh -c "echo \$SIDEWIRE_SOCKETS; ls /proc/self/fd | wc -l""#;
    // First number and sets, and how many descriptors there are.
    let shown = |levels: usize| -> (String, String) {
        let output = outcome(&format!(
            "ulimit -n 256; exec {} {show}",
            vec![run; levels].join(" ")
        ));
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let (place, open) = text.trim().split_once('\n').unwrap();
        let (numbers, _) = place.rsplit_once(':').unwrap();
        (numbers.to_owned(), open.to_owned())
    };
    let once = shown(1);
    assert_eq!(once, shown(3));
    // Nothing but the sockets goes on.
    let output = outcome(&format!("exec {run} {run} cat /proc/self/status"));
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(set(&output, name), 0, "{name}");
    }
    // Those of another network namespace are replaced.
    let output = outcome(&format!(
        r#"ulimit -n 256
        exec {run} sh -c "echo \$SIDEWIRE_SOCKETS
          exec unshare -Un $LAUNCH -- /bin/sh sh -c \
            \"echo \\\$SIDEWIRE_SOCKETS; exec ls -l /proc/self/fd\"""#
    ));
    let text = String::from_utf8_lossy(&output.stdout);
    let places: Vec<&str> = text.lines().take(2).collect();
    assert!(
        places.iter().all(|place| place.starts_with(&once.0)),
        "{output:?}"
    );
    assert_ne!(places[0], places[1]);
    assert_eq!(text.matches("sidewire-claims").count(), 1, "{text}");
    assert_eq!(text.matches("socket:").count(), 32, "{text}");
}

/// ... also where the inner one has no launcher.
#[test]
fn what_was_handed_over_needs_no_second_launcher() {
    let output = outcome(
        r#"cp "$DIR/lib.so" "$DIR/other.so"; mkdir "$DIR/bare"; mv "$DIR/other.so" "$DIR/bare"
        exec "$SIDEWIRE" run -- env SIDEWIRE_LIBRARY="$DIR/bare/other.so" \
          "$SIDEWIRE" run -- sh -c "echo \$SIDEWIRE_SOCKETS \${LD_PRELOAD%%:*}""#,
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.contains(":16:") && text.trim().ends_with("other.so"),
        "{output:?}"
    );
}

/// `sidewire run` with these options, while the numbers of `taken` are in use below a limit of 64.
fn with_numbers_taken(taken: &str, options: &str) -> Output {
    let shell = r#"exec \"$SIDEWIRE\" run "#;
    outcome(&format!(
        r#"ulimit -n 64
        exec python3 -c "import os, sys
[os.dup2(0, number) for number in range({taken})]
os.execvp(sys.argv[1], sys.argv[1:])" \
          sh -c "{shell}{options} -- sh -c \"echo \\\$SIDEWIRE_SOCKETS\"""#
    ))
}

#[test]
fn where_no_number_is_free_it_is_refused_or_starts_without() {
    let output = with_numbers_taken("48, 60", "--strict");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("60:1:"), "{output:?}");
    let output = with_numbers_taken("48, 64", "--fallback");
    assert_eq!(output.stdout, b"no-room\n", "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    for options in ["", "--strict"] {
        let output = with_numbers_taken("48, 64", options);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        for word in ["no room", "ulimit -n", "--fallback"] {
            assert!(message.contains(word), "{message}");
        }
    }
}

#[test]
fn what_cannot_be_started_is_said() {
    let output = outcome("exec \"$LAUNCH\" -- /no/such/program x");
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let output = outcome("exec \"$LAUNCH\" nonsense -- /bin/true true");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
}
