# Tollgate. `make` lists what there is. Each target does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# fast: quick to build, what tests load. release: what `make run` and `make bench` use.
PROFILE ?= fast
# Everything but the module: that one needs an nginx tree and has its own target folders.
PACKAGES := --workspace --exclude ngx_http_tollgate_module
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
TOLLGATE_NGINX ?= pinned

.PHONY: help setup ui api-types test-ui screenshots check-ui nacos module module-pinned module-debian module-custom daemon mock run cluster test test-crates \
	test-e2e test-e2e-debian test-python valgrind check check-format check-clippy check-docs check-deny bench bench-api bench-accuracy oracle fuzz-meter bench-meter model-lease package clean

help: ## list the targets
	@echo "usage: make <target> [PROFILE=fast|release|dev]"
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)$$/  \1|\2/' \
		| awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

setup: ## install the missing Debian packages (root or sudo), or say which
	@scripts/setup.sh

module: ## build the .so for the pinned and for Debian's nginx, or for NGINX_SOURCE_DIR/NGINX_BUILD_DIR
ifdef NGINX_SOURCE_DIR
module: module-custom
else
module: module-pinned module-debian
endif

module-pinned: ## target/module/pinned: the pinned nginx 1.28
	@echo "== module for the pinned nginx ($(PROFILE))"
	@scripts/build-module.sh pinned $(PROFILE)

module-debian: ## target/module/debian: Debian's stock nginx 1.22.1
	@echo "== module for Debian's nginx ($(PROFILE))"
	@scripts/build-module.sh debian $(PROFILE)

module-custom: ## target/module/custom: the tree in NGINX_SOURCE_DIR and NGINX_BUILD_DIR
	@echo "== module for $${NGINX_SOURCE_DIR:-(NGINX_SOURCE_DIR is not set)} ($(PROFILE))"
	@scripts/build-module.sh custom $(PROFILE)

ui: ## build the dashboard: admin-ui/dist, which the daemon's build takes in
	@echo "== dashboard"
	@scripts/ui.sh

api-types: ## make the dashboard's types from the daemon's description of its API
	@echo "== dashboard: types of the API"
	@PROFILE=$(PROFILE) scripts/api-types.sh

daemon: ui ## build the daemon with its dashboard: target/<profile>/tollgate
	@echo "== daemon ($(PROFILE))"
	@cargo build --quiet -p tollgate --profile $(PROFILE)

mock: ## build the mock LLM: target/<profile>/mock-llm
	@echo "== mock LLM ($(PROFILE))"
	@cargo build --quiet -p tollgate-tests --bin mock-llm --profile $(PROFILE)

run: setup ## start nginx, daemon and mock LLM with sample channels; shows a live table until Ctrl-C
	@scripts/run.sh

cluster: setup ## start three instances behind HAProxy, with Redis, Nacos and a mock LLM, until Ctrl-C
	@scripts/cluster.sh

test: setup module daemon mock ## all tests: crates, end to end on both nginx versions, Python SDKs, the dashboard in Chromium
	@$(MAKE) test-crates
	@$(MAKE) test-e2e TOLLGATE_NGINX=pinned
	@$(MAKE) test-e2e TOLLGATE_NGINX=debian
	@$(MAKE) test-python
	@$(MAKE) test-ui

test-crates: ## unit and property tests of the crates and the daemon
	@echo "== tests of the crates and the daemon"
ifdef NEXTEST
	@cargo nextest run --config-file tests/nextest.toml $(PACKAGES) --exclude tollgate-tests --no-tests=pass \
		--cargo-quiet --status-level fail --show-progress none
	@cargo test --quiet $(PACKAGES) --exclude tollgate-tests --doc
else
	@cargo test --quiet $(PACKAGES) --exclude tollgate-tests
endif

# With optimisation: mock, clients and load generator share the machine with the gateway they drive.
nacos: ## build the Nacos server that tests talk to, once, into the cache
	@scripts/rnacos.sh >/dev/null

test-e2e: nacos ## end-to-end tests on TOLLGATE_NGINX=pinned (default) or debian
	@echo "== end-to-end tests, $(TOLLGATE_NGINX) nginx"
ifdef NEXTEST
	@TOLLGATE_NGINX=$(TOLLGATE_NGINX) cargo nextest run --config-file tests/nextest.toml -p tollgate-tests \
		--cargo-profile fast --cargo-quiet --status-level fail --show-progress none
else
	@TOLLGATE_NGINX=$(TOLLGATE_NGINX) cargo test --quiet -p tollgate-tests --profile fast
endif

