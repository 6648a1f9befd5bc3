"""What nobody should do, and somebody will: wrong flags, damaged disks, absent daemons, impossible numbers, noise on every wire."""

import asyncio
import base64
import http.client
import json
import os
import random
import resource
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request

import botocore.exceptions
import pytest

from conftest import BINARY, free_port, testbed, until

ECS = "AmazonEC2ContainerServiceV20141113"
JSON = "application/x-amz-json-1.1"
FORM = "application/x-www-form-urlencoded; charset=utf-8"
CBOR = {"Smithy-Protocol": "rpc-v2-cbor", "Content-Type": "application/cbor", "Accept": "application/cbor"}
CLOUDWATCH = "/service/GraniteServiceVersion20100801/operation/"
DOCKER_SOCKET = "/var/run/docker.sock"


def refused(b, *flags):
    """A start that must fail at once: what it said on standard error."""
    args = [BINARY, "up", *flags]
    if "--cluster" not in flags:
        args += ["--cluster", b.cluster]
    if "--listen" not in flags:
        args += ["--listen", f"127.0.0.1:{b.port}"]
    run = subprocess.run([*args, "--data-dir", str(b.dir / "data")], capture_output=True, text=True, timeout=30)
    assert run.returncode == 1, f"{run.returncode}: {run.stdout}{run.stderr}"
    assert "panicked" not in run.stderr
    return run.stderr


