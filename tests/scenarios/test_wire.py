"""Clients that exist, unchanged: the newest boto3 (JSON), an old one (query), aws-cli; and what none of them would send."""

import datetime
import json
import os
import socket
import subprocess
import sys

import botocore.exceptions
import pytest

from conftest import BINARY, ROOT, testbed, until

OLD = ROOT / ".venv-old" / "bin" / "python"
AWS = ROOT / ".venv" / "bin" / "aws"


def aws(b, *args):
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    run = subprocess.run([str(AWS), "--endpoint-url", b.url, "--output", "json", *args], capture_output=True, text=True, env=env, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout) if run.stdout.strip() else None


def test_what_grafanas_cloudwatch_source_asks_before_it_shows_anything(up):
    """Its health check, its variables and its cross-account question, all at one endpoint."""
    b = up
    assert b.client("cloudwatch").list_metrics(Namespace="AWS/Billing", MetricName="EstimatedCharges")["Metrics"] == []
    assert b.client("logs").describe_log_groups(limit=1)["logGroups"] == []
    assert b.client("sts").get_caller_identity()["Account"] == "000000000000"
    oam = b.client("oam")
    answer = oam.list_sinks()
    assert answer["Items"] == [] and "NextToken" not in answer
    assert list(oam.get_paginator("list_sinks").paginate(PaginationConfig={"PageSize": 5}))[0]["Items"] == []
    with pytest.raises(botocore.exceptions.ClientError) as error:
        oam.list_sinks(NextToken="made-up")
    assert error.value.response["Error"]["Code"] == "InvalidParameterException"
    # Regions it asks of EC2, and goes on with those that it knows when it is refused.
    with pytest.raises(botocore.exceptions.ClientError) as error:
        b.client("ec2").describe_regions()
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 404)


def test_aws_cli_from_cluster_to_service(up):
    assert aws(up, "sts", "get-caller-identity")["Account"] == "000000000000"
    aws(up, "ecs", "create-cluster", "--cluster-name", "other")
    containers = json.dumps([testbed("sleep", 600)])
    revision = aws(up, "ecs", "register-task-definition", "--family", "cli", "--container-definitions", containers)
    assert revision["taskDefinition"]["revision"] == 1
    aws(up, "ecs", "create-service", "--cluster", up.cluster, "--service-name", "web", "--task-definition", "cli", "--desired-count", "1")
    aws(up, "ecs", "wait", "services-stable", "--cluster", up.cluster, "--services", "web")
    task = aws(up, "ecs", "list-tasks", "--cluster", up.cluster, "--service-name", "web")["taskArns"][0]
    aws(up, "ecs", "stop-task", "--cluster", up.cluster, "--task", task)
    aws(up, "ecs", "wait", "tasks-stopped", "--cluster", up.cluster, "--tasks", task)
    aws(up, "cloudwatch", "put-metric-data", "--namespace", "Cli", "--metric-name", "X", "--value", "4.5")
    until("listed", lambda: aws(up, "cloudwatch", "list-metrics", "--namespace", "Cli")["Metrics"])


