# The few commands that a person types. Everything else is plain cargo.

TOOLS := $(or $(OUTRIGGER_TOOLS),$(CURDIR)/target/tools)
BINARIES := -p outrigger -p outrigger-proxy -p outrigger-control-plane

# The suites run the shipped programs, so the release build serves them and the demo alike.
export OUTRIGGER_TOOLS := $(TOOLS)
export PATH := $(TOOLS)/bin:$(PATH)

.PHONY: help demo test lint fmt tools deny-tool build images

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: build ## run the mesh on loopback addresses; KEEP=1 leaves it up
	@scripts/install-tools.sh envoy
	target/release/outrigger demo $(if $(filter-out 0,$(KEEP)),--keep)

build: ## build the three programs as they are shipped
	cargo build --release --locked $(BINARIES)

images: ## build the container images, without a daemon, as OCI archives in target/images
	scripts/build-images.sh

test: tools build ## install what the tests need, then run them all
	OUTRIGGER_BIN_DIR=$(CURDIR)/target/release cargo test --workspace --locked --no-fail-fast

lint: deny-tool ## format, clippy, dependency rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --locked check bans licenses sources

fmt: ## format the code
	cargo fmt --all

tools:
	SKIP_CARGO_DENY=1 scripts/install-tools.sh

deny-tool:
	@command -v cargo-deny >/dev/null || scripts/install-tools.sh
