"""Expressions: C's operators on unbounded integers, and addresses that are a symbol plus a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.lexer import Token

MAX_BITS = 4096
MAX_TOKENS = 250

_PRECEDENCE = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, "<=": 7, ">": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
_UNARY = ("-", "+", "~", "!")


@dataclass(frozen=True, slots=True)
class Address:
    """A symbol plus a number; `section` is None for a symbol of another file."""

    symbol: str
    section: str | None
    base: int
    addend: int


Value = int | Address


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: int
    column: int


@dataclass(frozen=True, slots=True)
class Name:
    """A name that is no constant yet; `1b` and `.` have names of their own by then."""

    name: str
    column: int


@dataclass(frozen=True, slots=True)
class Unary:
    """An operator before its operand."""

    operator: str
    operand: Expression
    column: int


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands."""

    operator: str
    left: Expression
    right: Expression
    column: int


Expression = Number | Name | Unary | Binary


class Cursor:
    """The tokens of a statement and how far they have been read."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        """Begin at the first token; the last one must be an end token."""
        self._tokens = tokens
        self._index = 0

    @property
    def position(self) -> int:
        """The number of tokens read so far."""
        return self._index

    @property
    def token(self) -> Token:
        """The next token."""
        return self._tokens[self._index]

    def peek(self, distance: int) -> Token:
        """Look `distance` tokens past the next one."""
        return self._tokens[min(self._index + distance, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Read the next token; the end token stays."""
        token = self.token
        if token.kind != "end":
            self._index += 1
        return token

    def accept(self, operator: str) -> bool:
        """Read the next token if it is this operator."""
        found = self.token.kind == "op" and self.token.text == operator
        if found:
            self._index += 1
        return found

    def expect(self, operator: str) -> None:
        """Read this operator or raise."""
        if not self.accept(operator):
            raise self.unexpected(f"'{operator}'")

    def expect_end(self) -> None:
        """Raise unless all was read."""
        if self.token.kind != "end":
            raise self.unexpected("end of line")

    def unexpected(self, wanted: str) -> StatementError:
        """Make the error for a token that is not what was wanted."""
        shown = "end of line" if self.token.kind == "end" else f"'{self.token.text}'"
        return StatementError(self.token.column, f"expected {wanted}, found {shown}")


def parse(cursor: Cursor) -> Expression:
    """Read one expression; names are not looked up."""
    return _binary(cursor, 1, cursor.position + MAX_TOKENS)


def _binary(cursor: Cursor, lowest: int, limit: int) -> Expression:
    left = _primary(cursor, limit)
    while cursor.token.kind == "op" and _PRECEDENCE.get(cursor.token.text, 0) >= lowest:
        operator = cursor.take()
        right = _binary(cursor, _PRECEDENCE[operator.text] + 1, limit)
        left = Binary(operator.text, left, right, operator.column)
    return left


def _primary(cursor: Cursor, limit: int) -> Expression:
    token = cursor.token
    if cursor.position > limit:
        # Every node has a token of its own, so this bounds the depth of the tree too.
        raise StatementError(token.column, f"expression has more than {MAX_TOKENS} tokens")
    if token.kind == "number":
        cursor.take()
        return Number(token.value, token.column)
    if token.kind in {"name", "local"}:
        cursor.take()
        return Name(token.text, token.column)
    if token.kind == "op" and token.text in _UNARY:
        cursor.take()
        return Unary(token.text, _primary(cursor, limit), token.column)
    if cursor.accept("("):
        inner = _binary(cursor, 1, limit)
        cursor.expect(")")
        return inner
    raise cursor.unexpected("an expression")


