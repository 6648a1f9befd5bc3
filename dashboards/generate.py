#!/usr/bin/env python3
"""Writes dashboards/*.json from dashboards/boards/. With --check it writes nothing and fails when a file is not what the source says.

Needs only Python's standard library. The same source gives the same bytes, so that a review sees what changed.
"""

import argparse
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True


def rendered():
    """File name -> text."""
    import boards
    return {name: json.dumps(board, indent=1, ensure_ascii=False) + "\n" for name, board in boards.files().items()}


def differences(directory):
    """What in the directory is not as the source says, a line for each file."""
    wanted = rendered()
    for name in sorted({*wanted, *(path.name for path in directory.glob("*.json"))}):
        path = directory / name
        if name not in wanted:
            yield f"{path}: no board makes this file; remove it, or add a module to dashboards/boards/__init__.py"
        elif not path.exists():
            yield f"{path}: is missing"
        elif path.read_text(encoding="utf-8") != wanted[name]:
            yield f"{path}: is not what its board makes"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    parser.add_argument("--directory", type=pathlib.Path, default=HERE, help="where the files are (default: beside this program)")
    arguments = parser.parse_args()
    if arguments.check:
        found = list(differences(arguments.directory))
        for line in found:
            print(line, file=sys.stderr)
        if found:
            print("run: python3 dashboards/generate.py", file=sys.stderr)
        return 1 if found else 0
    for name, text in rendered().items():
        (arguments.directory / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
