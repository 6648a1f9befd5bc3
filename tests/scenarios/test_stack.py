"""The demo stack in compose/: what its files say is checked by the programs that read them, mistakes in them are caught, and the whole
of it runs once on real Docker, offline, from nothing to a scaled service and back to nothing."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import uuid

import pytest
import yaml

from conftest import BINARY, ROOT, clean_docker, docker, free_port, until

COMPOSE = ROOT / "compose"
FILE = COMPOSE / "compose.yaml"
STACK = COMPOSE / "stack.sh"
CONFIGS = ["prometheus.yml", "prometheus-longterm.yml"]
# What make images of their own shell: the others have no program to ask with, so that they can have no health check.
WITHOUT_SHELL = {"loki"}
# Commands that end by themselves.
ONE_SHOT = {"deploy", "load", "load-api"}


def tool(name):
    found = shutil.which(name) or shutil.which(name, path=ROOT / ".cache" / "bin")
    assert found, f"{name} is missing: tests/setup.sh unpacks it"
    return found


def sh(*command, **more):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, **more)


def composes():
    """Every Compose of this machine; one at least."""
    found = [["docker", "compose"]] if sh("docker", "compose", "version").returncode == 0 else []
    found += [["docker-compose"]] if shutil.which("docker-compose") else []
    return found


def filled(text, env):
    """What Compose makes of ${NAME}, ${NAME:-default} and ${NAME-default}."""

    def value(match):
        name, operator, default = match.groups()
        given = env.get(name)
        return default or "" if given is None or (operator == ":-" and not given) else given

    return re.sub(r"\$\{(\w+)(?:(:?-)([^}]*))?\}", value, text).replace("$$", "$")


def document(env=None):
    return yaml.safe_load(filled(FILE.read_text(), env or {}))


def problems(stack):
    """What this repository asks of its compose file beyond what Compose itself does, in sentences."""
    said = []
    for key in set(stack) - {"services", "networks", "volumes", "secrets"}:
        if not key.startswith("x-"):
            said.append(f"{key} at the top is not understood by docker-compose 1.29")
    for name, service in stack["services"].items():
        say = lambda text, name=name: said.append(f"{name}: {text}")  # noqa: E731
        tag = service.get("image", "").rpartition(":")[2]
        if not re.fullmatch(r"v?\d+\.\d+\.\d+", tag):
            say(f"the image {service.get('image')} is not pinned to a release")
        for port in service.get("ports", []):
            if not (isinstance(port, str) and re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)):
                say(f"port {port} is not published on 127.0.0.1 alone")
        environment = service.get("environment", {})
        for key, text in environment.items():
            if re.search(r"PASSWORD|TOKEN|SECRET|_KEY", key) and not key.endswith("_FILE"):
                say(f"{key} may hold a secret")
            if re.search(r"://[^/@]+:[^/@]+@", str(text)):
                say(f"{key} holds credentials")
        if service.get("privileged"):
            say("it is privileged")
        if set(service.get("logging", {}).get("options", {})) != {"max-size", "max-file"}:
            say("its log has no bound")
        if name not in ONE_SHOT:
            if service.get("restart") != "unless-stopped":
                say("it does not come back after a crash")
            if "mem_limit" not in service:
                say("its memory has no bound")
            if ("healthcheck" in service) == (name in WITHOUT_SHELL):
                say("a health check is missing, or there is one that cannot run")
        for key in {"start_interval"} & set(service.get("healthcheck", {})):
            say(f"healthcheck.{key} is not understood by docker-compose 1.29")
        conditions = service.get("depends_on", {})
        if not isinstance(conditions, dict) or any(set(c) != {"condition"} for c in conditions.values()):
            say("depends_on must say conditions, and nothing else")
        for other, condition in conditions.items() if isinstance(conditions, dict) else []:
            if condition.get("condition") == "service_healthy" and "healthcheck" not in stack["services"].get(other, {}):
                say(f"it waits for the health of {other}, which has no health check")
    return said


def model(stack):
    """The Compose specification as an independent parser understands it; extension keys cannot hide misspelt ones."""
    if sys.version_info < (3, 10):
        pytest.skip("compose-spec, the parser of the Compose specification, needs Python 3.10")
    import compose_spec

    return compose_spec.PyCompose.from_json(json.dumps(stack))


def test_the_compose_file_is_understood_by_every_compose(tmp_path):
    assert composes(), "there is neither 'docker compose' nor docker-compose: install one of them"
    env = {**os.environ, "BEAUFORT_SECRETS": str(tmp_path), "BEAUFORT_NETWORK": "another", "BEAUFORT_PORT": "14566"}
    (tmp_path / "webhook-token").write_text("x")
    for compose in composes():
        base = [*compose, "--project-directory", COMPOSE, "-f", FILE]
        plain = sh(*base, "--profile", "logs", "--profile", "longterm", "config", env=env)
        assert plain.returncode == 0, plain.stderr
        seen = yaml.safe_load(plain.stdout)
        assert set(seen["services"]) == set(document()["services"])
        assert seen["networks"]["default"]["name"] == "another"
        # Profiles are what is left out of a bare `up`.
        without = yaml.safe_load(sh(*base, "config", env=env).stdout)["services"]
        if compose != ["docker-compose"]:  # 1.29 shows them all the same
            assert set(seen["services"]) - set(without) == {"loki", "victoriametrics"}
        # And both refuse what is wrong.
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(FILE.read_text().replace("condition: service_healthy", "condition: healthy"))
        assert sh(*base[:-1], wrong, "config", env=env).returncode != 0


def test_the_compose_file_is_what_the_specification_says():
    named = model(document()).service_names()
    assert set(named) == set(document()["services"])


def test_every_image_is_pinned_ports_are_loopback_and_no_secret_is_in_the_file():
    assert problems(document()) == []
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert document()["services"]["beaufort"]["image"] == f"beaufort:{version}"


SEEDED = {
    "an image without a tag": lambda s: s["services"]["grafana"].update(image="grafana/grafana"),
    "the newest image": lambda s: s["services"]["jaeger"].update(image="jaegertracing/jaeger:latest"),
    "a port for everybody": lambda s: s["services"]["prometheus"].update(ports=["9090:9090"]),
    "a port on 0.0.0.0": lambda s: s["services"]["prometheus"].update(ports=["0.0.0.0:9090:9090"]),
    "a token in the file": lambda s: s["services"]["beaufort"]["environment"].update(BEAUFORT_WEBHOOK_TOKEN="abcdefgh"),
    "a password in an address": lambda s: s["services"]["load"]["environment"].update(BEAUFORT_ENDPOINT="http://a:b@beaufort:4566"),
    "all privileges": lambda s: s["services"]["beaufort"].update(privileged=True),
    "an endless log": lambda s: s["services"]["load"].pop("logging"),
    "endless memory": lambda s: s["services"]["beaufort"].pop("mem_limit"),
    "gone after a crash": lambda s: s["services"]["alertmanager"].update(restart="no"),
    "nobody knows its health": lambda s: s["services"]["prometheus"].pop("healthcheck"),
    "a check without a shell": lambda s: s["services"]["loki"].update(healthcheck={"test": ["CMD", "wget", "x"]}),
    "waiting for health that nobody tells": lambda s: s["services"]["beaufort"].pop("healthcheck"),
    "a list of dependencies": lambda s: s["services"]["load"].update(depends_on=["deploy"]),
    "a name at the top": lambda s: s.update(name="beaufort"),
    "what 1.29 does not know": lambda s: s["services"]["beaufort"]["healthcheck"].update(start_interval="1s"),
}


@pytest.mark.parametrize("mistake", SEEDED)
def test_a_mistake_is_caught(mistake):
    stack = document()
    SEEDED[mistake](stack)
    assert problems(stack)


MISSHAPEN = {
    "a misspelt key": lambda s: s["services"]["load"].update(imge="x"),
    "a misspelt part": lambda s: s.update(servcies={}),
    "a condition that is none": lambda s: s["services"]["load"]["depends_on"]["deploy"].update(condition="completed"),
    "a port that is none": lambda s: s["services"]["prometheus"].update(ports=["127.0.0.1:99999:9090"]),
    "a time that is none": lambda s: s["services"]["beaufort"]["healthcheck"].update(interval="1 second"),
    "a size that is none": lambda s: s["services"]["beaufort"].update(mem_limit="much"),
}


@pytest.mark.parametrize("mistake", MISSHAPEN)
def test_what_the_specification_does_not_say_is_refused(mistake):
    stack = document()
    MISSHAPEN[mistake](stack)
    with pytest.raises(ValueError):
        model(stack)


def prometheus_copy(config, to):
    """A Prometheus configuration with the paths of the container turned into this machine's."""
    text = (COMPOSE / config).read_text()
    assert text.count("/etc/prometheus/rules/") == 1
    copied = to / config
    copied.write_text(text.replace("/etc/prometheus/rules/", f"{ROOT}/alerts/"))
    return copied


