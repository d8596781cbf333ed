# shellcheck shell=bash
# Finds the services. Sourced by ../lib.sh.

# Each file of service/ is a service named as the file, with functions of that prefix. It must have
#   NAME_ports     prints `port=offset`, one a line: the ports it uses, as offsets from PORT_BASE; the main one first
#   NAME_install   prints `package<TAB>why[<TAB>units]` for each Debian package that is missing; units: what else than a
#                  unit of the package's name must not start at boot
#   NAME_start     starts its process in the background (start_process NAME ...)
#   NAME_ready     succeeds once it answers
#   NAME_stop      ends what it started, and succeeds where nothing runs
# and may have
#   NAME_after     prints the services that must be ready before it starts
#   NAME_external  succeeds where a server from outside is used in its place, which then is not started
#   NAME_prepare   is called whenever it is ready: what must be in it
#   NAME_settings  names its addresses (`setting KEY VALUE`), which deploy/local/env prints
#   NAME_kill      for `services kill NAME`
#   NAME_ctl       for `services ctl ARGUMENTS`
SERVICES=()

is_function() { declare -F "$1" >/dev/null; }

load_services() {
    local file name
    for file in "$ROOT"/deploy/local/service/*.sh; do
        name=${file##*/}
        # shellcheck disable=SC1090 # each is checked by itself
        . "$file"
        claim_ports "${name%.sh}"
    done
    for file in "$ROOT"/deploy/local/service/*.sh; do
        name=${file##*/}
        add_service "${name%.sh}"
    done
}

# Appends to SERVICES, after those that must be ready first.
add_service() {
    local name=$1 first
    [[ " ${SERVICES[*]} " != *" $name "* ]] || return 0
    if is_function "${name}_after"; then
        for first in $("${name}_after"); do
            is_function "${first}_start" || die "service/$name.sh: there is no service '$first' to start after"
            add_service "$first"
        done
    fi
    SERVICES+=("$name")
}

claim_ports() {
    local name=$1 line other
    for line in $("${name}_ports"); do
        for other in "${!PORT_OFFSETS[@]}"; do
            [[ ${PORT_OFFSETS[$other]} != "${line#*=}" ]] || die "service/$name.sh: port +${line#*=} is taken by '$other'"
        done
        PORT_OFFSETS[${line%%=*}]=${line#*=}
    done
}

# Prints the number of a service's main port.
service_port() {
    local name
    name=$("${1}_ports" | head -n 1)
    port_of "${name%%=*}"
}

is_external() { is_function "${1}_external" && "${1}_external"; }
