//! Sampling a thousand containers: the sampler's own code over files with the kernel's names and texts, in both layouts of cgroups.

use std::path::Path;

use super::row::{Row, Rows};
use crate::agent::docker::bench::SimulatedHost;

const CONTAINERS: usize = 1_000;
const PASSES: usize = 20;

/// In memory where there is a file system of it, as the kernel's own are.
pub fn measure() -> anyhow::Result<Rows> {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let dir = base.join(format!("beaufort-bench-sampling-{}", std::process::id()));
    let measured = [false, true].into_iter().map(|v2| run(&dir.join(if v2 { "v2" } else { "v1" }), v2, CONTAINERS)).collect();
    // Best effort: it is a temporary directory.
    let _ = std::fs::remove_dir_all(&dir);
    measured
}

fn run(dir: &Path, v2: bool, containers: usize) -> anyhow::Result<Row> {
    let host = SimulatedHost::new(dir, v2, containers)?;
    let (passes, samples) = host.sample(PASSES)?;
    let whole =
        samples.iter().filter(|s| s.cpu_total_ns > 0 && s.memory_bytes > 0 && s.memory_limit_bytes > 0 && s.network.is_some());
    anyhow::ensure!(
        whole.count() == containers,
        "{} of {containers} containers were sampled, not all of them whole",
        samples.len()
    );
    // The first opens the files; a pass of ten percent of a second is ten percent of a core.
    let shares: Vec<f64> = passes.iter().skip(1).map(|pass| 100.0 * pass.as_secs_f64()).collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let version = if v2 { "v2" } else { "v1" };
    Ok(Row::of_runs(format!("sampling {containers} containers every second, cgroup {version} files"), shares, "% of a core")
        .at_most(4.0)
        .grows("linear in containers: seven small reads each")
        .note(format!(
            "{:.1} us a container-sample, {mean:.1} % in the mean; simulated files, which cost less to read than the kernel's: those are \
             in the figure with real containers",
            mean * 1e4 / containers as f64
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_is_sampled_whole_in_both_layouts() {
        let dir = std::env::temp_dir().join(format!("beaufort-bench-sampling-test-{}", std::process::id()));
        for v2 in [false, true] {
            let row = run(&dir.join(v2.to_string()), v2, 20);
            assert_eq!(row.unwrap().values.len(), PASSES - 1);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
