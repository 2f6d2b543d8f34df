# One command for the habits. `make` alone installs what is missing (Debian packages, a .venv, the extension and the
# native command) and says what to do where it can't; every target is quick once that is done.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E)
BIN := .venv/bin
STAMPS := build/stamps
# What pyrt-runtime is built for: see packaging/pyrt_build.py.
MUSL := $(shell uname -m)-unknown-linux-musl

# What building needs, and what the tests take their images, registries and daemons from.
BUILD_PACKAGES := gcc libc6-dev make git python3 python3-venv
TEST_PACKAGES := busybox-static mmdebstrap criu umoci skopeo buildah podman docker-registry apache2-utils docker.io \
                 containernetworking-plugins iptables slirp4netns uidmap iproute2 nftables util-linux systemd strace \
                 openssl libarchive-tools tar gzip pigz bzip2 xz-utils zstd
# Who is measured beside pyrt; what is missing is a row with the reason, so CI does without.
BENCH_PACKAGES := $(TEST_PACKAGES) bubblewrap crun runc containerd lxc systemd-container qemu-system-x86 e2fsprogs
SOURCES := $(shell find rust packaging -type f -not -path '*/target/*') Cargo.toml Cargo.lock pyproject.toml

.PHONY: install build demo test test-rust test-python test-guest check format bench soak clean
.DEFAULT_GOAL := install

install: $(STAMPS)/installed
build: install

demo: $(STAMPS)/installed $(STAMPS)/test-packages
	$(SUDO) $(BIN)/python examples/demo.py

test: test-rust test-python

# Tests that need root get it; cargo itself stays the user's.
test-rust: $(STAMPS)/installed $(STAMPS)/test-packages
	cargo test --locked --workspace --exclude pyrt-native $(if $(SUDO),--config "target.'cfg(unix)'.runner='$(SUDO)'")

test-python: $(STAMPS)/installed $(STAMPS)/test-packages
	$(SUDO) $(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMPS)/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	MYPYPATH=python $(BIN)/python -m mypy.stubtest pyrt._native
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings

format: $(STAMPS)/installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	cargo fmt --all

# `make bench BENCH_ARGS="startup slopes --samples 50"` measures a part.
bench: $(STAMPS)/installed $(STAMPS)/bench-packages
	$(SUDO) $(BIN)/python -m benches $(BENCH_ARGS)

soak: $(STAMPS)/installed $(STAMPS)/test-packages
	$(SUDO) $(BIN)/python -m benches.soak

# Boots a virtual machine: five minutes where it has to be emulated, so not in `make test`.
test-guest: $(STAMPS)/installed $(STAMPS)/bench-packages
	$(SUDO) $(BIN)/python -m tests.guest

clean:
	rm -rf build target .venv python/pyrt/_native*.so

# ---- what has to be there first -------------------------------------------------------------------------------------

$(STAMPS)/installed: $(SOURCES) $(STAMPS)/build-packages $(STAMPS)/rust | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[dev,test]'
	@touch $@
	@echo "pyrt is in $(BIN)/pyrt; put it on the path with: export PATH=\"$(CURDIR)/$(BIN):\$$PATH\""

.venv/bin/python: | $(STAMPS)/build-packages
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("pyrt needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv .venv

$(STAMPS)/rust: | $(STAMPS)/build-packages
	@command -v cargo >/dev/null || { echo "pyrt needs Rust 1.85 or newer: install it with rustup" >&2; exit 1; }
	@rustup target add $(MUSL) >/dev/null 2>&1 || echo "without 'rustup target add $(MUSL)' pyrt-runtime starts slower"
	@mkdir -p $(@D) && touch $@

$(STAMPS)/build-packages:
	$(call packages,$(BUILD_PACKAGES))

$(STAMPS)/test-packages:
	$(call packages,$(TEST_PACKAGES))

$(STAMPS)/bench-packages:
	$(call packages,$(BENCH_PACKAGES))

# Installs Debian packages that are missing, without starting their services; elsewhere, names them and goes on.
define packages
@missing=; for package in $(1); do \
    dpkg-query -Wf '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
done; \
if [ -z "$$missing" ]; then :; \
elif command -v apt-get >/dev/null; then \
    echo "installing$$missing"; \
    $(SUDO) apt-get update -q && \
    $(SUDO) env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing || exit 1; \
else echo "this is no Debian: please install what is called here$$missing" >&2; fi; \
mkdir -p $(@D) && touch $@
endef