@pytest.mark.parametrize("config", CONFIGS)
def test_prometheus_takes_its_configuration_and_its_rules(config, tmp_path):
    copied = prometheus_copy(config, tmp_path)
    good = sh(tool("promtool"), "check", "config", copied)
    assert good.returncode == 0, good.stdout + good.stderr
    # Both files of rules were found by the pattern, and read.
    assert {"beaufort.rules.yml", "scaling.rules.yml"} <= set(re.findall(r"[a-z]+\.rules\.yml", good.stdout + good.stderr))
    copied.write_text(copied.read_text().replace("refresh_interval", "refresh_every"))
    assert sh(tool("promtool"), "check", "config", copied).returncode != 0


def test_the_long_term_configuration_is_the_plain_one_and_remote_write():
    plain, longer = [(COMPOSE / name).read_text() for name in CONFIGS]
    assert longer.startswith(plain)
    assert set(yaml.safe_load(longer)) - set(yaml.safe_load(plain)) == {"remote_write"}


def route(**labels):
    pairs = [f"{name}={value}" for name, value in labels.items()]
    return sh(tool("amtool"), "config", "routes", "test", f"--config.file={COMPOSE / 'alertmanager.yml'}", *pairs).stdout.strip()


def test_alertmanager_takes_its_configuration_and_sends_what_scales_to_beaufort(tmp_path):
    config = COMPOSE / "alertmanager.yml"
    good = sh(tool("amtool"), "check-config", config)
    assert good.returncode == 0, good.stdout + good.stderr
    wrong = tmp_path / "alertmanager.yml"
    wrong.write_text(config.read_text().replace("send_resolved", "send_solved"))
    assert sh(tool("amtool"), "check-config", wrong).returncode != 0
    assert route(beaufort_action="scale", cluster="demo", service="web", policy="requests-out", severity="none") == "beaufort"
    assert route(beaufort_action="heartbeat", alertname="BeaufortWatchdog") == "beaufort"
    assert route(alertname="BeaufortServiceDown", severity="critical") == "shown-only"


