//! The command as a user meets it, in a user and network namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A device that leads to other hosts.
const DEVICE: &str = "PATH=$PATH:/usr/sbin:/sbin
    ip link add sw0 type veth peer name sw1
    ip link set sw0 up
    ip link set sw1 up";
/// What runs the command without CAP_NET_RAW.
const WITHOUT_NET_RAW: &str = "setpriv --bounding-set=-net_raw --inh-caps=-net_raw";

/// A directory with a library that does nothing, to be put in front.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Bench {
            dir: tempfile::tempdir().unwrap(),
        };
        bench.compile(
            "library",
            &["-shared", "-fPIC"],
            "unsigned sidewire_version(void) { return 0; }",
        );
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn compile(&self, name: &str, flags: &[&str], source: &str) -> PathBuf {
        let (from, to) = (self.path(&format!("{name}.c")), self.path(name));
        fs::write(&from, source).unwrap();
        let status = Command::new("gcc")
            .args(flags)
            .arg("-o")
            .args([&to, &from])
            .status()
            .unwrap();
        assert!(status.success());
        to
    }

    fn sidewire(&self, args: &[&str]) -> Output {
        self.sidewire_within(DEVICE, "", args)
    }

    /// The command after `setup`, below `wrapper`.
    fn sidewire_within(&self, setup: &str, wrapper: &str, args: &[&str]) -> Output {
        let script = format!("{setup}\nexec {wrapper} \"$@\"");
        Command::new("unshare")
            .args([
                "-Urn",
                "sh",
                "-ec",
                &script,
                "sh",
                env!("CARGO_BIN_EXE_sidewire"),
            ])
            .args(args)
            .env("SIDEWIRE_LIBRARY", self.path("library"))
            .env_remove("LD_PRELOAD")
            .output()
            .unwrap()
    }

    /// The same for `sidewire run` and a program that leaves a file; whether it did.
    fn starts(&self, setup: &str, wrapper: &str, options: &[&str]) -> (bool, Output) {
        let file = self.path("started");
        let program = ["--", "touch", file.to_str().unwrap()];
        let args = [&["run"], options, &program].concat();
        let output = self.sidewire_within(setup, wrapper, &args);
        (fs::remove_file(&file).is_ok(), output)
    }

    fn run(&self, program: &Path) -> Output {
        self.sidewire(&["run", "--", program.to_str().unwrap()])
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_program_gets_the_library_and_the_settings() {
    let bench = Bench::new();
    let output = bench.sidewire(&[
        "run",
        "--strict",
        "--log",
        "info",
        "--set",
        "stats=/tmp/counters",
        "--pcap",
        "trace.pcapng",
        "--",
        "env",
    ]);
    assert!(output.status.success(), "{output:?}");
    let environment = text(&output.stdout);
    let library = format!("LD_PRELOAD={}\n", bench.path("library").display());
    let pcap = std::env::current_dir().unwrap().join("trace.pcapng");
    for line in [
        library.as_str(),
        "SIDEWIRE_STRICT=1\n",
        "SIDEWIRE_LOG=info\n",
        "SIDEWIRE_STATS=/tmp/counters\n",
        &format!("SIDEWIRE_PCAP={}\n", pcap.display()),
    ] {
        assert!(environment.contains(line), "{line} is not in {environment}");
    }
}

#[test]
fn status_and_arguments_are_the_programs_own() {
    let bench = Bench::new();
    let output = bench.sidewire(&["run", "sh", "-c", "echo $0 $1; exit 7", "--strict", "b"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stdout), "--strict b\n");
}

#[test]
fn a_static_program_is_refused() {
    let bench = Bench::new();
    let program = bench.compile("static", &["-static"], "int main(void) { return 0; }");
    let output = bench.run(&program);
    assert_eq!(output.status.code(), Some(125));
    let message = text(&output.stderr);
    assert!(message.contains("linked statically"), "{message}");
    assert_eq!(message.lines().count(), 1);
}

#[test]
fn a_script_is_judged_by_its_interpreter() {
    use std::os::unix::fs::PermissionsExt;

    let bench = Bench::new();
    let program = bench.compile("static", &["-static"], "int main(void) { return 0; }");
    let script = bench.path("script");
    fs::write(&script, format!("#!{}\n", program.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(bench.run(&script).status.code(), Some(125));
    fs::write(&script, "#!/bin/sh\nexit 3\n").unwrap();
    assert_eq!(bench.run(&script).status.code(), Some(3));
}

#[test]
fn what_is_not_there_is_said_as_a_shell_says_it() {
    let bench = Bench::new();
    for (program, code) in [
        ("no-such-program-anywhere", 127),
        ("/no/such/program", 127),
        ("/etc/passwd", 126),
    ] {
        let output = bench.run(Path::new(program));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(program));
    }
}

#[test]
fn a_missing_library_is_said() {
    let bench = Bench::new();
    fs::remove_file(bench.path("library")).unwrap();
    let output = bench.run(Path::new("true"));
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("SIDEWIRE_LIBRARY"));
}

#[test]
fn what_is_no_library_of_ours_is_said() {
    let bench = Bench::new();
    bench.compile("library", &["-shared", "-fPIC"], "int other;");
    for options in [&[][..], &["--strict"], &["--fallback"]] {
        let (started, output) = bench.starts(DEVICE, "", options);
        assert!(!started, "{options:?}");
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let message = text(&output.stderr);
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains("SIDEWIRE_LIBRARY="), "{message}");
    }
}

