# Two commands do everything on a fresh machine with Rust and a running Docker: make demo, make test.

.PHONY: build release demo test lint bench scenarios clean help

# What cargo builds for: a static binary for this machine.
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
OUT := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)
DEBUG := $(OUT)/debug/beaufort
RELEASE := $(OUT)/release/beaufort

help:
	@echo "make demo    a service on real Docker that scales out under load and back in, live in this terminal"
	@echo "make test    every level of test: unit, property, golden, wire, simulation, and scenarios on real Docker"
	@echo "make lint    rustfmt and clippy, warnings denied"
	@echo "make bench   the figures, each beside its reference"
	@echo "make release the static binary: $(RELEASE)"

build:
	cargo build --bin beaufort

release:
	cargo build --release --bin beaufort

demo: release
	$(RELEASE) demo

test:
	tests/run.sh

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench: release
	tests/bench.sh $(RELEASE)

# Only the scenarios, with the binary that is there: make scenarios ARGS="-k logs"
scenarios: build
	tests/setup.sh
	BEAUFORT_BIN=$(DEBUG) .venv/bin/python -m pytest -q -p no:cacheprovider --timeout 180 tests/scenarios $(ARGS)

clean:
	cargo clean
	rm -rf .venv .venv-old .cache
