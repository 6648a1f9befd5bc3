#!/usr/bin/env bash
# Sets up what the tests need, once: two Python environments with AWS's clients; Prometheus, Alertmanager and their tools. Says what is missing where it cannot.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { command -v "$1" >/dev/null || { echo "tests need $1: $2" >&2; exit 1; }; }
need cargo "install Rust, https://rustup.rs"
need python3 "install Python 3.11 or newer"
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
venv .venv 'boto3>=1.44,<2' 'awscli>=1.46,<2' 'pytest>=8,<9' 'pytest-timeout>=2.3,<3' 'opentelemetry-proto>=1.30,<2' 'grafana-foundation-sdk==0.0.21' \
    'compose-spec==0.2.1; python_version >= "3.10"'
venv .venv-old 'boto3<1.42' 'botocore<1.42'

# Programs out of Debian packages: unpacked below .cache/debian, not installed. Nothing on this machine is started or changed, and no root is needed beyond the package lists.
# What is on the PATH already (this repository's own .cache/bin aside) or was unpacked before stays as it is.
PATH=$(printf %s "$PATH" | tr : '\n' | grep -vxF "$PWD/.cache/bin" | paste -sd :)
mkdir -p .cache/bin .cache/deb .cache/debian
package() { # package, commands that it must give...
    local name=$1 command missing=
    shift
    for command in "$@"; do command -v "$command" >/dev/null || [ -x ".cache/bin/$command" ] || missing+=" $command"; done
    if [ -z "$missing" ]; then return; fi
    need apt-get "install$missing (the Debian package $name, or its makers' release) and put it on the PATH"
    echo "setting up$missing"
    rm -f ".cache/deb/${name}_"*.deb
    (cd .cache/deb && { apt-get download -q "$name" >/dev/null 2>&1 || { apt-get update -qq && apt-get download -q "$name" >/dev/null; }; })
    dpkg -x .cache/deb/"${name}"_*.deb .cache/debian
    rm -rf ".cache/deb/${name}_"*.deb .cache/debian/etc .cache/debian/lib .cache/debian/usr/share/doc .cache/debian/usr/share/man
    for command in $missing; do if [ -e ".cache/debian/usr/bin/$command" ]; then ln -sfn "../debian/usr/bin/$command" ".cache/bin/$command"; fi; done
}
package prometheus prometheus promtool
package prometheus-alertmanager alertmanager amtool

# Debian's Alertmanager reads its default templates from one fixed directory instead of carrying them, and ends where they are not. The copy that runs here asks descriptor 9
# instead, a path of the same length, which its starter opens on the unpacked directory. (Debian's Prometheus lacks only its web pages that way; its API needs none.)
unpacked=.cache/debian/usr/bin/prometheus-alertmanager
if [ -e "$unpacked" ] && [ ! -x .cache/bin/alertmanager ]; then
    fixed=/usr/share/prometheus/alertmanager
    instead=/proc/self/fd/9
    while [ ${#instead} -lt ${#fixed} ]; do instead+=/; done
    LC_ALL=C sed "s#$fixed#$instead#g" "$unpacked" > .cache/debian/alertmanager
    chmod 755 .cache/debian/alertmanager
    .cache/debian/alertmanager --version >/dev/null 2>&1 || { echo "the unpacked Alertmanager does not start: put another alertmanager on the PATH" >&2; exit 1; }
    cat > .cache/bin/alertmanager.new <<'EOF'
#!/bin/sh
# Starts the unpacked Alertmanager with its templates at descriptor 9: see tests/setup.sh.
root=$(dirname "$(readlink -f "$0")")/../debian
exec 9<"$root/usr/share/prometheus/alertmanager"
exec "$root/alertmanager" "$@"
EOF
    chmod 755 .cache/bin/alertmanager.new
    mv .cache/bin/alertmanager.new .cache/bin/alertmanager
fi

# The demo stack's test makes images of the same packages where the official ones are not here.
if command -v apt-get >/dev/null; then compose/standins.sh fetch; fi
