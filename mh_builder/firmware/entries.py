"""What entries of the GUIDed table mean: those that are public, and ours.

Source: edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm; AMD, "SEV-ES Guest-Hypervisor Communication Block", and
COCONUT-SVSM, stage1 (SVSM info).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from mh_abi import abi
from mh_builder.firmware import guids
from mh_builder.firmware.table import Entry

Decoded = Mapping[str, int]
"""Name -> value of each field."""


class Meaning(NamedTuple):
    """Its name, how many bytes its data have, and their fields, given with the size of the flash image."""

    name: str
    data_bytes: int
    fields: Callable[[bytes, int], Decoded]


def _reset(data: bytes, _: int) -> Decoded:
    ip, base = struct.unpack("<HH", data)
    return {"cs_base": base << 16, "ip": ip}


def _memory(data: bytes, _: int) -> Decoded:
    gpa, size = struct.unpack("<II", data)
    return {"gpa": gpa, "size": size}


def _from_end(data: bytes, flash_bytes: int) -> Decoded:
    return {"offset": flash_bytes - int.from_bytes(data, "little")}


def _from_start(data: bytes, _: int) -> Decoded:
    return {"offset": int.from_bytes(data, "little")}


def _own(data: bytes, _: int) -> Decoded:
    entry = abi.mh_firmware_entry(data)
    return {name: int(getattr(entry, name)) for name in ("base", "memory_bytes", "ring_offset", "scheme")}


MEANINGS: Mapping[UUID, Meaning] = MappingProxyType(
    {
        guids.SEV_ES_RESET: Meaning("SEV-ES reset vector", 4, _reset),
        guids.LAUNCH_SECRET: Meaning("launch secret", 8, _memory),
        guids.KERNEL_HASHES: Meaning("kernel hashes", 8, _memory),
        guids.SEV_METADATA: Meaning("SEV metadata", 4, _from_end),
        guids.TDX_METADATA: Meaning("TDX metadata", 4, _from_end),
        guids.IGVM_METADATA: Meaning("IGVM metadata", 4, _from_end),
        guids.SVSM_INFO: Meaning("SVSM info", 4, _from_start),
        guids.FIRMWARE_ENTRY: Meaning("migration helper", len(abi.mh_firmware_entry), _own),
    }
)
"""Entries whose meaning is known."""


def name_of(entry: Entry) -> str | None:
    """What the entry is; None where that is not known."""
    return MEANINGS[entry.guid].name if entry.guid in MEANINGS else None


def decode(entry: Entry, flash: bytes) -> Decoded:
    """Its fields; none where it is unknown or too short."""
    meaning = MEANINGS.get(entry.guid)
    data = entry.data(flash)
    if meaning is None or len(data) < meaning.data_bytes:
        return {}
    return meaning.fields(data[: meaning.data_bytes], len(flash))


def finding(entry: Entry, flash: bytes) -> str | None:
    """What is wrong with a known entry by itself, in one line; of metadata, metadata.py says it."""
    meaning = MEANINGS.get(entry.guid)
    if meaning is None or entry.guid in (guids.SEV_METADATA, guids.IGVM_METADATA):
        return None
    where = f"GUIDed table: entry at {entry.end:#x} ({meaning.name})"
    found = len(entry.data(flash))
    if found < meaning.data_bytes:
        return f"{where} has {found:#x} bytes of data, {meaning.data_bytes:#x} are expected"
    offset = decode(entry, flash).get("offset", 0)
    if not 0 <= offset < len(flash):
        return f"{where} names offset {offset:#x} of {len(flash):#x} bytes"
    return None
