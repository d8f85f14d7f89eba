# Everything here works from a clean checkout on Debian 12 with Rust and Go. `make` alone lists it.

cluster := tests/cluster/cluster
demos := tests/demo/cluster tests/demo/local tests/demo/clean
supply := deploy/docker/assemble deploy/docker/compile deploy/docker/release deploy/krew/package tests/supply/deny tests/supply/krew tests/supply/release tests/supply/reproducible tests/supply/tools

# dev or release: what the images are built from.
export PROFILE ?= dev
# End-to-end tests at once; each has a namespace, a controller and databases of its own.
E2E_THREADS ?= 2
# Names of the tests to run, a part is enough; all by default.
TESTS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-local demo-clean test test-full release reproducible test-release krew bench bench-scale bench-pull bench-restore bench-agent bench-locks check lint unit scripts deny crds chart chart-docs operators images cluster-up cluster-down cluster-deps cluster-programs e2e

help: ## This list
	@printf 'make TARGET, with\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "  %-14s %s\n", $$1, $$2}'
	@printf '\nVariables: PROFILE=dev|release, TESTS=part-of-a-name, E2E_THREADS=2, TOWLINE_CACHE=folder\n'
	@printf 'Another cluster: TOWLINE_TEST_KUBECONFIG=file TOWLINE_TEST_REGISTRY=host/path\n'

demo: ## A backup on a real cluster, from schedule to an archive opened by hand; leaves it running
	@tests/demo/cluster

demo-local: ## The same without Kubernetes, in two minutes after the build
	@tests/demo/local

demo-clean: ## Removes what `make demo` left, and stops the cluster
	@tests/demo/clean

# The slow builds of Go and of Rust go side by side.
test: cluster-deps ## Every test, on a real cluster
	@$(MAKE) --no-print-directory -j2 cluster-programs lint
	@$(cluster) up
	@$(MAKE) --no-print-directory scripts deny unit operators
	@$(MAKE) --no-print-directory images
	@$(MAKE) --no-print-directory krew
	@$(MAKE) --no-print-directory e2e

test-full: export PROPTEST_CASES = 5000
test-full: test test-release ## The same, with many more random cases, and what a release is made by

release: ## Images, their lists of parts, chart and checksums into dist/, to be published
	@tools=$$(tests/supply/tools) && PATH="$$tools:$$PATH" deploy/docker/release dist

test-release: ## The same on stand-ins for Docker Hub's base images, looked at, and built a second time
	@tests/supply/release

krew: ## Packs the kubectl plugin, and has Krew install it
	@tests/supply/krew

reproducible: ## Builds the release programs twice, in different places, and compares the bytes
	@tests/supply/reproducible

bench: PROFILE = release
bench: ## What the README promises, measured with release builds
	@$(cluster) up
	@$(cluster) images
	@eval "$$($(cluster) env)" && cargo bench --locked --workspace --bench cluster
	@$(MAKE) --no-print-directory bench-scale bench-pull bench-restore bench-agent bench-locks

bench-scale: ## Thousands of objects, and many jobs due at once, on the cluster
	@$(cluster) up
	cargo build --locked --workspace --release --bin towline-controller
	@eval "$$($(cluster) env)" && cargo bench --locked --workspace --bench scale

bench-pull: ## `towline backup` against curl and rclone, to the cluster's S3 server
	@$(cluster) up
	cargo build --locked --workspace --release --bin towline
	@eval "$$($(cluster) env)" && cargo bench --locked --workspace --bench pull

bench-restore: ## `towline restore` against the plain pipe, from the cluster's S3 server
	@$(cluster) up
	cargo build --locked --workspace --release --bin towline --bin towline-agent
	@eval "$$($(cluster) env)" && cargo bench --locked --workspace --bench restore

bench-agent: ## The agent alone against the plain pipe, on a local MariaDB
	cargo build --locked --workspace --release --bin towline-agent
	cargo bench --locked --workspace --bench agent

bench-locks: ## The longest write while a backup's reader stalls under locks, on a local MariaDB
	cargo bench --locked --workspace --bench locks

check: scripts lint deny unit ## The fast loop: scripts, formatting, clippy with warnings denied, crates, unit tests

scripts:
	@for f in .ci/run $(cluster) tests/cluster/lib/*.sh tests/cluster/images/*/entrypoint $(demos) tests/demo/narrate.sh $(supply) tests/supply/lib.sh; do bash -n "$$f" || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck -x -P SCRIPTDIR .ci/run $(cluster) tests/cluster/images/*/entrypoint $(demos) $(supply); fi

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# Licences, sources, duplicates and advisories of the crates (deny.toml).
deny:
	@tests/supply/deny

# The tests of stores use the cluster's S3 server program, once it was built.
unit:
	@eval "$$($(cluster) env 2>/dev/null || true)"; \
	  [ -n "$${TOWLINE_VERSITYGW:-}" ] || echo "no S3 server: the S3 half of the store tests is skipped (make cluster-up brings one)"; \
	  cargo test --locked --workspace --no-fail-fast

crds: ## Writes the CRDs into the chart and docs/api.md, from the Rust types
	cargo run --locked -q -p towline-controller --bin towline-controller -- crds --dir charts/towline/files/crds
	TOWLINE_WRITE_REFERENCE=1 cargo test --locked -q -p towline-controller --lib api::reference

chart: ## Checks the chart: lint, snapshots, schemas, wrong values, alerts; with the API server's word, if one is up
	@eval "$$($(cluster) env 2>/dev/null || true)"; cargo test --locked -p e2e --test chart

chart-docs: ## Writes the chart's README from its values, and the snapshots of what it renders
	@eval "$$($(cluster) env)" && \
	  "$$TOWLINE_HELM_DOCS" --sort-values-order=file --log-level=warning --chart-search-root=charts/towline && \
	  TOWLINE_WRITE_SNAPSHOTS=1 cargo test --locked -q -p e2e --test chart snapshots

# Built from generated types, outside the checkout: minutes the first time.
operators: ## Holds the examples for operators to the operators' own definitions
	@CARGO_TARGET_DIR="$${TOWLINE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/towline}/operators" \
	  cargo run --locked --quiet --manifest-path tests/operators/Cargo.toml -- \
	  deploy/examples/mariadb-operator/mariadb.yaml deploy/examples/percona-*/cluster.yaml

images: ## Builds the images whose inputs changed, and gives them to the cluster
	@$(cluster) images

e2e: ## The end-to-end tests alone, on the cluster that is up
	@eval "$$($(cluster) env)" && \
	  RUST_BACKTRACE=0 cargo test --locked --workspace --test e2e -- --nocapture --test-threads=$(E2E_THREADS) $(E2E_FLAGS) $(TESTS)

cluster-up: ## Starts the test cluster, or re-uses the one that runs
	@$(cluster) up

cluster-down: ## Stops it
	@$(cluster) down

cluster-deps:
	@$(cluster) check
	@$(cluster) deps

cluster-programs:
	@$(cluster) programs
