#!/usr/bin/env bash
# Every level of test, and one line at the end that sums them up.
set -uo pipefail
cd "$(dirname "$0")/.."

tests/setup.sh || exit 1
cargo build --bin beaufort || exit 1
target=$(rustc -vV | sed -n 's/^host: //p')
export BEAUFORT_BIN=${CARGO_TARGET_DIR:-$PWD/target}/$target/debug/beaufort
export PATH=$PWD/.cache/bin:$PATH
log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "== unit, property, golden, wire, house and simulation tests; the Docker engine; the Rust CBOR client"
cargo test --no-fail-fast 2>&1 | tee "$log"
cargo_status=${PIPESTATUS[0]}
passed=$(awk '/^test result:/ {sum += $4} END {print sum + 0}' "$log")
failed=$(awk '/^test result:/ {sum += $6} END {print sum + 0}' "$log")

echo "== scenarios on real Docker with real clients"
.venv/bin/python -m pytest -q -p no:cacheprovider --timeout 240 tests/scenarios 2>&1 | tee "$log"
pytest_status=${PIPESTATUS[0]}
count() { grep -oE "[0-9]+ $1" "$log" | tail -n 1 | grep -oE '[0-9]+' || echo 0; }
passed=$((passed + $(count passed)))
failed=$((failed + $(count failed) + $(count error)))

# A build that broke has run no test, and that is no success.
if [ "$cargo_status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi
if [ "$pytest_status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
