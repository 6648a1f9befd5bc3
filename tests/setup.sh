#!/usr/bin/env bash
# Sets up what the tests need, once: two Python environments with AWS's clients, and promtool. Says what is missing where it cannot.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { command -v "$1" >/dev/null || { echo "tests need $1: $2" >&2; exit 1; }; }
need cargo "install Rust, https://rustup.rs"
need python3 "install Python 3.9 or newer"
need docker "install Docker Engine and start it"
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || { echo "tests need a running Docker: start dockerd, and let this user reach its socket" >&2; exit 1; }

# A stamp holds the requirements it was made from, so that a change makes the environment anew.
venv() { # directory, requirements...
    local dir=$1; shift
    if [ ! -f "$dir/stamp" ] || [ "$(cat "$dir/stamp")" != "$*" ]; then
        echo "setting up $dir ($*)"
        rm -rf "$dir"
        python3 -m venv "$dir"
        "$dir/bin/pip" install --quiet --disable-pip-version-check "$@"
        echo "$*" > "$dir/stamp"
    fi
}
# The newest clients speak JSON to CloudWatch; the old ones query. Both live on people's machines.
venv .venv 'boto3>=1.44,<2' 'awscli>=1.46,<2' 'pytest>=8,<9' 'pytest-timeout>=2.3,<3' 'opentelemetry-proto>=1.30,<2'
venv .venv-old 'boto3<1.42' 'botocore<1.42'

if ! command -v promtool >/dev/null && [ ! -x .cache/bin/promtool ]; then
    need apt-get "install promtool (the Debian package prometheus, or prometheus.io) and put it on the PATH"
    echo "setting up promtool"
    mkdir -p .cache/bin .cache/deb
    # Unpacked, not installed: nothing on this machine is started or changed, and no root is needed beyond the package lists.
    (cd .cache/deb && { apt-get download -q prometheus >/dev/null 2>&1 || { apt-get update -qq && apt-get download -q prometheus >/dev/null; }; })
    dpkg -x .cache/deb/prometheus_*.deb .cache/deb/root
    cp .cache/deb/root/usr/bin/promtool .cache/bin/
    rm -rf .cache/deb
fi
