"""The directives that define symbols and data or choose sections and modes."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mh_builder.asm import expression as ex
from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.fragments import Align, Bytes, Field, FieldKind, Fill, Fragment, signed_or_unsigned
from mh_builder.asm.lexer import unescape
from mh_builder.asm.objectfile import EMPTY_SECTIONS
from mh_builder.asm.symbols import Mention
from mh_builder.flat_segments import INTERRUPT_GATE

if TYPE_CHECKING:
    from mh_builder.asm.statement import Statement
    from mh_builder.asm.symbols import SymbolTable

MAX_ALIGN = 1 << 21


class Unit(Protocol):
    """What directives change."""

    table: SymbolTable
    mode: int

    @property
    def section_name(self) -> str:
        """The current section."""

    def enter(self, name: str, column: int) -> None:
        """Make a section the current one."""

    def raise_alignment(self, boundary: int) -> None:
        """Align the current section to `boundary` bytes at least."""

    def add(self, fragment: Fragment) -> None:
        """Append to the current section."""

    def lookup(self, name: ex.Name) -> ex.Expression:
        """Bind a name here."""


Handler = Callable[[Unit, "Statement", ex.Cursor], None]


def _expression(unit: Unit, cursor: ex.Cursor) -> tuple[ex.Expression, int]:
    column = cursor.token.column
    return ex.bind(ex.parse(cursor), unit.lookup), column


def constant(unit: Unit, cursor: ex.Cursor) -> int:
    """Read an expression that must be a number by now; raises `StatementError`."""
    value, _ = _expression(unit, cursor)
    if isinstance(value, ex.Number):
        return value.value
    name = ex.names(value)[0]
    raise StatementError(name.column, f"'{_shown(name.name)}' is not a number that is known here")


def _shown(name: str) -> str:
    return "." if name.startswith(".@") else name.partition("@")[0]


def _name(cursor: ex.Cursor) -> tuple[str, int]:
    token = cursor.take()
    if token.kind != "name":
        raise StatementError(token.column, f"expected a name, found '{token.text}'")
    return token.text, token.column


# ---- sections, modes and symbols ----


def _section(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    if statement.head != ".section":
        unit.enter(statement.head, statement.column)
        return
    name, column = _name(cursor)
    unit.enter(name, column)


def _mode(bits: int) -> Handler:
    def handle(unit: Unit, _statement: Statement, _cursor: ex.Cursor) -> None:
        unit.mode = bits

    return handle


def _declare(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    names = unit.table.globals if statement.head == ".global" else unit.table.externs
    while True:
        name, column = _name(cursor)
        if name in unit.table.strings or name in unit.table.aliases or name == ".":
            raise StatementError(column, f"'{name}' is no symbol of the object file")
        names.setdefault(name, Mention(statement.line, column))
        if not cursor.accept(","):
            return


def _equ(unit: Unit, _statement: Statement, cursor: ex.Cursor) -> None:
    name, column = _name(cursor)
    try:
        cursor.expect(",")
        value, _ = _expression(unit, cursor)
        cursor.expect_end()
    except StatementError:
        unit.table.fail(name)
        raise
    unit.table.define_once(name, column, value)


def _reg(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    name = cursor.take()
    cursor.expect(",")
    register = cursor.take()
    cursor.expect_end()
    if name.text in unit.table.globals or unit.table.is_defined(name.text):
        raise StatementError(name.column, f"'{name.text}' is already defined")
    unit.table.aliases.define(name, register, statement.line)


def _unreg(unit: Unit, _statement: Statement, cursor: ex.Cursor) -> None:
    while True:
        unit.table.aliases.end(cursor.take())
        if not cursor.accept(","):
            return


def _set(unit: Unit, _statement: Statement, cursor: ex.Cursor) -> None:
    name, column = _name(cursor)
    try:
        cursor.expect(",")
        value = constant(unit, cursor)
        cursor.expect_end()
    except StatementError:
        unit.table.fail(name)
        raise
    unit.table.define_again(name, column, value)


# ---- data ----


def _data(width: int, kind: FieldKind) -> Handler:
    low, high = signed_or_unsigned(width)

    def handle(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
        _refuse_empty(unit, statement)
        fields: list[Field] = []
        while True:
            value, column = _expression(unit, cursor)
            fields.append(Field(len(fields) * width, width, kind, value, column, low, high))
            if not cursor.accept(","):
                break
        unit.add(Bytes(statement.line, bytes(width * len(fields)), tuple(fields)))

    return handle


def _gate(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    _refuse_empty(unit, statement)
    handler, column = _expression(unit, cursor)
    numbers = []
    for what, high in (("selector", 0xFFFF), ("IST index", 7)):
        cursor.expect(",")
        place = cursor.token.column
        numbers.append(constant(unit, cursor))
        if not 0 <= numbers[-1] <= high:
            raise StatementError(place, f"{what} {numbers[-1]} does not fit: 0 to {high}")
    data = struct.pack("<HHBBHII", 0, *numbers, INTERRUPT_GATE, 0, 0, 0)
    low, high = signed_or_unsigned(2)
    unit.add(Bytes(statement.line, data, (Field(0, 2, FieldKind.GATE, handler, column, low, high),)))


def _text(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    _refuse_empty(unit, statement)
    data = b""
    while True:
        data += _string(unit, cursor).encode("latin-1") + (b"\0" if statement.head == ".asciz" else b"")
        if not cursor.accept(","):
            break
    unit.add(Bytes(statement.line, data))


def _guid(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    _refuse_empty(unit, statement)
    column = cursor.token.column
    text = _string(unit, cursor)
    try:
        value = uuid.UUID(text)
    except ValueError:
        value = None
    if value is None or str(value) != text.lower():
        raise StatementError(column, "a GUID is xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
    unit.add(Bytes(statement.line, value.bytes_le))


def _string(unit: Unit, cursor: ex.Cursor) -> str:
    token = cursor.take()
    if token.kind == "string":
        return unescape(token.text[1:-1], token.column + 1)
    if token.kind == "name" and token.text in unit.table.strings:
        return unit.table.strings[token.text]
    raise StatementError(token.column, f"expected a string, found '{token.text}'")


def _zero(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    count, column = _expression(unit, cursor)
    unit.add(Fill(statement.line, count, column, b"\0"))


def _fill(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    _refuse_empty(unit, statement)
    count, column = _expression(unit, cursor)
    cursor.expect(",")
    size_column = cursor.token.column
    size = constant(unit, cursor)
    if not 1 <= size <= 8:
        raise StatementError(size_column, "'.fill' takes a size from 1 to 8 bytes")
    cursor.expect(",")
    value_column = cursor.token.column
    value = constant(unit, cursor)
    low, high = signed_or_unsigned(size)
    if not low <= value <= high:
        raise StatementError(value_column, f"number does not fit in {size} bytes")
    unit.add(Fill(statement.line, count, column, (value % (1 << (8 * size))).to_bytes(size, "little")))


def _balign(unit: Unit, statement: Statement, cursor: ex.Cursor) -> None:
    column = cursor.token.column
    boundary = constant(unit, cursor)
    if not 1 <= boundary <= MAX_ALIGN or boundary & (boundary - 1):
        raise StatementError(column, f"'.balign' takes a power of two up to {MAX_ALIGN}")
    fill = 0x90 if unit.section_name == ".text" else 0
    if cursor.accept(","):
        _refuse_empty(unit, statement)
        column = cursor.token.column
        fill = constant(unit, cursor)
        if not -128 <= fill <= 255:
            raise StatementError(column, "the fill of '.balign' is one byte")
    unit.raise_alignment(boundary)
    unit.add(Align(statement.line, boundary, fill % 256))


def _refuse_empty(unit: Unit, statement: Statement) -> None:
    if unit.section_name in EMPTY_SECTIONS:
        raise StatementError(
            statement.column,
            f"'{statement.head}': section {unit.section_name} holds no data, only '.zero' and '.balign'",
        )


HANDLERS: dict[str, Handler] = {
    ".text": _section,
    ".data": _section,
    ".bss": _section,
    ".section": _section,
    ".code16": _mode(16),
    ".code32": _mode(32),
    ".code64": _mode(64),
    ".global": _declare,
    ".extern": _declare,
    ".equ": _equ,
    ".set": _set,
    ".reg": _reg,
    ".unreg": _unreg,
    ".byte": _data(1, FieldKind.NUMBER),
    ".word": _data(2, FieldKind.NUMBER),
    ".long": _data(4, FieldKind.ABSOLUTE),
    ".quad": _data(8, FieldKind.ABSOLUTE),
    ".pquad": _data(8, FieldKind.PRIVATE),
    ".ascii": _text,
    ".asciz": _text,
    ".guid": _guid,
    ".gate": _gate,
    ".zero": _zero,
    ".fill": _fill,
    ".balign": _balign,
}
