"""What leaves in open formats: the Prometheus exposition as promtool reads it, and traces, metrics and logs at an OTLP collector."""

import contextlib
import gzip
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time
import urllib.request

import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from conftest import BINARY, IMAGE, ROOT, free_port, testbed, until
from test_scaling import scalable

PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool") or str(ROOT / ".cache" / "bin" / "promtool")
SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def exposition(b):
    """Every sample of `/metrics`: name, labels, value."""
    lines = [line for line in b.get("/metrics").splitlines() if line and not line.startswith("#")]
    rows = []
    for line in lines:
        name, labels, value = SAMPLE.match(line).groups()
        rows.append((name, dict(LABEL.findall(labels or "")), float(value)))
    return rows


def value(rows, name, **labels):
    """The one series with these labels, or None."""
    found = [v for n, have, v in rows if n == name and labels.items() <= have.items()]
    assert len(found) < 2, f"{name}{labels} has {len(found)} series"
    return found[0] if found else None


def stepping(b, service, low, high):
    """A step policy of `service`, and an alarm on a metric of ours that asks it. The name of the alarm's metric is the service's."""
    aas, key = scalable(b, service, low, high)
    policy = aas.put_scaling_policy(**key, PolicyName="steps", PolicyType="StepScaling", StepScalingPolicyConfiguration={
        "AdjustmentType": "ChangeInCapacity", "Cooldown": 60, "MetricAggregationType": "Average",
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]})["PolicyARN"]
    cw = b.client("cloudwatch")
    cw.put_metric_alarm(AlarmName="deep-" + service, Namespace="App", MetricName=service, Statistic="Maximum", Period=1, EvaluationPeriods=1,
                        Threshold=100, ComparisonOperator="GreaterThanThreshold", AlarmActions=[policy])

    def feed():
        cw.put_metric_data(Namespace="App", MetricData=[{"MetricName": service, "Value": 115, "StorageResolution": 1}])
        return b.service(service)["desiredCount"] > low

    return feed


@pytest.fixture
def scraped(make):
    """A service that runs and is scaled once, so that every family has something to say."""
    up = make("--zone", "here-1a").start()
    definition = up.register(testbed("sleep", 600, cpu=128, stopTimeout=2))
    up.ecs.create_service(cluster=up.cluster, serviceName="web", taskDefinition=definition, desiredCount=1)
    up.stable("web", 1)
    until("scaled out", stepping(up, "web", 1, 3), 30, every=0.3)
    up.stable("web", 2)
    until("both are measured", lambda: sum(n == "container_memory_working_set_bytes" for n, _, _ in exposition(up)) == 2)
    return up


def test_promtool_takes_the_exposition(scraped):
    with urllib.request.urlopen(scraped.url + "/metrics", timeout=10) as answer:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read()
    if not pathlib.Path(PROMTOOL).exists():
        pytest.skip("there is no promtool here")
    run = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, timeout=30)
    said = [line for line in (run.stdout + run.stderr).decode().splitlines() if line and not is_of_cadvisor(line)]
    assert not said, said


def is_of_cadvisor(line):
    """cAdvisor's own names, which every dashboard knows, are not what promtool would have chosen."""
    return line.startswith("container_")


