# The commands of daily work. Each is a script of deploy/local, loadtest or cargo; the settings of a system come from
# deploy/local/env, and REGISTRAR_INSTANCE chooses the system (see the header of deploy/local/services).
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up down demo logs test check load-smoke load-spike load-soak load-stampede bench audit prepare hooks clean-data

help:        ## list the targets
	@sed -n 's/^\([a-z-]*\): *## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

up:          ## install, build and start everything, then play a student's way
	@deploy/local/up

down:        ## stop the programs and the services; the data stays
	@deploy/local/app down
	@deploy/local/services down

demo:        ## play a student's way again, on the running system
	@deploy/local/demo

logs:        ## the last lines of every log (follow them: deploy/local/app logs -f)
	@deploy/local/services logs || true
	@deploy/local/app logs

test:        ## every test, on real services of their own (KEEP=1 leaves those running)
	@deploy/local/test

check:       ## format, lints, queries against the migrations, shell scripts
	@deploy/local/check

load-smoke:  ## a short k6 load with duplicates on the running system, then count its effects
	@deploy/local/install k6
	@loadtest/play smoke

load-spike:  ## the day a batch opens, by k6 (VUS=500; the header of loadtest/play names the settings), then count
	@deploy/local/install k6
	@loadtest/play spike

load-soak:   ## a steady load by k6 for five minutes (RATE, DURATION_SECONDS); nothing may grow; then count
	@deploy/local/install k6
	@loadtest/play soak

load-stampede: ## everybody wants one batch at once, by k6 (VUS=500), then count
	@deploy/local/install k6
	@loadtest/play stampede

bench:       ## measure it: release builds, services of their own (ARGS='payments --connections 64'; ARGS=--help)
	@loadtest/bench/run $(ARGS)

audit:       ## licences, bans and sources of the dependencies (cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	@cargo deny --config .deny.toml check bans licenses sources

prepare:     ## write .sqlx anew, after a query or a migration has changed
	@deploy/local/sqlx-check --prepare

hooks:       ## check format and scripts at each commit (an optional pre-commit hook of git)
	@deploy/local/pre-commit --install

clean-data:  ## stop all instances of this checkout and throw their data away
	@deploy/local/clean-data
