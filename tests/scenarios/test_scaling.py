"""From load to capacity: measured, judged, decided, run, and explained."""

import json
import time

import botocore.exceptions
import pytest

from conftest import testbed, until


def scalable(b, name, low, high):
    aas = b.client("application-autoscaling")
    key = dict(ServiceNamespace="ecs", ResourceId=f"service/{b.cluster}/{name}", ScalableDimension="ecs:service:DesiredCount")
    aas.register_scalable_target(**key, MinCapacity=low, MaxCapacity=high)
    return aas, key


def tracking(aas, key, target=50.0):
    return aas.put_scaling_policy(**key, PolicyName="cpu", PolicyType="TargetTrackingScaling", TargetTrackingScalingPolicyConfiguration={
        "TargetValue": target, "ScaleOutCooldown": 2, "ScaleInCooldown": 2,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution"}})


def test_load_scales_out_within_seconds_and_every_step_is_told(up):
    # 512 units reserved and 450 millicores burnt: 88 % of the reservation, over a target of 50 %.
    definition = up.register(testbed("spin", 450, cpu=512))
    up.ecs.create_service(cluster=up.cluster, serviceName="hot", taskDefinition=definition, desiredCount=1)
    up.stable("hot", 1)
    aas, key = scalable(up, "hot", 1, 2)
    answer = tracking(aas, key)
    assert [a["AlarmName"].split("-")[-6] for a in answer["Alarms"]] == ["AlarmHigh", "AlarmLow"]
    until("scaled out", lambda: up.service("hot")["desiredCount"] > 1, 20)
    until("more tasks run", lambda: up.service("hot")["runningCount"] > 1, 20)
    activity = aas.describe_scaling_activities(ServiceNamespace="ecs", ResourceId=key["ResourceId"])["ScalingActivities"][0]
    assert activity["Cause"].startswith("monitor alarm TargetTracking-service/") and activity["Cause"].endswith("triggered policy cpu")
    assert activity["Description"].startswith("Setting desired count to ")
    alarms = up.client("cloudwatch").describe_alarms(AlarmNamePrefix="TargetTracking")["MetricAlarms"]
    high = next(a for a in alarms if "AlarmHigh" in a["AlarmName"])
    assert high["StateValue"] == "ALARM" and "Threshold Crossed" in high["StateReason"]
    assert (high["Period"], high["EvaluationPeriods"]) == (1, 3)
    said = json.loads(up.cli("why", f"service/{up.cluster}/hot", "--json", "--limit", "100").stdout)
    out = next(d for d in said["decisions"] if d["code"] == "scaled_out")
    assert {"desired", "metric"} & set(out["evidence"]), out
    until("the ceiling is told", lambda: any(
        r["Code"] == "AlreadyAtMaxCapacity"
        for a in aas.describe_scaling_activities(ServiceNamespace="ecs", ResourceId=key["ResourceId"], IncludeNotScaledActivities=True)["ScalingActivities"]
        for r in a.get("NotScaledReasons", [])), 60)


def test_calm_scales_in(up):
    up.ecs.create_service(cluster=up.cluster, serviceName="calm", taskDefinition=up.register(testbed("sleep", 600, cpu=256)), desiredCount=3)
    up.stable("calm", 3)
    aas, key = scalable(up, "calm", 1, 3)
    tracking(aas, key)
    until("scaled in", lambda: up.service("calm")["desiredCount"] < 3, 60)
    until("to the floor", lambda: up.service("calm")["desiredCount"] == 1, 90, every=0.5)


def test_step_scaling_from_an_alarm_on_a_metric_of_one_s_own(up):
    up.ecs.create_service(cluster=up.cluster, serviceName="steps", taskDefinition=up.register(testbed("sleep", 600)), desiredCount=1)
    up.stable("steps", 1)
    aas, key = scalable(up, "steps", 1, 5)
    policy = aas.put_scaling_policy(**key, PolicyName="queue", PolicyType="StepScaling", StepScalingPolicyConfiguration={
        "AdjustmentType": "ChangeInCapacity", "Cooldown": 60, "MetricAggregationType": "Average",
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10, "ScalingAdjustment": 1},
                            {"MetricIntervalLowerBound": 10, "ScalingAdjustment": 3}]})["PolicyARN"]
    cw = up.client("cloudwatch")
    cw.put_metric_alarm(AlarmName="deep-" + up.cluster, Namespace="App", MetricName="Depth", Statistic="Maximum", Period=1, EvaluationPeriods=1,
                        Threshold=100, ComparisonOperator="GreaterThanThreshold", AlarmActions=[policy])

    def feed():
        cw.put_metric_data(Namespace="App", MetricData=[{"MetricName": "Depth", "Value": 115, "StorageResolution": 1}])
        return up.service("steps")["desiredCount"] == 4

    until("three more tasks", feed, 20, every=0.3)
    history = cw.describe_alarm_history(AlarmName="deep-" + up.cluster)["AlarmHistoryItems"]
    assert any(i["HistorySummary"].startswith("Alarm updated from ") for i in history)
    assert any(i["HistorySummary"].startswith("Successfully executed action ") for i in history)


