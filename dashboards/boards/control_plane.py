"""Owns the dashboard of Beaufort itself: calls, loops, store, Docker and the process."""

from .parts import (ANY_IS_BAD, Board, Column, ERRORS, GREEN, ORANGE, RATE, RED, YELLOW, dashed, datasource, explore_link, lines, query, stat, steps, table,
                    variable)

# Which Beaufort, where several are scraped. `instance` is Prometheus' own label of a target.
SELF = 'instance=~"$instance"'
LAG = steps(GREEN, (15, YELLOW), (30, RED))
TRACES = [explore_link("Traces of this operation", "${traces_datasource}", "jaeger", queryType="search", service="beaufort",
                       operation="${__data.fields.aws_service}.${__data.fields.operation}")]
CALLS = ("aws_service", "operation")
MISTAKE, FAULT = ',code="4xx"', ',code="5xx"'
# Every process has process_* metrics: only those of Beauforts are meant, whatever else the data source scrapes.
OWN = f"* on (instance) group_left () (beaufort_info{{{SELF}}})"


def of(name, more=""):
    return f"{name}{{{SELF}{more}}}"


def rate(name, more="", window=RATE):
    return f"rate({of(name, more)}{window})"


def quantile(q, name, keys, window=RATE):
    return f"histogram_quantile({q}, sum by ({', '.join([*keys, 'le'])}) ({rate(name + '_bucket', window=window)}))"


def mean(name, keys, window=RATE):
    by = f"sum by ({', '.join(keys)})" if keys else "sum"
    return f"{by} ({rate(name + '_sum', window=window)}) / ({by} ({rate(name + '_count', window=window)}) > 0)"


def called(more=""):
    """Calls of each operation in the time shown. Most of the operations that are served were never called: rows are those that were."""
    return f"sum by (aws_service, operation) (increase({of('beaufort_api_requests_total', more)}[$__range]))"


