"""Memory types, by the entry of MSR PAT that a leaf names.

Source: AMD64 APM volume 2, section 7.8.2 and table 7-9 (the MSR at reset); Linux, arch/x86/mm/pat/memtype.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Pat = tuple[str, str, str, str, str, str, str, str]

PATS: Mapping[str, Pat] = MappingProxyType(
    {
        "reset": ("WB", "WT", "UC-", "UC", "WB", "WT", "UC-", "UC"),
        "linux": ("WB", "WC", "UC-", "UC", "WB", "WP", "UC-", "WT"),
    }
)
"""What the MSR holds: as at reset, and as Linux sets it."""


def type_name(index: int, pat: Pat | None) -> str:
    """The type that entry `index` gives; where the MSR is not known, only the first is: all systems leave it."""
    if pat is None:
        return f"PAT{index}" if index else "WB"
    return pat[index]
