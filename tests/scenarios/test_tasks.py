"""RunTask and StopTask on real Docker: what a task definition says is what runs, and how a task ended is told in AWS's words."""

import json

import botocore.exceptions
import pytest

from conftest import answers, testbed, until


def test_a_task_runs_to_its_end_and_says_how_it_ended(up):
    arn = up.run(up.register(testbed("exit", 3)))
    task = up.reach(arn, "STOPPED")
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["stoppedReason"] == "Essential container in task exited"
    assert task["containers"][0]["exitCode"] == 3
    assert task["desiredStatus"] == "STOPPED"
    for stamp in ("createdAt", "startedAt", "executionStoppedAt", "stoppedAt"):
        assert stamp in task, stamp


def test_stop_is_sigterm_with_grace_then_sigkill(up):
    polite = up.run(up.register(testbed("sleep", 600)))
    stubborn = up.run(up.register(testbed("ignore-term", stopTimeout=2)))
    up.reach(polite, "RUNNING")
    up.reach(stubborn, "RUNNING")
    answer = up.ecs.stop_task(cluster=up.cluster, task=polite, reason="enough")["task"]
    assert (answer["desiredStatus"], answer["stopCode"], answer["stoppedReason"]) == ("STOPPED", "UserInitiated", "enough")
    up.ecs.stop_task(cluster=up.cluster, task=stubborn)
    assert up.reach(stubborn, "STOPPED")["containers"][0]["exitCode"] == 137
    ended = up.reach(polite, "STOPPED")
    assert ended["containers"][0]["exitCode"] in (0, 143)
    assert up.task(stubborn)["stoppedReason"] == "Task stopped by user"


def test_an_image_that_cannot_be_had(up):
    arn = up.run(up.register({"name": "main", "image": "registry.invalid/none:1", "memory": 32}))
    task = up.reach(arn, "STOPPED", within=60)
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["containers"][0]["reason"].startswith("CannotPullContainerError: ")
    assert "exitCode" not in task["containers"][0]


def test_limits_environment_user_and_directory_reach_docker(up):
    definition = up.register(
        testbed("sleep", 600, cpu=512, memory=64, memoryReservation=48, user="1000:1000", workingDirectory="/tmp",
                environment=[{"name": "A", "value": "b"}], ulimits=[{"name": "nofile", "softLimit": 100, "hardLimit": 200}],
                linuxParameters={"capabilities": {"drop": ["NET_RAW"]}, "initProcessEnabled": True}, readonlyRootFilesystem=True,
                dockerLabels={"mine": "yes"}))
    arn = up.run(definition)
    up.reach(arn, "RUNNING")
    row = up.containers()[0]
    host, config = row["HostConfig"], row["Config"]
    assert (host["CpuShares"], host["Memory"], host["MemoryReservation"]) == (512, 64 << 20, 48 << 20)
    assert (config["User"], config["WorkingDir"]) == ("1000:1000", "/tmp")
    assert "A=b" in config["Env"]
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert (host["Init"], host["ReadonlyRootfs"], host["CapDrop"]) == (True, True, ["NET_RAW"])
    labels = config["Labels"]
    assert labels["mine"] == "yes"
    assert labels["com.amazonaws.ecs.task-arn"] == arn
    assert labels["com.amazonaws.ecs.container-name"] == "main"
    assert labels["com.amazonaws.ecs.task-definition-family"] == definition.split(":")[0]
    assert row["Name"].startswith(f"/ecs-{definition.replace(':', '-')}-main-")


def test_overrides(up):
    arn = up.run(up.register(testbed("sleep", 600)), overrides={"containerOverrides": [
        {"name": "main", "command": ["testbed", "exit", "7"], "environment": [{"name": "X", "value": "1"}]}]}, startedBy="me", group="g")
    task = up.reach(arn, "STOPPED")
    assert task["containers"][0]["exitCode"] == 7
    assert (task["startedBy"], task["group"]) == ("me", "g")
    with pytest.raises(botocore.exceptions.ClientError) as e:
        up.run(up.register(testbed("sleep", 1)), overrides={"containerOverrides": [{"name": "no", "command": ["x"]}]})
    assert "Override for container named no is not a container in the TaskDefinition." in str(e.value)


def test_bridge_ports_are_dynamic_and_answer(up):
    definition = up.register(testbed("http", 8080, portMappings=[{"containerPort": 8080}]))
    for arn in [up.run(definition), up.run(definition)]:
        binding = up.reach(arn, "RUNNING")["containers"][0]["networkBindings"][0]
        assert binding["containerPort"] == 8080 and binding["hostPort"] != 8080
        assert answers(f"http://127.0.0.1:{binding['hostPort']}/") == 200


def test_a_port_in_use_fails_the_task_and_harms_nothing(up):
    definition = up.register(testbed("http", 8080, portMappings=[{"containerPort": 8080, "hostPort": up.port}]))
    task = up.reach(up.run(definition), "STOPPED")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["containers"][0]["reason"].startswith("CannotStartContainerError: ")
    assert up.get("/health")["status"] == "ok"


def test_two_awsvpc_tasks_listen_on_the_same_port(up):
    definition = up.register(testbed("http", 8080, portMappings=[{"containerPort": 8080}]), networkMode="awsvpc")
    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
    arns = [up.run(definition, networkConfiguration=network) for _ in range(2)]
    addresses = set()
    for arn in arns:
        task = up.reach(arn, "RUNNING")
        address = task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
        addresses.add(address)
        assert answers(f"http://{address}:8080/") == 200
    assert len(addresses) == 2


