"""Prometheus' HTTP service discovery of tasks: what is listed is what runs, and a real Prometheus scrapes it."""

import urllib.request

from conftest import IMAGE, answers, testbed, until
from monitoring import Prometheus


def web(**labels):
    """The sample service, which has metrics of its own, and labels that say where."""
    names = {f"prometheus.io/{name}": value for name, value in labels.items()}
    return {"name": "web", "image": IMAGE, "memory": 64, "command": ["web"], "portMappings": [{"containerPort": 8080}],
            "environment": [{"name": "WEB_PORT", "value": "8080"}], "dockerLabels": names}


def listed(b, query=""):
    return b.get("/sd/prometheus" + query)


def test_what_runs_is_listed_and_what_ends_is_not(up):
    b = up
    definition = b.register(web(scrape="true", port="8080"), family="shop")
    b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=definition, desiredCount=2)
    b.run(b.register(testbed("sleep", 60)))
    b.stable("web", 2)
    groups = until("two targets", lambda: (lambda g: g if len(g) == 2 else None)(listed(b)))
    for group in groups:
        labels = group["labels"]
        assert (labels["cluster"], labels["service"], labels["container"]) == (b.cluster, "web", "web")
        assert f"{labels['family']}:{labels['revision']}" == definition and labels["zone"] == "us-east-1a"
        metrics = f"http://{group['targets'][0]}/metrics"
        # It runs, and may listen a moment later.
        answers(metrics)
        with urllib.request.urlopen(metrics, timeout=5) as answer:
            assert b"app_requests_total" in answer.read()
    assert {g["labels"]["task"] for g in groups} == {a.split("/")[-1] for a in b.ecs.list_tasks(cluster=b.cluster, serviceName="web")["taskArns"]}
    assert [g["targets"][0].split(":")[0] for g in listed(b, "?host=gateway")] == ["gateway"] * 2
    assert listed(b, "?service=other") == []
    assert f'beaufort_discovered_targets{{cluster="{b.cluster}",service="web"}} 2' in b.get("/metrics")
    b.ecs.update_service(cluster=b.cluster, service="web", desiredCount=1)
    until("one target", lambda: len(listed(b)) == 1)


def test_labels_that_cannot_be_are_told(up):
    arn = up.run(up.register(web(port="http"), family="shop"))
    up.reach(arn, "RUNNING")
    assert listed(up) == []
    said = up.cli("gaps").stdout
    assert "shop:1/web" in said and 'prometheus.io/port is "http"' in said, said
    assert f'beaufort_discovery_skipped_targets{{cluster="{up.cluster}"}} 1' in up.get("/metrics")


def test_a_real_prometheus_scrapes_tasks_as_they_come_and_go(up, tmp_path):
    b = up
    definition = b.register(web(port="8080"), family="shop")
    b.ecs.create_service(cluster=b.cluster, serviceName="web", taskDefinition=definition, desiredCount=1)
    b.stable("web", 1)
    job = {"job_name": "tasks", "http_sd_configs": [{"url": f"{b.url}/sd/prometheus", "refresh_interval": "1s"}]}
    prometheus = Prometheus(tmp_path, [job], [])

    def all_scraped(count):
        """As many tasks as run are scraped with success, as Prometheus says itself."""
        rows = prometheus.query(f'up{{job="tasks",cluster="{b.cluster}",service="web",container="web"}} == 1')
        running = b.ecs.list_tasks(cluster=b.cluster, serviceName="web", desiredStatus="RUNNING")["taskArns"]
        return len(rows) == count and {row["metric"]["task"] for row in rows} == {arn.split("/")[-1] for arn in running}

    try:
        prometheus.start()
        until("the task is scraped", lambda: all_scraped(1), 30, 0.2)
        b.ecs.update_service(cluster=b.cluster, service="web", desiredCount=3)
        b.stable("web", 3)
        until("three are scraped", lambda: all_scraped(3), 30, 0.2)
        assert len(prometheus.query(f'app_requests_total{{cluster="{b.cluster}",code="200"}}')) == 3, "their own metrics, with our labels"
        b.ecs.update_service(cluster=b.cluster, service="web", desiredCount=1)
        until("one is left", lambda: all_scraped(1), 40, 0.2)
    finally:
        prometheus.stop()
