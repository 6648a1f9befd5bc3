"""One world, its clients, and a row of fates: what the short test, `run.py` and the soak all run."""

import dataclasses
import random
import time

import fates
from driver import Driver, container
from judge import DRIP_GROUP, Judge, Watcher
from ledger import Ledger
from world import Api, Breach, World


@dataclasses.dataclass
class Told:
    """What a run comes to."""

    seed: str
    mode: str
    kills: int = 0
    rounds: int = 0
    acknowledged: int = 0
    doubted: int = 0
    looks: int = 0
    most_containers: int = 0
    lines: int = 0
    health: list = dataclasses.field(default_factory=list)
    settled: list = dataclasses.field(default_factory=list)
    story: list = dataclasses.field(default_factory=list)
    breach: str = ""

    def row(self):
        ordered = sorted(self.health)
        return {"seed": self.seed, "mode": self.mode, "rounds": self.rounds, "kills": self.kills, "acknowledged": self.acknowledged,
                "in_doubt": self.doubted, "looks_at_docker": self.looks, "most_containers": self.most_containers, "lines": self.lines,
                "health_s": {"median": round(ordered[len(ordered) // 2], 3), "max": round(ordered[-1], 3)} if ordered else None,
                "settle_s": [round(s, 1) for s in self.settled], "breach": self.breach}


def drip(world, network="bridge", desired=2):
    """A service whose containers write numbered lines all the time."""
    api = Api(world, again=True)
    awslogs = {"logDriver": "awslogs", "options": {"awslogs-group": DRIP_GROUP, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "drip",
                                                   "awslogs-create-group": "true"}}
    own = container("drip", 10_000_000, 25, logConfiguration=awslogs)
    api.call("ecs", "RegisterTaskDefinition", family="drip", containerDefinitions=[own], networkMode=network)
    api.ecs("CreateService", serviceName="drip", taskDefinition="drip", desiredCount=desired)


def run(binary, seed, kills=12, split=False, only=None, each=False, settle_every=25, say=lambda text: None, until=None, docker_host=None):
    """Kills until there were `kills`, or until the clock says `until`. `each`: one of every fate, in a random order, before chance decides."""
    told = Told(seed=str(seed), mode="split" if split else "up")
    rng = random.Random(f"{seed}/{told.mode}")
    world = World(binary, split=split, docker_host=docker_host)
    driver = watcher = None
    try:
        world.start()
        ledger = Ledger()
        driver = Driver(world, ledger, seed)
        judge, watcher = Judge(world, driver), Watcher(world)
        watcher.start()
        drip(world)
        order = list(fates.of(world)) if each else []
        rng.shuffle(order)
        while told.kills < kills or order:
            if until and time.monotonic() > until:
                break
            driver.go()
            fates.hand_over(rng, 0.1, 1.6)
            fate = order.pop() if order else fates.choose(world, rng, only)
            did = fates.of(world)[fate][0](world, rng)
            driver.hold()
            told.rounds += 1
            told.kills += fate not in fates.GENTLE
            told.story.append(f"{told.rounds}: {did}")
            say(f"{told.mode} {told.rounds}: {did}; {ledger.acknowledged} acknowledged, {ledger.doubted} in doubt")
            judge.quick()
            twice(watcher)
            if told.rounds % settle_every == 0:
                told.settled.append(judge.settle())
                told.story.append(f"settled after {told.settled[-1]:.1f} s; last: {judge.waiting}")
        driver.hold()
        told.settled.append(judge.settle())
        judge.caught_up()
        twice(watcher)
        told.lines = sum(judge.dripped.values()) + sum(map(len, judge.put_seen.values()))
    except Exception as e:
        told.breach = f"{type(e).__name__}: {e}"
        told.story.append(f"breach: {told.breach}")
        told.story.append(world.tail(40))
    finally:
        if driver:
            driver.end()
            told.acknowledged, told.doubted = driver.ledger.acknowledged, driver.ledger.doubted
        if watcher:
            watcher.end()
            told.looks, told.most_containers = watcher.looks, watcher.most
        told.health = world.seconds_to_health
        world.end()
    return told


def twice(watcher):
    if watcher.twice:
        raise Breach(f"two live containers of one task and name: {watcher.twice[0]}")
