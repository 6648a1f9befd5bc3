#!/usr/bin/env bash
# Stand-in images for a machine that reaches no registry: the Prometheus and the Alertmanager of Debian's packages under the names,
# ports, paths, users and entry points of the official images, so that compose.yaml runs as it is. Nothing is installed: the packages
# are unpacked under .cache, and each image holds the two programs, what they load and a busybox for the health checks.
#
#   compose/standins.sh fetch                     get the packages, once; needs apt-get and dpkg
#   compose/standins.sh build STACK REFERENCE...  make the images that are not there, marked as made for STACK
set -euo pipefail
cd "$(dirname "$0")/.."

# tests/setup.sh unpacks packages there, too.
ROOT=.cache/debian

die() { echo "stand-ins: $1" >&2; exit 1; }

package() { # package, a file of it
    local name=$1 file=$2 into=.cache/deb
    [ -e "$ROOT/$file" ] && return
    for tool in apt-get dpkg; do
        command -v $tool >/dev/null || die "they are made of Debian's packages, and $tool is not here: pull the official images instead"
    done
    echo "stand-ins: fetching Debian's package $name"
    mkdir -p "$into" "$ROOT"
    rm -f "$into/${name}_"*.deb
    (cd "$into" && { apt-get download -q "$name" >/dev/null 2>&1 || { apt-get update -qq && apt-get download -q "$name" >/dev/null; }; }) ||
        die "apt-get cannot download $name: see what 'apt-get download $name' says"
    dpkg -x "$into/${name}_"*.deb "$ROOT"
    rm -f "$into/${name}_"*.deb
}

fetch() {
    package prometheus usr/bin/prometheus
    package prometheus-alertmanager usr/bin/prometheus-alertmanager
    package busybox-static bin/busybox
}

# What lies where in the image: a userland, programs as NAME=FILE, and the libraries that they load.
lay() { # directory, NAME=FILE...
    local to=$1 program library
    shift
    mkdir -p "$to"/{bin,etc,tmp}
    cp "$ROOT/bin/busybox" "$to/bin/"
    for applet in sh wget cat ls; do ln -s busybox "$to/bin/$applet"; done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$to/etc/passwd"
    printf 'root:x:0:\nnobody:x:65534:\n' > "$to/etc/group"
    # Names of the compose network are asked of Docker's resolver.
    printf 'hosts: files dns\n' > "$to/etc/nsswitch.conf"
    for program; do
        cp "${program#*=}" "$to/bin/${program%%=*}"
        ldd "${program#*=}" | grep -o '/[^ ]*' | while read -r library; do
            mkdir -p "$to${library%/*}"
            [ -e "$to$library" ] || cp -L "$library" "$to$library"
        done
    done
    # Debian's builds resolve names through glibc, which loads these by name on systems where they are files of their own.
    for library in libnss_dns.so.2 libnss_files.so.2 libresolv.so.2; do
        find /lib/*-linux-gnu* -maxdepth 1 -name $library 2>/dev/null | while read -r library; do
            mkdir -p "$to${library%/*}"
            cp -L "$library" "$to$library"
        done
    done
}

# The image of a directory; `own` is its user's, everything else root's.
import() { # stack, reference, directory, own, `docker import` changes...
    local stack=$1 reference=$2 from=$3 own=$4 change
    shift 4
    local changes=(--change "LABEL beaufort.standin=$stack" --change "ENV PATH=/bin" --change "USER nobody")
    for change; do changes+=(--change "$change"); done
    tar -C "$from" --numeric-owner --owner 0 --group 0 --anchored --exclude ".$own" -cf "$from.tar" .
    tar -C "$from" --numeric-owner --owner 65534 --group 65534 -rf "$from.tar" ".$own"
    docker import "${changes[@]}" "$from.tar" "$reference" >/dev/null
}

build_one() { # stack, reference
    local stack=$1 reference=$2 made=$TEMPORARY/image
    rm -rf "$made"
    case $reference in
    prom/prometheus:*)
        lay "$made" prometheus="$ROOT/usr/bin/prometheus" promtool="$ROOT/usr/bin/promtool"
        mkdir -p "$made"/{etc/prometheus,prometheus,usr/share/prometheus}
        # Debian keeps the pages of the web interface as files.
        cp -r "$ROOT/usr/share/prometheus/web" "$made/usr/share/prometheus/"
        printf 'scrape_configs: []\n' > "$made/etc/prometheus/prometheus.yml"
        import "$stack" "$reference" "$made" /prometheus 'WORKDIR /prometheus' 'VOLUME ["/prometheus"]' 'EXPOSE 9090' \
            'ENTRYPOINT ["/bin/prometheus"]' 'CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]'
        ;;
    prom/alertmanager:*)
        lay "$made" alertmanager="$ROOT/usr/bin/prometheus-alertmanager" amtool="$ROOT/usr/bin/amtool"
        mkdir -p "$made"/{etc/alertmanager,alertmanager,usr/share/prometheus}
        # Debian's program ends at once without its default template.
        cp -r "$ROOT/usr/share/prometheus/alertmanager" "$made/usr/share/prometheus/"
        printf 'route: {receiver: none}\nreceivers: [{name: none}]\n' > "$made/etc/alertmanager/alertmanager.yml"
        import "$stack" "$reference" "$made" /alertmanager 'WORKDIR /alertmanager' 'VOLUME ["/alertmanager"]' 'EXPOSE 9093' \
            'ENTRYPOINT ["/bin/alertmanager"]' 'CMD ["--config.file=/etc/alertmanager/alertmanager.yml","--storage.path=/alertmanager"]'
        ;;
    *) die "there is no Debian package for $reference" ;;
    esac
}

build() { # stack, reference...
    local stack=$1 reference
    shift
    TEMPORARY=$(mktemp -d)
    trap 'rm -rf "$TEMPORARY"' EXIT
    for reference; do
        if docker image inspect "$reference" >/dev/null 2>&1; then
            echo "  $reference is here already"
        else
            fetch
            build_one "$stack" "$reference"
            echo "  $reference made of Debian's package: $(docker run --rm --entrypoint "/bin/$(basename "${reference%%:*}")" "$reference" --version 2>&1 | head -n 1)"
        fi
    done
}

case ${1-} in
fetch) fetch ;;
build)
    [ $# -ge 3 ] || die "usage: $0 build STACK REFERENCE..."
    shift
    build "$@"
    ;;
*) die "usage: $0 fetch | build STACK REFERENCE..." ;;
esac
