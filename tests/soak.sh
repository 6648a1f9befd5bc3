#!/usr/bin/env bash
# New simulated worlds for half of SOAK, then real processes that are killed for the other half. Scripts of what failed are kept in
# soak/, one line at the end sums up. tests/soak.sh BINARY
set -uo pipefail
cd "$(dirname "$0")/.."

binary=${1:?the beaufort to test}
soak=${SOAK:-2h}
case $soak in
*h) seconds=$((${soak%h} * 3600)) ;;
*m) seconds=$((${soak%m} * 60)) ;;
*s) seconds=${soak%s} ;;
*) echo "SOAK=$soak is no time: write 30m or 8h" >&2; exit 2 ;;
esac
half=$((seconds / 2))
kept=${SOAK_DIR:-soak}
mkdir -p "$kept"
# Other seeds each time; SOAK_SEED repeats a run.
first=${SOAK_SEED:-$(date +%s)000}

echo "== simulated worlds from seed $first on for $half s: what fails is kept in $kept/"
"$binary" simulate --seeds "$first..$((first + 100000000))" --within "${half}s" --keep-going --shrink --save "$kept" \
    --threads "$(nproc)" | tee "$kept/simulate.txt"
worlds=${PIPESTATUS[0]}

crashes=skipped
if [ "${SOAK_CRASH:-1}" = 1 ]; then
    echo "== real processes, killed for $half s"
    PATH=$PWD/.cache/bin:$PATH .venv/bin/python tests/crash/run.py --binary "$binary" --for "${half}s" | tee "$kept/crash.txt"
    crashes=${PIPESTATUS[0]}
fi

told() {
    case $1 in
    0) echo held ;;
    skipped) echo skipped ;;
    *) echo broke ;;
    esac
}
echo "soak of $soak: simulated worlds $(told "$worlds"), killed processes $(told "$crashes"); $(find "$kept" -name '*.script' | wc -l) scripts in $kept/"
[ "$worlds" -eq 0 ] && { [ "$crashes" = 0 ] || [ "$crashes" = skipped ]; }
