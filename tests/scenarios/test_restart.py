"""Ends of every kind: what was acknowledged stands, what survived is adopted, nothing runs twice."""

import os
import random
import signal
import socket
import subprocess
import threading
import time

from conftest import BINARY, docker, testbed, until


def test_tasks_run_on_over_a_clean_stop_and_are_adopted(make):
    b = make().start()
    b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=b.register(testbed("sleep", 600)), desiredCount=2)
    b.stable("web", 2)
    before = {c["Id"]: c["State"]["StartedAt"] for c in b.containers()}
    b.stop()
    assert {c["Id"]: c["State"]["StartedAt"] for c in b.containers()} == before
    b.start()
    b.stable("web", 2)
    assert {c["Id"]: c["State"]["StartedAt"] for c in b.containers()} == before


def test_stop_tasks_on_exit(make):
    b = make("--stop-tasks-on-exit").start()
    b.reach(b.run(b.register(testbed("sleep", 600))), "RUNNING")
    b.stop()
    assert b.containers(all=True) == []


def test_a_container_that_died_while_nobody_looked(make):
    b = make().start()
    arn = b.run(b.register(testbed("sleep", 600)))
    b.reach(arn, "RUNNING")
    b.kill()
    docker("kill", b.containers()[0]["Id"])
    b.start()
    assert b.reach(arn, "STOPPED")["containers"][0]["exitCode"] == 137


def test_kill_minus_nine_at_random_moments_loses_and_doubles_nothing(make):
    rng = random.Random(7)
    b = make().start()
    definition = b.register(testbed("sleep", 600))
    acknowledged = []
    for round in range(4):
        name = f"s{round}"
        b.ecs.create_service(cluster=b.cluster, serviceName=name, taskDefinition=definition, desiredCount=2)
        acknowledged.append(name)
        time.sleep(rng.random() * 0.6)  # The moment of the blow, not a synchronisation.
        b.kill()
        b.start()
        listed = b.ecs.list_services(cluster=b.cluster, maxResults=100)["serviceArns"]
        assert sorted(a.split("/")[-1] for a in listed) == sorted(acknowledged)
    for name in acknowledged:
        b.stable(name, 2)
    until("exactly two each", lambda: len(b.containers()) == 2 * len(acknowledged), 20)
    tasks = [c["Config"]["Labels"]["com.amazonaws.ecs.task-arn"] for c in b.containers()]
    assert len(set(tasks)) == len(tasks), "a task runs twice"


def test_reset_empties_everything(make):
    b = make("--ephemeral").start()
    b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=b.register(testbed("sleep", 600)), desiredCount=2)
    b.stable("web", 2)
    b.post("/api/reset")
    assert b.ecs.list_services(cluster=b.cluster)["serviceArns"] == []
    assert b.ecs.list_task_definitions()["taskDefinitionArns"] == []
    until("its containers stopped", lambda: not b.containers(all=True), 60)
    # And it goes on working.
    b.reach(b.run(b.register(testbed("sleep", 600))), "RUNNING")


def test_two_beauforts_on_one_docker_leave_each_other_alone(make):
    one, two = make().start(), make().start()
    for b in (one, two):
        b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=b.register(testbed("sleep", 600)), desiredCount=2)
        b.stable("web", 2)
    theirs = {c["Id"] for c in two.containers()}
    one.kill()
    one.start()
    one.stable("web", 2)
    one.ecs.delete_service(cluster=one.cluster, service="web", force=True)
    until("one's are gone", lambda: not one.containers(all=True), 30)
    assert {c["Id"] for c in two.containers()} == theirs


class Cuttable:
    """A Docker socket that can be cut: stands between Beaufort and dockerd, so that dockerd itself is left alone."""

    def __init__(self, path):
        self.path, self.cut, self.pairs = path, threading.Event(), []
        self.listen()

    def listen(self):
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen(64)
        threading.Thread(target=self.accept, args=(self.server,), daemon=True).start()

    def accept(self, server):
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect("/var/run/docker.sock")
            self.pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    def carry(self, a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def away(self):
        self.server.close()
        os.unlink(self.path)
        for near, far in self.pairs:
            for s in (near, far):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                s.close()
        self.pairs = []

    back = listen


def test_docker_away_loses_nothing_and_everything_resumes(make, tmp_path):
    docker_socket = Cuttable(str(tmp_path / "docker.sock"))
    b = make(env={"DOCKER_HOST": f"unix://{docker_socket.path}"}).start()
    check = {"command": ["CMD", "/beaufort", "testbed", "exit", "0"], "interval": 5, "timeout": 3}
    b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=b.register(testbed("sleep", 600, healthCheck=check)), desiredCount=2)
    b.stable("web", 2)

    def health():
        tasks = b.ecs.describe_tasks(cluster=b.cluster, tasks=b.ecs.list_tasks(cluster=b.cluster)["taskArns"])["tasks"]
        return {(t["lastStatus"], t["healthStatus"]) for t in tasks}

    until("healthy", lambda: health() == {("RUNNING", "HEALTHY")}, 30)
    before = {c["Id"] for c in b.containers()}
    docker_socket.away()
    # The API goes on; what cannot be known is called unknown, not lost.
    until("Docker is told to be away", lambda: " 0" in next(l for l in b.get("/metrics").splitlines() if l.startswith("beaufort_instance_docker_up")), 30)
    assert b.service("web")["runningCount"] == 2
    assert health() == {("RUNNING", "UNKNOWN")}
    b.ecs.update_service(cluster=b.cluster, service="web", desiredCount=3)
    docker_socket.back()
    b.stable("web", 3, within=60)
    until("Docker is told to be back", lambda: " 1" in next(l for l in b.get("/metrics").splitlines() if l.startswith("beaufort_instance_docker_up")), 30)
    until("healthy again", lambda: health() == {("RUNNING", "HEALTHY")}, 30)
    assert before <= {c["Id"] for c in b.containers()}


