//! Parsers of the kernel's counters, cgroup v1 and v2: text in, numbers out, nothing else. Unknown keys are skipped, as every kernel
//! adds some.

use crate::model::link::NetworkTotals;

/// Totals since the container started, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub cpu_total_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    pub memory_usage: u64,
    pub memory_rss: u64,
    pub memory_cache: u64,
    pub memory_inactive_file: u64,
    /// What the ECS agent subtracts from the usage: the cache on v1, the inactive file pages on v2 (its getMemUsage).
    pub memory_not_counted: u64,
    /// 0: none.
    pub memory_limit: u64,
    pub processes: u64,
    pub block_read: u64,
    pub block_write: u64,
    pub oom_kills: u64,
}

/// A limit beyond this is the kernel's way to say none.
const NO_LIMIT: u64 = 1 << 60;
/// cpuacct.stat counts in ticks of USER_HZ, which is 100 on every architecture that Docker runs on.
const TICK_NS: u64 = 10_000_000;

pub fn single(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// `max` and v1's huge numbers are no limit.
pub fn limit(text: &str) -> u64 {
    let limit = single(text);
    if limit >= NO_LIMIT { 0 } else { limit }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// cpu.stat of both versions: v1 has throttling in ns, v2 everything in µs.
pub fn cpu_stat(c: &mut Counters, text: &str) {
    for (key, value) in pairs(text) {
        match key {
            "nr_periods" => c.periods = value,
            "nr_throttled" => c.throttled_periods = value,
            "throttled_time" => c.throttled_ns = value,
            "throttled_usec" => c.throttled_ns = value * 1000,
            "usage_usec" => c.cpu_total_ns = value * 1000,
            "user_usec" => c.cpu_user_ns = value * 1000,
            "system_usec" => c.cpu_system_ns = value * 1000,
            _ => {}
        }
    }
}

pub fn cpuacct_stat_v1(c: &mut Counters, text: &str) {
    for (key, value) in pairs(text) {
        match key {
            "user" => c.cpu_user_ns = value * TICK_NS,
            "system" => c.cpu_system_ns = value * TICK_NS,
            _ => {}
        }
    }
}

pub fn memory_stat_v1(c: &mut Counters, text: &str) {
    for (key, value) in pairs(text) {
        match key {
            "total_rss" => c.memory_rss = value,
            "total_cache" => (c.memory_cache, c.memory_not_counted) = (value, value),
            "total_inactive_file" => c.memory_inactive_file = value,
            // The container's own or a parent's, whichever is less.
            "hierarchical_memory_limit" => c.memory_limit = if value >= NO_LIMIT { 0 } else { value },
            _ => {}
        }
    }
}

pub fn memory_stat_v2(c: &mut Counters, text: &str) {
    for (key, value) in pairs(text) {
        match key {
            "anon" => c.memory_rss = value,
            "file" => c.memory_cache = value,
            "inactive_file" => (c.memory_inactive_file, c.memory_not_counted) = (value, value),
            _ => {}
        }
    }
}

/// memory.oom_control (v1) and memory.events (v2) name it alike.
pub fn oom_kills(c: &mut Counters, text: &str) {
    if let Some((_, kills)) = pairs(text).find(|(key, _)| *key == "oom_kill") {
        c.oom_kills = kills;
    }
}

/// Lines `8:0 Read 4096` of each device.
pub fn blkio_v1(c: &mut Counters, text: &str) {
    (c.block_read, c.block_write) = (0, 0);
    for line in text.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(what), Some(value)) = (words.next(), words.next().and_then(|v| v.parse::<u64>().ok())) else { continue };
        match what {
            "Read" => c.block_read += value,
            "Write" => c.block_write += value,
            _ => {}
        }
    }
}

/// Lines `8:0 rbytes=4096 wbytes=0 rios=1 ...` of each device.
pub fn io_stat_v2(c: &mut Counters, text: &str) {
    (c.block_read, c.block_write) = (0, 0);
    for word in text.split_ascii_whitespace() {
        if let Some(value) = word.strip_prefix("rbytes=") {
            c.block_read += single(value);
        } else if let Some(value) = word.strip_prefix("wbytes=") {
            c.block_write += single(value);
        }
    }
}

