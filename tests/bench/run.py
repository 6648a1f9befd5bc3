"""Runs the figures one after the other, and leaves a table and all values in bench-out/, and nothing else anywhere."""

import json
import os
import pathlib
import sys
import time
import traceback

sys.dont_write_bytecode = True

import figures
from harness import LABEL, Beaufort, Docker, facts, median

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "bench-out"
# A figure is begun only within this time; each takes a minute at most.
BEGIN_WITHIN = 7 * 60


def number(value):
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.3f}"


def table(machine, rows):
    about = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in machine.items())
    text = [f"Measured on: {about}.", "", "| What | Goal | Measured | Least to most | Reference in the same run | Verdict | How |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        goal = "" if row.goal is None else f"{'≤' if row.at_most else '≥'} {number(row.goal) if row.goal < 1e3 else f'{row.goal:,.0f}'} {row.unit}"
        spread = f"{number(min(row.values))} to {number(max(row.values))} ({len(row.values)} runs)" if len(row.values) > 1 else ""
        cells = [row.what, goal, f"{number(median(row.values))} {row.unit}", spread, row.reference, row.verdict, row.note]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


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
    binary, wanted = os.path.abspath(sys.argv[1]), sys.argv[2:] or list(figures.FIGURES)
    unknown = [name for name in wanted if name not in figures.FIGURES]
    if unknown:
        raise SystemExit(f"there is no figure {', '.join(unknown)}; there are {', '.join(figures.FIGURES)}")
    Beaufort.binary = binary
    images_before = {tag for image in Docker().ask("GET", "/images/json") for tag in image["RepoTags"] or []}
    machine, rows, broken, began = facts(binary), [], [], time.monotonic()
    try:
        for name in wanted:
            if time.monotonic() - began > BEGIN_WITHIN:
                broken.append(f"{name}: no time was left for it")
                continue
            print(f"{time.monotonic() - began:5.0f} s  {name}", file=sys.stderr, flush=True)
            try:
                rows += figures.FIGURES[name]()
            except Exception as error:
                traceback.print_exc()
                broken.append(f"{name}: {type(error).__name__}: {error}")
    finally:
        clean(images_before)
    machine["took_s"] = round(time.monotonic() - began)
    text = table(machine, rows) + "".join(f"\nNot measured: {line}\n" for line in broken)
    OUT.mkdir(exist_ok=True)
    (OUT / "bench.md").write_text(text)
    as_json = [{"what": r.what, "goal": r.goal, "at_most": r.at_most, "unit": r.unit, "median": median(r.values), "values": r.values,
                "reference": r.reference, "verdict": r.verdict, "note": r.note} for r in rows]
    (OUT / "bench.json").write_text(json.dumps({"machine": machine, "figures": as_json, "not_measured": broken}, indent=1) + "\n")
    print(text)
    # A goal that is missed is a finding; a figure that is not there is a fault.
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
