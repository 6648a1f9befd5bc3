"""The processes under test: one `beaufort up`, or a server with agents of its own, each killed, frozen and started again by itself."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from urllib.parse import quote

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "bench"))

from harness import TARGETS, UnixConnection, Wire, docker_socket, until  # noqa: E402  (the benchmarks' plain HTTP client)

IMAGE = "beaufort/demo"
TOKEN = "a-token-of-crash-tests"
ZONES = ("a", "b")
# Time from a spawn to an answer on this port; a machine that builds beside the tests is slow, and slow is no breach.
START_WITHIN = 60.0


class Breach(Exception):
    """A promise that was not kept."""


class Refused(Exception):
    """The server said no: what was asked for has not happened."""

    def __init__(self, status, code, message):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message


class Unheard(Exception):
    """Nobody listened: it cannot have happened."""


class Doubt(Exception):
    """No answer, or an answer that does not say whether it was done."""


class Api:
    """One client's kept-alive connection. `again`: for who only reads, and after a restart finds a connection of before."""

    def __init__(self, world, timeout=60, again=False):
        self.world, self.again = world, again
        self.wire = Wire(lambda: http.client.HTTPConnection("127.0.0.1", world.port, timeout=timeout))

    def call(self, api, operation, **parameters):
        target, scope, version = TARGETS[api]
        headers = {
            "Content-Type": f"application/x-amz-json-{version}",
            "X-Amz-Target": f"{target}.{operation}",
            "Authorization": f"AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/{scope}/aws4_request, SignedHeaders=host, Signature=0",
        }
        status, answer = self.ask("POST", "/", json.dumps(parameters).encode(), headers)
        if status == 200:
            return json.loads(answer or b"{}")
        try:
            error = json.loads(answer)
        except ValueError:
            error = {}
        code, message = error.get("__type", "").split("#")[-1], error.get("message") or error.get("Message") or answer[:200].decode(errors="replace")
        raise Refused(status, code, f"{operation}: {message}")

    def ecs(self, operation, **parameters):
        return self.call("ecs", operation, cluster=self.world.cluster, **parameters)

    def get(self, path):
        """Status and body, whatever the status."""
        status, body = self.ask("GET", path)
        return status, body.decode()

    def ask(self, method, path, body=None, headers=None):
        for more in range(int(self.again), -1, -1):
            try:
                return self.wire.ask(method, path, body, headers)
            except ConnectionRefusedError as e:
                if not more:
                    raise Unheard(str(e)) from None
            except (OSError, http.client.HTTPException) as e:
                if not more:
                    raise Doubt(f"{method} {path} {(headers or {}).get('X-Amz-Target', '')}: {type(e).__name__}: {e}") from None


class Docker:
    """Docker's own word, by another way than Beaufort's. `socket` may be a daemon of our own."""

    def __init__(self, path=None):
        self.path = path or docker_socket()
        self.wire = Wire(lambda: UnixConnection(self.path))

    def ask(self, method, path, fine=(200, 201, 204, 304, 404, 409)):
        # A kept connection may have been closed meanwhile; one more try is a new one.
        try:
            status, answer = self.wire.ask(method, path)
        except (OSError, http.client.HTTPException):
            status, answer = self.wire.ask(method, path)
        if status not in fine:
            raise RuntimeError(f"Docker: {method} {path}: {status} {answer[:200]!r}")
        return json.loads(answer) if answer[:1] in (b"{", b"[") else answer

    def containers(self, label, everything=False):
        """Rows of what carries the label, pauses left out."""
        filters = quote(json.dumps({"label": [label]}))
        rows = self.ask("GET", f"/containers/json?all={int(everything)}&filters={filters}")
        return [r for r in rows if not r["Labels"].get("beaufort.container", "").startswith("~internal")]

    def kill(self, container):
        self.ask("POST", f"/containers/{container}/kill")

    def clean(self, label):
        """Removes what carries the label. Whether there was any."""
        filters = quote(json.dumps({"label": [label]}))
        containers, networks = self.ask("GET", f"/containers/json?all=1&filters={filters}"), self.ask("GET", f"/networks?filters={filters}")
        for row in containers:
            self.ask("DELETE", f"/containers/{row['Id']}?force=1&v=1")
        for row in networks:
            self.ask("DELETE", f"/networks/{row['Id']}", fine=(204, 403, 404))
        return bool(containers or networks)


