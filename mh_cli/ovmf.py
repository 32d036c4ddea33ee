"""`ovmf`: the helper in firmware images. Each verb of its own is a module."""

from __future__ import annotations

import argparse

from mh_cli.verbs import add_verbs

VERBS = {
    "table": "show the GUIDed table and the SEV metadata",
    "inject": "put the helper into a prebuilt image",
    "extract": "get the helper back out of an image",
    "measure": "compute launch digests",
    "check": "say whether an image may be given to a guest's owner",
    "diff": "compare two images: files, tables, launch digests",
    "wrap": "make an IGVM file of a flash image",
    "igvm": "show what an IGVM file launches",
    "patch": "put the helper and its loader into an edk2 tree",
    "boot": "boot an image under QEMU, compare what is loaded",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes: a verb of its own."""
    add_verbs(parser, VERBS, prefix="mh_cli.ovmf_", required=True)
