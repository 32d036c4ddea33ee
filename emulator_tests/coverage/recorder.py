"""Has every emulated CPU that runs a known blob note, natively, which blocks of it run and how they end."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

from unicorn import unicorn_const
from unicorn.unicorn_py3.unicorn import uclib

from emulator_tests.coverage.blobs import NAMES, NO_TARGET, Blob, blob
from mh_abi import abi
from mh_builder.asm import assemble_text
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import HELPER_VA
from mh_emulator.cpu.core import Core
from mh_emulator.cpu.eventinj import EventInjection
from mh_emulator.cpu.intercepts import Intercept
from mh_emulator.cpu.mmu import GuestFault, NoSlotError

SOURCE = Path(__file__).with_name("recorder.s")
_NOWHERE = (1 << 64) - 1
_PAGES_BEFORE = 12
"""The header and the code before a RIP."""
_ATTEMPTS = 3
"""A CPU that has been started so often elsewhere runs something else."""


class Entry(ctypes.Structure):
    """What is known of one offset into the code (recorder.s)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("target", ctypes.c_uint32),
        ("fell", ctypes.c_uint32),
        ("taken", ctypes.c_uint32),
    )


class Watch(ctypes.Structure):
    """Where one CPU sees the code (recorder.s)."""

    _fields_ = (
        ("base", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("last", ctypes.c_uint64),
        ("table", ctypes.c_uint64),
    )


class Table:
    """What has run of one blob, by all CPUs of this process."""

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.entries = (Entry * (len(blob.text) + 1))()
        for entry in self.entries:
            entry.target = NO_TARGET
        for instruction in blob.instructions:
            if instruction.target is not None:
                self.entries[instruction.offset + instruction.size].target = instruction.target

    def run(self) -> Iterator[tuple[int, int]]:
        """(offset, bytes) of the blocks that ran."""
        return ((offset, entry.size) for offset, entry in enumerate(self.entries) if entry.size)


@cache
def table(name: str) -> Table:
    """That of the blob of that name."""
    return Table(blob(name))


class Recorder:
    """Watches the CPUs; one for each process."""

    def __init__(self) -> None:
        code = next(section.data for section in assemble_text(SOURCE.read_text(), SOURCE.name).sections)
        self._code = mmap.mmap(-1, PAGE_BYTES, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(code)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._attempts: WeakKeyDictionary[Core, int] = WeakKeyDictionary()
        self._watches: WeakKeyDictionary[Core, list[Watch]] = WeakKeyDictionary()
        self.used: set[str] = set()

    def install(self) -> None:
        """From now on, watch every CPU before it runs."""
        run = Core.run

        def watched(core: Core, max_instructions: int | None = None, event: EventInjection | None = None) -> Intercept:
            self.look(core)
            return run(core, max_instructions, event)

        Core.run = watched  # type: ignore[assignment, method-assign]

    def look(self, core: Core) -> None:
        """Watch the CPU if it is about to run a blob."""
        if core in self._watches or self._attempts.get(core, 0) >= _ATTEMPTS:
            return
        self._attempts[core] = self._attempts.get(core, 0) + 1
        rip = core.get_registers().rip
        page = rip // PAGE_BYTES * PAGE_BYTES
        for base in range(page, max(-1, page - _PAGES_BEFORE * PAGE_BYTES), -PAGE_BYTES):
            name = _named(_read(core, base))
            if name is not None:
                bases = {base, HELPER_VA + base - _image(core, base)} if name.startswith("helper") else {base}
                self._watch(core, name, bases)
                return

    def _watch(self, core: Core, name: str, bases: Iterable[int]) -> None:
        self.used.add(name)
        entries = table(name).entries
        engine = core._engine
        self._watches[core] = []
        for base in bases:
            size = len(entries) - 1
            watch = Watch(base, size, _NOWHERE, ctypes.addressof(entries))
            self._watches[core].append(watch)
            hook = ctypes.c_size_t()
            status = uclib.uc_hook_add(
                engine.uc._uch,
                ctypes.byref(hook),
                unicorn_const.UC_HOOK_BLOCK,
                ctypes.c_void_p(self.address),
                ctypes.byref(watch),
                ctypes.c_uint64(base),
                ctypes.c_uint64(base + size - 1),
            )
            assert status == unicorn_const.UC_ERR_OK
        engine.flush_code()


def _read(core: Core, base: int) -> bytes:
    """As much of what follows as is mapped, up to the longest blob."""
    data = b""
    longest = max(len(blob(name).text) for name in NAMES)
    while len(data) < longest:
        try:
            data += core.read_linear(base + len(data), PAGE_BYTES)
        except (GuestFault, NoSlotError):
            break
    return data


def _named(memory: bytes) -> str | None:
    return next((name for name in NAMES if blob(name).is_at(memory)), None)


def _image(core: Core, text: int) -> int:
    """Where the image begins whose code is at `text`."""
    magic = int(abi.MH_DESCRIPTOR_MAGIC).to_bytes(8, "little")
    for base in range(text - PAGE_BYTES, text - _PAGES_BEFORE * PAGE_BYTES, -PAGE_BYTES):
        if _read_page(core, base)[: len(magic)] == magic:
            return base
    raise AssertionError(f"no header before {text:#x}")


def _read_page(core: Core, base: int) -> bytes:
    try:
        return core.read_linear(base, PAGE_BYTES)
    except (GuestFault, NoSlotError):
        return b""
