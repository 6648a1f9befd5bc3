"""Owns the dashboard of tasks and containers: what each one uses, what holds it back, and why tasks stopped."""

from .parts import (Board, CLUSTER, Column, GREEN, GREY, ORANGE, RATE, RATIO, RED, changes, clusters, data_link, datasource, lines, query, services, stat,
                    states, steps, table, variable)

# A task that belongs to no service has an empty label: with All chosen it is shown, too.
OWNER = CLUSTER + ',service=~"$service"'
CONTAINER = OWNER + ',task=~"$task",container=~"$container"'
TASK = OWNER + ',task=~"$task"'
EACH, NAME = ("cluster", "service", "task", "container"), "{{container}} {{task}}"
BY = ", ".join(EACH)
TO_LOGS = [data_link("Logs and traces", "beaufort-logs-traces", cluster="${__data.fields.cluster}", service="${__data.fields.service}"),
           data_link("Service", "beaufort-service", cluster="${__data.fields.cluster}", service="${__data.fields.service}")]


def rate(name, selector=CONTAINER):
    return f"sum by ({BY}) (rate({name}{{{selector}}}{RATE}))"


def gauge(name, how="sum"):
    return f"{how} by ({BY}) ({name}{{{CONTAINER}}})"


def throttled():
    return f"{rate('container_cpu_cfs_throttled_periods_total')} / ({rate('container_cpu_cfs_periods_total')} > 0)"


def memory_ratio():
    return (f"max by ({BY}) (container_memory_working_set_bytes{{{CONTAINER}}} / (container_spec_memory_limit_bytes{{{CONTAINER}}} > 0))")


def health():
    """0 is HEALTHY, 1 is UNKNOWN, 2 is UNHEALTHY."""
    def of(state, weight):
        return f'{weight} * beaufort_container_health{{{CONTAINER},state="{state}"}}'
    return f"max by ({BY}) ({of('UNHEALTHY', 2)} or {of('UNKNOWN', 1)} or {of('HEALTHY', 0)})"


