"""Libraries to compare with: those that this system has, and those that are named."""

from __future__ import annotations

import ctypes.util
from pathlib import Path
from typing import NamedTuple

SONAMES = {"openssl": "crypto", "libgcrypt": "gcrypt", "ipsec-mb": "IPSec_MB"}
"""Kinds, and the names by which a system's own library of each is found."""


class Library(NamedTuple):
    """A library of a kind; without a path there is none."""

    kind: str
    path: str
    number: int
    """Among those of its kind."""

    @property
    def function(self) -> str:
        """The kind, as the harness spells it."""
        return self.kind.replace("-", "_")


def libraries(named: list[tuple[str, Path]]) -> list[Library]:
    """The system's own of each kind, if there is one, and then the named ones, as (kind, path)."""
    found = []
    for kind, name in SONAMES.items():
        own = ctypes.util.find_library(name) or ""
        others = [str(path.resolve()) for other, path in named if other == kind]
        paths = [own, *others] if own or not others else others
        found += [Library(kind, path, number) for number, path in enumerate(paths)]
    return found
