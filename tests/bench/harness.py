"""What every figure needs: a Beaufort of its own, Docker's own API as the reference, and what the kernel counted."""

import dataclasses
import http.client
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import uuid
from urllib.parse import quote

IMAGE = "beaufort/demo"
LABEL = "beaufort.bench"
# What Beaufort marks everything of a cluster with: pauses and networks too, which have none of AWS's labels.
CLUSTER = "beaufort.cluster"
HOUR = 3600
TICK = os.sysconf("SC_CLK_TCK")
TARGETS = {
    "ecs": ("AmazonEC2ContainerServiceV20141113", "ecs", "1.1"),
    "logs": ("Logs_20140328", "logs", "1.1"),
    "cloudwatch": ("GraniteServiceVersion20100801", "monitoring", "1.0"),
    "scaling": ("AnyScaleFrontendService", "application-autoscaling", "1.1"),
}


def iso(text):
    """Seconds since the epoch of an ISO 8601 time."""
    from datetime import datetime
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def median(values):
    return statistics.median(values)


def until(what, look, within=30.0, every=0.02):
    """Looks until it holds; a bound, and words for when it never does."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}; last seen: {seen!r}")
        time.sleep(every)


@dataclasses.dataclass
class Reference:
    """What a figure is held against. Without a value it was not measured in this run, and the name says where it is from."""

    what: str
    value: float = None
    unit: str = ""


@dataclasses.dataclass
class Row:
    """One figure: the values of its runs, the reference's from the same run, and how the cost grows with the work. `what` is its name, so it
    never changes with a value; src/bench/row.rs is the same for the parts that are measured inside of the program."""

    what: str
    values: list
    unit: str
    goal: float = None
    at_most: bool = True
    reference: Reference = None
    note: str = ""
    grows: str = ""
    group: str = ""
    figure: str = ""

    @property
    def verdict(self):
        if self.goal is None:
            return ""
        value = median(self.values)
        return "met" if (value <= self.goal if self.at_most else value >= self.goal) else "missed"

    @classmethod
    def of_part(cls, told):
        """As `beaufort bench --json` tells it."""
        goal = told["goal"] or {}
        at_most = "at_least" not in goal
        reference = Reference(**told["reference"]) if told["reference"] else None
        return cls(told["what"], told["values"], told["unit"], goal.get("at_most" if at_most else "at_least"), at_most, reference,
                   told["note"], told["grows"])

    def as_json(self):
        """bench.json's shape: what reads it (doc.py, and whoever compares runs) relies on these names."""
        return {"group": self.group, "figure": self.figure, "what": self.what, "values": self.values, "median": median(self.values), "unit": self.unit,
                "goal": self.goal, "at_most": self.at_most, "verdict": self.verdict,
                "reference": dataclasses.asdict(self.reference) if self.reference else None, "grows": self.grows, "note": self.note}


class Wire:
    """One kept-alive connection."""

    def __init__(self, connect):
        self.connect, self.connection = connect, None

    def ask(self, method, path, body=None, headers=None):
        if self.connection is None:
            self.connection = self.connect()
        try:
            self.connection.request(method, path, body, headers or {})
            answer = self.connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            raise
        return answer.status, data


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("docker", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def docker_socket():
    host = os.environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        raise SystemExit("the benchmarks ask Docker over its Unix socket: DOCKER_HOST names another address")
    return host.removeprefix("unix://") or "/var/run/docker.sock"


class Docker:
    """Docker's API without a client in between. One object per thread."""

    def __init__(self):
        path = docker_socket()
        self.wire = Wire(lambda: UnixConnection(path))

    def ask(self, method, path, body=None, fine=(200, 201, 204, 304)):
        data = None if body is None else json.dumps(body).encode()
        status, answer = self.wire.ask(method, path, data, {"Content-Type": "application/json"})
        if status not in fine:
            raise RuntimeError(f"Docker: {method} {path}: {status} {answer[:200]!r}")
        return json.loads(answer) if answer[:1] in (b"{", b"[") else answer

    def of(self, label, kind="containers"):
        filters = json.dumps({"label": [label]})
        path = {"containers": "/containers/json?all=1&filters=", "networks": "/networks?filters="}[kind]
        return self.ask("GET", path + quote(filters))

    def remove(self, label):
        for row in self.of(label):
            self.ask("DELETE", f"/containers/{row['Id']}?force=1", fine=(204, 404, 409))
        for row in self.of(label, "networks"):
            self.ask("DELETE", f"/networks/{row['Id']}", fine=(204, 403, 404))


# What the kernel counted.

def pid_of(name):
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "comm").read_text().strip() == name:
                    return int(entry.name)
            except OSError:
                pass
    return None


def cpu_of(pid):
    """Seconds of CPU of a process, its ended threads too."""
    if pid is None:
        return 0.0
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_by_thread(pid):
    """Seconds of CPU by thread name, to the nanosecond where the kernel keeps schedstat."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            spent = int((task / "schedstat").read_text().split()[0]) / 1e9
        except (OSError, IndexError):
            continue
        found[name] = found.get(name, 0.0) + spent
    return found


def daemons():
    return [pid_of("dockerd"), pid_of("containerd")]


class Cpu:
    """CPU seconds that Beaufort and Docker's daemons spent while the block ran, and its length."""

    def __init__(self, beaufort):
        self.pid = beaufort.process.pid if beaufort else None

    def _now(self):
        return time.monotonic(), cpu_of(self.pid), sum(map(cpu_of, daemons())), cpu_by_thread(self.pid) if self.pid else {}

    def __enter__(self):
        self.before = self._now()
        return self

    def __exit__(self, *_):
        after = self._now()
        self.took, self.beaufort, self.docker = (b - a for a, b in zip(self.before[:3], after[:3]))
        self.threads = {name: spent - self.before[3].get(name, 0.0) for name, spent in after[3].items()}


