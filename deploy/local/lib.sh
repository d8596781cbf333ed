# shellcheck shell=bash disable=SC2034 # some of the names set here are read only by the scripts
# Shared by the scripts of this folder, which source it: where an instance keeps its data, which ports it has, how
# its background processes are started, found again and ended, and the settings of the two programs (at the end:
# `gateway_settings` and `workers_settings` are the only places that know their names). A process counts as ours
# only while its pid file names its pid *and* its start time, so that a reused pid is never signalled.

# --- what and where --------------------------------------------------------------------------------------------

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
INSTANCE=${REGISTRAR_INSTANCE:-}
CHECKOUT_ID=$(printf '%s' "$ROOT" | sha256sum | cut -c1-8)
BASE_DIR=/var/tmp/registrar-$CHECKOUT_ID
DATA_DIR=$BASE_DIR${INSTANCE:+-$INSTANCE}
CACHE_DIR=$BASE_DIR/cache
RUN_DIR=$DATA_DIR/run
LOG_DIR=$DATA_DIR/logs
BIN_DIR=${REGISTRAR_BIN_DIR:-$ROOT/target/debug}
RABBITMQ_BIN=/usr/lib/rabbitmq/bin
READY_TIMEOUT_SECONDS=${REGISTRAR_READY_TIMEOUT_SECONDS:-60}

FIRST_PORT_BASE=20000
PORT_BLOCKS=221
PORTS_PER_BLOCK=50
# Offsets from PORT_BASE; +2..+9 are the workers' metrics listeners, one a process, +20 and +21 a second gateway.
declare -A PORT_OFFSETS=(
    [gateway]=0 [gateway_metrics]=1 [workers_metrics]=2
    [postgres]=10 [amqp]=11 [rabbitmq_management]=12 [rabbitmq_prometheus]=13 [rabbitmq_dist]=14 [epmd]=15
    [redis]=16 [smtp]=17 [mail]=18 [gateway2]=20 [gateway2_metrics]=21
)
# What each worker process serves, in the order of their metrics ports.
WORKER_POOLS=(
    'registrations'
    'payments,invoicing,notifications,dead-letters,clock'
    'documents,email'
)
# How much each yields to the others: nobody waits for a PDF or a mail as they wait for an answer, and bulk work that
# yields a little to the gateway, the broker and the registrations is done in bigger batches, in the same time.
WORKER_NICENESS=(0 3 19)

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    warn "$*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

[[ -z $INSTANCE || $INSTANCE =~ ^[a-z0-9][a-z0-9-]{0,19}$ ]] ||
    die "REGISTRAR_INSTANCE='$INSTANCE': only a-z, 0-9 and '-', at most 20 characters"
[[ $INSTANCE != cache ]] || die "REGISTRAR_INSTANCE=cache is taken: choose another name"

# Says what to type for the same instance.
command_line() { printf '%s%s' "${INSTANCE:+REGISTRAR_INSTANCE=$INSTANCE }" "$*"; }

# --- the data folder -------------------------------------------------------------------------------------------

# Servers may run as other users than the one who starts them, so the folder can be entered by all; what is secret
# in it is 0600. The name is foreseeable, hence the check of the owner.
prepare_data_dir() {
    local dir
    for dir in "$BASE_DIR" "$DATA_DIR"; do
        [[ -d $dir ]] || mkdir -m 0755 "$dir"
        [[ -O $dir && ! -L $dir ]] || die "$dir belongs to another user: remove it, or use a checkout of your own"
        chmod 0755 "$dir"
    done
    (umask 022 && mkdir -p "$CACHE_DIR" "$RUN_DIR" "$LOG_DIR" "$DATA_DIR/files")
    printf '%s\n' "$ROOT" >"$DATA_DIR/checkout"
    make_secrets
}

