"""Grafana's dashboards, without Grafana: their shape against its types and our rules, and every query against a Prometheus that scrapes a
Beaufort whose service is under load and has just been scaled."""

import copy
import functools
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

import dashcheck
from conftest import BINARY, IMAGE, ROOT, Beaufort, answers, free_port, until
from test_scaling import scalable

DASHBOARDS = ROOT / "dashboards"
FILES = sorted(path.name for path in DASHBOARDS.glob("*.json"))
TOKEN = "dashboards-test"


def program(name):
    return shutil.which(name) or str(ROOT / ".cache" / "bin" / name)


PROMTOOL, PROMETHEUS = program("promtool"), program("prometheus")


def load(name):
    return json.loads((DASHBOARDS / name).read_text(encoding="utf-8"))


BOARDS = {name: load(name) for name in FILES}


# Shape

def test_the_dashboards_are_the_nine_that_are_meant():
    assert [name.removesuffix(".json") for name in FILES] == ["autoscaling", "cloudwatch", "control-plane", "instances", "logs-traces", "overview", "service",
                                                              "slo", "tasks"]


def generate(*arguments):
    return subprocess.run([sys.executable, str(DASHBOARDS / "generate.py"), *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_files_are_what_the_source_makes():
    run = generate("--check")
    assert run.returncode == 0, run.stderr


def test_drift_is_seen(tmp_path):
    assert generate("--directory", tmp_path).returncode == 0
    assert generate("--check", "--directory", tmp_path).returncode == 0
    touched, gone, more = tmp_path / "slo.json", tmp_path / "tasks.json", tmp_path / "mine.json"
    touched.write_text(touched.read_text().replace("Burn rate", "Burn Rate", 1))
    gone.unlink()
    more.write_text("{}")
    run = generate("--check", "--directory", tmp_path)
    assert run.returncode == 1
    for path in (touched, gone, more):
        assert str(path) in run.stderr, run.stderr
    assert str(tmp_path / "service.json") not in run.stderr


def test_dashboards_keep_every_rule():
    found = dashcheck.check(BOARDS, PROMTOOL)
    assert not found, "\n".join(f"{file}: {rule}: {what}" for file, rule, what in found)


def words(text):
    """Letters and figures only."""
    return re.sub(r"[^0-9a-z%]+", " ", text.lower()).strip()


@pytest.mark.parametrize("file", FILES)
def test_the_walk_names_every_row_and_panel(file):
    board, text = BOARDS[file], (DASHBOARDS / "README.md").read_text(encoding="utf-8")
    title = board["title"].removeprefix("Beaufort / ")
    section = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert section, f"no walk through {title!r}"
    said = words(section[1])
    for panel in dashcheck.flat(board):
        assert words(panel["title"]) in said, panel["title"]


def panel(board, kind, number=0):
    return [p for p in dashcheck.flat(board) if p["type"] == kind][number]


def titled(board, title):
    return next(p for p in dashcheck.flat(board) if p.get("title") == title)


def defaults(board, kind="timeseries"):
    return panel(board, kind)["fieldConfig"]["defaults"]


def expression(text):
    return lambda b: panel(b, "timeseries")["targets"][0].update(expr=text)


def variable(board, name):
    return next(v for v in board["templating"]["list"] if v["name"] == name)


# What a careless hand could do: file, the rule that must see it, and the deed.
MISTAKES = {
    "a field of a panel misspelt": ("service.json", "model", lambda b: panel(b, "timeseries").update(titel="x")),
    "the same, in the SDK's round trip": ("service.json", "round-trip", lambda b: panel(b, "timeseries").update(titel="x")),
    "a field of a query misspelt": ("service.json", "model", lambda b: panel(b, "timeseries")["targets"][0].update(exprr="x")),
    "a field of a line misspelt": ("service.json", "model", lambda b: defaults(b)["custom"].update(fillOpacty=3)),
    "a field of options misspelt": ("service.json", "model", lambda b: panel(b, "timeseries")["options"].update(tooltp={})),
    "a field of a variable misspelt": ("service.json", "model", lambda b: variable(b, "service").update(refesh=2)),
    "a field of the dashboard misspelt": ("service.json", "model", lambda b: b.update(tag=[])),
    "a field of a row misspelt": ("service.json", "model", lambda b: panel(b, "row").update(colapsed=True)),
    "a field of a link misspelt": ("service.json", "model", lambda b: b["links"][0].update(keepTme=True)),
    "a field of an annotation misspelt": ("service.json", "model", lambda b: b["annotations"]["list"][1].update(titelFormat="x")),
    "an enumeration's value in options": ("service.json", "model", lambda b: panel(b, "timeseries")["options"]["legend"].update(displayMode="tabel")),
    "an enumeration's value in a line": ("service.json", "model", lambda b: defaults(b)["custom"].update(drawStyle="bar")),
    "a colour mode that is none": ("service.json", "model", lambda b: defaults(b)["color"].update(mode="palette")),
    "a reducer that is none": ("service.json", "model", lambda b: panel(b, "stat")["options"]["reduceOptions"].update(calcs=["lastNotnull"])),
    "a kind of panel that is none": ("service.json", "model", lambda b: panel(b, "timeseries").update(type="timesreies")),
    "a kind of panel that is gone": ("service.json", "model", lambda b: panel(b, "timeseries").update(type="graph")),
    "a kind of variable that is none": ("service.json", "model", lambda b: variable(b, "service").update(type="querry")),
    "a number as text": ("service.json", "model", lambda b: panel(b, "timeseries").update(id="7")),
    "a number for yes": ("service.json", "model", lambda b: b["links"][0].update(keepTime=1)),
    "null for a number": ("service.json", "model", lambda b: defaults(b).update(decimals=None)),
    "a transformation that is none": ("service.json", "model", lambda b: panel(b, "table")["transformations"][0].update(id="merg")),
    "a field of a transformation misspelt": ("service.json", "model", lambda b: panel(b, "table")["transformations"][1]["options"].update(renameByNam={})),
    "an override of nothing": ("service.json", "model", lambda b: panel(b, "table")["fieldConfig"]["overrides"][0]["properties"][0].update(id="units")),
    "an override of a line's field misspelt": ("service.json", "model", lambda b: titled(b, "Capacity")["fieldConfig"]["overrides"][0]["properties"][2]
                                               .update(id="custom.lineStile")),
    "a field of a CloudWatch query misspelt": ("cloudwatch.json", "model", lambda b: panel(b, "timeseries")["targets"][0].update(metricsName="x")),
    "a unit that is none": ("service.json", "unit", lambda b: defaults(b, "stat").update(unit="seconds")),
    "no unit": ("service.json", "unit", lambda b: defaults(b).pop("unit")),
    "a column's unit that is none": ("service.json", "unit", lambda b: panel(b, "table")["fieldConfig"]["overrides"][0]["properties"][0]
                                     .update(value="requests")),
    "no description": ("service.json", "title-description", lambda b: panel(b, "stat").pop("description")),
    "a title twice in a row": ("service.json", "title-description", lambda b: panel(b, "stat", 1).update(title=panel(b, "stat")["title"])),
    "a number twice": ("service.json", "panel-id", lambda b: panel(b, "stat", 1).update(id=panel(b, "stat")["id"])),
    "too wide": ("service.json", "grid", lambda b: panel(b, "timeseries")["gridPos"].update(w=30)),
    "one over another": ("service.json", "grid", lambda b: panel(b, "stat", 1).update(gridPos=panel(b, "stat")["gridPos"])),
    "thresholds that fall": ("service.json", "thresholds", lambda b: defaults(b, "stat").update(
        thresholds={"mode": "absolute", "steps": [{"color": "red", "value": None}, {"color": "green", "value": 2}, {"color": "blue", "value": 1}]})),
    "an open row that holds panels": ("autoscaling.json", "row", lambda b: panel(b, "row", -1).update(collapsed=False)),
    "a data source of one's own": ("service.json", "panel-datasource", lambda b: panel(b, "stat").update(datasource={"type": "prometheus", "uid": "abc"})),
    "a data source variable that is not there": ("service.json", "panel-datasource", lambda b: panel(b, "stat")["targets"][0].update(
        datasource={"type": "prometheus", "uid": "${prometheus}"})),
    "a data source variable of another name": ("service.json", "template-datasource", lambda b: variable(b, "datasource").update(name="source")),
    "no query": ("service.json", "no-targets", lambda b: panel(b, "stat").update(targets=[])),
    "a query's letter twice": ("service.json", "ref-ids", lambda b: titled(b, "Latency")["targets"][1].update(refId="A")),
    "no legend": ("service.json", "legend", lambda b: panel(b, "timeseries")["targets"][0].update(legendFormat="")),
    "a line of one moment": ("service.json", "instant-range", lambda b: panel(b, "timeseries")["targets"][0].update(instant=True, range=False)),
    "a whole range at each step": ("autoscaling.json", "instant-range", lambda b: titled(b, "Scaled out")["targets"][0].update(instant=False, range=True)),
    "a table of series": ("service.json", "format", lambda b: panel(b, "table")["targets"][0].pop("format")),
    "a parenthesis that is open": ("service.json", "promql", expression('sum(up{cluster=~"$cluster"}')),
    "a function that is none": ("service.json", "promql", expression('ratee(app_requests_total{cluster=~"$cluster"}[$__rate_interval])')),
    "a rate of a gauge's moment": ("service.json", "promql", expression("rate(up)")),
    "a window of one's own": ("service.json", "rate-interval", expression('rate(app_requests_total{cluster=~"$cluster"}[5m])')),
    "a counter as it is": ("service.json", "counter-agg", expression('sum(app_requests_total{cluster=~"$cluster"})')),
    "a bucket as it is": ("service.json", "counter-agg", expression('sum by (le) (app_request_duration_seconds_bucket{cluster=~"$cluster"})')),
    "every cluster": ("service.json", "label-promql", expression("sum(beaufort_service_desired_tasks)")),
    "a load balancer": ("service.json", "balancer", expression("sum(rate(beaufort_lb_requests_total[$__rate_interval]))")),
    "a line of logs without a stream": ("logs-traces.json", "logql", lambda b: panel(b, "logs")["targets"][0].update(expr="error")),
    "a CloudWatch search": ("cloudwatch.json", "cloudwatch", lambda b: panel(b, "timeseries")["targets"][0].update(expression="SEARCH('x')")),
    "CloudWatch's logs": ("cloudwatch.json", "cloudwatch", lambda b: panel(b, "timeseries")["targets"][0].update(queryMode="Logs")),
    "a dimension of any value": ("cloudwatch.json", "cloudwatch", lambda b: panel(b, "timeseries")["targets"][0]["dimensions"].update(ServiceName="*")),
    "a dimension of several values": ("cloudwatch.json", "cloudwatch", lambda b: variable(b, "service").update(multi=True)),
    "a statistic that is none": ("cloudwatch.json", "cloudwatch", lambda b: panel(b, "timeseries")["targets"][0].update(statistic="Mean")),
    "a column that no query gives": ("service.json", "table", lambda b: panel(b, "table")["targets"].pop()),
    "a column that is sorted by and is not there": ("service.json", "table", lambda b: panel(b, "table")["options"].update(
        sortBy=[{"displayName": "Cpu", "desc": True}])),
    "a link by a column that is not there": ("service.json", "table", lambda b: panel(b, "table")["transformations"][1]["options"]["indexByName"].pop("task")),
    "queries that are not merged": ("service.json", "table", lambda b: panel(b, "table")["transformations"].pop(0)),
    "a variable that is not looked up again": ("service.json", "template-on-time-change-reload", lambda b: variable(b, "service").update(refresh=1)),
    "All without a value": ("service.json", "variable", lambda b: variable(b, "service").pop("allValue")),
    "a variable before the one that it needs": ("service.json", "variable", lambda b: b["templating"]["list"].reverse()),
    "a variable that nothing uses": ("service.json", "variable", lambda b: b["templating"]["list"].append({**variable(b, "service"), "name": "other"})),
    "a variable that is not declared": ("service.json", "variable", expression('up{cluster=~"$cluster",zone=~"$zone"}')),
    "a variable that looks up no label": ("service.json", "variable", lambda b: variable(b, "service")["query"].update(query="label_value(up, job)")),
    "no annotations of Grafana's": ("service.json", "annotation", lambda b: b["annotations"]["list"].pop(0)),
    "an annotation without a title": ("service.json", "annotation", lambda b: b["annotations"]["list"][1].update(titleFormat="")),
    "a link to nowhere": ("overview.json", "link", lambda b: titled(b, "Requests by service")["fieldConfig"]["defaults"]["links"][0].update(
        url="/d/beaufort-servce?${__url_time_range}")),
    "a link with a variable that is not there": ("overview.json", "link", lambda b: titled(b, "Requests by service")["fieldConfig"]["defaults"]["links"][0]
                                                 .update(url="/d/beaufort-service?var-srvice=x&${__url_time_range}")),
    "a link that loses the time": ("service.json", "link", lambda b: b["links"][0].update(keepTime=False)),
    "a link to no tag": ("service.json", "link", lambda b: b["links"][0].update(tags=["beufort"])),
    "a link to Explore with half a query": ("control-plane.json", "link", lambda b: [
        o["properties"][0]["value"][0].update(url="/explore?panes=%7B") for o in titled(b, "Every operation")["fieldConfig"]["overrides"]
        if o["properties"][0]["id"] == "links"]),
    "another's uid": ("service.json", "uid", lambda b: b.update(uid="beaufort-slo")),
    "a number of one database": ("service.json", "top-level", lambda b: b.update(id=3)),
    "exported for sharing": ("service.json", "top-level", lambda b: b.update(__inputs=[])),
    "an older schema": ("service.json", "top-level", lambda b: b.update(schemaVersion=36)),
    "editable": ("service.json", "top-level", lambda b: b.update(editable=True)),
    "no refresh": ("service.json", "top-level", lambda b: b.pop("refresh")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_seeded_mistake_is_caught(mistake):
    file, rule, seed = MISTAKES[mistake]
    boards = copy.deepcopy(BOARDS)
    seed(boards[file])
    assert json.dumps(boards) != json.dumps(BOARDS), "nothing was changed"
    found = dashcheck.check(boards, PROMTOOL if rule == "promql" else None, file)
    assert (file, rule) in {(f, r) for f, r, _ in found}, found


# Life: a Beaufort, its service under load, and a Prometheus. One for all of the queries, as it takes a while.

class Prometheus:
    """A real one, that scrapes every second."""

    def __init__(self, directory, jobs):
        self.dir, self.port = pathlib.Path(directory), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        rules = {"groups": [{"name": "test", "rules": [
            {"alert": "AlwaysFiring", "expr": "vector(1)", "labels": {"severity": "warning"}, "annotations": {"summary": "A line for the table."}}]}]}
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}, "rule_files": ["rules.yml"], "scrape_configs": jobs}
        # JSON is YAML.
        (self.dir / "rules.yml").write_text(json.dumps(rules))
        (self.dir / "prometheus.yml").write_text(json.dumps(config))
        self.log = open(self.dir / "prometheus.log", "wb")
        self.process = subprocess.Popen(
            [PROMETHEUS, f"--config.file={self.dir}/prometheus.yml", f"--storage.tsdb.path={self.dir}/tsdb", f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=self.log, stderr=self.log)
        answers(self.url + "/-/ready")

    def get(self, path, **parameters):
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def ask(self, expr, start=None, end=None):
        """Series of an expression: now, or over a time."""
        if start is None:
            answer = self.get("/api/v1/query", query=expr)
        else:
            answer = self.get("/api/v1/query_range", query=expr, start=start, end=end, step=1)
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        return answer["data"]

    def value(self, expr):
        found = self.ask(expr)["result"]
        return float(found[0]["value"][1]) if found else None

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=20)
        self.log.close()


class World:
    """What the queries are asked of."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="beaufort-dashboards-")
        self.beaufort = Beaufort(self.dir, "--zone", "here-1a", env={"BEAUFORT_WEBHOOK_TOKEN": TOKEN})
        self.prometheus = self.load = None
        self.load_port = free_port()

    def start(self):
        b = self.beaufort.start()
        jobs = [
            {"job_name": "beaufort", "static_configs": [{"targets": [f"127.0.0.1:{b.port}"]}]},
            {"job_name": "tasks", "http_sd_configs": [{"url": f"{b.url}/sd/prometheus", "refresh_interval": "1s"}]},
            {"job_name": "load", "static_configs": [{"targets": [f"127.0.0.1:{self.load_port}"]}]},
        ]
        self.prometheus = Prometheus(self.dir, jobs)
        self.began = time.time()
        self.deploy()
        self.offer()
        # Refused, so that the API has a call that was not answered with 2xx.
        with pytest.raises(b.ecs.exceptions.ClusterNotFoundException):
            b.ecs.list_services(cluster="nowhere")
        self.scale()
        until("every source is scraped", self.scraped, 20, every=0.2)
        return self

    def deploy(self):
        b = self.beaufort
        container = {
            "name": "web", "image": IMAGE, "command": ["web"], "memory": 96, "portMappings": [{"containerPort": 8080, "hostPort": 0}], "stopTimeout": 3,
            "environment": [{"name": "WEB_CPU_MS", "value": "4"}, {"name": "WEB_ERROR_RATE", "value": "0.05"}],
            "dockerLabels": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
            "healthCheck": {"command": ["CMD", "/beaufort", "testbed", "exit", "0"], "interval": 5, "timeout": 2},
            "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/web", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "w",
                                                                     "awslogs-create-group": "true"}}}
        definition = b.register(container, cpu="256", memory="128")
        b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=definition, desiredCount=1)
        b.stable("web", 1)
        aas, key = scalable(b, "web", 1, 3)
        for name, steps in (("requests-out", {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}),
                            ("requests-in", {"MetricIntervalUpperBound": 0, "ScalingAdjustment": -1})):
            aas.put_scaling_policy(**key, PolicyName=name, PolicyType="StepScaling", StepScalingPolicyConfiguration={
                "AdjustmentType": "ChangeInCapacity", "Cooldown": 30, "MetricAggregationType": "Average", "StepAdjustments": [steps]})
        # A target that it neither passes nor falls far below while we look.
        aas.put_scaling_policy(**key, PolicyName="cpu", PolicyType="TargetTrackingScaling", TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 95.0, "ScaleOutCooldown": 60, "ScaleInCooldown": 60, "DisableScaleIn": True,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution"}})
        until("the task is scraped", lambda: self.prometheus.value(f'min(up{{job="tasks",cluster="{b.cluster}"}})') == 1, 20, every=0.2)

    def offer(self):
        b = self.beaufort
        self.load_log = open(pathlib.Path(self.dir) / "load.log", "wb")
        self.load = subprocess.Popen(
            [BINARY, "load", f"service/{b.cluster}/web", "--endpoint", b.url, "--rate", "20", "--for", "10m", "--metrics-listen",
             f"127.0.0.1:{self.load_port}"],
            stdout=self.load_log, stderr=self.load_log, env={**os.environ, "BEAUFORT_ENDPOINT": b.url})
        until("load is answered", lambda: (self.prometheus.value("sum(beaufort_load_completed_total)") or 0) > 40, 20, every=0.2)

    def alert(self, name, status, fingerprint, since, **labels):
        """One post, as Alertmanager would send it."""
        labels = {"alertname": name, "severity": "none", **labels}
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        ends = "0001-01-01T00:00:00Z" if status == "firing" else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        one = {"status": status, "labels": labels, "annotations": {"value": "120", "threshold": "100"}, "startsAt": stamp, "endsAt": ends,
               "generatorURL": "", "fingerprint": fingerprint}
        if name == "ServiceCalm":
            one["annotations"] = {"value": "10", "threshold": "40"}
        body = {"version": "4", "groupKey": f'{{}}:{{alertname="{name}"}}', "truncatedAlerts": 0, "status": status, "receiver": "beaufort", "groupLabels": {},
                "commonLabels": labels, "commonAnnotations": {}, "externalURL": "", "alerts": [one]}
        return self.beaufort.post("/alertmanager/v2/scale", json.dumps(body).encode(),
                                  {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})

    def scale(self):
        """Out by an alert, to the end of its chain; then in by another."""
        b, since = self.beaufort, time.time()
        of = {"cluster": b.cluster, "service": "web"}
        self.alert("BeaufortWatchdog", "firing", "00", since, beaufort_action="heartbeat")
        self.alert("ServiceBusy", "firing", "01", since, policy="requests-out", direction="out", **of)
        until("more tasks run", lambda: b.service("web")["runningCount"] == 2, 20)
        until("all of the chain is measured", lambda: self.prometheus.value('sum(beaufort_scaling_reaction_seconds_count{stage="total"})'), 30, every=0.2)
        self.both = until("both tasks are scraped", lambda: self.prometheus.value("count(count by (task) (app_requests_total))") == 2, 20, every=0.2)
        self.alert("ServiceBusy", "resolved", "01", since, policy="requests-out", direction="out", **of)
        self.alert("ServiceCalm", "firing", "02", time.time(), policy="requests-in", direction="in", **of)
        until("a task less is wanted", lambda: b.service("web")["desiredCount"] == 1, 40)

    def scraped(self):
        down = self.prometheus.ask("up == 0")["result"]
        # A moment ago, so that the mark of it lies before the end of what is asked for.
        counted = self.prometheus.value('sum(increase(beaufort_scaling_decisions_total{outcome="applied",direction="in"}[5s] offset 2s))')
        return counted and not [s for s in down if s["metric"]["job"] != "tasks"]

    def values(self, board):
        """A value for each of the dashboard's variables, as one who chose one would have it."""
        chosen = {"cluster": self.beaufort.cluster, "service": "web", "instance": f"127.0.0.1:{self.beaufort.port}"}
        return {**dashcheck.chosen(board), **chosen, **self.windows()}

    def windows(self):
        return {"__rate_interval": "5s", "__interval": "1s", "__range": f"{math.ceil(time.time() - self.began)}s"}

    def stop(self):
        for process in (self.load, self.prometheus and self.prometheus.process, self.beaufort.process):
            if process and process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(timeout=10)
        self.beaufort.clean()
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture(scope="module")
def world():
    if not pathlib.Path(PROMETHEUS).exists():
        pytest.skip("there is no prometheus here: run tests/setup.sh")
    made = World()
    try:
        try:
            yield made.start()
        except AssertionError:
            print(made.beaufort.tail(60))
            raise
    finally:
        made.stop()


LIVE = [name for name in FILES if name != "cloudwatch.json"]


def has_value(series):
    points = series.get("values") or [series.get("value")]
    return any(not math.isnan(float(v)) for _, v in points)


def series_of(data):
    return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]


@pytest.mark.parametrize("file", LIVE)
def test_variables_have_values(world, file):
    board, b = BOARDS[file], world.beaufort
    wanted = {"cluster": b.cluster, "service": "web", "policy": "requests-out", "container": "web", "instance": f"127.0.0.1:{b.port}"}
    for one in dashcheck.variables(board):
        if one["type"] != "query":
            continue
        expr, label = dashcheck.label_values(one["query"]["query"])
        for chosen in (dashcheck.chosen(board), world.values(board)):
            asked = {"match[]": dashcheck.expand(expr, chosen)} if expr else {}
            answer = world.prometheus.get(f"/api/v1/label/{label}/values", **asked)
            assert answer["status"] == "success", answer
            assert answer["data"], f"{one['name']}: {asked}"
            assert wanted.get(one["name"], answer["data"][0]) in answer["data"], (one["name"], answer["data"])


@pytest.mark.parametrize("file", LIVE)
def test_every_query_answers_with_the_series_that_its_panel_shows(world, file):
    board, wrong, end = BOARDS[file], [], time.time()
    start = world.began
    for panel in dashcheck.flat(board):
        for target in panel.get("targets", []):
            if target["datasource"]["type"] != "prometheus":
                continue
            where = f"{panel['title']} {target['refId']}"
            for chosen in ({**dashcheck.chosen(board), **world.windows()}, world.values(board)):
                expr = dashcheck.expand(target["expr"], chosen)
                data = world.prometheus.ask(expr, *(() if target["instant"] else (start, end)))
                assert data["resultType"] in (("vector", "scalar") if target["instant"] else ("matrix",)), where
                series = [s for s in series_of(data) if has_value(s)]
                if not series:
                    wrong.append(f"{where}: nothing for {expr}")
                wrong += [f"{where}: {text}" for text in misfits(panel, target, series)]
    assert not wrong, "\n".join(wrong)


def misfits(panel, target, series):
    """Labels that the legend, the table or the links of a panel speak of and the series lack."""
    for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
        if not all(label in s["metric"] for s in series):
            yield f"the legend's {label} is not on {[s['metric'] for s in series if label not in s['metric']][:3]}"
    for link in dashcheck.data_links(panel):
        for label in re.findall(r"__field\.labels\.(\w+)", link["url"]):
            if not all(label in s["metric"] for s in series):
                yield f"a link's {label} is not on every series"
    organize = next((t["options"] for t in panel.get("transformations", []) if t["id"] == "organize"), None)
    if panel["type"] == "table" and organize and organize["renameByName"]:
        keys = {name for name in organize["indexByName"] if not name.startswith("Value")}
        for one in series:
            if set(one["metric"]) != keys:
                yield f"a row is told by {sorted(one['metric'])} and not by {sorted(keys)}: columns would not join"
    elif panel["type"] == "table" and organize:
        columns = set(organize["indexByName"])
        if not any(columns & set(s["metric"]) for s in series):
            yield f"no series has one of {sorted(columns)}"
    names = [re.sub(r"\{\{(\w+)\}\}", lambda m: one["metric"].get(m[1], ""), target.get("legendFormat", "")) for one in series]
    if panel["type"] in ("timeseries", "bargauge", "state-timeline") and len(set(names)) < len(names):
        yield f"several series have one name: {sorted(names)[:6]}"


@pytest.mark.parametrize("file", LIVE)
def test_every_annotation_marks_what_happened(world, file):
    board, end = BOARDS[file], time.time()
    for one in board["annotations"]["list"]:
        if one.get("builtIn"):
            continue
        expr = dashcheck.expand(one["expr"], world.values(board))
        series = world.prometheus.ask(expr, world.began, end)["result"]
        assert series, f"{one['name']}: nothing for {expr}"
        for label in re.findall(r"\{\{(\w+)\}\}", one["titleFormat"] + one["textFormat"]) + [t for t in one["tagKeys"].split(",") if t]:
            assert all(s["metric"].get(label) for s in series), (one["name"], label, series[:1])
        # A mark that never ends marks nothing.
        assert all(len(s["values"]) < (end - world.began) * 0.9 for s in series), one["name"]


def names_in(expr):
    """Metrics that an expression names."""
    text = dashcheck.VARIABLE.sub("1", re.sub(r'"[^"]*"', "", expr))
    text = dashcheck.GROUPING.sub(" ", re.sub(r"\[[^\]]*\]", "", re.sub(r"\{[^{}]*\}", "{}", text)))
    words = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\(|[a-zA-Z0-9_:])", text)
    return {w for w in words if w not in {"and", "or", "unless", "bool", "offset", "by", "on", "Inf", "NaN", "group_left", "group_right"}}


@pytest.mark.parametrize(("expr", "names"), [
    ('sum by (le) (rate(a_bucket{x="y{b}"}[5m])) > bool 2', {"a_bucket"}),
    ('a - on (instance) group_left () b{c="d"} or vector(0)', {"a", "b"}),
    ("histogram_quantile(0.9, sum(rate(a_bucket[$__range]))) / (1 - $objective / 100)", {"a_bucket"}),
])
def test_names_are_found(expr, names):
    assert names_in(expr) == names


def test_every_metric_is_exported(world):
    """By Beaufort, by the sample application or by the load generator; ALERTS is Prometheus' own."""
    target = world.prometheus.get("/api/v1/targets", state="active")["data"]["activeTargets"]
    pages = {t["labels"]["job"]: t["scrapeUrl"] for t in target if t["health"] == "up"}
    assert pages.keys() == {"beaufort", "tasks", "load"}, target
    known = {"ALERTS"}
    for url in pages.values():
        with urllib.request.urlopen(url, timeout=10) as answer:
            for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", answer.read().decode(), re.M):
                known |= {name} | ({f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else set())
    named = {(file, name) for file in LIVE for _, expr in dashcheck.expressions(BOARDS[file]) for name in names_in(expr)}
    assert len(named) > 100
    assert not sorted((file, name) for file, name in named if name not in known)


# The CloudWatch dashboard asks Beaufort itself, as Grafana's data source would.

def cloudwatch_targets():
    return [(p["title"], t) for p in dashcheck.flat(BOARDS["cloudwatch.json"]) for t in p.get("targets", [])]


@functools.lru_cache
def cloudwatch_choice(world):
    """Values of the variables, each looked up as Grafana does: ListMetrics, and the dimension's values of what matches."""
    chosen, cw = {}, world.beaufort.client("cloudwatch")
    for one in dashcheck.variables(BOARDS["cloudwatch.json"]):
        if one["type"] == "query":
            query = one["query"]
            dimensions = [{"Name": k, "Value": dashcheck.expand(v, chosen)} for k, v in query["dimensionFilters"].items()]
            pages = cw.get_paginator("list_metrics").paginate(Namespace=query["namespace"], MetricName=query["metricName"],
                                                              Dimensions=[*dimensions, {"Name": query["dimensionKey"]}])
            values = sorted({d["Value"] for page in pages for m in page["Metrics"] for d in m["Dimensions"] if d["Name"] == query["dimensionKey"]})
            assert values, query
            chosen[one["name"]] = values[0]
        elif one["type"] == "custom":
            chosen[one["name"]] = one["current"]["value"]
    return chosen


def test_cloudwatch_variables_have_values(world):
    chosen = cloudwatch_choice(world)
    assert (chosen["cluster"], chosen["service"]) == (world.beaufort.cluster, "web")
    assert re.fullmatch(r"[0-9a-f]{32}", chosen["task"])


def test_cloudwatch_queries_have_datapoints(world):
    chosen, wrong = cloudwatch_choice(world), []
    rows = cloudwatch_targets()
    assert len(rows) > 20
    queries = [{"Id": f"q{n}", "Label": t["label"], "ReturnData": True, "MetricStat": {
        "Stat": t["statistic"], "Period": int(dashcheck.expand(t["period"], chosen)), "Metric": {
            "Namespace": t["namespace"], "MetricName": t["metricName"],
            "Dimensions": [{"Name": k, "Value": dashcheck.expand(v, chosen)} for k, v in t["dimensions"].items()]}}} for n, (_, t) in enumerate(rows)]
    answer = world.beaufort.client("cloudwatch").get_metric_data(MetricDataQueries=queries, StartTime=world.began - 60, EndTime=time.time() + 1)
    results = {r["Id"]: r for r in answer["MetricDataResults"]}
    for n, (title, target) in enumerate(rows):
        result = results[f"q{n}"]
        assert result["Label"] == target["label"]
        if not result["Values"]:
            wrong.append(f"{title}: no datapoint of {target['metricName']} {target['statistic']} {target['dimensions']}")
    assert not wrong, "\n".join(wrong)
