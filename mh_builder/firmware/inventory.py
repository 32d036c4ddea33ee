"""Every volume and file of a flash image, those inside of compressed sections too.

Source: UEFI PI 1.8, volume 3, sections 2.1.4, 2.1.5 (sections) and 3.2.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from mh_builder.firmware import guids
from mh_builder.firmware.compressed import CONTENTS_LIMIT, decompress
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import check_size
from mh_builder.firmware.section import (
    GUIDED,
    MOST_SECTIONS,
    USER_INTERFACE,
    VOLUME_IMAGE,
    Section,
    guided,
    read_sections,
)
from mh_builder.firmware.volume import (
    ERASED,
    FILE_TYPES,
    MOST_FILES,
    TYPE_PAD,
    TYPE_VOLUME,
    File,
    Volume,
    find_volumes,
    read_files,
    read_volume,
)

DEEPEST = 8
"""Volumes inside of volumes; OVMF has two."""
_LONGEST_NAME = 64
_WITH_SECTIONS = range(0x02, 0x10)
"""Types of files that are made of sections; others are not looked into."""
_KNOWN = {
    guids.VOLUME_TOP: "volume-top file",
    guids.IMAGE_FILE: "image of the migration helper",
}
"""Files that have no name inside."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file: `size` with its header, `digest` the SHA-256 of all of it; of one with volumes, what is beside them."""

    guid: UUID
    name: str
    kind: int
    size: int
    digest: bytes
    holds_volumes: bool

    @property
    def type_name(self) -> str:
        """Its type in words."""
        return FILE_TYPES.get(self.kind, f"type {self.kind:#x}")


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """A volume: `path` names those around it and itself; `store` is the SHA-256 of what is in no known file system."""

    path: str
    size: int
    header: bytes
    """SHA-256 of all before the first file."""
    store: bytes | None
    files: tuple[StoredFile, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """All that an image stores, volumes before those inside of them; `outside` is the SHA-256 of what is in none."""

    volumes: tuple[StoredVolume, ...]
    outside_bytes: int
    outside: bytes


def inventory(flash: bytes) -> Kept:
    """Read all there is, within bounds. Raises `FirmwareError` for a volume, file or section that is not whole."""
    check_size(flash)
    volumes = list(find_volumes(flash))
    outside, done, count = hashlib.sha256(), 0, 0
    for offset, end in (*((volume.offset, volume.end) for volume in volumes), (len(flash), len(flash))):
        outside.update(flash[done:offset])
        count += offset - done
        done = end
    reader = _Reader()
    stored = tuple(found for volume in volumes for found in reader.volume(flash, volume, ()))
    return Kept(stored, count, outside.digest())


@dataclass
class _Reader:
    """How much was read so far, and how often each path."""

    unpacked: int = 0
    files: int = 0
    sections: int = 0
    paths: Counter[str] = field(default_factory=Counter)

    def volume(self, data: bytes, volume: Volume, around: tuple[str, ...]) -> Iterator[StoredVolume]:
        """The volume, then those inside of it."""
        if len(around) >= DEEPEST:
            raise FirmwareError(f"{volume.title} in {'/'.join(around)}: {DEEPEST:#x} volumes around it, too deep")
        names = (*around, self._name(data, volume, around))
        if volume.first_file is None:
            store = hashlib.sha256(data[volume.offset : volume.end]).digest()
            yield StoredVolume("/".join(names), volume.size, b"", store, ())
            return
        files, inside = [], []
        for file in read_files(data, volume).files:
            self._count_file(volume)
            if file.kind == TYPE_PAD and not data[file.body : file.end].strip(ERASED):
                continue
            stored, nested = self._file(data, file, names)
            files.append(stored)
            inside += nested
        header = hashlib.sha256(data[volume.offset : volume.first_file]).digest()
        yield StoredVolume("/".join(names), volume.size, header, None, tuple(files))
        yield from inside

    def _count_file(self, volume: Volume) -> None:
        self.files += 1
        if self.files > MOST_FILES:
            raise FirmwareError(f"{volume.title}: more than {MOST_FILES:#x} files in all volumes")

    def _name(self, data: bytes, volume: Volume, around: tuple[str, ...]) -> str:
        system = UUID(bytes_le=data[volume.offset + 16 : volume.offset + 32])
        if volume.name is not None:
            name = guids.VOLUMES.get(volume.name, str(volume.name))
        else:
            name = "variables" if system == guids.VARIABLES else "unnamed"
        path = "/".join((*around, name))
        self.paths[path] += 1
        return name if self.paths[path] == 1 else f"{name}#{self.paths[path]}"

    def _file(self, data: bytes, file: File, names: tuple[str, ...]) -> tuple[StoredFile, list[StoredVolume]]:
        if file.kind != TYPE_VOLUME:
            digest = hashlib.sha256(data[file.offset : file.end]).digest()
            return StoredFile(
                file.guid, self._ui_name(data, file), file.kind, file.size, digest, holds_volumes=False
            ), []
        beside = hashlib.sha256(bytes([file.kind, file.attributes]))
        nested = list(self._sections(_Span(data, file.body, file.end), names, beside, 0))
        stored = StoredFile(file.guid, "", file.kind, file.size, beside.digest(), holds_volumes=True)
        return stored, nested

    def _ui_name(self, data: bytes, file: File) -> str:
        """What its user-interface section calls it, cut, and fit to be printed."""
        if file.guid in _KNOWN or file.kind not in _WITH_SECTIONS:
            return _KNOWN.get(file.guid, "")
        sections = list(self._counted(_Span(data, file.body, file.end)))
        found = next((section for section in sections if section.kind == USER_INTERFACE), None)
        if found is None:
            return ""
        text = data[found.body : found.end].decode("utf-16-le", "replace").partition("\0")[0]
        return "".join(character if character.isprintable() else "?" for character in text[:_LONGEST_NAME])

    def _counted(self, span: _Span) -> Iterator[Section]:
        for section in read_sections(span.data, span.start, span.end):
            self.sections += 1
            if self.sections > MOST_SECTIONS:
                raise FirmwareError(f"section at {section.offset:#x}: more than {MOST_SECTIONS:#x} in all files")
            yield section

    def _sections(
        self, span: _Span, names: tuple[str, ...], beside: hashlib._Hash, depth: int
    ) -> Iterator[StoredVolume]:
        """The volumes of sections; of others, the contents go into `beside`."""
        if depth >= DEEPEST:
            raise FirmwareError(f"section at {span.start:#x}: {DEEPEST:#x} sections around it, too deep")
        for section in self._counted(span):
            if section.kind == VOLUME_IMAGE:
                yield from self.volume(span.data, read_volume(span.data, section.body, section.end), names)
                continue
            inner = self._unpacked(span.data, section)
            if inner is None:
                beside.update(bytes([section.kind]) + span.data[section.body : section.end])
            else:
                yield from self._sections(_Span(inner, 0, len(inner)), names, beside, depth + 1)

    def _unpacked(self, data: bytes, section: Section) -> bytes | None:
        if section.kind != GUIDED:
            return None
        guid, start = guided(data, section)
        if guid != guids.LZMA:
            return None
        inner = decompress(data, start, section.end)
        self.unpacked += len(inner)
        if self.unpacked > CONTENTS_LIMIT:
            raise FirmwareError(
                f"section at {section.offset:#x}: {self.unpacked:#x} bytes were compressed so far, "
                f"the limit is {CONTENTS_LIMIT:#x}"
            )
        return inner


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes `start` to `end` of `data`."""

    data: bytes
    start: int
    end: int
