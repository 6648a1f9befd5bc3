"""A service under load scales by one policy; replay and back-test tell it, and what another policy would have made of the same."""

import json
import subprocess
import time
import xml.etree.ElementTree as xml

from conftest import IMAGE, until
from test_load import load
from test_scaling import scalable


def policy(name, target):
    return {"PolicyName": name, "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {
        "TargetValue": target, "ScaleOutCooldown": 5, "ScaleInCooldown": 5,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution"}}}


def test_what_was_decided_is_told_verified_and_tried_otherwise(up, tmp_path):
    target = f"service/{up.cluster}/web"
    web = {"name": "web", "image": IMAGE, "command": ["web", "--cpu-ms", "3"], "cpu": 256, "memory": 64, "portMappings": [{"containerPort": 8080}]}
    up.ecs.create_service(cluster=up.cluster, serviceName="web", taskDefinition=up.register(web), desiredCount=1)
    up.stable("web", 1)
    aas, key = scalable(up, "web", 1, 4)
    aas.put_scaling_policy(**key, **policy("a", 40.0))
    begun = time.time()
    running = load(up, target, "--rate", "70", "--for", "30s", "--timeout", "2s", "--json")
    try:
        until("scaled out", lambda: up.service("web")["desiredCount"] > 1, 30)
        running.communicate(timeout=60)
    finally:
        running.kill()
    until("scaled in again", lambda: up.service("web")["desiredCount"] == 1, 90, every=0.5)
    files = []
    for name, aim in (("a", 40.0), ("b", 80.0)):
        files.append(tmp_path / f"policy-{name}.json")
        files[-1].write_text(json.dumps(policy(name, aim)))
    since = f"{int(time.time() - begun) + 5}s"
    where = ["--service", f"{up.cluster}/web", "--since", since]

    # Over the API, and beside the running server from its files: the same past.
    chart = tmp_path / "web.svg"
    told = json.loads(up.cli("backtest", *map(str, files), *where, "--svg", str(chart), "--json").stdout)
    assert (told["min"], told["max"]) == (1, 4)
    actual, (a, b) = told["actual"], told["policies"]
    assert actual["scale_outs"] >= 1 and actual["scale_ins"] >= 1 and actual["most_tasks"] > 1, actual
    assert a["scale_outs"] >= 1 and a["name"] == "policy-a"
    assert all(1 <= step["tasks"] <= 4 for column in (a, b) for step in column["capacity"])
    assert 0.5 < a["task_hours"] / actual["task_hours"] < 1.5, (a["task_hours"], actual["task_hours"])
    assert b["task_hours"] <= a["task_hours"], "80 % needs no more than 40 %"
    assert any("recorded scale-outs" in note for note in told["assumptions"]), told["assumptions"]
    beside = json.loads(up.cli("backtest", str(files[0]), *where, "--data-dir", str(up.dir / "data"), "--json").stdout)
    assert beside["actual"]["scale_outs"] == actual["scale_outs"]

    # The chart is XML, and every curve is in both panels.
    root = xml.parse(chart).getroot()
    curves = [path.get("data-curve") for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("data-curve")]
    assert sorted(curves) == sorted(["actual", "policy-a", "policy-b"] * 2)
    assert root.find("{http://www.w3.org/2000/svg}title").text == f"Back-test of policy-a, policy-b on {up.cluster}/web"
    text = up.cli("backtest", str(files[0]), *where).stdout
    assert "task-hours" in text and "running tasks, 0 to" in text and "- model linear: " in text, text

    # The ledger by the API, the journal by the files: each decision with its reason, and the same for this version.
    decisions = up.cli("replay", "--service", f"{up.cluster}/web").stdout
    assert " desired 1 -> " in decisions and "target 40" in decisions, decisions
    lines = [json.loads(line) for line in up.cli("replay", str(up.dir / "data"), "--json").stdout.splitlines()]
    commits = [line["revision"] for line in lines if line["kind"] == "commit"]
    assert commits == list(range(1, len(commits) + 1)), "every commit, in order"
    assert any(line["kind"] == "decision" and line["code"] == "scaled_out" for line in lines)
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    for source in ([], [str(up.dir / "data")]):
        verified = json.loads(up.cli("replay", *source, "--verify", "--json").stdout.splitlines()[-1])
        assert verified["same"] >= 2 and verified["otherwise"] == 0 and verified["without_inputs"] == 0, verified

    # Beside what was: the policy that ran agrees in most, the looser one does not.
    rows = [json.loads(line) for line in up.cli("replay", *where, "--policy", str(files[0]), "--json").stdout.splitlines()]
    assert rows and any(row["same"] for row in rows), rows
    rows = [json.loads(line) for line in up.cli("replay", *where, "--policy", str(files[1]), "--json").stdout.splitlines()]
    assert any(row["was"] and not row["same"] for row in rows), rows

    # The files are read as well when nobody runs them, and are left as they were.
    up.stop()
    data = up.dir / "data"
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    ended = [line for line in up.cli("replay", str(data), "--json").stdout.splitlines()]
    assert len(ended) >= len(lines)
    up.cli("backtest", str(files[0]), *where[:2], "--since", "15m", "--data-dir", str(data))
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_what_cannot_be_tried_says_why(up, tmp_path):
    def refused(*args):
        run = up.cli(*args, check=False)
        assert run.returncode == 1 and run.stdout == "", run
        return run.stderr

    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(policy("bad", -1)))
    good = tmp_path / "good.json"
    good.write_text(json.dumps(policy("good", 50)))
    service = ["--service", f"{up.cluster}/none"]
    assert "Target value must be greater than zero: -1" in refused("backtest", str(bad), *service)
    assert "which service is meant is said by nobody" in refused("backtest", str(good))
    assert "is no scalable target" in refused("backtest", str(good), *service)
    assert "nothing is recorded of AWS/ECS CPUUtilization" in refused("backtest", str(good), *service, "--min", "1", "--max", "3")
    assert "15 days" in refused("backtest", str(good), *service, "--since", "30d")
    assert "cannot be read" in refused("replay", str(tmp_path))
    assert "a journal alone holds no metrics" in refused(
        "backtest", str(good), *service, "--min", "1", "--max", "3", "--data-dir", str(up.dir / "data" / "state.sqlite"))


def test_a_reader_that_leaves_early_is_no_failure(up):
    piped = subprocess.run(f"{up.cli.__globals__['BINARY']} replay {up.dir / 'data'} | head -1", shell=True, capture_output=True, text=True, timeout=60)
    assert piped.returncode == 0 and "#1 " in piped.stdout and piped.stderr == "", piped
