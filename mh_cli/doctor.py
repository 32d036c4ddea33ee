"""`doctor`: what of the things that the project uses is here, and which versions."""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from mh_cli import options
from mh_cli.errors import BAD, GOOD
from mh_cli.output import print_json

PACKAGES = (
    "capstone",
    "cryptography",
    "dissect.cstruct",
    "keystone-engine",
    "lief",
    "rich",
    "sev-snp-measure",
    "unicorn",
)
PROGRAMS = {
    "as": "binutils",
    "objdump": "binutils",
    "readelf": "binutils",
    "gdb": "gdb",
    "cc": "gcc",
    "git": "git",
    "nasm": "nasm",
    "qemu-system-x86_64": "qemu-system-x86",
    "/usr/share/OVMF/OVMF_CODE.fd": "ovmf",
    "UEFIExtract": "uefitool-cli",
    "chromium": "chromium",
}
"""Programs and files that the tests use as oracles -> Debian package."""


def add_verb(verbs: Any) -> None:  # noqa: ANN401 - argparse keeps the type of its subparsers to itself
    """Add the verb to the command line."""
    parser = verbs.add_parser("doctor", help="check packages and programs", description=__doc__)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line a thing; bad where a Python package is missing."""
    packages = {name: _version(name) for name in PACKAGES}
    programs = {name: _find(name) for name in PROGRAMS}
    if arguments.json:
        print_json("doctor/1", {"python": sys.version.split()[0], "packages": packages, "programs": programs})
    else:
        print(f"python {sys.version.split()[0]}")
        for name, version in packages.items():
            print(f"{name} {version or 'missing: run `make`'}")
        for name, path in programs.items():
            print(f"{name} {path or f'missing: Debian package {PROGRAMS[name]}'}")
    return GOOD if all(packages.values()) else BAD


def _find(name: str) -> str | None:
    """Where a program or, by its whole path, a file is."""
    return name if Path(name).is_absolute() and Path(name).exists() else shutil.which(name)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