def ask(b, body=b"", headers=None, path="/", method="POST", connection=None):
    """One request as it is: status, headers, body."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", b.port, timeout=30)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def lives(b):
    assert b.process.poll() is None, b.tail()
    assert b.get("/health")["status"] == "ok"
    assert "panicked" not in b.tail(2000), b.tail()


# Starts that must not succeed.


def test_an_address_that_others_reach_can_be_permitted(make):
    beaufort = make("--allow-unauthenticated")
    beaufort.listen = f"0.0.0.0:{beaufort.port}"
    beaufort.start()
    assert beaufort.get("/health")["status"] == "ok"
    assert "whoever reaches this address can run containers here" in beaufort.tail(100)


@pytest.mark.parametrize("address", ["0.0.0.0:4577", "[::]:4577", "192.0.2.1:4577"])
def test_an_address_that_others_reach_is_refused(make, address):
    said = refused(make(), "--listen", address)
    assert f"--listen {address} is open to the network, and clients are not authenticated" in said and "--allow-unauthenticated" in said
    assert "Listen on 127.0.0.1 (the default) and let a proxy or an SSH tunnel bring others in" in said


def test_a_port_in_use(make):
    b = make()
    with socket.create_server(("127.0.0.1", b.port)):
        said = refused(b)
    assert f"127.0.0.1:{b.port} cannot be listened on: end what uses the port, or choose another with --listen" in said


@pytest.mark.parametrize("flags, said", [
    (["--account-id", "12"], "not twelve digits"),
    (["--region", "no region!"], "is no region name"),
    (["--cluster", "no cluster!"], "is no cluster name"),
    (["--agent-token", "short"], "the agent token is shorter than 8 characters"),
])
def test_flags_that_cannot_be(make, flags, said):
    assert said in refused(make(), *flags)


def test_a_data_directory_that_is_a_file_or_cannot_be_written(make):
    b = make()
    (b.dir / "data").write_text("not a directory")
    assert "cannot be opened" in refused(b)


def test_garbage_in_place_of_the_state(make):
    b = make()
    (b.dir / "data").mkdir()
    (b.dir / "data" / "state.sqlite").write_bytes(random.Random(1).randbytes(64 << 10))
    assert "the state database is damaged" in (said := refused(b)) and "restore a backup" in said


def stopped_with_state(make):
    b = make().start()
    b.ecs.create_cluster(clusterName="kept")
    b.register(testbed("sleep", 1), family="kept")
    b.stop()
    return b


def test_a_state_with_a_damaged_middle(make):
    b = stopped_with_state(make)
    with open(b.dir / "data" / "state.sqlite", "r+b") as f:
        # The pages' heads, not the file's: a file that opens and cannot be read.
        for page in range(1, os.fstat(f.fileno()).st_size // 4096):
            f.seek(page * 4096)
            f.write(random.Random(page).randbytes(64))
    assert "the state database is damaged" in refused(b)


def test_a_row_that_is_no_json(make):
    b = stopped_with_state(make)
    with sqlite3.connect(b.dir / "data" / "state.sqlite") as db:
        db.execute("UPDATE rows SET row = '{' WHERE kind = 'cluster'")
    db.close()
    said = refused(b)
    assert "the row cluster" in said and "its checksum differs" in said and "restore a backup" in said


def test_a_state_of_a_newer_version(make):
    b = stopped_with_state(make)
    with sqlite3.connect(b.dir / "data" / "state.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert "of a newer version (99)" in (said := refused(b)) and "start the newer binary" in said


def test_two_servers_on_one_directory(up, make):
    second = make()
    args = [BINARY, "up", "--listen", f"127.0.0.1:{second.port}", "--cluster", second.cluster, "--data-dir", str(up.dir / "data")]
    run = subprocess.run(args, capture_output=True, text=True, timeout=30)
    assert run.returncode == 1 and "is in use by another Beaufort: end that one, or choose another --data-dir" in run.stderr
    lives(up)


def test_torn_tails_of_metrics_and_logs_are_survived(make):
    b = make().start()
    awslogs = {"logDriver": "awslogs", "options": {"awslogs-group": "/torn", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "t",
                                                   "awslogs-create-group": "true"}}
    b.reach(b.run(b.register(testbed("print", 20, logConfiguration=awslogs))), "STOPPED")
    cw, now = b.client("cloudwatch"), time.time() // 1
    cw.put_metric_data(Namespace="Torn", MetricData=[{"MetricName": "X", "Value": v, "StorageResolution": 1, "Timestamp": now - v} for v in range(1, 51)])

    def points():
        got = b.client("cloudwatch").get_metric_statistics(Namespace="Torn", MetricName="X", StartTime=now - 60, EndTime=now + 1, Period=1, Statistics=["Sum"])
        return len(got["Datapoints"])

    def lines():
        logs = b.client("logs")
        streams = logs.describe_log_streams(logGroupName="/torn")["logStreams"]
        return sum(len(logs.get_log_events(logGroupName="/torn", logStreamName=s["logStreamName"], startFromHead=True)["events"]) for s in streams)

    assert points() == 50
    until("the lines are stored", lambda: lines() == 20)
    b.kill()
    tails = sorted((b.dir / "data").glob("*/wal-*"))
    assert {t.parent.name for t in tails} == {"metrics", "logs"}, tails
    for n, tail in enumerate(tails):
        with open(tail, "ab") as f:
            f.write(random.Random(n).randbytes(777))
    b.start()
    assert (points(), lines()) == (50, 20)
    cw = b.client("cloudwatch")
    cw.put_metric_data(Namespace="Torn", MetricData=[{"MetricName": "X", "Value": 51, "StorageResolution": 1, "Timestamp": now - 51}])
    b.kill()
    b.start()
    assert (points(), lines()) == (51, 20), "what was written after the torn tail stands, too"


def test_docker_that_is_not_there_yet(make):
    b = make()
    there = b.dir / "docker.sock"
    b.env = {"DOCKER_HOST": f"unix://{there}"}
    b.start(wait=False)

    def health():
        try:
            with urllib.request.urlopen(b.url + "/health", timeout=5) as answer:
                return answer.status, json.loads(answer.read())["status"]
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read())["status"]
        except OSError:
            return None

    assert until("it answers", health, 20) == (503, "starting")
    until("it says what to do", lambda: "Docker cannot be used yet" in b.tail() and "--docker-host or DOCKER_HOST" in b.tail(), 20)
    # The API is whole already: what is asked for now runs as soon as it can.
    b.ecs.create_service(cluster=b.cluster, serviceName="early", taskDefinition=b.register(testbed("sleep", 600)), desiredCount=1)
    assert b.service("early")["runningCount"] == 0
    said = b.cli("health", check=False)
    assert said.returncode == 1 and "Docker does not answer" in said.stdout
    os.symlink(DOCKER_SOCKET, there)
    assert until("it comes to life", lambda: (lambda h: h if h == (200, "ok") else None)(health()), 40) == (200, "ok")
    b.stable("early", 1)
    assert "Docker answers now" in b.tail(50)


# Impossible requests.


def container(**more):
    return {"name": "main", "image": "x", "memory": 32, **more}


@pytest.mark.parametrize("call", [
    lambda b, d: b.ecs.create_service(cluster=b.cluster, serviceName="s", taskDefinition=d, desiredCount=-1),
    lambda b, d: b.ecs.create_service(cluster=b.cluster, serviceName="s", taskDefinition=d, desiredCount=2**31 - 1),
    lambda b, d: b.ecs.create_service(cluster=b.cluster, serviceName="s", taskDefinition=d, desiredCount=2**70),
    lambda b, d: b.ecs.create_service(cluster=b.cluster, serviceName="s" * 300, taskDefinition=d, desiredCount=1),
    lambda b, d: b.ecs.create_service(cluster=b.cluster, serviceName="s", taskDefinition=d, desiredCount=1,
                                      deploymentConfiguration={"maximumPercent": 100, "minimumHealthyPercent": 101}),
    lambda b, d: b.ecs.create_service(cluster=b.cluster, serviceName="s", taskDefinition="none", desiredCount=1),
    lambda b, d: b.ecs.create_service(cluster="none", serviceName="s", taskDefinition=d, desiredCount=1),
    lambda b, d: b.ecs.run_task(cluster=b.cluster, taskDefinition=d, count=0),
    lambda b, d: b.ecs.run_task(cluster=b.cluster, taskDefinition=d, count=-3),
    lambda b, d: b.ecs.run_task(cluster=b.cluster, taskDefinition=f"{d.split(':')[0]}:99999999999"),
    lambda b, d: b.ecs.run_task(cluster=b.cluster, taskDefinition=f"{d.split(':')[0]}:-1"),
    lambda b, d: b.ecs.register_task_definition(family="f", containerDefinitions=[container(memory=0)]),
    lambda b, d: b.ecs.register_task_definition(family="f", containerDefinitions=[container(memory=-1)]),
    lambda b, d: b.ecs.register_task_definition(family="f", containerDefinitions=[container(memory=2**40)]),
    lambda b, d: b.ecs.register_task_definition(family="f", containerDefinitions=[container(cpu=-1)]),
    lambda b, d: b.ecs.register_task_definition(family="f", containerDefinitions=[container(portMappings=[{"containerPort": 70000}])]),
    lambda b, d: b.ecs.register_task_definition(family="f", containerDefinitions=[]),
    lambda b, d: b.ecs.register_task_definition(family="f", containerDefinitions=[container(), container()]),
    lambda b, d: b.ecs.register_task_definition(family="f", cpu="many", memory="512", containerDefinitions=[container()]),
    lambda b, d: b.client("cloudwatch").put_metric_data(Namespace="N", MetricData=[{"MetricName": "X", "Value": float("nan")}]),
    lambda b, d: b.client("cloudwatch").put_metric_data(Namespace="N", MetricData=[{"MetricName": "X", "Value": 1e300 * 1e300}]),
    lambda b, d: b.client("cloudwatch").put_metric_alarm(AlarmName="a", Namespace="N", MetricName="X", Statistic="Sum", Period=7, EvaluationPeriods=1,
                                                         Threshold=1, ComparisonOperator="GreaterThanThreshold"),
    lambda b, d: b.client("cloudwatch").put_metric_alarm(AlarmName="a", Namespace="N", MetricName="X", Statistic="Sum", Period=60,
                                                         EvaluationPeriods=10**6, Threshold=1, ComparisonOperator="GreaterThanThreshold"),
    lambda b, d: b.client("logs").get_log_events(logGroupName="/none", logStreamName="none"),
])
def test_impossible_requests_are_the_client_s_error(shared, call):
    with pytest.raises(botocore.exceptions.ClientError) as e:
        call(shared, shared.definition)
    answer = e.value.response
    assert 400 <= answer["ResponseMetadata"]["HTTPStatusCode"] < 500, answer
    assert answer["Error"]["Code"] and answer["Error"]["Message"], answer
    lives(shared)


@pytest.fixture(scope="module")
def shared():
    """One server for the many refusals: none of them leaves anything behind."""
    import shutil
    import tempfile

    from conftest import Beaufort

    tmp = tempfile.mkdtemp(prefix="beaufort-scenario-")
    b = Beaufort(tmp).start()
    b.definition = b.register(testbed("sleep", 600))
    # boto3 would refuse most of these itself.
    plain = b.client
    b.client = lambda service, **more: plain(service, parameter_validation=False, **more)
    yield b
    b.stop()
    b.clean()
    shutil.rmtree(tmp, ignore_errors=True)


def test_an_image_that_does_not_exist(up):
    arn = up.run(up.register({"name": "main", "image": "beaufort/there-is-none:7", "memory": 32}))
    task = up.reach(arn, "STOPPED", 60)
    assert task["stopCode"] == "TaskFailedToStart" and "CannotPullContainerError" in task["stoppedReason"] + task["containers"][0].get("reason", "")
    lives(up)


def test_more_memory_than_there_is_waits_and_says_so(up):
    up.ecs.create_service(cluster=up.cluster, serviceName="big", taskDefinition=up.register(testbed("sleep", 1, memory=1 << 20)), desiredCount=1)
    until("an event", lambda: any("memory" in e["message"].lower() for e in up.service("big")["events"]), 20)
    assert up.service("big")["runningCount"] == 0
    lives(up)


# Noise on the wire.

UNKNOWN = [
    ({"X-Amz-Target": f"{ECS}.MakeCoffee", "Content-Type": JSON}, "/", b"{}"),
    ({"X-Amz-Target": "GraniteServiceVersion20100801.MakeCoffee", "Content-Type": "application/x-amz-json-1.0"}, "/", b"{}"),
    ({"X-Amz-Target": "NoSuchService.MakeCoffee", "Content-Type": JSON}, "/", b"{}"),
    ({"X-Amz-Target": "", "Content-Type": JSON}, "/", b"{}"),
    ({"Content-Type": FORM}, "/", b"Action=MakeCoffee&Version=2010-08-01"),
    ({"Content-Type": FORM}, "/", b"Version=2010-08-01"),
    (CBOR, CLOUDWATCH + "MakeCoffee", b"\xa0"),
    (CBOR, "/service/NoSuch/operation/MakeCoffee", b"\xa0"),
    (CBOR, "/", b"\xa0"),
]


@pytest.mark.parametrize("headers, path, body", UNKNOWN)
def test_unknown_operations_get_the_protocol_s_own_error(shared, headers, path, body):
    status, answer, text = ask(shared, body, headers, path)
    assert 400 <= status < 500 and answer["x-amzn-requestid"]
    if headers is CBOR:
        assert answer["content-type"] == "application/cbor" and answer["smithy-protocol"] == "rpc-v2-cbor"
        assert b"UnknownOperationException" in text
    elif "X-Amz-Target" in headers:
        assert answer["content-type"] == headers["Content-Type"]
        assert json.loads(text)["__type"] == "UnknownOperationException"
    else:
        assert answer["content-type"].startswith("text/xml") and b"<ErrorResponse" in text and b"<Code>InvalidAction</Code>" in text
    lives(shared)


@pytest.mark.parametrize("method, path, statuses", [
    ("GET", "/", {400, 404}), ("GET", "/nothing/here", {400, 404}), ("GET", "/api/nothing", {404}), ("POST", "/health", {405}), ("DELETE", "/api/gaps", {405}),
    ("GET", "/api/why", {400}), ("GET", "/api/why?subject=service/none", {404}), ("GET", "/api/decisions?limit=many", {400}),
    ("GET", "/api/decisions?limit=-1", {400}), ("POST", "/api/reset", {400, 403, 404, 409}), ("POST", "/api/why/placement", {400}), ("PUT", "/metrics", {400, 404, 405}),
    ("GET", "/%00%ff%2e%2e/", {400, 404}), ("GET", "/" + "a" * 8000, {400, 404, 414}), ("GET", "/agent/v1/link", {400, 403, 404, 426}),
    ("OPTIONS", "*", {400, 404}), ("BREW", "/", {400, 404, 405}),
])
def test_wrong_paths(shared, method, path, statuses):
    status, _, body = ask(shared, b"", {}, path, method)
    assert status in statuses, (status, body)
    lives(shared)


def test_too_large_a_body_is_refused_and_its_connection_lives(shared):
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=30)
    for headers, path in (({"X-Amz-Target": f"{ECS}.ListClusters", "Content-Type": JSON}, "/"), ({"Content-Type": FORM}, "/"), (CBOR, CLOUDWATCH + "PutMetricData")):
        status, _, body = ask(shared, b" " * ((8 << 20) + 1), headers, path, connection=connection)
        assert status == 413 and b"RequestEntityTooLarge" in body, (status, body[:200])
        here = connection.sock.getsockname()
        status, _, body = ask(shared, b"{}", {"X-Amz-Target": f"{ECS}.ListClusters", "Content-Type": JSON}, connection=connection)
        assert status == 200 and json.loads(body)["clusterArns"]
        assert connection.sock.getsockname() == here, "it was not the same connection"
    lives(shared)


def test_a_small_body_that_unpacks_to_a_huge_one(shared):
    import gzip

    bomb = gzip.compress(b" " * (64 << 20))
    assert len(bomb) < 100_000
    headers = {"X-Amz-Target": f"{ECS}.ListClusters", "Content-Type": JSON, "Content-Encoding": "gzip"}
    assert ask(shared, bomb, headers)[0] == 413
    assert ask(shared, b"not gzip", headers)[0] == 400
    assert ask(shared, bomb[:1000], headers)[0] in (400, 413)
    lives(shared)


VALID = [
    ({"X-Amz-Target": f"{ECS}.RegisterTaskDefinition", "Content-Type": JSON}, "/",
     b'{"family":"f","containerDefinitions":[{"name":"a","image":"b","memory":32,"portMappings":[{"containerPort":80}],"ulimits":[]}]}'),
    ({"X-Amz-Target": f"{ECS}.CreateService", "Content-Type": JSON}, "/", b'{"cluster":"none","serviceName":"s","taskDefinition":"f:1","desiredCount":1}'),
    ({"X-Amz-Target": "AnyScaleFrontendService.PutScalingPolicy", "Content-Type": JSON}, "/",
     b'{"ServiceNamespace":"ecs","ResourceId":"service/a/b","ScalableDimension":"ecs:service:DesiredCount","PolicyName":"p","PolicyType":"StepScaling"}'),
    ({"X-Amz-Target": "Logs_20140328.GetLogEvents", "Content-Type": JSON}, "/", b'{"logGroupName":"g","logStreamName":"s","startTime":1,"limit":10}'),
    ({"X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData", "Content-Type": "application/x-amz-json-1.0"}, "/",
     b'{"Namespace":"N","MetricData":[{"MetricName":"X","Value":1.5,"Dimensions":[{"Name":"a","Value":"b"}]}]}'),
    ({"Content-Type": FORM}, "/", b"Action=PutMetricData&Version=2010-08-01&Namespace=N&MetricData.member.1.MetricName=X&MetricData.member.1.Value=1.5"),
    ({"Content-Type": FORM}, "/", b"Action=GetCallerIdentity&Version=2011-06-15"),
    (CBOR, CLOUDWATCH + "PutMetricData",
     b"\xa2\x69Namespace\x61N\x6aMetricData\x81\xa2\x6aMetricName\x61X\x65Value\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"),
    (CBOR, CLOUDWATCH + "ListMetrics", b"\xbf\x69Namespace\x7f\x61N\xff\xff"),
]


def broken(rng, body):
    """A body that was cut, doubled, flipped, filled or replaced."""
    how = rng.randrange(6)
    if how == 0:
        return body[:rng.randrange(len(body))]
    if how == 1:
        return rng.randbytes(rng.randrange(1, 400))
    if how == 2:
        at = rng.randrange(len(body))
        return body[:at] + rng.randbytes(rng.randrange(1, 9)) + body[at:]
    if how == 3:
        return body * rng.randrange(2, 5)
    if how == 4:
        at = rng.randrange(len(body))
        return body[:at] + rng.choice([b"[" * 5000, b"\x9f" * 5000, b"9" * 400, b"-1e999", b"\xff" * 50, b"null", b"&a.member.999999999=1", b"\xdb" + b"\xff" * 8]) + body[at:]
    flipped = bytearray(body)
    for _ in range(rng.randrange(1, 6)):
        flipped[rng.randrange(len(flipped))] = rng.randrange(256)
    return bytes(flipped)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_malformed_bodies_over_all_protocols(shared, seed):
    rng = random.Random(seed)
    for n in range(200):
        headers, path, body = rng.choice(VALID)
        body = broken(rng, body)
        status, _, answer = ask(shared, body, headers, path)
        assert status < 500, f"seed {seed}, request {n}: {path} {headers} {body!r} -> {status} {answer[:300]!r}"
    lives(shared)


def test_noise_in_place_of_http(shared):
    rng = random.Random(4)
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                  b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n",
                  *(rng.randbytes(300) for _ in range(20))):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as s:
            try:
                s.sendall(noise)
                s.shutdown(socket.SHUT_WR)
                while s.recv(4096):
                    pass
            except OSError:
                # It may have hung up already, and should.
                pass
    lives(shared)


def test_two_thousand_requests_at_once(up):
    at_once, (soft, hard) = 2000, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < at_once + 200:
        if hard != resource.RLIM_INFINITY and hard < at_once + 200:
            pytest.skip(f"only {hard} descriptors are allowed here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (at_once + 200, hard))
    arn = up.ecs.describe_clusters(clusters=[up.cluster])["clusters"][0]["clusterArn"]

    async def one(n):
        # Every other one writes.
        operation, body = ("ListClusters", {}) if n % 2 else ("TagResource", {"resourceArn": arn, "tags": [{"key": f"k{n % 40}", "value": str(n)}]})
        body = json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        writer.write(f"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: {ECS}.{operation}\r\nContent-Type: {JSON}\r\n"
                     f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        await writer.drain()
        # Each has begun before any is whole.
        begun.append(n)
        if len(begun) == at_once:
            all_begun.set()
        await all_begun.wait()
        writer.write(body)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1])

    async def many():
        return await asyncio.wait_for(asyncio.gather(*(one(n) for n in range(at_once)), return_exceptions=True), 120)

    begun, all_begun = [], asyncio.Event()
    statuses = asyncio.run(many())
    odd = [s for s in statuses if s != 200]
    assert not odd, (len(odd), odd[:5])
    lives(up)


# The agents' link.


def link(b, token=None, headers=""):
    """An upgraded socket, or the refusal's status."""
    s = socket.create_connection(("127.0.0.1", b.port), timeout=10)
    key = base64.b64encode(os.urandom(16)).decode()
    said = f"Authorization: Bearer {token}\r\n" if token else ""
    s.sendall(f"GET /agent/v1/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
              f"Sec-WebSocket-Key: {key}\r\n{said}{headers}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        got = s.recv(4096)
        assert got, head
        head += got
    return s, int(head.split(b" ", 2)[1])


def frame(opcode, payload, length=None):
    """A masked frame; `length` to lie about it."""
    length = len(payload) if length is None else length
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | length]) if length < 126 else bytes([0x80 | 126]) + length.to_bytes(2, "big") if length < 1 << 16 else bytes([0x80 | 127]) + length.to_bytes(8, "big")
    mask = os.urandom(4)
    return head + mask + bytes(c ^ mask[n % 4] for n, c in enumerate(payload))


