"""What a file begins with: the names and macros that its first include leaves behind.

Files that begin with the same include, under the same symbols, have it read once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mh_builder.asm.symbols import SymbolTable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mh_builder.asm.macros import Macro
    from mh_builder.asm.source import Source

_INCLUDE = re.compile(r'[ \t]*\.include[ \t]+"[^"\\]*"[ \t]*')


@dataclass(frozen=True, slots=True)
class Prelude:
    """Names, macros, how many macros were used so far, and the (path, bytes) of the files that say so."""

    table: SymbolTable
    macros: Mapping[str, Macro] = field(default_factory=dict)
    serial: int = 0
    files: tuple[tuple[Path, bytes], ...] = ()

    @staticmethod
    def of(symbols: Mapping[str, int | str]) -> Prelude:
        """That of a file without an include."""
        return Prelude(SymbolTable.predefined(symbols))

    def is_fresh(self) -> bool:
        """Whether the files are as they were."""
        try:
            return all(path.read_bytes() == data for path, data in self.files)
        except OSError:
            return False


def first_include(source: Source) -> tuple[Source, Source] | None:
    """A file up to its first include and behind it, if nothing comes before that."""
    for index, line in enumerate(source.lines, 1):
        if _INCLUDE.fullmatch(line.text):
            return replace(source, lines=source.lines[:index]), replace(source, lines=source.lines[index:])
        if line.text.strip():
            return None
    return None
