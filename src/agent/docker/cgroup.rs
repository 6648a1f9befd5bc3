//! Where a container's cgroup is, and the tasks' own parent cgroups. Knows v1, v2 and hybrid hosts, and both of Docker's drivers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Docker's facts that decide where things are.
#[derive(Clone, Debug)]
pub struct Host {
    pub proc: PathBuf,
    pub systemd: bool,
    pub v2: bool,
    /// The mount point of each v1 controller; "" is v2's.
    mounts: BTreeMap<String, PathBuf>,
}

impl Host {
    /// `root` is the host's /sys/fs/cgroup as this process sees it.
    pub fn new(proc: PathBuf, root: &Path, systemd: bool, v2: bool) -> Host {
        // The kernel may leave out a line when something is mounted meanwhile, as by every start of a container: read until two
        // readings agree.
        let read = || fs::read_to_string(proc.join("1/mountinfo")).map(|text| mounts(&text, root)).unwrap_or_default();
        let mut found = read();
        for _ in 0..10 {
            let again = read();
            if again == found {
                break;
            }
            found = again;
        }
        Host { proc, systemd, v2, mounts: found }
    }
}

/// The directory of each v1 controller; "" is v2's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directories(BTreeMap<String, PathBuf>);

impl Directories {
    pub fn of(&self, controller: &str) -> Option<&Path> {
        self.0.get(controller).map(PathBuf::as_path)
    }
    pub fn is_v1(&self) -> bool {
        self.0.contains_key("cpuacct")
    }
    /// The same directories, one level up.
    pub fn parent(&self) -> Directories {
        Directories(self.0.iter().filter_map(|(c, d)| Some((c.clone(), d.parent()?.to_owned()))).collect())
    }
}

/// The directories of a running container: by its process where the reader is in the host's cgroup namespace, else by convention.
pub fn find(host: &Host, pid: i64, parent: Option<&str>, id: &str) -> io::Result<Directories> {
    let mounts = &host.mounts;
    let by_process = fs::read_to_string(host.proc.join(format!("{pid}/cgroup"))).ok().and_then(|text| of_process(&text, mounts));
    let found = by_process.unwrap_or_else(|| {
        let path = by_convention(host.systemd, parent.unwrap_or_default(), id);
        Directories(mounts.iter().map(|(c, point)| (c.clone(), point.join(path.trim_start_matches('/')))).collect())
    });
    let probe = if found.is_v1() { found.of("cpuacct") } else { found.of("") };
    match probe {
        Some(directory) => fs::metadata(directory).map(|_| found),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted")),
    }
}

/// The mount point of each v1 controller and of v2, moved under `root`.
fn mounts(mountinfo: &str, root: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in mountinfo.lines() {
        let Some((head, tail)) = line.split_once(" - ") else { continue };
        let Some(point) = head.split(' ').nth(4) else { continue };
        let Ok(below) = Path::new(point).strip_prefix("/sys/fs/cgroup") else { continue };
        let point = root.join(below);
        let mut tail = tail.split(' ');
        match tail.next() {
            Some("cgroup2") => {
                found.entry(String::new()).or_insert(point);
            }
            Some("cgroup") => {
                for option in tail.nth(1).unwrap_or_default().split(',') {
                    found.entry(option.to_owned()).or_insert_with(|| point.clone());
                }
            }
            _ => {}
        }
    }
    found
}

/// From /proc/PID/cgroup. None when the paths are relative to another cgroup namespace.
fn of_process(text: &str, mounts: &BTreeMap<String, PathBuf>) -> Option<Directories> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        if path.starts_with("/..") {
            return None;
        }
        for controller in controllers.split(',') {
            if let Some(point) = mounts.get(controller) {
                found.insert(controller.to_owned(), point.join(path.trim_start_matches('/')));
            }
        }
    }
    Some(Directories(found))
}

/// Where Docker's drivers put a container; needs only its id and its CgroupParent.
fn by_convention(systemd: bool, parent: &str, id: &str) -> String {
    if !systemd {
        let parent = if parent.is_empty() { "docker" } else { parent.trim_matches('/') };
        return format!("/{parent}/{id}");
    }
    let slice = if parent.is_empty() { "system.slice" } else { parent };
    // a-b.slice lives in a.slice/a-b.slice.
    let (mut path, mut upto) = (String::new(), String::new());
    for part in slice.trim_end_matches(".slice").split('-') {
        if !upto.is_empty() {
            upto.push('-');
        }
        upto.push_str(part);
        path.push_str(&format!("/{upto}.slice"));
    }
    format!("{path}/docker-{id}.scope")
}

