# shellcheck shell=bash
# Background processes of the instance: started, found again and ended. A process counts as ours only while its pid file
# names its pid *and* its start time, so that a reused pid is never signalled. Sourced by ../lib.sh.

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
