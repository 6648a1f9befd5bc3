"""Looks from outside, at the API and at Docker, whether what was promised holds."""

import collections
import json
import threading
import time

from ledger import ABSENT
from world import Api, Breach, Docker, Doubt, Refused, until

DRIP_GROUP = "/crash/drip"
SETTLE = 120.0


def chunks(values, size):
    values = list(values)
    return [values[i:i + size] for i in range(0, len(values), size)]


class Watcher(threading.Thread):
    """At every instant, whatever happens: of one task and container name at most one container lives."""

    def __init__(self, world, every=0.25):
        super().__init__(daemon=True, name="watcher")
        self.world, self.every = world, every
        self.docker = Docker(world.docker.path)
        self.over = threading.Event()
        self.looks, self.most, self.twice, self.trouble = 0, 0, [], 0

    def run(self):
        while not self.over.wait(self.every):
            try:
                rows = self.docker.containers(self.world.label)
            except (OSError, RuntimeError, ValueError):
                self.trouble += 1
                continue
            self.looks += 1
            self.most = max(self.most, len(rows))
            self.twice += twice(rows)

    def end(self):
        self.over.set()
        self.join(timeout=30)


def identity(row):
    labels = row["Labels"]
    return labels.get("com.amazonaws.ecs.task-arn"), labels.get("com.amazonaws.ecs.container-name")


def twice(rows):
    count = collections.Counter(identity(r) for r in rows)
    return [who for who, n in count.items() if n > 1]


