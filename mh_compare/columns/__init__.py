"""What is asked of every layout, by subject; `COLUMNS` has all by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mh_compare.columns import launch, moving, strict, tables
from mh_compare.columns.column import Column, Subject, Value

COLUMNS: Mapping[str, Column] = MappingProxyType(
    {column.name: column for column in (*tables.COLUMNS, *launch.COLUMNS, *moving.COLUMNS, *strict.COLUMNS)}
)

__all__ = ["COLUMNS", "Column", "Subject", "Value"]
