# Two commands do everything on a fresh machine with Rust and a running Docker: make demo, make test.

.PHONY: build release demo image stack stack-down test lint bench performance soak scenarios clean help

# What cargo builds for: a static binary for this machine.
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
OUT := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)
DEBUG := $(OUT)/debug/beaufort
RELEASE := $(OUT)/release/beaufort
# What goes into the image: make stack BINARY=... takes another, and builds nothing.
BINARY ?= $(RELEASE)

help:
	@echo "make demo    a service on real Docker that scales out under load and back in, live in this terminal"
	@echo "make stack   the same in a browser: Prometheus, Alertmanager, Grafana and Jaeger around it; make stack-down takes it away"
	@echo "             make stack OFFLINE=1 where no registry can be reached; compose/README.md has the other settings"
	@echo "make test    every level of test: unit, property, golden, wire, simulation, and scenarios on real Docker"
	@echo "make lint    rustfmt and clippy, warnings denied"
	@echo "make bench   the figures, each beside its reference, into bench-out/; make bench ONLY=\"thirty metrics\" some of them"
	@echo "make performance  all figures, and docs/performance.md with them"
	@echo "make soak    simulated worlds, then killed processes, for hours: SOAK=8h; failing scripts in soak/"
	@echo "make release the static binary: $(RELEASE)"
	@echo "make image   the image beaufort:0.1.0 of it"

build:
	cargo build --bin beaufort

release:
	cargo build --release --bin beaufort

demo: release
	$(RELEASE) demo

# dist/beaufort is where the Dockerfile expects it.
image: $(if $(filter $(RELEASE),$(BINARY)),release)
	install -D $(BINARY) dist/beaufort
	compose/stack.sh image

stack: $(if $(filter $(RELEASE),$(BINARY)),release)
	BINARY=$(abspath $(BINARY)) OFFLINE=$(OFFLINE) PROFILES="$(PROFILES)" compose/stack.sh up

stack-down:
	compose/stack.sh down

test:
	tests/run.sh

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# All of it takes half an hour; ONLY="thirty metrics" takes those, and ONLY=list says which there are.
bench: release
	tests/bench.sh $(RELEASE) $(ONLY)

# All figures, and docs/performance.md with them.
performance: bench
	python3 tests/bench/doc.py

# Half of the time for simulated worlds, half for real processes.
SOAK ?= 2h
soak: release
	SOAK=$(SOAK) tests/soak.sh $(RELEASE)

# Only the scenarios, with the binary that is there: make scenarios ARGS="-k logs"
scenarios: build
	tests/setup.sh
	BEAUFORT_BIN=$(DEBUG) .venv/bin/python -m pytest -q -p no:cacheprovider --timeout 180 tests/scenarios $(ARGS)

clean:
	cargo clean
	rm -rf .venv .venv-old .cache dist
