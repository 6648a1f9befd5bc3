//! Usage by Docker's stats stream, for containers whose cgroup files cannot be read (rootless, remote engines): one stream each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt;

use super::Shared;
use super::counters::Counters;
use crate::model::link::NetworkTotals;

/// The stream's last sample.
#[derive(Default)]
pub struct Latest(Mutex<Option<(Counters, Option<NetworkTotals>)>>);

impl Latest {
    pub fn get(&self) -> Option<(Counters, Option<NetworkTotals>)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn set(&self, sample: (Counters, Option<NetworkTotals>)) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sample);
    }
}

const AGAIN: Duration = Duration::from_secs(2);

/// Follows until the container is watched no more.
pub fn follow(shared: &Arc<Shared>, runtime: &tokio::runtime::Handle, id: &str) -> Arc<Latest> {
    let latest = Arc::new(Latest::default());
    let (shared, id, to) = (shared.clone(), id.to_owned(), latest.clone());
    runtime.spawn(async move {
        while shared.watched.contains(&id) && !shared.stop.is_cancelled() {
            let options = StatsOptionsBuilder::default().stream(true).build();
            let mut stream = shared.docker.stats(&id, Some(options));
            loop {
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    next = stream.next() => match next {
                        Some(Ok(stats)) if shared.watched.contains(&id) => to.set(counters(&stats)),
                        _ => break,
                    },
                }
            }
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    });
    latest
}

fn counters(stats: &ContainerStatsResponse) -> (Counters, Option<NetworkTotals>) {
    let mut c = Counters::default();
    if let Some(cpu) = &stats.cpu_stats {
        if let Some(usage) = &cpu.cpu_usage {
            c.cpu_total_ns = usage.total_usage.unwrap_or(0);
            c.cpu_user_ns = usage.usage_in_usermode.unwrap_or(0);
            c.cpu_system_ns = usage.usage_in_kernelmode.unwrap_or(0);
        }
        if let Some(throttling) = &cpu.throttling_data {
            c.periods = throttling.periods.unwrap_or(0);
            c.throttled_periods = throttling.throttled_periods.unwrap_or(0);
            c.throttled_ns = throttling.throttled_time.unwrap_or(0);
        }
    }
    if let Some(memory) = &stats.memory_stats {
        let of = |key: &str| memory.stats.as_ref().and_then(|s| s.get(key)).copied();
        c.memory_usage = memory.usage.unwrap_or(0);
        c.memory_limit = memory.limit.unwrap_or(0);
        c.memory_rss = of("rss").or_else(|| of("anon")).unwrap_or(0);
        c.memory_cache = of("cache").or_else(|| of("file")).unwrap_or(0);
        c.memory_inactive_file = of("total_inactive_file").or_else(|| of("inactive_file")).unwrap_or(0);
        // v1 has `cache`; v2 has not, and the ECS agent subtracts the inactive file pages there.
        c.memory_not_counted = of("cache").unwrap_or(c.memory_inactive_file);
    }
    c.processes = stats.pids_stats.as_ref().and_then(|p| p.current).unwrap_or(0);
    for entry in stats.blkio_stats.iter().filter_map(|b| b.io_service_bytes_recursive.as_ref()).flatten() {
        match entry.op.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("read") => c.block_read += entry.value.unwrap_or(0),
            Some("write") => c.block_write += entry.value.unwrap_or(0),
            _ => {}
        }
    }
    let network = stats.networks.as_ref().map(|networks| {
        networks.values().fold(NetworkTotals::default(), |mut t, n| {
            t.receive_bytes += n.rx_bytes.unwrap_or(0);
            t.receive_packets += n.rx_packets.unwrap_or(0);
            t.receive_errors += n.rx_errors.unwrap_or(0);
            t.receive_dropped += n.rx_dropped.unwrap_or(0);
            t.transmit_bytes += n.tx_bytes.unwrap_or(0);
            t.transmit_packets += n.tx_packets.unwrap_or(0);
            t.transmit_errors += n.tx_errors.unwrap_or(0);
            t.transmit_dropped += n.tx_dropped.unwrap_or(0);
            t
        })
    });
    (c, network)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docker 20.10 on cgroup v1, shortened.
    #[test]
    fn a_sample_as_docker_writes_it() {
        let text = r#"{"pids_stats":{"current":2},"networks":{"eth0":{"rx_bytes":10,"rx_packets":1,"rx_errors":0,"rx_dropped":0,
            "tx_bytes":20,"tx_packets":2,"tx_errors":0,"tx_dropped":0}},"memory_stats":{"usage":1000,"stats":{"cache":300,"rss":500,
            "total_inactive_file":100},"limit":4096},"blkio_stats":{"io_service_bytes_recursive":[{"major":8,"minor":0,"op":"Read",
            "value":7},{"major":8,"minor":0,"op":"write","value":9}]},"cpu_stats":{"cpu_usage":{"total_usage":5,"usage_in_kernelmode":2,
            "usage_in_usermode":3},"throttling_data":{"periods":1,"throttled_periods":1,"throttled_time":4}}}"#;
        let (c, network) = counters(&serde_json::from_str(text).unwrap());
        assert_eq!((c.memory_usage, c.memory_not_counted, c.memory_inactive_file, c.memory_limit), (1000, 300, 100, 4096));
        assert_eq!((c.cpu_total_ns, c.throttled_ns, c.processes, c.block_read, c.block_write), (5, 4, 2, 7, 9));
        assert_eq!(network.unwrap().transmit_bytes, 20);
    }
}
