"""`beaufort apply`: what files ask for is made once, changed where it differs, and left alone otherwise."""

import copy
import json

from conftest import testbed

SHOP = {
    "taskDefinitions": [
        {"family": "shop", "tags": [{"key": "team", "value": "b"}, {"key": "app", "value": "shop"}], "containerDefinitions": [testbed(
            "http", 8080, name="web", portMappings=[{"containerPort": 8080}], environment=[{"name": "B", "value": "1"}, {"name": "A", "value": "2"}],
            dockerLabels={"prometheus.io/port": "8080"}, stopTimeout=2, ulimits=[{"name": "nofile", "softLimit": 64, "hardLimit": 64}],
            logConfiguration={"logDriver": "awslogs", "options": {"awslogs-group": "/shop", "awslogs-create-group": "true"}})]},
        # Whatever of a definition the server completes: none of it may look like a difference.
        {"family": "many", "networkMode": "awsvpc", "cpu": "256", "memory": "512", "requiresCompatibilities": ["FARGATE", "EC2"],
         "volumes": [{"name": "v"}], "containerDefinitions": [
            testbed("sleep", 60, name="one", portMappings=[{"containerPort": 80, "protocol": "tcp"}], mountPoints=[{"sourceVolume": "v", "containerPath": "/v"}],
                    healthCheck={"command": ["CMD", "/beaufort", "testbed", "exit", "0"]}, restartPolicy={"enabled": True}),
            testbed("sleep", 60, name="two", essential=False, dependsOn=[{"containerName": "one", "condition": "START"}],
                    linuxParameters={"initProcessEnabled": True, "tmpfs": [{"containerPath": "/t", "size": 1}]})]},
    ],
    "services": [{"serviceName": "web", "taskDefinition": "shop", "desiredCount": 1, "tags": [{"key": "k", "value": "v"}],
                  "deploymentConfiguration": {"minimumHealthyPercent": 100, "maximumPercent": 200},
                  "placementStrategy": [{"type": "spread", "field": "instanceId"}]}],
    "scalableTargets": [{"ResourceId": "service/CLUSTER/web", "MinCapacity": 1, "MaxCapacity": 4}],
    "scalingPolicies": [
        {"PolicyName": "out", "ResourceId": "service/CLUSTER/web", "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": {
            "AdjustmentType": "ChangeInCapacity", "Cooldown": 5, "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]}},
        {"PolicyName": "cpu", "ResourceId": "service/CLUSTER/web", "PolicyType": "TargetTrackingScaling",
         "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 50, "ScaleInCooldown": 60, "PredefinedMetricSpecification": {
             "PredefinedMetricType": "ECSServiceAverageCPUUtilization"}}},
    ],
    "alarms": [{"AlarmName": "busy", "Namespace": "Shop", "MetricName": "Orders", "Statistic": "Average", "Period": 60,
                "EvaluationPeriods": 2, "Threshold": 100, "ComparisonOperator": "GreaterThanThreshold",
                "Dimensions": [{"Name": "Service", "Value": "web"}, {"Name": "Cluster", "Value": "c"}], "AlarmActions": ["policy:out"]}],
}


def shop(b):
    return json.loads(json.dumps(SHOP).replace("CLUSTER", b.cluster))


def apply(b, tmp_path, document, *flags, check=True):
    file = tmp_path / "shop.json"
    file.write_text(json.dumps(document))
    return b.cli("apply", str(file), *flags, check=check)


def outcomes(b, tmp_path, document, *flags):
    told = json.loads(apply(b, tmp_path, document, "--json", *flags).stdout)
    return {f"{one['kind']} {one['name']}".replace(b.cluster, "C"): one["outcome"] for one in told["done"]}


EVERYTHING = ["taskDefinitions shop", "taskDefinitions many", "services C/web", "scalableTargets service/C/web",
              "scalingPolicies service/C/web:out", "scalingPolicies service/C/web:cpu", "alarms busy"]


