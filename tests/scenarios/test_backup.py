"""Backups of a server that works, put back into directories by the real program, and what becomes of what runs."""

import json
import os
import subprocess
import threading

from conftest import BINARY, docker, testbed, until


def beaufort(*args, check=True):
    done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done


def data(b):
    return b.dir / "data"


def counts(answer):
    return answer["manifest"]["counts"]


def test_a_backup_under_writes_is_whole_and_restores_what_it_says(make, tmp_path):
    b = make().start()
    definition = b.register(testbed("sleep", 600))
    b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=definition, desiredCount=2)
    b.stable("web", 2)
    over, made = threading.Event(), []

    def write():
        while not over.is_set():
            made.append(b.ecs.create_cluster(clusterName=f"c{len(made)}")["cluster"]["clusterName"])

    writer = threading.Thread(target=write)
    writer.start()
    until("some writes", lambda: len(made) > 20, 20)
    file, before = tmp_path / "backup", len(made)
    told = json.loads(b.cli("backup", str(file), "--json").stdout)
    after = len(made)
    over.set()
    writer.join()
    assert before + 1 <= counts(told)["cluster"] <= after + 2 and counts(told)["task"] == 2
    assert beaufort("check", file).stdout.count("whole") == 1
    assert b.cli("backup", str(file), check=False).returncode == 1, "a file is not replaced by accident"

    # Into a directory of its own, without an agent: everything that was acknowledged before is there.
    other = make(command="serve")
    other.cluster = b.cluster
    beaufort("restore", file, "--data-dir", data(other))
    again = beaufort("restore", file, "--data-dir", data(other), check=False)
    assert again.returncode == 1 and "--replace" in again.stderr
    other.start()
    names = {a.split("/")[-1] for page in other.ecs.get_paginator("list_clusters").paginate() for a in page["clusterArns"]}
    assert set(made[:before]) <= names
    assert other.service("web")["desiredCount"] == 2
    assert not [f for f in os.listdir(data(b)) if f.startswith("backup")], "the server's copy was left"


def test_a_directory_in_use_or_a_damaged_backup_is_refused(make, tmp_path):
    b = make().start()
    file = tmp_path / "backup"
    b.cli("backup", str(file))
    refused = beaufort("restore", file, "--data-dir", data(b), "--replace", check=False)
    assert refused.returncode == 1 and "in use" in refused.stderr and "end the server" in refused.stderr
    assert beaufort("backup", tmp_path / "x", "--data-dir", data(b), check=False).stderr.count("in use") == 1
    b.stop()
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"ACTIVE"', b'"BCTIVE"'))
    refused = beaufort("restore", file, "--data-dir", data(b), "--replace", check=False)
    assert refused.returncode == 1 and "nothing was replaced" in refused.stderr
    assert beaufort("check", file, check=False).returncode == 1
    b.start()


def test_what_runs_meets_an_older_state(make, tmp_path):
    b = make().start()
    definition = b.register(testbed("sleep", 600))
    b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=definition, desiredCount=2)
    b.stable("web", 2)
    held = {c["Id"] for c in b.containers()}
    file = tmp_path / "backup"
    b.cli("backup", str(file))
    # Newer than the backup: a task that the old state does not know.
    b.reach(b.run(definition), "RUNNING")
    new = {c["Id"] for c in b.containers()} - held
    b.stop()
    done = beaufort("restore", file, "--data-dir", data(b), "--replace")
    assert "stop tasks that are newer" in done.stdout
    assert any(name.startswith("replaced-") for name in os.listdir(data(b)))
    b.start()
    until("the unknown container removed", lambda: not new & {c["Id"] for c in b.containers(all=True)}, 60)
    b.stable("web", 2)
    assert {c["Id"] for c in b.containers()} == held, "what the backup knows runs on as it was"
    assert "restored from a backup" in b.tail(400)


def test_a_cut_log_is_told_and_a_newer_directory_is_left_alone(make):
    b = make().start()
    for n in range(5):
        b.ecs.create_cluster(clusterName=f"c{n}")
    b.kill()
    wal = os.path.join(data(b), "state.sqlite-wal")
    os.truncate(wal, os.path.getsize(wal) - 5000)
    refused = beaufort("serve", "--listen", "127.0.0.1:0", "--data-dir", data(b), check=False)
    assert refused.returncode == 1 and "was acknowledged" in refused.stderr, refused.stderr
    assert "was acknowledged" in beaufort("check", data(b), check=False).stdout
