"""Owns the dashboard of container instances: what there is, what is reserved, what is used, and where the next task goes."""

from .parts import (ANY_IS_BAD, Board, CLUSTER, Column, GREEN, ORANGE, RATE, RATIO, RED, bargauge, changes, clusters, datasource, lines, query,
                    stat, states, steps, table, variable)

INSTANCE = CLUSTER + ',container_instance=~"$container_instance"'
HOST = "{{host}} {{container_instance}}"
KEYS = ("cluster", "host", "zone", "container_instance")
# An agent says every few seconds that it is there.
BEAT = steps(GREEN, (15, ORANGE), (60, RED))


def of(name, selector=INSTANCE):
    return f"beaufort_instance_{name}{{{selector}}}"


def by_instance(expr, how="sum"):
    return f"{how} by ({', '.join(KEYS)}) ({expr})"


def share_reserved(resource, of_all):
    expr = f"({of('registered_' + resource)} - {of('remaining_' + resource)})"
    return f"{of_all}({expr}) / {of_all}({of('registered_' + resource)})"


def yes_no(title, metric, good, bad):
    mapping = [{"type": "value", "options": {"1": {"text": good, "color": GREEN, "index": 0}, "0": {"text": bad, "color": RED, "index": 1}}}]
    return Column(title, by_instance(of(metric), "min"), mappings=mapping, thresholds=steps(RED, (1, GREEN)))


def board():
    variables = [datasource(), clusters(), variable("container_instance", "Instance",
                                                    f"label_values(beaufort_instance_connected{{{CLUSTER}}}, container_instance)")]
    made = Board("beaufort-instances", "Instances and capacity", "Is there room for the next task, is every host there, and is the load spread?", variables,
                 changes(CLUSTER))
    made.row(
        "Now",
        stat("Instances", "Container instances that are registered.", "short", query(f"count({of('connected')})", "instances"), width=3),
        stat("Away", "Instances whose agent is not connected.", "short", query(f"sum({of('connected')} == bool 0)", "instances"), ANY_IS_BAD, 3),
        stat("Without Docker", "Instances whose agent does not reach its Docker.", "short", query(f"sum({of('docker_up')} == bool 0)", "instances"),
             ANY_IS_BAD, 3),
        stat("Oldest heartbeat", "Of all instances: how long ago an agent was last heard.", "s",
             query(f"max(time() - {of('last_heartbeat_timestamp_seconds')})", "age"), BEAT, 3),
        stat("Tasks", "Tasks that have not stopped.", "short", query(f"sum({of('tasks')})", "tasks"), width=3),
        stat("CPU reserved", "Of all that the hosts have.", "percentunit", query(share_reserved("cpu_units", "sum"), "CPU"), RATIO, 3),
        stat("Memory reserved", "Of all that tasks may reserve.", "percentunit", query(share_reserved("memory_bytes", "sum"), "memory"), RATIO, 3),
        stat("Tasks without a place", "Wanted by services, and no instance has room or fits.", "short",
             query(f"sum(beaufort_service_unplaceable_tasks{{{CLUSTER}}})", "tasks"), ANY_IS_BAD, 3),
    )
    made.row(
        "CPU and memory",
        lines("CPU: used, reserved, registered", "Cores, of the chosen clusters. Used far below reserved: tasks reserve more than they need.", "short", [
            query(f"sum by (cluster) (rate(container_cpu_usage_seconds_total{{{CLUSTER}}}{RATE}))", "{{cluster}} used"),
            query(f"sum by (cluster) ({of('registered_cpu_units')} - {of('remaining_cpu_units')}) / 1024", "{{cluster}} reserved"),
            query(f"sum by (cluster) ({of('registered_cpu_units')}) / 1024", "{{cluster}} registered")], low=0),
        lines("Memory: used, reserved, registered", "Working set of the containers, what tasks reserved, what they may reserve.", "bytes", [
            query(f"sum by (cluster) (container_memory_working_set_bytes{{{CLUSTER}}})", "{{cluster}} used"),
            query(f"sum by (cluster) ({of('registered_memory_bytes')} - {of('remaining_memory_bytes')})", "{{cluster}} reserved"),
            query(f"sum by (cluster) ({of('registered_memory_bytes')})", "{{cluster}} registered")], low=0),
        bargauge("CPU left on each instance", "Units that no task has reserved; 1024 are a core. A task needs its whole reservation on one instance.",
                 "short", query(by_instance(of("remaining_cpu_units")), HOST, instant=True), thresholds=steps(RED, (256, ORANGE), (1024, GREEN)), low=0),
        bargauge("Memory left on each instance", "Memory that no task has reserved.", "bytes",
                 query(by_instance(of("remaining_memory_bytes")), HOST, instant=True),
                 thresholds=steps(RED, (134217728, ORANGE), (1073741824, GREEN)), low=0),
        lines("CPU reserved on each instance", "Of what the host has.", "percentunit",
              query(f"1 - {by_instance(of('remaining_cpu_units'))} / {by_instance(of('registered_cpu_units'))}", HOST),
              thresholds=steps("transparent", (0.9, RED)), low=0),
        lines("Memory reserved on each instance", "Of what tasks may reserve there.", "percentunit",
              query(f"1 - {by_instance(of('remaining_memory_bytes'))} / {by_instance(of('registered_memory_bytes'))}", HOST),
              thresholds=steps("transparent", (0.9, RED)), low=0),
    )
    made.row(
        "Placement",
        lines("Tasks on each instance", "Tasks that have not stopped.", "short", query(by_instance(of("tasks")), HOST), width=8, step=True, low=0),
        lines("Spread", "Standard deviation of tasks over a cluster's instances: 0 is an even spread. binpack raises it on purpose.", "short",
              query(f"stddev by (cluster) ({of('tasks')})", "{{cluster}}"), width=4, low=0),
        lines("Placements", "Tasks that were given an instance, and tasks that found none.", "short",
              query(f"sum by (outcome) (increase(beaufort_placements_total{RATE}))", "{{outcome}}"), width=6, bars=True, stack=True, calcs=("sum",)),
        lines("Tasks without a place", "By service.", "short",
              query(f"sum by (cluster, service) (beaufort_service_unplaceable_tasks{{{CLUSTER}}})", "{{cluster}}/{{service}}"), width=6, step=True, low=0),
    )
    made.row(
        "Instances",
        states("Connected", "When each instance's agent was there.", query(by_instance(of("connected"), "min"), HOST),
               [(0, "away", RED), (1, "connected", GREEN)]),
        lines("Age of heartbeats", "How long ago each agent was last heard. A saw of a few seconds is well.", "s",
              query(by_instance(f"time() - {of('last_heartbeat_timestamp_seconds')}", "max"), HOST), thresholds=steps("transparent", (60, RED)), low=0),
        table("Instances", "One line for each host.", KEYS, [
            yes_no("Agent", "connected", "connected", "away"), yes_no("Docker", "docker_up", "up", "away"),
            Column("Heartbeat", by_instance(f"time() - {of('last_heartbeat_timestamp_seconds')}", "max"), "s", BEAT, 1),
            Column("Tasks", by_instance(of("tasks"))),
            Column("CPU units", by_instance(of("registered_cpu_units"))), Column("CPU left", by_instance(of("remaining_cpu_units"))),
            Column("Memory", by_instance(of("registered_memory_bytes")), "bytes"),
            Column("Memory left", by_instance(of("remaining_memory_bytes")), "bytes")], sort="host", descending=False),
    )
    return made
