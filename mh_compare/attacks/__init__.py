"""Attacks by family, one a file; `FAMILIES` lists them all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mh_compare.attacks import (
    events,
    firmware,
    guest,
    launch,
    mapping,
    memory,
    mirrors,
    oracles,
    peers,
    platform,
    postcopy,
    randomness,
    registers,
    requests,
    secrecy,
    stream,
)
from mh_compare.attacks.attack import Attack

FAMILIES: Mapping[str, tuple[Attack, ...]] = MappingProxyType(
    {
        "guest OS": guest.ATTACKS,
        "memory": memory.ATTACKS,
        "ciphertext": oracles.ATTACKS,
        "registers": registers.ATTACKS,
        "events": events.ATTACKS,
        "mapping": mapping.ATTACKS,
        "requests": requests.ATTACKS,
        "peers": peers.ATTACKS,
        "stream": (*stream.ATTACKS, *secrecy.ATTACKS),
        "post-copy": postcopy.ATTACKS,
        "randomness": randomness.ATTACKS,
        "launch": launch.ATTACKS,
        "policy": firmware.ATTACKS,
        "mirrors": mirrors.ATTACKS,
        "platform": platform.ATTACKS,
    }
)

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {attack.name: attack for family in FAMILIES.values() for attack in family}
)
"""By name."""

__all__ = ["ATTACKS", "FAMILIES", "Attack"]
