"""Owns the dashboard of logs and traces: how much is written, what is lost, and where to read on."""

from .parts import (Board, Column, GREEN, JAEGER, LOKI, ORANGE, RATE, RED, SERVICE, YELLOW, changes, clusters, data_link, datasource, explore_link, lines,
                    note, panel, query, services, stat, steps, table)
from .service import NAME

TO = [data_link("Service", "beaufort-service", cluster="${__data.fields.cluster}", service="${__data.fields.service}"),
      data_link("Tasks and containers", "beaufort-tasks", cluster="${__data.fields.cluster}", service="${__data.fields.service}")]
SLOW = [explore_link("Traces of this operation", "${traces_datasource}", "jaeger", queryType="search", service="beaufort",
                     operation="${__data.fields.aws_service}.${__data.fields.operation}")]
CALLS = "aws_service, operation"


def logs(title, description, expr):
    target = {"datasource": LOKI, "editorMode": "code", "expr": expr, "queryType": "range", "maxLines": 500}
    return panel("logs", title, description, [target], 24, 12, options={
        "showLabels": False, "showCommonLabels": False, "showTime": True, "showLogContextToggle": False, "wrapLogMessage": True,
        "prettifyLogMessage": False, "enableLogDetails": True, "sortOrder": "Descending", "dedupStrategy": "none"})


def traces(title, description, **search):
    target = {"datasource": JAEGER, "queryType": "search", "service": "beaufort", "limit": 30, **search}
    return panel("table", title, description, [target], 24, 10, "short", custom={"align": "auto", "inspect": False, "filterable": True},
                 options={"frameIndex": 0, "showHeader": True, "cellHeight": "sm", "sortBy": []})


def board():
    variables = [datasource(), clusters(), services(), datasource("loki_datasource", "loki", "Logs"), datasource("traces_datasource", "jaeger", "Traces")]
    made = Board("beaufort-logs-traces", "Logs and traces", "How much do services write, is any of it lost, and where do I read on?", variables, changes())
    made.row(
        "Now",
        stat("Lines", "Log events a second from tasks of the chosen services.", "cps",
             query(f"sum(rate(beaufort_log_events_total{{{SERVICE}}}{RATE}))", "lines"), width=6, decimals=1),
        stat("Bytes", "Of these lines.", "Bps", query(f"sum(rate(beaufort_log_bytes_total{{{SERVICE}}}{RATE}))", "bytes"), width=6),
        stat("Lost", "Lines that were dropped for any reason, in the time shown, in all of Beaufort.", "short",
             query("sum(increase(beaufort_log_dropped_events_total[$__range]))", "lines"), steps(GREEN, (1, RED)), 6, spark=False, decimals=0),
        stat("Kept", "Size of the log store on disk.", "bytes", query("sum(beaufort_log_stored_bytes)", "bytes"), width=6),
    )
    made.row(
        "Log lines",
        lines("Lines by service", "A service that falls silent while it has traffic, or shouts without: look at what it says.", "cps",
              query(f"sum by (cluster, service) (rate(beaufort_log_events_total{{{SERVICE}}}{RATE}))", NAME), width=8, low=0),
        lines("Bytes by service", "What the log store has to take.", "Bps",
              query(f"sum by (cluster, service) (rate(beaufort_log_bytes_total{{{SERVICE}}}{RATE}))", NAME), width=8, low=0),
        lines("Lines lost, by reason", "Nothing is lost in silence: each line that is dropped is counted here.", "short",
              query(f"sum by (reason) (increase(beaufort_log_dropped_events_total{RATE}))", "{{reason}}"), width=8, bars=True, stack=True, calcs=("sum",)),
        table("Services by lines", "In the time shown. Read them with `beaufort logs service/NAME`, or with `aws logs filter-log-events`.",
              ("cluster", "service"), [
                  Column("Lines", f"sum by (cluster, service) (increase(beaufort_log_events_total{{{SERVICE}}}[$__range]))", decimals=0),
                  Column("Bytes", f"sum by (cluster, service) (increase(beaufort_log_bytes_total{{{SERVICE}}}[$__range]))", "bytes"),
                  Column("Bytes a line", f"sum by (cluster, service) (increase(beaufort_log_bytes_total{{{SERVICE}}}[$__range])) / "
                                         f"(sum by (cluster, service) (increase(beaufort_log_events_total{{{SERVICE}}}[$__range])) > 0)", "bytes")],
              links=TO, sort="Lines", width=12),
        table("Slowest operations", "Of the API, mean and worst hundredth in the time shown. Click one for its traces: each goes on to the containers' starts.",
              ("aws_service", "operation"), [
                  Column("Mean", f"sum by ({CALLS}) (rate(beaufort_api_request_duration_seconds_sum[$__range])) / "
                                 f"(sum by ({CALLS}) (rate(beaufort_api_request_duration_seconds_count[$__range])) > 0)", "s"),
                  Column("p99", f"histogram_quantile(0.99, sum by ({CALLS}, le) (rate(beaufort_api_request_duration_seconds_bucket[$__range]))) > 0", "s",
                         steps(GREEN, (0.1, YELLOW), (1, ORANGE)))],
              links=SLOW, sort="Mean", width=12),
    )
    made.row(
        "Beaufort's own log (needs a Loki data source that Beaufort's OTLP logs go to)",
        note("About this row", "Beaufort sends its own log by OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._LOGS_ENDPOINT`) is set; each line of a change "
             "carries its trace. Lines of **containers** stay in Beaufort's log store: `beaufort logs service/NAME`, `aws logs filter-log-events`.", height=3),
        logs("What Beaufort says", "Its decisions and its trouble, as it happens.", '{service_name="beaufort"}'),
        collapsed=True,
    )
    made.row(
        "Traces (needs a Jaeger data source that Beaufort's OTLP traces go to)",
        note("About this row", "One trace goes from an API call over placement to each container's start. A scale-out is a trace of its own, linked to the "
             "transition of the alarm that caused it.", height=3),
        traces("Scale-outs", "Decisions of policies; the trace holds the starts of the tasks that they made.", operation="scaling.decide"),
        traces("Starts of tasks", "Each span says which step took its time: pull, create, start.", operation="task.start"),
        collapsed=True,
    )
    return made
