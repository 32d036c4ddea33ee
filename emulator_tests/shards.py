"""Work that several machines share: the K-th of N parts."""

from __future__ import annotations

import argparse


def shard(text: str) -> tuple[int, int]:
    """K and N of K/N, for a command line. Raises `ArgumentTypeError`."""
    part, _, parts = text.partition("/")
    if not part.isdecimal() or not parts.isdecimal() or not 1 <= int(part) <= int(parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N with K from 1 to N")
    return int(part), int(parts)
