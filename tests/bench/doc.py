"""Puts the table of bench-out/bench.json, or of the file that is named, into docs/performance.md between its two marks."""

import json
import pathlib
import sys

sys.dont_write_bytecode = True

from table import table

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main():
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench-out" / "bench.json"
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        raise SystemExit(f"there is no {path}: make bench writes it, when it is asked for all figures")
    if told.get("schema") != 1:
        raise SystemExit(f"{path} is of schema {told.get('schema')}, this knows 1: run make bench again")
    text = DOC.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{DOC} has lost its marks: {BEGIN} and {END}, once each")
    head, rest = text.split(BEGIN)
    DOC.write_text(f"{head}{BEGIN}\n{table(told)}{END}{rest.split(END)[1]}")
    print(f"{DOC.relative_to(ROOT)} has the figures of {told['machine']['at']}")


if __name__ == "__main__":
    main()