def test_containers_have_cadvisor_s_names_and_the_cluster_s_labels(scraped):
    rows, [container, _] = exposition(scraped), scraped.containers()
    task = container["Config"]["Labels"]["com.amazonaws.ecs.task-arn"].rsplit("/", 1)[1]
    for name in ("container_cpu_usage_seconds_total", "container_cpu_user_seconds_total", "container_cpu_system_seconds_total",
                 "container_cpu_cfs_periods_total", "container_cpu_cfs_throttled_periods_total", "container_cpu_cfs_throttled_seconds_total",
                 "container_memory_usage_bytes", "container_memory_working_set_bytes", "container_memory_rss", "container_memory_cache",
                 "container_spec_memory_limit_bytes", "container_spec_cpu_shares", "container_oom_events_total", "container_last_seen",
                 "container_fs_reads_bytes_total", "container_network_receive_bytes_total", "container_network_transmit_bytes_total"):
        [labels] = [have for n, have, _ in rows if n == name and have["id"] == "/docker/" + container["Id"]]
        assert labels["name"] == container["Name"].lstrip("/"), labels
        assert labels["image"] == IMAGE and labels["container"] == "main" and labels["task"] == task
        assert labels["cluster"] == scraped.cluster and labels["service"] == "web"
        assert labels["family"] == container["Config"]["Labels"]["com.amazonaws.ecs.task-definition-family"]
        assert labels["zone"] == "here-1a"
    limit = value(rows, "container_spec_memory_limit_bytes", task=task)
    assert limit == 32 << 20 and 0 < value(rows, "container_memory_working_set_bytes", task=task) <= limit
    assert value(rows, "container_spec_cpu_shares", task=task) == 128
    assert abs(value(rows, "container_last_seen", task=task) - time.time()) < 30


def test_services_instances_and_decisions(scraped):
    web = {"cluster": scraped.cluster, "service": "web"}
    until("the deployment is over", lambda: value(exposition(scraped), "beaufort_deployment_in_progress", **web) == 0)
    rows = exposition(scraped)
    for what, wanted in (("desired", 2), ("running", 2), ("pending", 0), ("stopping", 0), ("min", 1), ("max", 3), ("unplaceable", 0)):
        assert value(rows, f"beaufort_service_{what}_tasks", **web) == wanted, what
    assert value(rows, "beaufort_deployments_total", outcome="completed", **web) == 1
    assert value(rows, "beaufort_deployment_running_tasks", status="PRIMARY", **web) == 2
    for stage in ("alert", "decision", "placed", "running", "healthy", "total"):
        assert value(rows, "beaufort_scaling_reaction_seconds_count", stage=stage, **web) == 1, stage
    for loop in ("services", "alarms", "scaling", "capacity", "janitor"):
        assert time.time() - value(rows, "beaufort_reconcile_last_success_timestamp_seconds", loop=loop) < 10, loop
    assert abs(value(rows, "beaufort_deployment_last_progress_timestamp_seconds", **web) - time.time()) < 120
    here = {"cluster": scraped.cluster}
    assert value(rows, "beaufort_instance_connected", **here) == 1 and value(rows, "beaufort_instance_tasks", **here) == 2
    for what in ("cpu_units", "memory_bytes"):
        registered, remaining = (value(rows, f"beaufort_instance_{which}_{what}", **here) for which in ("registered", "remaining"))
        taken = {"cpu_units": 2 * 128, "memory_bytes": 2 * (32 << 20)}[what]
        assert registered - remaining == taken, what
    assert all("instance" not in have for _, have, _ in rows), "Prometheus itself owns the label instance"
    assert value(rows, "beaufort_scaling_decisions_total", policy="steps", direction="out", outcome="applied", **web) == 1
    assert value(rows, "beaufort_api_requests_total", aws_service="ecs", operation="CreateService", code="2xx") == 1
    assert value(rows, "beaufort_api_request_duration_seconds_count", aws_service="ecs", operation="CreateService") == 1
    assert value(rows, "beaufort_alarm_state", alarm="deep-web", state="ALARM") == 1
    assert value(rows, "beaufort_alarm_transitions_total", state="ALARM") >= 1
    assert value(rows, "beaufort_placements_total", outcome="placed") == 2
    assert value(rows, "beaufort_docker_requests_total", operation="start", outcome="ok") >= 2
    assert value(rows, "beaufort_uptime_seconds") > 0
    scraped.ecs.stop_task(cluster=scraped.cluster, task=scraped.ecs.list_tasks(cluster=scraped.cluster)["taskArns"][0])
    until("the stop is counted", lambda: value(exposition(scraped), "beaufort_task_stops_total", code="UserInitiated", **web) == 1)