random_hex() { od -An -v -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

# One file of shell assignments, written once, so that passwords and keys outlive a restart.
make_secrets() {
    local file=$DATA_DIR/secrets name
    if [[ ! -e $file ]]; then
        (
            umask 077
            for name in OWNER_PASSWORD GATEWAY_PASSWORD WORKERS_PASSWORD RABBITMQ_PASSWORD ERLANG_COOKIE; do
                printf 'SECRET_%s=%s\n' "$name" "$(random_hex 16)"
            done
            for name in OPERATION_ID TOKENS JWT_HS256; do
                printf 'SECRET_%s=%s\n' "$name" "$(random_hex 32)"
            done
        ) >"$file.new"
        chmod 0600 "$file.new"
        mv "$file.new" "$file"
    fi
    load_secrets
}

load_secrets() {
    [[ -r $DATA_DIR/secrets ]] || die "no system here yet: start it with '$(command_line deploy/local/services up)'"
    # shellcheck disable=SC1091 # written by make_secrets
    . "$DATA_DIR/secrets"
}

# Held until the script ends; start_process closes it for the servers.
lock_instance() {
    exec 9>"$DATA_DIR/lock"
    flock -w 180 9 || die "another script has been working on $DATA_DIR for three minutes"
}

# --- ports -----------------------------------------------------------------------------------------------------

port_of() { printf '%s' "$((PORT_BASE + PORT_OFFSETS[$1]))"; }
workers_metrics_port() { printf '%s' "$((PORT_BASE + PORT_OFFSETS[workers_metrics] + $1))"; }

load_ports() {
    [[ -r $DATA_DIR/ports ]] || die "no system here yet: start it with '$(command_line deploy/local/services up)'"
    PORT_BASE=$(sed -n 's/^base=\([0-9]\{4,5\}\)$/\1/p' "$DATA_DIR/ports")
    [[ -n $PORT_BASE ]] || die "$DATA_DIR/ports is damaged: remove it"
}

# The TCP ports that something listens on, on any address of this machine, one a line.
listening_ports() {
    local hex
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' |
        while read -r hex; do printf '%d\n' "0x$hex"; done | sort -un
}

block_is_free() {
    local base=$1
    awk -v first="$base" -v last="$((base + PORTS_PER_BLOCK - 1))" \
        '$1 >= first && $1 <= last { taken = 1 } END { exit taken }' <<<"$2"
}

# Blocks that other data folders of this machine remember, running or not.
claimed_blocks() {
    local file
    for file in /var/tmp/registrar-*/ports; do
        [[ $file != "$DATA_DIR/ports" && -r $file ]] || continue
        sed -n 's/^base=//p' "$file"
    done
}

# Chooses the block on the first `up`, and moves on to another when a stranger has taken a port of it since.
choose_ports() {
    local base='' listening claimed first block try
    if [[ -r $DATA_DIR/ports ]]; then
        load_ports
        if [[ -z ${REGISTRAR_PORT_BASE:-} || $REGISTRAR_PORT_BASE == "$PORT_BASE" ]]; then base=$PORT_BASE; fi
        if any_process_runs; then
            [[ -n $base ]] || die "already running on ports from $PORT_BASE: 'down' first, then another REGISTRAR_PORT_BASE"
            return 0
        fi
    fi
    listening=$(listening_ports)
    if [[ -n ${REGISTRAR_PORT_BASE:-} ]]; then
        base=$REGISTRAR_PORT_BASE
        if [[ ! $base =~ ^[0-9]{4,5}$ ]] || ((base < 1024 || base + PORTS_PER_BLOCK > 32768)); then
            die "REGISTRAR_PORT_BASE='$base': a number from 1024 to $((32768 - PORTS_PER_BLOCK)) is wanted"
        fi
        block_is_free "$base" "$listening" || die "REGISTRAR_PORT_BASE=$base: one of the next $PORTS_PER_BLOCK ports is taken"
    elif [[ -z $base ]] || ! block_is_free "$base" "$listening"; then
        [[ -z $base ]] || say "ports: something else listens on one of $base to $((base + PORTS_PER_BLOCK - 1)), moving on"
        claimed=$(claimed_blocks)
        first=$((0x$(printf '%s' "$ROOT:$INSTANCE" | sha256sum | cut -c1-8) % PORT_BLOCKS))
        base=
        for ((try = 0; try < PORT_BLOCKS; try++)); do
            block=$((FIRST_PORT_BASE + (first + try) % PORT_BLOCKS * PORTS_PER_BLOCK))
            if ! grep -qx "$block" <<<"$claimed" && block_is_free "$block" "$listening"; then
                base=$block
                break
            fi
        done
        [[ -n $base ]] || die "no free block of ports: name one with REGISTRAR_PORT_BASE, or remove old /var/tmp/registrar-* folders"
    fi
    printf 'base=%s\n' "$base" >"$DATA_DIR/ports"
    chmod 0644 "$DATA_DIR/ports"
    PORT_BASE=$base
}

# --- background processes --------------------------------------------------------------------------------------

# The start time of a process in clock ticks since boot; fails when there is none, or only a zombie.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    [[ $stat != Z* && $stat != X* ]] || return 1
    cut -d' ' -f20 <<<"$stat"
}

# Prints the pid of our process of that name; fails when it does not run.
running_pid() {
    local pid='' started=''
    [[ -r $RUN_DIR/$1.pid ]] || return 1
    read -r pid started <"$RUN_DIR/$1.pid" || true
    [[ -n $pid && -n $started && $(start_time "$pid") == "$started" ]] || return 1
    printf '%s' "$pid"
}

any_process_runs() {
    local file name
    for file in "$RUN_DIR"/*.pid; do
        name=${file##*/}
        if [[ -e $file ]] && running_pid "${name%.pid}" >/dev/null; then return 0; fi
    done
    return 1
}

