# shellcheck shell=bash
# Redis: a cache, so it keeps nothing on disk and drops the least recently used keys.

redis_ports() { printf 'redis=16\n'; }

redis_external() { [[ -n ${REGISTRAR_EXTERNAL_REDIS_URL:-} ]]; }

redis_install() { have redis-server || printf 'redis-server\tthe cache\n'; }

redis_settings() { setting REDIS_URL "${REGISTRAR_EXTERNAL_REDIS_URL:-redis://127.0.0.1:$(port_of redis)}"; }

redis_start() {
    mkdir -p "$DATA_DIR/redis"
    start_process redis redis-server --bind 127.0.0.1 --port "$(port_of redis)" --save '' --appendonly no \
        --dir "$DATA_DIR/redis" --daemonize no --maxmemory 256mb --maxmemory-policy allkeys-lru
}

redis_ready() { [[ $(redis-cli -h 127.0.0.1 -p "$(port_of redis)" ping) == PONG ]]; }

redis_stop() { stop_process redis TERM 10; }