def test_counters_are_there_at_zero_before_anything_happens(up):
    """A counter that is born at one has no increase: the first error, stop or decision would alarm nobody."""
    rows = exposition(up)
    for name, labels in (("beaufort_placements_total", {"outcome": "refused"}), ("beaufort_alarm_transitions_total", {"state": "ALARM"}),
                         ("beaufort_log_dropped_events_total", {"reason": "lost"}), ("beaufort_dropped_total", {"what": "usage_samples"}),
                         ("beaufort_alarm_evaluations_total", {}), ("beaufort_store_failed_commits_total", {}),
                         ("beaufort_api_requests_total", {"aws_service": "ecs", "operation": "RunTask", "code": "5xx"}),
                         ("beaufort_api_requests_total", {"aws_service": "monitoring", "operation": "PutMetricAlarm", "code": "4xx"})):
        assert value(rows, name, **labels) == 0, (name, labels)
    up.ecs.create_service(cluster=up.cluster, serviceName="web", taskDefinition=up.register(testbed("sleep", 600)), desiredCount=0)
    stepping(up, "web", 0, 2)
    rows, web = exposition(up), {"cluster": up.cluster, "service": "web"}
    assert value(rows, "beaufort_deployments_total", outcome="failed", **web) == 0
    assert value(rows, "beaufort_scaling_reaction_seconds_count", stage="total", **web) == 0
    for code in ("EssentialContainerExited", "TaskFailedToStart", "ServiceSchedulerInitiated", "UserInitiated"):
        assert value(rows, "beaufort_task_stops_total", code=code, **web) == 0, code
    for direction, outcome in (("out", "applied"), ("out", "at_max"), ("in", "applied"), ("in", "at_min"), ("none", "cooldown")):
        assert value(rows, "beaufort_scaling_decisions_total", policy="steps", direction=direction, outcome=outcome, **web) == 0, outcome


# OTLP over HTTP.

EXPORTS = {
    "/v1/traces": (trace_service_pb2.ExportTraceServiceRequest, trace_service_pb2.ExportTraceServiceResponse),
    "/v1/metrics": (metrics_service_pb2.ExportMetricsServiceRequest, metrics_service_pb2.ExportMetricsServiceResponse),
    "/v1/logs": (logs_service_pb2.ExportLogsServiceRequest, logs_service_pb2.ExportLogsServiceResponse),
}


class Collector:
    """Takes OTLP over HTTP, compressed or not, and keeps what it was given."""

    def __init__(self):
        self.port, self.got, self.server = free_port(), [], None
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def open(self):
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request, response = EXPORTS[self.path]
                collector.got.append(request.FromString(body))
                out = response().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(out)))
                # Not kept: a closed collector must not go on answering on a connection of before.
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(out)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def close(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def _parts(self, resources, scopes, items):
        return [item for got in list(self.got) for resource in getattr(got, resources, []) for scope in getattr(resource, scopes)
                for item in getattr(scope, items)]

    def spans(self):
        return self._parts("resource_spans", "scope_spans", "spans")

    def span(self, name, within=None):
        """The first span of this name, of the trace `within` when given."""
        return next((s for s in self.spans() if s.name == name and within in (None, s.trace_id)), None)

    def metrics(self):
        return self._parts("resource_metrics", "scope_metrics", "metrics")

    def logs(self):
        return self._parts("resource_logs", "scope_logs", "log_records")


def attributes(item):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in item.attributes}


@pytest.fixture
def collector():
    with contextlib.closing(Collector().open()) as collector:
        yield collector


@pytest.fixture
def traced(make, collector):
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_BLRP_SCHEDULE_DELAY": "100",
           "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    return make(env=env).start()


def ancestors(spans, span):
    """From a span up to its trace's root."""
    by_id = {s.span_id: s for s in spans if s.trace_id == span.trace_id}
    line = [span]
    while line[-1].parent_span_id:
        assert line[-1].parent_span_id in by_id, f"{[s.name for s in line]} hangs below a span that did not arrive"
        line.append(by_id[line[-1].parent_span_id])
    return line


