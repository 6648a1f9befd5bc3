"""Data directories that nobody should have, and somebody will: each is refused, or repaired, with a sentence that says what happened and what to do. Never in silence, and a refusal changes nothing."""

import hashlib
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

import pytest

from conftest import BINARY, Beaufort, until

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "crash"))

from damage import flip_at  # noqa: E402
from disk import Tmpfs  # noqa: E402

LINES, POINTS = 2_000, 40


def put_points(b, first):
    now = int(time.time())
    data = [{"MetricName": "X", "Value": 1, "StorageResolution": 1, "Timestamp": now - 100 + n} for n in range(first, first + POINTS)]
    b.client("cloudwatch").put_metric_data(Namespace="Damage", MetricData=data)


def put_lines(b, what, count):
    logs = b.client("logs")
    now = int(time.time() * 1000)
    for first in range(0, count, 500):
        # Text that does not compress to nothing, so that there are blocks worth a segment.
        events = [{"timestamp": now, "message": f"{what} {n} " + hashlib.sha256(f"{what}{n}".encode()).hexdigest() * 2} for n in range(first, min(count, first + 500))]
        logs.put_log_events(logGroupName="/damage", logStreamName="s", logEvents=events)


@pytest.fixture(scope="module")
def template():
    """A directory with everything in it: state, parts and a log of metrics, segments and a log of lines."""
    tmp = tempfile.mkdtemp(prefix="beaufort-damage-")
    b = Beaufort(tmp)
    try:
        b.start()
        logs = b.client("logs")
        logs.create_log_group(logGroupName="/damage")
        logs.create_log_stream(logGroupName="/damage", logStreamName="s")
        for n in range(30):
            b.ecs.register_task_definition(family=f"f{n}", containerDefinitions=[{"name": "main", "image": "x" * 80, "memory": 32}])
        put_points(b, 0)
        put_lines(b, "old", LINES)
        # Twice, so that every kind of file is there and known to be synced.
        for _ in range(2):
            b.stop()
            b.start()
        put_points(b, POINTS)
        for n in range(3):
            put_lines(b, f"new{n}", 20)
        b.kill()
        yield b
    finally:
        if b.process.poll() is None:
            b.kill()
        b.clean()
        shutil.rmtree(tmp, ignore_errors=True)


@pytest.fixture
def copy(template, make):
    """A Beaufort on a copy of that directory."""
    b = make()
    b.cluster = template.cluster
    shutil.copytree(template.dir / "data", b.dir / "data")
    return b


def contents(directory):
    """What is there, but for what SQLite makes and removes whenever it is opened."""
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.rglob("*"))
            if p.is_file() and p.name != "lock" and not p.name.endswith("-shm")}


def start_refused(b, *before, data=None, user=None):
    args = [*before, BINARY, "up", "--listen", b.listen, "--cluster", b.cluster, "--data-dir", str(data or b.dir / "data")]
    run = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1, f"{run.returncode}: {run.stdout}{run.stderr}"
    assert "panicked" not in run.stderr
    return run.stderr


def newest(b, pattern):
    return sorted(p for p in (b.dir / "data").glob(pattern) if p.stat().st_size)[-1]


def edit_json(path, **change):
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def newer_state(data):
    with sqlite3.connect(data / "state.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def corrupt_pages(data):
    # The write-ahead log is folded in first, else it would heal them.
    db = sqlite3.connect(data / "state.sqlite")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    for at in range(4096, (data / "state.sqlite").stat().st_size, 4096):
        flip_at(data / "state.sqlite", at, 64)


REFUSED = [
    ("state of a newer version", newer_state, "of a newer version (99)", "start the newer binary"),
    ("state with corrupt pages", corrupt_pages, "damaged", "restore a backup"),
    ("state that is missing", lambda d: [p.unlink() for p in d.glob("state.sqlite*")], "its state is missing", "restore state.sqlite from a backup"),
    ("state that is garbage", lambda d: [p.unlink() for p in d.glob("state.sqlite-*")] and (d / "state.sqlite").write_bytes(b"no database " * 999), "damaged", "restore a backup"),
    ("metrics of a newer version", lambda d: edit_json(d / "metrics/manifest.json", version=7), "of a newer format (7)", "start the newer binary"),
    ("metrics without their manifest", lambda d: (d / "metrics/manifest.json").unlink(), "manifest.json is damaged (it is missing", "restore it from a backup"),
    ("metrics with half a manifest", lambda d: os.truncate(d / "metrics/manifest.json", 40), "manifest.json is damaged", "restore it from a backup"),
    ("metrics without their series", lambda d: (d / "metrics/series.log").unlink(), "series.log is damaged (it is missing", "restore it from a backup"),
    ("logs of a newer version", lambda d: edit_json(d / "logs/snapshot.json", format=7), "of a newer format (7)", "start the newer binary"),
    ("logs without their snapshot", lambda d: (d / "logs/snapshot.json").unlink(), "snapshot.json (it is missing", "restore it from a backup"),
    ("logs with half a snapshot", lambda d: os.truncate(d / "logs/snapshot.json", 40), "snapshot.json", "restore it from a backup"),
]


@pytest.mark.parametrize("what, damage, happened, do", REFUSED, ids=[row[0] for row in REFUSED])
def test_refused_with_what_happened_and_what_to_do(copy, what, damage, happened, do):
    data = copy.dir / "data"
    damage(data)
    before = contents(data)
    said = start_refused(copy)
    assert happened in said and do in said, said
    after = contents(data)
    if not what.startswith("state"):
        # By then the state was opened, and SQLite has folded its log into it: the same state in other bytes.
        before, after = ({k: v for k, v in c.items() if not k.startswith("state.sqlite")} for c in (before, after))
    assert after == before


def test_a_directory_that_another_user_owns(copy):
    if not shutil.which("setpriv") or os.geteuid() != 0:
        pytest.skip("setpriv, as root, makes another user of us")
    os.chmod(copy.dir, 0o755)
    before = contents(copy.dir / "data")
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if subprocess.run([*as_nobody, BINARY, "--version"], capture_output=True).returncode:
        pytest.skip("the binary under test cannot be run by another user")
    said = start_refused(copy, *as_nobody)
    assert "cannot be written by this user (65534)" in said and "next: start as the user that it belongs to, give it to this one (chown -R)" in said, said
    assert contents(copy.dir / "data") == before


def test_a_disk_that_can_only_be_read(copy):
    try:
        disk = Tmpfs(32)
    except PermissionError as e:
        pytest.skip(str(e))
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(disk.dir)], check=True, capture_output=True)
        said = start_refused(copy, data=disk.dir)
        assert "is on a disk that can only be read" in said and "next: mount it for writing" in said, said
    finally:
        disk.end()


