# Two commands: `make up` takes a fresh clone to a running release, `make test` runs every test.
# Both can be run again at any time.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
BME := $(CARGO_TARGET_DIR)/debug/bme
TAG ?= v0.1.0

.PHONY: help up test test-crash bench down tools test-tools build lint

# Installs the packages in $missing, without starting what they bring.
define INSTALL
if [ -n "$$missing" ]; then \
    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
        echo "installing$$missing"; \
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$missing; \
    else echo "missing:$$missing - install with your package manager, then run make again"; exit 1; fi; \
fi
endef

help: ## Tell what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 17

up: build ## From a fresh clone to a running release in the sandbox
	$(BME) --env local --yes provision
	@if [ "$$($(BME) --env local --output json releases)" = "[]" ]; then \
	    echo "$(BME) --env local --yes deploy --tag $(TAG)"; \
	    $(BME) --env local --yes deploy --tag $(TAG); \
	fi
	@$(BME) --env local status
	@echo
	@echo "Try next:"
	@echo "  $(BME) plan                     what differs (nothing)"
	@echo "  $(BME) deploy --tag v0.2.0      after a change in service/"
	@echo "  $(BME) rollback                 back to the release before"
	@echo "  make down                       delete the environment and stop the sandbox"
	@echo
	@$(BME) --env local --output json status | python3 -c 'import json, sys; url = json.load(sys.stdin)["url"]; print(f"Running at {url} (try: curl {url}/ready)")'

down: build ## Delete the local environment and stop its sandbox
	$(BME) --env local --yes destroy --allow-data-loss
	$(BME) --env local sandbox down

# The whole workspace, so that `make test` finds the AWS SDK crates built with the same features.
build: tools ## Build bme
	@if [ ! -x $(BME) ]; then \
	    echo "First build: about 20 minutes on two cores, 5 on eight (twenty AWS SDK crates, then the service)."; \
	fi
	cargo build --locked --workspace --bins

lint: ## Format, lints, dependency policy
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check bans licenses sources; \
	else echo "cargo-deny is not installed: the dependency policy is checked by .github/workflows/ci.yml"; fi

test: tools test-tools ## Run every test, from unit to end to end
	cargo test --locked --workspace

# Thousands of runs are worth a build with optimisation, in a directory of its own.
test-crash: export CARGO_TARGET_DIR := $(CARGO_TARGET_DIR)/optimised
test-crash: export CARGO_PROFILE_DEV_OPT_LEVEL := 1
test-crash: export CARGO_PROFILE_DEV_DEBUG := 0
test-crash: tools test-tools ## Kill bme at every AWS call there is, not only at some (about an hour)
	cargo build --locked --workspace --bin bme
	BME_CRASH=all cargo test --locked --workspace --test crash -- --nocapture --test-threads 1

bench: tools test-tools ## Measure the service (size, start, memory, CPU per request) and a provision (calls, time)
	@missing=""; \
	for tool in wrk curl; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	$(INSTALL)
	cargo build --locked --workspace --bins
	cargo bench --locked --workspace --profile dev --bench service --bench provision

# The service's tests start their own PostgreSQL and Redis.
test-tools:
	@missing=""; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	$(INSTALL)

# What the build needs; what the sandbox needs, bme installs or names by itself.
tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs"; exit 1; }
	@missing=""; \
	command -v cc >/dev/null || missing="$$missing build-essential"; \
	command -v python3 >/dev/null || missing="$$missing python3 python3-venv"; \
	$(INSTALL)
