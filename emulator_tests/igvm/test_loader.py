"""The loader that a data HOB leads to its image, under a UEFI of our own."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from emulator_tests.firmware.machine import ES, PLAIN, SEV, Booted, Ground, small_image
from mh_abi import abi
from mh_builder.firmware.driver import Finds, build_loader
from mh_builder.paging import MIB, PAGE_BYTES
from mh_emulator.uefi import layout
from mh_emulator.uefi.loaded import loaded
from mh_emulator.uefi.pool import Descriptor, MemoryType

LIST, DATA = 48 * MIB, 49 * MIB
HOB_LIST = UUID("7739f24c-93d7-11d4-9a3a-0090273fc14d").bytes_le
IGVM_DATA = UUID("3dd177ff-b632-4e25-bef3-065063d55fc4").bytes_le
NOT_FOUND, OUT_OF_RESOURCES, SECURITY_VIOLATION, COMPROMISED = (1 << 63 | code for code in (14, 9, 26, 33))

PHASE = struct.pack("<HHI48x", 1, 56, 0)
"""A hand-off HOB, with which every list begins."""
END = struct.pack("<HHI", 0xFFFF, 8, 0)


def data_hob(
    length: int, address: int = DATA, kind: int = 0x4D48_0001, name: bytes = IGVM_DATA, form: int = 4, size: int = 48
) -> bytes:
    return struct.pack("<HHI16sQQII", form, size, 0, name, address, length, kind, 0)


OTHERS = (
    data_hob(4096, 7 * MIB, 0x201),
    data_hob(4096, name=UUID(int=7).bytes_le),
    data_hob(4096, name=IGVM_DATA[:8] + bytes(8)),
    data_hob(4096, name=bytes(8) + IGVM_DATA[8:]),
    data_hob(4096, form=2),
    data_hob(4096, size=47)[:47],
    struct.pack("<HHI16s", 4, 24, 0, IGVM_DATA),
    struct.pack("<HHI8sI4x", 4, 24, 0, bytes(8), 0x4D48_0001),
)
"""Of another type of data, of other makers, of another kind, and those that are too short to be ours, before what looks
like the rest of the last."""


@dataclass
class Announced(Booted):
    """A boot whose firmware has a HOB list; the image's bytes lie at `DATA`."""

    driver: bytes = field(default_factory=lambda: build_loader(Finds.HOB))
    hobs: tuple[bytes, ...] | None = None
    """Without them, what a good file brings; empty, the list of tables ends before that."""
    data: bytes | None = None

    def _launch(self) -> None:
        super()._launch()
        blob = self.image.data
        data = blob + hashlib.sha256(blob).digest() if self.data is None else self.data
        hobs = self.hobs or (*OTHERS, data_hob(len(data)), END)
        names = (HOB_LIST[:8] + bytes(8), bytes(8) + HOB_LIST[8:], HOB_LIST)
        tables = b"".join(struct.pack("<16sQ", name, LIST + PAGE_BYTES * (name == HOB_LIST)) for name in names)
        memory = self.firmware.memory
        memory.write(DATA, data)
        memory.write(LIST, tables)
        memory.write(LIST + PAGE_BYTES, PHASE + b"".join(hobs))
        memory.write(layout.SYSTEM_TABLE + 104, struct.pack("<QQ", 2 if self.hobs == () else 3, LIST))


@pytest.mark.parametrize(
    ("scheme", "ground"), [("alias-gpa", PLAIN), ("alias-gpa", SEV), ("regions", SEV), ("alias-gpa", ES)]
)
def test_it_loads_what_is_announced(scheme: str, ground: Ground) -> None:
    image = small_image(scheme)
    booted = Announced(image, ground)
    assert booted.outcome.debug == f"SEV-MH {booted.home:016x} {image.memory_bytes:016x}\n"
    assert booted.outcome.status == 0
    assert booted.loaded() == loaded(image, booted.c_bit)
    reserved = [run for run in booted.firmware.map.used() if run.type is MemoryType.RESERVED]
    assert reserved == [Descriptor(booted.home, image.memory_bytes // PAGE_BYTES, MemoryType.RESERVED)]
    kinds = [pool.kind for pool in booted.firmware.services.pools.values()]
    assert kinds == [MemoryType.RUNTIME_SERVICES_DATA]
    published = abi.mh_published(booted.firmware.memory.read(*_table(booted)))
    assert bytes(published.sha256) == hashlib.sha256(image.data).digest()


def _table(booted: Booted) -> tuple[int, int]:
    return booted.firmware.services.tables[UUID(abi.MH_PUBLISHED_GUID)], len(abi.mh_published)


@pytest.mark.parametrize(
    "hobs",
    [
        (), (END,), (*OTHERS, END), (struct.pack("<HHI", 2, 0, 0), data_hob(0x1000), END), (END, data_hob(0x1000)),
        (data_hob(0), END), (data_hob(32), END),
    ],
    ids=["no-list", "empty", "others", "endless", "behind-the-end", "no-bytes", "digest-alone"],
)  # fmt: skip
def test_nothing_is_announced(hobs: tuple[bytes, ...]) -> None:
    Announced(small_image("alias-gpa"), hobs=hobs).check_failed(1, NOT_FOUND)


def test_spoiled_data() -> None:
    image = small_image("alias-gpa")
    data = bytearray(image.data + hashlib.sha256(image.data).digest())
    data[0x2345] ^= 1
    Announced(image, data=bytes(data)).check_failed(2, COMPROMISED)


def test_data_that_the_host_can_write() -> None:
    """The first page, and the last, of what the firmware maps without the C-bit."""
    image = small_image("alias-gpa")
    last = DATA + (len(image.data) + 31) // PAGE_BYTES * PAGE_BYTES
    for page in (DATA, last):
        Announced(image, shared=[page]).check_failed(1, SECURITY_VIOLATION)


@pytest.mark.parametrize("address", [1 << 45, (1 << 64) - PAGE_BYTES], ids=["not-mapped", "beyond-the-end"])
def test_data_that_are_nowhere(address: int) -> None:
    hobs = (data_hob(2 * PAGE_BYTES, address), END)
    Announced(small_image("alias-gpa"), hobs=hobs).check_failed(1, SECURITY_VIOLATION)


@pytest.mark.parametrize("call", [0, 1])
def test_no_memory_for_a_copy(call: int) -> None:
    """Nothing goes to where no buffer is."""
    booted = Announced(small_image("alias-gpa"), failures={("AllocatePool", call): OUT_OF_RESOURCES})
    booted.check_failed(1, OUT_OF_RESOURCES)
    assert booted.memory.read_raw(0, PAGE_BYTES) == bytes(PAGE_BYTES)
