"""The way from a load to a task that runs because of it, through Prometheus and Alertmanager, with the configuration that the demo stack ships:
its scrape, its rules, its route. Only addresses and paths are put in place of the stack's."""

import json
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from harness import Beaufort, Row, iso, median, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKEN = "bench-webhook-token"
LOW, HIGH = 20, 200


def program(name):
    found = ROOT / ".cache" / "bin" / name
    path = str(found) if found.exists() else shutil.which(name)
    if not path:
        raise RuntimeError(f"{name} is missing: tests/setup.sh unpacks it")
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Watched:
    """Prometheus and Alertmanager beside a Beaufort of the demo's cluster."""

    def __init__(self, beaufort):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="beaufort-bench-watched-"))
        self.processes = []
        ports = {"prometheus": free_port(), "alertmanager": free_port()}
        rules = self.dir / "rules"
        rules.mkdir()
        for file in (ROOT / "alerts").glob("*.rules.yml"):
            # The rules name the demo's cluster.
            (rules / file.name).write_text(file.read_text().replace('cluster="demo"', f'cluster="{beaufort.cluster}"'))
        (self.dir / "token").write_text(TOKEN)
        put = {"beaufort:4566": f"127.0.0.1:{beaufort.port}", "alertmanager:9093": f"127.0.0.1:{ports['alertmanager']}",
               "localhost:9090": f"127.0.0.1:{ports['prometheus']}", "/etc/prometheus/rules": str(rules), "/run/secrets/webhook-token": str(self.dir / "token")}
        for name in ("prometheus.yml", "alertmanager.yml"):
            text = (ROOT / "compose" / name).read_text()
            for shipped, here in put.items():
                text = text.replace(shipped, here)
            (self.dir / name).write_text(text)
        self.ports = ports

    def __enter__(self):
        ports = self.ports
        try:
            self.start(ports)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, ports):
        self.spawn("alertmanager", ports, "--config.file=alertmanager.yml", "--storage.path=am", "--cluster.listen-address=")
        self.spawn("prometheus", ports, "--config.file=prometheus.yml", "--storage.tsdb.path=prom", "--rules.alert.resend-delay=10s")
        self.prometheus = ports["prometheus"]

    def spawn(self, name, ports, *flags):
        log = open(self.dir / f"{name}.log", "ab")
        process = subprocess.Popen([program(name), *flags, f"--web.listen-address=127.0.0.1:{ports[name]}"], stdout=log, stderr=log, cwd=self.dir)
        self.processes.append(process)

    def __exit__(self, *_):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def deploy(b):
    """The demo's `web`, as compose/services.json has it, on the host's network of ports."""
    shipped = json.loads((ROOT / "compose" / "services.json").read_text())
    definition = next(d for d in shipped["taskDefinitions"] if d["family"] == "web")
    definition["containerDefinitions"][0]["portMappings"] = [{"containerPort": 8080}]
    b.call("ecs", "RegisterTaskDefinition", **definition)
    b.ecs("CreateService", serviceName="web", taskDefinition="web", desiredCount=1)
    mine = lambda thing: {**thing, "ResourceId": f"service/{b.cluster}/web"}
    for target in shipped["scalableTargets"]:
        if target["ResourceId"].endswith("/web"):
            b.call("scaling", "RegisterScalableTarget", **mine(target))
    for policy in shipped["scalingPolicies"]:
        if policy["ResourceId"].endswith("/web"):
            b.call("scaling", "PutScalingPolicy", **mine(policy))
    until("web runs", lambda: b.service("web")["runningCount"] == 1, 60, 0.05)


def run(b):
    """One jump of the load: when each hop was made, in seconds after it."""
    first = set(b.tasks("web"))
    endpoint = f"http://127.0.0.1:{b.port}"
    profile = b.dir / "jump.profile"
    calm = 8
    profile.write_text(f"calm {LOW} {calm}s\nsurge {HIGH} 14s\n")
    load = subprocess.Popen([Beaufort.binary, "load", f"service/{b.cluster}/web", "--container-port", "8080", "--health", "/healthz",
                             "--profile", str(profile), "--endpoint", endpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = time.time() + calm
    try:
        def decision(code, subject):
            found = b.get(f"/api/decisions?limit=200{subject}")["decisions"]
            return next((d for d in reversed(found) if d["code"] == code and iso(d["at"]) >= began), None)

        def new_task():
            new = [t for t in b.tasks("web") if t not in first]
            tasks = b.ecs("DescribeTasks", tasks=new)["tasks"] if new else []
            return next((t for t in tasks if t.get("lastStatus") == "RUNNING"), None)

        task = until("a new task runs", new_task, 30 + calm, 0.02)
        alarm, scaled = decision("alarm_raised", ""), decision("scaled_out", f"&service={b.cluster}/web")
        hops = {
            "fires": iso(alarm["evidence"]["starts_at"]) - began,
            "told": iso(alarm["at"]) - began,
            "decided": iso(scaled["at"]) - began,
            "runs": task["startedAt"] - began,
        }
    finally:
        load.send_signal(signal.SIGINT)
        load.wait(timeout=20)
    return hops


def prometheus(runs=5):
    """A load that jumps, the rule's window, Prometheus' evaluation, Alertmanager's message, the decision, the start."""
    hops = []
    for _ in range(runs):
        with Beaufort("--webhook-token", TOKEN) as b:
            deploy(b)
            with Watched(b) as watched:
                until("Prometheus knows the task", lambda: scraped(watched, b), 30, 0.1)
                hops.append(run(b))
            b.delete("web")
    between = lambda a, z: median([h[z] - (h[a] if a else 0) for h in hops])
    note = (f"from {LOW} to {HIGH} requests a second, the shipped window of 5 s: rule fires after {between(None, 'fires'):.2f} s, Alertmanager's message "
            f"{between('fires', 'told'):.3f} s, decision {between('told', 'decided'):.3f} s, running {between('decided', 'runs'):.2f} s (medians of each hop)")
    return [Row("load to new task running, through Prometheus and Alertmanager", [h["runs"] for h in hops], "s", 5, note=note)]


def scraped(watched, b):
    import urllib.parse
    import urllib.request
    query = urllib.parse.quote(f'up{{cluster="{b.cluster}",service="web"}} == 1')
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{watched.prometheus}/api/v1/query?query={query}", timeout=5) as answer:
            return json.load(answer)["data"]["result"]
    except OSError:
        return None
