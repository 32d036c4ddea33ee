"""The firmware's code in the guest, `gates.s`, and what it says of a call."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mh_builder.asm import ObjectFile, assemble
from mh_builder.flat_segments import GATE_BYTES, GDT, interrupt_gate
from mh_builder.paging import PAGE_BYTES
from mh_builder.save_area import OFFSETS
from mh_emulator.cpu.msr import MSR_GHCB
from mh_emulator.uefi import layout

BOOT_OFFSETS = {
    "AllocatePages": 40, "FreePages": 48, "AllocatePool": 64, "FreePool": 72, "HandleProtocol": 152,
    "InstallConfigurationTable": 192, "LocateHandleBuffer": 312,
}  # fmt: skip
RUNTIME_OFFSETS = {"SetVariable": 88}
VOLUME_OFFSETS = {"ReadSection": 24}
SERVICES = (*BOOT_OFFSETS, *RUNTIME_OFFSETS, *VOLUME_OFFSETS)
"""By the numbers of their gates; that of `MISSING` is every other service's."""
MISSING = len(SERVICES)
RETURNED = MISSING + 1
"""The number with which the driver's return is told, as a call of no service."""
IMAGE_HANDLE = 0x1234

_GATE_BYTES = 16
_NOBODY = -1
_LOST = ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11")
_KEPT = ("rsp", "rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")
_CALL = struct.Struct(f"<q{len(_LOST) + len(_KEPT)}Q")

_VECTOR_VC = 29


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the service `number`; `registers` are the general-purpose ones, rsp at the return address."""

    number: int
    registers: Mapping[str, int]

    def dumps(self) -> bytes:
        """What its gate reads when it goes on."""
        return _CALL.pack(self.number, *(self.registers[name] for name in (*_LOST, *_KEPT)))

    def returning(self, status: int, noise: int) -> Call:
        """No call any more, but `status` in RAX, and `noise` in what else a service may lose."""
        return Call(_NOBODY, {**self.registers, **dict.fromkeys(_LOST, noise), "rax": status})


def read_call(page: bytes) -> Call | None:
    """The call that the page at `layout.CALL` tells of, None where nobody has called."""
    number, *values = _CALL.unpack_from(page)
    return None if number == _NOBODY else Call(number, dict(zip((*_LOST, *_KEPT), values, strict=True)))


def idle() -> bytes:
    """The page at `layout.CALL` before anybody calls."""
    return _CALL.pack(_NOBODY, *bytes(len(_LOST) + len(_KEPT))).ljust(PAGE_BYTES, b"\0")


def code() -> bytes:
    """The page at `layout.CODE`."""
    data = _object().sections[0].data
    if len(data) > PAGE_BYTES:
        raise AssertionError(f"{len(data):#x} bytes of code in a page")
    return data.ljust(PAGE_BYTES, b"\xcc")


def descriptors() -> bytes:
    """The page at `layout.DESCRIPTORS`: a GDT, and an IDT with nothing but #VC."""
    gates = bytes(_VECTOR_VC * GATE_BYTES) + interrupt_gate(symbol("vc"))
    return (GDT + gates).ljust(PAGE_BYTES, b"\0")


IDT = layout.DESCRIPTORS + len(GDT)
IDT_LIMIT = (_VECTOR_VC + 1) * GATE_BYTES - 1


def gate(number: int) -> int:
    """Address of the gate of a service."""
    return layout.CODE + number * _GATE_BYTES


def symbol(name: str) -> int:
    """Address of one of the code's global names."""
    return layout.CODE + next(found.value for found in _object().symbols if found.name == name)


@cache
def _object() -> ObjectFile:
    numbers = {name: getattr(layout, name) for name in ("CALL", "GHCB", "GHCB_VIEW", "SYSTEM_TABLE")}
    numbers |= {"GATES": MISSING + 1, "RETURNED": RETURNED, "IMAGE_HANDLE": IMAGE_HANDLE, "MSR_GHCB": MSR_GHCB}
    vmsa = {f"vmsa.{name}": offset for name, offset in OFFSETS.items()}
    return assemble(Path(__file__).with_name("gates.s"), symbols=numbers | vmsa)
