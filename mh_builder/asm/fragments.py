"""The pieces a section is made of before its layout is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mh_builder.asm.diagnostics import Line
    from mh_builder.asm.expression import Expression


class FieldKind(Enum):
    """What may be stored in a field."""

    NUMBER = "number"
    ABSOLUTE = "absolute"
    """A number or an address."""
    ADDRESS = "address"
    """An address, never a number."""
    PRIVATE = "private"
    """An address that will carry the C-bit."""
    GATE = "gate"
    """Bits 15:0 of a gate's address; the rest of the address lies behind them as the CPU wants it."""
    RELATIVE = "relative"
    """The distance of an address from the end of the instruction."""


@dataclass(frozen=True, slots=True)
class Field:
    """`width` bytes at `offset` of a fragment; numbers must lie in `low` … `high`.

    `tail` is the number of bytes from the end of the field to the end of the instruction.
    """

    offset: int
    width: int
    kind: FieldKind
    value: Expression
    column: int
    low: int
    high: int
    tail: int = 0


@dataclass(slots=True)
class Bytes:
    """Bytes of known number, with fields to fill in."""

    line: Line
    data: bytes
    fields: tuple[Field, ...] = ()


@dataclass(slots=True)
class Branch:
    """A branch to a label: `short` and `near` are opcodes, empty where there is no such form.

    `near_width` is 2 or 4 bytes; `is_near` starts as False where there is a choice and never goes back.
    """

    line: Line
    target: Expression
    column: int
    short: bytes
    near: bytes
    near_width: int
    is_near: bool


@dataclass(slots=True)
class Fill:
    """`count` times `pattern`."""

    line: Line
    count: Expression
    column: int
    pattern: bytes


@dataclass(slots=True)
class Align:
    """As many `fill` bytes as bring the offset to a multiple of `boundary`."""

    line: Line
    boundary: int
    fill: int


Fragment = Bytes | Branch | Fill | Align


@dataclass(slots=True)
class SectionBuilder:
    """A section while it grows."""

    name: str
    fragments: list[Fragment] = field(default_factory=list)
    align: int = 1


def signed_or_unsigned(width: int) -> tuple[int, int]:
    """Give the bounds of a number that `width` bytes can hold in either reading."""
    return -(1 << (8 * width - 1)), (1 << (8 * width)) - 1


def signed(width: int) -> tuple[int, int]:
    """Give the bounds of a signed number of `width` bytes."""
    return -(1 << (8 * width - 1)), (1 << (8 * width - 1)) - 1
