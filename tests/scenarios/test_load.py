"""`beaufort load` on a service of sample tasks: waits for it, shows itself to Prometheus, and tells how the service scaled meanwhile."""

import json
import os
import subprocess
import urllib.request

from conftest import BINARY, IMAGE, free_port, until
from test_scaling import scalable, tracking


def load(b, target, *flags):
    env = {**os.environ, "BEAUFORT_ENDPOINT": b.url}
    return subprocess.Popen([BINARY, "load", target, *flags], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_load_waits_for_its_service_and_tells_each_hop_of_its_scale_out(up):
    port, target = free_port(), f"service/{up.cluster}/web"
    # 100 requests a second of 3 ms: more than half of the 256 CPU units that one task reserves.
    running = load(up, target, "--rate", "100", "--for", "22s", "--timeout", "2s", "--json", "--wait", "40s", "--health", "/healthz",
                   "--metrics-listen", f"127.0.0.1:{port}")
    try:
        web = {"name": "web", "image": IMAGE, "command": ["web", "--cpu-ms", "3"], "cpu": 256, "memory": 64,
               "portMappings": [{"containerPort": 8080}]}
        up.ecs.create_service(cluster=up.cluster, serviceName="web", taskDefinition=up.register(web), desiredCount=1)
        tracking(*scalable(up, "web", 1, 3))

        def metrics():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                    return answer.read().decode()
            except OSError:
                return ""

        own = f'{{cluster="{up.cluster}",service="web"}}'
        until("it counts what was completed", lambda: any(
            line.startswith(f"beaufort_load_completed_total{own}") and float(line.split()[-1]) > 100 for line in metrics().splitlines()), 30)
        assert f"beaufort_load_wanted_rate{own} 100" in metrics()
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, err
    assert f"waiting up to 40 s for a task of service {up.cluster}/web" in err
    # Nobody watches: a line of its own every ten seconds.
    assert sum(line.startswith(("10 s ", "20 s ")) for line in err.splitlines()) == 2 and "\r" not in err, err
    told = json.loads(out)
    assert told["total"]["offered"] == 2_200 and told["total"]["completed"] > 1_000, told["total"]
    [first, *_] = told["reactions"]
    assert (first["from"], first["policy"]) == (1, "cpu") and first["to"] > 1
    hops = [first[f"{stage}_ms"] for stage in ("alert", "decision", "placed", "running", "healthy")]
    assert hops[0] >= 3_000 and all(hop >= 0 for hop in hops) and sum(hops) == first["total_ms"] < 15_000, first
    [line] = [d for d in json.loads(up.cli("why", target, "--json", "--limit", "200").stdout)["decisions"]
              if d["code"] == "scale_out_done"][-1:]
    assert line["evidence"]["hops_ms"]["total"] > 0 and line["action"].startswith("scaled out "), line


def test_a_service_that_never_comes_is_not_waited_for_for_ever(up):
    running = load(up, f"service/{up.cluster}/nothing", "--wait", "1500ms", "--for", "1s")
    out, err = running.communicate(timeout=20)
    assert running.returncode == 1 and out == ""
    assert "nothing" in err.splitlines()[-1], err