def test_one_trace_from_the_api_call_to_each_container_s_start(traced, collector):
    definition = traced.register(testbed("sleep", 600, name="main"))
    traced.ecs.create_service(cluster=traced.cluster, serviceName="web", taskDefinition=definition, desiredCount=2)
    traced.stable("web", 2)
    call = until("the call's span", lambda: collector.span("ecs.CreateService"))
    assert call.kind == call.SPAN_KIND_SERVER and attributes(call)["rpc.method"] == "CreateService"

    def complete():
        names = [s.name for s in collector.spans() if s.trace_id == call.trace_id]
        return all(names.count(n) == 2 for n in ("task.start", "create main", "start main", f"pull {IMAGE}"))

    def names():
        return sorted(s.name for s in collector.spans() if s.trace_id == call.trace_id)

    with contextlib.suppress(AssertionError):
        until("every task's spans", complete, 15)
    assert complete(), names()
    spans = collector.spans()
    starts = [s for s in spans if s.name == "start main" and s.trace_id == call.trace_id]
    for start in starts:
        line = [s.name for s in ancestors(spans, start)]
        assert line == ["start main", "task.start", "placement", "ecs.CreateService"], line
    tasks = {arn.rsplit("/", 1)[1] for arn in traced.ecs.list_tasks(cluster=traced.cluster)["taskArns"]}
    assert {attributes(s)["task"] for s in starts} == tasks
    for start in starts:
        create = next(s for s in spans if s.name == "create main" and s.parent_span_id == start.parent_span_id)
        assert call.start_time_unix_nano < create.start_time_unix_nano <= create.end_time_unix_nano <= start.start_time_unix_nano
    # The whole is done within the time that the trace tells: its task spans have ended.
    assert all(s.end_time_unix_nano > s.start_time_unix_nano for s in spans)


def test_a_client_s_own_trace_goes_on_to_the_container(traced, collector):
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    ecs = traced.ecs

    def tell(request, **_):
        request.headers["traceparent"] = f"00-{trace}-{parent}-01"

    ecs.meta.events.register("before-send.ecs.RunTask", tell)
    arn = ecs.run_task(cluster=traced.cluster, taskDefinition=traced.register(testbed("sleep", 600)))["tasks"][0]["taskArn"]
    traced.reach(arn, "RUNNING")
    call = until("the call's span", lambda: collector.span("ecs.RunTask"))
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (trace, parent)
    start = until("the container's start", lambda: collector.span("start main", bytes.fromhex(trace)))
    until("its task", lambda: collector.span("task.start", call.trace_id))
    above = next(s for s in collector.spans() if s.span_id == start.parent_span_id)
    assert above.name == "task.start" and above.parent_span_id == call.span_id


def test_a_scale_out_links_to_the_alarm_s_transition_and_its_tasks_hang_below_it(traced, collector):
    traced.ecs.create_service(cluster=traced.cluster, serviceName="web", taskDefinition=traced.register(testbed("sleep", 600)), desiredCount=1)
    traced.stable("web", 1)
    until("scaled out", stepping(traced, "web", 1, 2), 30, every=0.3)
    traced.stable("web", 2)

    def look():
        return next((s for s in collector.spans() if s.name == "scaling.decide" and attributes(s)["code"] == "scaled_out"), None)

    decide = until("the decision's span", look)
    transition = until("the alarm's span", lambda: next(
        (s for s in collector.spans() if s.name == "alarm.transition" and attributes(s)["to"] == "ALARM"), None))
    assert [(link.trace_id, link.span_id) for link in decide.links] == [(transition.trace_id, transition.span_id)]
    assert decide.trace_id != transition.trace_id
    until("its task's start", lambda: collector.span("start main", decide.trace_id))
    until("its task", lambda: collector.span("task.start", decide.trace_id))
    start = collector.span("start main", decide.trace_id)
    line = [s.name for s in ancestors(collector.spans(), start)]
    assert line == ["start main", "task.start", "placement", "scaling.decide"], line