class World:
    """A data directory, a port, a cluster name, and the processes on them. `split`: a server and an agent in each zone."""

    def __init__(self, binary, split=False, docker_host=None, data=None, flags=()):
        self.binary, self.split, self.docker_host, self.flags = str(binary), split, docker_host, list(flags)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="beaufort-crash-"))
        self.data = pathlib.Path(data) if data else self.dir / "data"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.cluster = "crash-" + uuid.uuid4().hex[:8]
        self.label = f"com.amazonaws.ecs.cluster={self.cluster}"
        self.processes = {}
        self.installations = set()
        self.log = self.dir / "server.log"
        self.docker = Docker(docker_host.removeprefix("unix://") if docker_host else None)
        self.seconds_to_health = []

    @property
    def names(self):
        return ["server"] + [f"agent-{zone}" for zone in ZONES if self.split]

    def arguments(self, name):
        if name == "server":
            own = ["serve", "--agent-token", TOKEN] if self.split else ["up", "--pause-pool", "1"]
            return [self.binary, *own, "--listen", f"127.0.0.1:{self.port}", "--cluster", self.cluster, "--data-dir", str(self.data), *self.flags]
        zone = name.removeprefix("agent-")
        return [self.binary, "agent", "--join", f"http://127.0.0.1:{self.port}", "--token", TOKEN, "--cluster", self.cluster, "--zone", zone,
                "--pause-pool", "1", "--data-dir", str(self.dir / name)]

    def spawn(self, name):
        env = {**os.environ, "RUST_BACKTRACE": "1"}
        if self.docker_host:
            env["DOCKER_HOST"] = self.docker_host
        with open(self.log, "ab") as log:
            self.processes[name] = subprocess.Popen(self.arguments(name), stdout=log, stderr=log, env=env)

    def start(self, wait=True):
        """Spawns what does not run. Seconds from the spawn to 200 of /health."""
        began = time.monotonic()
        for name in self.names:
            if name not in self.processes or self.processes[name].poll() is not None:
                self.spawn(name)
        if not wait:
            return None
        self.wait()
        took = time.monotonic() - began
        self.seconds_to_health.append(took)
        return took

    def wait(self, within=START_WITHIN):
        api = Api(self, timeout=10)

        def healthy():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise Breach(f"{name} ended by itself with {process.returncode}: {self.tail()}")
            try:
                status, body = api.get("/health")
            except (Doubt, Unheard):
                return False
            health = json.loads(body)
            self.installations.add(health["installation"])
            connected = health["container_instances_connected"] == (len(ZONES) if self.split else 1)
            return status == 200 and connected

        until("every process is healthy", healthy, within, 0.02)

    def signal(self, name, number):
        process = self.processes.get(name)
        if process and process.poll() is None:
            process.send_signal(number)

    def kill(self, *names):
        for name in names or self.names:
            self.signal(name, signal.SIGKILL)
        for name in names or self.names:
            if name in self.processes:
                self.processes[name].wait(timeout=30)

    def stop(self):
        """SIGTERM: a clean end, tasks run on."""
        for name in reversed(self.names):
            self.signal(name, signal.SIGTERM)
        for name in self.names:
            code = self.processes[name].wait(timeout=60)
            if code != 0:
                raise Breach(f"SIGTERM ended {name} with {code}: {self.tail()}")

    def alive(self):
        return all(p.poll() is None for p in self.processes.values())

    def tail(self, lines=25):
        return "\n".join(plain(self.log.read_text(errors="replace")).splitlines()[-lines:]) if self.log.exists() else ""

    def log_length(self):
        return self.log.stat().st_size if self.log.exists() else 0

    def said_since(self, offset):
        with open(self.log, "rb") as f:
            f.seek(offset)
            return plain(f.read().decode(errors="replace"))

    def containers(self, everything=False):
        return self.docker.containers(self.label, everything)

    def end(self):
        """Leaves nothing: no process, no container, no directory."""
        for name in self.names:
            self.signal(name, signal.SIGCONT)
        self.kill()
        ids = self.installations | {p.read_text().strip() for p in self.dir.glob("agent-*/agent-id")}
        labels = [self.label, *(f"beaufort.installation={i}" for i in ids)]
        # What a killed process had asked of Docker may still be made now: it is over when Docker has nothing more for a while.
        quiet = 0
        while quiet < 4:
            quiet = 0 if any([self.docker.clean(label) for label in labels]) else quiet + 1
            time.sleep(0.1)
        shutil.rmtree(self.dir, ignore_errors=True)


def plain(text):
    """Without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
