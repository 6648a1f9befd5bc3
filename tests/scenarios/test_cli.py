"""The command line as a person and as a script use it: tables, JSON, exit codes, and sentences that say what to do next."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from conftest import BINARY, free_port, testbed, until
from test_export import stepping

ANSI = re.compile(r"\x1b")


def words(b, *args):
    """What a command prints into a pipe, without a colour in it."""
    run = b.cli(*args)
    assert not ANSI.search(run.stdout + run.stderr), run.stdout
    assert run.stderr == "", run.stderr
    return run.stdout


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def env(b, **more):
    return {**os.environ, "BEAUFORT_ENDPOINT": b.url, "BEAUFORT_CLUSTER": b.cluster, **more}


@pytest.fixture(scope="module")
def shared():
    """One server with a service that logs and was scaled, a task that failed and an alarm: all that commands only read."""
    import shutil
    import tempfile

    from conftest import Beaufort

    tmp = tempfile.mkdtemp(prefix="beaufort-scenario-")
    b = Beaufort(tmp)
    try:
        b.start()
        awslogs = {"logDriver": "awslogs", "options": {"awslogs-group": "/cli", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "c",
                                                       "awslogs-create-group": "true"}}
        b.definition = b.register(testbed("drip", 10_000, 100, name="app", logConfiguration=awslogs, cpu=128))
        b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=b.definition, desiredCount=1)
        b.stable("web", 1)
        until("scaled out", stepping(b, "web", 1, 2), 30, every=0.3)
        b.stable("web", 2)
        b.failed = b.run(b.register(testbed("exit", 3), family="fails"))
        b.reach(b.failed, "STOPPED")
        b.tasks = [arn.rsplit("/", 1)[1] for arn in b.ecs.list_tasks(cluster=b.cluster, serviceName="web")["taskArns"]]
        yield b
        b.stop()
    finally:
        if b.process and b.process.poll() is None:
            b.kill()
        b.clean()
        shutil.rmtree(tmp, ignore_errors=True)


def test_ps(shared):
    text = words(shared, "ps")
    assert all(task[:8] in text for task in shared.tasks) and text.count("RUNNING") >= 2
    failed = shared.failed.rsplit("/", 1)[1]
    assert failed[:8] not in text and failed[:8] in words(shared, "ps", "--all")
    assert {t["taskArn"].rsplit("/", 1)[1] for t in json.loads(words(shared, "ps", "--json"))["tasks"]} == set(shared.tasks)
    assert failed in words(shared, "ps", "--all", "--json")
    assert all(task[:8] in words(shared, "ps", "--service", "web") for task in shared.tasks)


def test_services(shared):
    [head, row] = words(shared, "services").splitlines()
    assert head.split()[0] == "SERVICE" and row.split()[0] == "web" and shared.definition in row
    [service] = json.loads(words(shared, "services", "--json"))["services"]
    assert (service["serviceName"], service["runningCount"]) == ("web", 2)


def test_logs(shared):
    until("some lines", lambda: len(words(shared, "logs", "service/web").splitlines()) > 5)
    assert len(words(shared, "logs", "service/web", "--tail", "3").splitlines()) == 3
    one = lines(words(shared, "logs", f"task/{shared.tasks[0]}", "--tail", "2", "--json"))
    assert [set(line) for line in one] == [{"at", "group", "stream", "source", "message"}] * 2
    assert one[0]["group"] == "/cli" and one[0]["stream"] == f"c/app/{shared.tasks[0]}"
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", words(shared, "logs", "--group", "/cli", "--timestamps", "--tail", "1"))


def follow(b, *args, wanted=3):
    """Runs a command that goes on until it has said `wanted` lines, then ends it as Ctrl-C does."""
    # A shell ignores SIGINT for what it runs in the background, and children inherit that: a person's terminal does not.
    process = subprocess.Popen([BINARY, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env(b),
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        got = [process.stdout.readline() for _ in range(wanted)]
        assert process.poll() is None, f"it does not follow: {process.returncode}"
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert "panicked" not in said
    return got


def test_logs_that_are_followed(shared):
    got = follow(shared, "logs", "service/web", "-f", "--tail", "0", "--json", wanted=6)
    assert [json.loads(line)["group"] for line in got] == ["/cli"] * 6


def test_events(shared):
    text = words(shared, "events", "service/web", "-n", "200")
    assert "has started 1 tasks" in text and "scaled_out" in text or "desired 1 -> 2" in text, text
    kinds = {line["kind"] for line in lines(words(shared, "events", "--json", "-n", "500"))}
    assert kinds == {"event", "decision"}
    times = [line["at"] for line in lines(words(shared, "events", "--json", "-n", "500"))]
    assert times == sorted(times)
    assert len(words(shared, "events", "-n", "2").splitlines()) >= 2
    assert all(json.loads(line)["kind"] for line in follow(shared, "events", "-f", "--json"))


def test_top(shared):
    def measured():
        text = words(shared, "top", "--once", "--cluster", shared.cluster)
        return text if all(task[:8] in text for task in shared.tasks) else None

    head = until("both are measured", measured).splitlines()[0].split()
    assert head[:4] == ["SERVICE", "TASK", "CONTAINER", "CPU"]
    assert "(1)" in words(shared, "top", "--tasks", "--sort", "memory"), "no terminal is the same as --once"
    containers = json.loads(words(shared, "top", "--json", "--service", "web"))["containers"]
    assert {c["sample"]["task"] for c in containers} == set(shared.tasks)


def test_why_a_service(shared):
    text = words(shared, "why", "service/web", "-n", "200")
    assert "decisions, newest last (UTC)" in text and "desired 1 -> 2" in text and "running 2" in text, text
    said = json.loads(words(shared, "why", f"service/{shared.cluster}/web", "--json", "-n", "200"))
    assert said["now"]["desired"] == 2 and any(d["code"] == "scaled_out" for d in said["decisions"])
    assert json.loads(follow(shared, "why", "service/web", "-f", "--json", wanted=1)[0])["code"]


def test_why_a_task(shared):
    failed = shared.failed.rsplit("/", 1)[1]
    for name in (failed, failed[:12], shared.failed):
        text = words(shared, "why", f"task/{name}")
        assert "EssentialContainerExited" in text and "exit code 3" in text, text
    assert json.loads(words(shared, "why", f"task/{failed}", "--json"))["now"]["stop_code"] == "EssentialContainerExited"


def test_why_an_alarm(shared):
    text = words(shared, "why", "alarm/deep-web")
    assert "alarm INSUFFICIENT_DATA -> ALARM" in text, text
    assert json.loads(words(shared, "why", "alarm/deep-web", "--json"))["now"]["threshold"] == 100


def test_why_a_placement(shared):
    before = set(shared.ecs.list_tasks(cluster=shared.cluster)["taskArns"])
    assert "would" in words(shared, "why", "placement", shared.definition, "--count", "2").lower()
    assert json.loads(words(shared, "why", "placement", shared.definition, "--json"))
    big = shared.register(testbed("sleep", 1, memory=1 << 20))
    nowhere = shared.cli("why", "placement", big, check=False)
    assert nowhere.returncode == 1 and "would find no place" in nowhere.stdout and "lacks memory (need 1048576 MiB" in nowhere.stdout
    assert set(shared.ecs.list_tasks(cluster=shared.cluster)["taskArns"]) == before, "nothing is started"


def test_scale_with_progress(up):
    up.ecs.create_service(cluster=up.cluster, serviceName="web", taskDefinition=up.register(testbed("sleep", 600)), desiredCount=1)
    up.stable("web", 1)
    text = words(up, "scale", "service/web", "3")
    assert text.startswith("service/web: desired 1 -> 3\n"), text
    assert "has started 2 tasks" in text and "running 3 of 3, pending 0" in text and text.splitlines()[-1].startswith("stable after ")
    assert up.service("web")["runningCount"] == 3
    assert words(up, "scale", f"service/{up.cluster}/web", "0", "--no-wait") == "service/web: desired 3 -> 0\n"
    until("none", lambda: up.service("web")["runningCount"] == 0)
    big = up.register(testbed("sleep", 1, memory=1 << 20))
    up.ecs.create_service(cluster=up.cluster, serviceName="big", taskDefinition=big, desiredCount=0)
    run = up.cli("scale", "big", "1", "--timeout", "2s", check=False)
    assert run.returncode == 1 and "error:" in run.stderr and "next:" in run.stderr, run.stderr
    assert "memory" in run.stdout.lower(), "the event that says why is among the progress"


def test_gaps(up):
    assert words(up, "gaps") == "nothing was asked for that Beaufort does not do\n"
    up.register(testbed("exit", 0), taskRoleArn="arn:aws:iam::000000000000:role/x")
    assert "taskRoleArn" in words(up, "gaps")
    assert any("taskRoleArn" in gap["path"] for gap in json.loads(words(up, "gaps", "--json"))["withoutEffect"])


def test_health(shared):
    text = words(shared, "health")
    assert text.startswith(f"ok at {shared.url}: Beaufort ") and "1 container instance connected" in text
    assert json.loads(words(shared, "health", "--json"))["status"] == "ok"


def run(*args, **more):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=30, **more)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    script = run("completion", shell)
    assert script.returncode == 0 and all(word in script.stdout for word in ("beaufort", "services", "why", "completion"))
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script.stdout, text=True, capture_output=True).returncode == 0


COMMANDS = [["ps"], ["services"], ["logs", "service/web"], ["events"], ["top"], ["why", "service/web"], ["scale", "web", "1"], ["gaps"], ["health"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_nobody_answers(command):
    endpoint = f"http://127.0.0.1:{free_port()}"
    said = run(*command, "--endpoint", endpoint)
    assert said.returncode == 1 and said.stdout == ""
    [error, hint] = said.stderr.splitlines()
    assert error.startswith("error: ") and f"nothing answers at {endpoint} (Connection refused" in error
    assert hint == " next: start one with `beaufort up`, or name another with --endpoint / BEAUFORT_ENDPOINT"


@pytest.mark.parametrize("args", [
    [], ["make-coffee"], ["ps", "--no-such-flag"], ["why"], ["why", "nothing"], ["why", "planet/x"], ["why", "service/"], ["scale", "web"],
    ["scale", "web", "-1"], ["scale", "web", "many"], ["scale", "web", "10001"], ["logs", "service/web", "--tail", "few"], ["logs", "x", "--since", "yesterday"],
    ["top", "--sort", "colour"], ["completion", "tcsh"], ["up", "--listen", "nowhere"], ["up", "--attribute", "=x"], ["up", "--pause-pool", "65"], ["agent"],
], ids=" ".join)
def test_usage_errors_end_with_two(args):
    said = run(*args, env={k: v for k, v in os.environ.items() if not k.startswith("BEAUFORT_")})
    assert said.returncode == 2 and said.stdout == "", said
    assert "Usage:" in said.stderr or "error:" in said.stderr
    assert not ANSI.search(said.stderr) and "panicked" not in said.stderr


@pytest.mark.parametrize("args, said", [
    (["why", "service/none"], "nothing is known of"), (["why", "task/0123456789"], "nothing is known of"), (["why", "alarm/none"], "nothing is known of"),
    (["why", "placement", "none:1"], "none"), (["scale", "none", "1"], "none"), (["logs", "service/none"], "ServiceNotFound"), (["logs", "--group", "none"], "none|not exist"),
    (["ps", "--service", "none"], "ServiceNotFound"), (["ps", "--cluster", "none"], "ClusterNotFound"), (["services", "--cluster", "none"], "ClusterNotFound"), (["health", "--endpoint", "https://h"], "only http://"),
], ids=lambda a: " ".join(a) if isinstance(a, list) else "")
def test_what_is_not_there_ends_with_one_and_says_so(shared, args, said):
    failed = shared.cli(*args, check=False)
    assert failed.returncode == 1 and failed.stdout == "", failed
    assert failed.stderr.startswith("error: ") and re.search(said, failed.stderr), failed.stderr
    assert not ANSI.search(failed.stderr) and "panicked" not in failed.stderr


def test_a_reader_that_leaves_is_no_failure(shared):
    shell = subprocess.run(["bash", "-o", "pipefail", "-c", f"{BINARY} logs service/web --json | head -n 1"], capture_output=True, text=True,
                           env=env(shared), timeout=30)
    assert shell.returncode == 0 and shell.stderr == "" and json.loads(shell.stdout)


def on_a_terminal(b, *args, **more):
    """What a command prints on a terminal."""
    main, side = pty.openpty()
    process = subprocess.Popen([BINARY, *args], stdin=side, stdout=side, stderr=side, env=env(b, TERM="xterm-256color", **more), close_fds=True)
    os.close(side)
    got, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.1)[0]:
            try:
                chunk = os.read(main, 65536)
            except OSError:
                break
            if not chunk:
                break
            got += chunk
    os.close(main)
    assert process.wait(timeout=10) == 0, got
    return got.decode()


def test_colours_on_a_terminal_only_and_not_against_no_color(shared):
    assert ANSI.search(on_a_terminal(shared, "why", "service/web", NO_COLOR=""))
    assert not ANSI.search(on_a_terminal(shared, "why", "service/web", NO_COLOR="1"))


def test_what_a_container_writes_cannot_draw_on_the_terminal_of_ps(up):
    """Names and reasons come from others; an escape in them must not reach a terminal."""
    # Right after its start a process has no handler for SIGTERM yet, and as the first of its namespace is not ended by it.
    arn = up.run(up.register(testbed("sleep", 600, stopTimeout=2)))
    up.reach(arn, "RUNNING")
    up.ecs.stop_task(cluster=up.cluster, task=arn, reason="\x1b[2Jgone\x07")
    up.reach(arn, "STOPPED")
    for args in (["ps", "--all"], ["why", f"task/{arn.rsplit('/', 1)[1]}"], ["events"]):
        assert not re.search(r"[\x1b\x07]", up.cli(*args).stdout), args
