"""Has every emulated CPU that runs a known blob note, natively, which blocks of it run and how they end."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from weakref import WeakKeyDictionary

from unicorn import unicorn_const

from emulator_tests.coverage.blobs import NO_TARGET, RECORDED, Blob, blob
from mh_abi import abi
from mh_builder.asm import assemble
from mh_builder.asm.native import Function
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import HELPER_VA
from mh_emulator.cpu.core import Core
from mh_emulator.cpu.eventinj import EventInjection
from mh_emulator.cpu.hooks import Foreign, add_hook
from mh_emulator.cpu.intercepts import Intercept
from mh_emulator.cpu.mmu import GuestFault
from mh_emulator.cpu.nested import NestedFaultError

SOURCE = Path(__file__).with_name("recorder.s")
_NOWHERE = (1 << 64) - 1
_PAGES_AROUND = 12
"""Of a RIP, in which the code may begin."""
_FIRST = 3
"""Bytes that no link changes, with which every blob begins."""
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
        sizes = memoryview(self.entries).cast("B").cast("I")[:: ctypes.sizeof(Entry) // 4]
        return ((offset, size) for offset, size in enumerate(sizes) if size)


@cache
def table(name: str) -> Table:
    """That of the blob of that name."""
    return Table(blob(name))


class Recorder:
    """Watches the CPUs; one for each process."""

    def __init__(self) -> None:
        self.function = Function(assemble(SOURCE), "record")
        self._attempts: WeakKeyDictionary[Core, int] = WeakKeyDictionary()
        self._watches: list[Watch] = []
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
        if self._attempts.get(core, 0) >= _ATTEMPTS:
            return
        self._attempts[core] = self._attempts.get(core, 0) + 1
        page = core.get_registers().rip // PAGE_BYTES
        for number in sorted(range(max(0, page - _PAGES_AROUND), page + _PAGES_AROUND), key=lambda n: abs(n - page)):
            base = number * PAGE_BYTES
            name = _named(partial(_read, core, base))
            if name is not None:
                for seen in {base, HELPER_VA + base - _image(core, base)} if name.startswith("helper") else {base}:
                    self.watch(core._engine.uc, name, seen)
                core._engine.flush_code()
                self._attempts[core] = _ATTEMPTS
                return

    def watch(self, uc: Foreign, name: str, base: int) -> None:
        """Have an engine note what it runs of a blob whose code is at `base`."""
        self.used.add(name)
        entries = table(name).entries
        size = len(entries) - 1
        watch = Watch(base, size, _NOWHERE, ctypes.addressof(entries))
        self._watches.append(watch)
        function, where = ctypes.c_void_p(self.function.address), (base, base + size - 1)
        add_hook(uc, unicorn_const.UC_HOOK_BLOCK, function, ctypes.byref(watch), where)


_recorders: list[Recorder] = []


def begin() -> Recorder:
    """Record from now on."""
    _recorders.append(Recorder())
    _recorders[0].install()
    return _recorders[0]


def notice(uc: Foreign, base: int, memory: bytes) -> None:
    """Watch a bare engine, which has an image at `base`, if anything is recorded."""
    for recorder in _recorders:
        for offset in range(0, len(memory), PAGE_BYTES):
            name = _named(partial(_slice, memory, offset))
            if name is not None:
                recorder.watch(uc, name, base + offset)


def _named(read: Callable[[int], bytes]) -> str | None:
    """The blob whose code can be read."""
    start = read(_FIRST)
    names = [name for name in RECORDED if blob(name).text.startswith(start)] if len(start) == _FIRST else []
    return next((name for name in names if blob(name).is_at(read(len(blob(name).text)))), None)


def _slice(memory: bytes, offset: int, size: int) -> bytes:
    return memory[offset : offset + size]


def _read(core: Core, base: int, size: int) -> bytes:
    """As much of it as is mapped."""
    data = b""
    while len(data) < size:
        try:
            data += core.read_linear(base + len(data), min(PAGE_BYTES, size - len(data)))
        except (GuestFault, NestedFaultError):
            break
    return data


def _image(core: Core, text: int) -> int:
    """Where the image begins whose code is at `text`."""
    magic = int(abi.MH_DESCRIPTOR_MAGIC).to_bytes(8, "little")
    for base in range(text - PAGE_BYTES, text - _PAGES_AROUND * PAGE_BYTES, -PAGE_BYTES):
        if _read(core, base, len(magic)) == magic:
            return base
    raise AssertionError(f"no header before {text:#x}")
