"""Owns the dashboard of one service: its golden signals, its capacity and why it changed, its deployments, its use of resources."""

from . import terms
from .parts import (Board, Column, ERRORS, GREEN, GREY, ORANGE, RATE, RATIO, RED, SERVICE, changes, clusters, dashed, data_link, datasource,
                    heatmap, lines, query, services, stat, states, steps, table)

NAME = "{{cluster}}/{{service}}"
TO_TASK = [data_link("Tasks and containers", "beaufort-tasks", cluster="${__data.fields.cluster}", service="${__data.fields.service}",
                     task="${__data.fields.task}")]
ALARM = [(0, "OK", GREEN), (1, "INSUFFICIENT_DATA", GREY), (2, "ALARM", RED)]
BOUNDS = [dashed("max$", RED), dashed("min$", GREY)]


def gauge(name, selector=SERVICE):
    return f"sum by (cluster, service) ({name}{{{selector}}})"


def capacity(width=12):
    """Also the heart of the autoscaling dashboard."""
    return lines("Capacity", "Tasks wanted, running and on their way, between the bounds that scaling may use. Wanted above running for long: see "
                 "`beaufort why service/NAME`.", "short", [
                     query(gauge("beaufort_service_desired_tasks"), NAME + " desired"),
                     query(gauge("beaufort_service_running_tasks"), NAME + " running"),
                     query(gauge("beaufort_service_pending_tasks"), NAME + " pending"),
                     query(gauge("beaufort_service_min_tasks"), NAME + " min"),
                     query(gauge("beaufort_service_max_tasks"), NAME + " max")], width, step=True, low=0, overrides=BOUNDS)


def alarms(title, description, keys, legend, selector=SERVICE, width=12):
    return states(title, description, query(terms.alarm_states(keys, selector), legend), ALARM, width)


