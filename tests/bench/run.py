"""Runs the figures one after the other, and leaves a table and all values in bench-out/ (bench.md and bench.json of all figures, some.md and
some.json of those that were asked for), and nothing else anywhere."""

import json
import math
import os
import pathlib
import sys
import time
import traceback

sys.dont_write_bytecode = True

import figures
from harness import LABEL, Beaufort, Docker, facts
from table import table

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "bench-out"
# A figure is begun only within this time; each takes a few minutes at most.
BEGIN_WITHIN_S = 40 * 60


def clean(images_before):
    for b in Beaufort.made:
        b.end()
    docker = Docker()
    docker.remove(LABEL)
    # A pause image is of one binary: an installation that was here before keeps its own.
    # The sample's image, too, if it was not here.
    for name in (Beaufort.pause_images | {"beaufort/demo:latest"}) - images_before:
        docker.ask("DELETE", f"/images/{name}", fine=(200, 404, 409))


def main():
    binary, wanted = os.path.abspath(sys.argv[1]), sys.argv[2:]
    Beaufort.binary = binary
    known = figures.all_figures()
    if wanted == ["list"]:
        print("\n".join(f"{name:<16} {group}" for name, (group, _) in known.items()))
        return 0
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"there is no figure {', '.join(unknown)}; there are {', '.join(known)}")
    # In the registry's order, so that the groups stay together.
    some = wanted
    wanted = [name for name in known if not some or name in some]
    images_before = {tag for image in Docker().ask("GET", "/images/json") for tag in image["RepoTags"] or []}
    machine, rows, broken, began = facts(binary), [], [], time.monotonic()
    try:
        for name in wanted:
            if time.monotonic() - began > BEGIN_WITHIN_S:
                broken.append(f"{name}: no time was left for it")
                continue
            print(f"{time.monotonic() - began:5.0f} s  {name}", file=sys.stderr, flush=True)
            try:
                group, measure = known[name]
                for row in measure():
                    row.group, row.figure = group, name
                    if row.values and all(math.isfinite(value) for value in row.values):
                        rows.append(row)
                    else:
                        broken.append(f"{name}: {row.what}: {row.values}")
            except Exception as error:
                traceback.print_exc()
                broken.append(f"{name}: {type(error).__name__}: {error}")
    finally:
        clean(images_before)
    machine["took_s"] = round(time.monotonic() - began)
    # As the registry orders the groups.
    groups = list(dict.fromkeys(group for group, _ in known.values()))
    rows.sort(key=lambda row: groups.index(row.group))
    told = {"schema": 1, "machine": machine, "figures": [row.as_json() for row in rows], "not_measured": broken}
    text = table(told)
    OUT.mkdir(exist_ok=True)
    # Some of the figures are no bench: docs/performance.md is made of all of them.
    name = "some" if some else "bench"
    (OUT / f"{name}.md").write_text(text)
    (OUT / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")
    print(text)
    # A goal that is missed is a finding; a figure that is not there is a fault.
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
