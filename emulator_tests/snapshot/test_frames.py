"""Memory that comes back: where it lay, what DRAM holds, and what caches hold that are not coherent."""

from __future__ import annotations

import pytest

from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS
from mh_emulator.dram.process import UserMemory
from mh_emulator.platform import Platform
from mh_emulator.snapshot import frames
from mh_emulator.snapshot.errors import SnapshotError

SIZE = 64 << 10
ASID, KEY = 7, bytes(range(16))
PRIVATE, STALE, SHARED, READ = 0x0000, 0x3000, 0x7000, 0xF000
LATER = 0xA000


def server(part: str) -> tuple[Platform, UserMemory]:
    platform = Platform(PARTS[part], 1 << 20, 1)
    platform.dram.install_key(ASID, KEY)
    return platform, platform.memory(SIZE)


def used(part: str) -> tuple[Platform, UserMemory]:
    """A page that a guest has written, one that was shared then, one that always was, and one that is only read."""
    platform, memory = server(part)
    dram = platform.dram
    dram.write_private(ASID, memory.spa(PRIVATE), b"private")
    dram.write_private(ASID, memory.spa(STALE), b"before")
    memory.write_raw(STALE + 0x800, b"since then")
    memory.write_raw(SHARED, b"shared")
    dram.read_private(ASID, memory.spa(READ), 1)
    return platform, memory


def look(platform: Platform, memory: UserMemory) -> list[object]:
    """What both see, page by page, before and after caches are written back; a new page takes the next frame."""
    dram, found = platform.dram, list[object]()
    for _ in range(2):
        for offset in (STALE, PRIVATE, SHARED, READ):
            spa = memory.spa(offset)
            found += [spa, dram.peek_raw(spa), dram.read_private(ASID, spa, PAGE_BYTES), dram.read_raw(spa, PAGE_BYTES)]
        dram.flush_all()
    return [*found, memory.spa(LATER), memory.populated()]


@pytest.mark.parametrize("part", PARTS)
def test_a_memory_comes_back_as_it_was(part: str) -> None:
    first, second = used(part), used(part)
    key = first[0].dram.key(ASID)
    state, body = frames.save(first[0].dram, key, [first[1]])
    assert (state.memories[0].cached > 0) is not PARTS[part].coherent
    back = server(part)
    back[1].write_raw(PRIVATE, b"of the launch")
    back[0].dram.read_private(ASID, back[1].spa(PRIVATE), 1)
    frames.restore(back[0].dram, key, [back[1]], state, memoryview(b"".join(body)))
    # One that is saved goes on as one that never was.
    assert look(*first) == look(*second) == look(*back)


def test_caches_of_another_part_are_refused() -> None:
    platform, memory = used("naples")
    state, body = frames.save(platform.dram, platform.dram.key(ASID), [memory])
    other, target = server("milan")
    with pytest.raises(ValueError, match="^caches of milan are coherent: none holds 0x"):
        frames.restore(other.dram, KEY, [target], state, memoryview(b"".join(body)))


def test_memories_that_overlap_are_refused() -> None:
    platform, memory = used("milan")
    state, body = frames.save(platform.dram, KEY, [memory, memory])
    other, first = server("milan")
    with pytest.raises(SnapshotError, match="another one's, or nobody's$"):
        frames.restore(other.dram, KEY, [first, other.memory(SIZE)], state, memoryview(b"".join(body)))
