#!/usr/bin/env bash
# The demo stack as three commands: `image` builds Beaufort's image, `up` starts everything in order and says what to look at, `down`
# takes all of it away again. `make image`, `make stack` and `make stack-down` call it; compose/README.md lists the variables.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(dirname "$HERE")

# Compose reads .env by itself; this script must say the same ports and names. The environment wins, as there.
while IFS='=' read -r name value; do
    [[ $name == [A-Z]* ]] || continue
    [ -n "${!name+set}" ] || export "$name=$value"
done < "$HERE/.env"

PROJECT=${COMPOSE_PROJECT_NAME:-beaufort}
IMAGE=${BEAUFORT_IMAGE:-beaufort:0.1.0}
NETWORK=${BEAUFORT_NETWORK:-beaufort}
# Relative, it is beside compose.yaml: so Compose reads it.
SECRETS=${BEAUFORT_SECRETS:-.secrets}
[[ $SECRETS == /* ]] || SECRETS=$HERE/$SECRETS
BINARY=${BINARY:-$ROOT/dist/beaufort}
OFFLINE=${OFFLINE:-}
PROFILES=${PROFILES:-}
# A machine that is busy with other things starts a container in seconds, not in tenths.
HEALTHY_WITHIN=${HEALTHY_WITHIN:-120}
export COMPOSE_PROJECT_NAME=$PROJECT BEAUFORT_IMAGE=$IMAGE BEAUFORT_NETWORK=$NETWORK BEAUFORT_SECRETS=$SECRETS

say() { echo "stack: $*"; }
die() { # what happened and why, what to do
    echo "stack: $1" >&2
    [ $# -lt 2 ] || echo "       $2" >&2
    exit 1
}

# ------------------------------------------------------------------------------------------------------------- what must be there

find_docker() {
    command -v docker >/dev/null || die "there is no docker on the PATH" "install Docker Engine 20.10 or newer"
    # The same Docker for Beaufort as for the commands here: by variable, else by the context that is chosen.
    local host=${DOCKER_HOST:-}
    [ -n "$host" ] || host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || true)
    case $host in
    '') ;;
    unix://*) export BEAUFORT_DOCKER_SOCKET=${BEAUFORT_DOCKER_SOCKET:-${host#unix://}} ;;
    *) die "Docker is at $host (DOCKER_HOST, or the docker context), and the stack mounts files of this machine" "run it on the machine that Docker runs on" ;;
    esac
    local why
    why=$(docker version --format '{{.Server.Version}}' 2>&1 >/dev/null) ||
        die "Docker does not answer: ${why##*$'\n'}" "start it (systemctl start docker), and let this user reach its socket (group docker)"
    export BEAUFORT_DOCKER_ROOT=${BEAUFORT_DOCKER_ROOT:-$(docker info --format '{{.DockerRootDir}}')}
}

find_program() {
    [ -x "$BINARY" ] || die "there is no program at $BINARY to put into the image" "make image builds it; BINARY=PATH names another (it must be static)"
}

find_compose() {
    if docker compose version >/dev/null 2>&1; then
        COMPOSE=(docker compose)
    elif command -v docker-compose >/dev/null; then
        COMPOSE=(docker-compose)
    else
        die "there is neither 'docker compose' nor docker-compose" "install Docker's plugin compose (docker-compose-plugin), or docker-compose 1.29"
    fi
}

compose() { "${COMPOSE[@]}" --project-directory "$HERE" -f "$HERE/compose.yaml" -p "$PROJECT" "$@"; }

# Ids of a service's containers; of all services' when none is named. Asked of Docker, as Compose takes a second to answer.
containers() { # [service]
    docker ps -aq --filter "label=com.docker.compose.project=$PROJECT" ${1:+--filter "label=com.docker.compose.service=$1"}
}

# ------------------------------------------------------------------------------------------------------------------ before starting

build_image() {
    local context
    context=$(mktemp -d)
    # Only what .dockerignore would let through, so that two can be built at once.
    mkdir "$context/dist"
    cp "$BINARY" "$context/dist/beaufort"
    cp "$ROOT/Dockerfile" "$context/"
    if ! docker build --quiet --label "beaufort.stack=$PROJECT" --tag "$IMAGE" "$context" > "$context/log" 2>&1; then
        cat "$context/log" >&2
        rm -rf "$context"
        die "the image $IMAGE could not be built; Docker's words are above"
    fi
    rm -rf "$context"
    say "image $IMAGE built of $BINARY"
}

# The directory is closed to other users; the file is open to the containers' own, which have other ids.
make_token() {
    local file=$SECRETS/webhook-token
    if [ -f "$file" ] && [ -s "$file" ]; then return; fi
    # What Docker makes when a mount's source is missing.
    [ ! -d "$file" ] || rmdir "$file" || die "$file is a directory, and the webhook token's file must be there" "remove it: sudo rmdir $file"
    if [ ! -d "$SECRETS" ]; then
        mkdir -p "$SECRETS"
        chmod 700 "$SECRETS"
    fi
    head -c 24 /dev/urandom | base64 > "$file"
    chmod 444 "$file"
    say "a new webhook token is in $file"
}

# Compose's own message for a taken port comes late and from deep below.
check_port() { # service, variable, default
    local port=${!2:-$3}
    if [ -n "$(containers "$1")" ]; then return; fi
    if (exec 3<> "/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "port $port of 127.0.0.1, which $1 needs, is taken" "end what uses it, or choose another: $2=$((port + 10000)) make stack"
    fi
}

# Two stacks on one network would find each other under the same names.
check_network() {
    local owner
    owner=$(docker network inspect --format '{{index .Labels "com.docker.compose.project"}}' "$NETWORK" 2>/dev/null) || return 0
    [ "$owner" = "$PROJECT" ] || die "there is a Docker network $NETWORK already, ${owner:+of the Compose project }${owner:-which no Compose project made}" \
        "choose another name: BEAUFORT_NETWORK=NAME make stack"
}

port_of() { # service
    case $1 in
    beaufort) echo BEAUFORT_PORT 4566 ;;
    prometheus) echo PROMETHEUS_PORT 9090 ;;
    alertmanager) echo ALERTMANAGER_PORT 9093 ;;
    grafana) echo GRAFANA_PORT 3000 ;;
    jaeger) echo JAEGER_PORT 16686 ;;
    victoriametrics) echo VICTORIAMETRICS_PORT 8428 ;;
    esac
}

image_of() { # service: as compose.yaml says, variables filled in
    awk -v service="$1" <<< "$CONFIG" '
        /^services:/ {inside = 1; next} /^[a-z]/ {inside = 0}
        inside && /^  [a-z]/ {name = $1} inside && name == service ":" && $1 == "image:" {print $2}'
}

# Sets SERVICES to what is started, and says what is left out.
choose_services() {
    SERVICES=(beaufort prometheus alertmanager)
    local wanted=(grafana jaeger) profile service image left=()
    PROFILE_OPTIONS=(--profile logs --profile longterm)
    for profile in $PROFILES; do
        case $profile in
        logs)
            wanted+=(loki)
            export BEAUFORT_LOGS_EXPORTER=otlp
            ;;
        longterm)
            wanted+=(victoriametrics)
            export PROMETHEUS_CONFIG=prometheus-longterm.yml
            ;;
        *) die "there is no profile $profile" "PROFILES may hold logs and longterm" ;;
        esac
    done
    if [ -n "$OFFLINE" ]; then CONFIG=$(compose "${PROFILE_OPTIONS[@]}" config); fi
    for service in "${wanted[@]}"; do
        if [ -n "$OFFLINE" ]; then
            image=$(image_of "$service")
            docker image inspect "$image" >/dev/null 2>&1 || { left+=("$service ($image)"); continue; }
        fi
        SERVICES+=("$service")
    done
    if [ ${#left[@]} -gt 0 ]; then
        say "offline, left out as their images are not here and no Debian package is: ${left[*]}"
    fi
    local started=" ${SERVICES[*]} "
    # Nobody is sent what nobody takes.
    [[ $started == *" jaeger "* ]] || export BEAUFORT_OTLP=
    [[ $started == *" loki "* ]] || export BEAUFORT_LOGS_EXPORTER=none
    [[ $started == *" victoriametrics "* ]] || export PROMETHEUS_CONFIG=prometheus.yml
}

# ------------------------------------------------------------------------------------------------------------------------- starting

now() { date +%s%N; }
since() { # a moment of `now`, in seconds
    local ms=$((($(now) - $1) / 1000000))
    echo "$((ms / 1000)).$((ms % 1000 / 100)) s"
}

state_of() { # service
    local id
    id=$(containers "$1" | head -n 1)
    if [ -z "$id" ]; then
        echo missing
    else
        docker inspect --format '{{if and .State.Running .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' "$id"
    fi
}

wait_healthy() { # since when, service...
    local began=$1 from service waiting state still=()
    shift
    from=$(now)
    waiting=("$@")
    while [ ${#waiting[@]} -gt 0 ]; do
        still=()
        for service in "${waiting[@]}"; do
            state=$(state_of "$service")
            case $state in
            healthy | running) say "  $service is $state after $(since "$began")" ;;
            *) still+=("$service") ;;
            esac
        done
        waiting=("${still[@]}")
        if [ $((($(now) - from) / 1000000000)) -ge "$HEALTHY_WITHIN" ]; then
            for service in "${waiting[@]}"; do
                echo "stack: $service is $(state_of "$service") after $HEALTHY_WITHIN s; its last lines:" >&2
                containers "$service" | xargs -r -n 1 docker logs --tail 15 >&2 2>&1 || true
            done
            die "not everything became healthy" "correct what the lines above say and run it again, or take it away: make stack-down"
        fi
        if [ ${#waiting[@]} -gt 0 ]; then sleep 0.2; fi
    done
}

deploy() {
    local id code
    compose up -d --no-deps deploy >/dev/null 2>&1 || compose up -d --no-deps deploy
    id=$(containers deploy | head -n 1)
    docker logs --follow --since "$STARTED" "$id" 2>&1 | sed 's/^/  /'
    code=$(docker wait "$id")
    [ "$code" = 0 ] || die "the sample services were not deployed: 'beaufort apply' ended with $code" "its words are above; the stack is left as it is for a look"
}

up() {
    local began service
    began=$(now)
    STARTED=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    find_docker
    find_compose
    find_program
    choose_services
    for service in "${SERVICES[@]}"; do
        # shellcheck disable=SC2046
        [ -z "$(port_of "$service")" ] || check_port "$service" $(port_of "$service")
    done
    check_network
    make_token
    build_image
    if [ -n "$OFFLINE" ]; then
        say "offline: stand-ins of Debian's packages take the place of official images that are not here"
        "$HERE/standins.sh" build "$PROJECT" "$(image_of prometheus)" "$(image_of alertmanager)"
    fi
    say "starting ${SERVICES[*]}"
    # The first start of a network says no more than its name; a failure says all.
    compose "${PROFILE_OPTIONS[@]}" up -d --no-deps "${SERVICES[@]}" || die "Compose could not start it; its words are above" \
        "$([ -n "$OFFLINE" ] || echo "where no registry can be reached: make stack OFFLINE=1")"
    wait_healthy "$began" "${SERVICES[@]}"
    installation_of_beaufort >> "$SECRETS/installations"
    say "deploying the sample services"
    deploy
    say "starting the load: profile ${LOAD_PROFILE:-demo} for web, ${LOAD_API_PROFILE:-waves} for api"
    compose up -d --no-deps load load-api >/dev/null 2>&1 || compose up -d --no-deps load load-api
    say "all of it runs after $(since "$began")"
    guide
}

guide() {
    local grafana=http://localhost:${GRAFANA_PORT:-3000} prometheus=http://localhost:${PROMETHEUS_PORT:-9090} jaeger=http://localhost:${JAEGER_PORT:-16686}
    local alertmanager=http://localhost:${ALERTMANAGER_PORT:-9093} beaufort=http://127.0.0.1:${BEAUFORT_PORT:-4566} started=" ${SERVICES[*]} "
    local container
    container=$(docker inspect --format '{{.Name}}' "$(containers beaufort | head -n 1)")
    echo
    if [[ $started == *" grafana "* ]]; then echo "  Grafana       $grafana/d/beaufort-autoscaling   what was offered, what was decided, and why"; fi
    echo "  Prometheus    $prometheus/alerts   the rules; ScaleOutRequests and ScaleInRequests are those of web"
    echo "  Alertmanager  $alertmanager   what it tells Beaufort"
    if [[ $started == *" jaeger "* ]]; then echo "  Jaeger        $jaeger   a decision and its containers' starts, as one trace"; fi
    echo "  Beaufort      $beaufort   AWS_ENDPOINT_URL of any AWS client"
    cat <<END

  In the terminal:
    docker exec ${container#/} /beaufort why service/demo/web     each alert, decision and start, with its numbers
    docker exec ${container#/} /beaufort services --cluster demo
    docker logs -f $(docker inspect --format '{{.Name}}' "$(containers load | head -n 1)" | cut -c 2-)        the load and, at its end, how fast was reacted to it

  make stack again starts the load anew once it is over; make stack-down takes everything away.
END
}

# --------------------------------------------------------------------------------------------------------------------------- ending

# What the stack's Beaufort makes carries its installation's id. It is written down while Beaufort answers, so that what it left can be
# found when it was killed, and nobody else's is taken for it.
installation_of_beaufort() {
    containers beaufort | xargs -r -n 1 -I{} docker exec {} /beaufort health --json 2>/dev/null | tr ',{}' '\n' | sed -n 's/.*"installation": *"\([^"]*\)".*/\1/p'
}

installations() {
    { installation_of_beaufort; cat "$SECRETS/installations" 2>/dev/null || true; } | sort -u
}

sweep() { # kind of thing, label, command that removes
    local found
    # shellcheck disable=SC2086
    found=$(docker $1 -q --filter "label=$2" | sort -u)
    # shellcheck disable=SC2086
    [ -z "$found" ] || docker $3 $found >/dev/null || say "some could not be removed: docker $1 --filter label=$2"
}

down() {
    local began made installation
    began=$(now)
    find_docker
    find_compose
    made=$(installations)
    say "ending project $PROJECT; Beaufort stops its tasks first"
    # An end in order: whoever asks Beaufort, then Beaufort, whose tasks end with it, and only then the network that they are on.
    compose --profile logs --profile longterm stop
    for installation in $made; do
        # What a Beaufort that was killed has left.
        sweep "ps -a" "beaufort.installation=$installation" "rm -f -v"
        sweep "network ls" "beaufort.installation=$installation" "network rm"
        sweep "volume ls" "beaufort.installation=$installation" "volume rm -f"
    done
    compose --profile logs --profile longterm down -v --remove-orphans
    for installation in $made; do sweep "images" "beaufort.installation=$installation" "rmi -f"; done
    sweep "images" "beaufort.stack=$PROJECT" "rmi -f"
    sweep "images" "beaufort.standin=$PROJECT" "rmi -f"
    # What else lies there is not ours.
    rm -f "$SECRETS/webhook-token" "$SECRETS/installations"
    rmdir "$SECRETS" 2>/dev/null || true
    say "nothing is left but images that were pulled, after $(since "$began")"
}

case ${1-} in
image)
    find_docker
    find_program
    build_image
    ;;
up) up ;;
down) down ;;
*) die "usage: $0 image | up | down" "see compose/README.md" ;;
esac
