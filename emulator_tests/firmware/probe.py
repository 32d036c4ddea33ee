"""Routines of the assembly loader on page tables of ours, without a firmware around them."""

from __future__ import annotations

import re
import struct
from functools import cache

from unicorn import UC_ARCH_X86, UC_HOOK_CODE, UC_HOOK_MEM_WRITE, UC_MODE_64, Uc, x86_const

from emulator_tests.coverage.recorder import notice
from emulator_tests.edk2.native_driver import TABLES
from mh_builder.firmware.driver import _SECTIONS, SOURCES, _place, _symbols, build_loader, loader_objects
from mh_builder.paging import PAGE_BYTES
from mh_builder.symbols import merge
from mh_emulator.uefi.driver import load_driver

_LOADER, _STACK, _RETURN = 0x20_0000, 0x40_0000, 0x60_0000
_READS = {b"\x0f\x20\xd8": "cr3", b"\x0f\x20\xdf": "cr3", b"\x0f\x20\xe0": "cr4"}
"""`mov rax, cr3`, `mov rdi, cr3` and `mov rax, cr4`: this engine has no paging, so they are answered for it."""
_INTO = {b"\x0f\x20\xd8": x86_const.UC_X86_REG_RAX, b"\x0f\x20\xdf": x86_const.UC_X86_REG_RDI,
         b"\x0f\x20\xe0": x86_const.UC_X86_REG_RAX}  # fmt: skip
_CR4_LA57 = 1 << 12
_CLFLUSH, _MFENCE = b"\x0f\xae\x38", b"\x0f\xae\xf0"
"""`clflush [rax]`, `mfence`."""


@cache
def addresses() -> dict[str, int]:
    """The loader's global names."""
    objects = loader_objects()
    merged = {name: merge(objects, name) for name, _ in _SECTIONS}
    return _symbols(objects, merged, _place(merged))


@cache
def state_offsets() -> dict[str, int]:
    """The loader's variables."""
    text = (SOURCES / "state.inc").read_text()
    return {name: int(number) for name, number in re.findall(r"\.equ state\.(\w+), (\d+)", text)}


class AssemblyWalk:
    """check_private of payload/loader/sev.s."""

    def is_private(self, tables: bytes, levels: int, c_mask: int, address: int, size: int) -> bool:
        """As `NativeDriver.is_private`."""
        return _run("check_private", _engine(tables, levels, c_mask), address, size) == 0


def sharing(tables: bytes, c_mask: int, page: int) -> list[tuple[str, int]]:
    """What make_shared of payload/loader/paging.s does to caches and tables of 4 levels, in its order.

    A line that is written back, a fence, an entry that is written: what and where. The page is one of 4 KiB.
    """
    engine = _engine(tables, 4, c_mask)
    engine.mem_map(page, PAGE_BYTES)
    steps: list[tuple[str, int]] = []
    engine.hook_add(UC_HOOK_CODE, _note_cache, steps)
    span = TABLES, TABLES + len(tables) - 1
    engine.hook_add(UC_HOOK_MEM_WRITE, lambda _engine, _kind, at, *_: steps.append(("entry", at)), None, *span)
    assert _run("make_shared", engine, page) == 0
    return steps


def _engine(tables: bytes, levels: int, c_mask: int) -> Uc:
    engine = Uc(UC_ARCH_X86, UC_MODE_64)
    image = load_driver(build_loader()).image
    for start, data in ((_LOADER, image), (_STACK, b""), (_RETURN, b""), (TABLES, tables)):
        engine.mem_map(start, max(PAGE_BYTES, -(-len(data) // PAGE_BYTES) * PAGE_BYTES))
        engine.mem_write(start, data)
    notice(engine, _LOADER, image)
    state = bytearray(state_offsets()["bytes"])
    struct.pack_into("<Q", state, state_offsets()["c_mask"], c_mask)
    struct.pack_into("<Q", state, state_offsets()["c_bit"], max(c_mask.bit_length() - 1, 0))
    engine.mem_write(_STACK, bytes(state))
    answers = {"cr3": TABLES | c_mask, "cr4": _CR4_LA57 if levels == 5 else 0}
    engine.hook_add(UC_HOOK_CODE, _answer, answers)
    return engine


def _run(routine: str, engine: Uc, address: int, size: int = 0) -> int:
    """Its status."""
    engine.mem_write(_STACK + PAGE_BYTES - 64, _RETURN.to_bytes(8, "little"))
    registers = {
        x86_const.UC_X86_REG_RBX: _STACK, x86_const.UC_X86_REG_RSP: _STACK + PAGE_BYTES - 64,
        x86_const.UC_X86_REG_RSI: address, x86_const.UC_X86_REG_RDX: size,
    }  # fmt: skip
    for register, value in registers.items():
        engine.reg_write(register, value)
    engine.emu_start(_LOADER + addresses()[routine], _RETURN)
    return int(engine.reg_read(x86_const.UC_X86_REG_RAX))


def _answer(engine: Uc, address: int, size: int, answers: dict[str, int]) -> None:
    code = bytes(engine.mem_read(address, size))
    if code in _READS:
        engine.reg_write(_INTO[code], answers[_READS[code]])
        engine.reg_write(x86_const.UC_X86_REG_RIP, address + size)


def _note_cache(engine: Uc, address: int, size: int, steps: list[tuple[str, int]]) -> None:
    code = bytes(engine.mem_read(address, size))
    if code == _CLFLUSH:
        steps.append(("line", int(engine.reg_read(x86_const.UC_X86_REG_RAX))))
    elif code == _MFENCE:
        steps.append(("fence", 0))
