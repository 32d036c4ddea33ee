"""`doctor`: what of the things that the project uses is here, and which versions."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata

from mh_builder import needs
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line a thing; bad where a Python package is missing."""
    packages = {name: _version(name) for name in PACKAGES}
    programs = {need.name: needs.trouble(need) for need in needs.NEEDS}
    if arguments.json:
        print_json("doctor/1", {"python": sys.version.split()[0], "packages": packages, "programs": programs})
    else:
        print(f"python {sys.version.split()[0]}")
        for name, version in packages.items():
            print(f"{name} {version or 'missing: run `make`'}")
        for need in needs.NEEDS:
            why = programs[need.name]
            mend = f"{why} (Debian: {' '.join(need.packages)}; for {', '.join(need.uses)})"
            print(f"{need.name} {mend if why else 'works'}")
    return GOOD if all(packages.values()) else BAD


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
