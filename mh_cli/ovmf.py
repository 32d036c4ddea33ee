"""`ovmf`: the helper in firmware images. Each verb of its own is a module."""

from __future__ import annotations

from typing import Any

from mh_cli import ovmf_boot, ovmf_extract, ovmf_inject, ovmf_measure, ovmf_patch, ovmf_table

_VERBS = (ovmf_table, ovmf_inject, ovmf_extract, ovmf_measure, ovmf_patch, ovmf_boot)


def add_verb(verbs: Any) -> None:  # noqa: ANN401 - argparse keeps the type of its subparsers to itself
    """Add the verb and those below it to the command line."""
    parser = verbs.add_parser("ovmf", help="put the helper into OVMF images or sources, read and measure images")
    below = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in _VERBS:
        module.add_verb(below)
