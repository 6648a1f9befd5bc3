"""The rules of alerts/: each is tested to fire and to stay silent, has a runbook and the labels of its kind, names metrics that there are, and says nothing of a
Beaufort that is well, judged by a real Prometheus."""

import json
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

import pytest
import yaml

from conftest import BINARY, ROOT, answers, free_port, testbed, until
from monitoring import TOKEN, Process, Prometheus, program
from test_scaling import scalable, tracking

ALERTS = ROOT / "alerts"
HEALTH, SCALING = ALERTS / "beaufort.rules.yml", ALERTS / "scaling.rules.yml"
TESTS = sorted((ALERTS / "tests").glob("*.yml"))
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
# Fires for ever, by intent.
ALWAYS = {"BeaufortWatchdog"}
# What Prometheus itself says of its scrapes, alerts and notifications.
OF_PROMETHEUS = re.compile(r"^(up|ALERTS|scrape_duration_seconds|prometheus_\w+)$")


def rules(file):
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts(*files):
    return {rule["alert"]: rule for file in files for rule in rules(file) if "alert" in rule}


ALL = alerts(HEALTH, SCALING)


CASES = [case for file in TESTS for case in yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["tests"]]


def seconds(text):
    return sum(int(n) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in re.findall(r"(\d+)([smhd])", str(text)))


def told(alert):
    """Of each case that looks at the alert: when it is silent, and when it fires with which labels and annotations."""
    for case in CASES:
        looks = [look for look in case.get("alert_rule_test", []) if look["alertname"] == alert]
        if looks:
            silent = [seconds(look["eval_time"]) for look in looks if not look["exp_alerts"]]
            yield silent, [(seconds(look["eval_time"]), fired) for look in looks for fired in look["exp_alerts"]]


def anchors():
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", RUNBOOKS, re.M)}


def section(alert):
    found = re.search(rf"^### {alert}\n(.*?)(?=^#{{2,3}} |\Z)", RUNBOOKS, re.M | re.S)
    assert found, f"docs/runbooks.md has no section {alert}"
    return found[1]


def fenced(language, text=RUNBOOKS):
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def metrics_of(expression):
    """The names of the metrics that it reads, with the labels that it matches on each."""
    plain = re.sub(r"\b(?:by|on|without|ignoring|group_left|group_right) ?\([^)]*\)", " ", expression)
    found = []
    for name, _, matchers in re.findall(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()(\{([^}]*)\})?", re.sub(r"\[[^]]*\]|\boffset \w+", " ", plain)):
        if name not in ("and", "or", "unless", "bool") and ("_" in name or name in ("up", "ALERTS")):
            found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers))))
    return [(name, labels) for name, labels in found if not any(name in other for _, other in found)]


