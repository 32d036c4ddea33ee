"""The names of one source file and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mh_builder.asm import expression as ex
from mh_builder.asm.aliases import Aliases
from mh_builder.asm.diagnostics import Line, StatementError
from mh_builder.asm.registers import RESERVED

MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Place:
    """A position: the beginning of fragment number `fragment` of a section."""

    section: str
    fragment: int


@dataclass(frozen=True, slots=True)
class Mention:
    """Where a name was written."""

    line: Line
    column: int


@dataclass
class SymbolTable:
    """Names in the order of their definition."""

    numbers: dict[str, int] = field(default_factory=dict)
    strings: dict[str, str] = field(default_factory=dict)
    labels: dict[str, Place] = field(default_factory=dict)
    deferred: dict[str, ex.Expression] = field(default_factory=dict)
    externs: dict[str, Mention] = field(default_factory=dict)
    globals: dict[str, Mention] = field(default_factory=dict)
    aliases: Aliases = field(default_factory=Aliases)
    asked: set[str] = field(default_factory=set)
    """Names that something depended on."""
    _changing: set[str] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)
    _rounds: dict[str, int] = field(default_factory=dict)

    @classmethod
    def predefined(cls, symbols: Mapping[str, int | str]) -> SymbolTable:
        """Begin with the caller's numbers and strings."""
        table = cls()
        for name, value in symbols.items():
            if isinstance(value, str):
                table.strings[name] = value
            else:
                table.numbers[name] = value
        return table

    def copy(self) -> SymbolTable:
        """The same names, for another file; aliases are a file's own."""
        return SymbolTable(
            dict(self.numbers),
            dict(self.strings),
            dict(self.labels),
            dict(self.deferred),
            dict(self.externs),
            dict(self.globals),
            asked=set(self.asked),
            _changing=set(self._changing),
            _failed=set(self._failed),
            _rounds=dict(self._rounds),
        )

    def is_defined(self, name: str) -> bool:
        """Tell whether a name has a meaning so far."""
        return self._is_taken(name) or name in self.externs

    def _is_taken(self, name: str) -> bool:
        self.asked.add(name)
        return any(name in names for names in (self.numbers, self.strings, self.labels, self.deferred, self._failed))

    def _check_free(self, name: str, column: int) -> None:
        if name in RESERVED:
            raise StatementError(column, f"'{name}' is a register")
        if name in self.aliases:
            raise StatementError(column, f"'{name}' is the name of a register")
        if name == ".":
            raise StatementError(column, "'.' is the place of the statement and cannot be defined")
        if self._is_taken(name):
            raise StatementError(column, f"'{name}' is already defined")

    def define_label(self, name: str, column: int, place: Place) -> None:
        """Define a label; a number is the next of its kind."""
        if name.isdecimal():
            number = str(int(name)) if len(name) < 10 else name
            self._rounds[number] = self._rounds.get(number, 0) + 1
            name = f"{number}@{self._rounds[number]}"
        else:
            self._check_free(name, column)
        self.labels[name] = place

    def place_name(self, place: Place) -> str:
        """Name a position for the use of `.` in an expression."""
        name = f".@{place.section}@{place.fragment}"
        self.labels[name] = place
        return name

    def define_once(self, name: str, column: int, value: ex.Expression) -> None:
        """Define an `.equ` name."""
        self._check_free(name, column)
        if isinstance(value, ex.Number):
            self.numbers[name] = value.value
        else:
            self.deferred[name] = value

    def define_again(self, name: str, column: int, value: int) -> None:
        """Define or redefine a `.set` name."""
        if name not in self._changing:
            self._check_free(name, column)
            self._changing.add(name)
        self.numbers[name] = value

    def fail(self, name: str) -> None:
        """Remember a name whose definition was in error, so that its uses are not reported too."""
        if not self._is_taken(name):
            self._failed.add(name)

    def lookup(self, name: ex.Name, here: Place) -> ex.Expression:
        """Bind a name in a statement at `here`."""
        text = name.name
        self.asked.add(text)
        if text == ".":
            return ex.Name(self.place_name(here), name.column)
        if text[0].isdecimal():
            return ex.Name(self._numbered(text, name.column), name.column)
        if text in RESERVED or text in self.aliases:
            raise StatementError(name.column, f"register '{text}' cannot be part of an expression")
        if text in self.strings:
            raise StatementError(name.column, f"'{text}' is a string")
        if text in self.numbers:
            return ex.Number(self.numbers[text], name.column)
        # The definition of a failed name was reported; its uses would only repeat that.
        return ex.Number(0, name.column) if text in self._failed else name

    def _numbered(self, text: str, column: int) -> str:
        number = str(int(text[:-1])) if len(text) < 10 else text[:-1]
        count = self._rounds.get(number, 0)
        if text[-1] == "f":
            return f"{number}@{count + 1}"
        if count == 0:
            raise StatementError(column, f"no '{number}:' before this")
        return f"{number}@{count}"

    def late_number(self, name: str) -> int | None:
        """Give the number of an `.equ` that came after the use of its name."""
        if name in self._failed:
            return 0
        return None if name in self._changing else self.numbers.get(name)

    def undefined_message(self, name: str) -> str:
        """Say why a name has no value."""
        if "@" in name:
            return f"no '{name.partition('@')[0]}:' after this"
        if name in self._changing:
            return f"'{name}' is used before its '.set'"
        if self.aliases.is_known(name):
            return f"'{name}' names a register, but not here"
        return f"undefined symbol '{name}'"


class Resolver:
    """Values of bound names while the sections are laid out; `addresses` gives offsets of fragments."""

    def __init__(self, table: SymbolTable, addresses: Mapping[str, list[int]]) -> None:
        """Resolve against the offsets of every section's fragments, in bytes."""
        self._table = table
        self._addresses = addresses
        self._values: dict[str, ex.Value] = {}
        self._depth = 0

    def evaluate(self, expression: ex.Expression) -> ex.Value:
        """Compute a bound expression; raises `StatementError`."""
        return ex.evaluate(expression, self._resolve)

    def number(self, expression: ex.Expression, column: int) -> int:
        """Compute an expression that must not be an address."""
        value = self.evaluate(expression)
        if isinstance(value, ex.Address):
            raise StatementError(column, "an address is no number known to the assembler")
        return value

    def _resolve(self, name: ex.Name) -> ex.Value:
        text = name.name
        if text not in self._values:
            self._values[text] = self._value(name)
        return self._values[text]

    def _value(self, name: ex.Name) -> ex.Value:
        table, text = self._table, name.name
        if text in table.labels:
            place = table.labels[text]
            return ex.Address(text, place.section, self._addresses[place.section][place.fragment], 0)
        if text in table.deferred:
            return self._deferred(name)
        if text in table.externs:
            return ex.Address(text, None, 0, 0)
        number = table.late_number(text)
        if number is not None:
            return number
        raise StatementError(name.column, table.undefined_message(text))

    def _deferred(self, name: ex.Name) -> ex.Value:
        if self._depth == MAX_DEPTH:
            message = f"definitions nest deeper than {MAX_DEPTH}, or '{name.name}' depends on itself"
            raise StatementError(name.column, message)
        self._depth += 1
        try:
            return self.evaluate(self._table.deferred[name.name])
        except StatementError as error:
            raise StatementError(name.column, error.message) from error
        finally:
            self._depth -= 1
