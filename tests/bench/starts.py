"""Tasks on Docker: how soon they run and how soon a killed one is replaced, beside the engine's own API and Docker Swarm in the same run."""

import concurrent.futures
import os
import threading
import time

from harness import CLUSTER, HOUR, LABEL, Beaufort, Cpu, Docker, Reference, Row, median, until
from swarm import Swarm

AWSVPC = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
COUNT = 30
PAIRS = 3
# What gives the API its best: more in flight only wait inside of dockerd.
IN_FLIGHT = 8


def equal_container(container):
    """The body that makes one more container like this one of Beaufort's, without the labels by which Beaufort would take it for its own."""
    seen = Docker().ask("GET", f"/containers/{container['Id']}/json")
    config, host = seen["Config"], seen["HostConfig"]
    body = {k: config[k] for k in ("Image", "Cmd", "Env", "Entrypoint", "User", "WorkingDir", "StopSignal", "Healthcheck") if config.get(k)}
    body["Labels"] = {LABEL: "1", **{f"bench.{i}": v for i, v in enumerate(config["Labels"].values())}}
    body["HostConfig"] = host
    return body


def start_through_docker(body, count=COUNT, in_flight=IN_FLIGHT):
    """Seconds to create and start so many equal containers with nothing but the API."""
    own = threading.local()

    def one(number):
        own.docker = getattr(own, "docker", None) or Docker()
        made = own.docker.ask("POST", f"/containers/create?name=beaufort-bench-{os.getpid()}-{number}", body)["Id"]
        own.docker.ask("POST", f"/containers/{made}/start")
        return made

    with concurrent.futures.ThreadPoolExecutor(in_flight) as pool:
        started = time.monotonic()
        made = list(pool.map(one, range(count)))
        took = time.monotonic() - started
    return took, made


def remove_through_docker(made, in_flight=8):
    own = threading.local()

    def one(name):
        own.docker = getattr(own, "docker", None) or Docker()
        own.docker.ask("DELETE", f"/containers/{name}?force=1", fine=(204, 404))

    with concurrent.futures.ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(one, made))


def ratios(these, those):
    return [a / b for a, b in zip(these, those)]


def thirty():
    """Beaufort, the API, Swarm; Beaufort, the API, Swarm; ..."""
    ours, alone, swarms = [], [], []
    with Beaufort() as b, Swarm() as swarm:
        task = b.define("thirty", "sleep", HOUR)
        b.scale("warm", task, 1)
        body = equal_container(b.containers()[0])
        b.delete("warm")
        for pair in range(PAIRS):
            with Cpu(b) as spent:
                ours.append(b.scale(f"thirty-{pair}", task, COUNT))
            b.delete(f"thirty-{pair}")
            took, made = start_through_docker(body)
            alone.append(took)
            remove_through_docker(made)
            swarms.append(swarm.create(f"beaufort-bench-{os.getpid()}-{pair}", body, COUNT))
            swarm.remove(f"beaufort-bench-{os.getpid()}-{pair}")
    grows = "linear in containers: the engine makes a namespace at a time"
    return [
        Row(f"{COUNT} bridge tasks, CreateService to all RUNNING", ours, "s", grows=grows,
            reference=Reference(f"the Docker API, {IN_FLIGHT} in flight", median(alone), "s"), note=f"Beaufort's own CPU {spent.beaufort:.2f} s"),
        Row(f"{COUNT} bridge tasks, against the Docker API driven directly", ratios(ours, alone), "x", 1.10, grows=grows,
            reference=Reference("Docker Swarm, against the same", median(ratios(swarms, alone)), "x"),
            note=f"in turn: Beaufort, the API, Swarm ({median(swarms):.1f} s); {PAIRS} rounds"),
    ]


def warm_pauses(b):
    """Running pauses: the pool's and the tasks'."""
    rows = Docker().of(f"{CLUSTER}={b.cluster}")
    return [r for r in rows if r["Labels"].get("beaufort.container", "").startswith("~internal") and r["State"] == "running"]


def warmed(b, size):
    """A cluster's pool is filled when its first awsvpc task has come and gone."""
    until(f"{size} pauses are warm", lambda: len(warm_pauses(b)) == size and not b.containers(), 120, 0.1)
    # What is removed last still keeps the engine busy for a moment.
    time.sleep(1)


