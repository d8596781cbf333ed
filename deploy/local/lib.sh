# shellcheck shell=bash disable=SC2034 # some of the names set here are read only by the scripts
# Shared by the scripts of this folder, which source it: where an instance keeps its data, its secrets, the worker
# processes and the settings of the programs (at the end: `gateway_settings` and `workers_settings` are the only places
# that know their names). lib/ has its ports, background processes and services; service/ has one file a service.

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
READY_TIMEOUT_SECONDS=${REGISTRAR_READY_TIMEOUT_SECONDS:-60}
MACHINE_SIZE=${REGISTRAR_MACHINE_SIZE:-small}

# The worker processes, in the order of their metrics ports: name, program, pools, niceness. Clients wait for an answer,
# but not for a PDF or a mail; and bulk work that yields a little to the gateway, the broker and the registrations is done
# in bigger transactions, in the same time.
WORKER_PROCESSES=(
    'workers-1 workers registrations 0'
    'workers-2 workers payments,invoicing,notifications,dead-letters,clock 3'
    'workers-3 workers email 19'
    'renderer renderer documents 19'
)

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

# --- its parts -------------------------------------------------------------------------------------------------

for part in ports processes services; do
    # shellcheck source=/dev/null # each is checked by itself
    . "$ROOT/deploy/local/lib/$part.sh"
done

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

# The names of the addresses that load_settings has set.
SETTINGS=()

# setting KEY VALUE
setting() {
    declare -g "$1=$2"
    SETTINGS+=("$1")
}

# Sets every address of the running system. An address given from outside wins (see the header of `services`).
load_settings() {
    local index service urls=()
    load_ports
    load_secrets
    SETTINGS=()
    for index in "${!WORKER_PROCESSES[@]}"; do urls+=("http://127.0.0.1:$(workers_metrics_port "$index")"); done
    setting GATEWAY_URL "http://127.0.0.1:$(port_of gateway)"
    setting GATEWAY_METRICS_URL "http://127.0.0.1:$(port_of gateway_metrics)"
    setting WORKERS_METRICS_URLS "${urls[*]}"
    for service in "${SERVICES[@]}"; do
        if is_function "${service}_settings"; then "${service}_settings"; fi
    done
    setting REGISTRAR_DATA_DIR "$DATA_DIR"
}

# The settings that all programs share.
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
    # As many statements at once as there are cores: more would only wait for a core, and a transaction of a few rows would
    # wait behind all of them. The consumer of a partition needs one.
    export REGISTRAR__DATABASE__POOL_MAX=${REGISTRAR__DATABASE__POOL_MAX:-$(
        printf '%s\n' 2 "$(nproc)" "${REGISTRAR__PARTITIONS__PAYMENTS:-0}" | sort -n | tail -1
    )}
}

# The workers' settings, as the owner of the database: for `workers migrate` and `workers seed`.
owner_settings() {
    workers_settings "$(workers_metrics_port 0)"
    export REGISTRAR__DATABASE__URL=$DATABASE_URL
}

load_services
