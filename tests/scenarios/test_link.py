"""The agents' link, byte by byte: an agent of the first release, and connections that no agent makes."""

import base64
import json
import os
import pathlib
import socket
import struct
import time

from conftest import until

RECORDED = pathlib.Path(__file__).parents[2] / "src/frames/recorded-v1.txt"
TOKEN = "a-token-of-this-scenario"


class Socket:
    """A WebSocket client that hides nothing."""

    def __init__(self, port, token=TOKEN):
        self.tcp = socket.create_connection(("127.0.0.1", port), timeout=20)
        key = base64.b64encode(os.urandom(16)).decode()
        head = ["GET /agent/v1/link HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        head += [f"Sec-WebSocket-Key: {key}"] + ([f"Authorization: Bearer {token}"] if token else [])
        self.tcp.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.some()
        self.head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        self.status = int(self.head.split()[1])

    def some(self):
        got = self.tcp.recv(65536)
        if not got:
            raise ConnectionError("closed")
        return got

    def take(self, count):
        while len(self.rest) < count:
            self.rest += self.some()
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def send(self, payload, kind=1, length=None):
        length = len(payload) if length is None else length
        head = bytes([0x80 | kind])
        head += bytes([0x80 | length]) if length < 126 else bytes([0xFE]) + struct.pack(">H", length) if length < 65536 else bytes([0xFF]) + struct.pack(">Q", length)
        # A mask of zeros changes nothing.
        self.tcp.sendall(head + bytes(4) + payload)

    def frame(self):
        first, second = self.take(2)
        length = second & 127
        length = struct.unpack(">H", self.take(2))[0] if length == 126 else struct.unpack(">Q", self.take(8))[0] if length == 127 else length
        return first & 15, self.take(length)

    def hear(self):
        while True:
            kind, payload = self.frame()
            if kind == 1:
                return json.loads(payload)
            assert kind != 8, f"closed: {payload[2:].decode()}"

    def closed(self):
        """The words with which the server ends the connection."""
        try:
            while True:
                kind, payload = self.frame()
                if kind == 8:
                    return payload[2:].decode()
        except ConnectionError:
            return ""


def recorded(who):
    return [line.split(" ", 1)[1] for line in RECORDED.read_text().splitlines() if line.startswith(who + " ")]


def serve(make):
    return make("--agent-token", TOKEN, command="serve").start()


def hello(b, ahead=0.0, **more):
    said = json.loads(recorded("agent")[0])["Hello"]
    return json.dumps({"Hello": {**said, "cluster": b.cluster, "at": int((time.time() + ahead) * 1000), **more}}).encode()


def skew(b):
    lines = [line for line in b.get("/metrics").splitlines() if line.startswith("beaufort_instance_clock_skew_seconds{")]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else None


def test_an_agent_of_the_first_release_is_answered_in_its_words(make):
    b = serve(make)
    agent = Socket(b.port)
    assert agent.status == 101
    for line in recorded("agent"):
        agent.send(line.replace('"cluster":"default"', f'"cluster":"{b.cluster}"').encode())
    welcome, assign, stored = agent.hear(), agent.hear(), agent.hear()
    old = json.loads(recorded("server")[0])["Welcome"]
    assert set(old) <= set(welcome["Welcome"]) and welcome["Welcome"]["link_version"] == 1
    assert assign == {"Assign": {"generation": 1, "tasks": [], "resume": []}}
    assert stored["LinesStored"][0]["next"] > 1
    instance = b.ecs.describe_container_instances(cluster=b.cluster, containerInstances=[old["instance"]])["containerInstances"][0]
    assert instance["agentConnected"]


def test_connections_that_no_agent_makes_are_told_why(make):
    b = serve(make)
    for token in [None, "another-token-than-the-right-one"]:
        refused = Socket(b.port, token)
        words = refused.rest or refused.some()
        assert refused.status == 401 and b"wrong or missing agent token" in words, words
    for payload, kind, words in [(b"{", 1, "cannot be read"), (b"\x09\x00", 2, "a kind (9)"), (b"\x01\xff", 2, "ends early")]:
        agent = Socket(b.port)
        agent.send(hello(b))
        agent.hear()
        agent.send(payload, kind)
        why = agent.closed()
        assert words in why, why
    large = Socket(b.port)
    large.send(b"", length=1 << 30)
    assert "too large" in large.closed()
    other = Socket(b.port)
    other.send(hello(b, cluster="nowhere"))
    assert "there is no cluster nowhere" in other.hear()["Refused"]["why"]
    newer = Socket(b.port)
    newer.send(hello(b, link_version=7, link_newest=9))
    assert "the agent 7 to 9: update the server" in newer.hear()["Refused"]["why"]
    counted = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in b.get("/metrics").splitlines() if line.startswith("beaufort_agent_refusals_total")}
    for reason, count in {"token": 2, "unreadable": 3, "oversized": 1, "registration": 1, "version": 1}.items():
        assert counted[f'beaufort_agent_refusals_total{{reason="{reason}"}}'] == count, counted


def test_a_clock_an_hour_off_is_told_and_allowed_for(make):
    b = serve(make)
    agent = Socket(b.port)
    agent.send(hello(b, ahead=3600))
    instance = agent.hear()["Welcome"]["instance"]
    until("the difference is seen", lambda: (skew(b) or 0) > 3590, 10)
    told = b.cli("why", f"instance/{instance}").stdout
    assert "ahead of the server's" in told and "NTP" in told, told
