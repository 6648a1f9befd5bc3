#!/usr/bin/env bash
# The figures of a release build, each beside its reference: tests/bench.sh [BINARY] [FIGURE...]; make bench ONLY="thirty metrics"
# One table on the terminal and in bench-out/bench.md, and all values in bench-out/bench.json.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-target/$(rustc -vV | sed -n 's/^host: //p')/release/beaufort}
shift || true
need() { command -v "$1" >/dev/null || { echo "the benchmarks need $1: $2" >&2; exit 1; }; }
need python3 "install Python 3.11 or newer"
need docker "install Docker Engine and start it"
[ -x "$binary" ] || { echo "there is no $binary: make release builds it" >&2; exit 1; }
# Prometheus and Alertmanager, for the figure that goes through them.
tests/setup.sh
# Nothing but Python's standard library: a client of one's own costs less than an SDK, and these figures are not the SDK's.
exec python3 tests/bench/run.py "$binary" "$@"