/// /proc/PID/net/dev: the sum over every interface but the loopback.
pub fn net_dev(text: &str) -> NetworkTotals {
    let mut totals = NetworkTotals::default();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let n: Vec<u64> = numbers.split_ascii_whitespace().map(single).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = n[..]
        else {
            continue;
        };
        totals.receive_bytes += rx_bytes;
        totals.receive_packets += rx_packets;
        totals.receive_errors += rx_errors;
        totals.receive_dropped += rx_dropped;
        totals.transmit_bytes += tx_bytes;
        totals.transmit_packets += tx_packets;
        totals.transmit_errors += tx_errors;
        totals.transmit_dropped += tx_dropped;
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_as_linux_6_1_writes_it() {
        let mut c = Counters::default();
        cpu_stat(&mut c, "nr_periods 41\nnr_throttled 40\nthrottled_time 2056432110\nwait_sum 12\n");
        cpuacct_stat_v1(&mut c, "user 150\nsystem 25\n");
        memory_stat_v1(
            &mut c,
            "cache 8192\nrss 4096\ninactive_file 8192\nhierarchical_memory_limit 33554432\nhierarchical_memsw_limit 9223372036854771712\n\
             total_cache 8192\ntotal_rss 4096\ntotal_inactive_anon 0\ntotal_inactive_file 6144\n",
        );
        blkio_v1(&mut c, "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 4608\n8:16 Read 1\n8:16 Write 2\nTotal 4611\n");
        oom_kills(&mut c, "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
        let expected = Counters {
            cpu_user_ns: 1_500_000_000,
            cpu_system_ns: 250_000_000,
            periods: 41,
            throttled_periods: 40,
            throttled_ns: 2_056_432_110,
            memory_rss: 4096,
            memory_cache: 8192,
            memory_not_counted: 8192,
            memory_inactive_file: 6144,
            memory_limit: 33_554_432,
            block_read: 4097,
            block_write: 514,
            oom_kills: 3,
            ..Counters::default()
        };
        assert_eq!(c, expected);
        memory_stat_v1(&mut c, "hierarchical_memory_limit 9223372036854771712\n");
        assert_eq!(c.memory_limit, 0);
    }

    #[test]
    fn version_2_as_the_kernel_documents_it() {
        let mut c = Counters::default();
        cpu_stat(
            &mut c,
            "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\nnr_bursts 0\nburst_usec 0\n",
        );
        memory_stat_v2(&mut c, "anon 100\nfile 50\nkernel 9\ninactive_anon 0\nactive_file 20\ninactive_file 30\n");
        io_stat_v2(
            &mut c,
            "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=2 rios=1 wios=1\n",
        );
        oom_kills(&mut c, "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n");
        let expected = Counters {
            cpu_total_ns: 1_500_000,
            cpu_user_ns: 1_000_000,
            cpu_system_ns: 500_000,
            periods: 7,
            throttled_periods: 2,
            throttled_ns: 9000,
            memory_rss: 100,
            memory_cache: 50,
            memory_inactive_file: 30,
            memory_not_counted: 30,
            block_read: 1_459_201,
            block_write: 314_773_506,
            oom_kills: 1,
            ..Counters::default()
        };
        assert_eq!(c, expected);
        assert_eq!((limit("max\n"), limit("1048576\n")), (0, 1_048_576));
    }

    #[test]
    fn the_loopback_is_no_network() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
             lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0\n  eth0: 1500 10 1 2 0 0 0 0 700 7 3 4 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        let expected = NetworkTotals {
            receive_bytes: 1501,
            receive_packets: 11,
            receive_errors: 1,
            receive_dropped: 2,
            transmit_bytes: 701,
            transmit_packets: 8,
            transmit_errors: 3,
            transmit_dropped: 4,
        };
        assert_eq!(net_dev(text), expected);
    }
}
