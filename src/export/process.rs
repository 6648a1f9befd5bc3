//! This process as Prometheus' own clients describe theirs (`process_*`), read from /proc. What cannot be read is left out.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::families::{Kind, Page};

/// Linux counts a process' start in hundredths of a second, whatever its kernel's own tick is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

pub fn write(page: &mut Page) {
    let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok().map(|at| Duration::from(at).as_secs_f64());
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    let most = fs::read_to_string("/proc/self/limits").ok().and_then(|text| max_fds(&text));
    let resident = fs::read_to_string("/proc/self/status").ok().and_then(|text| resident(&text));
    let started = fs::read_to_string("/proc/self/stat").ok().zip(fs::read_to_string("/proc/stat").ok());
    let started = started.and_then(|(process, system)| start_time(&process, &system));
    let mut one =
        |name: &str, kind: Kind, help: &str, value: Option<f64>| page.family(name, kind, help, value.map(|value| ("", value)));
    one("process_cpu_seconds_total", Kind::Counter, "CPU time of this process, user and system.", cpu);
    one("process_resident_memory_bytes", Kind::Gauge, "Memory of this process that is resident.", resident);
    one("process_open_fds", Kind::Gauge, "File descriptors that are open.", open);
    one("process_max_fds", Kind::Gauge, "File descriptors that may be open.", most);
    one("process_start_time_seconds", Kind::Gauge, "When this process started.", started);
}

/// The soft limit of `Max open files`.
fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// From the process' start in ticks since the boot, and the boot's own time.
fn start_time(process: &str, system: &str) -> Option<f64> {
    // The program's name may hold spaces and brackets; what follows it counts from field 3.
    let (_, fields) = process.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_s_texts_are_read() {
        let limits =
            "Limit Soft Limit Hard Limit Units\nMax open files            1024                 524288               files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!(max_fds("Max open files            unlimited            unlimited            files\n"), None);
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        let fields: Vec<String> = (3..=30).map(|n| if n == 22 { "1250".to_owned() } else { "0".to_owned() }).collect();
        let process = format!("17 (a (odd) name) {}", fields.join(" "));
        assert_eq!(start_time(&process, "cpu 1 2 3\nbtime 1700000000\nprocesses 7\n"), Some(1_700_000_012.5));
    }

    #[test]
    fn this_process_is_described() {
        let mut page = Page::default();
        write(&mut page);
        let value = |name: &str| {
            let line =
                page.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{name}"));
            line.parse::<f64>().unwrap()
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        let booted_once = 1_500_000_000.0;
        assert!(value("process_start_time_seconds") > booted_once);
    }
}