def ends(s):
    """The server closes within the socket's timeout."""
    with s:
        try:
            while s.recv(4096):
                pass
        except ConnectionError:
            pass


def test_agents_that_are_none(make, shared):
    s, status = link(shared, "whatever-it-is")
    s.close()
    assert status == 403, "this one takes no agents"
    b = make("--agent-token", "a-secret-token").start()
    for token in (None, "wrong-secret-token", "a-secret-toke", "a-secret-token2"):
        s, status = link(b, token)
        s.close()
        assert status == 401, token
    for garbage in (frame(1, b"hello"), frame(1, b"{}"), frame(1, b'{"type":"hello"}'), frame(1, b"[" * 10_000), frame(1, b"null"), frame(1, b"\xff\xfe"),
                    frame(1, b"", 17 << 20), frame(1, b"", 1 << 62), b"\x81\x05hello", b"\xff" * 64, frame(15, b"x"), frame(1, b"{")[:4]):
        s, status = link(b, "a-secret-token")
        assert status == 101
        s.sendall(garbage)
        if len(garbage) == 4:
            # The rest of this frame never comes.
            s.shutdown(socket.SHUT_WR)
        ends(s)
    # Frames that carry nothing of ours are passed over, and a talker that only pings is no agent.
    s, status = link(b, "a-secret-token")
    s.sendall(frame(9, b"ping") + frame(2, b"\x00\x01"))
    s.close()
    lives(b)
    assert b.get("/health")["container_instances_connected"] == 1
