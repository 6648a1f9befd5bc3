"""The figures. Each function measures one thing and its reference, alternately where both can run, and gives rows."""

import concurrent.futures
import json
import os
import selectors
import socket
import subprocess
import threading
import time

from alerting import prometheus
from harness import HOUR, Beaufort, Cpu, Docker, Reference, Row, docker_socket, iso, median, rss_mb, until, worst
from starts import awsvpc, equal_container, replaced, thirty


def start():
    """Spawn to the first 200 of /health, on an empty data directory; then what it holds when nothing happens."""
    seconds = []
    for _ in range(5):
        b = Beaufort()
        seconds.append(b.start())
        b.end()
    with Beaufort() as b:
        time.sleep(10)
        with Cpu(b) as idle:
            time.sleep(5)
        memory = rss_mb(b.process.pid)
    return [
        Row("start to /health", seconds, "s", 0.3, note="empty data directory; the agent is registered"),
        Row("memory of an idle `up`", [memory], "MB", 30, note="VmRSS after 10 s"),
        Row("CPU of an idle `up`", [100 * idle.beaufort / idle.took], "% of a core", note=f"over 5 s, {worst(idle.threads)}"),
    ]


# Scaling.

def burn(container):
    """Starts to burn inside of a running container; the moment at which the process began, as the kernel has it."""
    docker = Docker()
    made = docker.ask("POST", f"/containers/{container}/exec", {"Cmd": ["/beaufort", "testbed", "spin", "800"]})["Id"]
    docker.ask("POST", f"/exec/{made}/start", {"Detach": True})
    pid = until("the load runs", lambda: docker.ask("GET", f"/exec/{made}/json").get("Pid"), 5)
    began = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - began)


def scaled(runs=3):
    decided, running, raised = [], [], []
    with Beaufort() as b:
        task = b.define("hot", "sleep", HOUR, cpu=512)
        # Every run a service of its own: no cooldown and no datapoint of an earlier one is left over.
        for run in range(runs):
            name = f"hot-{run}"
            b.scale(name, task, 1)
            key = dict(ServiceNamespace="ecs", ResourceId=f"service/{b.cluster}/{name}", ScalableDimension="ecs:service:DesiredCount")
            b.call("scaling", "RegisterScalableTarget", **key, MinCapacity=1, MaxCapacity=2)
            b.call("scaling", "PutScalingPolicy", **key, PolicyName="cpu", PolicyType="TargetTrackingScaling",
                   TargetTrackingScalingPolicyConfiguration={
                       "TargetValue": 50.0, "ScaleOutCooldown": 1, "ScaleInCooldown": 60,
                       "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution"}})
            prefix = f"TargetTracking-service/{b.cluster}/{name}-AlarmHigh"
            until("calm is measured", lambda: any(
                a["StateValue"] == "OK" for a in b.call("cloudwatch", "DescribeAlarms", AlarmNamePrefix=prefix)["MetricAlarms"]), 20, 0.1)
            first = set(b.tasks(name))
            container = next(c["Id"] for c in b.containers() if c["Labels"].get("com.amazonaws.ecs.task-arn") in first)
            since = burn(container)

            def decision(code, subject):
                found = b.get(f"/api/decisions?limit=200{subject}")["decisions"]
                return next((iso(d["at"]) for d in found if d["code"] == code and iso(d["at"]) >= since), None)

            def new_task():
                new = [t for t in b.tasks(name) if t not in first]
                task = b.ecs("DescribeTasks", tasks=new)["tasks"][0] if new else {}
                return task if task.get("lastStatus") == "RUNNING" else None

            running.append(until("the new task runs", new_task, 30, 0.02)["startedAt"] - since)
            decided.append(decision("scaled_out", f"&service={b.cluster}/{name}") - since)
            alarm = decision("alarm_raised", "")
            raised.append(alarm - since if alarm else float("nan"))
            b.delete(name)
    note = f"HighResolution target tracking, 3 of 3 seconds over 50 %; the alarm after {median(raised):.2f} s"
    return [
        Row("load to decision", decided, "s", 4, note=note),
        Row("load to new task running", running, "s", 5, note="startedAt of the new task"),
    ]


