"""Owns the overview: is everything as it should be, and where not, where to look."""

from . import terms
from .parts import (ANY_IS_BAD, ANY_IS_ODD, Board, CLUSTER, Column, ERRORS, ORANGE, RATE, RATIO, changes, clusters, data_link, datasource,
                    labels_table, lines, query, stat, steps, table)

# An alarm on a metric of one's own belongs to no cluster, and an alert on Beaufort itself neither.
ANY = 'cluster=~"$cluster|"'
TO_SERVICE = [data_link("Service", "beaufort-service", cluster="${__data.fields.cluster}", service="${__data.fields.service}"),
              data_link("Autoscaling", "beaufort-autoscaling", cluster="${__data.fields.cluster}", service="${__data.fields.service}")]
SERIES_TO_SERVICE = [data_link("Service", "beaufort-service", cluster="${__field.labels.cluster}", service="${__field.labels.service}")]
BOTH = ("cluster", "service")


def gauge(name):
    return f"sum by (cluster, service) ({name}{{{CLUSTER}}})"


def board():
    made = Board("beaufort-overview", "Overview", "Every cluster and service at a glance: what runs, what lacks, what is busy, what changed.",
                 [datasource(), clusters()], changes(CLUSTER))
    made.row(
        "Now",
        stat("Services", "Services that are not deleted.", "short", query(f"count(beaufort_service_desired_tasks{{{CLUSTER}}})", "services"), width=3),
        stat("Services below desired", "Services with fewer tasks running than wanted. For seconds after a scale-out or in a deployment this is as "
             "it should be; longer, see the table.", "short",
             query(f"sum(beaufort_service_running_tasks{{{CLUSTER}}} < bool beaufort_service_desired_tasks{{{CLUSTER}}})", "services"), ANY_IS_ODD, 3),
        stat("Tasks running", "Tasks of services that are RUNNING.", "short", query(f"sum(beaufort_service_running_tasks{{{CLUSTER}}})", "tasks"), width=3),
        stat("Tasks without a place", "Tasks that are wanted and neither run nor are on their way. `beaufort why service/NAME` says what every "
             "instance lacks.", "short", query(f"sum(beaufort_service_unplaceable_tasks{{{CLUSTER}}})", "tasks"), ANY_IS_BAD, 3),
        stat("Instances away", "Container instances whose agent is not connected. Their tasks run on, but nothing new starts there.", "short",
             query(f"sum(beaufort_instance_connected{{{CLUSTER}}} == bool 0)", "instances"), ANY_IS_BAD, 3),
        stat("Deployments in progress", "Services in the middle of a deployment.", "short",
             query(f"sum(beaufort_deployment_in_progress{{{CLUSTER}}})", "deployments"), width=3),
        stat("Alarms open", "Alarms in ALARM: Beaufort's own and those that Prometheus opened. An alarm of a scaling policy is part of its work.",
             "short", query(f'sum(beaufort_alarm_state{{{ANY},state="ALARM"}}) or vector(0)', "alarms"), steps("green", (1, ORANGE)), 3),
        stat("Alerts firing", "Alerts of Prometheus' rules with severity warning or critical; listed below.", "short",
             query(f'count(ALERTS{{{ANY},alertstate="firing",severity=~"warning|critical"}}) or vector(0)', "alerts"), ANY_IS_BAD, 3),
    )
    made.row(
        "Services",
        table("Services", "One line for each service: capacity, golden signals of its application (app_* metrics) and use of what its tasks reserved. "
              "Click a name for the service.", BOTH, [
                  Column("Desired", gauge("beaufort_service_desired_tasks")),
                  Column("Running", gauge("beaufort_service_running_tasks")),
                  Column("Pending", gauge("beaufort_service_pending_tasks"), thresholds=steps("text", (1, ORANGE))),
                  Column("Requests", terms.request_rate(selector=CLUSTER), "reqps", decimals=1),
                  Column("Errors", terms.error_ratio(selector=CLUSTER), "percentunit", ERRORS, 2),
                  Column("p95", terms.latency(0.95, selector=CLUSTER), "s"),
                  Column("CPU of reserved", terms.cpu_ratio(selector=CLUSTER), "percentunit", RATIO, 0),
                  Column("Fullest memory", terms.memory_ratio(selector=CLUSTER), "percentunit", RATIO, 0),
                  Column("Alarms", f'sum by (cluster, service) (beaufort_alarm_state{{{CLUSTER},state="ALARM"}})', thresholds=steps("text", (1, ORANGE))),
              ], links=TO_SERVICE, sort="Requests"),
    )
    made.row(
        "Load and capacity",
        lines("Requests by service", "Answered requests a second, from app_requests_total.", "reqps",
              query(terms.request_rate(selector=CLUSTER), "{{cluster}}/{{service}}"), links=SERIES_TO_SERVICE, low=0),
        lines("Desired tasks by service", "What the scaler and people asked for. Shaded stretches are deployments, marks are scaling.", "short",
              query(gauge("beaufort_service_desired_tasks"), "{{cluster}}/{{service}}"), step=True, links=SERIES_TO_SERVICE, low=0),
        lines("CPU of each cluster", "Cores in use, reserved by tasks, and there at all. Reserved near registered: the next task finds no place.", "short", [
            query(f"sum by (cluster) (rate(container_cpu_usage_seconds_total{{{CLUSTER}}}{RATE}))", "{{cluster}} used"),
            query(f"sum by (cluster) (beaufort_instance_registered_cpu_units{{{CLUSTER}}} - beaufort_instance_remaining_cpu_units{{{CLUSTER}}}) / 1024",
                  "{{cluster}} reserved"),
            query(f"sum by (cluster) (beaufort_instance_registered_cpu_units{{{CLUSTER}}}) / 1024", "{{cluster}} registered")], low=0),
        lines("Memory of each cluster", "Working set of all containers, memory that tasks reserved, and memory that they may reserve.", "bytes", [
            query(f"sum by (cluster) (container_memory_working_set_bytes{{{CLUSTER}}})", "{{cluster}} used"),
            query(f"sum by (cluster) (beaufort_instance_registered_memory_bytes{{{CLUSTER}}} - beaufort_instance_remaining_memory_bytes{{{CLUSTER}}})",
                  "{{cluster}} reserved"),
            query(f"sum by (cluster) (beaufort_instance_registered_memory_bytes{{{CLUSTER}}})", "{{cluster}} registered")], low=0),
    )
    made.row(
        "What happens",
        lines("Tasks stopped, by code", "Why tasks ended. ServiceSchedulerInitiated is scaling in and deployments; TaskFailedToStart and "
              "EssentialContainerExited are trouble.", "short",
              query(f"sum by (code) (increase(beaufort_task_stops_total{{{CLUSTER}}}{RATE}))", "{{code}}"), width=8, bars=True, stack=True, calcs=("sum",)),
        lines("Scaling that was carried out", "Decisions of policies that changed a desired count.", "short",
              query(f'sum by (cluster, service, direction) (increase(beaufort_scaling_decisions_total{{{CLUSTER},outcome="applied"}}{RATE}))',
                    "{{cluster}}/{{service}} {{direction}}"), width=8, bars=True, stack=True, calcs=("sum",), links=SERIES_TO_SERVICE),
        labels_table("Alerts that fire", "What Prometheus' rules say now. `docs/runbooks.md` has a section for each. Rules of severity none scale "
                     "services or prove that the path works.", f'ALERTS{{{ANY},alertstate="firing"}}',
                     ("alertname", "severity", "cluster", "service"), width=8),
    )
    return made
