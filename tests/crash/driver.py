"""Clients: a few threads that change things all the time, each its own things, and note in the ledger what was acknowledged."""

import collections
import random
import threading
import time

from ledger import ABSENT
from world import Api, Doubt, IMAGE, Refused, Unheard

# Each client's bounds, so that a run of hours is as heavy as one of a minute.
SERVICES, TASKS, FAMILIES, ALARMS = 2, 2, 2, 4
# What makes containers is asked for at most so often: Docker makes a dozen of them in a second.
BETWEEN_TASKS = 0.4
# Between two calls of a client.
THINKS = 0.02
# Points lie one second apart from here on, within the three hours that seconds are kept.
POINTS_BACK = 7_000


def container(*command, **more):
    """Its SIGTERM may come before its program listens to it: then it is not to last for half a minute."""
    return {"name": "main", "image": IMAGE, "memory": 16, "stopTimeout": 2, "command": ["testbed", *map(str, command)], **more}


class Client(threading.Thread):
    def __init__(self, driver, number, seed):
        super().__init__(daemon=True, name=f"client-{number}")
        self.driver, self.world, self.ledger, self.owner = driver, driver.world, driver.ledger, number
        self.rng = random.Random(seed)
        self.api = Api(self.world)
        self.count = 0
        self.first_point = int(time.time()) - POINTS_BACK
        self.busy = threading.Lock()
        self.task_arns = {}
        self.next_task = 0.0
        self.steps = [(self.service, 4), (self.scale, 6), (self.delete, 1), (self.task, 4), (self.stop, 3), (self.definition, 2),
                      (self.alarm, 3), (self.policy, 2), (self.tag, 2), (self.retention, 1), (self.lines, 6), (self.points, 6)]

    def run(self):
        while not self.driver.over:
            self.driver.gate.wait()
            with self.busy:
                if not self.driver.gate.is_set():
                    continue
                step = self.rng.choices([s for s, _ in self.steps], [w for _, w in self.steps])[0]
                try:
                    answered = step()
                except Refused as e:
                    answered = False
                    self.driver.refusals.append(e)
            time.sleep(THINKS if answered else 2 * THINKS)

    def may_make(self):
        """Whether it is time for another container; if so, the next one has to wait."""
        if time.monotonic() < self.next_task:
            return False
        self.next_task = time.monotonic() + BETWEEN_TASKS
        return True

    def next(self):
        self.count += 1
        return self.count

    def change(self, key, value, api, operation, **parameters):
        """One call that makes `key` to be `value`; its answer, or None where there was none."""
        try:
            answer = self.api.call(api, operation, **parameters)
        except Unheard:
            return None
        except Doubt:
            self.ledger.doubt(key, value)
            return None
        except Refused as e:
            if e.status >= 500:
                # Not made, most likely; what the sentence says is looked at where a disk is full.
                self.ledger.doubt(key, value)
                self.driver.errors[e.code] += 1
                self.driver.last_error = e
                return None
            self.ledger.no()
            raise
        self.ledger.done(key, value)
        return answer

    def ecs(self, key, value, operation, **parameters):
        return self.change(key, value, "ecs", operation, cluster=self.world.cluster, **parameters)

    def mine(self, kind, value=None):
        """Keys that are there and in no doubt."""
        found = [(k, self.ledger.value(k)) for k in self.ledger.keys(kind, self.owner)]
        return [k for k, v in found if v is not ABSENT and (value is None or v == value)]

    # The operations.

    def definition(self):
        family = f"f{self.owner}-{self.rng.randrange(FAMILIES)}"
        mark = self.next()
        key = ("definition", self.owner, f"{family}/{mark}")
        own = container("sleep", 1_000_000, environment=[{"name": "MARK", "value": str(mark)}])
        answer = self.change(key, mark, "ecs", "RegisterTaskDefinition", family=family, containerDefinitions=[own], networkMode=self.driver.network)
        if answer:
            revision = answer["taskDefinition"]["revision"]
            with self.driver.lock:
                self.driver.revisions[f"{family}:{revision}"] = (key, mark)
        return answer

    def some_definition(self):
        with self.driver.lock:
            return self.rng.choice(sorted(self.driver.revisions)) if self.driver.revisions else None

    def service(self):
        definition = self.some_definition()
        pending = [k for k in self.ledger.keys("service", self.owner) if self.ledger.doubtful(k)]
        if not definition or len(self.mine("service")) + len(pending) >= SERVICES or not self.may_make():
            return None
        name = f"s{self.owner}-{self.next()}"
        desired = self.rng.randrange(3)
        return self.ecs(("service", self.owner, name), (desired, definition), "CreateService", serviceName=name, taskDefinition=definition,
                        desiredCount=desired)

    def scale(self):
        services = self.mine("service")
        if not services or not self.may_make():
            return None
        key = self.rng.choice(services)
        _, definition = self.ledger.value(key)
        desired = self.rng.randrange(3)
        if self.rng.random() < 0.15:
            definition = self.some_definition()
        return self.ecs(key, (desired, definition), "UpdateService", service=key[2], desiredCount=desired, taskDefinition=definition)

    def delete(self):
        services = self.mine("service")
        if not services:
            return None
        key = self.rng.choice(services)
        return self.ecs(key, ABSENT, "DeleteService", service=key[2], force=True)

    def task(self):
        definition = self.some_definition()
        open_ones = [k for k in self.ledger.keys("task", self.owner) if self.ledger.of(k) != {"STOPPED"}]
        if not definition or len(open_ones) >= TASKS or not self.may_make():
            return None
        return self.run_task(f"m{self.owner}-{self.next()}", definition)

    def run_task(self, marker, definition):
        """The token lets a client ask again after an answer that never came; it must not run twice."""
        key = ("task", self.owner, marker)
        self.driver.asked[marker] = (self, definition)
        answer = self.ecs(key, "RUNNING", "RunTask", taskDefinition=definition, startedBy=marker, clientToken=f"{self.world.cluster}-{marker}")
        if answer:
            if answer["failures"]:
                # Refused by placement: it was never made.
                with self.ledger.lock:
                    self.ledger.allowed.pop(key, None)
                    self.ledger.acknowledged -= 1
                return None
            self.task_arns[marker] = answer["tasks"][0]["taskArn"]
        return answer

    def stop(self):
        tasks = [k for k in self.mine("task", "RUNNING") if k[2] in self.task_arns]
        if not tasks:
            return None
        key = self.rng.choice(tasks)
        return self.ecs(key, "STOPPED", "StopTask", task=self.task_arns[key[2]], reason="the test says so")

    def alarm(self):
        key = ("alarm", self.owner, f"{self.world.cluster}-a{self.owner}-{self.rng.randrange(ALARMS)}")
        if self.ledger.doubtful(key):
            return None
        if self.ledger.value(key) is not ABSENT and self.rng.random() < 0.2:
            return self.change(key, ABSENT, "cloudwatch", "DeleteAlarms", AlarmNames=[key[2]])
        threshold = float(self.next())
        return self.change(key, threshold, "cloudwatch", "PutMetricAlarm", AlarmName=key[2], Namespace="Crash/None", MetricName="X", Statistic="Sum",
                           Period=60, EvaluationPeriods=1, Threshold=threshold, ComparisonOperator="GreaterThanThreshold")

    def policy(self):
        services = self.mine("service")
        if not services:
            return None
        service = self.rng.choice(services)[2]
        key, target = ("policy", self.owner, service), ("target", self.owner, service)
        if self.ledger.doubtful(key) or self.ledger.doubtful(target):
            return None
        about = {"ServiceNamespace": "ecs", "ResourceId": f"service/{self.world.cluster}/{service}", "ScalableDimension": "ecs:service:DesiredCount"}
        if self.ledger.value(target) is ABSENT or self.rng.random() < 0.3:
            most = 10 + self.next()
            return self.change(target, most, "scaling", "RegisterScalableTarget", MinCapacity=0, MaxCapacity=most, **about)
        cooldown = self.next()
        return self.change(key, cooldown, "scaling", "PutScalingPolicy", PolicyName="step", PolicyType="StepScaling", **about,
                           StepScalingPolicyConfiguration={"AdjustmentType": "ChangeInCapacity", "Cooldown": cooldown,
                                                           "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]})

    def tag(self):
        """Tags of a log group: in the log store. Tags of a task definition: in the state."""
        definitions = [d for d, (key, _) in sorted(self.driver.revisions.items()) if key[1] == self.owner]
        if not definitions:
            return None
        arn = f"arn:aws:ecs:us-east-1:000000000000:task-definition/{definitions[0]}"
        key, value = ("tag", self.owner, arn), str(self.next())
        if self.ledger.doubtful(key):
            return None
        return self.change(key, value, "ecs", "TagResource", resourceArn=arn, tags=[{"key": "mark", "value": value}])

    def group(self):
        """The log group and stream of this client, made once. False while they are not."""
        for key, operation, parameters in ((("group", self.owner, self.log_group), "CreateLogGroup", {}),
                                           (("stream", self.owner, "stream"), "CreateLogStream", {"logStreamName": "stream"})):
            if self.ledger.doubtful(key):
                return False
            if self.ledger.value(key) is ABSENT and not self.change(key, True, "logs", operation, logGroupName=self.log_group, **parameters) == {}:
                return False
        return True

    @property
    def log_group(self):
        return f"/crash/{self.owner}"

    def retention(self):
        key = ("retention", self.owner, self.log_group)
        if not self.group() or self.ledger.doubtful(key):
            return None
        days = self.rng.choice([30, 60, 90, 120, 150, 180, 365, 400])
        return self.change(key, days, "logs", "PutRetentionPolicy", logGroupName=self.log_group, retentionInDays=days) is not None

    def lines(self):
        if not self.group():
            return None
        batch, lines = self.next(), self.rng.randrange(1, 6)
        key = ("lines", self.owner, batch)
        events = [{"timestamp": int(time.time() * 1000), "message": f"{batch} {n} of {lines}"} for n in range(lines)]
        return self.change(key, lines, "logs", "PutLogEvents", logGroupName=self.log_group, logStreamName="stream", logEvents=events)

    def points(self):
        """Each at a second of its own, so that one that is stored twice is seen in its sample count."""
        number = self.driver.take_second(self.owner)
        if number is None:
            return None
        key = ("point", self.owner, self.first_point + number)
        value = float(self.rng.randrange(1, 1_000))
        return self.change(key, value, "cloudwatch", "PutMetricData", Namespace=f"Crash/{self.owner}", MetricData=[
            {"MetricName": "X", "Value": value, "StorageResolution": 1, "Timestamp": key[2]}]) is not None


class Driver:
    """`network`: the network mode of every task."""

    def __init__(self, world, ledger, seed, threads=3, network="bridge"):
        self.world, self.ledger, self.network = world, ledger, network
        self.gate, self.lock, self.over = threading.Event(), threading.Lock(), False
        self.revisions, self.asked, self.seconds = {}, {}, collections.Counter()
        self.refusals, self.errors, self.last_error = [], collections.Counter(), None
        self.clients = [Client(self, n, f"{seed}/{n}") for n in range(threads)]
        for client in self.clients:
            client.start()

    def take_second(self, owner):
        with self.lock:
            if self.seconds[owner] >= POINTS_BACK - 120:
                return None
            self.seconds[owner] += 1
            return self.seconds[owner]

    def go(self):
        self.gate.set()

    def hold(self):
        """Returns when no call is under way."""
        self.gate.clear()
        for client in self.clients:
            with client.busy:
                pass

    def end(self):
        self.over = True
        self.gate.set()
        for client in self.clients:
            client.join(timeout=90)
