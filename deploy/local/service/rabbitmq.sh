# shellcheck shell=bash
# RabbitMQ: one node with a name, cookie, home, epmd (Erlang's port mapper) and folders of its own.

readonly RABBITMQ_BIN=/usr/lib/rabbitmq/bin

rabbitmq_ports() {
    printf '%s\n' amqp=11 rabbitmq_management=12 rabbitmq_prometheus=13 rabbitmq_dist=14 epmd=15
}

rabbitmq_external() { [[ -n ${REGISTRAR_EXTERNAL_AMQP_URL:-} ]]; }

# Erlang's epmd comes with the broker, and must not be left enabled where it was not there before.
rabbitmq_install() {
    local units=
    have epmd || units='epmd.socket epmd.service'
    [[ -x $RABBITMQ_BIN/rabbitmq-server ]] || printf 'rabbitmq-server\tthe message broker\t%s\n' "$units"
    have curl || printf 'curl\tasks the broker whether it is ready\n'
}

rabbitmq_settings() {
    if rabbitmq_external; then
        setting AMQP_URL "$REGISTRAR_EXTERNAL_AMQP_URL"
        setting AMQP_MANAGEMENT_URL "${REGISTRAR_EXTERNAL_AMQP_MANAGEMENT_URL:-}"
    else
        setting AMQP_URL "amqp://registrar:$SECRET_RABBITMQ_PASSWORD@127.0.0.1:$(port_of amqp)/registrar?heartbeat=10"
        setting AMQP_MANAGEMENT_URL "http://registrar:$SECRET_RABBITMQ_PASSWORD@127.0.0.1:$(port_of rabbitmq_management)"
    fi
}

rabbitmq_start() {
    local dir=$DATA_DIR/rabbitmq
    mkdir -p "$dir"
    set_rabbitmq_env
    write_rabbitmq_conf "$dir"
    if ! running_pid epmd >/dev/null; then
        start_process epmd env -i "${RABBITMQ_ENV[@]}" "$(find_epmd)" -port "$(port_of epmd)" -address 127.0.0.1
    fi
    start_process rabbitmq env -i "${RABBITMQ_ENV[@]}" "$RABBITMQ_BIN/rabbitmq-server"
}

# Up is: users and vhosts imported, no alarm, and listening for AMQP.
rabbitmq_ready() {
    local url
    url=http://127.0.0.1:$(port_of rabbitmq_management)/api
    curl -sf -m 3 -o /dev/null --config - "$url/health/checks/port-listener/$(port_of amqp)" <<<"user = \"registrar:$SECRET_RABBITMQ_PASSWORD\"" &&
        curl -sf -m 3 -o /dev/null --config - "$url/vhosts/registrar" <<<"user = \"registrar:$SECRET_RABBITMQ_PASSWORD\""
}

rabbitmq_stop() {
    stop_process rabbitmq TERM 30
    stop_process epmd TERM 5
}

# `services kill rabbitmq`
rabbitmq_kill() {
    local pid
    pid=$(running_pid rabbitmq) || die "rabbitmq: does not run here, so there is nothing to kill"
    kill -KILL "$pid"
    wait_gone rabbitmq 10 || die "rabbitmq: pid $pid does not die"
    rm -f "$RUN_DIR/rabbitmq.pid"
    say "rabbitmq: killed (SIGKILL, pid $pid); 'up rabbitmq' starts it again on the same data"
}

# `services ctl ARGUMENTS`: rabbitmqctl on our node.
rabbitmq_ctl() {
    set_rabbitmq_env
    env -i "${RABBITMQ_ENV[@]}" "$RABBITMQ_BIN/rabbitmqctl" -q "$@"
}

# --- parts of the above ----------------------------------------------------------------------------------------

find_epmd() {
    command -v epmd || compgen -G '/usr/lib/erlang/erts-*/bin/epmd' | head -n 1
}

set_rabbitmq_env() {
    local dir=$DATA_DIR/rabbitmq
    # shellcheck disable=SC2191 # these are words for env, not elements
    RABBITMQ_ENV=(
        HOME="$dir" PATH="$PATH" LANG=C.UTF-8
        RABBITMQ_CONF_ENV_FILE=/dev/null
        RABBITMQ_NODENAME="r$CHECKOUT_ID${INSTANCE:+-$INSTANCE}@localhost"
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
        RABBITMQ_NODE_PORT="$(port_of amqp)"
        RABBITMQ_DIST_PORT="$(port_of rabbitmq_dist)"
        ERL_EPMD_PORT="$(port_of epmd)"
        ERL_EPMD_ADDRESS=127.0.0.1
        RABBITMQ_MNESIA_BASE="$dir/mnesia"
        RABBITMQ_LOG_BASE="$LOG_DIR"
        RABBITMQ_LOGS=-
        RABBITMQ_PID_FILE="$dir/node.pid"
        RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins"
        RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf"
        RABBITMQ_GENERATED_CONFIG_DIR="$dir/generated"
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} $(scheduler_args)$(counting_args)"
        # makes the start script become the node instead of its parent, so that our pid is the node's
        RUNNING_UNDER_SYSTEMD=true
    )
}

# Tests wait until no message is left: there the broker counts every second instead of every five.
counting_args() {
    if [[ $INSTANCE == test* ]]; then
        printf ' -rabbit quorum_tick_interval 1000 -rabbit collect_statistics_interval 1000'
    fi
}

# Erlang's schedulers spin for a while before they sleep. Where the cores are shared with Postgres and the programs, that
# is CPU taken from them (rabbitmq.com/docs/runtime, "CPU resource contention"). Nor does the broker need all cores: with
# half of them as schedulers its processes wake each other without crossing to another core.
scheduler_args() {
    local schedulers=$(($(nproc) / 2))
    printf '+sbwt none +sbwtdcpu none +sbwtdio none +S %d' $((schedulers > 0 ? schedulers : 1))
}

write_rabbitmq_conf() {
    local dir=$1
    printf '[rabbitmq_management,rabbitmq_prometheus].\n' >"$dir/enabled_plugins"
    cat "$ROOT/deploy/rabbitmq/$MACHINE_SIZE.conf" - >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.local = 127.0.0.1:$(port_of amqp)
management.tcp.ip = 127.0.0.1
management.tcp.port = $(port_of rabbitmq_management)
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = $(port_of rabbitmq_prometheus)
load_definitions = $dir/definitions.json
log.console.level = info
CONF
    (
        umask 077
        cat >"$dir/definitions.json" <<JSON
{
  "users": [{ "name": "registrar", "password": "$SECRET_RABBITMQ_PASSWORD", "tags": "administrator" }],
  "vhosts": [{ "name": "/" }, { "name": "registrar" }],
  "permissions": [
    { "user": "registrar", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" },
    { "user": "registrar", "vhost": "registrar", "configure": ".*", "write": ".*", "read": ".*" }
  ]
}
JSON
        rm -f "$dir/.erlang.cookie"
        printf '%s' "$SECRET_ERLANG_COOKIE" >"$dir/.erlang.cookie"
        chmod 0400 "$dir/.erlang.cookie"
    )
}