# start_process NAME COMMAND...: in a session of its own, holding none of our files open: not the caller's stdout,
# which it would wait for, nor our lock. The log begins anew; the one before is kept beside it.
start_process() {
    local name=$1 pid fd
    shift
    if [[ -e $LOG_DIR/$name.log ]]; then mv -f "$LOG_DIR/$name.log" "$LOG_DIR/$name.log.1"; fi
    (
        cd "$DATA_DIR" || exit 1
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if ((fd > 2 && fd != 255)); then eval "exec $fd>&-"; fi
        done
        exec setsid "$@" </dev/null >>"$LOG_DIR/$name.log" 2>&1
    ) &
    pid=$!
    printf '%s %s\n' "$pid" "$(start_time "$pid" || echo 0)" >"$RUN_DIR/$name.pid"
}

# stop_process NAME SIGNAL SECONDS: asks with SIGNAL, waits, then insists.
stop_process() {
    signal_process "$1" "$2"
    await_stop "$1" "$3"
}

signal_process() {
    local pid
    if pid=$(running_pid "$1"); then kill "-$2" "$pid" 2>/dev/null || true; fi
}

await_stop() {
    local name=$1 seconds=$2 pid
    if ! wait_gone "$name" "$seconds" && pid=$(running_pid "$name"); then
        warn "$name: still there after its time to finish (pid $pid): SIGKILL"
        kill -KILL "$pid" 2>/dev/null || true
        wait_gone "$name" 10 || warn "$name: pid $pid does not die"
    fi
    rm -f "$RUN_DIR/$name.pid"
}

wait_gone() {
    local deadline=$((SECONDS + $2))
    while running_pid "$1" >/dev/null; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# wait_ready NAME PORT CHECK...: repeats CHECK until it succeeds, with a line that shows how long it has taken.
wait_ready() {
    local name=$1 port=$2 started=$SECONDS waited
    shift 2
    until "$@" >/dev/null 2>&1; do
        waited=$((SECONDS - started))
        if ! running_pid "$name" >/dev/null; then
            explain_failure "$name" "ended while it was starting"
        elif ((waited >= READY_TIMEOUT_SECONDS)); then
            explain_failure "$name" "not ready after $waited s"
        fi
        if [[ -t 1 ]]; then printf '\r%s: starting, %s s ' "$name" "$waited"; fi
        sleep 0.2
    done
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
    say "$name: ready after $((SECONDS - started)) s, port $port"
}

explain_failure() {
    local name=$1 what=$2 body
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
    warn "$name: $what. The end of $LOG_DIR/$name.log:"
    tail -n 25 "$LOG_DIR/$name.log" 2>/dev/null | sed 's/^/    /' >&2 || true
    body=$(curl -s -m 2 "${READY_URL:-}" 2>/dev/null | head -c 2000 || true)
    if [[ -n $body ]]; then warn "$name: $READY_URL says: $body"; fi
    warn "$name: what to do: read the lines above, mend what they name, then the same command again; it starts only what is missing."
    warn "    A port that is taken: '$(command_line deploy/local/services down)', then REGISTRAR_PORT_BASE=<another> with 'up'."
    warn "    Data that cannot be read or migrated: 'make clean-data' throws it away and the next 'up' starts empty."
    exit 1
}

# succeeds when URL answers 200
answers() { [[ $(curl -s -o /dev/null -m 2 -w '%{http_code}' "$1") == 200 ]]; }

# --- PostgreSQL ------------------------------------------------------------------------------------------------

# Prints the folder of the newest PostgreSQL server programs, 15 or later.
find_postgres_bin() {
    local dir version
    for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5nr) "$(dirname "$(command -v postgres || echo /)")"; do
        [[ -x $dir/postgres && -x $dir/initdb ]] || continue
        version=$("$dir/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        if ((version >= 15)); then
            printf '%s' "$dir"
            return 0
        fi
    done
    return 1
}

# --- the toolchain ---------------------------------------------------------------------------------------------

# Cargo must be there, and no older than the workspace's rust-version.
check_toolchain() {
    local wanted found
    have cargo || die "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again"
    wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml" | head -n 1)
    found=$(cd "$ROOT" && cargo --version | sed 's/^cargo \([0-9.]*\).*/\1/')
    [[ -n $wanted && -n $found ]] || die "could not tell cargo's version ('$found') or the one wanted ('$wanted')"
    if [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) != "$wanted" ]]; then
        die "cargo $found is too old: $wanted or later is wanted. Run: rustup update stable"
    fi
}

# --- settings --------------------------------------------------------------------------------------------------

