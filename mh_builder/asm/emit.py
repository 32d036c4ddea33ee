"""Writes a section's bytes once the layout is known, and what is left to the linker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mh_builder.asm.diagnostics import Line, Reporter, StatementError
from mh_builder.asm.expression import Address, Value
from mh_builder.asm.fragments import Align, Branch, Bytes, Field, FieldKind, Fill, SectionBuilder, signed
from mh_builder.asm.objectfile import EMPTY_SECTIONS, Relocation, RelocationKind, Section

if TYPE_CHECKING:
    from mh_builder.asm.layout import SectionLayout

_KINDS = {
    (FieldKind.ABSOLUTE, 8): RelocationKind.ABS64,
    (FieldKind.ABSOLUTE, 4): RelocationKind.ABS32,
    (FieldKind.ADDRESS, 8): RelocationKind.ABS64,
    (FieldKind.ADDRESS, 4): RelocationKind.ABS32,
    (FieldKind.PRIVATE, 8): RelocationKind.PRIVATE64,
    (FieldKind.GATE, 2): RelocationKind.GATE,
}


class Emitter:
    """Emits sections; errors go to the reporter and leave zeros."""

    def __init__(self, layout: SectionLayout, reporter: Reporter) -> None:
        """Emit at the addresses of a layout."""
        self._layout = layout
        self._resolver = layout.resolver()
        self._reporter = reporter
        self._relocations: list[Relocation] = []

    def section(self, builder: SectionBuilder) -> Section:
        """Emit one section."""
        self._relocations = []
        offsets = self._layout.addresses[builder.name]
        size = offsets[-1]
        if builder.name in EMPTY_SECTIONS:
            return Section(builder.name, b"", size, builder.align, ())
        pieces: list[bytes] = []
        for index, fragment in enumerate(builder.fragments):
            offset, end = offsets[index], offsets[index + 1]
            match fragment:
                case Bytes(line, data, fields):
                    pieces.append(self._fill_in(builder.name, line, offset, data, fields) if fields else data)
                case Branch():
                    pieces.append(self._branch(builder.name, fragment, end))
                case Fill():
                    pieces.append(fragment.pattern * self._layout.count(fragment))
                case Align():
                    pieces.append(bytes([fragment.fill]) * (end - offset))
        places = tuple(
            (offset, end - offset, fragment.line.place)
            for fragment, offset, end in zip(builder.fragments, offsets, offsets[1:], strict=False)
            if end > offset and isinstance(fragment, Bytes | Branch)
        )
        return Section(builder.name, b"".join(pieces), size, builder.align, tuple(self._relocations), places)

    def _fill_in(self, section: str, line: Line, offset: int, data: bytes, fields: tuple[Field, ...]) -> bytes:
        result = bytearray(data)
        for item in fields:
            place = offset + item.offset
            try:
                number = self._number(section, line, place, item, self._resolver.evaluate(item.value))
            except StatementError as error:
                self._reporter.error(line, error.column, error.message)
                continue
            result[item.offset : item.offset + item.width] = (number % (1 << (8 * item.width))).to_bytes(
                item.width, "little"
            )
        return bytes(result)

    def _number(self, section: str, line: Line, place: int, item: Field, value: Value) -> int:
        if item.kind is FieldKind.RELATIVE:
            return self._relative(section, line, place, item, value)
        if isinstance(value, Address):
            kind = _KINDS.get((item.kind, item.width))
            if kind is None:
                raise StatementError(item.column, f"the address of '{_shown(value)}' cannot stand here")
            self._relocate(line, place, kind, value, 0)
            return 0
        if item.kind in {FieldKind.ADDRESS, FieldKind.PRIVATE, FieldKind.GATE}:
            raise StatementError(item.column, "an address is needed here, not a number")
        if not item.low <= value <= item.high:
            raise StatementError(item.column, f"number {_number_shown(value)} does not fit: {item.low} to {item.high}")
        return value

    def _relative(self, section: str, line: Line, place: int, item: Field, value: Value) -> int:
        if not isinstance(value, Address):
            raise StatementError(item.column, "'[rip + …]' takes an address; what it has here is a number")
        if value.section != section:
            self._relocate(line, place, RelocationKind.REL32, value, -item.width - item.tail)
            return 0
        distance = value.base + value.addend - (place + item.width + item.tail)
        return _checked(distance, item.width, item.column)

    def _branch(self, section: str, branch: Branch, end: int) -> bytes:
        opcode, width = (branch.near, branch.near_width) if branch.is_near else (branch.short, 1)
        try:
            value = self._resolver.evaluate(branch.target)
            distance = self._distance(section, branch, value, end, width)
        except StatementError as error:
            self._reporter.error(branch.line, error.column, error.message)
            distance = 0
        return opcode + distance.to_bytes(width, "little", signed=True)

    def _distance(self, section: str, branch: Branch, value: Value, end: int, width: int) -> int:
        if not isinstance(value, Address):
            raise StatementError(branch.column, "a branch takes a label, not a number")
        if value.section == section:
            return _checked(value.base + value.addend - end, width, branch.column)
        if width != 4:
            raise StatementError(branch.column, f"'{_shown(value)}' is in another section or file: out of reach here")
        self._relocate(branch.line, end - width, RelocationKind.REL32, value, -width)
        return 0

    def _relocate(self, line: Line, place: int, kind: RelocationKind, value: Address, bias: int) -> None:
        self._relocations.append(Relocation(place, kind, value.symbol, value.addend + bias, line.place))


def _checked(distance: int, width: int, column: int) -> int:
    low, high = signed(width)
    if not low <= distance <= high:
        raise StatementError(column, f"target is {distance} bytes away: out of reach, {low} to {high}")
    return distance


def _shown(value: Address) -> str:
    return "." if value.symbol.startswith(".@") else value.symbol.partition("@")[0]


def _number_shown(value: int) -> str:
    return str(value) if abs(value) < 1 << 20 else f"{value:#x}"
