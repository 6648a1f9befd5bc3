"""Prometheus' alert rules scale a service on real Docker, with a real Prometheus and a real Alertmanager; and what may go wrong between them."""

import json
import shutil
import signal
import tempfile
import urllib.error
import urllib.request

import pytest

from conftest import testbed, until
from monitoring import TOKEN, Alertmanager, Gauge, Prometheus, Relay, rules, step_policies


class World:
    """A Beaufort with a service, and Prometheus and Alertmanager on it."""

    def __init__(self, beaufort, directory, repeat="30s", desired=1, most=5):
        self.beaufort = beaufort
        definition = beaufort.register(testbed("sleep", 600))
        beaufort.ecs.create_service(cluster=beaufort.cluster, serviceName="web", taskDefinition=definition, desiredCount=desired)
        step_policies(beaufort, "web", 1, most)
        beaufort.stable("web", desired)
        self.gauge = Gauge(beaufort.cluster, "web")
        self.gauge.value = 70
        self.relay = Relay(beaufort)
        self.alertmanager = Alertmanager(f"{directory}/alertmanager", self.relay.url, repeat).start()
        rule_file = rules(directory, beaufort.cluster, "web")
        self.prometheus = Prometheus(f"{directory}/prometheus", [self.gauge.scrape()], [rule_file], self.alertmanager).start()
        until("the gauge is scraped", lambda: self.prometheus.query("load_per_task"))

    def close(self):
        for part in (self.prometheus, self.alertmanager, self.relay, self.gauge):
            part.stop()

    def desired(self):
        return self.beaufort.service("web")["desiredCount"]

    def containers(self):
        return len(self.beaufort.containers())

    def alarm(self, policy):
        alerts = [a for a in self.beaufort.get("/api/alerts")["alerts"] if a["policy"] == policy]
        return alerts[0]["state"] if alerts else None

    def reach(self, count, within=20):
        until(f"{count} containers", lambda: self.desired() == count and self.containers() == count, within)


@pytest.fixture
def world(make):
    made, directories = [], []

    def build(**more):
        directory = tempfile.mkdtemp(prefix="beaufort-monitoring-")
        directories.append(directory)
        beaufort = make("--webhook-token", TOKEN).start()
        made.append(World(beaufort, directory, **more))
        return made[-1]

    yield build
    for w in made:
        w.close()
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def test_load_up_more_containers_load_down_fewer_whatever_happens_on_the_way(world):
    w = world()
    # The first message of all is answered 500: Alertmanager says it again.
    w.relay.failing = 1
    w.gauge.value = 250
    w.reach(3)
    assert any(m["status"] == 500 for m in w.relay.messages), "the failure was not met"

    # Alertmanager is killed and comes back while the alert fires on.
    w.alertmanager.stop(signal.SIGKILL)
    w.reach(5)
    told = len(w.relay.of("firing"))
    w.alertmanager.start()
    # It remembers nothing and says everything anew. An end that comes before that is never told: then the alert expires.
    until("the alert is told anew", lambda: len(w.relay.of("firing")) > told)

    # Everything that was said so far is said again, as the second of a pair would.
    for message in list(w.relay.of("firing")):
        assert w.relay.send(w.beaufort.url + message["path"], message["raw"], message["authorization"]) == 200
    assert w.desired() == 5

    w.gauge.value = 70
    until("the alert is over", lambda: w.alarm("requests-out") == "OK", 20)
    assert w.desired() == 5, "between the thresholds nothing happens"
    w.gauge.value = 3
    w.reach(1, 40)
    w.gauge.value = 70
    until("that alert is over, too", lambda: w.alarm("requests-in") == "OK", 20)

    why = w.beaufort.cli("why", "service/web", "-n", "60").stdout
    assert "Prometheus' rule LoadHigh fires since" in why and "its value is 250, the threshold 100" in why
    assert 'labels {alertname="LoadHigh", beaufort_action="scale", cluster=' in why and 'policy="requests-out"' in why
    assert "LoadHigh is 250, 150 from the threshold 100" in why and "desired 1 -> 3" in why
    alerts = w.beaufort.cli("alerts").stdout
    assert "LoadHigh" in alerts and "LoadLow" in alerts
    name = next(a["alarm"] for a in w.beaufort.get("/api/alerts")["alerts"] if a["rule"] == "LoadHigh")
    alarm = w.beaufort.cli("why", f"alarm/{name}").stdout
    assert 'service="web"' in alarm and "labels" in alarm and "/graph?" in alarm
    metrics = w.beaufort.get("/metrics")
    assert 'beaufort_webhook_alerts_total{outcome="opened"} ' in metrics and 'source="prometheus"' in metrics


