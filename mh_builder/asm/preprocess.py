"""Includes, macros, loops and conditions: turns source files into a stream of plain statements.

The stream is lazy, so that a condition sees the symbols that the statements before it defined.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

from mh_builder.asm import macros
from mh_builder.asm.diagnostics import Line, Reporter, StatementError
from mh_builder.asm.lexer import NAME
from mh_builder.asm.prelude import Prelude
from mh_builder.asm.source import Source, load
from mh_builder.asm.statement import Statement, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mh_builder.asm.expression import Cursor

MAX_DEPTH = 64
MAX_LINES = 1_000_000

_WORD = re.compile(rf"[ \t]*(?:(?:{NAME}|[0-9]+)[ \t]*:[ \t]*)*({NAME})")
_CONDITIONS = frozenset({".if", ".ifdef", ".ifndef"})
_BLOCKS = {".rept": (".endr", frozenset({".rept", ".irp"})), ".macro": (".endm", frozenset({".macro"}))}
_BLOCKS[".irp"] = _BLOCKS[".rept"]


class Environment(Protocol):
    """What conditions ask about symbols."""

    def constant(self, cursor: Cursor) -> int:
        """Read an expression that must be a number by now."""

    def is_defined(self, name: str) -> bool:
        """Tell whether a name has been defined so far."""


class TooMuchError(Exception):
    """The source expands without end; it has been reported."""


@dataclass(slots=True)
class _Condition:
    statement: Statement
    enclosing: bool
    active: bool
    settled: bool
    has_else: bool = False


@dataclass(slots=True)
class _Frame:
    """Lines being read and the statement that made them appear; `.exitm` leaves those of a macro."""

    lines: Iterator[Line]
    opening: Statement | None
    conditions: int
    directory: Path | None
    is_macro: bool


class Preprocessor:
    """Reads one root source and everything it includes and expands."""

    def __init__(self, environment: Environment, reporter: Reporter, prelude: Prelude) -> None:
        """Begin with the macros of a prelude."""
        self.macros = dict(prelude.macros)
        self.serial = prelude.serial
        self.included: list[tuple[Path, bytes]] = []
        self._environment = environment
        self._reporter = reporter
        self._frames: list[_Frame] = []
        self._conditions: list[_Condition] = []
        self._lines_left = MAX_LINES

    def statements(self, source: Source) -> Iterator[Statement]:
        """Yield labels, directives and instructions; errors go to the reporter."""
        self._frames.append(_Frame(iter(source.lines), None, 0, source.directory, is_macro=False))
        while self._frames:
            try:
                line = self._next_line()
                if line is not None:
                    yield from self._read(line)
            except TooMuchError:
                return

    def _next_line(self) -> Line | None:
        line = self._advance(self._frames[-1])
        if line is None:
            frame = self._frames.pop()
            self._close_conditions(frame.conditions)
            return None
        self._charge(line)
        return line

    def _advance(self, frame: _Frame) -> Line | None:
        try:
            return next(frame.lines, None)
        except StatementError as error:
            # Expansions are lazy: what is wrong with one shows when its lines are read.
            if frame.opening is None:
                raise
            self._reporter.error(frame.opening.line, error.column, error.message)
            return None

    def _charge(self, line: Line) -> None:
        self._lines_left -= 1
        if self._lines_left < 0:
            self._reporter.error(line, 1, f"the source expands to more than {MAX_LINES} lines")
            raise TooMuchError

    def _close_conditions(self, depth: int) -> None:
        for condition in self._conditions[depth:]:
            opening = condition.statement
            self._reporter.error(opening.line, opening.column, f"'{opening.head}' without '.endif'")
        del self._conditions[depth:]

    def _read(self, line: Line) -> Iterator[Statement]:
        try:
            if self._conditions and not self._conditions[-1].active:
                self._skip(line)
                return
            statement = split(line)
            if self._is_ours(statement.head):
                if statement.labels:
                    yield Statement(line, statement.labels, "", statement.column, len(line.text))
                self._perform(statement)
            else:
                yield statement
        except StatementError as error:
            self._reporter.error(line, error.column, error.message)

    def _is_ours(self, head: str) -> bool:
        return head in self.macros or head in _CONDITIONS or head in _BLOCKS or head in _OTHERS

    def _skip(self, line: Line) -> None:
        match = _WORD.match(line.text)
        if match and match[1] in _CONDITIONS | _ALTERNATIVES:
            self._perform(split(line))

    def _perform(self, statement: Statement) -> None:
        match statement.head:
            case head if head in _CONDITIONS:
                self._open_condition(statement)
            case head if head in _ALTERNATIVES:
                self._alternative(statement)
            case head if head in _BLOCKS:
                self._block(statement)
            case ".include":
                self._include(statement)
            case ".exitm":
                self._exit_macro(statement)
            case ".error":
                self._error(statement)
            case ".endm" | ".endr":
                raise StatementError(statement.column, f"'{statement.head}' without its beginning")
            case name:
                macro = self.macros[name]
                self.serial += 1
                self._enter(macro.expand(statement, self.serial), statement, is_macro=True)

    # ---- conditions ----

    def _open_condition(self, statement: Statement) -> None:
        enclosing = not self._conditions or self._conditions[-1].active
        # Open first: an expression in error must not leave its `.endif` without a beginning.
        condition = _Condition(statement, enclosing, active=False, settled=True)
        self._conditions.append(condition)
        if enclosing:
            condition.active = condition.settled = self._holds(statement)

    def _holds(self, statement: Statement) -> bool:
        cursor = statement.cursor()
        if statement.head in {".if", ".elseif"}:
            value = self._environment.constant(cursor)
            cursor.expect_end()
            return value != 0
        name = cursor.take()
        if name.kind != "name":
            raise StatementError(name.column, f"'{statement.head}' takes one name")
        cursor.expect_end()
        return self._environment.is_defined(name.text) == (statement.head == ".ifdef")

    def _alternative(self, statement: Statement) -> None:
        depth = self._frames[-1].conditions
        if len(self._conditions) <= depth:
            raise StatementError(statement.column, f"'{statement.head}' without '.if'")
        condition = self._conditions[-1]
        if statement.head == ".endif":
            self._conditions.pop()
            statement.cursor().expect_end()
            return
        if condition.has_else:
            raise StatementError(statement.column, f"'{statement.head}' after '.else'")
        condition.has_else = statement.head == ".else"
        open_now = condition.enclosing and not condition.settled
        condition.active = False
        if open_now and statement.head == ".elseif":
            condition.settled = True
            condition.active = condition.settled = self._holds(statement)
        elif open_now:
            condition.active = condition.settled = True

    # ---- blocks ----

    def _block(self, statement: Statement) -> None:
        body = self._body(statement)
        if body is None:
            return
        if statement.head == ".macro":
            self._define(macros.parse_macro(statement, body), statement)
        elif statement.head == ".rept":
            cursor = statement.cursor()
            count = self._environment.constant(cursor)
            cursor.expect_end()
            if not 0 <= count <= MAX_LINES:
                raise StatementError(statement.operands + 1, f"'.rept' takes a count from 0 to {MAX_LINES}")
            self._enter(self._repeat(statement, body, count), statement, is_macro=False)
        else:
            self._enter(self._each(statement, body), statement, is_macro=False)

    def _body(self, statement: Statement) -> tuple[Line, ...] | None:
        closing, nesting = _BLOCKS[statement.head]
        body: list[Line] = []
        depth = 1
        for line in self._frames[-1].lines:
            self._charge(line)
            match = _WORD.match(line.text)
            word = match[1] if match else ""
            depth += (word in nesting) - (word == closing)
            if depth == 0:
                return tuple(body)
            body.append(line)
        self._reporter.error(statement.line, statement.column, f"'{statement.head}' without '{closing}'")
        return None

    def _define(self, macro: macros.Macro, statement: Statement) -> None:
        if macro.name in self.macros:
            raise StatementError(statement.operands + 1, f"macro '{macro.name}' is already defined")
        self.macros[macro.name] = macro

    def _repeat(self, statement: Statement, body: tuple[Line, ...], count: int) -> Iterator[Line]:
        for _ in range(count):
            self._charge(statement.line)
            yield from body

    def _each(self, statement: Statement, body: tuple[Line, ...]) -> Iterator[Line]:
        name, *values = macros.arguments(statement) or [macros.Argument("", statement.column)]
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.text):
            raise StatementError(name.column, "'.irp' takes a name, then the values")
        for value in values:
            yield from macros.expand(body, {name.text: value.text}, None, statement.column)

    def _enter(self, lines: Iterable[Line], statement: Statement, *, is_macro: bool) -> None:
        if len(self._frames) >= MAX_DEPTH:
            raise StatementError(statement.column, f"'{statement.head}' nests deeper than {MAX_DEPTH}")
        directory = self._frames[-1].directory
        self._frames.append(_Frame(iter(lines), statement, len(self._conditions), directory, is_macro=is_macro))

    def _exit_macro(self, statement: Statement) -> None:
        statement.cursor().expect_end()
        if not any(frame.is_macro for frame in self._frames):
            raise StatementError(statement.column, "'.exitm' outside a macro")
        frame = self._frames.pop()
        while not frame.is_macro:
            frame = self._frames.pop()
        del self._conditions[frame.conditions :]

    # ---- the rest ----

    def _include(self, statement: Statement) -> None:
        name = _string(statement)
        directory = self._frames[-1].directory
        if directory is None:
            raise StatementError(statement.column, "'.include' needs a directory to look in")
        if len(self._frames) >= MAX_DEPTH:
            raise StatementError(statement.column, f"'.include' nests deeper than {MAX_DEPTH}")
        path = directory / name
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a file name"
            raise StatementError(statement.operands + 1, f"cannot include '{name}': {reason}") from error
        self.included.append((path, data))
        shown = posixpath.normpath(PurePosixPath(statement.line.file).parent / name)
        source = load(data.decode("latin-1"), shown, path.parent, self._reporter, statement.line)
        self._frames.append(_Frame(iter(source.lines), statement, len(self._conditions), path.parent, is_macro=False))

    def _error(self, statement: Statement) -> None:
        raise StatementError(statement.column, _string(statement))


_ALTERNATIVES = frozenset({".elseif", ".else", ".endif"})
_OTHERS = _ALTERNATIVES | {".include", ".exitm", ".error", ".endm", ".endr"}


def _string(statement: Statement) -> str:
    cursor = statement.cursor()
    token = cursor.take()
    if token.kind != "string":
        raise StatementError(token.column, f"'{statement.head}' takes a string")
    cursor.expect_end()
    return token.text[1:-1]