@pytest.mark.parametrize("mode", ["host", "none"])
def test_network_modes_of_the_host_and_of_nobody(up, mode):
    arn = up.run(up.register(testbed("sleep", 600), networkMode=mode))
    up.reach(arn, "RUNNING")
    assert up.containers()[0]["HostConfig"]["NetworkMode"] == mode


def test_dependencies_start_in_order_and_an_essential_exit_stops_the_rest(up):
    arn = up.run(up.register(
        testbed("exit", 0, name="migrate", essential=False),
        testbed("sleep", 600, name="side", essential=False, dependsOn=[{"containerName": "main", "condition": "START"}]),
        testbed("sleep", 2, name="main", dependsOn=[{"containerName": "migrate", "condition": "SUCCESS"}])))
    task = up.reach(arn, "STOPPED")
    assert task["stopCode"] == "EssentialContainerExited"
    codes = {c["name"]: c.get("exitCode") for c in task["containers"]}
    assert codes["migrate"] == 0 and codes["main"] == 0 and codes["side"] in (0, 137, 143)


def test_a_failed_dependency_ends_the_task(up):
    arn = up.run(up.register(
        testbed("exit", 1, name="migrate", essential=False),
        testbed("sleep", 600, name="main", dependsOn=[{"containerName": "migrate", "condition": "SUCCESS"}])))
    task = up.reach(arn, "STOPPED")
    main = next(c for c in task["containers"] if c["name"] == "main")
    assert "exitCode" not in main and task["stopCode"] == "TaskFailedToStart"


def test_health_is_docker_s_word(up):
    healthy = up.run(up.register(testbed("sleep", 600, healthCheck={
        "command": ["CMD", "/beaufort", "testbed", "exit", "0"], "interval": 5, "timeout": 2, "retries": 1})))
    sick = up.run(up.register(testbed("sleep", 600, healthCheck={
        "command": ["CMD", "/beaufort", "testbed", "exit", "1"], "interval": 5, "timeout": 2, "retries": 1})))
    assert up.reach(healthy, "RUNNING")["healthStatus"] == "UNKNOWN"
    until("healthy", lambda: up.task(healthy)["healthStatus"] == "HEALTHY", 20)
    until("unhealthy", lambda: up.task(sick)["healthStatus"] == "UNHEALTHY", 20)
    # An unhealthy standalone task is not stopped (task_definition_parameters, health check).
    assert up.task(sick)["lastStatus"] == "RUNNING"


def test_volumes_are_shared_inside_a_task(up, tmp_path):
    (tmp_path / "in").write_text("x")
    arn = up.run(up.register(
        testbed("sleep", 600, name="a", mountPoints=[{"sourceVolume": "scratch", "containerPath": "/s"},
                                                     {"sourceVolume": "host", "containerPath": "/h", "readOnly": True}]),
        testbed("sleep", 600, name="b", mountPoints=[{"sourceVolume": "scratch", "containerPath": "/t"}]),
        volumes=[{"name": "scratch"}, {"name": "host", "host": {"sourcePath": str(tmp_path)}}]))
    up.reach(arn, "RUNNING")
    mounts = {row["Config"]["Labels"]["com.amazonaws.ecs.container-name"]: row["Mounts"] for row in up.containers()}
    scratch = {m["Destination"]: m["Name"] for ms in mounts.values() for m in ms if m["Type"] == "volume"}
    assert scratch["/s"] == scratch["/t"]
    bind = next(m for m in mounts["a"] if m["Destination"] == "/h")
    assert (bind["Source"], bind["RW"]) == (str(tmp_path), False)


def test_a_restart_policy_starts_the_same_container_again(up):
    # The shortest period that ECS allows is 60 s: a container that ends before it has run that long is not restarted.
    arn = up.run(up.register(testbed("exit", 1, restartPolicy={"enabled": True, "restartAttemptPeriod": 60})))
    task = up.reach(arn, "STOPPED")
    assert task["containers"][0]["exitCode"] == 1


def test_out_of_memory_is_said(up):
    arn = up.run(up.register(testbed("hold", 200, memory=32)))
    container = up.reach(arn, "STOPPED")["containers"][0]
    assert container["exitCode"] == 137
    assert container["reason"] == "OutOfMemoryError: Container killed due to memory usage"


def test_a_task_that_fits_nowhere_says_which_filter(up):
    definition = up.register(testbed("sleep", 1, memory=10_000_000))
    answer = up.ecs.run_task(cluster=up.cluster, taskDefinition=definition)
    assert answer["tasks"] == [] and answer["failures"][0]["reason"] == "RESOURCE:MEMORY"
    said = up.cli("why", "placement", definition, "--json", check=False)
    assert said.returncode == 1, "a task that would not be placed is a no"
    outcome = json.loads(said.stdout)["outcomes"][0]
    assert outcome["placed"] is False and "memory" in outcome["reason"]


def test_nothing_is_left_on_docker_when_a_task_is_over(up):
    arn = up.run(up.register(testbed("exit", 0), volumes=[{"name": "v"}]))
    up.reach(arn, "STOPPED")
    until("its containers removed", lambda: not up.containers(all=True), 20)
