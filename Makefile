# What a newcomer types. Each target brings the tools it needs (tools/setup), so none has to be run before another.
#
#     make demo      see it work          make test STAGE=clippy       one stage of the tests
#     make test      prove that it works  make fuzz FUZZ=frame SECS=60 one fuzz target for a minute

.DEFAULT_GOAL := help
SHELL := bash
STAGE ?=
FUZZ ?=
SECS ?= 60
GROWTH ?=
ROW ?=
WRITE ?=

.PHONY: help demo test faults bench bench-server bench-edge limits build sdk worker server server-static server-tuned setup fmt lint deny advisories fuzz clean clean-tools

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

demo: ## Start server, edge and the shop page; click, and watch the rows arrive
	@tools/setup rust npm wasm-bindgen worker-build
	@tools/build sdk worker server
	@bash -c '. tools/env.sh && exec tools/demo'

test: ## Run every test (STAGE="name …" for some; tools/test --list names them)
	@tools/test $(STAGE)

faults: ## Try kills, power cuts, bad disks, clocks and clients on the server (ROW="name …" for some; WRITE=docs/faults.md)
	@tools/setup rust cxx
	@tools/build server
	@tools/faults $(if $(WRITE),--write $(WRITE)) $(ROW)

bench: ## Measure, and print one table
	@tools/setup rust npm wasm-bindgen worker-build
	@tools/build sdk worker server benches
	@bash -c '. tools/env.sh && exec tools/bench'

bench-server: ## Measure the server against its goals (GROWTH=20: also with a journal of 20 GB)
	@tools/setup rust
	@tools/build server benches
	@bash -c '. tools/env.sh && BENCH_GIGABYTES=$(GROWTH) exec tools/bench --only server isolation $(if $(GROWTH),growth)'

bench-edge: ## Measure the Worker on workerd, beside a plain JavaScript Worker that does the same
	@tools/setup rust npm wasm-bindgen
	@tools/build sdk worker
	@bash -c '. tools/env.sh && exec tools/bench --only edge sizes'

limits: ## Measure the Worker beside the platform's limits: size, start-up, processor time
	@tools/setup rust npm wasm-bindgen worker-build
	@tools/build sdk worker
	@bash -c '. tools/env.sh && exec tools/limits'

build: ## Build page SDK, Worker and server
	@tools/setup rust npm wasm-bindgen worker-build
	@tools/build sdk worker server

sdk: ## Build the page SDK into bindings/dist
	@tools/setup rust npm wasm-bindgen
	@tools/build sdk

worker: ## Build the Worker into edge-worker/build
	@tools/setup rust npm wasm-bindgen worker-build
	@tools/build sdk worker

server: ## Build the server, optimised: target/release/firsthop
	@tools/setup rust
	@tools/build server

server-static: ## Build the server as one file that needs nothing of the system: target/<processor>-unknown-linux-musl/release/firsthop
	@tools/setup static
	@tools/build server-static

server-tuned: ## Build the server guided by a profile, a tenth faster, in about ten minutes: target/tuned/bin/firsthop
	@tools/setup tuned
	@tools/build server-tuned

setup: ## Install all tools now
	@tools/setup

fmt: ## Format all Rust code
	@tools/setup rust
	cargo fmt --all
	cargo fmt --all --manifest-path fuzz/Cargo.toml

lint: ## Check formatting and run clippy
	@tools/test fmt clippy

deny: ## Check licences, banned crates and sources
	@tools/test deny

advisories: ## Check known vulnerabilities (fetches the advisory database, which is no package registry)
	@tools/setup cargo-tools
	@bash -c '. tools/env.sh && cargo deny --workspace --all-features check advisories'

fuzz: ## Fuzz (FUZZ=target for one of them, SECS=seconds for each)
	@tools/setup rust cxx
	@tools/fuzz $(SECS) $(FUZZ)

clean: ## Remove what was built
	rm -rf "$${CARGO_TARGET_DIR:-target}" fuzz/target bindings/dist edge-worker/build edge-worker/.wrangler .tools/stamps

clean-tools: ## Remove the installed tools as well
	@bash -c '. tools/env.sh && cd "$$FIRSTHOP_TOOLS" && rm -rf node-* wasm-bindgen-* worker-build-* cargo-nextest-* compiling log lock'
	rm -rf node_modules .tools
