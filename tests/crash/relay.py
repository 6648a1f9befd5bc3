"""Between Beaufort and dockerd: cuts, hangs and answers with errors, so that dockerd itself is left alone."""

import os
import socket
import threading

REFUSAL = b'HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 36\r\nConnection: close\r\n\r\n{"message":"the relay says so, 500"}'


class Relay:
    """`mode`: pass, cut (no socket), hang (taken and never answered), errors (500 to every call)."""

    def __init__(self, path, far="/var/run/docker.sock"):
        self.path, self.far_path, self.mode = str(path), far, "pass"
        self.lock, self.pairs, self.server = threading.Lock(), [], None
        self.calls = 0
        self.listen()

    @property
    def host(self):
        return f"unix://{self.path}"

    def listen(self):
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen(64)
        threading.Thread(target=self.accept, args=(self.server,), daemon=True).start()

    def accept(self, server):
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near):
        self.calls += 1
        with self.lock:
            mode = self.mode
            self.pairs.append((near, None))
        try:
            if mode == "hang":
                # Until the mode changes, which closes it.
                while near.recv(65536):
                    pass
                return
            if mode == "errors":
                near.recv(65536)
                near.sendall(REFUSAL)
                near.close()
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self.far_path)
        except OSError:
            near.close()
            return
        with self.lock:
            self.pairs.append((near, far))
        other = threading.Thread(target=self.carry, args=(far, near), daemon=True)
        other.start()
        self.carry(near, far)

    def carry(self, a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def become(self, mode):
        """Whatever is under way is broken off."""
        with self.lock:
            before, self.mode = self.mode, mode
            pairs, self.pairs = self.pairs, []
        if mode == "cut" and before != "cut":
            self.server.close()
            os.unlink(self.path)
        for pair in pairs:
            for s in pair:
                if s:
                    try:
                        s.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
                    s.close()
        if before == "cut" and mode != "cut":
            self.listen()

    def end(self):
        self.become("cut")