def board():
    variables = [datasource(), clusters(), services(".*"),
                 variable("task", "Task", f"label_values(container_last_seen{{{OWNER}}}, task)"),
                 variable("container", "Container", f"label_values(container_last_seen{{{TASK}}}, container)")]
    made = Board("beaufort-tasks", "Tasks and containers", "What does each container use, what holds it back, and why do tasks stop?", variables,
                 changes(OWNER), since="now-30m")
    made.row(
        "Now",
        stat("Tasks", "Tasks with a container that is measured.", "short", query(f"count(count by (task) (container_last_seen{{{CONTAINER}}}))", "tasks")),
        stat("Containers", "Containers that are measured.", "short", query(f"count(container_last_seen{{{CONTAINER}}})", "containers")),
        stat("CPU", "Cores in use.", "short", query(f"sum(rate(container_cpu_usage_seconds_total{{{CONTAINER}}}{RATE}))", "cores"), decimals=2),
        stat("Memory", "Working set.", "bytes", query(f"sum(container_memory_working_set_bytes{{{CONTAINER}}})", "memory")),
        stat("Killed for memory", "Containers that the kernel ended, in the time shown.", "short",
             query(f'sum(increase(beaufort_container_oom_kills_total{{{OWNER},container=~"$container"}}[$__range]))', "times"), steps(GREEN, (1, RED)), spark=False, decimals=0),
        stat("Containers not healthy", "Containers whose health check says UNHEALTHY now.", "short",
             query(f'sum(beaufort_container_health{{{CONTAINER},state="UNHEALTHY"}}) or vector(0)', "containers"), steps(GREEN, (1, RED))),
    )
    made.row(
        "CPU",
        lines("CPU", "Cores that each container uses.", "short", query(rate("container_cpu_usage_seconds_total"), NAME), width=8, low=0),
        lines("CPU of the task's reservation", "All containers of a task against what the task reserved. Over 1: only containers have a `cpu`, which is a "
              "share, and the task uses what others left.", "percentunit",
              query(f"sum by (cluster, service, task) (rate(container_cpu_usage_seconds_total{{{CONTAINER}}}{RATE})) / "
                    f"(max by (cluster, service, task) (container_spec_cpu_shares{{{CONTAINER}}}) / 1024 > 0)", "{{task}}"), width=8, low=0,
              thresholds=steps("transparent", (1, ORANGE))),
        lines("Throttled", "Share of the scheduler's periods in which the container wanted to run and was not let. Slow answers with idle CPUs: look here.",
              "percentunit", query(throttled(), NAME), width=8, low=0, thresholds=steps("transparent", (0.25, RED))),
    )
    made.row(
        "Memory",
        lines("Memory", "Working set: what the kernel cannot take back.", "bytes", query(gauge("container_memory_working_set_bytes"), NAME), width=8, low=0),
        lines("Memory of the limit", "At 1 the kernel kills it. Containers without a limit have no line.", "percentunit", query(memory_ratio(), NAME), width=8,
              low=0, thresholds=steps("transparent", (0.9, RED))),
        lines("Anonymous memory and page cache", "Anonymous memory that only grows is a leak; cache goes when it is needed.", "bytes", [
            query(gauge("container_memory_rss"), NAME + " anonymous"), query(gauge("container_memory_cache"), NAME + " cache")], width=8, low=0),
    )
    made.row(
        "Network and disk",
        lines("Network", "Bytes a second of each task's network: received above, sent below.", "Bps", [
            query(f"sum by (cluster, service, task) (rate(container_network_receive_bytes_total{{{CONTAINER}}}{RATE}))", "{{task}} received"),
            query(f"-sum by (cluster, service, task) (rate(container_network_transmit_bytes_total{{{CONTAINER}}}{RATE}))", "{{task}} sent")], width=8),
        lines("Packets lost", "Dropped or broken, in either direction.", "pps",
              query(" + ".join(f"sum by (cluster, service, task) (rate(container_network_{what}_total{{{CONTAINER}}}{RATE}))" for what in (
                  "receive_errors", "receive_packets_dropped", "transmit_errors", "transmit_packets_dropped")), "{{task}}"), width=8, low=0),
        lines("Disk", "Bytes a second of block devices: read above, written below.", "Bps", [
            query(rate("container_fs_reads_bytes_total"), NAME + " read"), query("-" + rate("container_fs_writes_bytes_total"), NAME + " written")], width=8),
    )
    made.row(
        "Life",
        states("Health", "Of containers with a health check.", query(health(), NAME),
               [(0, "HEALTHY", GREEN), (1, "UNKNOWN", GREY), (2, "UNHEALTHY", RED)], width=8),
        lines("Restarts", "How often each container was started again.", "short", query(f"max by ({BY}) (beaufort_container_restarts{{{CONTAINER}}})", NAME),
              width=8, step=True, low=0),
        lines("Tasks stopped, by code", "Of the chosen services.", "short",
              query(f"sum by (cluster, service, code) (increase(beaufort_task_stops_total{{{OWNER}}}{RATE}))", "{{service}} {{code}}"), width=8, bars=True,
              stack=True, calcs=("sum",)),
        table("Containers", "What runs now. `beaufort logs task/ID` shows its lines, `beaufort why task/ID` its story.",
              ("cluster", "service", "task", "container", "image"), [
                  Column("CPU", f"sum by ({BY}, image) (rate(container_cpu_usage_seconds_total{{{CONTAINER}}}{RATE}))", decimals=3),
                  Column("Memory", f"sum by ({BY}, image) (container_memory_working_set_bytes{{{CONTAINER}}})", "bytes"),
                  Column("Memory of limit", f"max by ({BY}, image) (container_memory_working_set_bytes{{{CONTAINER}}} / "
                                            f"(container_spec_memory_limit_bytes{{{CONTAINER}}} > 0))", "percentunit", RATIO, 0),
                  Column("Processes", f"sum by ({BY}, image) (container_processes{{{CONTAINER}}})"),
                  Column("Up for", f"max by ({BY}, image) (time() - container_start_time_seconds{{{CONTAINER}}})", "s")],
              links=TO_LOGS, sort="CPU"),
    )
    return made
