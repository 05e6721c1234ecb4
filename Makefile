# Every target installs what it needs by itself (scripts/setup); run `make help` for the list.
.DEFAULT_GOAL := help
.PHONY: chaos chaos-uploads fuzz help setup build demo test test-kill lint fmt deny bench bench-uploads bench-fleet clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what the tests need (system packages, browser, clients)
	@scripts/setup test

build: ## compile reelyard and reelyard-media, optimised
	@scripts/setup build
	@scripts/setup player || echo "the page's player was not built; the page will use the browser's own player" >&2
	@cargo build --release -p reelyard -p reelyard-media

demo: ## from a clean checkout to a playing video, then stay up until Ctrl-C (FILE=... for your own)
	@scripts/demo $(FILE)

test: ## every suite; closes on the runner's own count line
	@scripts/test

test-kill: ## the long kill -9 campaign (KILLS=200 SEED=1)
	@scripts/setup test
	@cargo build --workspace --bins --quiet
	@REELYARD_KILLS=$(or $(KILLS),200) REELYARD_SEED=$(or $(SEED),1) cargo nextest run -p reelyard --test kill --no-capture

chaos-uploads: ## the long campaign against uploads on disk and in S3 (KILLS=300 SEED=1)
	@scripts/setup test
	@cargo build --workspace --bins --quiet
	@REELYARD_TEST_KILLS=$(or $(KILLS),300) REELYARD_TEST_SEED=$(or $(SEED),1) cargo nextest run -p reelyard --test uploads --no-capture chaos crash

chaos: ## the fault campaign against a whole fleet, and every crash point (SEED=1 ROUNDS=500; SWITCHES=without-fencing)
	@scripts/setup test
	@scripts/crash-program
	@cargo build --workspace --bins --quiet
	@REELYARD_CHAOS_SEED=$(or $(SEED),1) REELYARD_CHAOS_ROUNDS=$(or $(ROUNDS),500) REELYARD_CHAOS_SWITCHES="$(SWITCHES)" \
	  REELYARD_CRASH_POINTS=all cargo nextest run -p reelyard --test fleet --no-fail-fast --no-capture $(or $(ONLY),chaos points)

fuzz: ## the long fuzz campaign: every target for MINUTES=10
	@scripts/setup build
	@fuzz/run $(or $(MINUTES),10)

lint: ## formatting, clippy with denied warnings, deploy/, licences and bans of dependencies
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@scripts/check-deploy
	@$(MAKE) --no-print-directory deny

deny: ## licences, bans and sources of dependencies
	@cargo deny --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-deny
	@cargo deny --workspace check licenses bans sources

fmt: ## format everything
	@cargo fmt --all

bench: ## measure against FFmpeg's command line (see benches/README.md)
	@scripts/setup bench
	@benches/ladder

bench-uploads: ## measure uploads against a floor and other servers (see benches/README.md)
	@scripts/setup bench-uploads
	@cargo build --release --quiet -p reelyard -p bench-uploads --bins
	@cargo run --release --quiet -p bench-uploads -- $(OPTIONS)

bench-fleet: ## measure dispatch on PostgreSQL and RabbitMQ beside the broker's own rate (see benches/README.md)
	@scripts/setup s3
	@scripts/setup servers
	@cargo build --release --quiet -p reelyard -p bench-fleet
	@cargo run --release --quiet -p bench-fleet -- $(OPTIONS)

clean: ## remove what was built and installed inside the checkout
	@rm -rf target .tools .scratch console/dist console/node_modules tests/browser/node_modules tests/clients/node_modules clients/upload-js/node_modules clients/upload-js/dist benches/uploads/node_modules
