"""The registers of the architecture by width, and which of them may address memory."""

from __future__ import annotations

_LETTERS = ("a", "c", "d", "b")
_POINTERS = ("sp", "bp", "si", "di")
_NUMBERED = range(8, 16)

HIGH_BYTE = frozenset(f"{letter}h" for letter in _LETTERS)
LOW_BYTE = frozenset(f"{letter}l" for letter in _LETTERS)
REX_BYTE = frozenset({f"{name}l" for name in _POINTERS} | {f"r{n}b" for n in _NUMBERED})
WORD = frozenset({f"{letter}x" for letter in _LETTERS} | set(_POINTERS) | {f"r{n}w" for n in _NUMBERED})
DOUBLE = frozenset(
    {f"e{letter}x" for letter in _LETTERS} | {f"e{name}" for name in _POINTERS} | {f"r{n}d" for n in _NUMBERED}
)
QUAD = frozenset(
    {f"r{letter}x" for letter in _LETTERS} | {f"r{name}" for name in _POINTERS} | {f"r{n}" for n in _NUMBERED}
)
SEGMENT = frozenset({"cs", "ds", "es", "fs", "gs", "ss"})
CONTROL = frozenset(f"cr{n}" for n in range(16))
DEBUG = frozenset(f"dr{n}" for n in range(16))
XMM = frozenset(f"xmm{n}" for n in range(16))
YMM = frozenset(f"ymm{n}" for n in range(16))
EXTENDED = frozenset(f"{bank}mm{n}" for bank in "xyz" for n in range(32)) - XMM - YMM
"""Vector registers that only EVEX instructions have."""
VECTOR = XMM | YMM | EXTENDED
MMX = frozenset(f"mm{n}" for n in range(8))
X87 = frozenset(f"st{n}" for n in range(8)) | {"st"}
POINTER = frozenset({"ip", "eip", "rip"})

BITS: dict[str, int] = {
    **dict.fromkeys(HIGH_BYTE | LOW_BYTE | REX_BYTE, 8),
    **dict.fromkeys(WORD | SEGMENT, 16),
    **dict.fromkeys(DOUBLE, 32),
    **dict.fromkeys(QUAD, 64),
    **dict.fromkeys(MMX, 64),
    **dict.fromkeys(X87, 80),
    **{name: {"x": 128, "y": 256, "z": 512}[name[0]] for name in VECTOR},
    **dict.fromkeys(CONTROL | DEBUG, 0),
}
"""Width of every register that may be an operand; 0 where it is that of the mode."""

RESERVED = frozenset(BITS) | POINTER
"""Names that no symbol may have."""

NEEDS_64 = frozenset(
    name
    for name in RESERVED
    if name in QUAD | REX_BYTE or (name[0] == "r" and name[1].isdigit()) or (name in VECTOR and int(name[3:]) > 7)
)
"""Registers that exist in 64-bit code only."""

NEEDS_REX = REX_BYTE | QUAD | (NEEDS_64 & (WORD | DOUBLE | VECTOR))
"""Registers whose use takes a REX prefix, or may take one, and so excludes the high-byte registers."""