def test_an_agent_behind_the_link(make):
    server = make("--agent-token", "secret-of-agents", command="serve")
    server.start(wait=False)
    until("the API", lambda: _up(server), 10)
    agents = []
    try:
        for zone in ("a", "b"):
            args = [BINARY, "agent", "--join", server.url, "--token", "secret-of-agents", "--cluster", server.cluster, "--zone", zone,
                    "--attribute", f"rack={zone}", "--data-dir", str(server.dir / f"agent-{zone}")]
            agents.append(subprocess.Popen(args, stdout=server.log, stderr=server.log))
        until("both registered", lambda: len(server.ecs.list_container_instances(cluster=server.cluster)["containerInstanceArns"]) == 2, 20)
        server.ecs.create_service(cluster=server.cluster, serviceName="web", taskDefinition=server.register(testbed("sleep", 600)), desiredCount=4)
        server.stable("web", 4)
        arns = server.ecs.list_tasks(cluster=server.cluster)["taskArns"]
        tasks = server.ecs.describe_tasks(cluster=server.cluster, tasks=arns)["tasks"]
        spread = [t["containerInstanceArn"] for t in tasks]
        assert sorted(spread.count(i) for i in set(spread)) == [2, 2], "spread over zones"
        racked = server.run(server.register(testbed("sleep", 600)), placementConstraints=[{"type": "memberOf", "expression": "attribute:rack == b"}])
        rack = server.reach(racked, "RUNNING")["containerInstanceArn"]
        attributes = server.ecs.describe_container_instances(cluster=server.cluster, containerInstances=[rack])["containerInstances"][0]["attributes"]
        assert {"name": "rack", "value": "b"}.items() <= next(a for a in attributes if a["name"] == "rack").items()
        # One agent is restarted: its containers run on and are adopted.
        before = {c["Id"] for c in server.containers()}
        agents[0].kill()
        agents[0].wait()
        args = agents[0].args
        agents[0] = subprocess.Popen(args, stdout=server.log, stderr=server.log)
        until("connected again", lambda: all(i["agentConnected"] for i in server.ecs.describe_container_instances(
            cluster=server.cluster, containerInstances=server.ecs.list_container_instances(cluster=server.cluster)["containerInstanceArns"])["containerInstances"]), 30)
        server.stable("web", 4)
        assert before == {c["Id"] for c in server.containers()}
        # The server is restarted: the agents come back by themselves.
        server.kill()
        server.start(wait=False)
        until("the API", lambda: _up(server), 10)
        until("both again", lambda: server.get("/health")["container_instances_connected"] == 2, 40)
        server.stable("web", 4)
        assert before == {c["Id"] for c in server.containers()}
    finally:
        for agent in agents:
            agent.send_signal(signal.SIGTERM)
            agent.wait(timeout=20)
        server.installations |= {(server.dir / f"agent-{zone}" / "agent-id").read_text().strip() for zone in ("a", "b")}


def test_a_wrong_token_is_told_so(make):
    server = make("--agent-token", "secret-of-agents", command="serve")
    server.start(wait=False)
    until("the API", lambda: _up(server), 10)
    run = subprocess.Popen([BINARY, "agent", "--join", server.url, "--token", "wrong-but-long", "--cluster", server.cluster, "--data-dir",
                            str(server.dir / "agent")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = ""
        while "token" not in said:
            line = run.stdout.readline()
            assert line, f"it ended without a word about the token: {said}"
            said += line
    finally:
        run.kill()
        run.wait()


def _up(b):
    try:
        return b.get("/health")["status"] == "ok"
    except OSError:
        return False
