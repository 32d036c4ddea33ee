"""Counts, natively, how often each edge between blocks of the linked helper runs, and stops a vCPU that never halts."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

import capstone
from unicorn import unicorn_const

from emulator_tests.coverage.blobs import NO_TARGET
from mh_builder.asm import assemble
from mh_builder.asm.native import Function
from mh_builder.image.model import Image
from mh_emulator.cpu.hooks import add_hook
from mh_emulator.kvm import Vcpu

SOURCE = Path(__file__).with_name("edges.s")
_NOWHERE = (1 << 64) - 1
_LEAVES = ("j", "call", "ret", "hlt", "loop")
"""How the mnemonics begin of instructions that end a block."""


class Place(ctypes.Structure):
    """One offset into the code (edges.s)."""

    _fields_ = (("target", ctypes.c_uint32), ("begins", ctypes.c_uint32))


class Watch(ctypes.Structure):
    """Where one vCPU is (edges.s)."""

    _fields_ = (
        ("base", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("last", ctypes.c_uint64),
        ("places", ctypes.c_uint64),
        ("counts", ctypes.c_uint64),
        ("left", ctypes.c_uint64),
        ("stop", ctypes.c_void_p),
    )


_STOP = ctypes.CFUNCTYPE(None)


class Edges:
    """The edges of an image's code; `counts` has a byte for each, in memory that forked processes share."""

    def __init__(self, image: Image) -> None:
        section = image.section(".text")
        self._base = section.va
        self._code = image.data[section.offset : section.offset + section.size]
        self.size = 3 * len(self._code) + 3
        self.counts = mmap.mmap(-1, self.size)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.counts))
        self._places = (Place * (len(self._code) + 1))()
        for place in self._places:
            place.target = NO_TARGET
        for end, target in self._leaving():
            self._places[end].begins = 1
            if target in range(len(self._code)):
                self._places[end].target = target
                self._places[target].begins = 1
        for symbol in image.symbols:
            if symbol.section == ".text":
                self._places[symbol.value - self._base].begins = 1
        self._function = Function(assemble(SOURCE), "count")
        self._watches: dict[Vcpu, tuple[Watch, object]] = {}

    def _leaving(self) -> Iterator[tuple[int, int]]:
        """(end, target or -1) of each instruction that ends a block, as offsets."""
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        decoder.skipdata = True
        for start, size, mnemonic, operand in decoder.disasm_lite(self._code, 0):
            if mnemonic.startswith(_LEAVES):
                yield start + size, int(operand, 16) if operand.startswith("0x") else -1

    def watch(self, vcpu: Vcpu) -> None:
        """Count what this vCPU runs; before it has run anything."""
        stop = _STOP(vcpu.kick)
        watch = Watch(
            self._base,
            len(self._code),
            _NOWHERE,
            ctypes.addressof(self._places),
            self._address,
            0,
            ctypes.cast(stop, ctypes.c_void_p).value,
        )
        self._watches[vcpu] = watch, stop
        function, where = ctypes.c_void_p(self._function.address), (self._base, self._base + len(self._code) - 1)
        add_hook(vcpu._core._engine.uc, unicorn_const.UC_HOOK_BLOCK, function, ctypes.byref(watch), where)

    def allow(self, vcpu: Vcpu, blocks: int) -> None:
        """Let this vCPU run as many blocks from now on; it is stopped at the last one, as by `kick`."""
        self._watches[vcpu][0].left = blocks

    def is_over(self, vcpu: Vcpu) -> bool:
        """Whether it has run them all."""
        left: int = self._watches[vcpu][0].left
        return left == 0 or left > _NOWHERE >> 1

    def clear(self) -> None:
        """Count from 0, whatever has run before."""
        self.counts[:] = bytes(self.size)
        for watch, _ in self._watches.values():
            watch.last = _NOWHERE
