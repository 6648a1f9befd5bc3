#!/usr/bin/env python3
"""Crash tests on real processes and real Docker: kills Beaufort in many ways while clients change things, and judges it from outside.

  tests/crash/run.py --kills 100                 a hundred kills, half of them with agents of their own
  tests/crash/run.py --for 2h                    as long as that, world after world
  tests/crash/run.py --seed 7 --mode split       that one again
  tests/crash/run.py --only torn --kills 20      one fate alone
"""

import argparse
import json
import pathlib
import random
import re
import subprocess
import sys
import time

import fates
import story

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = {"s": 1, "m": 60, "h": 3600}


def duration(text):
    found = re.fullmatch(r"(\d+)([smh]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is no duration: 90s, 30m or 8h")
    return int(found[1]) * UNITS[found[2] or "s"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=None, help="the beaufort to test; without it the newest one that cargo built here")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="kills in all (100)")
    parser.add_argument("--for", dest="length", type=duration, metavar="DURATION", help="world after world for this long (90s, 30m, 8h)")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="what decides; a run without it draws one and says it")
    parser.add_argument("--mode", choices=["up", "split", "both"], default="both", help="one process, a server with agents, or both in turn")
    parser.add_argument("--only", metavar="KIND", choices=sorted(fates.SPLIT), help="one fate alone: " + ", ".join(sorted(fates.SPLIT)))
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    return parser.parse_args()


def binary(given):
    found = [given] if given else sorted(ROOT.glob("target/*/*/beaufort"), key=lambda p: p.stat().st_mtime)
    if not found:
        sys.exit("no beaufort to test: cargo build, or --binary")
    subprocess.run([found[-1], "--version"], check=True, capture_output=True)
    return found[-1]


def main():
    args = arguments()
    path, seed = binary(args.binary), args.seed if args.seed is not None else random.SystemRandom().randrange(1_000_000)
    end = time.monotonic() + args.length if args.length else None
    modes = ["up", "split"] if args.mode == "both" else [args.mode]
    results, began = [], time.monotonic()

    def say(text):
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text[:150]}", end="", file=sys.stderr, flush=True)
        elif not args.json:
            print(text, flush=True)

    while True:
        for mode in modes:
            if args.only and args.only not in (fates.SPLIT if mode == "split" else fates.SINGLE):
                continue
            told = story.run(path, seed, kills=args.kills // len(modes) or 1, split=mode == "split", only=args.only, say=say, until=end)
            results.append(told)
            if not args.json:
                print(f"{'BREACH' if told.breach else 'fine  '} {json.dumps(told.row())}", flush=True)
            if told.breach:
                print(f"seed {seed} --mode {mode} broke a promise:\n" + "\n".join(told.story), file=sys.stderr)
                break
        if results[-1].breach or end is None or time.monotonic() >= end:
            break
        seed += 1
    total = {
        "seconds": round(time.monotonic() - began), "worlds": len(results), "kills": sum(t.kills for t in results),
        "acknowledged": sum(t.acknowledged for t in results), "in_doubt": sum(t.doubted for t in results),
        "breaches": sum(bool(t.breach) for t in results), "worlds_in_detail": [t.row() for t in results],
    }
    if args.json:
        print(json.dumps(total, indent=1))
    else:
        print("{kills} kills, {acknowledged} changes acknowledged, {in_doubt} in doubt, {breaches} breaches, {seconds} s".format(**total))
    return 1 if total["breaches"] else 0


if __name__ == "__main__":
    sys.exit(main())
