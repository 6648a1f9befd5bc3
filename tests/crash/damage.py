"""What an interrupted or lying disk leaves in files."""

import pathlib

# The files that are appended to, of each kind the one that was written last.
TAILS = {
    "metrics log": "metrics/wal-*",
    "metrics series": "metrics/series.log",
    "lines log": "logs/wal-*",
    "lines segment": "logs/seg-*",
    "state log": "state.sqlite-wal",
}


def newest(data, kind):
    """The file of this kind that is written to, or None where there is none yet."""
    files = sorted(p for p in pathlib.Path(data).glob(TAILS[kind]) if p.stat().st_size)
    return files[-1] if files else None


def torn(path, rng):
    """A record that was being written and never acknowledged: its beginning, or whatever was in those sectors before."""
    kind = rng.randrange(3)
    if kind == 0:
        tail = rng.randbytes(rng.randrange(1, 5_000))
    elif kind == 1:
        tail = bytes(rng.randrange(1, 9_000))
    else:
        # The beginning of a record of this very file, cut off in its head or right behind it.
        tail = path.read_bytes()[: rng.randrange(1, 12)]
    with open(path, "ab") as f:
        f.write(tail)
    return f"{len(tail)} torn bytes behind {path.name}"


def flip(path, rng, last=200):
    """A bit that the disk lost in what was acknowledged, near the end."""
    size = path.stat().st_size
    at = size - 1 - rng.randrange(min(last, size))
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ (1 << rng.randrange(8))]))
    return f"bit flipped in {path.name} at {at} of {size}"


def flip_at(path, at, length=16):
    """Damage at a place: bytes turned over."""
    with open(path, "r+b") as f:
        f.seek(at)
        bytes_there = f.read(length)
        f.seek(at)
        f.write(bytes(b ^ 0xFF for b in bytes_there))
