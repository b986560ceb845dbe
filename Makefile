# Thin on purpose: what happens is in packaging/, shim-tests/ and preload/.

CARGO ?= cargo
FUZZ := preload/fuzz/Cargo.toml
NEED := packaging/need-packages
# Other releases on which the packages are built and tested, where a mirror has them.
SUITES ?= trixie resolute
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: all build demo conformance check check-long bench bench-quick header packages fmt clippy fuzz-build deb deb-test clean help

all: build

help:
	@echo "make demo        iperf3 and nc over Sidewire, next to the kernel's TCP, on a private link"
	@echo "make check       format, lints and every test"
	@echo "make check-long  the tests that take longer as well"
	@echo "make conformance every row of the behaviour tables, beside the kernel"
	@echo "make bench       the full comparison with the kernel, to target/bench/"
	@echo "make bench-quick a few cells of it"
	@echo "make header      include/sidewire.h, from preload/shim/src/api.rs"
	@echo "make deb         Debian packages, to target/debian/"
	@echo "make deb-test    installs and runs them, here and as built on other releases"
	@echo "make build       target/release/libsidewire.so and target/release/sidewire"

build:
	$(CARGO) build --release -p sidewire-shim -p sidewire-cli

demo:
	@$(NEED) demo
	@$(CARGO) build --release -p sidewire-shim -p sidewire-cli -p shim-tests
	@$(TARGET)/release/sidewire demo

# PROBES='cmsg --verbose' and the like go to the run.
conformance:
	@$(NEED) demo
	@$(CARGO) build --release -p sidewire-shim -p shim-tests
	@$(TARGET)/release/sidewire-conformance $(PROBES)

bench bench-quick:
	@$(NEED) bench
	@$(CARGO) build --release -p sidewire-shim -p sidewire-cli -p shim-tests
	@$(TARGET)/release/sidewire bench $(if $(filter bench-quick,$@),--quick)

# After a change to preload/shim/src/api.rs.
header:
	SIDEWIRE_WRITE_HEADER=1 $(CARGO) test -p shim-tests --test header is_what_the_source_says

packages:
	$(NEED) check
	$(if $(SIDEWIRE_LONG),$(NEED) check-long)

fmt:
	$(CARGO) fmt --all --check
	@if test -e $(FUZZ); then $(CARGO) fmt --manifest-path $(FUZZ) --check; fi

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fuzz-build:
	@if test -e $(FUZZ); then $(CARGO) build --manifest-path $(FUZZ); fi

check: packages fmt clippy fuzz-build build
	$(CARGO) test --workspace --no-fail-fast

# The long tests register themselves when this is set.
check-long: export SIDEWIRE_LONG = 1
check-long: check

deb:
	@$(NEED) deb
	packaging/deb

deb-test: deb
	@$(NEED) deb-test
	packaging/test-reproducible
	packaging/test-deb
	$(foreach suite,$(SUITES),packaging/test-deb $(suite) &&) true

check-long: deb-test

clean:
	$(CARGO) clean
