"""Owns the dashboard that reads Beaufort's CloudWatch API with Grafana's CloudWatch data source, as it would read AWS's."""

from .parts import Board, CLOUDWATCH, RED, TAG, choice, cloudwatch, datasource, lines, note, steps

SERVICE = {"ClusterName": "$cluster", "ServiceName": "$service"}
CLUSTER = {"ClusterName": "$cluster"}
TASK = {**SERVICE, "TaskId": "$task"}
INSIGHTS = "ECS/ContainerInsights"
FULL = steps("transparent", (90, RED))


def dimension(name, label, key, **within):
    """Values of a dimension, from ListMetrics. One value at a time: several would need a SEARCH expression."""
    query = {"refId": "values", "queryType": "dimensionValues", "region": "default", "namespace": "AWS/ECS", "metricName": "CPUUtilization",
             "dimensionKey": key, "dimensionFilters": within, "attributeName": "", "ec2Filters": {}, "instanceID": "", "resourceType": "", "tags": {}}
    return {"type": "query", "name": name, "label": label, "datasource": CLOUDWATCH, "query": query, "definition": "", "refresh": 2, "sort": 1, "regex": "",
            "hide": 0, "multi": False, "includeAll": False, "options": [], "current": {"selected": True, "text": "", "value": ""}}


def spread(metric, dimensions):
    return [cloudwatch(metric, "Average", dimensions, "average"), cloudwatch(metric, "Maximum", dimensions, "fullest task"),
            cloudwatch(metric, "Minimum", dimensions, "emptiest task")]


def pair(used, reserved, dimensions, most="reserved"):
    return [cloudwatch(used, "Sum", dimensions, "used", INSIGHTS), cloudwatch(reserved, "Sum", dimensions, most, INSIGHTS)]


def board():
    variables = [datasource("cloudwatch_datasource", "cloudwatch", "CloudWatch"), dimension("cluster", "Cluster", "ClusterName"),
                 dimension("service", "Service", "ServiceName", ClusterName="$cluster"),
                 dimension("task", "Task", "TaskId", ClusterName="$cluster", ServiceName="$service"),
                 choice("period", "Period, s", ("1", "5", "10", "60", "300"), "10", "1 to 30 s are kept for 3 hours, minutes for 15 days.")]
    made = Board("beaufort-cloudwatch", "CloudWatch", "One service as CloudWatch's own metrics tell it, read from Beaufort's CloudWatch API.", variables,
                 since="now-30m", tag=TAG + "-cloudwatch")
    made.row(
        "Service",
        lines("CPU, percent of reserved", "AWS/ECS CPUUtilization: over the tasks of the service.", "percent", spread("CPUUtilization", SERVICE), width=12,
              thresholds=FULL, low=0),
        lines("Memory, percent of reserved", "AWS/ECS MemoryUtilization: over the tasks of the service.", "percent", spread("MemoryUtilization", SERVICE),
              width=12, thresholds=FULL, low=0),
        lines("Tasks that report", "SampleCount of CPUUtilization, divided over the period's seconds it is the number of tasks.", "short",
              [cloudwatch("CPUUtilization", "SampleCount", SERVICE, "samples a period")], width=8, step=True, low=0),
        lines("CPU, 90th percentile of tasks", "Percentiles come from every task's samples, not from averages.", "percent",
              [cloudwatch("CPUUtilization", "p90", SERVICE, "p90"), cloudwatch("CPUUtilization", "p50", SERVICE, "p50")], width=8, low=0),
        lines("Network", "ECS/ContainerInsights: bytes a second of the service's tasks.", "Bps",
              [cloudwatch("NetworkRxBytes", "Sum", SERVICE, "received", INSIGHTS), cloudwatch("NetworkTxBytes", "Sum", SERVICE, "sent", INSIGHTS)], width=8,
              low=0),
    )
    made.row(
        "Container Insights",
        lines("CPU units", "Of all tasks of the service; 1024 are a core.", "short", pair("CpuUtilized", "CpuReserved", SERVICE), width=8, low=0),
        lines("Memory", "Of all tasks of the service.", "decmbytes", pair("MemoryUtilized", "MemoryReserved", SERVICE), width=8, low=0),
        lines("Disk", "Bytes that tasks read and wrote in a period.", "bytes",
              [cloudwatch("StorageReadBytes", "Sum", SERVICE, "read", INSIGHTS), cloudwatch("StorageWriteBytes", "Sum", SERVICE, "written", INSIGHTS)], width=8,
              low=0),
    )
    made.row(
        "Cluster",
        lines("CPU of the cluster", "AWS/ECS CPUUtilization by ClusterName.", "percent", [cloudwatch("CPUUtilization", "Average", CLUSTER, "average")], width=8,
              thresholds=FULL, low=0),
        lines("Memory of the cluster", "AWS/ECS MemoryUtilization by ClusterName.", "percent", [cloudwatch("MemoryUtilization", "Average", CLUSTER, "average")],
              width=8, thresholds=FULL, low=0),
        lines("CPU units in use", "Of all tasks of the cluster.", "short", pair("CpuUtilized", "CpuReserved", CLUSTER), width=8, low=0),
    )
    made.row(
        "One task",
        lines("CPU of the task", "Percent of its reservation.", "percent", [cloudwatch("CPUUtilization", "Average", TASK, "CPU")], width=12, low=0,
              thresholds=FULL),
        lines("Memory of the task", "Percent of its reservation.", "percent", [cloudwatch("MemoryUtilization", "Average", TASK, "memory")], width=12, low=0,
              thresholds=FULL),
        note("Logs", "There is no logs panel here: Grafana's CloudWatch logs queries run Logs Insights (`StartQuery`, `GetQueryResults`), which Beaufort does "
             "not serve. Read lines with `beaufort logs service/NAME` or `aws logs filter-log-events`.", height=3),
    )
    return made
