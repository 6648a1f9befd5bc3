"""What happens to the processes. Each fate leaves them running and healthy again, and says what it did."""

import signal
import time

import damage
from world import Breach, Doubt


def hand_over(rng, least=0.0, most=0.4):
    """The moment of the blow; nothing waits for it."""
    time.sleep(least + rng.random() * (most - least))


def kill(world, rng):
    world.kill("server")
    world.start()
    return "server killed"


def kill_agent(world, rng):
    name = rng.choice(world.names[1:])
    world.kill(name)
    hand_over(rng, 0, 1.0)
    world.start()
    return f"{name} killed"


def kill_all(world, rng):
    names = list(world.names)
    rng.shuffle(names)
    for name in names:
        world.kill(name)
    world.start()
    return f"killed in this order: {', '.join(names)}"


def startup(world, rng):
    """Killed again while it starts: recovery, migration and the first commits are cut anywhere."""
    world.kill(*world.names)
    times = rng.randrange(1, 4)
    for _ in range(times):
        world.start(wait=False)
        hand_over(rng, 0, 0.35)
        world.kill(*world.names)
    world.start()
    return f"killed, and {times} times more while it started"


def double(world, rng):
    world.kill("server")
    world.start()
    hand_over(rng, 0, 0.1)
    world.kill("server")
    world.start()
    return "server killed twice in a row"


def freeze(world, rng):
    """As a machine that swaps, or whose disk hangs: nothing is lost, it only takes longer."""
    name = rng.choice(world.names)
    world.signal(name, signal.SIGSTOP)
    try:
        hand_over(rng, 0.2, 2.5)
    finally:
        world.signal(name, signal.SIGCONT)
    world.wait()
    return f"{name} frozen for a while"


def frozen_then_killed(world, rng):
    world.signal("server", signal.SIGSTOP)
    hand_over(rng, 0.1, 1.0)
    world.kill("server")
    world.start()
    return "server frozen, then killed"


def stop(world, rng):
    world.stop()
    world.start()
    return "ended by SIGTERM"


def container(world, rng):
    """A service's container dies while nobody looks. (A task of RunTask would end with its container, and rightly so.)"""
    world.kill(*world.names)
    rows = [row for row in world.containers() if row["Labels"].get("beaufort.service")]
    if rows:
        world.docker.kill(rng.choice(rows)["Id"])
    world.start()
    return f"killed, and one of {len(rows)} containers with it"


def torn(world, rng):
    """What was being written when the machine went down, and was not acknowledged: behind the whole records there is anything."""
    world.kill(*world.names)
    files = [p for kind in damage.TAILS if (p := damage.newest(world.data, kind))]
    did = [damage.torn(p, rng) for p in rng.sample(files, min(len(files), rng.randrange(1, 4)))]
    world.start()
    return "killed; " + ", ".join(did)


SINGLE = {"kill": (kill, 6), "startup": (startup, 2), "double": (double, 2), "freeze": (freeze, 1), "frozen-then-killed": (frozen_then_killed, 1),
          "stop": (stop, 1), "container": (container, 2), "torn": (torn, 3)}
SPLIT = {**SINGLE, "kill-agent": (kill_agent, 4), "kill-all": (kill_all, 2)}
# Those in which no process dies are no kills.
GENTLE = {"freeze", "stop"}


def of(world):
    return SPLIT if world.split else SINGLE


def choose(world, rng, only=None):
    fates = of(world)
    if only:
        return only
    return rng.choices(list(fates), [weight for _, weight in fates.values()])[0]


__all__ = ["Breach", "Doubt", "SINGLE", "SPLIT", "GENTLE", "choose", "of"]
