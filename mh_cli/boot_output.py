"""What `boot` prints: milestones as they come, what a migration came to, and what a guest has printed."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mh_emulator.q35.moved import Moved
    from mh_emulator.q35.progress import Milestone

_MOVE, _CONTROL = re.compile(r"\x1b\[[0-9;]*H"), re.compile(r"\x1b\[[0-9;=]*[A-Za-z]")
"""Of ANSI terminals: the cursor goes elsewhere; everything else that is not shown."""


def show(milestone: Milestone) -> None:
    """On stderr, at once."""
    text = f"{milestone.cpu_seconds:8.2f} s CPU {milestone.virtual_ms:10.2f} ms  {printable(milestone.what)}"
    print(text, file=sys.stderr, flush=True)


def print_moved(moved: Moved) -> None:
    """One line."""
    pages = f"{moved.pages} pages private, {moved.shared_pages} shared"
    seen = f"{moved.source_plain_pages} in plaintext, {moved.naive_equal_pages} survive a copy"
    if moved.demanded_pages:
        pages += f", {moved.demanded_pages} when the guest needed them"
    print(f"migrated: {pages}, {'equal' if moved.equal else 'DIFFERENT'}; as the host sees them {seen}")


def print_console(name: str, text: str) -> None:
    """What a terminal would show of it, as far as lines go."""
    plain = _CONTROL.sub("", _MOVE.sub("\n", text))
    for line in map(printable, plain.splitlines()):
        if line:
            print(f"{name}: {line}")


def printable(text: str) -> str:
    """Without what would move a cursor."""
    return "".join(filter(str.isprintable, text)).rstrip()
