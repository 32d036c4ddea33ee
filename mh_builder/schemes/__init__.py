"""The address-space schemes, one a file; `SCHEMES` lists them by the name that users type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mh_builder.schemes import alias_gpa, alias_window, isolated, regions
from mh_builder.schemes.space import AddressSpace, Options

SCHEMES: Mapping[str, Callable[[Options, int], AddressSpace]] = MappingProxyType(
    {
        "alias-gpa": alias_gpa.space,
        "alias-window": alias_window.space_at_4g,
        "alias-window-high": alias_window.space_high,
        "regions": regions.space,
        "isolated": isolated.space,
    }
)

LOW = frozenset({"alias-gpa", "alias-window", "alias-window-high"})
"""Schemes whose image stays at its home, below 4 GiB, where 32-bit code can run without paging."""
