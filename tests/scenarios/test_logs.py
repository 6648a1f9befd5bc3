"""Lines of real containers in Beaufort's own log store: in order, none lost, none twice."""

import pytest

from conftest import testbed, until


def awslogs(group, **more):
    return {"logDriver": "awslogs", "options": {"awslogs-group": group, "awslogs-region": "us-east-1", "awslogs-create-group": "true",
                                                "awslogs-stream-prefix": "app", **more}}


def read_all(logs, group, stream):
    lines, token = [], None
    while True:
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **({"nextToken": token} if token else {}))
        lines += [e["message"] for e in page["events"]]
        if page["nextForwardToken"] == token:
            return lines
        token = page["nextForwardToken"]


def test_the_last_line_of_a_short_task_is_there(up):
    arn = up.run(up.register(testbed("print", 3, logConfiguration=awslogs("/t/short"))))
    up.reach(arn, "STOPPED")
    logs, stream = up.client("logs"), "app/main/" + arn.split("/")[-1]
    lines = until("three lines", lambda: (lambda l: l if len(l) == 3 else None)(read_all(logs, "/t/short", stream)), 10)
    assert [l.split()[1] for l in lines] == ["1", "2", "3"]
    said = up.cli("logs", f"task/{arn.split('/')[-1]}").stdout
    assert all(l.strip() in said for l in lines)


def test_two_hundred_thousand_lines_each_once_and_in_order(up):
    count = 200_000
    arn = up.run(up.register(testbed("print", count, memory=64, logConfiguration=awslogs("/t/flood"))))
    up.reach(arn, "STOPPED", within=60)
    logs, stream = up.client("logs"), "app/main/" + arn.split("/")[-1]
    until("the last line", lambda: (lambda e: e and e[0]["message"].split()[1] == str(count))(
        logs.get_log_events(logGroupName="/t/flood", logStreamName=stream, limit=1)["events"]), 30)
    lines = read_all(logs, "/t/flood", stream)
    assert len(lines) == count
    assert [int(l.split()[1]) for l in lines] == list(range(1, count + 1))


def test_lines_go_on_where_they_were_after_a_kill(make):
    b = make().start()
    arn = b.run(b.register(testbed("drip", 200, 20, logConfiguration=awslogs("/t/drip"))))
    stream = "app/main/" + arn.split("/")[-1]
    until("some lines", lambda: _count(b, stream) > 10, 20)
    b.kill()
    b.start()
    until("all lines", lambda: _count(b, stream) >= 200, 40)
    lines = read_all(b.client("logs"), "/t/drip", stream)
    assert [int(l.split()[1]) for l in lines] == list(range(1, 201))


def _count(b, stream):
    try:
        return len(read_all(b.client("logs"), "/t/drip", stream))
    except b.client("logs").exceptions.ResourceNotFoundException:
        return 0


def test_a_group_that_is_missing_is_made_only_when_asked(up):
    logs = up.client("logs")
    options = awslogs("/t/never")
    del options["options"]["awslogs-create-group"]
    arn = up.run(up.register(testbed("print", 1, logConfiguration=options)))
    up.reach(arn, "STOPPED")
    assert logs.describe_log_groups(logGroupNamePrefix="/t/never")["logGroups"] == []
    logs.create_log_group(logGroupName="/t/never")
    stream = "app/main/" + arn.split("/")[-1]
    until("the line that waited", lambda: any(s["logStreamName"] == stream for s in logs.describe_log_streams(logGroupName="/t/never")["logStreams"]), 60)


def test_filter_and_put_by_hand(up):
    import time

    logs = up.client("logs")
    logs.create_log_group(logGroupName="g")
    logs.create_log_stream(logGroupName="g", logStreamName="s")
    now = int(time.time() * 1000)
    logs.put_log_events(logGroupName="g", logStreamName="s",
                        logEvents=[{"timestamp": now, "message": "ERROR one"}, {"timestamp": now + 1, "message": "fine"}])
    found = logs.filter_log_events(logGroupName="g", filterPattern="ERROR")["events"]
    assert [e["message"] for e in found] == ["ERROR one"]
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.get_log_events(logGroupName="g", logStreamName="no")


def test_other_drivers_are_docker_s_own(up):
    arn = up.run(up.register(testbed("sleep", 60, logConfiguration={"logDriver": "json-file", "options": {"max-size": "1m"}})))
    up.reach(arn, "RUNNING")
    log = up.containers()[0]["HostConfig"]["LogConfig"]
    assert (log["Type"], log["Config"]["max-size"]) == ("json-file", "1m")
