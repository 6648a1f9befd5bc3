"""The task network: tasks in bridge mode whose neighbours on a Docker network reach them by their own address."""

import json
import subprocess
import uuid

import pytest
from conftest import BINARY, IMAGE, clean_docker, docker, testbed, until


@pytest.fixture
def network():
    """A Docker network that is there before Beaufort is, as a compose project's is; named before `make`, so that it goes after it."""
    name = f"beaufort-scenario-{uuid.uuid4().hex[:8]}"
    docker("network", "create", "--label", f"beaufort.scenario={name}", name)
    yield name
    clean_docker(f"beaufort.scenario={name}")


def interfaces(task):
    return [i["privateIpv4Address"] for c in task["containers"] for i in c.get("networkInterfaces", [])]


def test_neighbours_reach_tasks_by_address(network, make):
    b = make("--task-network", network).start()
    definition = b.register(testbed("http", 8080, portMappings=[{"containerPort": 8080}]))
    b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=definition, desiredCount=2)
    b.stable("web", 2)
    arns = b.ecs.list_tasks(cluster=b.cluster, serviceName="web")["taskArns"]
    tasks = b.ecs.describe_tasks(cluster=b.cluster, tasks=arns)["tasks"]
    addresses = [address for task in tasks for address in interfaces(task)]
    assert len(set(addresses)) == 2, tasks
    told = {n["IPv4Address"].split("/")[0] for n in json.loads(docker("network", "inspect", network))[0]["Containers"].values()}
    assert set(addresses) == told, "what Docker says"
    for task in tasks:
        assert task["containers"][0]["networkBindings"][0]["hostPort"] > 0, "host ports are mapped all the same"
    for address in addresses:
        # The binary's own load generator is the neighbour: a container on the same network and nowhere else.
        look = ["run", "--rm", "--network", network, IMAGE, "load", f"http://{address}:8080/", "--rate", "5", "--for", "1s", "--json"]
        told = json.loads(docker(*look).splitlines()[-1])["total"]
        assert told["completed"] >= 4 and told["failed"] == 0, told
    # A Beaufort that starts anew, told of no network, adopts the tasks where they are.
    b.stop()
    b.flags = []
    b.start()
    assert {address for arn in arns for address in interfaces(b.task(arn))} == set(addresses)


def test_a_network_that_is_not_there_ends_the_start(make):
    b = make("--task-network", "no-such-network-" + uuid.uuid4().hex[:6])
    b.start(wait=False)
    assert b.process.wait(timeout=30) == 1
    said = b.tail()
    assert f"there is no Docker network {b.flags[1]}" in said and "docker network create" in said, said


def test_without_a_task_network_a_bridge_task_has_no_interface(up):
    arn = up.run(up.register(testbed("http", 8080, portMappings=[{"containerPort": 8080}])))
    assert interfaces(up.reach(arn, "RUNNING")) == [], "as on Amazon ECS"


def test_a_network_that_goes_away_fails_the_task_in_dockers_words(network, make):
    b = make("--task-network", network).start()
    docker("network", "rm", network)
    arn = b.run(b.register(testbed("sleep", 60)))
    stopped = until("STOPPED", lambda: (lambda t: t if t["lastStatus"] == "STOPPED" else None)(b.task(arn)))
    reason = stopped["containers"][0]["reason"]
    assert stopped["stopCode"] == "TaskFailedToStart" and network in reason, reason


def test_help_tells_of_it():
    help = subprocess.run([BINARY, "up", "--help"], check=True, capture_output=True, text=True).stdout
    assert "--task-network <NAME>" in help and "BEAUFORT_TASK_NETWORK" in help