/// Nothing is started on the kernel's TCP that nobody asked for.
#[test]
fn what_the_engine_cannot_do_without_is_demanded() {
    let bench = Bench::new();
    let cases = [
        (
            DEVICE,
            WITHOUT_NET_RAW,
            ["CAP_NET_RAW is missing", "run as root"],
        ),
        // The capability counts for other network namespaces than the one we are in.
        (
            DEVICE,
            "unshare -Ur",
            ["CAP_NET_RAW is missing", "pasta --config-net"],
        ),
        (":", "", ["no device", "ip link set DEVICE up"]),
    ];
    for (setup, wrapper, words) in cases {
        for options in [&[][..], &["--strict"]] {
            let (started, output) = bench.starts(setup, wrapper, options);
            assert!(!started, "{wrapper} {options:?}: {output:?}");
            assert_eq!(output.status.code(), Some(125), "{output:?}");
            let message = text(&output.stderr);
            assert_eq!(message.lines().count(), 1, "{message}");
            for word in words.into_iter().chain(["--fallback"]) {
                assert!(message.contains(word), "{word} is not in {message}");
            }
        }
        for options in [&["--fallback"][..], &["--set", "enabled=false"]] {
            let (started, output) = bench.starts(setup, wrapper, options);
            assert!(started, "{wrapper} {options:?}: {output:?}");
            assert!(output.status.success(), "{output:?}");
            assert!(output.stderr.is_empty(), "{output:?}");
        }
    }
}

#[test]
fn a_process_that_is_not_there_is_said_and_is_a_failure() {
    let bench = Bench::new();
    // Beyond the largest number that Linux gives.
    let pid = "4194305";
    for args in [
        &["status", pid][..],
        &["status", "--json", pid],
        &["ss", "--pid", pid],
        &["top", pid],
    ] {
        let output = bench.sidewire(args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let message = text(&output.stderr);
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(pid), "{message}");
    }
    for wrong in ["-n", "-l"] {
        let output = bench.sidewire(&["top", wrong, "0"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn a_plot_that_fails_is_our_own_failure() {
    let bench = Bench::new();
    let (library, svg) = (bench.path("library"), bench.path("x.svg"));
    for file in [library.to_str().unwrap(), "/no/such/file"] {
        let output = bench.sidewire(&["plot", file, "-o", svg.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let message = text(&output.stderr);
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(file) && !svg.exists(), "{message}");
    }
}

#[test]
fn fallback_goes_before_a_strict_environment_and_not_with_strict() {
    let bench = Bench::new();
    let strict = "env SIDEWIRE_STRICT=1";
    let output = bench.sidewire_within(DEVICE, strict, &["run", "--fallback", "--", "env"]);
    assert!(
        text(&output.stdout).contains("SIDEWIRE_STRICT=0\n"),
        "{output:?}"
    );
    let output = bench.sidewire(&["run", "--fallback", "--strict", "--", "true"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
