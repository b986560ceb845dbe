//! Runs packet scripts by name: `cargo run -p sidewire-testkit --example packet_script FILE...`

fn main() -> std::process::ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let result = match std::fs::read_to_string(&path) {
            Ok(text) => sidewire_testkit::script::run(&text).map_err(|failure| failure.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(()) => println!("{path}: ok"),
            Err(message) => {
                failed = true;
                println!("{path}: {message}");
            }
        }
    }
    u8::from(failed).into()
}
