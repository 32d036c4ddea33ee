"""How registers lie in a packet, as the target description tells gdb."""

from __future__ import annotations

from mh_emulator.cpu.registers import XMM_COUNT, Registers

_GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
)  # fmt: skip
_SHORT = ("eflags", "cs", "ss", "ds", "es", "fs", "gs")
_X87 = tuple(f"st{number}" for number in range(8))
_X87_CONTROL = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_VECTORS = tuple(f"xmm{number}" for number in range(XMM_COUNT))

_SIZES = (
    dict.fromkeys(_GENERAL, 8) | dict.fromkeys(_SHORT, 4) | dict.fromkeys(_X87, 10) | dict.fromkeys(_X87_CONTROL, 4)
    | dict.fromkeys(_VECTORS, 16) | {"mxcsr": 4}
)  # fmt: skip
"""Name -> bytes, in gdb's order (features org.gnu.gdb.i386.core and .sse)."""

NAMES = tuple(_SIZES)


def value(registers: Registers, name: str) -> str:
    """A register as hex digits, little-endian; x87, which the helper does not use, is not told."""
    if name in _X87 or name in _X87_CONTROL:
        return "xx" * _SIZES[name]
    number = registers.xmm[_VECTORS.index(name)] if name in _VECTORS else getattr(registers, _field(name))
    return int(number).to_bytes(_SIZES[name], "little").hex()


def with_value(registers: Registers, name: str, digits: str) -> Registers:
    """The registers with one changed. Raises `ValueError` where that register cannot be."""
    data = bytes.fromhex(digits)
    if len(data) != _SIZES[name] or (name not in _GENERAL and name != "eflags"):
        raise ValueError(name)
    number = int.from_bytes(data, "little")
    return registers.with_changes(**{_field(name): number})


def _field(name: str) -> str:
    return "rflags" if name == "eflags" else name


def description() -> str:
    """target.xml."""
    core = [*_GENERAL, *_SHORT, *_X87, *_X87_CONTROL]
    types = {"rip": "code_ptr", "rsp": "data_ptr", "rbp": "data_ptr"} | dict.fromkeys(_X87, "i387_ext")
    rows = [f'<reg name="{name}" bitsize="{8 * _SIZES[name]}" type="{types.get(name, "int")}"/>' for name in core]
    vectors = [f'<reg name="{name}" bitsize="128" type="uint128"/>' for name in _VECTORS]
    return "".join(
        [
            '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">',
            "<architecture>i386:x86-64</architecture>",
            '<feature name="org.gnu.gdb.i386.core">', *rows, "</feature>",
            '<feature name="org.gnu.gdb.i386.sse">', *vectors,
            '<reg name="mxcsr" bitsize="32" type="int"/></feature></target>',
        ]
    )  # fmt: skip