def lines(b):
    logs, found, token = b.client("logs"), [], None
    while True:
        page = logs.get_log_events(logGroupName="/damage", logStreamName="s", startFromHead=True, **({"nextToken": token} if token else {}))
        found += [e["message"] for e in page["events"]]
        if page["nextForwardToken"] == token:
            return found
        token = page["nextForwardToken"]


def points(b):
    now = time.time()
    got = b.client("cloudwatch").get_metric_statistics(Namespace="Damage", MetricName="X", StartTime=now - 3_000, EndTime=now + 300, Period=3_600, Statistics=["SampleCount"])
    return sum(p["SampleCount"] for p in got["Datapoints"])


def damage_count(b, what):
    row = next(line for line in b.get("/metrics").splitlines() if line.startswith(f'beaufort_damage_total{{what="{what}"}}'))
    return float(row.rsplit(" ", 1)[1])


def all_lines(b):
    return until("lines are there", lambda: lines(b), 20)


def test_everything_is_there_when_nothing_was_damaged(copy):
    copy.start()
    assert len(all_lines(copy)) == LINES + 60 and points(copy) == 2 * POINTS
    assert damage_count(copy, "logs") == damage_count(copy, "metrics") == 0


def test_a_damaged_record_in_the_log_of_lines_is_told_and_the_rest_is_there(copy):
    wal = newest(copy, "logs/wal-*")
    flip_at(wal, wal.read_bytes().index(b"new1 3 "))
    copy.start()
    got = all_lines(copy)
    assert "is damaged: the lines that were there are lost, those behind it are not" in copy.tail(60), copy.tail()
    assert sum(m.startswith("old") for m in got) == LINES
    assert (sum(m.startswith("new0") for m in got), sum(m.startswith("new1") for m in got), sum(m.startswith("new2") for m in got)) == (20, 0, 20)
    assert damage_count(copy, "logs") > 0 and list((copy.dir / "data/logs").glob("*.damaged"))
    put_lines(copy, "after", 20)
    copy.kill()
    copy.start()
    assert sum(m.startswith("after") for m in all_lines(copy)) == 20 and len(lines(copy)) == len(got) + 20


def test_a_damaged_segment_is_told_to_whoever_reads_it(copy):
    segment = newest(copy, "logs/seg-*")
    flip_at(segment, segment.stat().st_size // 2)
    copy.start()
    got = all_lines(copy)
    told = [m for m in got if "lines cannot be read any more" in m]
    assert len(told) == 1 and told[0].startswith("[beaufort: ") and "is damaged]" in told[0], told
    missing = LINES + 60 - (len(got) - 1)
    assert f"[beaufort: {missing} lines" in told[0]
    assert damage_count(copy, "logs") > 0


def test_a_damaged_frame_in_the_log_of_metrics_is_told_and_the_rest_is_there(copy):
    wal = newest(copy, "metrics/wal-*")
    put = wal.stat().st_size
    flip_at(wal, min(40, put // 2), 4)
    copy.start()
    assert "a file of the metrics is damaged" in copy.tail(60) or "the torn end of a metrics file was cut" in copy.tail(60), copy.tail()
    assert POINTS <= points(copy) <= 2 * POINTS and damage_count(copy, "metrics") > 0


def test_a_damaged_part_of_the_metrics_is_told_and_the_rest_is_there(copy):
    parts = sorted((copy.dir / "data/metrics").glob("part-*.bin"))
    for part in parts:
        flip_at(part, part.stat().st_size - 20, 8)
    copy.start()
    assert "a part of the metrics cannot be read and is set aside" in copy.tail(60), copy.tail()
    assert points(copy) == POINTS and damage_count(copy, "metrics") >= len(parts)
    assert len(list((copy.dir / "data/metrics").glob("*.damaged"))) == len(parts)


def test_a_truncated_log_of_the_state_is_told_and_read_as_far_as_it_goes_when_asked(copy):
    """SQLite ends at the first frame that it cannot read. What was acknowledged behind it is missed by its number."""
    data = copy.dir / "data"
    wal = data / "state.sqlite-wal"
    if not wal.exists() or not wal.stat().st_size:
        pytest.skip("nothing was left in it")
    os.truncate(wal, wal.stat().st_size - 100)
    said = start_refused(copy)
    assert "was acknowledged" in said and "estore a backup" in said, said
    (data / "acknowledged").unlink()
    copy.start()
    assert len(copy.ecs.list_task_definitions()["taskDefinitionArns"]) == 30