def board():
    made = Board("beaufort-service", "Service", "Is this service well, does it have the capacity it needs, and why did that change?",
                 [datasource(), clusters(), services()], changes())
    made.row(
        "Now",
        stat("Running", "Tasks RUNNING.", "short", query(f"sum(beaufort_service_running_tasks{{{SERVICE}}})", "running"), width=3),
        stat("Desired", "Tasks wanted.", "short", query(f"sum(beaufort_service_desired_tasks{{{SERVICE}}})", "desired"), width=3),
        stat("Requests", "Answered requests a second.", "reqps", query(terms.request_rate(()), "requests"), width=3,
             decimals=1),
        stat("Errors", "Share of answers with a 5xx. No value: no answers.", "percentunit",
             query(terms.error_ratio(()), "errors"), ERRORS, 3, decimals=2),
        stat("p95", "95 % of requests were answered within this time.", "s", query(terms.latency(0.95, ()), "p95"), width=3),
        stat("CPU of reserved", "CPU used, of what the tasks reserved.", "percentunit",
             query(terms.cpu_ratio(()), "CPU"), RATIO, 3, decimals=0),
        stat("Fullest memory", "Of the container nearest to its memory limit.", "percentunit",
             query(terms.memory_ratio(()), "memory"), RATIO, 3, decimals=0),
        stat("Alarms open", "Alarms of the service in ALARM.", "short", query(f'sum(beaufort_alarm_state{{{SERVICE},state="ALARM"}}) or vector(0)', "alarms"),
             steps(GREEN, (1, ORANGE)), 3),
    )
    made.row(
        "Golden signals (of the application: app_*)",
        lines("Traffic by code", "Answered requests a second, by status code.", "reqps",
              query(f"sum by (code) (rate({terms.REQUESTS}{{{SERVICE}}}{RATE}))", "{{code}}"), stack=True, low=0),
        lines("Errors", "Share of answers with a 5xx.", "percentunit", query(terms.error_ratio(), NAME), thresholds=ERRORS, low=0),
        lines("Latency", "Quantiles of the time to an answer. Marks on the lines are exemplars, where the application gives some: click one for its "
              "trace.", "s", [query(terms.latency(q, ()), f"p{n}", exemplar=True) for q, n in ((0.5, 50), (0.95, 95), (0.99, 99))], low=0),
        heatmap("Where answers fall", "How many answers took how long. Two bands are two kinds of request, or tasks that are not alike.", "s",
                query(f"sum by (le) (increase({terms.DURATION}_bucket{{{SERVICE}}}{RATE}))", "{{le}}", heatmap=True)),
        lines("Requests under way in each task", "Saturation: what tasks hold at the moment. Growing while traffic does not: the task is full.", "short",
              query(f"sum by (cluster, service, task) ({terms.IN_FLIGHT}{{{SERVICE}}})", "{{task}}"), low=0),
        lines("Traffic of each task", "Whether load is spread evenly.", "reqps",
              query(f"sum by (cluster, service, task) (rate({terms.REQUESTS}{{{SERVICE}}}{RATE}))", "{{task}}"), low=0),
    )
    made.row(
        "Capacity and scaling",
        capacity(),
        lines("Scaled metrics, of target", "The newest value of each target-tracking policy's metric, divided by its target. The policy keeps it at 1.",
              "percentunit", query(f"max by (cluster, service, policy) (beaufort_scaling_policy_metric{{{SERVICE}}} / (beaufort_scaling_policy_target"
                                   f"{{{SERVICE}}} > 0))", NAME + " {{policy}}"), thresholds=steps("transparent", (1, ORANGE)), low=0),
        lines("Decisions", "What policies answered when they were asked: applied, held back by a cooldown, at a bound, or why not.", "short",
              query(f"sum by (policy, direction, outcome) (increase(beaufort_scaling_decisions_total{{{SERVICE}}}{RATE})) > 0",
                    "{{policy}} {{direction}} {{outcome}}"), bars=True, stack=True, calcs=("sum",)),
        alarms("Alarms", "States of the service's alarms, whoever raised them.", ("cluster", "service", "alarm", "source"), "{{alarm}}"),
    )
    made.row(
        "Deployments",
        lines("Tasks by deployment", "During a rolling update the old deployment's tasks go as the new one's come.", "short", [
            query(f"sum by (cluster, service, revision, status) (beaufort_deployment_running_tasks{{{SERVICE}}})", NAME + ":{{revision}} {{status}} running"),
            query(f"sum by (cluster, service, revision, status) (beaufort_deployment_desired_tasks{{{SERVICE}}})", NAME + ":{{revision}} {{status}} desired")],
            step=True, low=0, overrides=[dashed("desired$", GREY)]),
        lines("Tasks that failed to start", "In a row, of the newest deployment. The circuit breaker counts these.", "short",
              query(gauge("beaufort_deployment_failed_tasks"), NAME), width=6, step=True, thresholds=steps("transparent", (1, RED)), low=0),
        lines("Deployments that ended", "By outcome.", "short",
              query(f"sum by (cluster, service, outcome) (increase(beaufort_deployments_total{{{SERVICE}}}{RATE}))", NAME + " {{outcome}}"), width=6,
              bars=True, calcs=("sum",)),
    )
    made.row(
        "Resources",
        lines("CPU of reserved", "CPU used by the service's tasks, of what they reserved. A container's `cpu` is a share and may be passed, a task's "
              "`cpu` is a limit.", "percentunit", query(terms.cpu_ratio(), NAME), thresholds=steps("transparent", (0.9, RED)), low=0),
        lines("Fullest memory", "Of the container nearest to its limit; at 1 the kernel kills it.", "percentunit", query(terms.memory_ratio(), NAME),
              thresholds=steps("transparent", (0.9, RED)), low=0),
        table("Tasks", "The service's tasks now. Click one for its containers.", ("cluster", "service", "task", "revision"), [
            Column("CPU", terms.cpu_used(("cluster", "service", "task", "revision")), "short", decimals=3),
            Column("CPU of reserved", terms.cpu_ratio(("cluster", "service", "task", "revision")), "percentunit", RATIO, 0),
            Column("Memory", f"sum by (cluster, service, task, revision) (container_memory_working_set_bytes{{{SERVICE}}})", "bytes"),
            Column("Fullest memory", terms.memory_ratio(("cluster", "service", "task", "revision")), "percentunit", RATIO, 0),
            Column("Up for", f"min by (cluster, service, task, revision) (time() - container_start_time_seconds{{{SERVICE}}})", "s"),
        ], links=TO_TASK, sort="CPU"),
    )
    return made