def test_a_restart_in_the_middle_loses_nothing(world):
    w = world(most=9)
    w.gauge.value = 250
    w.reach(3)
    w.beaufort.kill()
    w.beaufort.start()
    # No message is due for half a minute: what goes on is what was durable.
    assert w.alarm("requests-out") == "ALARM"
    w.reach(5)
    # While nobody answers the alert ends: Alertmanager says so when somebody does again.
    w.beaufort.kill()
    w.gauge.value = 70
    until("Prometheus has seen it", lambda: not w.prometheus.query('ALERTS{alertname="LoadHigh"}'))
    w.beaufort.start()
    until("the end is told", lambda: w.alarm("requests-out") == "OK", 30)
    settled = w.desired()
    assert settled in (5, 7) and settled == w.desired()


def test_nobody_speaks_any_more(world):
    w = world(repeat="2s", most=3)
    w.gauge.value = 250
    w.reach(3)
    # Prometheus dies: Alertmanager takes its alerts for resolved.
    w.prometheus.stop(signal.SIGKILL)
    until("resolved for want of news", lambda: w.alarm("requests-out") == "OK", 30)
    w.prometheus.start()
    until("it fires again", lambda: w.alarm("requests-out") == "ALARM", 30)
    # Alertmanager dies: nobody says anything.
    w.alertmanager.stop(signal.SIGKILL)
    until("expired", lambda: w.alarm("requests-out") == "INSUFFICIENT_DATA", 20)
    why = w.beaufort.cli("why", "service/web").stdout
    assert "nothing was heard of the alert LoadHigh" in why
    assert w.desired() == 3


def post(beaufort, body, token=TOKEN, path="/alertmanager/v2/scale"):
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(beaufort.url + path, data=body, method="POST", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def test_what_is_no_message_of_alertmanager_is_refused_and_harms_nothing(make):
    beaufort = make("--webhook-token", TOKEN).start()
    empty = json.dumps({"version": "4", "groupKey": "g", "alerts": []}).encode()
    assert post(beaufort, empty) == (200, {"alerts": {}, "truncated": 0})
    for body, token, status in [
        (empty, None, 401), (empty, "wrong-token-altogether", 401), (b"", TOKEN, 400), (b"\xff\xfe", TOKEN, 400), (b"[" * 100_000, TOKEN, 400),
        (b'{"version":"5","groupKey":"g","alerts":[]}', TOKEN, 400), (b'{"version":"4","groupKey":"g","alerts":[{}]}', TOKEN, 400),
        (b" " * (9 << 20), TOKEN, 413),
    ]:
        answered, said = post(beaufort, body, token)
        assert answered == status and said["error"] and said["hint"], (body[:40], answered, said)
        assert TOKEN not in json.dumps(said)
    assert beaufort.get("/health")["status"] == "ok"
    metrics = beaufort.get("/metrics")
    for code in ("401", "400", "413"):
        assert f'beaufort_webhook_posts_total{{code="{code}"}} 0' not in metrics
    assert TOKEN not in (beaufort.dir / "server.log").read_text()


def test_without_a_token_no_alert_is_taken(up):
    status, said = post(up, b"{}")
    assert status == 401 and "--webhook-token-file" in said["hint"]
    assert "no alerts are taken" in up.cli("alerts").stdout
