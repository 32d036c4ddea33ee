"""What is asked of every layout, by subject; `COLUMNS` has all by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mh_compare.columns import ending, host, launch, moving, pieces, reach, strict, tables
from mh_compare.columns.column import Column, Value
from mh_compare.subject import MirrorSubject

_MODULES = (tables, reach, launch, host, pieces, moving, ending, strict)

COLUMNS: Mapping[str, Column[MirrorSubject]] = MappingProxyType(
    {column.name: column for module in _MODULES for column in module.COLUMNS}
)

__all__ = ["COLUMNS", "Column", "Value"]
