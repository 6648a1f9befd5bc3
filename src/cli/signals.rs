//! SIGTERM and SIGINT: the first asks to end, a second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first signal. From then on a second one ends the process with 1.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        for last in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if last {
                tracing::warn!(signal = name, "ending at once, as asked a second time");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "ending; a second signal ends at once");
            asked.cancel();
        }
    });
    Ok(stop)
}
