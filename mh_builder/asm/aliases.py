"""The names that `.reg` gives to registers.

A name is written in capitals, so it is never an instruction, a register or a word of an operand. It stands for a
register of one width: another view of the same register has another name. Names are replaced before an instruction is
parsed, so that neither the parser nor the encoder knows of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.registers import BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mh_builder.asm.diagnostics import Line
    from mh_builder.asm.lexer import Token

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(slots=True)
class _Alias:
    register: str
    line: Line
    column: int
    used: bool = False


class Aliases:
    """The aliases of one file, those of its includes among them."""

    def __init__(self) -> None:
        """Begin without any."""
        self._alive: dict[str, _Alias] = {}
        self._ended: list[tuple[str, _Alias]] = []

    def __bool__(self) -> bool:
        """Tell whether there has been any."""
        return bool(self._alive or self._ended)

    def __contains__(self, name: str) -> bool:
        """Tell whether a name is an alias here."""
        return name in self._alive

    def is_known(self, name: str) -> bool:
        """Tell whether a name is an alias anywhere in the file."""
        return name in self._alive or any(name == ended for ended, _ in self._ended)

    def define(self, name: Token, register: Token, line: Line) -> None:
        """Give a register a name; raises `StatementError`."""
        if name.kind != "name" or not _NAME.fullmatch(name.text):
            raise StatementError(name.column, f"'{name.text[:40]}' is no name of a register: write it in capitals")
        if name.text in self._alive:
            raise StatementError(name.column, f"'{name.text}' already names '{self._alive[name.text].register}'")
        if register.text not in BITS:
            raise StatementError(register.column, f"expected a register, found '{register.text}'")
        self._alive[name.text] = _Alias(register.text, line, name.column)

    def end(self, name: Token) -> None:
        """Take the name from its register; raises `StatementError`."""
        if name.text not in self._alive:
            raise StatementError(name.column, f"'{name.text}' names no register")
        self._ended.append((name.text, self._alive.pop(name.text)))

    def replaced(self, tokens: Iterable[Token]) -> list[Token]:
        """Put registers in the places of their names; columns stay."""
        return [self._replaced(token) for token in tokens]

    def _replaced(self, token: Token) -> Token:
        alias = self._alive.get(token.text) if token.kind == "name" else None
        if alias is None:
            return token
        alias.used = True
        return token._replace(text=alias.register)

    def unused(self) -> Iterator[tuple[str, Line, int]]:
        """Give name, line and column of those that the file itself defines and no instruction uses."""
        for name, alias in (*self._ended, *self._alive.items()):
            if not alias.used and alias.line.origin is None:
                yield name, alias.line, alias.column
