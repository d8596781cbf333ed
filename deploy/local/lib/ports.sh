# shellcheck shell=bash disable=SC2154 # the keys of PORT_OFFSETS are no variables
# The instance's block of ports: chosen once, remembered in its data folder. Sourced by ../lib.sh.

FIRST_PORT_BASE=20000
PORT_BLOCKS=110
PORTS_PER_BLOCK=100
# Offsets from PORT_BASE; +2..+9 are the metrics listeners of the worker processes, +20 and +21 a second gateway, +20..+49
# those of the benchmark. Services add theirs, +10..+19 and +50..+99.
declare -A PORT_OFFSETS=([gateway]=0 [gateway_metrics]=1 [workers_metrics]=2 [gateway2]=20 [gateway2_metrics]=21)

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

# First ports of the blocks that other data folders of this machine remember, running or not.
claimed_blocks() {
    local file
    for file in /var/tmp/registrar-*/ports; do
        [[ $file != "$DATA_DIR/ports" && -r $file ]] || continue
        sed -n 's/^base=//p' "$file"
    done
}

block_is_unclaimed() {
    awk -v base="$1" -v size="$PORTS_PER_BLOCK" '$1 != "" && $1 > base - size && $1 < base + size { taken = 1 } END { exit taken }' <<<"$2"
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
            if block_is_unclaimed "$block" "$claimed" && block_is_free "$block" "$listening"; then
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