def test_bounds_clamp_at_once(up):
    up.ecs.create_service(cluster=up.cluster, serviceName="b", taskDefinition=up.register(testbed("sleep", 600)), desiredCount=1)
    aas, key = scalable(up, "b", 2, 3)
    until("raised to the minimum", lambda: up.service("b")["desiredCount"] == 2, 10)
    activities = aas.describe_scaling_activities(ServiceNamespace="ecs", ResourceId=key["ResourceId"])["ScalingActivities"]
    assert activities[0]["Cause"] == "minimum capacity was set to 2"


def test_a_metric_that_goes_quiet(up):
    cw = up.client("cloudwatch")
    for name, treat, wanted in (("m", "missing", "INSUFFICIENT_DATA"), ("b", "breaching", "ALARM"), ("n", "notBreaching", "OK")):
        cw.put_metric_alarm(AlarmName=name, Namespace="Quiet", MetricName="X", Statistic="Average", Period=1, EvaluationPeriods=2, Threshold=1,
                            ComparisonOperator="GreaterThanThreshold", TreatMissingData=treat)
        until(f"{treat} {wanted}", lambda: cw.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"] == wanted, 15)


def test_utilisation_is_measured_every_second_by_task_service_and_cluster(up):
    up.ecs.create_service(cluster=up.cluster, serviceName="m", taskDefinition=up.register(testbed("spin", 200, cpu=512)), desiredCount=1)
    up.stable("m", 1)
    cw = up.client("cloudwatch")
    dims = [{"Name": "ClusterName", "Value": up.cluster}, {"Name": "ServiceName", "Value": "m"}]

    def points():
        now = time.time()
        answer = cw.get_metric_data(StartTime=now - 30, EndTime=now, MetricDataQueries=[{"Id": "q", "MetricStat": {
            "Metric": {"Namespace": "AWS/ECS", "MetricName": "CPUUtilization", "Dimensions": dims}, "Period": 1, "Stat": "Average"}}])
        return answer["MetricDataResults"][0]

    got = until("several seconds", lambda: (lambda r: r if len(r["Values"]) >= 5 else None)(points()), 30)
    gaps = [(a - b).total_seconds() for a, b in zip(got["Timestamps"], got["Timestamps"][1:])]
    assert all(g == 1 for g in gaps), gaps
    middle = sorted(got["Values"])[len(got["Values"]) // 2]
    assert 20 < middle < 60, f"200 millicores of 512 units is about 40 %: {got['Values']}"
    names = {tuple(sorted(d["Name"] for d in m["Dimensions"])) for m in cw.list_metrics(Namespace="AWS/ECS", MetricName="CPUUtilization")["Metrics"]}
    assert {("ClusterName",), ("ClusterName", "ServiceName")} <= names
    assert any("TaskId" in n for n in names) and any("ContainerName" in n for n in names)


def test_impossible_targets_are_refused(up):
    aas = up.client("application-autoscaling")
    key = dict(ServiceNamespace="ecs", ResourceId=f"service/{up.cluster}/none", ScalableDimension="ecs:service:DesiredCount")
    with pytest.raises(botocore.exceptions.ClientError) as e:
        aas.register_scalable_target(**key, MinCapacity=1, MaxCapacity=2)
    assert e.value.response["Error"]["Code"] == "ValidationException"
    assert "ECS service doesn't exist" in str(e.value)