def board():
    variables = [datasource(), datasource("traces_datasource", "jaeger", "Traces"),
                 variable("instance", "Beaufort", "label_values(beaufort_info, instance)")]
    made = Board("beaufort-control-plane", "Control plane", "Is Beaufort itself well: does it answer, do its loops turn, does it write, does Docker answer?",
                 variables)
    made.row(
        "Now",
        stat("Up for", "Since its start.", "s", query(of("beaufort_uptime_seconds"), "{{instance}}"), width=3, spark=False),
        stat("Calls", "AWS calls answered a second.", "reqps", query(f"sum({rate('beaufort_api_requests_total')})", "calls"), width=3, decimals=1),
        stat("Calls that failed", "Share answered with a 5xx: Beaufort's own fault.", "percentunit",
             query(f"sum({rate('beaufort_api_requests_total', FAULT)}) / (sum({rate('beaufort_api_requests_total')}) > 0)", "failed"), ERRORS, 3,
             decimals=2, no_value="no calls"),
        stat("Calls, p99", "99 % of calls were answered within this time.", "s", query(quantile(0.99, "beaufort_api_request_duration_seconds", ()), "p99"),
             width=3, no_value="no calls"),
        stat("Oldest loop", "Every loop says at least each 5 s that it lives; this is the one that was heard least lately.", "s",
             query(f"max(time() - {of('beaufort_reconcile_last_success_timestamp_seconds')})", "age"), LAG, 3),
        stat("Commits that failed", "State that could not be made durable, in the time shown. Nothing acts on what is not on the disk.", "short",
             query(f"sum(increase({of('beaufort_store_failed_commits_total')}[$__range]))", "commits"), ANY_IS_BAD, 3, spark=False, decimals=0),
        stat("Dropped", "Samples, points and lines that were dropped because a bound was passed, in the time shown.", "short",
             query(f"sum(increase({of('beaufort_dropped_total')}[$__range]))", "dropped"), steps(GREEN, (1, ORANGE)), 3, spark=False, decimals=0),
        stat("Memory", "Resident.", "bytes", query(f"sum({of('process_resident_memory_bytes')} {OWN})", "memory"), width=3),
    )
    made.row(
        "API: rate, errors, duration",
        lines("Calls", "By AWS service and operation.", "reqps",
              query(f"sum by (aws_service, operation) ({rate('beaufort_api_requests_total')}) > 0", "{{aws_service}} {{operation}}"), width=8, stack=True,
              low=0),
        lines("Calls not answered with 2xx", "4xx: the caller's mistakes, and what we do not serve. 5xx: ours.", "reqps",
              query("sum by (aws_service, operation, code) (" + rate("beaufort_api_requests_total", ',code!="2xx"') + ") > 0",
                    "{{code}} {{aws_service}} {{operation}}"), width=8, low=0),
        lines("Time to answer, p99", "By operation. Changes wait for the disk, reads do not.", "s",
              query(quantile(0.99, "beaufort_api_request_duration_seconds", CALLS), "{{aws_service}} {{operation}}"), width=8, low=0),
        table("Every operation", "In the time shown. Click an operation for its traces (needs a Jaeger data source).", CALLS, [
            Column("Calls", f"{called()} > 0", decimals=0),
            Column("4xx", f"{called(MISTAKE)} and {called()} > 0", decimals=0, thresholds=steps("text", (1, YELLOW))),
            Column("5xx", f"{called(FAULT)} and {called()} > 0", decimals=0, thresholds=steps("text", (1, RED))),
            Column("Mean", mean("beaufort_api_request_duration_seconds", CALLS, "[$__range]"), "s"),
            Column("p50", quantile(0.5, "beaufort_api_request_duration_seconds", CALLS, "[$__range]") + " > 0", "s"),
            Column("p99", quantile(0.99, "beaufort_api_request_duration_seconds", CALLS, "[$__range]") + " > 0", "s",
                   steps(GREEN, (0.1, YELLOW), (1, RED)))],
              links=TRACES, sort="Calls", height=10),
    )
    made.row(
        "Loops",
        lines("Time since each loop's last pass", "Under 5 s is well. One line that climbs: that loop hangs, and what it does is not done.", "s",
              query(f"max by (instance, loop) (time() - {of('beaufort_reconcile_last_success_timestamp_seconds')})", "{{loop}}"), width=8, low=0,
              thresholds=steps("transparent", (30, RED))),
        lines("Time for one look at a service", "Its commit included.", "s",
              [query(quantile(q, "beaufort_reconcile_duration_seconds", ()), f"p{n}") for q, n in ((0.5, 50), (0.99, 99))], width=8, low=0),
        lines("Looks and evaluations", "Looks at services and evaluations of alarms, a second.", "ops", [
            query(f"sum({rate('beaufort_reconcile_duration_seconds_count')})", "services"),
            query(f"sum({rate('beaufort_alarm_evaluations_total')})", "alarms")], width=8, low=0),
    )
    made.row(
        "Store",
        lines("Changes and commits", "Changes asked for, and the durable commits that they shared.", "ops", [
            query(f"sum({rate('beaufort_store_updates_total')})", "changes"), query(f"sum({rate('beaufort_store_commits_total')})", "commits"),
            query(f"sum({rate('beaufort_store_failed_commits_total')})", "failed")], width=8, low=0, overrides=[dashed("failed", RED)]),
        lines("Time of a commit", "Mean: mostly the disk's sync. Every change waits for it.", "s",
              query(f"sum({rate('beaufort_store_commit_seconds_total')}) / (sum({rate('beaufort_store_commits_total')}) > 0)", "commit"), width=8, low=0),
        lines("What the state holds", "Rows by kind; stopped tasks are forgotten after an hour.", "short",
              query(f"sum by (kind) ({of('beaufort_state_rows')})", "{{kind}}"), width=8, low=0),
    )
    made.row(
        "Docker (of agents in this process)",
        lines("Calls to Docker", "By operation and outcome.", "ops",
              query(f"sum by (operation, outcome) ({rate('beaufort_docker_requests_total')}) > 0", "{{operation}} {{outcome}}"), width=8, stack=True, low=0),
        lines("Calls to Docker that failed", "By operation.", "short",
              query("sum by (operation) (increase(" + of("beaufort_docker_requests_total", ',outcome="error"') + RATE + "))", "{{operation}}"), width=8,
              bars=True, stack=True, calcs=("sum",)),
        lines("Time of calls to Docker, p99", "Starts take what Docker takes; pulls what the network takes.", "s",
              query(quantile(0.99, "beaufort_docker_request_duration_seconds", ("operation",)), "{{operation}}"), width=8, low=0, points=True),
    )
    made.row(
        "Process and what it keeps",
        lines("CPU", "Cores used by Beaufort itself.", "short", query(f"sum by (instance) ({rate('process_cpu_seconds_total')} {OWN})", "{{instance}}"),
              width=6, low=0),
        lines("Memory", "Resident.", "bytes", query(f"sum by (instance) ({of('process_resident_memory_bytes')} {OWN})", "{{instance}}"), width=6, low=0),
        lines("Open files", "Of what the process may open.", "percentunit",
              query(f"sum by (instance) ({of('process_open_fds')} / {of('process_max_fds')} {OWN})", "{{instance}}"), width=6, low=0,
              thresholds=steps("transparent", (0.8, RED))),
        lines("Metric series", "Series that the metrics store holds.", "short", query(f"sum by (instance) ({of('beaufort_metric_series')})", "{{instance}}"),
              width=6, low=0),
        lines("Stored", "Bytes of metrics and logs that are kept.", "bytes", [
            query(f"sum by (instance) ({of('beaufort_metric_bytes')})", "{{instance}} metrics"),
            query(f"sum by (instance) ({of('beaufort_log_stored_bytes')})", "{{instance}} logs")], width=8, low=0),
        lines("Dropped", "By what it was.", "short", query(f"sum by (what) (increase({of('beaufort_dropped_total')}{RATE}))", "{{what}}"), width=8, bars=True,
              stack=True, calcs=("sum",)),
        lines("Targets that service discovery lists", "Of `/sd/prometheus`, by service, and containers that ask to be scraped in a way "
              "that cannot be: `beaufort gaps` says why.", "short", [
                  query(f"sum by (cluster, service) ({of('beaufort_discovered_targets')})", "{{cluster}}/{{service}}"),
                  query(f"sum by (cluster, service) ({of('beaufort_discovery_skipped_targets')})", "{{cluster}}/{{service}} skipped")],
              width=8, step=True, low=0),
    )
    return made