def test_metrics_and_logs_arrive(traced, collector):
    traced.ecs.create_service(cluster=traced.cluster, serviceName="web", taskDefinition=traced.register(testbed("sleep", 600)), desiredCount=1)
    traced.stable("web", 1)

    def points(name):
        return [p for m in collector.metrics() if m.name == name for p in m.gauge.data_points]

    def reported(name, wanted):
        return next((p for p in points(name) if attributes(p).get("service.name") == "web" and wanted(p.as_double)), None)

    desired = until("the desired count", lambda: reported("beaufort.service.desired_tasks", lambda v: v == 1))
    assert attributes(desired)["aws.ecs.cluster.name"] == traced.cluster
    until("the running count", lambda: reported("beaufort.service.running_tasks", lambda v: v == 1))
    usage = until("a container's use", lambda: reported("container.cpu.usage", lambda v: v >= 0))
    [container] = traced.containers()
    assert attributes(usage)["container.id"] == container["Id"] and attributes(usage)["container.name"] == "main"
    until("its memory", lambda: reported("container.memory.usage", lambda v: v > 0))
    traced.client("cloudwatch").put_metric_alarm(AlarmName="n", Namespace="Quiet", MetricName="X", Statistic="Sum", Period=1, EvaluationPeriods=1,
                                                 Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="breaching")
    line = until("a line of the log", lambda: next((r for r in collector.logs() if r.body.string_value == "alarm changed"), None))
    assert attributes(line)["alarm"] == "n" and line.severity_text == "INFO"
    resource = next(g for g in collector.got if hasattr(g, "resource_spans")).resource_spans[0].resource
    assert attributes(resource)["service.name"] == "beaufort" and attributes(resource)["service.version"]


def test_a_collector_that_goes_away_and_comes_back(traced, collector):
    traced.ecs.create_cluster(clusterName="before")
    until("the first", lambda: collector.span("ecs.CreateCluster"))
    collector.close()
    traced.ecs.list_clusters()
    for _ in range(20):
        traced.ecs.describe_clusters()
    assert traced.get("/health")["status"] == "ok"
    collector.open()

    def again():
        traced.ecs.list_services(cluster=traced.cluster)
        return collector.span("ecs.ListServices")

    until("spans again", again, 30, every=0.2)


def test_an_end_does_not_wait_long_for_a_collector_that_is_away(make):
    b = make(env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}).start()
    b.ecs.list_clusters()
    began = time.monotonic()
    b.stop()
    assert time.monotonic() - began < 20


def test_what_is_left_is_sent_at_the_end(make, collector):
    b = make(env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "600000"}).start()
    b.ecs.list_clusters()
    b.stop()
    assert collector.span("ecs.ListClusters")


def test_the_sample_service_sends_the_spans_that_its_callers_want(collector):
    """`beaufort web` needs neither Docker nor a control plane: a caller's sampled trace goes on, and one that is not sampled does not."""
    port, trace = free_port(), "0af7651916cd43dd8448eb211c80319c"
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100",
           "OTEL_RESOURCE_ATTRIBUTES": "service.name=storefront,zone=a", "OTEL_TRACES_SAMPLER_ARG": "0"}
    web = subprocess.Popen([BINARY, "web", "--port", str(port), "--cpu-ms", "3", "--drain-ms", "0"], env=env, stdout=subprocess.DEVNULL)
    try:
        def get(flags):
            headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-{flags}"}
            return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/", headers=headers), timeout=5).status

        def up():
            with contextlib.suppress(OSError):
                return get("00")

        until("it serves", up)
        assert get("01") == 200
        request = until("the request's span", lambda: collector.span("GET /"))
        assert request.trace_id.hex() == trace and request.parent_span_id.hex() == "b7ad6b7169203331"
        assert request.kind == request.SPAN_KIND_SERVER and attributes(request)["http.response.status_code"] == 200
        burn = until("the work's span", lambda: collector.span("burn", request.trace_id))
        assert burn.parent_span_id == request.span_id and burn.end_time_unix_nano - burn.start_time_unix_nano >= 3_000_000
        [resource] = {tuple(sorted(attributes(r.resource).items())) for got in collector.got for r in got.resource_spans}
        assert dict(resource)["service.name"] == "storefront" and dict(resource)["zone"] == "a"
    finally:
        web.terminate()
        web.wait(10)
    assert sum(s.name == "GET /" for s in collector.spans()) == 1, "what nobody wanted was sent"
