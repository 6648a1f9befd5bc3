"""A dockerd of our own: own data root, own socket, own network namespace. It can be killed; the machine's is never touched."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from world import Docker, until


class Dockerd:
    """In a network namespace of its own, as a dockerd takes a host's bridge and firewall for its own."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="beaufort-dockerd-"))
        self.socket = str(self.dir / "docker.sock")
        (self.dir / "daemon.json").write_text("{}")
        self.process = None

    @property
    def host(self):
        return f"unix://{self.socket}"

    @staticmethod
    def missing():
        """Why there can be none here, or None."""
        if os.geteuid() != 0:
            return "a dockerd of our own needs root"
        for program in ("dockerd", "containerd", "unshare"):
            if not shutil.which(program):
                return f"a dockerd of our own needs {program}"
        if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
            return "network namespaces cannot be made here"
        return None

    def start(self):
        driver = subprocess.run(["docker", "info", "--format", "{{.Driver}}"], capture_output=True, text=True).stdout.strip() or "vfs"
        with open(self.dir / "dockerd.log", "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", "dockerd", "--config-file", str(self.dir / "daemon.json"), "--host", self.host, "--data-root", str(self.dir / "root"),
                 "--exec-root", str(self.dir / "exec"), "--pidfile", str(self.dir / "pid"), "--iptables=false", "--bridge=none", "--storage-driver", driver],
                stdout=log, stderr=log)

        def answers():
            if self.process.poll() is not None:
                raise RuntimeError("our dockerd ended: " + (self.dir / "dockerd.log").read_text()[-600:])
            try:
                return Docker(self.socket).ask("GET", "/_ping")
            except OSError:
                return False

        until("our dockerd answers", answers, 60, 0.1)
        return self

    def stop(self, number=signal.SIGTERM):
        """SIGTERM ends its containers with it; SIGKILL leaves them for the next one."""
        self.process.send_signal(number)
        self.process.wait(timeout=60)
        if number == signal.SIGKILL:
            # Its containerd goes with it; pid files of both are left, and the next one would take a zombie for alive.
            containerd = self.dir / "exec" / "containerd" / "containerd.pid"
            try:
                os.kill(int(containerd.read_text()), signal.SIGKILL)
            except (OSError, ValueError):
                pass
            containerd.unlink(missing_ok=True)
            (self.dir / "pid").unlink(missing_ok=True)

    def end(self):
        if self.process and self.process.poll() is None:
            self.stop()
        # A containerd, and shims, that a killed dockerd left: known by our own directory on their command line.
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if str(self.dir).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    pass
        for line in reversed(pathlib.Path("/proc/mounts").read_text().splitlines()):
            if (where := line.split()[1]).startswith(str(self.dir)):
                subprocess.run(["umount", "-l", where], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)
