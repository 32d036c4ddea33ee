"""Macros and `.irp`: parameters, arguments and their substitution in text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mh_builder.asm.diagnostics import Line, StatementError
from mh_builder.asm.lexer import CHARACTER, STRING
from mh_builder.asm.source import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mh_builder.asm.statement import Statement

_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]*=(?!=)[ \t]*(.*)")
_DEFINITION = re.compile(r"[ \t]*(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:[ \t]*,|[ \t]+|$)(?P<rest>.*)")
_USE = re.compile(r"\\(?:(?P<pair>\\)|(?P<serial>@)|(?P<nothing>\(\))|(?P<name>[A-Za-z_][A-Za-z0-9_]*))")
_ARGUMENT_PIECE = re.compile(rf"{STRING}|{CHARACTER}|.")


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument's text without the blanks around it."""

    text: str
    column: int


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro's parameters, each with its default or None, and its body."""

    name: str
    parameters: tuple[tuple[str, str | None], ...]
    body: tuple[Line, ...]

    def bind(self, statement: Statement) -> dict[str, str]:
        """Give every parameter its text from a use of the macro."""
        bound: dict[str, str] = {}
        known = dict(self.parameters)
        free = iter(known)
        for argument in arguments(statement):
            keyword = _KEYWORD.fullmatch(argument.text)
            if keyword and keyword[1] in known:
                name, text = keyword[1], keyword[2]
            else:
                name, text = next(free, ""), argument.text
            if not name:
                raise StatementError(argument.column, f"macro '{self.name}' takes {len(known)} arguments")
            if name in bound:
                raise StatementError(argument.column, f"macro '{self.name}' already has an argument for '{name}'")
            bound[name] = text
        return {name: self._argument(statement, bound, name, default) for name, default in self.parameters}

    def expand(self, statement: Statement, serial: int) -> Iterator[Line]:
        """Give the lines that a use of the macro stands for; `serial` replaces `\\@`."""
        values = self.bind(statement)
        for line in expand(self.body, values, str(serial), statement.column):
            yield Line(line.file, line.number, line.text, statement.line, f"macro '{self.name}' used")

    def _argument(self, statement: Statement, bound: Mapping[str, str], name: str, default: str | None) -> str:
        given = bound.get(name, "")
        if given:
            return given
        if default is None:
            raise StatementError(statement.column, f"macro '{self.name}' needs an argument for '{name}'")
        return default


def parse_macro(statement: Statement, body: tuple[Line, ...]) -> Macro:
    """Read the parameters of `.macro NAME a, b=default`."""
    match = _DEFINITION.fullmatch(statement.line.text[statement.operands :])
    if match is None:
        raise StatementError(
            statement.operands + 1, "'.macro' needs a name, then its parameters with commas between them"
        )
    parameters: dict[str, str | None] = {}
    for piece in _split(match["rest"], statement.operands):
        keyword = _KEYWORD.fullmatch(piece.text)
        parameter = keyword[1] if keyword else piece.text
        if not _PARAMETER.fullmatch(parameter) or parameter in parameters:
            raise StatementError(statement.operands + 1, f"'{parameter}' is no name for a parameter of its own")
        parameters[parameter] = keyword[2] if keyword else None
    return Macro(match["name"], tuple(parameters.items()), body)


def arguments(statement: Statement) -> list[Argument]:
    """Split the operands at the commas that are in no brackets and no string."""
    return _split(statement.line.text[statement.operands :], statement.operands)


def expand(body: tuple[Line, ...], values: Mapping[str, str], serial: str | None, column: int) -> Iterator[Line]:
    """Substitute `\\name`, and `\\@` and `\\()` unless `serial` is None, in the lines of a body.

    A name without a value stays for an inner macro or loop; `column` is where to report a line that grows too long.
    """

    def substitute(match: re.Match[str]) -> str:
        if match["name"]:
            return values.get(match["name"], match.group())
        if match["pair"] or serial is None:
            return match.group()
        return serial if match["serial"] else ""

    for line in body:
        text = _USE.sub(substitute, line.text) if "\\" in line.text else line.text
        if len(text) > MAX_LINE:
            raise StatementError(column, f"a line of the expansion is longer than {MAX_LINE} characters")
        yield Line(line.file, line.number, text, line.origin, line.reason)


def _split(text: str, offset: int) -> list[Argument]:
    pieces = [""]
    starts = [offset]
    depth = 0
    for match in _ARGUMENT_PIECE.finditer(text):
        piece = match.group()
        depth += (piece in {"(", "["}) - (piece in {")", "]"})
        if piece == "," and depth == 0:
            pieces.append("")
            starts.append(offset + match.end())
        else:
            pieces[-1] += piece
    if pieces == [""] or (len(pieces) == 1 and not pieces[0].strip()):
        return []
    blanks = [len(piece) - len(piece.lstrip()) for piece in pieces]
    return [
        Argument(piece.strip(), start + blank + 1) for piece, start, blank in zip(pieces, starts, blanks, strict=True)
    ]