test-python: ## the openai, anthropic and google-genai Python SDKs through the gateway; schemathesis against the admin API
	@echo "== Python SDKs, $(TOLLGATE_NGINX) nginx"
	@python="$$(scripts/python-env.sh)"; TOLLGATE_PYTHON="$$python" TOLLGATE_NGINX=$(TOLLGATE_NGINX) \
		cargo test --quiet -p tollgate-tests --profile fast --test python_sdks --test python_admin_api -- --ignored --nocapture

test-ui: ui nacos ## the dashboard's texts, and the dashboard itself in Chromium over a real gateway
	@echo "== dashboard: units"
	@cd admin-ui && npm run --silent test
	@echo "== dashboard: in Chromium"
	@cd admin-ui && PROFILE=$(PROFILE) npm run --silent e2e

screenshots: ui ## every page of the dashboard as a picture, into docs/screenshots; what test-ui does not do
	@cd admin-ui && PROFILE=$(PROFILE) TOLLGATE_SCREENSHOTS="$(CURDIR)/docs/screenshots" node --test e2e/looks.spec.mjs

valgrind: setup daemon ## one worker under Valgrind through hundreds of requests good and bad, on an nginx without pools
	@echo "== Valgrind, module for the checked nginx ($(PROFILE))"
	@scripts/build-module.sh checked $(PROFILE)
	@TOLLGATE_NGINX=checked cargo test --quiet -p tollgate-tests --profile fast --test memory_checked -- \
		--ignored --nocapture

check: check-format check-clippy check-docs check-deny check-ui ## formatting, lints, documentation, licences

check-format:
	@echo "== formatting"
	@cargo fmt --all --check

check-clippy:
	@echo "== clippy"
	@cargo clippy --quiet $(PACKAGES) --all-targets -- -D warnings
	@tree="$$(scripts/nginx-tree.sh pinned)"; eval "$$tree"; CARGO_TARGET_DIR=target/ngx-pinned \
		cargo clippy --quiet -p ngx_http_tollgate_module -- -D warnings

check-ui:
	@echo "== dashboard: types and lints"
	@scripts/ui.sh
	@PROFILE=$(PROFILE) scripts/api-types.sh check
	@cd admin-ui && npm run --silent types && npm run --silent lint

check-docs:
	@echo "== documentation"
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet $(PACKAGES) --no-deps --document-private-items
	@tree="$$(scripts/nginx-tree.sh pinned)"; eval "$$tree"; RUSTDOCFLAGS="-D warnings" CARGO_TARGET_DIR=target/ngx-pinned \
		cargo doc --quiet -p ngx_http_tollgate_module --no-deps --document-private-items

# Advisories need their database from the network: that one is for the release check.
check-deny:
	@if command -v cargo-deny >/dev/null; then \
		echo "== licences and sources"; cargo deny --offline --log-level error check bans licenses sources; \
	else \
		echo "== licences and sources: skipped, cargo-deny is not installed"; \
	fi

bench: setup ## the table of the README with this machine's figures (minutes; keep the machine quiet)
	@if [ -x scripts/bench.sh ]; then scripts/bench.sh; else echo "bench: not there yet"; exit 1; fi

bench-api: ## every list, chart and search of the admin API over 10,000 channels, 1,000 models and ROWS (10 million) requests
	@cargo bench --quiet -p tollgate --bench api --profile release -- $(or $(ROWS),10000000)

bench-accuracy: setup module-pinned daemon ## admitted ÷ limit over 1, 3 and 5 instances, in all cases and under all faults (a quarter of an hour); ACCURACY_ARGS
	@cargo run --quiet -p tollgate-tests --profile $(PROFILE) --bin tollgate-accuracy -- $(ACCURACY_ARGS)

oracle: ## every tokenizer on board against other engines' ids, on 210 MB (half an hour); TOLLGATE_TOKENIZERS adds files
	@scripts/oracle.sh

fuzz-meter: ## ten million small texts through the tokenizers and their oracles; EXECUTIONS and SEED change that
	@cargo run --quiet -p tollgate-meter-oracle --profile fast --bin fuzz -- $(or $(EXECUTIONS),10000000) $(or $(SEED),1)

bench-meter: ## tokenizer throughput beside tiktoken-rs, bpe-openai and tokenizers
	@cargo run --quiet -p tollgate-meter-oracle --release --bin bench

model-lease: ## the protocol of limits across instances under every order of events (loom, stateright; minutes, 3 GB); prints the states
	@RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --quiet -p tollgate-shm --lib model
	@cargo test --quiet -p tollgate-lease --test model -- --include-ignored --nocapture --test-threads 1

package: ## distribution packages (not there yet)
	@echo "package: not there yet"; exit 1

clean: ## remove everything that was built; the nginx trees and the SDKs stay in the cache
	@rm -rf target