class Judge:
    def __init__(self, world, driver):
        self.world, self.driver, self.ledger = world, driver, driver.ledger
        self.api = Api(world, again=True)
        self.reads = collections.Counter()
        # What was waited for when it last was not settled.
        self.waiting = ""
        # Where each stream was read up to: a token that was given before a crash must lead on after it.
        self.tokens, self.dripped, self.put_seen = {}, collections.Counter(), collections.defaultdict(set)

    def fail(self, what):
        raise Breach(what)

    def expect(self, key, value):
        allowed = self.ledger.of(key)
        self.reads[key[0]] += 1
        if not self.ledger.seen(key, value):
            self.fail(f"{key} is {value!r}; what was acknowledged, or in doubt, is {allowed}")

    def quick(self):
        """What was acknowledged, by the API alone. The clients are on hold."""
        for look in (self.services, self.definitions, self.alarms, self.scaling, self.tags, self.groups, self.put_lines, self.points, self.tasks):
            look()
        if self.driver.refusals:
            self.fail(f"refused without a reason that the ledger knows: {self.driver.refusals[0]}")

    def services(self):
        keys = self.ledger.keys("service")
        # What was deleted stays so; the newest of those are looked at again.
        keys = [k for k in keys if self.ledger.of(k) != {ABSENT}] + [k for k in keys if self.ledger.of(k) == {ABSENT}][-10:]
        for some in chunks(keys, 10):
            answer = self.api.ecs("DescribeServices", services=[k[2] for k in some])
            found = {s["serviceName"]: s for s in answer["services"] if s["status"] == "ACTIVE"}
            for key in some:
                s = found.get(key[2])
                self.expect(key, (s["desiredCount"], s["taskDefinition"].split("/")[-1]) if s else ABSENT)

    def definitions(self):
        for family in sorted({k[2].split("/")[0] for k in self.ledger.keys("definition")}):
            arns, token = [], None
            while True:
                answer = self.api.call("ecs", "ListTaskDefinitions", familyPrefix=family, **({"nextToken": token} if token else {}))
                arns += [a.split("/")[-1] for a in answer["taskDefinitionArns"]]
                token = answer.get("nextToken")
                if not token:
                    break
            if len(set(arns)) != len(arns):
                self.fail(f"a revision of {family} is listed twice: {arns}")
            for name in arns:
                if name in self.driver.revisions and self.reads[name]:
                    continue
                told = self.api.call("ecs", "DescribeTaskDefinition", taskDefinition=name)["taskDefinition"]
                mark = int(told["containerDefinitions"][0]["environment"][0]["value"])
                owner = int(family[1:].split("-")[0])
                key = ("definition", owner, f"{family}/{mark}")
                known = self.driver.revisions.get(name)
                if known and known != (key, mark):
                    self.fail(f"{name} was acknowledged as {known} and is {mark}")
                self.expect(key, mark)
                self.driver.revisions[name] = (key, mark)
                self.reads[name] += 1
            missing = [n for n, _ in self.driver.revisions.items() if n.split(":")[0] == family and n not in arns]
            if missing:
                self.fail(f"acknowledged revisions are gone: {missing}")
            # What was in doubt and is not there was not made.
            for key in self.ledger.keys("definition"):
                if key[2].split("/")[0] == family and self.ledger.doubtful(key):
                    self.expect(key, ABSENT)

    def alarms(self):
        for some in chunks(self.ledger.keys("alarm"), 100):
            answer = self.api.call("cloudwatch", "DescribeAlarms", AlarmNames=[k[2] for k in some], MaxRecords=100)
            found = {a["AlarmName"]: a["Threshold"] for a in answer["MetricAlarms"]}
            for key in some:
                self.expect(key, found.get(key[2], ABSENT))

    def scaling(self):
        for kind, operation, list_name, of in (("target", "DescribeScalableTargets", "ScalableTargets", lambda t: t["MaxCapacity"]),
                                               ("policy", "DescribeScalingPolicies", "ScalingPolicies",
                                                lambda p: p["StepScalingPolicyConfiguration"]["Cooldown"])):
            for key in self.ledger.keys(kind):
                service = ("service", key[1], key[2])
                if self.ledger.of(service) == {ABSENT}:
                    # Its target goes with the service, in its own time.
                    self.ledger.forget(key)
                    continue
                resource = f"service/{self.world.cluster}/{key[2]}"
                filters = {"ResourceIds": [resource]} if kind == "target" else {"ResourceId": resource}
                answer = self.api.call("scaling", operation, ServiceNamespace="ecs", **filters)
                found = [of(row) for row in answer[list_name]]
                if len(found) > 1:
                    self.fail(f"{key} is there {len(found)} times")
                self.expect(key, found[0] if found else ABSENT)

    def tags(self):
        for key in self.ledger.keys("tag"):
            tags = self.api.call("ecs", "ListTagsForResource", resourceArn=key[2])["tags"]
            self.expect(key, next((t["value"] for t in tags if t["key"] == "mark"), ABSENT))

    def groups(self):
        keys = self.ledger.keys("group")
        groups = {g["logGroupName"]: g for g in self.api.call("logs", "DescribeLogGroups", logGroupNamePrefix="/crash/")["logGroups"]}
        for key in keys:
            self.expect(key, True if key[2] in groups else ABSENT)
        for key in self.ledger.keys("retention"):
            self.expect(key, groups.get(key[2], {}).get("retentionInDays", ABSENT))
        for key in self.ledger.keys("stream"):
            group = f"/crash/{key[1]}"
            there = group in groups and self.api.call("logs", "DescribeLogStreams", logGroupName=group)["logStreams"]
            self.expect(key, True if there else ABSENT)

    def read_on(self, group, stream):
        """Messages since the last look, in order."""
        found, token = [], self.tokens.get((group, stream))
        while True:
            answer = self.api.call("logs", "GetLogEvents", logGroupName=group, logStreamName=stream, startFromHead=True, **({"nextToken": token} if token else {}))
            found += [e["message"] for e in answer["events"]]
            if answer["nextForwardToken"] == token or not answer["events"]:
                break
            token = answer["nextForwardToken"]
        if token:
            self.tokens[(group, stream)] = token
        return found

    def put_lines(self):
        for client in self.driver.clients:
            if self.ledger.value(("stream", client.owner, "stream")) is ABSENT:
                continue
            got = collections.defaultdict(list)
            for message in self.read_on(client.log_group, "stream"):
                batch, n, _, lines = message.split()
                got[int(batch)].append((int(n), int(lines)))
            for batch, lines in got.items():
                total = lines[0][1]
                if [n for n, _ in lines] != list(range(total)):
                    self.fail(f"batch {batch} of client {client.owner} was stored as {lines}")
                if batch in self.put_seen[client.owner]:
                    self.fail(f"batch {batch} of client {client.owner} was stored twice")
                self.put_seen[client.owner].add(batch)
            for key in self.ledger.keys("lines", client.owner):
                if key[2] in self.put_seen[client.owner]:
                    if key[2] in got:
                        self.expect(key, got[key[2]][0][1])
                else:
                    self.expect(key, ABSENT)

    def points(self, everything=False):
        for client in self.driver.clients:
            keys = sorted(k for k in self.ledger.keys("point", client.owner))
            keys = keys if everything else keys[-1_200:]
            for some in chunks(keys, 1_200):
                first, last = some[0][2], some[-1][2]
                answer = self.api.call("cloudwatch", "GetMetricStatistics", Namespace=f"Crash/{client.owner}", MetricName="X", StartTime=first,
                                       EndTime=last + 1, Period=1, Statistics=["Sum", "SampleCount"])
                found = {}
                for point in answer["Datapoints"]:
                    if point["SampleCount"] != 1:
                        self.fail(f"a point of client {client.owner} was stored {point['SampleCount']} times: {point}")
                    found[seconds(point["Timestamp"])] = point["Sum"]
                for key in some:
                    self.expect(key, found.get(key[2], ABSENT))

    def tasks(self):
        for key in self.ledger.keys("task"):
            marker, allowed = key[2], self.ledger.of(key)
            client, definition = self.driver.asked[marker]
            if allowed == {"STOPPED"} and self.reads[marker]:
                continue
            arns = self.tasks_of(marker)
            if len(arns) > 1:
                self.fail(f"RunTask of {marker} made {len(arns)} tasks: {arns}")
            if arns and client.task_arns.setdefault(marker, arns[0]) != arns[0]:
                self.fail(f"the task of {marker} was {client.task_arns[marker]} and is {arns[0]}")
            wanted = self.api.ecs("DescribeTasks", tasks=arns)["tasks"][0]["desiredStatus"] if arns else ABSENT
            self.expect(key, wanted)
            if ABSENT in allowed and len(allowed) > 1:
                # The answer never came, so the client asks again, as every SDK does: that must not run it twice.
                client.run_task(marker, definition)
                arns = self.tasks_of(marker)
                if len(arns) > 1:
                    self.fail(f"RunTask of {marker} asked again with the same clientToken made {len(arns)} tasks: {arns}")
            if wanted == "STOPPED":
                self.reads[marker] += 1

    def tasks_of(self, marker):
        return [arn for status in ("RUNNING", "STOPPED")
                for arn in self.api.ecs("ListTasks", startedBy=marker, desiredStatus=status)["taskArns"]]

    # What needs time: desired equals running, nothing is left over.

    def settle(self, within=SETTLE):
        began = time.monotonic()
        try:
            until("desired equals running, in the API and on Docker", self.settled, within, 0.2)
        except TimeoutError as e:
            raise Breach(f"{e}; {self.waiting}") from None
        took = time.monotonic() - began
        self.quick()
        self.points(everything=True)
        self.drip()
        self.metrics()
        return took

    def settled(self):
        """Whether nothing is still to come; what is stands in `waiting`."""
        listed = [arn for some in self.pages("ListServices", "serviceArns") for arn in some]
        for some in chunks(listed, 10):
            for s in self.api.ecs("DescribeServices", services=some)["services"]:
                if s["runningCount"] != s["desiredCount"] or s["pendingCount"] or len(s["deployments"]) > 1:
                    self.waiting = f"{s['serviceName']} runs {s['runningCount']} of {s['desiredCount']}, {s['pendingCount']} pending: {s['events'][:1]}"
                    return False
        tasks = {}
        for status in ("RUNNING", "STOPPED"):
            for some in self.pages("ListTasks", "taskArns", desiredStatus=status):
                for described in chunks(some, 100):
                    tasks.update({t["taskArn"]: t["lastStatus"] for t in self.api.ecs("DescribeTasks", tasks=described)["tasks"]})
        expected = {arn for arn, status in tasks.items() if status != "STOPPED"}
        if under_way := {arn: tasks[arn] for arn in expected if tasks[arn] != "RUNNING"}:
            self.waiting = f"tasks under way: {under_way}"
            return False
        rows = self.world.containers()
        if twice(rows):
            self.fail(f"runs twice: {twice(rows)}")
        running = {identity(r)[0] for r in rows}
        self.waiting = f"{len(rows)} containers run for {len(expected)} tasks"
        return running == expected and len(rows) == len(expected)

    def pages(self, operation, name, **parameters):
        token = None
        while True:
            answer = self.api.ecs(operation, maxResults=100, **parameters, **({"nextToken": token} if token else {}))
            yield answer[name]
            token = answer.get("nextToken")
            if not token:
                return

    def drip(self):
        """The lines that containers wrote: none lost, none twice, none out of order."""
        try:
            streams = self.api.call("logs", "DescribeLogStreams", logGroupName=DRIP_GROUP)["logStreams"]
        except Refused:
            return
        for stream in (s["logStreamName"] for s in streams):
            for message in self.read_on(DRIP_GROUP, stream):
                number = int(message.split()[1])
                if number != self.dripped[stream] + 1:
                    self.fail(f"{stream}: line {number} follows line {self.dripped[stream]}")
                self.dripped[stream] = number

    def caught_up(self):
        """What Docker has of the living containers' lines by now is stored soon."""
        written = {}
        for row in self.world.containers():
            if row["Labels"].get("com.amazonaws.ecs.task-definition-family") == "drip":
                raw = self.world.docker.ask("GET", f"/containers/{row['Id']}/logs?stdout=1&tail=1")
                written["drip/main/" + identity(row)[0].split("/")[-1]] = int(raw.split()[-1])

        def stored():
            self.drip()
            behind = {s: (self.dripped[s], n) for s, n in written.items() if self.dripped[s] < n}
            return not behind

        until("the lines that Docker has are stored", stored, 60, 0.2)
        return len(written)

    def metrics(self):
        status, text = self.api.get("/metrics")
        if status != 200 or "beaufort_info" not in text:
            self.fail(f"/metrics answers {status}")
        return text

    def health(self):
        status, body = self.api.get("/health")
        return status, json.loads(body)


def seconds(value):
    return int(value) if isinstance(value, (int, float)) else int(time.mktime(time.strptime(value[:19], "%Y-%m-%dT%H:%M:%S")))


__all__ = ["Breach", "Doubt", "Judge", "Watcher", "DRIP_GROUP"]