def test_applied_twice_nothing_changes(up, tmp_path):
    b, document = up, shop(up)
    dry = outcomes(b, tmp_path, document, "--dry-run")
    assert dry == dict.fromkeys(EVERYTHING, "created")
    assert b.ecs.list_task_definitions()["taskDefinitionArns"] == [], "a dry run does nothing"
    said = apply(b, tmp_path, document, "--wait", "--timeout", "60s").stdout
    assert f"service          {b.cluster}/web created" in said and f"{b.cluster}/web steady after" in said, said
    assert b.service("web")["runningCount"] == 1
    assert outcomes(b, tmp_path, document) == dict.fromkeys(EVERYTHING, "unchanged")
    assert [arn.split("/")[-1] for arn in b.ecs.list_task_definitions()["taskDefinitionArns"]] == ["many:1", "shop:1"]
    policy = b.client("application-autoscaling").describe_scaling_policies(ServiceNamespace="ecs", PolicyNames=["out"])["ScalingPolicies"][0]
    alarm = b.client("cloudwatch").describe_alarms(AlarmNames=["busy"])["MetricAlarms"][0]
    assert alarm["AlarmActions"] == [policy["PolicyARN"]], "policy:out is its ARN"
    assert b.get("/api/gaps")["unknown"] == []


def test_what_differs_is_changed_and_only_that(up, tmp_path):
    b, document = up, shop(up)
    apply(b, tmp_path, document, "--wait")
    # Policies have set the count meanwhile: that stays.
    b.ecs.update_service(cluster=b.cluster, service="web", desiredCount=2)
    changed = copy.deepcopy(document)
    changed["taskDefinitions"][0]["containerDefinitions"][0]["environment"][0]["value"] = "other"
    changed["services"][0]["deploymentConfiguration"]["maximumPercent"] = 150
    changed["services"][0]["tags"].append({"key": "new", "value": "1"})
    changed["scalableTargets"][0]["MaxCapacity"] = 6
    changed["scalingPolicies"][1]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] = 60
    changed["alarms"][0]["Threshold"] = 200
    different = ["taskDefinitions shop", "services C/web", "scalableTargets service/C/web", "scalingPolicies service/C/web:cpu", "alarms busy"]
    expected = {name: "updated" if name in different else "unchanged" for name in EVERYTHING}
    assert outcomes(b, tmp_path, changed, "--dry-run") == expected
    assert b.service("web")["taskDefinition"].endswith("shop:1")
    assert outcomes(b, tmp_path, changed, "--wait") == expected
    service = b.ecs.describe_services(cluster=b.cluster, services=["web"], include=["TAGS"])["services"][0]
    assert service["taskDefinition"].endswith("shop:2") and service["desiredCount"] == 2
    assert service["deploymentConfiguration"]["maximumPercent"] == 150
    assert {t["key"] for t in service["tags"]} == {"k", "new"}
    assert outcomes(b, tmp_path, changed) == dict.fromkeys(EVERYTHING, "unchanged")


def test_what_cannot_be_is_told_before_anything_is_done(up, tmp_path):
    b = up

    def refused(change):
        document = shop(b)
        change(document)
        run = apply(b, tmp_path, document, check=False)
        assert run.returncode == 1 and run.stdout == "", run.stdout
        return run.stderr

    def typo(document):
        document["taskDefinitions"][1]["containerDefinitions"][0]["imgae"] = "x"

    assert "shop.json: taskDefinitions[1].containerDefinitions[0].imgae is no member that Beaufort knows" in refused(typo)
    assert "policy:up means a scaling policy that is in no file" in refused(lambda d: d["alarms"][0].update(AlarmActions=["policy:up"]))
    assert "tasks is not known here" in refused(lambda d: d.update(tasks=[]))
    assert b.ecs.list_task_definitions()["taskDefinitionArns"] == []
    missing = b.cli("apply", str(tmp_path / "none.json"), check=False)
    assert missing.returncode == 1 and "none.json cannot be read" in missing.stderr
    # What only the server can know is told with the thing's name, and what came before it is done.
    document = {"services": [{"serviceName": "web", "taskDefinition": "nowhere"}]}
    run = apply(b, tmp_path, document, check=False)
    assert run.returncode == 1 and f"service {b.cluster}/web" in run.stderr and "there is no task definition nowhere" in run.stderr, run.stderr


def test_waiting_has_a_bound(up, tmp_path):
    document = {"taskDefinitions": [{"family": "big", "containerDefinitions": [testbed("sleep", 60, memory=10_000_000)]}],
                "services": [{"serviceName": "web", "taskDefinition": "big", "desiredCount": 1}]}
    run = apply(up, tmp_path, document, "--wait", "--timeout", "1s", check=False)
    assert run.returncode == 1 and "has 0 of 1 tasks running" in run.stderr and "beaufort why service/" in run.stderr, run.stderr