# Requests.

CONNECTIONS = 8


def flood_requests(port, payload, seconds):
    """Answers per second over kept-alive connections, one request under way on each; one thread, so that one core is enough for it."""
    selector, waiting = selectors.DefaultSelector(), {}
    length = None
    try:
        for _ in range(CONNECTIONS):
            s = socket.create_connection(("127.0.0.1", port))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(s, selectors.EVENT_READ)
            waiting[s] = b""
        began = time.monotonic()
        end = began + seconds
        for s in waiting:
            s.sendall(payload)
        answers = 0
        while time.monotonic() < end:
            for ready, _ in selector.select(1):
                s = ready.fileobj
                data = s.recv(65536)
                if not data:
                    raise RuntimeError("the server closed a connection")
                if waiting[s]:
                    data = waiting[s] + data
                if length is None or len(data) != length:
                    length_of = whole(data)
                    if length_of is None:
                        waiting[s] = data
                        continue
                    length = length_of
                elif not data.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"answered {data[:200]!r}")
                waiting[s] = b""
                answers += 1
                s.sendall(payload)
        return answers / (time.monotonic() - began)
    finally:
        for s in waiting:
            s.close()


def whole(data):
    """The length of an answer that is there to its end; None: more is to come."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"answered {data[:300]!r}")
    size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return len(data) if len(body) == size else None


def payload(b, operation, **parameters):
    body, headers = b.request("ecs", operation, **parameters)
    lines = ["POST / HTTP/1.1", f"Host: 127.0.0.1:{b.port}", f"Content-Length: {len(body)}"] + [f"{k}: {v}" for k, v in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def requests(seconds=2.0, runs=5):
    rows = []
    cores = sorted(os.sched_getaffinity(0))
    server, client = cores[0], cores[-1]
    health = []
    with Beaufort(prefix=("taskset", "-c", str(server))) as b:
        os.sched_setaffinity(0, {client})
        try:
            b.scale("web", b.define("web", "sleep", HOUR), 2)
            until("steady", lambda: b.service("web")["deployments"][0]["rolloutState"] == "COMPLETED", 20)
            asked = {
                "DescribeClusters": payload(b, "DescribeClusters", clusters=[b.cluster]),
                "DescribeServices": payload(b, "DescribeServices", cluster=b.cluster, services=["web"]),
            }
            plain = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{b.port}\r\n\r\n".encode()
            flood_requests(b.port, plain, 0.5)
            measured, busy = {name: [] for name in asked}, {name: [] for name in asked}
            for _ in range(runs):
                for name, text in asked.items():
                    with Cpu(b) as spent:
                        measured[name].append(flood_requests(b.port, text, seconds))
                    busy[name].append(100 * spent.beaufort / spent.took)
                health.append(flood_requests(b.port, plain, 0.5))
            for name in asked:
                # Whoever else works on this machine takes from the rate, but not from the CPU time of an answer.
                full = [100 * rate / share for rate, share in zip(measured[name], busy[name])]
                rows.append(Row(f"{name}, {CONNECTIONS} connections", measured[name], "requests/s", 13_000, at_most=False,
                                reference=Reference("10 x MiniStack's 1,300, measured before"),
                                note=f"server on core {server}, client on core {client}; the server had {median(busy[name]):.0f} % of its core, "
                                     f"so a whole one would do {median(full):,.0f}"))
            rows.append(Row("GET /health, the same way", health, "requests/s", note="what HTTP alone costs"))
        finally:
            os.sched_setaffinity(0, cores)
    return rows


# Usage.

def stats_streams(ids, seconds):
    """CPU of Docker's daemons while so many of its own stats streams are read."""
    def stream(container):
        s = socket.socket(socket.AF_UNIX)
        s.connect(docker_socket())
        s.sendall(f"GET /containers/{container}/stats?stream=1 HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        return s

    sockets = [stream(i) for i in ids]
    selector = selectors.DefaultSelector()
    for s in sockets:
        selector.register(s, selectors.EVENT_READ)
    def read_for(seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for ready, _ in selector.select(left):
                if not ready.fileobj.recv(65536):
                    selector.unregister(ready.fileobj)
    try:
        read_for(2)
        with Cpu(None) as spent:
            read_for(seconds)
    finally:
        for s in sockets:
            s.close()
    return 100 * spent.docker / spent.took


def usage(count=100, seconds=20):
    with Beaufort() as b:
        # Host's network: no namespace is made, and a hundred start in seconds.
        task = b.define("small", "sleep", HOUR, networkMode="host", memory=16)
        time.sleep(3)
        with Cpu(b) as without:
            time.sleep(seconds)
        b.scale("hundred", task, count)
        time.sleep(3)
        sampled = len({(r["sample"]["task"], r["sample"]["container"]) for r in b.get("/api/usage")["containers"]})
        assert sampled == count, f"{sampled} of {count} containers are sampled"
        with Cpu(b) as with_them:
            time.sleep(seconds)
        ids = [c["Id"] for c in b.containers()]
        memory = rss_mb(b.process.pid)
        streams = stats_streams(ids, 10)
        b.delete("hundred")
    share = lambda c, what: 100 * (c.threads.get(what, 0.0) if what else c.beaufort) / c.took
    docker = 100 * (with_them.docker / with_them.took - without.docker / without.took)
    sampler = share(with_them, "usage") - share(without, "usage")
    whole_process = share(with_them, None) - share(without, None)
    base = 100 * without.docker / without.took
    reference = Reference("Docker's stats streams, in dockerd and containerd alone", streams, "% of a core")
    return [
        Row(f"sampling {count} containers every second: usage thread and Docker", [sampler + max(docker, 0.0)], "% of a core", 0.7,
            reference=reference, note=f"usage thread {sampler:.2f}, daemons {docker:+.2f} (they idle at {base:.2f})"),
        Row("the same, the whole of Beaufort", [whole_process], "% of a core",
            note=f"with ingest, metrics and alarms; {worst(with_them.threads)}; memory {memory:.0f} MB"),
    ]


# Log lines.

LINES = 1_000_000
WIDTH = 80


def lines():
    with Beaufort() as b:
        b.call("logs", "CreateLogGroup", logGroupName="flood")
        options = {"awslogs-group": "flood", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "f"}
        task = b.define("flood", "print", LINES, WIDTH, logConfiguration={"logDriver": "awslogs", "options": options})
        # Docker alone, with the same driver and options: how fast it takes lines when nobody reads them.
        b.scale("warm", b.define("sleeper", "sleep", HOUR, logConfiguration={"logDriver": "awslogs", "options": options}), 1)
        body = equal_container(b.containers()[0])
        b.delete("warm")
        body["Cmd"] = ["testbed", "print", str(LINES), str(WIDTH)]
        docker = Docker()
        made = docker.ask("POST", f"/containers/create?name=beaufort-bench-{os.getpid()}-lines", body)["Id"]
        began = time.monotonic()
        docker.ask("POST", f"/containers/{made}/start")
        docker.ask("POST", f"/containers/{made}/wait")
        alone = LINES / (time.monotonic() - began)
        api = LINES / read_through_api(made)
        docker.ask("DELETE", f"/containers/{made}?force=1")

        with Cpu(b) as spent:
            began = time.monotonic()
            arn = b.ecs("RunTask", taskDefinition=task)["tasks"][0]["taskArn"]
            stream = f"f/main/{arn.rsplit('/', 1)[1]}"
            last = f"line {LINES} "

            def arrived():
                try:
                    events = b.call("logs", "GetLogEvents", logGroupName="flood", logStreamName=stream, startFromHead=False, limit=1)["events"]
                except RuntimeError:
                    return False  # There is no stream before its first line.
                return events and events[0]["message"].startswith(last)

            until("the last line is stored", arrived, 120, 0.1)
            took = time.monotonic() - began
        seen = count_lines(b, stream)
    each = spent.beaufort * 50_000 / LINES
    return [
        Row("log lines of one container, written to stored", [LINES / took], "lines/s", 50_000, at_most=False,
            reference=Reference("Docker's log API, reading the same lines", api, "lines/s"),
            note=f"{LINES:,} lines of {WIDTH + 12} bytes, with the container's start; Docker's json-file alone takes {alone:,.0f} lines/s when nobody reads"),
        Row("lines lost or doubled", [LINES - len(seen) + doubled(seen)], "lines", 0, note=f"of {LINES:,}, read back with GetLogEvents"),
        Row("CPU of Beaufort for 50,000 lines", [each], "s", 1.0, note=f"{worst(spent.threads)}; daemons {spent.docker * 50_000 / LINES:.2f} s"),
    ]


def read_through_api(container):
    """Seconds to read all of a container's lines by Docker's log API."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(docker_socket())
        began, lines = time.monotonic(), 0
        s.sendall(f"GET /containers/{container}/logs?stdout=1&timestamps=1 HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += s.recv(4096)
        data = head.partition(b"\r\n\r\n")[2]
        while data:
            # Frames' heads hold no such byte: streams are 1 and 2, and no line of ours is ten bytes long.
            lines += data.count(b"\n")
            data = s.recv(1 << 20)
    if lines < LINES:
        raise RuntimeError(f"Docker's log API gave {lines} of {LINES} lines")
    return time.monotonic() - began


def doubled(seen):
    return sum(times - 1 for times in seen.values())


def count_lines(b, stream):
    """How often each line was stored."""
    seen, token = {}, None
    while True:
        more = {"nextToken": token} if token else {}
        answer = b.call("logs", "GetLogEvents", logGroupName="flood", logStreamName=stream, startFromHead=True, limit=10_000, **more)
        for event in answer["events"]:
            number = int(event["message"].split(" ", 2)[1])
            seen[number] = seen.get(number, 0) + 1
        if answer["nextForwardToken"] == token:
            return seen
        token = answer["nextForwardToken"]


# The parts that need neither Docker nor a client: each a process of its own, so that one's memory is not another's.

def part(name):
    def measure():
        told = subprocess.run([Beaufort.binary, "bench", name, "--json"], capture_output=True, text=True, timeout=PART_WITHIN_S)
        if told.returncode != 0:
            raise RuntimeError(f"beaufort bench {name}: {told.stderr.strip()[-500:]}")
        return [Row.of_part(row) for row in json.loads(told.stdout)]
    return measure


PART_WITHIN_S = 900

# A figure is a name for ONLY=, its group in the table, and what measures it. One more is a line here, or one in src/bench.rs.
FIGURES = {
    "start": ("Control plane", start),
    "requests": ("Control plane", requests),
    "thirty": ("Tasks on Docker", thirty),
    "awsvpc": ("Tasks on Docker", awsvpc),
    "replaced": ("Tasks on Docker", replaced),
    "scaled": ("Scaling", scaled),
    "prometheus": ("Scaling", prometheus),
    "usage": ("Metrics", usage),
    "lines": ("Logs", lines),
}


def all_figures():
    """Those, and the parts that the binary knows."""
    told = subprocess.run([Beaufort.binary, "bench", "--list", "--json"], capture_output=True, text=True, timeout=60, check=True).stdout
    return FIGURES | {p["name"]: (p["group"], part(p["name"])) for p in json.loads(told)}
