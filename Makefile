# make       set up and do the main job: build every scheme, migrate a guest under each
# make test  set up and run all tests
# make mutate  set up and plant every small fault in the blobs, each of which the tests must notice: an hour of two CPUs
#              SHARD=K/N is one part of it; make mutants JOIN="FILE ..." says what parts found together
# make fuzz  set up and fuzz the linked helper until Ctrl-C, on every CPU; it goes on where it was stopped
#              SECONDS=N or INPUTS=N ends it; SHARD=K/N is one part of it; make fuzzed JOIN="FOLDER ..." keeps what parts found
# make verification  make test, and write what it says into docs/verification.md
# make model set up and check the model of the protocol: two and a half minutes of one CPU
# make lint  set up, ruff and mypy
# make bare  make and make test on bare machines of Debian 12 and 13, each made in a folder: half an hour
# make theorems  set up, prove the theorems, and plant every small fault in what they are about
# make vacuous  set up and look for tests that cannot fail, EACH of every folder
# make test-guests  set up, boot and migrate Debian's firmware images and its kernels under emulation, and measure it: 20 minutes of
#              one CPU; docs/guests.py out/guests.json makes the tables of docs/guests.md of that
# make test-firmware  set up, build both Debian releases of edk2 with the helper, or TREE, and boot them: 10 minutes and more

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable

# Where the tests' results go, for other programs to read, and which tests to run.
JUNIT := out/junit.xml
TESTS :=
# All of them have to run every instruction of the blobs, and say which claims hold.
RECORDED := -p emulator_tests.coverage.plugin -p emulator_tests.claims.plugin

# Sources of edk2, which the patch series are tried on.
EDK2 := .cache/edk2

# A tree of edk2 of your own, which `make test-firmware` builds in the place of Debian's.
TREE :=

# OVMF images of Debian's suites, on which every verb is tried.
FIRMWARE := .cache/firmware

# Linux kernels of Debian's suites, which the tests boot: the first one in `make test`.
KERNELS := .cache/kernels
KERNEL := bookworm

# Tests that run the blobs, and are quick enough to run them often.
REACHING := attest vmpl helper landing reference crypto firmware igvm builder edk2

# Which part of the mutants or of the fuzzing, and the results of parts.
SHARD := 1/1
JOIN :=

# How long to fuzz, and how many inputs; forever without.
SECONDS :=
INPUTS :=

# How many tests of each folder `make vacuous` tries.
EACH := 6

.PHONY: all test verification mutate mutants fuzz fuzzed theorems vacuous test-guests test-firmware bare model lint generated clean debian compilers oracles builders checkers sources kernel

all: $(INSTALLED)
	$(VENV)/bin/python build.py

test: $(TESTABLE) oracles sources kernel
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -q --junitxml $(JUNIT) $(if $(TESTS),,$(RECORDED)) $(TESTS)

verification: RECORDED += --verification docs/verification.md
verification: test

mutate: $(TESTABLE) oracles out/mutation/record.json
	$(VENV)/bin/python -m emulator_tests.mutation --shard $(SHARD)

mutants: $(TESTABLE)
	$(VENV)/bin/python -m emulator_tests.mutation --join $(JOIN)

# Which test runs what; tests that are as they were need no new one.
out/mutation/record.json: $(foreach folder,$(REACHING),$(wildcard emulator_tests/$(folder)/*.py))
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -q -p emulator_tests.mutation.record $(REACHING:%=emulator_tests/%)

fuzz: $(TESTABLE)
	$(VENV)/bin/python -m emulator_tests.fuzz --shard $(SHARD) $(SECONDS:%=--seconds %) $(INPUTS:%=--inputs %)

fuzzed: $(TESTABLE)
	$(VENV)/bin/python -m emulator_tests.fuzz --join $(or $(JOIN),$(wildcard out/fuzz/*-of-*))

vacuous: $(TESTABLE) oracles sources kernel
	$(VENV)/bin/python -m emulator_tests.vacuous --each $(EACH)

theorems: $(TESTABLE)
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -q emulator_tests/theorems emulator_tests/theorems/faults.py

test-guests: KERNEL :=
test-guests: $(TESTABLE) oracles sources kernel
	$(VENV)/bin/python -m pytest -v -o faulthandler_timeout=1200 emulator_tests/q35/guests.py emulator_tests/linux/guests.py

test-firmware: $(TESTABLE) oracles builders sources kernel
	TREE=$(TREE) $(VENV)/bin/python -m pytest -q -o faulthandler_timeout=3600 emulator_tests/edk2/builds.py

# As root on Debian: SUITE="bookworm trixie"
bare:
	@debootstrap --version >/dev/null 2>&1 || $(MAKE) --no-print-directory debian PACKAGES=debootstrap
	$(PYTHON) .ci/bare.py $(SUITE)

model: $(INSTALLED) checkers
	$(VENV)/bin/python -m mh_model

lint: $(TESTABLE)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory debian PACKAGES=python3-venv
	$(PYTHON) -m venv $(VENV)
	$(PIP) .
	touch $@

$(TESTABLE): $(INSTALLED)
	@$(MAKE) --no-print-directory compilers
	$(PIP) '.[test,dev]'
	touch $@

# What does not work is installed, on Debian as root; elsewhere the tests name what they skip.
oracles: use = tests
builders: use = firmware
checkers: use = model
compilers: use = packages
oracles builders checkers compilers:
	@missing=$$($(PYTHON) -m mh_builder.needs $(use)); \
	test -z "$$missing" || $(MAKE) --no-print-directory debian PACKAGES="$$missing"

# apt needs no root for this. Where there is no apt, or no network, the tests name what they skip.
sources: $(INSTALLED) oracles
	-@$(VENV)/bin/python -m ovmf_patches.sources $(EDK2) >/dev/null
	-@$(VENV)/bin/python -m ovmf_patches.images $(FIRMWARE) >/dev/null

debian:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null; \
	else \
		echo "make: not installed: $(PACKAGES)" >&2; \
	fi

kernel: $(INSTALLED)
	-@$(VENV)/bin/python -m ovmf_patches.kernels $(KERNELS) $(KERNEL) >/dev/null

# What is generated from the sources and kept: the ABI for type checkers, the picture of the packages,
# the tables of boots that were measured.
generated: $(INSTALLED)
	$(VENV)/bin/python -m mh_abi.stub
	$(VENV)/bin/python docs/rooms.py
	$(VENV)/bin/python docs/calls.py
	$(VENV)/bin/python docs/rules.py
	$(VENV)/bin/python docs/guests.py

clean:
	rm -rf $(VENV) .cache out build *.egg-info *.whl