const CPU_PERIOD_US: u64 = 100_000;

/// Makes a task's parent cgroup with its limits and says its name for Docker. None where this cannot be done: the systemd driver
/// (systemd would undo direct writes) or no write access.
pub fn make_task_group(host: &Host, group: &str, cpu: Option<u32>, memory: Option<u32>) -> io::Result<String> {
    if host.systemd {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "Docker uses the systemd cgroup driver"));
    }
    let mounts = &host.mounts;
    let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, format!("no {what} controller"));
    let below = group.trim_start_matches('/');
    // The ECS agent's rule: quota = vCPU x period, with a period of 100 ms.
    let quota = cpu.map(|units| u64::from(units) * CPU_PERIOD_US / 1024);
    let memory = memory.map(|mebibytes| u64::from(mebibytes) << 20);
    if host.v2 {
        let root = mounts.get("").ok_or_else(|| missing("v2"))?;
        let mut directory = root.clone();
        for part in below.split('/') {
            fs::write(directory.join("cgroup.subtree_control"), "+cpu +memory +pids +io")?;
            directory.push(part);
            fs::create_dir_all(&directory)?;
        }
        fs::write(directory.join("cgroup.subtree_control"), "+cpu +memory +pids +io")?;
        if let (Some(quota), Some(units)) = (quota, cpu) {
            fs::write(directory.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))?;
            fs::write(directory.join("cpu.weight"), weight(units).to_string())?;
        }
        if let Some(memory) = memory {
            fs::write(directory.join("memory.max"), memory.to_string())?;
        }
    } else {
        if let (Some(quota), Some(units)) = (quota, cpu) {
            let directory = mounts.get("cpu").ok_or_else(|| missing("cpu"))?.join(below);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("cpu.shares"), units.max(2).to_string())?;
            fs::write(directory.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
            fs::write(directory.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        if let Some(memory) = memory {
            let directory = mounts.get("memory").ok_or_else(|| missing("memory"))?.join(below);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("memory.limit_in_bytes"), memory.to_string())?;
        }
    }
    Ok(format!("/{below}"))
}

/// runc's conversion of shares to v2's weight.
fn weight(shares: u32) -> u64 {
    1 + (u64::from(shares.clamp(2, 262_144)) - 2) * 9999 / 262_142
}

/// Docker never removes parents. One that still has children stays, without error.
pub fn remove_group(host: &Host, group: &str) {
    let points: BTreeSet<&PathBuf> = host.mounts.values().collect();
    for point in points {
        // Fails harmlessly where the group does not exist or is in use.
        let _ = fs::remove_dir(point.join(group.trim_start_matches('/')));
    }
}

/// The tasks' groups below `parent` that exist: those left by a crash are removed by their names.
pub fn groups_below(host: &Host, parent: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    for point in host.mounts.values() {
        let Ok(entries) = fs::read_dir(point.join(parent.trim_start_matches('/'))) else { continue };
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n\
        32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd\n\
        33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
        34 30 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";

    #[test]
    fn hybrid_host_seen_from_a_container() {
        let mounts = mounts(HYBRID, Path::new("/host/cgroup"));
        let text = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/system.slice/containerd\n";
        let found = of_process(text, &mounts).unwrap();
        assert!(found.is_v1());
        assert_eq!(found.of("cpuacct"), Some(Path::new("/host/cgroup/cpu,cpuacct/docker/abc")));
        assert_eq!(found.of("memory"), Some(Path::new("/host/cgroup/memory/docker/abc")));
        assert_eq!(found.parent().of("memory"), Some(Path::new("/host/cgroup/memory/docker")));
        assert_eq!(of_process("0::/../../x\n", &mounts), None, "another cgroup namespace");
    }

    #[test]
    fn version_2_only() {
        let mounts = mounts("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n", Path::new("/sys/fs/cgroup"));
        let found = of_process("0::/system.slice/docker-abc.scope\n", &mounts).unwrap();
        assert!(!found.is_v1());
        assert_eq!(found.of(""), Some(Path::new("/sys/fs/cgroup/system.slice/docker-abc.scope")));
    }

    #[test]
    fn conventions() {
        assert_eq!(by_convention(false, "", "id"), "/docker/id");
        assert_eq!(by_convention(false, "/beaufort/t", "id"), "/beaufort/t/id");
        assert_eq!(by_convention(true, "", "id"), "/system.slice/docker-id.scope");
        assert_eq!(by_convention(true, "beaufort-t.slice", "id"), "/beaufort.slice/beaufort-t.slice/docker-id.scope");
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }
}
