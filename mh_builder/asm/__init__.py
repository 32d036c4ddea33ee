"""The assembler of the dialect that docs/assembly.md describes."""

from __future__ import annotations

from mh_builder.asm.assembler import assemble, assemble_text
from mh_builder.asm.diagnostics import AssemblyError, Diagnostic
from mh_builder.asm.objectfile import (
    SECTION_NAMES,
    ObjectFile,
    Relocation,
    RelocationKind,
    Section,
    Symbol,
)

__all__ = [
    "SECTION_NAMES",
    "AssemblyError",
    "Diagnostic",
    "ObjectFile",
    "Relocation",
    "RelocationKind",
    "Section",
    "Symbol",
    "assemble",
    "assemble_text",
]
