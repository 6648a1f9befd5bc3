"""What is below fails: the disk is full, Docker is away, hangs, errs or is restarted. What was acknowledged stands, and all goes on by itself."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from conftest import BINARY

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "crash"))

import story  # noqa: E402
from daemon import Dockerd  # noqa: E402
from disk import Tmpfs  # noqa: E402
from driver import Driver, container  # noqa: E402
from harness import cpu_of  # noqa: E402
from judge import Judge, Watcher  # noqa: E402
from ledger import Ledger  # noqa: E402
from relay import Relay  # noqa: E402
from world import Api, Refused, World, until  # noqa: E402


class Scene:
    """A world with clients and a judge, and one way to end them all."""

    def __init__(self, network="bridge", **world):
        self.world = World(BINARY, **world)
        self.parts = []
        self.network = network

    def start(self, threads=2):
        self.world.start()
        self.ledger = Ledger()
        self.driver = Driver(self.world, self.ledger, 11, threads=threads, network=self.network)
        self.judge, self.watcher = Judge(self.world, self.driver), Watcher(self.world)
        self.watcher.start()
        story.drip(self.world, self.network)
        self.driver.go()
        return self

    def until_busy(self, least=40):
        goal = self.ledger.acknowledged + least
        until("clients are served", lambda: self.ledger.acknowledged >= goal, 60)

    def settle(self):
        self.driver.hold()
        took = self.judge.settle()
        self.judge.caught_up()
        story.twice(self.watcher)
        return took

    def end(self):
        if hasattr(self, "watcher"):
            self.watcher.end()
        if hasattr(self, "driver"):
            self.driver.end()
        self.world.end()
        for part in self.parts:
            part.end()


@pytest.fixture
def scenes():
    made = []

    def make(*parts, **more):
        scene = Scene(**more)
        scene.parts = list(parts)
        made.append(scene)
        return scene

    yield make
    for scene in made:
        scene.end()


@pytest.fixture
def small_disk():
    try:
        return Tmpfs(32)
    except PermissionError as e:
        pytest.skip(str(e))


def gauge(text, name):
    return [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)]


def test_a_full_disk_refuses_changes_and_nothing_else(scenes, small_disk):
    scene = scenes(small_disk, data=small_disk.dir / "data")
    scene.start().until_busy()
    world, judge, driver = scene.world, scene.judge, scene.driver
    until("containers run", lambda: len(world.containers()) >= 2, 30)
    small_disk.fill()

    def degraded():
        small_disk.fill()
        return judge.health()[1]["status"] == "degraded" and "ServerException" in driver.errors and "state" in judge.health()[1]["not_written"]

    until("writes are refused, and /health says so", degraded, 60)
    assert judge.health()[0] == 200
    # Each service says in its own words that it is not the client's fault.
    until("log lines are refused", lambda: small_disk.fill() or driver.errors["ServiceUnavailableException"], 30)
    until("metrics are refused", lambda: small_disk.fill() or driver.errors["InternalServiceFault"], 30)
    # An agent tries again, slowly, and nothing that runs is touched.
    running = {r["Id"] for r in world.containers()}
    driver.hold()
    before, began = cpu_of(world.processes["server"].pid), time.monotonic()
    until("a while has passed", lambda: time.monotonic() - began > 4, 10)
    spent = (cpu_of(world.processes["server"].pid) - before) / (time.monotonic() - began)
    assert spent < 0.5, f"it spins: {spent:.2f} cores with nothing to do"
    assert running <= {r["Id"] for r in world.containers(everything=True)}
    text = judge.metrics()
    assert sum(gauge(text, "beaufort_write_failing")) >= 1 and sum(gauge(text, "beaufort_write_errors_total")) >= 3
    with pytest.raises(Refused) as refused:
        Api(world).call("ecs", "CreateCluster", clusterName="no-room")
    assert refused.value.status == 500 and refused.value.code == "ServerException" and "was not made" in refused.value.message
    judge.quick()
    # Room again: everything goes on without a restart.
    small_disk.give_back()
    until("/health is well again", lambda: judge.health()[1]["status"] == "ok", 90, 0.2)
    driver.go()
    scene.until_busy()
    scene.settle()


def test_killed_on_a_full_disk_and_started_on_it(scenes, small_disk):
    scene = scenes(small_disk, data=small_disk.dir / "data")
    scene.start().until_busy()
    world, driver = scene.world, scene.driver
    small_disk.fill()
    until("writes are refused", lambda: small_disk.fill() or driver.errors["ServerException"], 60)
    world.kill()
    small_disk.fill()
    running = {r["Id"] for r in world.containers()}
    run = subprocess.run(world.arguments("server"), capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "there is no room on the disk of the data directory" in run.stderr, run.stderr
    assert "next: make room on that disk, then start again; tasks run on meanwhile" in run.stderr
    assert running <= {r["Id"] for r in world.containers()}
    small_disk.give_back()
    world.start()
    scene.until_busy()
    scene.settle()


@pytest.mark.parametrize("mode", ["cut", "hang", "errors"])
def test_docker_is_not_itself_for_a_while(scenes, tmp_path, mode):
    relay = Relay(tmp_path / "docker.sock")
    scene = scenes(relay, docker_host=None)
    scene.world.docker_host = relay.host
    scene.start().until_busy()
    rng = random.Random(3)
    running = None
    for _ in range(3):
        relay.become(mode)
        time.sleep(0.3 + rng.random() * 2)  # How long it lasts, not a synchronisation.
        running = running or {r["Id"] for r in scene.world.containers()}
        assert scene.judge.health()[0] == 200
        relay.become("pass")
        scene.until_busy(10)
    # And with nobody there to notice: killed while Docker is away.
    relay.become(mode)
    scene.world.kill()
    scene.world.start(wait=False)
    time.sleep(0.5)
    relay.become("pass")
    scene.world.wait()
    scene.settle()


def test_dockerd_is_killed_and_restarted_under_us(scenes):
    if why := Dockerd.missing():
        pytest.skip(why)
    daemon = Dockerd().start()
    scene = scenes(daemon, docker_host=daemon.host, network="none")
    scene.start().until_busy()
    for number in (signal.SIGTERM, signal.SIGKILL):
        until("containers run", lambda: scene.world.containers(), 60)
        daemon.stop(number)
        scene.until_busy(5)
        assert scene.judge.health()[0] == 200, "the API goes on without Docker"
        daemon.start()
        until("its agent knows", lambda: all(gauge(scene.judge.metrics(), "beaufort_instance_docker_up")), 60)
        scene.until_busy(5)
    scene.settle()


def test_a_task_that_is_asked_for_again_after_a_crash_runs_once(make):
    b = make().start()
    definition = b.register(container("sleep", 600))
    ask = {"clientToken": "asked-by-an-sdk-that-tries-again", "startedBy": "once", "count": 2}
    first = [t["taskArn"] for t in b.ecs.run_task(cluster=b.cluster, taskDefinition=definition, **ask)["tasks"]]
    b.kill()
    b.start()
    again = b.ecs.run_task(cluster=b.cluster, taskDefinition=definition, **ask)
    assert sorted(t["taskArn"] for t in again["tasks"]) == sorted(first)
    assert len(b.ecs.list_tasks(cluster=b.cluster, startedBy="once")["taskArns"]) == 2
    with pytest.raises(b.ecs.exceptions.ClientError, match="clientToken"):
        b.ecs.run_task(cluster=b.cluster, taskDefinition=b.register(container("sleep", 601)), **ask)
    for arn in first:
        b.reach(arn, "RUNNING")
    assert len(b.containers()) == 2