def bind(expression: Expression, lookup: Callable[[Name], Expression]) -> Expression:
    """Replace names by what `lookup` makes of them and compute what is constant by then."""
    match expression:
        case Number():
            return expression
        case Name():
            return lookup(expression)
        case Unary(operator, operand, column):
            return _folded(Unary(operator, bind(operand, lookup), column))
        case Binary(operator, left, right, column):
            bound = bind(left, lookup)
            if isinstance(bound, Number) and _decides(operator, bound.value):
                return Number(int(bound.value != 0), column)
            return _folded(Binary(operator, bound, bind(right, lookup), column))


def evaluate(expression: Expression, resolve: Callable[[Name], Value]) -> Value:
    """Compute a bound expression; `resolve` gives the value of a name or raises `StatementError`."""
    match expression:
        case Number(value):
            return value
        case Name():
            return resolve(expression)
        case Unary(operator, operand, column):
            inner = evaluate(operand, resolve)
            if isinstance(inner, Address):
                raise StatementError(column, f"'{operator}' cannot apply to an address")
            return _unary(operator, inner)
        case Binary(operator, left, right, column):
            first = evaluate(left, resolve)
            if isinstance(first, int) and _decides(operator, first):
                return int(first != 0)
            return _combine(operator, first, evaluate(right, resolve), column)


def names(expression: Expression) -> list[Name]:
    """List the names in an expression, left to right."""
    match expression:
        case Number():
            return []
        case Name():
            return [expression]
        case Unary(_, operand):
            return names(operand)
        case Binary(_, left, right):
            return names(left) + names(right)


def _decides(operator: str, left: int) -> bool:
    return (operator == "&&" and left == 0) or (operator == "||" and left != 0)


def _folded(expression: Unary | Binary) -> Expression:
    match expression:
        case Unary(operator, Number(value), column):
            return Number(_unary(operator, value), column)
        case Binary(operator, Number(left, column), Number(right), place):
            return Number(_arithmetic(operator, left, right, place), column)
    return expression


def _combine(operator: str, left: Value, right: Value, column: int) -> Value:
    match operator, left, right:
        case _, int(), int():
            return _arithmetic(operator, left, right, column)
        case "+", Address(symbol, section, base, addend), int():
            return Address(symbol, section, base, addend + right)
        case "+", int(), Address(symbol, section, base, addend):
            return Address(symbol, section, base, addend + left)
        case "-", Address(symbol, section, base, addend), int():
            return Address(symbol, section, base, addend - right)
        case "-", Address(), Address() if left.section is not None and left.section == right.section:
            return left.base + left.addend - right.base - right.addend
        case "-", Address(), Address():
            raise StatementError(column, f"'{left.symbol}' and '{right.symbol}' are not labels of one section")
    raise StatementError(column, f"'{operator}' cannot apply to an address")


def _unary(operator: str, value: int) -> int:
    match operator:
        case "-":
            return -value
        case "~":
            return ~value
        case "!":
            return int(value == 0)
        case _:
            return value


def _arithmetic(operator: str, left: int, right: int, column: int) -> int:
    if operator in {"/", "%"} and right == 0:
        raise StatementError(column, "division by zero")
    if operator in {"<<", ">>"} and not 0 <= right <= MAX_BITS:
        raise StatementError(column, f"shift by {right} bits" if abs(right) < 1 << 64 else "shift by too many bits")
    result = _OPERATIONS[operator](left, right)
    if result.bit_length() > MAX_BITS:
        raise StatementError(column, f"number has more than {MAX_BITS} bits")
    return result


def _quotient(left: int, right: int) -> int:
    magnitude = abs(left) // abs(right)
    return magnitude if (left < 0) == (right < 0) else -magnitude


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _quotient,
    "%": lambda a, b: a - b * _quotient(a, b),
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    ">": lambda a, b: int(a > b),
    ">=": lambda a, b: int(a >= b),
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "&": lambda a, b: a & b,
    "^": lambda a, b: a ^ b,
    "|": lambda a, b: a | b,
    "&&": lambda a, b: int(a != 0 and b != 0),
    "||": lambda a, b: int(a != 0 or b != 0),
}