def test_the_query_protocol_of_an_old_botocore(up):
    program = f"""
import boto3, datetime, json
import botocore
assert botocore.__version__ < "1.42", botocore.__version__
cw = boto3.client("cloudwatch", endpoint_url="{up.url}", region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t")
sent = []
cw.meta.events.register("before-send.cloudwatch", lambda request, **k: sent.append(request.headers["Content-Type"]))
now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
cw.put_metric_data(Namespace="Old", MetricData=[dict(MetricName="X", Dimensions=[dict(Name="a", Value="b")], Value=0.1, Timestamp=now, StorageResolution=1)])
got = cw.get_metric_statistics(Namespace="Old", MetricName="X", Dimensions=[dict(Name="a", Value="b")], StartTime=now, EndTime=now + datetime.timedelta(seconds=1), Period=1, Statistics=["Average"])
assert [p["Average"] for p in got["Datapoints"]] == [0.1], got
cw.put_metric_alarm(AlarmName="q", Namespace="Old", MetricName="X", Statistic="Average", Period=60, EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold")
assert cw.describe_alarms(AlarmNames=["q"])["MetricAlarms"][0]["AlarmName"] == "q"
try:
    cw.set_alarm_state(AlarmName="no", StateValue="OK", StateReason="x")
    raise SystemExit("no error")
except cw.exceptions.ResourceNotFound:
    pass
cw.delete_alarms(AlarmNames=["q"])
assert all("x-www-form-urlencoded" in (t.decode() if isinstance(t, bytes) else t) for t in sent), sent
print("ok")
"""
    run = subprocess.run([str(OLD), "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and "ok" in run.stdout, run.stderr


def test_the_newest_boto3_round_trips_exactly(up):
    cw = up.client("cloudwatch")
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    values = [0.1 + i * 1e-9 for i in range(200)]
    data = [{"MetricName": "V", "Value": v, "StorageResolution": 1, "Timestamp": now - datetime.timedelta(seconds=i)} for i, v in enumerate(values)]
    cw.put_metric_data(Namespace="New", MetricData=data)
    answer = cw.get_metric_data(StartTime=now - datetime.timedelta(seconds=300), EndTime=now + datetime.timedelta(seconds=1), ScanBy="TimestampDescending",
                                MetricDataQueries=[{"Id": "v", "MetricStat": {"Metric": {"Namespace": "New", "MetricName": "V"}, "Period": 1, "Stat": "Sum"}}])
    assert answer["MetricDataResults"][0]["Values"] == values
    with pytest.raises(cw.exceptions.ResourceNotFound):
        cw.set_alarm_state(AlarmName="no", StateValue="OK", StateReason="x")


@pytest.mark.parametrize("call, code", [
    (lambda b: b.ecs.describe_services(cluster="nope", services=["x"]), "ClusterNotFoundException"),
    (lambda b: b.ecs.run_task(cluster=b.cluster, taskDefinition="nope"), "ClientException|InvalidParameterException"),
    (lambda b: b.ecs.stop_task(cluster=b.cluster, task="0" * 32), "InvalidParameterException"),
    (lambda b: b.ecs.update_service(cluster=b.cluster, service="nope", desiredCount=1), "ServiceNotFoundException"),
    (lambda b: b.ecs.run_task(cluster=b.cluster, taskDefinition="x", count=11), "InvalidParameterException|ClientException"),
    (lambda b: b.ecs.create_service(cluster=b.cluster, serviceName="x", taskDefinition=b.register(testbed("exit", 0)), desiredCount=-1), "InvalidParameterException"),
    (lambda b: b.ecs.register_task_definition(family="bad name!", containerDefinitions=[testbed("exit", 0)]), "ClientException"),
    (lambda b: b.ecs.describe_task_sets(cluster=b.cluster, service="x"), "UnknownOperationException"),
])
def test_errors_have_aws_s_codes(up, call, code):
    with pytest.raises(botocore.exceptions.ClientError) as e:
        call(up)
    assert e.value.response["Error"]["Code"] in code.split("|"), e.value.response


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"clusters": 7}', b'{"clusters": ["' + b"x" * 100_000 + b'"]}', b"[" * 100_000])
def test_malformed_bodies_are_refused_and_harm_nothing(up, body):
    import urllib.error

    headers = {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.DescribeClusters", "Content-Type": "application/x-amz-json-1.1"}
    try:
        up.post("/", body, headers)
    except urllib.error.HTTPError as e:
        assert e.code in (400, 413), e.code
        assert json.loads(e.read())["__type"]
    assert up.get("/health")["status"] == "ok"


def test_a_body_that_breaks_off_is_no_request(up):
    with socket.create_connection(("127.0.0.1", up.port)) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonEC2ContainerServiceV20141113.CreateCluster\r\n"
                  b"Content-Type: application/x-amz-json-1.1\r\nContent-Length: 1000\r\n\r\n{\"clusterName\": \"half\"")
        s.shutdown(socket.SHUT_WR)
        s.recv(1000)
    assert not any("half" in a for a in up.ecs.list_clusters()["clusterArns"])


def test_unsupported_fields_are_accepted_counted_and_listed(up):
    log = {"logDriver": "awslogs", "options": {"awslogs-group": "/g", "mode": "non-blocking"}}
    up.register(testbed("exit", 0, logConfiguration=log), taskRoleArn="arn:aws:iam::000000000000:role/x")
    up.ecs.create_service(cluster=up.cluster, serviceName="g", taskDefinition=up.register(testbed("sleep", 1)), desiredCount=0,
                          deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": True}})
    gaps = json.dumps(up.get("/api/gaps"))
    assert "deploymentCircuitBreaker" in gaps and "taskRoleArn" in gaps
    assert "containerDefinitions.logConfiguration.options" in gaps

