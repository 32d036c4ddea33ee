"""Attacks by family, one a file; `FAMILIES` lists them all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mh_compare.attacks import firmware, guest, launch, mapping, memory, mirrors, registers, requests, stream
from mh_compare.attacks.attack import Attack

FAMILIES: Mapping[str, tuple[Attack, ...]] = MappingProxyType(
    {
        "guest OS": guest.ATTACKS,
        "memory": memory.ATTACKS,
        "registers": registers.ATTACKS,
        "mapping": mapping.ATTACKS,
        "requests": requests.ATTACKS,
        "stream": stream.ATTACKS,
        "launch": launch.ATTACKS,
        "policy": firmware.ATTACKS,
        "mirrors": mirrors.ATTACKS,
    }
)

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {attack.name: attack for family in FAMILIES.values() for attack in family}
)
"""By name."""

__all__ = ["ATTACKS", "FAMILIES", "Attack"]
