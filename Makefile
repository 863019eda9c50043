# `make run` starts Triptych on this machine; `make test` passes all tests. Needed: a Rust toolchain (1.95 or later), a C compiler, git.
# Node.js 20 or later is used for the page at / where it is there.

.DEFAULT_GOAL := run
ARGS ?=

.PHONY: run build ui test simulate mutants check fmt bench limits faults cluster docs clean

run: ui ## build what is needed and start every role in one process
	cargo run --release --locked --bin triptych -- all $(ARGS)

build: ui
	cargo build --release --locked --bin triptych

ui: ## the page, where Node.js is there
	@if command -v npm >/dev/null 2>&1; then \
	  cd ui && { [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --loglevel=error; } && \
	  { [ -e dist/index.html ] && [ -z "$$(find src index.html *.json *.ts -newer dist/index.html)" ] || npm run --silent build; } \
	  || echo "The page could not be built (Node.js 20 or later is needed): the page at / will be a plain one"; \
	else echo "Node.js was not found: the page at / will be a plain one"; fi

test: ui ## all tests; those of the page where Node.js is there
	@if [ -d ui/node_modules/vitest ]; then cd ui && npm test --silent; fi
	cargo test --locked --workspace

simulate: ## ten thousand seeds of the simulation that no test has; ARGS="100 7": a hundred, from seed 7
	cargo run --release --locked -q -p triptych-testkit --example simulate -- $(ARGS)

mutants: ## shows that the simulation finds bugs that are put in on purpose
	cargo test --locked -p triptych-testkit --test simulation -- --ignored --nocapture

check: ## format, lints, rooms, licences, references
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo run --locked -q -p triptych-xtask -- check

fmt:
	cargo fmt --all

bench: build ## ingest and query load against a running `all`; see docs/performance.md
	TRIPTYCH_BIN=$${CARGO_TARGET_DIR:-target}/release/triptych cargo run --release --locked -p triptych-e2e --bin bench -- $(ARGS)

cluster: build ## each role its own process, three zones, an S3 server; members can be killed, cut off, restarted; ends with Ctrl-C
	TRIPTYCH_BIN=$${CARGO_TARGET_DIR:-target}/release/triptych cargo run --release --locked -p triptych-e2e --bin cluster

limits: ## hostile loads against a process with little memory; see docs/operations.md
	cargo build --release --locked --bin triptych
	cargo test --release --locked -p triptych-e2e --test limits -- --ignored --nocapture

faults: ## a cluster under faults, one after the other; see docs/operations.md; FAULT=zone: those whose name has it; BUCKET_AWAY_SECONDS=3600
	cargo test --locked -p triptych-e2e --test faults -- --ignored --nocapture

docs: ## references that are made from the code
	cargo run -q -p triptych-xtask -- graph
	cargo run -q --bin triptych -- config docs > docs/configuration.md
	cargo run -q --bin triptych -- telemetry docs > docs/metrics.md

clean:
	cargo clean
	rm -rf ui/dist ui/node_modules data
