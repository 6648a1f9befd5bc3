"""Docker Swarm on the same engine, as the reference of starts and replacements; left as it was found."""

import json
import time
from urllib.parse import quote

from harness import LABEL, Docker, until

GATEWAY = "docker_gwbridge"


class Swarm:
    """A swarm of this one engine. Networks that it makes go with it."""

    def __init__(self):
        self.docker = Docker()
        self.services = {}

    def __enter__(self):
        state = self.docker.ask("GET", "/info")["Swarm"]["LocalNodeState"]
        if state != "inactive":
            raise RuntimeError(f"this engine is in a swarm already ({state}): it is left alone, so there is no reference")
        self.networks_before = self.networks()
        # Port 0 would be taken for the default one, too.
        self.docker.ask("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1:2377"})
        return self

    def networks(self):
        return {n["Name"] for n in self.docker.ask("GET", "/networks")}

    def __exit__(self, *_):
        for name in list(self.services):
            self.remove(name)
        self.docker.ask("POST", "/swarm/leave?force=1", {})
        until("the swarm is left", lambda: self.docker.ask("GET", "/info")["Swarm"]["LocalNodeState"] == "inactive", 60, 0.1)
        for name in self.networks() - self.networks_before:
            if name in (GATEWAY, "ingress"):
                self.docker.ask("DELETE", f"/networks/{name}", fine=(204, 404))

    def create(self, name, body, replicas):
        """A service of containers equal to this body; seconds until all of them run."""
        host = body["HostConfig"]
        container = {"Image": body["Image"], "Args": body.get("Cmd"), "Env": body.get("Env"), "Labels": {LABEL: "1"}}
        spec = {
            "Name": name, "Labels": {LABEL: "1"}, "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {
                "ContainerSpec": {k: v for k, v in container.items() if v},
                "Resources": {"Limits": {"MemoryBytes": host.get("Memory") or 0}},
                "LogDriver": {"Name": host["LogConfig"]["Type"], "Options": host["LogConfig"].get("Config") or {}},
            },
        }
        began = time.monotonic()
        self.services[name] = self.docker.ask("POST", "/services/create", spec)["ID"]
        until(f"{replicas} replicas run", lambda: len(self.running(name)) == replicas, 180, 0.02)
        return time.monotonic() - began

    def running(self, name):
        """The containers of its running tasks, by task."""
        filters = quote(json.dumps({"service": [name], "desired-state": ["running"]}))
        tasks = self.docker.ask("GET", f"/tasks?filters={filters}")
        return {t["ID"]: t["Status"]["ContainerStatus"]["ContainerID"] for t in tasks if t["Status"]["State"] == "running"}

    def remove(self, name):
        self.docker.ask("DELETE", f"/services/{self.services.pop(name)}", fine=(200, 204, 404))
        mine = quote(json.dumps({"label": [f"com.docker.swarm.service.name={name}"]}))
        until("its containers are gone", lambda: not self.docker.ask("GET", f"/containers/json?all=1&filters={mine}"), 180, 0.1)
