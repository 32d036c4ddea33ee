"""Operands of an instruction: registers, memory, numbers and absolute addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mh_builder.asm import expression as ex
from mh_builder.asm import registers
from mh_builder.asm.diagnostics import StatementError

SIZES = {
    "byte": 8, "word": 16, "dword": 32, "fword": 48, "qword": 64, "tbyte": 80, "xmmword": 128, "ymmword": 256,
    "zmmword": 512,
}  # fmt: skip
"""Bits of a memory operand by the word before `ptr`."""

Lookup = Callable[[ex.Name], ex.Expression]


@dataclass(frozen=True, slots=True)
class Register:
    """A register."""

    name: str
    column: int


@dataclass(frozen=True, slots=True)
class Immediate:
    """A number, or the target of a branch."""

    value: ex.Expression
    column: int


@dataclass(frozen=True, slots=True)
class Offset:
    """`offset EXPR`: an absolute address."""

    value: ex.Expression
    column: int


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory operand; `size` is 0 where it was not written, `base` is "rip" for `[rip + EXPR]`."""

    size: int
    segment: str
    base: str
    index: str
    scale: int
    displacement: ex.Expression
    column: int


Operand = Register | Immediate | Offset | Memory


def parse_operands(cursor: ex.Cursor, lookup: Lookup) -> tuple[Operand, ...]:
    """Read operands with commas between them up to the end of the statement."""
    operands: list[Operand] = []
    if cursor.token.kind == "end":
        return ()
    while True:
        operands.append(_operand(cursor, lookup))
        if not cursor.accept(","):
            cursor.expect_end()
            return tuple(operands)


def _operand(cursor: ex.Cursor, lookup: Lookup) -> Operand:
    token = cursor.token
    if token.kind == "name":
        following = cursor.peek(1)
        if token.text in SIZES and following.text == "ptr":
            cursor.take()
            cursor.take()
            return _memory(cursor, lookup, SIZES[token.text])
        if following.text == ":" and token.text in registers.SEGMENT:
            return _memory(cursor, lookup, 0)
        if token.text == "offset":
            cursor.take()
            return Offset(ex.bind(ex.parse(cursor), lookup), token.column)
        if token.text in registers.RESERVED:
            return _register(cursor)
    if token.kind == "op" and token.text == "[":
        return _memory(cursor, lookup, 0)
    return Immediate(ex.bind(ex.parse(cursor), lookup), token.column)


def _register(cursor: ex.Cursor) -> Register:
    token = cursor.take()
    if token.text not in registers.BITS:
        raise StatementError(token.column, f"'{token.text}' cannot be an operand")
    return Register(token.text, token.column)


def _memory(cursor: ex.Cursor, lookup: Lookup, size: int) -> Memory:
    column = cursor.token.column
    segment = ""
    if cursor.token.text in registers.SEGMENT:
        segment = cursor.take().text
        cursor.expect(":")
    cursor.expect("[")
    inner = ex.parse(cursor)
    cursor.expect("]")
    sum_ = _Sum(lookup)
    sum_.add(inner, 1)
    return sum_.memory(size, segment, column)


class _Sum:
    """Takes the terms of an address apart."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._plain: list[ex.Name] = []
        self._scaled: list[tuple[ex.Name, int]] = []
        self._rest: ex.Expression | None = None
        self._named = False

    def add(self, term: ex.Expression, sign: int) -> None:
        """Add a term with a sign; a register must stand alone or be multiplied by its scale."""
        match term:
            case ex.Binary("+", left, right):
                self.add(left, sign)
                self.add(right, sign)
            case ex.Binary("-", left, right):
                self.add(left, sign)
                self.add(right, -sign)
            case ex.Unary("+", operand):
                self.add(operand, sign)
            case _ if not _registers(term):
                self._named = self._named or bool(ex.names(term))
                self._add_number(ex.bind(term, self._lookup), sign)
            case _ if sign < 0:
                raise StatementError(_registers(term)[0].column, "a register cannot be subtracted")
            case ex.Name():
                self._plain.append(term)
            case ex.Binary("*", ex.Name() as name, factor) if name.name in registers.RESERVED:
                self._scaled.append((name, self._scale(factor)))
            case ex.Binary("*", factor, ex.Name() as name):
                self._scaled.append((name, self._scale(factor)))
            case _:
                name = _registers(term)[0]
                raise StatementError(name.column, f"register '{name.name}' can only be added, or scaled by a number")

    def _scale(self, factor: ex.Expression) -> int:
        bound = ex.bind(factor, self._lookup)
        if not isinstance(bound, ex.Number) or bound.value not in {1, 2, 4, 8}:
            raise StatementError(factor.column, "a scale is 1, 2, 4 or 8")
        return bound.value

    def _add_number(self, term: ex.Expression, sign: int) -> None:
        column = term.column
        if self._rest is None:
            signed = term if sign > 0 else ex.Unary("-", term, column)
        else:
            signed = ex.Binary("+" if sign > 0 else "-", self._rest, term, column)
        self._rest = ex.bind(signed, lambda name: name)

    def memory(self, size: int, segment: str, column: int) -> Memory:
        """Assign the registers to base and index."""
        names = self._plain + [name for name, _ in self._scaled]
        if len(names) > 2 or len(self._scaled) > 1:
            raise StatementError(column, "an address has at most a base and one index register")
        rest = self._rest or ex.Number(0, column)
        base = self._plain[0].name if self._plain else ""
        if base == "rip" and self._named and isinstance(rest, ex.Number):
            raise StatementError(rest.column, "'[rip + …]' takes an address; what it has here is a number")
        index, scale = (self._scaled[0][0].name, self._scaled[0][1]) if self._scaled else ("", 1)
        if len(self._plain) == 2:
            index = self._plain[1].name
            if index in {"esp", "rsp"}:
                base, index = index, base
        if index and not base and scale == 1:
            base, index = index, ""
        return Memory(size, segment, base, index, scale, rest, column)


def _registers(term: ex.Expression) -> list[ex.Name]:
    return [name for name in ex.names(term) if name.name in registers.RESERVED]
