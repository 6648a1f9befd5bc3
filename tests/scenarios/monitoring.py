"""Real Prometheus and Alertmanager for scenarios, and two small parts between them and Beaufort: a gauge that a test sets, and a relay
that stands in the webhook's way and can fail or repeat."""

import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import urllib.parse
import urllib.request

from conftest import ROOT, answers, free_port, until

TOKEN = "scenario-webhook-token"


def program(name):
    """As tests/setup.sh leaves it, or from the PATH."""
    found = ROOT / ".cache" / "bin" / name
    path = str(found) if found.exists() else shutil.which(name)
    assert path, f"{name} is missing: tests/setup.sh unpacks it"
    return path


class Process:
    def __init__(self, directory, name):
        self.dir, self.name, self.process, self.port = pathlib.Path(directory), name, None, free_port()
        self.dir.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{self.port}"

    def spawn(self, *args):
        self.log = open(self.dir / f"{self.name}.log", "ab")
        self.process = subprocess.Popen([program(self.name), *args], stdout=self.log, stderr=self.log, cwd=self.dir)
        try:
            answers(self.url + "/-/ready", 20)
        except AssertionError:
            raise AssertionError(f"{self.name} did not get ready:\n{(self.dir / f'{self.name}.log').read_text()[-2000:]}") from None
        return self

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=20)
        if self.process:
            self.log.close()


class Alertmanager(Process):
    """The route of the demo stack: one second between messages of a group."""

    def __init__(self, directory, webhook, repeat="30s"):
        super().__init__(directory, "alertmanager")
        (self.dir / "token").write_text(TOKEN)
        config = {
            "route": {"receiver": "none", "routes": [{
                "matchers": ['beaufort_action="scale"'], "receiver": "beaufort",
                "group_by": ["alertname", "cluster", "service", "policy"],
                "group_wait": "0s", "group_interval": "1s", "repeat_interval": repeat,
            }]},
            "receivers": [{"name": "none"}, {"name": "beaufort", "webhook_configs": [{
                "url": f"{webhook}/alertmanager/v2/scale?repeat_interval={repeat}", "send_resolved": True,
                "http_config": {"authorization": {"credentials_file": str(self.dir / "token")}},
            }]}],
        }
        # JSON is YAML.
        (self.dir / "alertmanager.yml").write_text(json.dumps(config))

    def start(self):
        # Without gossip: with it, the first message waits ten seconds for other Alertmanagers.
        return self.spawn("--config.file=alertmanager.yml", "--storage.path=data", f"--web.listen-address=127.0.0.1:{self.port}",
                          "--cluster.listen-address=")


class Prometheus(Process):
    def __init__(self, directory, scrapes, rule_files, alertmanager=None):
        super().__init__(directory, "prometheus")
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(f) for f in rule_files],
            "scrape_configs": scrapes,
        }
        if alertmanager:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager.port}"]}]}]}
        (self.dir / "prometheus.yml").write_text(json.dumps(config))

    def start(self):
        # Told every second that an alert goes on, Alertmanager notices within four seconds that Prometheus is gone.
        return self.spawn("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{self.port}",
                          "--rules.alert.resend-delay=1s")

    def get(self, path, **query):
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression):
        return self.get("/api/v1/query", query=expression)["result"]


class Server:
    """A threading HTTP server on loopback that ends with its test."""

    def __init__(self, handler):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Gauge(Server):
    """`/metrics` with one number, which stands for whatever a service is loaded with."""

    def __init__(self, cluster, service):
        gauge = self
        self.value = 0.0

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                text = f'# TYPE load_per_task gauge\nload_per_task{{cluster="{cluster}",service="{service}"}} {gauge.value}\n'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.end_headers()
                self.wfile.write(text)

        super().__init__(Handler)

    def scrape(self):
        return {"job_name": "gauge", "static_configs": [{"targets": [self.url.removeprefix("http://")]}]}


class Relay(Server):
    """Stands between Alertmanager and Beaufort: passes messages on, remembers them, and answers 500 for the next `failing`."""

    def __init__(self, beaufort):
        relay = self
        self.failing, self.messages, self.lock = 0, [], threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with relay.lock:
                    fail = relay.failing > 0
                    relay.failing -= fail
                status = 500 if fail else relay.send(beaufort.url + self.path, body, self.headers["Authorization"])
                with relay.lock:
                    relay.messages.append({"status": status, "path": self.path, "raw": body, "body": json.loads(body),
                                           "authorization": self.headers["Authorization"]})
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)

    @staticmethod
    def send(url, body, authorization):
        request = urllib.request.Request(url, data=body, method="POST",
                                         headers={"Authorization": authorization, "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            return 502

    def of(self, status):
        """The messages of alerts in this status that were passed on."""
        with self.lock:
            return [m for m in self.messages if m["status"] == 200 and m["body"]["status"] == status]


def rules(directory, cluster, service, high="requests-out", low="requests-in"):
    """Two rules on the gauge, in the contract of alerts/README.md."""
    labels = {"severity": "none", "beaufort_action": "scale", "cluster": cluster, "service": service}
    rule = lambda name, expression, policy, threshold: {
        "alert": name, "expr": expression, "labels": {**labels, "policy": policy},
        "annotations": {"value": "{{ $value }}", "threshold": str(threshold)}}
    groups = [{"name": "scaling", "rules": [
        rule("LoadHigh", "max by (cluster, service) (load_per_task) > 100", high, 100),
        rule("LoadLow", "max by (cluster, service) (load_per_task) < 40", low, 40),
    ]}]
    file = pathlib.Path(directory) / "rules.yml"
    file.write_text(json.dumps({"groups": groups}))
    return file


def step_policies(beaufort, service, least, most, cooldown=3):
    """`requests-out` adds two, `requests-in` takes one away."""
    scaling = beaufort.client("application-autoscaling")
    of = dict(ServiceNamespace="ecs", ResourceId=f"service/{beaufort.cluster}/{service}", ScalableDimension="ecs:service:DesiredCount")
    scaling.register_scalable_target(**of, MinCapacity=least, MaxCapacity=most)
    for name, step in (("requests-out", {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 2}),
                       ("requests-in", {"MetricIntervalUpperBound": 0, "ScalingAdjustment": -1})):
        scaling.put_scaling_policy(**of, PolicyName=name, PolicyType="StepScaling", StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity", "Cooldown": cooldown, "StepAdjustments": [step]})
