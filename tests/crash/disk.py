"""A disk of its own that is full: a small tmpfs, where mounting is permitted."""

import os
import pathlib
import subprocess
import tempfile


class Tmpfs:
    def __init__(self, megabytes=32):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="beaufort-disk-"))
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "beaufort-crash", str(self.dir)], capture_output=True, text=True)
        if made.returncode:
            self.dir.rmdir()
            raise PermissionError(f"a tmpfs cannot be mounted here: {made.stderr.strip()}")
        self.ballast = self.dir / "ballast"

    @property
    def free(self):
        found = os.statvfs(self.dir)
        return found.f_bavail * found.f_bsize

    def fill(self, leave=0):
        """Takes all the space that is left, to the last block."""
        with open(self.ballast, "ab", buffering=0) as f:
            for size in (1 << 20, 1 << 12):
                block = b"\1" * size
                while self.free - leave >= size:
                    try:
                        f.write(block)
                    except OSError:
                        break

    def give_back(self):
        self.ballast.unlink(missing_ok=True)

    def end(self):
        subprocess.run(["umount", "-l", str(self.dir)], capture_output=True)
        self.dir.rmdir()
