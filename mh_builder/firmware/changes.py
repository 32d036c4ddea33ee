"""Which bytes of a flash image changed, and what they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mh_builder.firmware import guids
from mh_builder.firmware.volume import TYPE_PAD, TYPE_VOLUME, File, find_volumes, read_files

_BLOCK = 64
"""Ranges with fewer equal bytes in between count as one."""

_KINDS = {TYPE_PAD: "pad file", TYPE_VOLUME: "compressed volumes"}


@dataclass(frozen=True, slots=True)
class Change:
    """`size` bytes at `offset` that differ, all in the part of the image that `what` names."""

    offset: int
    size: int
    what: str


def changes(before: bytes, after: bytes) -> list[Change]:
    """Every changed range of two images of the same size, cut where one part of `after` ends and the next begins."""
    parts = list(_parts(after))
    found = []
    for start, end in _ranges(before, after):
        for part_start, part_end, what in parts:
            low, high = max(start, part_start), min(end, part_end)
            if low < high and before[low:high] != after[low:high]:
                found.append(_trimmed(before, after, low, high, what))
    return found


def _trimmed(before: bytes, after: bytes, low: int, high: int, what: str) -> Change:
    first = next(offset for offset in range(low, high) if before[offset] != after[offset])
    last = next(offset for offset in range(high - 1, low - 1, -1) if before[offset] != after[offset])
    return Change(first, last + 1 - first, what)


def _ranges(before: bytes, after: bytes) -> Iterator[tuple[int, int]]:
    start = None
    for offset in range(0, len(after), _BLOCK):
        if before[offset : offset + _BLOCK] != after[offset : offset + _BLOCK]:
            start = offset if start is None else start
        elif start is not None:
            yield start, offset
            start = None
    if start is not None:
        yield start, len(after)


def _parts(flash: bytes) -> Iterator[tuple[int, int, str]]:
    """(start, end, name), which together cover `flash`."""
    done = 0
    for volume in find_volumes(flash):
        if volume.first_file is None:
            continue
        contents = read_files(flash, volume)
        for file in contents.files:
            yield done, file.offset, "outside of files"
            yield file.offset, file.end, _name(file)
            done = file.end
        yield done, contents.free, "outside of files"
        yield contents.free, volume.end, "free space"
        done = volume.end
    yield done, len(flash), "outside of volumes"


def _name(file: File) -> str:
    if file.guid == guids.VOLUME_TOP:
        return "volume-top file, with the GUIDed table"
    return _KINDS.get(file.kind, f"file {file.guid}")
