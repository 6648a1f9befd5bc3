"""A Beaufort of its own for every scenario: own port, own data directory, own cluster name, and nothing left on Docker after it."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid

import boto3
import botocore.config
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("BEAUFORT_BIN") or str(next(ROOT.glob("target/*/debug/beaufort"), "beaufort"))
IMAGE = "beaufort/demo"
ACCOUNT = "000000000000"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(url, within=10.0):
    """A process that runs may not listen yet."""

    def look():
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status
        except OSError:
            return None

    return until(f"{url} answers", look, within)


def docker(*args):
    return subprocess.run(["docker", *args], check=True, capture_output=True, text=True).stdout.strip()


def until(what, look, within=30.0, every=0.05):
    """Looks until it holds, and says what was last seen when it never does. A bound, not a synchronisation by sleep."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}; last seen: {seen!r}")
        time.sleep(every)


class Beaufort:
    """One server process. `stop`, `kill` and `start` again keep its data directory."""

    def __init__(self, tmp, *flags, command="up", env=None):
        self.dir = pathlib.Path(tmp)
        self.port = free_port()
        self.listen = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.listen}"
        self.cluster = "c-" + uuid.uuid4().hex[:8]
        self.flags, self.command, self.env = list(flags), command, dict(env or {})
        self.process = None
        # Everything that this Beaufort and its agents made on Docker carries one of these.
        self.installations = set()

    def start(self, wait=True):
        args = [BINARY, self.command, "--listen", self.listen, "--cluster", self.cluster]
        if "--ephemeral" not in self.flags:
            args += ["--data-dir", str(self.dir / "data")]
        self.log = open(self.dir / "server.log", "ab")
        env = {**os.environ, "RUST_BACKTRACE": "1", **self.env}
        self.process = subprocess.Popen(args + self.flags, stdout=self.log, stderr=self.log, env=env)
        if wait:
            self.wait()
        return self

    def wait(self, within=20.0):
        def healthy():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.tail()}"
            try:
                health = self.get("/health")
                self.installations.add(health["installation"])
                return health["status"] == "ok"
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        until("healthy", healthy, within, 0.02)

    def tail(self, lines=30):
        return "\n".join((self.dir / "server.log").read_text(errors="replace").splitlines()[-lines:])

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers.get("content-type", "") else body.decode()

    def post(self, path, body=b"", headers=None):
        request = urllib.request.Request(self.url + path, data=body, method="POST", headers=headers or {})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def stop(self):
        """SIGTERM: a clean end; tasks run on."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        assert code == 0, f"SIGTERM ended it with {code}: {self.tail()}"

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=10)

    def clean(self):
        """Leaves Docker as it was found: whatever this Beaufort and its agents made there goes."""
        for label in [f"beaufort.installation={i}" for i in self.installations] + [f"com.amazonaws.ecs.cluster={self.cluster}"]:
            clean_docker(label)

    def cli(self, *args, check=True):
        env = {**os.environ, "BEAUFORT_ENDPOINT": self.url, "BEAUFORT_CLUSTER": self.cluster}
        run = subprocess.run([BINARY, *args], capture_output=True, text=True, env=env, timeout=60)
        assert not check or run.returncode == 0, f"beaufort {' '.join(args)}: {run.returncode}\n{run.stdout}{run.stderr}"
        return run

    def client(self, service, **more):
        config = botocore.config.Config(retries={"max_attempts": 0}, read_timeout=60, **more)
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="test",
                            aws_secret_access_key="test", config=config)

    @property
    def ecs(self):
        return self.client("ecs")

    def containers(self, *more, all=False):
        """Ids of the containers of this Beaufort's cluster, as Docker itself sees them; pauses are not among them."""
        args = ["ps", "--no-trunc", "-q", "--filter", f"label=com.amazonaws.ecs.cluster={self.cluster}"]
        for label in more:
            args += ["--filter", f"label={label}"]
        if all:
            args.insert(1, "-a")
        ids = docker(*args).split()
        if not ids:
            return []
        # A container may go between the two calls: what is gone is left out of the answer.
        rows = json.loads(subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True).stdout or "[]")
        return [row for row in rows if not row["Config"]["Labels"].get("beaufort.container", "").startswith("~internal")]

    # What nearly every scenario needs of ECS.

    def register(self, *containers, family=None, **more):
        family = family or "f-" + uuid.uuid4().hex[:6]
        definition = self.ecs.register_task_definition(family=family, containerDefinitions=list(containers), **more)["taskDefinition"]
        return f"{definition['family']}:{definition['revision']}"

    def run(self, definition, **more):
        answer = self.ecs.run_task(cluster=self.cluster, taskDefinition=definition, **more)
        assert not answer["failures"], answer["failures"]
        return answer["tasks"][0]["taskArn"]

    def task(self, arn):
        return self.ecs.describe_tasks(cluster=self.cluster, tasks=[arn])["tasks"][0]

    def reach(self, arn, status, within=30.0):
        def look():
            task = self.task(arn)
            if status != "STOPPED" and task["lastStatus"] == "STOPPED":
                raise AssertionError(f"it stopped: {task.get('stoppedReason')} {[c.get('reason') for c in task['containers']]}")
            return task if task["lastStatus"] == status else None

        return until(f"{arn} {status}", look, within)

    def service(self, name):
        return self.ecs.describe_services(cluster=self.cluster, services=[name])["services"][0]

    def stable(self, name, running, within=40.0):
        def look():
            s = self.service(name)
            return s if s["runningCount"] == running and len(s["deployments"]) == 1 and s["pendingCount"] == 0 else None

        return until(f"{name} stable at {running}", look, within)


def testbed(*command, name="main", **more):
    """A container that runs one of the binary's own test programs."""
    return {"name": name, "image": IMAGE, "memory": 32, "command": ["testbed", *map(str, command)], **more}


testbed.__test__ = False  # Its name only looks like a test.


def clean_docker(label):
    """Removes what carries the label: containers, then networks and volumes."""
    for kind, remove in (("ps -aq", "rm -f"), ("network ls -q", "network rm"), ("volume ls -q", "volume rm -f")):
        found = docker(*kind.split(), "--filter", f"label={label}").split()
        if found:
            subprocess.run(["docker", *remove.split(), *found], capture_output=True)


def own_images():
    return set(docker("images", "-aq", "--no-trunc", "--filter", "label=beaufort.binary").split())


@pytest.fixture(scope="session", autouse=True)
def images_are_left_as_found():
    before = own_images()
    yield
    made = own_images() - before
    if made:
        subprocess.run(["docker", "rmi", "-f", *made], capture_output=True)


@pytest.fixture
def make():
    """Makes Beauforts and cleans up after all of them."""
    made, dirs = [], []

    def build(*flags, **more):
        tmp = tempfile.mkdtemp(prefix="beaufort-scenario-")
        dirs.append(tmp)
        b = Beaufort(tmp, *flags, **more)
        made.append(b)
        return b

    yield build
    for b in made:
        if b.process and b.process.poll() is None:
            b.process.send_signal(signal.SIGTERM)
            try:
                b.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                b.kill()
        b.clean()
    for tmp in dirs:
        shutil.rmtree(tmp, ignore_errors=True)


@pytest.fixture
def up(make):
    return make().start()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed scenario shows the end of its server's log."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for fixture in ("up",):
            b = item.funcargs.get(fixture)
            if b is not None and (b.dir / "server.log").exists():
                report.sections.append(("server log", b.tail(60)))
