# shellcheck shell=bash
# The mail catcher, maildev: takes every mail by SMTP and shows it in an inbox, and sends none on.

readonly MAILDEV_VERSION=2.2.1

mail_ports() { printf '%s\n' mail=18 smtp=17; }

mail_external() { [[ -n ${REGISTRAR_EXTERNAL_SMTP_URL:-} ]]; }

mail_install() {
    have node || printf 'nodejs\truns the mail catcher\n'
    have npm || printf 'npm\tinstalls the mail catcher\n'
    have curl || printf 'curl\tasks the mail catcher whether it is ready\n'
}

# MAIL_URL is the inbox; empty for an external server that has none.
mail_settings() {
    if mail_external; then
        setting SMTP_URL "$REGISTRAR_EXTERNAL_SMTP_URL"
        setting MAIL_URL "${REGISTRAR_EXTERNAL_MAIL_URL:-}"
    else
        setting SMTP_URL "smtp://127.0.0.1:$(port_of smtp)"
        setting MAIL_URL "http://127.0.0.1:$(port_of mail)"
    fi
}

mail_start() {
    local home=$CACHE_DIR/maildev-$MAILDEV_VERSION
    install_maildev "$home"
    rm -rf "$DATA_DIR/mail"
    mkdir -p "$DATA_DIR/mail"
    start_process mail env NODE_ENV=production node "$home/node_modules/maildev/bin/maildev" --silent \
        --ip 127.0.0.1 --smtp "$(port_of smtp)" --web-ip 127.0.0.1 --web "$(port_of mail)" --mail-directory "$DATA_DIR/mail"
}

mail_ready() { answers "http://127.0.0.1:$(port_of mail)/healthz"; }

mail_stop() { stop_process mail TERM 10; }

# --- parts of the above ----------------------------------------------------------------------------------------

# Shared by the instances of a checkout; made aside and moved, so that a broken download leaves nothing behind.
install_maildev() {
    local home=$1
    [[ ! -e $home/node_modules/maildev/bin/maildev ]] || return 0
    (
        flock 8
        [[ ! -e $home/node_modules/maildev/bin/maildev ]] || exit 0
        say "mail: installing maildev $MAILDEV_VERSION (the mail catcher) from npm into $home"
        rm -rf "$home" "$home.new"
        mkdir -p "$home.new"
        npm install --prefix "$home.new" --no-audit --no-fund --no-save --ignore-scripts --omit=dev --loglevel=error \
            "maildev@$MAILDEV_VERSION" </dev/null >"$LOG_DIR/maildev-install.log" 2>&1 || {
            tail -n 15 "$LOG_DIR/maildev-install.log" >&2
            die "mail: npm could not install maildev: is the npm registry reachable? An existing mail server: REGISTRAR_EXTERNAL_SMTP_URL"
        }
        mv "$home.new" "$home"
    ) 8>"$CACHE_DIR/lock"
}