def awsvpc():
    """Tasks with an address of their own from the pool, against containers that get a namespace each from the engine."""
    ours, alone = [], []
    with Beaufort("--pause-pool", str(COUNT)) as b:
        plain = b.define("plain", "sleep", HOUR)
        b.scale("warm", plain, 1)
        body = equal_container(b.containers()[0])
        b.delete("warm")
        task = b.define("own", "sleep", HOUR, networkMode="awsvpc")
        b.scale("first", task, 1, networkConfiguration=AWSVPC)
        b.delete("first")
        for pair in range(PAIRS):
            warmed(b, COUNT)
            with Cpu(b) as spent:
                ours.append(b.scale(f"own-{pair}", task, COUNT, networkConfiguration=AWSVPC))
            b.delete(f"own-{pair}")
            warmed(b, COUNT)
            took, made = start_through_docker(body)
            alone.append(took)
            remove_through_docker(made)
    return [
        Row(f"{COUNT} awsvpc tasks, pause pool warm, CreateService to all RUNNING", ours, "s", grows="linear in tasks",
            reference=Reference("the Docker API, containers with their own namespaces", median(alone), "s"),
            note=f"a pool of {COUNT}; Beaufort's own CPU {spent.beaufort:.2f} s"),
        Row(f"{COUNT} awsvpc tasks, against the Docker API making own namespaces", ratios(ours, alone), "x", 0.6, grows="linear in tasks",
            reference=Reference("the Docker API", 1, "x"), note="a task past the pool costs a namespace more"),
    ]


def next_running(b, service, before):
    new = [t for t in b.tasks(service) if t not in before]
    if not new:
        return None
    task = b.ecs("DescribeTasks", tasks=new)["tasks"][0]
    return task if task["lastStatus"] == "RUNNING" else None


def kill_and_wait(b, service):
    """Seconds from the kill to the next task RUNNING, and to the old one STOPPED."""
    container = b.containers()[0]["Id"]
    before = set(b.tasks(service))
    began, at = time.monotonic(), time.time()
    Docker().ask("POST", f"/containers/{container}/kill")
    until("the next task runs", lambda: next_running(b, service, before), 20, 0.005)
    took = time.monotonic() - began
    old = b.ecs("DescribeTasks", tasks=list(before))["tasks"][0]
    until("calm", lambda: len(b.containers()) == 1, 20, 0.05)
    # A service whose task was killed the moment it ran, again and again, is slowed on purpose.
    until("steady", lambda: b.service(service)["events"][0]["message"].endswith("steady state."), 20, 0.05)
    return took, old["stoppedAt"] - at if "stoppedAt" in old else float("nan")


def swarm_replaces(body, runs):
    name, seconds = f"beaufort-bench-{os.getpid()}-one", []
    with Swarm() as swarm:
        swarm.create(name, body, 1)
        for _ in range(runs):
            before = swarm.running(name)
            began = time.monotonic()
            swarm.docker.ask("POST", f"/containers/{next(iter(before.values()))}/kill")
            until("the next replica runs", lambda: set(swarm.running(name)) - set(before), 60, 0.01)
            seconds.append(time.monotonic() - began)
    return seconds


def replaced(runs=7):
    bridge, own = [], []
    with Beaufort() as b:
        b.scale("one", b.define("one", "sleep", HOUR), 1)
        body = equal_container(b.containers()[0])
        for _ in range(runs):
            bridge.append(kill_and_wait(b, "one"))
        b.delete("one")
        task = b.define("own", "sleep", HOUR, networkMode="awsvpc")
        b.scale("own", task, 1, networkConfiguration=AWSVPC)
        for _ in range(runs):
            # The task's own, and the pool's four.
            until("the pool is warm", lambda: len(warm_pauses(b)) == 5, 30, 0.05)
            own.append(kill_and_wait(b, "own"))
        b.delete("own")
    reference = Reference("Docker Swarm, as it is set by default", median(swarm_replaces(body, 3)), "s")
    stopped = lambda runs: f"the old one is STOPPED after {median([at for _, at in runs]):.2f} s"
    grows = "flat in tasks and services"
    return [
        Row("a killed container's task replaced, bridge", [took for took, _ in bridge], "s", 0.5, reference=reference, grows=grows, note=stopped(bridge)),
        Row("a killed container's task replaced, awsvpc with a warm pause", [took for took, _ in own], "s", 0.25, reference=reference, grows=grows,
            note=stopped(own)),
    ]
