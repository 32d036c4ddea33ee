"""Splits a line into its labels, the word that says what it is, and the operands."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mh_builder.asm.diagnostics import Line, StatementError
from mh_builder.asm.expression import Cursor
from mh_builder.asm.lexer import NAME, Token, tokenize

_LABEL = re.compile(rf"[ \t]*({NAME}|[0-9]+)[ \t]*:")
_HEAD = re.compile(rf"[ \t]*({NAME})(?=[ \t]|$|\[)")
_BLANK = re.compile(r"[ \t]*$")


@dataclass(frozen=True, slots=True)
class Label:
    """A label's name or number and its column."""

    name: str
    column: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement; `head` is empty on a line of labels, the operands are `line.text[operands:]`."""

    line: Line
    labels: tuple[Label, ...]
    head: str
    column: int
    operands: int

    def cursor(self) -> Cursor:
        """Read the operands as tokens."""
        return Cursor(self.tokens())

    def tokens(self) -> tuple[Token, ...]:
        """Cut the operands into tokens."""
        return tokenize(self.line.text, self.operands)


def split(line: Line) -> Statement:
    """Split a line; raises `StatementError` where it does not begin with a name."""
    labels: list[Label] = []
    index = 0
    while match := _LABEL.match(line.text, index):
        labels.append(Label(match[1], match.start(1) + 1))
        index = match.end()
    head = _HEAD.match(line.text, index)
    if head:
        return Statement(line, tuple(labels), head[1], head.start(1) + 1, head.end())
    if _BLANK.match(line.text, index):
        return Statement(line, tuple(labels), "", index + 1, len(line.text))
    column = len(line.text) - len(line.text[index:].lstrip()) + 1
    raise StatementError(column, "a statement starts with a label, a directive, an instruction or a macro's name")
