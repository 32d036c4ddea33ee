"""What a firmware image is made of, as facts: each has an identity, and fields that another image may have otherwise.

Where a volume begins is no fact, nor are its free space and erased pad files: they follow from what is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from mh_builder.firmware import guids
from mh_builder.firmware.digests import Digests
from mh_builder.firmware.entries import decode, name_of
from mh_builder.firmware.inventory import Kept, StoredFile, inventory
from mh_builder.firmware.metadata import IGVM_KINDS, METADATA_KINDS, Area, read_igvm_areas, read_metadata
from mh_builder.firmware.table import Table, read_table


class Part(Enum):
    """What a fact is about."""

    IMAGE = "image"
    VOLUME = "volume"
    FILE = "file"
    ENTRY = "entry"
    AREA = "area"
    DIRECTIVE = "directive"
    MEMORY = "memory"
    DIGEST = "digest"


Value = int | str
Key = tuple[Part, str, str, int]
"""Part, place, title and number."""
_METADATA = (guids.SEV_METADATA, guids.TDX_METADATA, guids.IGVM_METADATA)
"""Entries that say where something lies, which is no fact."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A part of an image: `number` tells apart those of the same title in the same place."""

    part: Part
    where: str
    title: str
    fields: Mapping[str, Value]
    number: int = 0

    @property
    def key(self) -> Key:
        """What it has in common with itself in another image."""
        return self.part, self.where, self.title, self.number


def facts_of(flash: bytes, digests: Digests) -> tuple[Fact, ...]:
    """All facts of a flash image and of its launch, in the order of the image. Raises `FirmwareError`."""
    table = read_table(flash)
    areas = (
        *_areas("SEV metadata", read_metadata(flash, table), METADATA_KINDS),
        *_areas("IGVM metadata", read_igvm_areas(flash, table), IGVM_KINDS),
    )
    return (*_stored(inventory(flash)), *_entries(flash, table), *numbered(areas), *_launch(digests))


def numbered(facts: Iterable[Fact]) -> Iterator[Fact]:
    """The facts, those with the same identity counted."""
    seen: Counter[Key] = Counter()
    for fact in facts:
        yield Fact(fact.part, fact.where, fact.title, fact.fields, seen[fact.key])
        seen[fact.key] += 1


def _stored(kept: Kept) -> Iterator[Fact]:
    yield Fact(Part.IMAGE, "image", "outside of volumes", {"size": kept.outside_bytes, "sha256": kept.outside.hex()})
    for volume in kept.volumes:
        fields: dict[str, Value] = {"size": volume.size}
        fields |= {"header": volume.header.hex()} if volume.store is None else {"contents": volume.store.hex()}
        yield Fact(Part.VOLUME, volume.path, "volume", fields)
        yield from numbered(_file(volume.path, file) for file in volume.files)


def _file(where: str, file: StoredFile) -> Fact:
    fields: dict[str, Value] = {"name": file.name} if file.name else {}
    fields |= {"type": file.type_name, "sha256": file.digest.hex()}
    if not file.holds_volumes:
        fields["size"] = file.size
    return Fact(Part.FILE, where, str(file.guid), fields)


def _entries(flash: bytes, table: Table) -> Iterator[Fact]:
    for entry in table.entries:
        fields: Mapping[str, Value] = decode(entry, flash) or {"data": entry.data(flash).hex()}
        if entry.guid in _METADATA:
            fields = {}
        name = name_of(entry)
        title = str(entry.guid) if name is None else f"{name} {entry.guid}"
        yield Fact(Part.ENTRY, "GUIDed table", title, fields)


def _areas(where: str, areas: tuple[Area, ...], kinds: Mapping[int, str]) -> Iterator[Fact]:
    for area in areas:
        title = f"{kinds.get(area.kind, f'unknown kind {area.kind:#x}')} at {area.gpa:#x}"
        yield Fact(Part.AREA, where, title, {"size": area.size})


def _launch(digests: Digests) -> Iterator[Fact]:
    for mode, digest in digests.digests.items():
        yield Fact(Part.DIGEST, "launch", mode.value, {"digest": digest.hex()})
    for mode, reason in digests.reasons.items():
        yield Fact(Part.DIGEST, "launch", mode.value, {"digest": f"none: {reason}"})
