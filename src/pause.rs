//! The pause process: PID 1 of an awsvpc task. Holds the network namespace, reaps orphans of a shared pid namespace, and leaves at
//! once on SIGTERM or SIGINT. No runtime, no threads: pages of the big binary that are never touched cost nothing.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Never returns. To be called by `main` before anything else.
pub fn run() -> ! {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    // The kernel drops signals to PID 1 that have their default action: block them and wait for them instead.
    if signals.thread_block().is_err() {
        std::process::exit(70);
    }
    loop {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {}
            Ok(_) => std::process::exit(0),
            Err(_) => std::process::exit(71),
        }
    }
}