def promtool(*args, directory=ALERTS):
    run = subprocess.run([program("promtool"), *map(str, args)], cwd=directory, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stdout + run.stderr


def test_what_the_readme_shows_is_what_the_programs_take(tmp_path):
    (tmp_path / "alertmanager.yml").write_text(readme("alertmanager.yml"))
    run = subprocess.run([program("amtool"), "check-config", "alertmanager.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, run.stdout + run.stderr
    (tmp_path / "prometheus.yml").write_text(readme("prometheus.yml").replace("/etc/prometheus/rules", str(ALERTS)))
    code, said = promtool("check", "config", "prometheus.yml", directory=tmp_path)
    assert code == 0 and "SUCCESS" in said, said
    [rule] = re.findall(r"^```yaml\n(- alert: .*?)^```$", (ALERTS / "README.md").read_text(), re.M | re.S)
    (tmp_path / "rule.yml").write_text("groups:\n- name: shown\n  rules:\n  " + rule.replace("\n", "\n  "))
    code, said = promtool("check", "rules", "rule.yml", directory=tmp_path)
    assert code == 0, said
    [shown] = rules(tmp_path / "rule.yml")
    assert shown["labels"].keys() == {"severity", "beaufort_action", "policy", "direction"} and {"value", "threshold"} <= shown["annotations"].keys()


def test_promtool_takes_the_rules():
    code, said = promtool("check", "rules", HEALTH, SCALING)
    assert code == 0 and "SUCCESS" in said and "FAILED" not in said, said


@pytest.mark.parametrize("file", TESTS, ids=lambda f: f.stem)
def test_every_rule_does_what_its_tests_say(file):
    code, said = promtool("test", "rules", file.name, directory=file.parent)
    assert code == 0, said


def test_the_tests_fail_when_a_rule_is_wrong(tmp_path):
    """Otherwise nothing above says anything: a threshold, a `for`, a label and a text, each spoilt in turn."""
    shutil.copytree(ALERTS, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "scaling.rules.yml"
    right = file.read_text()
    for was, wrong in (("< 40", "< 60"), ("for: 20s", "for: 1s"), ("direction: out", "direction: in"), ("threshold: '80'", "threshold: '8'"),
                       ("and on (job, instance) up == 1", "")):
        assert was in right
        file.write_text(right.replace(was, wrong))
        code, _ = promtool("test", "rules", "scaling.yml", directory=tmp_path / "tests")
        assert code != 0, f"{was!r} became {wrong!r} and no test noticed"


@pytest.mark.parametrize("alert", ALL)
def test_every_alert_is_seen_firing_and_silent(alert):
    seen = list(told(alert))
    fires = [(silent, fired) for silent, fired in seen if fired]
    assert fires, f"no test of alerts/tests sees {alert} fire"
    if alert in ALWAYS:
        return
    assert any(silent and not fired for silent, fired in seen), f"no test of alerts/tests is of what resembles {alert} and is no trouble"
    for silent, fired in fires:
        first = min(at for at, _ in fired)
        if "for" in ALL[alert]:
            assert first >= seconds(ALL[alert]["for"]), f"{alert} is said to fire before its `for` can have passed"
    assert any(at < min(t for t, _ in fired) for silent, fired in fires for at in silent), f"no test sees {alert} silent before it fires"


@pytest.mark.parametrize("alert", ALL)
def test_every_alert_says_how_bad_what_and_where_to_read_on(alert):
    rule = ALL[alert]
    assert re.fullmatch(r"[A-Z][A-Za-z]+", alert)
    assert rule["labels"]["severity"] in ({"none"} if "beaufort_action" in rule["labels"] else {"critical", "warning", "info"})
    assert {"summary", "description", "runbook_url"} <= set(rule["annotations"])
    assert "$value" not in rule["annotations"]["summary"], "a summary stays the same while the alert lasts"
    path, anchor = rule["annotations"]["runbook_url"].split("#")
    assert path == "docs/runbooks.md" and anchor == alert.lower() and anchor in anchors()
    for _, fired in told(alert):
        for _, one in fired:
            assert set(one["exp_annotations"]) == set(rule["annotations"])
            text = " ".join(map(str, one["exp_annotations"].values()))
            assert "<no value>" not in text and "{{" not in text and "%!" not in text, text


def test_every_alert_has_a_runbook_and_no_runbook_is_without_one():
    assert re.findall(r"^### (.+)$", RUNBOOKS, re.M) == list(ALL), "the sections stand in the order of the rules"
    for alert in ALL:
        parts = re.findall(r"^\*\*([A-Z][\w ]+)\.\*\*", section(alert), re.M)
        assert parts == ["Means", "Look at", "Causes", "Do", "No trouble"], f"{alert}: {parts}"
    links = re.findall(r"\]\(#([\w-]+)\)", RUNBOOKS)
    assert links and set(links) <= anchors()
    for path, anchor in re.findall(r"\]\((\.\./)?alerts/README\.md#([\w-]+)\)", RUNBOOKS):
        assert f"## {anchor.replace('-', ' ')}" in (ALERTS / "README.md").read_text().lower()


def test_a_scaling_rule_has_the_contract_s_labels_and_no_other():
    scaling = {name: rule for name, rule in ALL.items() if rule["labels"].get("beaufort_action") == "scale"}
    assert len(scaling) == 2 and not set(scaling) & set(alerts(HEALTH))
    for name, rule in scaling.items():
        fired = [one for _, some in told(name) for _, one in some]
        for one in fired:
            assert set(one["exp_labels"]) == {"beaufort_action", "severity", "cluster", "service", "policy", "direction"}, name
            assert one["exp_labels"]["severity"] == "none" and one["exp_labels"]["direction"] in ("out", "in")
            float(one["exp_annotations"]["value"]), float(one["exp_annotations"]["threshold"])
        threshold = rule["annotations"]["threshold"]
        assert re.search(rf"[<>] {threshold}\b", rule["expr"]), f"{name}: the threshold that is told is not the one that is compared with"
    # One that scales in has a threshold of its own, and has to hold: it is never the mere absence of the other.
    inward = [rule for rule in scaling.values() if rule["labels"]["direction"] == "in"]
    assert inward and all("for" in rule and "<" in rule["expr"] and "absent" not in rule["expr"] for rule in inward)
    assert ALL["BeaufortWatchdog"]["labels"] == {"severity": "none", "beaufort_action": "heartbeat"}


def test_the_commands_of_the_runbooks_are_those_of_the_program():
    lines = fenced("sh")
    assert len(lines) > 30
    helps = {}
    for line in lines:
        name, command, *words = line.split()
        assert name == "beaufort", line
        if command not in helps:
            run = subprocess.run([BINARY, command, "--help"], capture_output=True, text=True, timeout=30)
            assert run.returncode == 0, f"{line}: {run.stderr}"
            helps[command] = run.stdout
        for word in words:
            assert not word.startswith("-") or re.search(rf"(^|[\s,]){word}\b", helps[command]), f"{line}: {command} has no {word}"
        if command in ("why", "logs", "events") and words and not words[0].startswith("-"):
            assert re.match(r"(service|task|alarm|instance)/\w+$|placement$", words[0]), line


def readme(title):
    """The file of this name that alerts/README.md shows."""
    [block] = re.findall(rf"^```yaml\n# {re.escape(title)}\n(.*?)^```$", (ALERTS / "README.md").read_text(), re.M | re.S)
    return block


class Alertmanager(Process):
    """With the route that alerts/README.md shows, as it stands there."""

    def __init__(self, directory, beaufort):
        super().__init__(directory, "alertmanager")
        (self.dir / "token").write_text(TOKEN)
        config = readme("alertmanager.yml")
        for was, here in (("127.0.0.1:4566", f"127.0.0.1:{beaufort.port}"), ("/etc/alertmanager/beaufort.token", str(self.dir / "token"))):
            assert was in config
            config = config.replace(was, here)
        (self.dir / "alertmanager.yml").write_text(config)

    def start(self):
        return self.spawn("--config.file=alertmanager.yml", "--storage.path=data", f"--web.listen-address=127.0.0.1:{self.port}",
                          "--cluster.listen-address=")


class World:
    """A Beaufort with a service of every kind of metric, the sample service beside it, a Prometheus that reads both with our rules, and an Alertmanager."""

    def __init__(self, beaufort, directory):
        check = {"command": ["CMD", "/beaufort", "testbed", "exit", "0"], "interval": 5, "timeout": 3}
        definition = beaufort.register(testbed("sleep", 600, cpu=128, stopTimeout=2, healthCheck=check))
        beaufort.ecs.create_service(cluster=beaufort.cluster, serviceName="web", taskDefinition=definition, desiredCount=1)
        tracking(*scalable(beaufort, "web", 1, 3))
        beaufort.stable("web", 1)
        self.beaufort, port = beaufort, free_port()
        self.app = subprocess.Popen([BINARY, "web", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.prometheus = self.alertmanager = None
        self.url = f"http://127.0.0.1:{port}"
        try:
            answers(self.url + "/healthz")
            until("containers are measured", lambda: "container_memory_working_set_bytes{" in beaufort.get("/metrics"))
            until("the policy's metric is measured", lambda: "beaufort_scaling_policy_metric{" in beaufort.get("/metrics"))
            labels = {"cluster": beaufort.cluster, "service": "web", "task": "t1", "container": "main"}
            self.alertmanager = Alertmanager(f"{directory}/alertmanager", beaufort).start()
            self.prometheus = Prometheus(f"{directory}/prometheus", [
                {"job_name": "beaufort", "static_configs": [{"targets": [f"127.0.0.1:{beaufort.port}"]}]},
                {"job_name": "tasks", "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]},
            ], [HEALTH, SCALING], self.alertmanager).start()
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for part in filter(None, (self.prometheus, self.alertmanager)):
            part.stop()
        self.app.terminate()
        self.app.wait(timeout=20)

    def request(self):
        with urllib.request.urlopen(self.url + "/", timeout=5) as answer:
            return answer.status


@pytest.fixture
def world(make):
    directory = tempfile.mkdtemp(prefix="beaufort-alerts-")
    world = World(make("--webhook-token", TOKEN).start(), directory)
    yield world
    world.stop()
    shutil.rmtree(directory, ignore_errors=True)


def test_every_metric_is_there_and_a_beaufort_that_is_well_raises_nothing(world):
    families = {}
    for text in (world.beaufort.get("/metrics"), urllib.request.urlopen(world.url + "/metrics", timeout=5).read().decode()):
        families.update(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        for name, labels in re.findall(r"^([\w:]+)\{(.*)\} ", text, re.M):
            families.setdefault("labels of " + name, set()).update(re.findall(r'(\w+)="', labels))
    recorded = {rule["record"] for rule in rules(HEALTH) + rules(SCALING) if "record" in rule}
    # What a scrape adds.
    added = {"job", "instance", "cluster", "service", "task", "container"}
    used = [(m, rule.get("alert") or rule["record"]) for rule in rules(HEALTH) + rules(SCALING) for m in metrics_of(rule["expr"])]
    used += [(m, f"docs/runbooks.md: {query}") for query in fenced("promql") for m in metrics_of(query)]
    assert len({name for (name, _), _ in used}) > 40
    missing = []
    for (name, labels), where in used:
        if name in recorded or OF_PROMETHEUS.match(name):
            continue
        family = name if name in families else re.sub(r"_(bucket|count|sum)$", "", name)
        if family not in families or (family != name and families[family] != "histogram"):
            missing.append(f"{name}: {where}")
        elif not labels <= families.get("labels of " + name, set()) | added:
            missing.append(f"{name} has no label {labels - families.get('labels of ' + name, set()) - added}: {where}")
    assert not missing, "\n".join(missing)

    # A few rounds under a little load, each rule evaluated on what is really there.
    value = 'cluster_service:app_requests_per_task:rate5s{service="web"}'
    until("requests are seen by the rules", lambda: world.request() and any(float(s["value"][1]) > 0 for s in world.prometheus.query(value)), 30)

    until("the heartbeat has come the whole way", lambda: world.beaufort.get("/api/alerts")["lastHeartbeatAt"], 20)
    until("Prometheus knows of it", lambda: world.prometheus.query("beaufort_webhook_heartbeat_timestamp_seconds > 0"), 20)

    def evaluated():
        groups = world.prometheus.get("/api/v1/rules")["groups"]
        return groups if all(r["health"] == "ok" for g in groups for r in g["rules"]) and all(g["lastEvaluation"] > "2001" for g in groups) else None

    # (What could not be evaluated says why in `lastError`.)
    groups = until("every rule was evaluated without an error", evaluated, 30)
    assert {r["name"] for g in groups for r in g["rules"]} == set(ALL) | recorded

    def raised():
        """Whatever is not inactive: what would fire later, was it to last, is pending already."""
        groups = world.prometheus.get("/api/v1/rules")["groups"]
        return {r["name"]: r["alerts"] for g in groups for r in g["rules"] if r["type"] == "alerting" and r["state"] != "inactive"}

    until("nothing but the heartbeat is raised", lambda: set(raised()) == ALWAYS or print(raised()), 20, every=1)

    for query in fenced("promql"):
        world.prometheus.query(query)


def test_real_trouble_is_seen_by_its_rule(make):
    """The unit tests of the rules know what series look like in trouble; this is the trouble itself. Pending is enough: that `for` holds is theirs to say."""
    directory = tempfile.mkdtemp(prefix="beaufort-alerts-")
    beaufort = make("--webhook-token", TOKEN).start()
    prometheus = Prometheus(directory, [{"job_name": "beaufort", "static_configs": [{"targets": [f"127.0.0.1:{beaufort.port}"]}]}], [HEALTH])
    expected = {
        ("BeaufortServiceDown", "nowhere"), ("BeaufortServiceDown", "wrong"), ("BeaufortServiceBelowDesired", "nowhere"),
        ("BeaufortTasksUnplaceable", "nowhere"), ("BeaufortTaskCrashLooping", "crash"), ("BeaufortDeploymentFailing", "wrong"),
        ("BeaufortContainerUnhealthy", "sick"), ("BeaufortContainerOomKilled", "greedy"), ("BeaufortWebhookRefused", None), ("BeaufortWebhookAlertsUnknown", None),
    }

    def serve(name, container, **more):
        beaufort.ecs.create_service(cluster=beaufort.cluster, serviceName=name, taskDefinition=beaufort.register(container), desiredCount=1, **more)

    def tell(token, alert):
        body = {"version": "4", "groupKey": "g", "status": "firing", "alerts": [alert] if alert else []}
        request = urllib.request.Request(beaufort.url + "/alertmanager/v2/scale", data=json.dumps(body).encode(), method="POST",
                                         headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code

    def raised():
        return {(a["metric"]["alertname"], a["metric"].get("service")) for a in prometheus.query("ALERTS")}

    try:
        prometheus.start()
        until("Beaufort is scraped", lambda: prometheus.query('beaufort_webhook_posts_total{code="401"} == 0'), 20)
        serve("crash", testbed("exit", 1))
        serve("wrong", {**testbed("sleep", 600), "entryPoint": ["/there-is-no-such-program"]})
        serve("greedy", testbed("hold", 200))
        serve("nowhere", testbed("sleep", 600), placementConstraints=[{"type": "memberOf", "expression": "attribute:disk == tape"}])
        check = {"command": ["CMD", "/beaufort", "testbed", "exit", "1"], "interval": 5, "timeout": 2, "retries": 1}
        serve("sick", testbed("sleep", 600, healthCheck=check, stopTimeout=2))
        stray = {"status": "firing", "labels": {"alertname": "Stray", "cluster": beaufort.cluster, "service": "gone", "policy": "out"}, "annotations": {},
                 "startsAt": "2026-11-20T10:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "1"}
        assert [tell("wrong-token", None) for _ in range(4)] == [401] * 4
        assert tell(TOKEN, stray) == 200
        seen = set()

        def all_seen():
            seen.update(raised())
            return expected <= seen or print(expected - seen)

        until("each trouble is seen", all_seen, 100, every=1)
        beaufort.stop()
        until("that Beaufort has gone is seen", lambda: "BeaufortDown" in {name for name, _ in raised()}, 20, every=0.5)
    finally:
        prometheus.stop()
        shutil.rmtree(directory, ignore_errors=True)


def test_a_lost_instance_is_told_of_until_it_is_deregistered(make):
    directory = tempfile.mkdtemp(prefix="beaufort-alerts-")
    token = "scenario-agent-token"
    beaufort = make("--agent-token", token).start()
    prometheus = Prometheus(f"{directory}/prometheus", [{"job_name": "beaufort", "static_configs": [{"targets": [f"127.0.0.1:{beaufort.port}"]}]}], [HEALTH])
    agent = subprocess.Popen([BINARY, "agent", "--join", beaufort.url, "--token", token, "--cluster", beaufort.cluster, "--data-dir", f"{directory}/agent"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def raised():
        return {a["metric"]["alertname"] for a in prometheus.query("ALERTS")}

    try:
        prometheus.start()
        until("two instances are seen", lambda: len(prometheus.query("beaufort_instance_connected == 1")) == 2, 20)
        agent.terminate()
        agent.wait(timeout=20)
        [lost] = until("one of them is lost", lambda: prometheus.query('ALERTS{alertname="BeaufortInstanceDisconnected"}'), 20)
        assert "BeaufortClusterWithoutInstances" not in raised()
        beaufort.ecs.deregister_container_instance(cluster=beaufort.cluster, containerInstance=lost["metric"]["container_instance"], force=True)
        until("nobody waits for it any more", lambda: not raised(), 20)
    finally:
        if agent.poll() is None:
            agent.kill()
        prometheus.stop()
        shutil.rmtree(directory, ignore_errors=True)
