# shellcheck shell=bash
# PostgreSQL 15 or later. As root it must run as another user, `postgres`; either way that user is the superuser, by peer
# authentication on the Unix socket.

postgres_ports() { printf 'postgres=10\n'; }

postgres_external() { [[ -n ${REGISTRAR_EXTERNAL_DATABASE_URL:-} ]]; }

postgres_install() { find_postgres_bin >/dev/null || printf 'postgresql\tthe database\n'; }

# The least-privileged roles of the programs, and the owner who migrates and seeds.
postgres_settings() {
    local server
    server=127.0.0.1:$(port_of postgres)/registrar
    if postgres_external; then
        setting DATABASE_URL "$REGISTRAR_EXTERNAL_DATABASE_URL"
        setting GATEWAY_DATABASE_URL "${REGISTRAR_EXTERNAL_GATEWAY_DATABASE_URL:-$REGISTRAR_EXTERNAL_DATABASE_URL}"
        setting WORKERS_DATABASE_URL "${REGISTRAR_EXTERNAL_WORKERS_DATABASE_URL:-$REGISTRAR_EXTERNAL_DATABASE_URL}"
    else
        setting DATABASE_URL "postgres://registrar_owner:$SECRET_OWNER_PASSWORD@$server"
        setting GATEWAY_DATABASE_URL "postgres://registrar_gateway:$SECRET_GATEWAY_PASSWORD@$server"
        setting WORKERS_DATABASE_URL "postgres://registrar_workers:$SECRET_WORKERS_PASSWORD@$server"
    fi
}

postgres_start() {
    local data=$DATA_DIR/postgres owner bin
    local -a as
    bin=$(find_postgres_bin) || die "postgres: no PostgreSQL 15 or later found"
    owner=$(postgres_user)
    mapfile -t as < <(as_postgres)
    mkdir -p "$DATA_DIR/sock" "$data"
    if [[ $EUID -eq 0 ]]; then chown postgres:postgres "$data" "$DATA_DIR/sock"; fi
    chmod 0700 "$data"
    if [[ ! -s $data/PG_VERSION ]]; then
        say "postgres: making an empty cluster"
        (cd / && "${as[@]}" "$bin/initdb" -D "$data" -U "$owner" --encoding=UTF8 --locale=C.UTF-8 \
            --auth-local=peer --auth-host=scram-sha-256) >"$LOG_DIR/initdb.log" 2>&1 || {
            tail -n 15 "$LOG_DIR/initdb.log" >&2
            die "postgres: initdb failed; once mended, remove $data and run the same command again"
        }
    fi
    write_postgres_conf "$data"
    clear_stale_postgres_locks "$data"
    start_process postgres "${as[@]}" "$bin/postgres" -D "$data"
}

postgres_ready() { "$(find_postgres_bin)/pg_isready" -q -h 127.0.0.1 -p "$(port_of postgres)"; }

# The roles and the database; psql cannot quote variables inside DO, hence \gexec.
postgres_prepare() {
    superuser_sql -v owner="$SECRET_OWNER_PASSWORD" -v gateway="$SECRET_GATEWAY_PASSWORD" \
        -v workers="$SECRET_WORKERS_PASSWORD" <<'SQL' >/dev/null
SELECT format('CREATE ROLE %I', role)
  FROM unnest(ARRAY['registrar_owner', 'registrar_gateway', 'registrar_workers']) AS role
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE registrar_owner   LOGIN CREATEDB PASSWORD :'owner';
ALTER ROLE registrar_gateway LOGIN PASSWORD :'gateway';
ALTER ROLE registrar_workers LOGIN PASSWORD :'workers';
SELECT 'CREATE DATABASE registrar OWNER registrar_owner'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'registrar') \gexec
SQL
}

# SIGINT is PostgreSQL's fast shutdown: open transactions are rolled back.
postgres_stop() { stop_process postgres INT 30; }

# --- parts of the above ----------------------------------------------------------------------------------------

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

postgres_user() {
    if [[ $EUID -eq 0 ]]; then printf postgres; else id -un; fi
}

# Prints the words that run a command as that user, one a line.
as_postgres() {
    if [[ $EUID -eq 0 ]]; then
        printf '%s\n' setpriv --reuid=postgres --regid=postgres --init-groups --reset-env --
    else
        printf 'env\n'
    fi
}

superuser_sql() {
    local -a as
    mapfile -t as < <(as_postgres)
    (
        cd /
        "${as[@]}" "$(find_postgres_bin)/psql" -X -q -v ON_ERROR_STOP=1 \
            -h "$DATA_DIR/sock" -p "$(port_of postgres)" -U "$(postgres_user)" -d postgres "$@"
    )
}

# After a SIGKILL or a reboot the lock files name a pid that may be someone else's by now, and Postgres would refuse to
# start. They are stale once no process works in the data folder.
clear_stale_postgres_locks() {
    local data=$1 deadline=$((SECONDS + 15))
    while [[ -n $(find /proc -maxdepth 2 -name cwd -lname "$data" -print -quit 2>/dev/null) ]]; do
        ((SECONDS < deadline)) || die "postgres: a process that is not ours works in $data: end it first"
        sleep 0.2
    done
    rm -f "$data/postmaster.pid" "$DATA_DIR/sock/.s.PGSQL."*
}

write_postgres_conf() {
    local data=$1 fsync=on tests=
    if [[ $INSTANCE == test* ]]; then
        fsync=off
        # Autovacuum visits each database once in this time, and every test has one of its own.
        tests='autovacuum_naptime = 5min'
    fi
    cat "$ROOT/deploy/postgres/$MACHINE_SIZE.conf" - >"$data/registrar.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $(port_of postgres)
unix_socket_directories = '$DATA_DIR/sock'
fsync = $fsync
full_page_writes = $fsync
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
log_min_duration_statement = 1s
$tests
CONF
    chmod 0644 "$data/registrar.conf"
    grep -q "^include 'registrar.conf'" "$data/postgresql.conf" || printf "include 'registrar.conf'\n" >>"$data/postgresql.conf"
    cat >"$data/pg_hba.conf" <<CONF
local  all  $(postgres_user)  peer
local  all  all  scram-sha-256
host   all  all  127.0.0.1/32  scram-sha-256
CONF
}