def test_beaufort_is_told_how_often_alertmanager_repeats():
    config = yaml.safe_load((COMPOSE / "alertmanager.yml").read_text())
    (url,) = [w["url"] for r in config["receivers"] for w in r.get("webhook_configs", [])]
    sent = [r for r in config["route"]["routes"] if r["receiver"] == "beaufort"]
    assert {f"repeat_interval={r['repeat_interval']}" for r in sent} == {url.partition("?")[2]}
    # What a group is made of is what tells one policy of a service from another.
    (scale,) = [r for r in sent if "scale" in str(r["matchers"])]
    assert {"cluster", "service", "policy"} <= set(scale["group_by"])


def test_every_name_in_the_configurations_is_a_service_of_the_stack():
    services = document()["services"]
    texts = [COMPOSE / "alertmanager.yml", COMPOSE / "grafana" / "provisioning" / "datasources" / "datasources.yaml"]
    texts += [COMPOSE / name for name in CONFIGS]
    named = {n for text in texts for n in re.findall(r"https?://([a-z-]+):\d+", text.read_text())}
    jobs = yaml.safe_load((COMPOSE / CONFIGS[0]).read_text())["scrape_configs"]
    named |= {t.partition(":")[0] for j in jobs for s in j.get("static_configs", []) for t in s["targets"]}
    assert named - {"localhost"} <= set(services) and {"beaufort", "prometheus", "load"} <= named
    assert {"prometheus", "alertmanager", "jaeger", "loki", "victoriametrics"} <= named