# Sets every address of the running system. An address given from outside wins (see the header of `services`).
load_settings() {
    local local_database index
    load_ports
    load_secrets
    local_database=127.0.0.1:$(port_of postgres)/registrar
    GATEWAY_URL=http://127.0.0.1:$(port_of gateway)
    GATEWAY_METRICS_URL=http://127.0.0.1:$(port_of gateway_metrics)
    WORKERS_METRICS_URLS=
    for index in "${!WORKER_POOLS[@]}"; do
        WORKERS_METRICS_URLS+="${WORKERS_METRICS_URLS:+ }http://127.0.0.1:$(workers_metrics_port "$index")"
    done
    if [[ -n ${REGISTRAR_EXTERNAL_DATABASE_URL:-} ]]; then
        DATABASE_URL=$REGISTRAR_EXTERNAL_DATABASE_URL
        GATEWAY_DATABASE_URL=${REGISTRAR_EXTERNAL_GATEWAY_DATABASE_URL:-$DATABASE_URL}
        WORKERS_DATABASE_URL=${REGISTRAR_EXTERNAL_WORKERS_DATABASE_URL:-$DATABASE_URL}
    else
        DATABASE_URL=postgres://registrar_owner:$SECRET_OWNER_PASSWORD@$local_database
        GATEWAY_DATABASE_URL=postgres://registrar_gateway:$SECRET_GATEWAY_PASSWORD@$local_database
        WORKERS_DATABASE_URL=postgres://registrar_workers:$SECRET_WORKERS_PASSWORD@$local_database
    fi
    if [[ -n ${REGISTRAR_EXTERNAL_AMQP_URL:-} ]]; then
        AMQP_URL=$REGISTRAR_EXTERNAL_AMQP_URL
        AMQP_MANAGEMENT_URL=${REGISTRAR_EXTERNAL_AMQP_MANAGEMENT_URL:-}
    else
        AMQP_URL="amqp://registrar:$SECRET_RABBITMQ_PASSWORD@127.0.0.1:$(port_of amqp)/registrar?heartbeat=10"
        AMQP_MANAGEMENT_URL=http://registrar:$SECRET_RABBITMQ_PASSWORD@127.0.0.1:$(port_of rabbitmq_management)
    fi
    REDIS_URL=${REGISTRAR_EXTERNAL_REDIS_URL:-redis://127.0.0.1:$(port_of redis)}
    SMTP_URL=${REGISTRAR_EXTERNAL_SMTP_URL:-smtp://127.0.0.1:$(port_of smtp)}
    MAIL_URL=${REGISTRAR_EXTERNAL_MAIL_URL:-}
    if [[ -z ${REGISTRAR_EXTERNAL_SMTP_URL:-} ]]; then MAIL_URL=http://127.0.0.1:$(port_of mail); fi
}

# What both programs are told.
common_settings() {
    export REGISTRAR__ENVIRONMENT=development
    export REGISTRAR__LOG__FORMAT=${REGISTRAR__LOG__FORMAT:-json}
    export REGISTRAR__AMQP__URL=$AMQP_URL
    export REGISTRAR__PUBLIC_URL=$GATEWAY_URL
    export REGISTRAR__FILES__URL=file://$DATA_DIR/files
    export REGISTRAR__SECRETS__TOKENS=$SECRET_TOKENS
    export REGISTRAR__SECRETS__JWT_HS256=$SECRET_JWT_HS256
}

# gateway_settings PORT METRICS_PORT: exports what the gateway reads.
gateway_settings() {
    common_settings
    export REGISTRAR__LISTEN=127.0.0.1:$1
    export REGISTRAR__METRICS_LISTEN=127.0.0.1:$2
    export REGISTRAR__DATABASE__URL=$GATEWAY_DATABASE_URL
    export REGISTRAR__REDIS__URL=$REDIS_URL
    export REGISTRAR__SECRETS__OPERATION_ID=$SECRET_OPERATION_ID
}

# workers_settings METRICS_PORT: exports what a worker process reads.
workers_settings() {
    common_settings
    export REGISTRAR__METRICS_LISTEN=127.0.0.1:$1
    export REGISTRAR__DATABASE__URL=$WORKERS_DATABASE_URL
    export REGISTRAR__SMTP__URL=$SMTP_URL
    # As many statements at once as there are cores: more only stand in line for them, and whoever has a few rows to write
    # stands behind all of them. A partition's consumer needs one.
    export REGISTRAR__DATABASE__POOL_MAX=${REGISTRAR__DATABASE__POOL_MAX:-$(
        printf '%s\n' 2 "$(nproc)" "${REGISTRAR__PARTITIONS__PAYMENTS:-0}" | sort -n | tail -1
    )}
}

# The workers' settings, as the owner of the database: for `workers migrate` and `workers seed`.
owner_settings() {
    workers_settings "$(workers_metrics_port 0)"
    export REGISTRAR__DATABASE__URL=$DATABASE_URL
}