def worst(threads, take=3):
    top = sorted(threads.items(), key=lambda kv: -kv[1])[:take]
    return "most in " + ", ".join(f"{name} {1000 * spent:.0f} ms" for name, spent in top)


def rss_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmRSS")


def filesystem(path):
    """The type of the file system that holds the path."""
    best = ("", "unknown")
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        point, kind = line.split(" ")[1:3]
        if os.path.commonpath([point, os.path.realpath(path)]) == point and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def fsyncs_per_second(times=100):
    """What the disk below the data directories makes durable, one after the other: the bound of everything that commits alone."""
    with tempfile.NamedTemporaryFile(prefix="beaufort-bench-") as file:
        took = []
        for _ in range(times):
            os.write(file.fileno(), b"x" * 4096)
            began = time.monotonic()
            os.fdatasync(file.fileno())
            took.append(time.monotonic() - began)
    return 1 / median(took)


def facts(binary):
    meminfo = dict(line.split(":", 1) for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), platform.machine())
    docker = Docker()
    info = docker.ask("GET", "/info")
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(int(meminfo["MemTotal"].split()[0]) * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "docker": info["ServerVersion"],
        "storage_driver": info["Driver"],
        "cgroup": f"v{info.get('CgroupVersion', '1')}",
        "file_system": filesystem(tempfile.gettempdir()),
        "fsyncs_per_s": round(fsyncs_per_second()),
        "load_at_start": round(os.getloadavg()[0], 2),
        "binary": subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.strip(),
        "binary_mb": round(os.path.getsize(binary) / 1e6, 1),
    }


class Beaufort:
    """One server process, with a data directory of its own and nothing left on Docker after it."""

    binary = None
    made = []
    pause_images = set()

    def __init__(self, *flags, prefix=()):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="beaufort-bench-"))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.cluster = "bench-" + uuid.uuid4().hex[:8]
        self.args = [*prefix, Beaufort.binary, "up", "--listen", f"127.0.0.1:{self.port}", "--cluster", self.cluster,
                     "--data-dir", str(self.dir / "data"), *flags]
        self.process = None
        self.wire = Wire(self.connect)
        Beaufort.made.append(self)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end()

    def connect(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def start(self):
        """Seconds from the spawn to the first 200 of /health."""
        with open(self.dir / "server.log", "ab") as log:
            started = time.monotonic()
            self.process = subprocess.Popen(self.args, stdout=log, stderr=log)

        def healthy():
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended with {self.process.returncode}: {(self.dir / 'server.log').read_text()[-2000:]}")
            try:
                return self.wire.ask("GET", "/health")[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        until("healthy", healthy, 30, 0.002)
        return time.monotonic() - started

    def get(self, path):
        return json.loads(self.wire.ask("GET", path)[1])

    def request(self, api, operation, **parameters):
        """Body and headers of a call, as the SDKs send it. The region is only read, the signature is not."""
        target, scope, version = TARGETS[api]
        return json.dumps(parameters).encode(), {
            "Content-Type": f"application/x-amz-json-{version}",
            "X-Amz-Target": f"{target}.{operation}",
            "Authorization": f"AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/{scope}/aws4_request, SignedHeaders=host, Signature=0",
        }

    def call(self, api, operation, **parameters):
        status, answer = self.wire.ask("POST", "/", *self.request(api, operation, **parameters))
        if status != 200:
            raise RuntimeError(f"{operation}: {status} {answer[:300]!r}")
        return json.loads(answer or b"{}")

    def ecs(self, operation, **parameters):
        return self.call("ecs", operation, cluster=self.cluster, **parameters)

    def define(self, family, *command, **more):
        container = {"name": "main", "image": IMAGE, "memory": 32, "command": ["testbed", *map(str, command)]}
        task = {k: more.pop(k) for k in ("networkMode",) if k in more}
        self.call("ecs", "RegisterTaskDefinition", family=family, containerDefinitions=[{**container, **more}], **task)
        return family

    def service(self, name):
        return self.ecs("DescribeServices", services=[name])["services"][0]

    def scale(self, name, definition, desired, **more):
        """Seconds from the call to all RUNNING, as a client sees it."""
        started = time.monotonic()
        self.ecs("CreateService", serviceName=name, taskDefinition=definition, desiredCount=desired, **more)
        until(f"{desired} run", lambda: self.service(name)["runningCount"] == desired, 120, 0.02)
        return time.monotonic() - started

    def tasks(self, name):
        return self.ecs("ListTasks", serviceName=name)["taskArns"]

    def containers(self):
        rows = Docker().of(f"com.amazonaws.ecs.cluster={self.cluster}")
        return [r for r in rows if not r["Labels"].get("beaufort.container", "").startswith("~internal")]

    def delete(self, name):
        self.ecs("DeleteService", service=name, force=True)
        until("its containers are gone", lambda: not self.containers(), 120, 0.1)

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        docker = Docker()
        label = f"com.amazonaws.ecs.cluster={self.cluster}"
        Beaufort.pause_images |= {r["Image"] for r in docker.of(f"{CLUSTER}={self.cluster}") if r["Image"].startswith("beaufort/pause:")}
        docker.remove(label)
        docker.remove(f"{CLUSTER}={self.cluster}")
        shutil.rmtree(self.dir, ignore_errors=True)
