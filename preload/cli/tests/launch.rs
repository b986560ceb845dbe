//! The launcher, in a user namespace in which root is an ordinary user
//! (SECBIT_NOROOT), so that file capabilities are all that counts.

use std::process::{Command, Output};

/// Runs `script` there, with `$LAUNCH` a copy of the launcher that carries the
/// capability, beside a library that does nothing.
fn outcome(script: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let drop = "exec setpriv --securebits +noroot --inh-caps -all --ambient-caps -all sh -ec";
    let script = format!(
        "PATH=$PATH:/usr/sbin:/sbin
        cp \"$LAUNCHER\" \"$DIR/sidewire-launch\"
        printf 'int sidewire_test_library;' | gcc -x c -shared -fPIC -o \"$DIR/lib.so\" -
        setcap cap_net_raw=p \"$DIR/sidewire-launch\"
        export LAUNCH=\"$DIR/sidewire-launch\" SIDEWIRE_LIBRARY=\"$DIR/lib.so\"
        cp \"$(command -v cat)\" \"$DIR/cat\"
        cp \"$DIR/cat\" \"$DIR/capable\"; setcap cap_chown=p \"$DIR/capable\"
        {drop} '{script}'"
    );
    Command::new("unshare")
        .args(["-Ur", "sh", "-ec", &script])
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
fn the_program_has_net_raw_and_nothing_else() {
    let output = outcome("exec \"$SIDEWIRE\" run --strict -- cat /proc/self/status");
    assert!(output.status.success(), "{output:?}");
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(set(&output, name), NET_RAW, "{name}");
    }
}

#[test]
fn without_the_launcher_it_has_nothing() {
    let output = outcome("rm \"$LAUNCH\"; exec \"$SIDEWIRE\" run -- cat /proc/self/status");
    assert_eq!(set(&output, "CapEff"), 0);
    let output =
        outcome("rm \"$LAUNCH\"; exec \"$SIDEWIRE\" run --strict -- cat /proc/self/status");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
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

#[test]
fn what_cannot_be_started_is_said() {
    let output = outcome("exec \"$LAUNCH\" -- /no/such/program x");
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let output = outcome("exec \"$LAUNCH\" nonsense -- /bin/true true");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
}
