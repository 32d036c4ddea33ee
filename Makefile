# make       set up and do the main job: build every scheme, migrate a guest under each
# make test  set up and run all tests
# make model set up and check the model of the protocol: two and a half minutes of one CPU
# make lint  set up, ruff and mypy
# make test-firmware  set up, build both Debian releases of edk2 with the helper and boot them: 10 minutes and more

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable

# Programs and files that the tests use as oracles, and their Debian packages.
ORACLES := as:binutils gdb:gdb cc:gcc git:git nasm:nasm patch:patch xz:xz-utils qemu-system-x86_64:qemu-system-x86 \
	/usr/share/OVMF/OVMF_CODE.fd:ovmf UEFIExtract:uefitool-cli chromium:chromium \
	spin:spin

# What it takes to build edk2 as well.
BUILDERS := make:make gcc:gcc g++:g++ iasl:acpica-tools /usr/include/uuid/uuid.h:uuid-dev

# What it takes to check the model of the protocol.
CHECKERS := spin:spin gcc:gcc

# Sources of edk2, which the patch series are tried on.
EDK2 := .cache/edk2

# A Linux kernel that the tests boot: Debian's, unpacked and not installed.
KERNEL := $(VENV)/linux/vmlinuz
KERNEL_PACKAGE := linux-image-cloud-amd64

.PHONY: all test test-firmware model lint generated clean oracles builders checkers sources kernel

all: $(INSTALLED)
	$(VENV)/bin/python build.py

test: $(TESTABLE) oracles sources kernel
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -q

test-firmware: $(TESTABLE) oracles builders sources kernel
	$(VENV)/bin/python -m pytest -q -o faulthandler_timeout=3600 emulator_tests/edk2/builds.py

model: $(INSTALLED) checkers
	$(VENV)/bin/python -m mh_model

lint: $(TESTABLE)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory debian-python3-venv
	$(PYTHON) -m venv $(VENV)
	$(PIP) .
	touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) '.[test,dev]'
	touch $@

# On Debian as root, what is missing is installed; elsewhere the tests name what they skip.
oracles: wanted = $(ORACLES)
builders: wanted = $(BUILDERS)
checkers: wanted = $(CHECKERS)
oracles builders checkers:
	@for pair in $(wanted); do \
		command -v $${pair%%:*} >/dev/null || test -e $${pair%%:*} || $(MAKE) --no-print-directory debian-$${pair##*:}; \
	done

# apt needs no root for this. Where there is no apt, or no network, the tests name what they skip.
sources: $(INSTALLED) oracles
	-@$(VENV)/bin/python -m ovmf_patches.sources $(EDK2) >/dev/null

debian-%:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $* >/dev/null; \
	else \
		echo "make: $* is not installed" >&2; \
	fi

# Elsewhere than on Debian the tests name what they skip.
kernel: $(INSTALLED)
	@test -s $(KERNEL) || $(MAKE) --no-print-directory $(KERNEL) || echo "make: no Linux kernel for the tests" >&2

# Of what Debian calls KERNEL_PACKAGE today, only the kernel: its modules are not needed.
$(KERNEL):
	@depends() { apt-cache depends $(KERNEL_PACKAGE) 2>/dev/null | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1; }; \
	name=$$(depends); \
	if [ -z "$$name" ] && [ "$$(id -u)" = 0 ]; then apt-get update -qq; name=$$(depends); fi; \
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	( cd "$$folder" && apt-get download -qq -o APT::Sandbox::User=root "$$name" ) && \
	dpkg-deb --fsys-tarfile "$$folder"/*.deb | tar -x -C "$$folder" --wildcards './boot/vmlinuz-*' && \
	mkdir -p $(@D) && mv "$$folder"/boot/vmlinuz-* $@

# What is generated from the sources and kept: the ABI for type checkers, the picture of the packages.
generated: $(INSTALLED)
	$(VENV)/bin/python -m mh_abi.stub
	$(VENV)/bin/python docs/rooms.py

clean:
	rm -rf $(VENV) .cache out *.egg-info
