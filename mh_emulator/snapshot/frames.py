"""Memory of the host process in a snapshot: which frame holds which page, and its bytes as DRAM stores them.

Of each memory there is a table, an entry a page: its number, and twice that of its frame from the first of DRAM, and 1
more where caches hold something else for the guest's key. Behind it come the pages; where caches do, three for one:
what DRAM stores, what caches hold, and what DRAM stored when they took it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES, PAGE_SHIFT
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.process import UserMemory
from mh_emulator.snapshot.errors import SnapshotError

_ENTRY = struct.Struct("<II")


class Held(NamedTuple):
    """One memory: its size in bytes, how many of its pages have a frame, and of how many caches hold something else."""

    size: int
    pages: int
    cached: int

    @property
    def table_bytes(self) -> int:
        """How long its table is."""
        return self.pages * _ENTRY.size

    @property
    def data_bytes(self) -> int:
        """What comes behind that."""
        return (self.pages + 2 * self.cached) * PAGE_BYTES


class FramesState(NamedTuple):
    """How many frames the platform has given away, and what the memories have of them."""

    given: int
    memories: tuple[Held, ...]


class _Page(NamedTuple):
    number: int
    spa: int
    is_cached: bool


def save(dram: Dram, key: bytes, memories: Sequence[UserMemory]) -> tuple[FramesState, list[bytes]]:
    """What these memories hold of the guest with that key, and the body with it."""
    held, body = [], []
    for memory in memories:
        table, data, cached = [], [], 0
        for offset, spa in memory.frames():
            copies = dram.cached(spa, key)
            table.append(_ENTRY.pack(offset >> PAGE_SHIFT, dram.frame(spa) << 1 | (copies is not None)))
            data += [dram.peek_raw(spa), *(copies or ())]
            cached += copies is not None
        held.append(Held(memory.size, len(table), cached))
        body += [*table, *data]
    return FramesState(dram.given, tuple(held)), body


def restore(dram: Dram, key: bytes, memories: Sequence[UserMemory], state: FramesState, body: memoryview) -> None:
    """Give the memories of a machine that has just been launched these frames and no others.

    Raises `SnapshotError`, and `ValueError` for what caches of this part cannot hold.
    """
    sizes, known = [held.size for held in state.memories], [memory.size for memory in memories]
    if sizes != known:
        raise SnapshotError(f"memories of {_numbers(sizes)} bytes, not {_numbers(known)}")
    needed = sum(held.table_bytes + held.data_bytes for held in state.memories)
    if needed != len(body):
        raise SnapshotError(f"frames of {len(body):#x} bytes, not {needed:#x}")
    # What caches have of the launch must not come back.
    dram.flush_all()
    _give(dram, state.given)
    used: set[int] = set()
    for memory, held in zip(memories, state.memories, strict=True):
        pages = _check(dram, held, body[: held.table_bytes], used)
        memory.remap([(page.number << PAGE_SHIFT, page.spa) for page in pages])
        _fill(dram, key, pages, body[held.table_bytes : held.table_bytes + held.data_bytes])
        body = body[held.table_bytes + held.data_bytes :]


def _give(dram: Dram, given: int) -> None:
    frames = dram.size >> PAGE_SHIFT
    if not dram.given <= given <= frames:
        raise SnapshotError(f"{given:#x} frames given away, of {frames:#x}; the launch alone takes {dram.given:#x}")
    while dram.given < given:
        dram.allocate()


def _check(dram: Dram, held: Held, table: memoryview, used: set[int]) -> list[_Page]:
    """What the table says; the frames go to the `used` ones."""
    pages: dict[int, _Page] = {}
    for number, entry in _ENTRY.iter_unpack(table):
        frame = entry >> 1
        if number in pages or number << PAGE_SHIFT >= held.size:
            raise SnapshotError(f"page {number:#x} is there twice, or is none of {held.size >> PAGE_SHIFT:#x}")
        if frame in used or not dram.has_given(frame):
            raise SnapshotError(f"page {number:#x}: frame {frame:#x} is another one's, or nobody's")
        used.add(frame)
        pages[number] = _Page(number, dram.base_spa + (frame << PAGE_SHIFT), bool(entry & 1))
    cached = sum(page.is_cached for page in pages.values())
    if cached != held.cached:
        raise SnapshotError(f"a table with {cached:#x} pages in caches, not {held.cached:#x}")
    return list(pages.values())


def _fill(dram: Dram, key: bytes, pages: Sequence[_Page], data: memoryview) -> None:
    contents = _cut(data)
    for page in pages:
        dram.write_raw(page.spa, next(contents))
        if page.is_cached:
            dram.cache(page.spa, key, next(contents), next(contents))


def _cut(data: memoryview) -> Iterator[bytes]:
    return (bytes(data[start : start + PAGE_BYTES]) for start in range(0, len(data), PAGE_BYTES))


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(f"{value:#x}" for value in values)
