//! Parses nothing itself: two programs that run inside containers start at once, everything else is the command line's.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: these run as containers' processes and must need no runtime, no threads and little memory.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some("pause") => beaufort::pause::run(),
        Some("testbed") => {
            let rest: Vec<String> = arguments.map(|a| a.to_string_lossy().into_owned()).collect();
            beaufort::testbed::run(&rest)
        }
        _ => beaufort::cli::main(),
    }
}
