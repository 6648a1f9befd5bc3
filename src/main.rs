use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("pause") => beaufort::pause::run(),
        Some("testbed") => beaufort::testbed::run(&arguments[2..]),
        _ => ExitCode::FAILURE,
    }
}
