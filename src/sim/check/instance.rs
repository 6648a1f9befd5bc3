//! No instance carries more than it has: CPU, memory and host ports of its tasks that have not stopped.

use std::collections::BTreeSet;

use crate::model::InstanceId;
use crate::sim::seen::Seen;

pub fn overcommitted(seen: &Seen, id: &InstanceId) -> Vec<String> {
    let Some(instance) = seen.instances.get(id) else { return Vec::new() };
    let (mut cpu, mut memory) = (0, 0);
    let mut ports: BTreeSet<(&str, u16)> = instance.reserved_tcp_ports.iter().map(|p| ("tcp", *p)).collect();
    let mut twice = Vec::new();
    for task in seen.live_of_instance(id) {
        cpu += task.reserved.cpu;
        memory += task.reserved.memory;
        let tcp = task.reserved.tcp_ports.iter().map(|p| ("tcp", *p));
        for port in tcp.chain(task.reserved.udp_ports.iter().map(|p| ("udp", *p))) {
            if !ports.insert(port) {
                twice.push(port);
            }
        }
    }
    let has = &instance.registered;
    let mut broken = Vec::new();
    if cpu > has.cpu || memory > has.memory {
        broken.push(format!("instance {id} is overcommitted: {cpu} of {} CPU units, {memory} of {} MiB", has.cpu, has.memory));
    }
    if !twice.is_empty() {
        broken.push(format!("instance {id} gave ports twice: {twice:?}"));
    }
    broken
}
