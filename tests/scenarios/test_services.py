"""Services on real Docker: the count is kept, revisions roll, and every step says why."""

import json
import threading
import time

import botocore.exceptions
import pytest

from conftest import answers, docker, testbed, until


def create(b, name, definition, count, **more):
    return b.ecs.create_service(cluster=b.cluster, serviceName=name, taskDefinition=definition, desiredCount=count, **more)["service"]


def messages(service):
    return [e["message"] for e in service["events"]]


def test_a_killed_container_is_replaced_and_why_says_so(up):
    create(up, "web", up.register(testbed("sleep", 600)), 2)
    before = up.stable("web", 2)
    up.client("ecs").get_waiter("services_stable").wait(cluster=up.cluster, services=["web"], WaiterConfig={"Delay": 1})
    victim = up.containers()[0]
    docker("kill", victim["Id"])
    until("the dead task is seen", lambda: victim["Id"] not in [c["Id"] for c in up.containers()], 10)
    up.stable("web", 2)

    def stopped():
        return up.ecs.list_tasks(cluster=up.cluster, serviceName="web", desiredStatus="STOPPED")["taskArns"]

    task = up.reach(until("the stopped task", stopped, 10)[0], "STOPPED")
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("EssentialContainerExited", 137)
    until("two again", lambda: len(up.containers()) == 2, 20)
    said = json.loads(up.cli("why", f"service/{up.cluster}/web", "--json").stdout)
    assert any(d["code"] == "below_desired" for d in said["decisions"]), said
    assert any("has started 1 tasks" in m for m in messages(up.service("web")))


def test_desired_count_moves_both_ways(up):
    create(up, "web", up.register(testbed("sleep", 600)), 1)
    up.stable("web", 1)
    up.ecs.update_service(cluster=up.cluster, service="web", desiredCount=4)
    up.stable("web", 4)
    assert len(up.containers()) == 4
    up.ecs.update_service(cluster=up.cluster, service="web", desiredCount=1)
    up.stable("web", 1)
    until("three gone", lambda: len(up.containers()) == 1, 20)
    until("steady again", lambda: messages(up.service("web"))[0] == "(service web) has reached a steady state.", 20)
    assert any("has stopped" in m for m in messages(up.service("web")))


def test_a_new_revision_rolls_within_the_percents(up):
    def revision(word):
        return up.register(testbed("http", 8080, environment=[{"name": "WORD", "value": word}], portMappings=[{"containerPort": 8080}]), family="web")

    create(up, "web", revision("one"), 2, deploymentConfiguration={"minimumHealthyPercent": 100, "maximumPercent": 200})
    up.stable("web", 2)
    stop = threading.Event()
    running_least = [2]

    def watch():
        while not stop.is_set():
            running_least[0] = min(running_least[0], up.service("web")["runningCount"])
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    second = revision("two")
    up.ecs.update_service(cluster=up.cluster, service="web", taskDefinition=second)
    in_progress = up.service("web")["deployments"]
    assert in_progress[0]["status"] == "PRIMARY" and in_progress[0]["rolloutState"] == "IN_PROGRESS"
    up.stable("web", 2)
    until("completed", lambda: up.service("web")["deployments"][0]["rolloutState"] == "COMPLETED", 20)
    stop.set()
    watcher.join()
    assert running_least[0] >= 2, "minimumHealthyPercent 100 was not held"
    assert up.service("web")["taskDefinition"].endswith(second)
    arns = up.ecs.list_tasks(cluster=up.cluster, serviceName="web")["taskArns"]
    for task in up.ecs.describe_tasks(cluster=up.cluster, tasks=arns)["tasks"]:
        assert task["taskDefinitionArn"].endswith(second)
        port = task["containers"][0]["networkBindings"][0]["hostPort"]
        assert answers(f"http://127.0.0.1:{port}/") == 200
    assert any("deployment completed." in m for m in messages(up.service("web")))


def test_force_new_deployment_replaces_every_task(up):
    create(up, "web", up.register(testbed("sleep", 600)), 2)
    up.stable("web", 2)
    old = {c["Id"] for c in up.containers()}
    up.ecs.update_service(cluster=up.cluster, service="web", forceNewDeployment=True)
    until("other containers", lambda: not old & {c["Id"] for c in up.containers()} and len(up.containers()) == 2, 60)
    up.stable("web", 2)


def test_delete_needs_zero_or_force_and_drains(up):
    create(up, "web", up.register(testbed("sleep", 600)), 1)
    up.stable("web", 1)
    with pytest.raises(botocore.exceptions.ClientError) as e:
        up.ecs.delete_service(cluster=up.cluster, service="web")
    assert e.value.response["Error"]["Code"] == "InvalidParameterException"
    assert "The service cannot be stopped while it is scaled above 0." in str(e.value)
    assert up.ecs.delete_service(cluster=up.cluster, service="web", force=True)["service"]["status"] == "DRAINING"
    until("inactive", lambda: up.service("web")["status"] == "INACTIVE", 30)
    assert up.ecs.list_services(cluster=up.cluster)["serviceArns"] == []
    until("no container", lambda: not up.containers(all=True), 20)


def test_unhealthy_tasks_are_replaced(up):
    check = {"command": ["CMD", "/beaufort", "testbed", "exit", "1"], "interval": 5, "timeout": 2, "retries": 1}
    create(up, "web", up.register(testbed("sleep", 600, healthCheck=check)), 1)
    until("a task failed its health check", lambda: any("failed container health checks" in m for m in messages(up.service("web"))), 40)
    arn = until("a stopped task", lambda: up.ecs.list_tasks(cluster=up.cluster, desiredStatus="STOPPED")["taskArns"], 30)[0]
    assert up.task(arn)["stoppedReason"] == "Task failed container health checks"


def test_a_service_that_never_starts_is_throttled_and_says_so(up):
    create(up, "bad", up.register({"name": "main", "image": "registry.invalid/none:1", "memory": 32}), 1)
    until("the throttle's event", lambda: any("unable to consistently start tasks" in m for m in messages(up.service("bad"))), 60)
    now = json.loads(up.cli("why", f"service/{up.cluster}/bad", "--json").stdout)["now"]
    assert now["deployments"][0]["failed_tasks"] >= 3
    up.ecs.delete_service(cluster=up.cluster, service="bad", force=True)


def test_what_fits_nowhere_is_an_event_with_the_reason(up):
    create(up, "big", up.register(testbed("sleep", 1, memory=10_000_000)), 1)
    wanted = "was unable to place a task because no container instance met all of its requirements."
    event = until("the event", lambda: next((m for m in messages(up.service("big")) if wanted in m), None))
    assert "has insufficient memory available" in event


def test_draining_an_instance_moves_nothing_else_there(up):
    instance = up.ecs.list_container_instances(cluster=up.cluster)["containerInstanceArns"][0]
    changed = up.ecs.update_container_instances_state(cluster=up.cluster, containerInstances=[instance], status="DRAINING")
    assert changed["containerInstances"][0]["status"] == "DRAINING"
    with pytest.raises(botocore.exceptions.ClientError) as e:
        up.run(up.register(testbed("sleep", 1)))
    assert "No Container Instances were found in your cluster." in str(e.value)
    up.ecs.update_container_instances_state(cluster=up.cluster, containerInstances=[instance], status="ACTIVE")
    up.run(up.register(testbed("sleep", 1)))