def test_grafana_is_given_the_sources_and_the_dashboards():
    provisioning = COMPOSE / "grafana" / "provisioning"
    sources = {s["uid"]: s for s in yaml.safe_load((provisioning / "datasources" / "datasources.yaml").read_text())["datasources"]}
    assert set(sources) == {"prometheus", "alertmanager", "traces", "loki", "cloudwatch", "longterm"}
    scraped = yaml.safe_load((COMPOSE / CONFIGS[0]).read_text())["global"]["scrape_interval"]
    assert sources["prometheus"]["jsonData"]["timeInterval"] == scraped, "$__rate_interval would be wrong"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "dashboards.yaml").read_text())["providers"]
    mounts = dict(v.split(":")[:2][::-1] for v in document()["services"]["grafana"]["volumes"])
    shown = (COMPOSE / mounts[provider["options"]["path"]]).resolve()
    assert shown == ROOT / "dashboards"
    home = document()["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (shown / pathlib.Path(home).name).exists()
    wanted = {v["query"] for f in shown.glob("*.json") for v in json.loads(f.read_text())["templating"]["list"] if v["type"] == "datasource"}
    assert "prometheus" in wanted and wanted <= {s["type"] for s in sources.values()}


def test_the_scaling_rules_name_policies_that_are_deployed():
    wanted = json.loads((COMPOSE / "services.json").read_text())
    deployed = {(p["ResourceId"], p["PolicyName"]) for p in wanted["scalingPolicies"]}
    groups = yaml.safe_load((ROOT / "alerts" / "scaling.rules.yml").read_text())["groups"]
    rules = [r for g in groups for r in g["rules"] if r.get("labels", {}).get("beaufort_action") == "scale"]
    assert {"requests-out", "requests-in"} == {r["labels"]["policy"] for r in rules}
    for policy in ("requests-out", "requests-in"):
        assert ("service/demo/web", policy) in deployed
    assert document()["services"]["beaufort"]["environment"]["BEAUFORT_CLUSTER"] == "demo"


@pytest.mark.parametrize("profile", sorted((COMPOSE / "load").glob("*.profile")), ids=lambda p: p.stem)
def test_the_generator_reads_every_profile(profile, tmp_path):
    def refused(file):
        # The profile is read before the target, which is no target.
        run = sh(BINARY, "load", "nowhere", "--profile", file)
        assert run.returncode == 1
        return run.stderr

    assert "is no profile" not in refused(profile) and "nowhere" in refused(profile)
    wrong = tmp_path / "wrong.profile"
    wrong.write_text(profile.read_text() + "more 10 forever\n")
    assert "is no profile" in refused(wrong)


# ------------------------------------------------------------------------------------------------------ what stack.sh says of trouble


@pytest.fixture
def stack_env(tmp_path):
    """A stack of its own: project, network, ports, image and secrets."""
    name = "beaufort-test-" + uuid.uuid4().hex[:8]
    ports = {p: str(free_port()) for p in ("BEAUFORT_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT")}
    return {**os.environ, **ports, "COMPOSE_PROJECT_NAME": name, "BEAUFORT_NETWORK": name, "BEAUFORT_IMAGE": f"{name}:0.0.0",
            "BEAUFORT_SECRETS": str(tmp_path / "secrets"), "BINARY": BINARY, "OFFLINE": "1", "LOAD_PROFILE": "short"}


def path_without(to, *names):
    """A PATH with every program of this machine but those."""
    to.mkdir()
    for directory in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in pathlib.Path(directory).glob("*"):
            if program.name not in names:
                (to / program.name).unlink(missing_ok=True)
                (to / program.name).symlink_to(program)
    return str(to)


TROUBLE = {
    "no docker": (lambda e, tmp: e.update(PATH=path_without(tmp / "bin", "docker")), "no docker on the PATH"),
    "Docker is away": (lambda e, tmp: e.update(DOCKER_HOST="unix:///nonexistent/docker.sock"), "Docker does not answer"),
    "Docker is elsewhere": (lambda e, tmp: e.update(DOCKER_HOST="tcp://127.0.0.1:1"), "mounts files of this machine"),
    "no compose": (lambda e, tmp: e.update(PATH=path_without(tmp / "bin", "docker-compose"), DOCKER_CONFIG=str(tmp)), "neither"),
    "no program": (lambda e, tmp: e.update(BINARY="/nonexistent"), "make image builds it"),
    "no such profile": (lambda e, tmp: e.update(PROFILES="longterms"), "there is no profile longterms"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_is_told_before_anything_is_made(trouble, stack_env, tmp_path):
    seed, said = TROUBLE[trouble]
    if trouble == "no compose" and ["docker", "compose"] in composes():
        pytest.skip("Compose is a plugin of this machine's docker and cannot be hidden")
    seed(stack_env, tmp_path)
    run = sh(STACK, "up", env=stack_env)
    assert run.returncode == 1 and said in run.stderr, run.stdout + run.stderr
    assert not (tmp_path / "secrets").exists()


def test_a_taken_port_is_told_by_name(stack_env, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack_env["PROMETHEUS_PORT"] = str(taken.getsockname()[1])
        run = sh(STACK, "up", env=stack_env)
    assert run.returncode == 1 and "which prometheus needs, is taken" in run.stderr and "PROMETHEUS_PORT=" in run.stderr
    assert not (tmp_path / "secrets").exists()


def test_a_network_of_somebody_else_is_not_taken(stack_env, tmp_path):
    docker("network", "create", stack_env["BEAUFORT_NETWORK"])
    try:
        run = sh(STACK, "up", env=stack_env)
    finally:
        docker("network", "rm", stack_env["BEAUFORT_NETWORK"])
    assert run.returncode == 1 and "there is a Docker network" in run.stderr and "BEAUFORT_NETWORK=" in run.stderr
    assert not (tmp_path / "secrets").exists()


def test_down_leaves_what_is_not_the_stacks(stack_env, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "mine").write_text("keep")
    (secrets / "webhook-token").write_text("the stack's")
    run = sh(STACK, "down", env=stack_env)
    assert run.returncode == 0, run.stderr
    assert [f.name for f in secrets.iterdir()] == ["mine"]


# ---------------------------------------------------------------------------------------------------------- the whole, on real Docker


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        body = answer.read()
        return json.loads(body) if "json" in answer.headers.get("content-type", "") else body.decode()


class Stack:
    """What the stack of an environment has made, as Docker and its ports tell."""

    def __init__(self, env):
        self.env, self.name = env, env["COMPOSE_PROJECT_NAME"]
        self.installation = None

    def run(self, command):
        run = sh(STACK, command, env=self.env)
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        return run.stdout

    def container(self, service):
        labels = [f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}"]
        return docker("ps", "-aq", *(a for label in labels for a in ("--filter", f"label={label}")))

    def tasks(self, service):
        """The containers of a service's tasks that run, with their addresses on the stack's network."""
        labels = [f"beaufort.installation={self.installation}", f"beaufort.service={service}"]
        ids = docker("ps", "-q", *(a for label in labels for a in ("--filter", f"label={label}"))).split()
        rows = json.loads(sh("docker", "inspect", *ids).stdout or "[]") if ids else []
        return [row["NetworkSettings"]["Networks"][self.name]["IPAddress"] for row in rows]

    def beaufort(self, path):
        return get(self.env["BEAUFORT_PORT"], path)

    def query(self, expression):
        answer = get(self.env["PROMETHEUS_PORT"], "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]

    def left(self):
        """Everything on Docker that is this stack's, its Beaufort's tasks and images among it."""
        labels = [f"com.docker.compose.project={self.name}"]
        labels += [f"beaufort.installation={self.installation}"] if self.installation else []
        # Containers have the labels of their images, and another stack may run the same stand-ins: these two are looked for on images only.
        of_images = [f"beaufort.stack={self.name}", f"beaufort.standin={self.name}"]
        kinds = {"container": ["ps", "-aq"], "network": ["network", "ls", "-q"], "volume": ["volume", "ls", "-q"], "image": ["images", "-q"]}
        return [(kind, label, found) for kind, command in kinds.items() for label in labels + (of_images if kind == "image" else [])
                for found in docker(*command, "--filter", f"label={label}").split()]


@pytest.fixture
def stack(stack_env):
    stack = Stack(stack_env)
    yield stack
    # Whatever became of the test: Docker is left as it was found.
    sh(STACK, "down", env=stack_env)
    for kind, label, found in stack.left():
        if kind == "image":
            sh("docker", "rmi", "-f", found)
        else:
            clean_docker(label)


def test_load_scales_the_stack_out_and_in_and_nothing_is_left(stack, tmp_path):
    references = [f"prom/{n}:{stack.env.get(n.upper() + '_TAG', default)}" for n, default in (("prometheus", "v3.14.0"), ("alertmanager", "v0.34.0"))]
    before = [sh("docker", "image", "inspect", "--format", "{{.Id}}", r).stdout for r in references]
    began = time.monotonic()
    said = stack.run("up")
    up_after = time.monotonic() - began
    assert "left out" in said and "grafana/grafana" in said and "jaegertracing/jaeger" in said
    health = stack.beaufort("/health")
    stack.installation = health["installation"]
    assert health["cluster"] == "demo" and health["status"] == "ok"

    # Load up: the rule fires, Alertmanager tells Beaufort, and more real containers run.
    until("a second container of web", lambda: len(stack.tasks("web")) >= 2, within=60)
    scaled_after = time.monotonic() - began
    addresses = stack.tasks("web")
    scraped = until("Prometheus scrapes each task by its own address",
                    lambda: [m for m, up in stack.query('up{job="tasks",cluster="demo",service="web"}') if up == 1
                             and len(stack.query('up{job="tasks",service="web"} == 1')) >= 2], within=20)
    assert {m["instance"].partition(":")[0] for m in scraped} & set(addresses) and all(m["task"] for m in scraped)
    metrics = stack.beaufort("/metrics")
    counts = {m[1]: float(m[2]) for m in re.finditer(r'^beaufort_webhook_alerts_total\{outcome="(\w+)"\} (\S+)', metrics, re.M)}
    assert counts["opened"] >= 1 and counts["unknown"] == counts["refused"] == 0, counts
    why = sh("docker", "exec", stack.container("beaufort"), "/beaufort", "why", "service/demo/web").stdout
    assert "requests-out" in why and re.search(r"desired 1 -> [2-8]", why), why

    # Alertmanager is restarted in the middle. What it had told is not lost: the end of the breach still arrives.
    docker("restart", stack.container("alertmanager"))
    most = until("the load is over its peak", lambda: stack.query("beaufort_load_wanted_rate{service=\"web\"} <= 10") and len(stack.tasks("web")), within=60)

    # Load down: fewer.
    until("fewer containers of web", lambda: len(stack.tasks("web")) < most, within=60)
    fewer_after = time.monotonic() - began
    why = sh("docker", "exec", stack.container("beaufort"), "/beaufort", "why", "service/demo/web").stdout
    assert "requests-in" in why, why

    # The token went from one file to two containers, and into nothing that is shown.
    token = (tmp_path / "secrets" / "webhook-token").read_text().strip()
    assert len(token) >= 32 and (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    for service in ("beaufort", "alertmanager"):
        seen = sh("docker", "logs", stack.container(service))
        assert token not in seen.stdout + seen.stderr + docker("inspect", stack.container(service))

    began_down = time.monotonic()
    assert stack.left()
    stack.run("down")
    assert stack.left() == [] and not (tmp_path / "secrets").exists()
    assert [sh("docker", "image", "inspect", "--format", "{{.Id}}", r).stdout for r in references] == before
    print(f"stack up {up_after:.1f} s, scaled {scaled_after:.1f} s, in again {fewer_after:.1f} s, down {time.monotonic() - began_down:.1f} s")
