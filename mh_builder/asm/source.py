"""Reads source text and takes the comments out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mh_builder.asm.diagnostics import Line, Reporter
from mh_builder.asm.lexer import CHARACTER, STRING

if TYPE_CHECKING:
    from pathlib import Path

MAX_LINE = 4096
_COMMENT = re.compile(rf"{STRING}|{CHARACTER}|(?P<comment>/\*.*?\*/|(?:#|//)[^\n]*)|(?P<open>/\*)", re.DOTALL)
_FOREIGN = re.compile(r"[^\t\n\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Source:
    """The lines of a file and the directory its `.include` statements refer to."""

    name: str
    lines: tuple[Line, ...]
    directory: Path | None


def load(text: str, name: str, directory: Path | None, reporter: Reporter, origin: Line | None = None) -> Source:
    """Cut text into lines without comments; columns stay what they were."""
    text = text.replace("\r\n", "\n")
    for match in _FOREIGN.finditer(text):
        line, column = _position(text, match.start(), name, origin)
        reporter.error(line, column, f"character {match.group()!r} is neither printable ASCII nor a tab")
        break
    bare = _without_comments(text, name, origin, reporter)
    reason = "included" if origin else ""
    lines = tuple(Line(name, number, row, origin, reason) for number, row in enumerate(bare.split("\n"), 1))
    for line in lines:
        if len(line.text) > MAX_LINE:
            reporter.error(line, MAX_LINE, f"line is longer than {MAX_LINE} characters")
            return Source(name, (), directory)
    return Source(name, lines, directory)


def _without_comments(text: str, name: str, origin: Line | None, reporter: Reporter) -> str:
    pieces: list[str] = []
    index = 0
    for match in _COMMENT.finditer(text):
        pieces.append(text[index : match.start()])
        index = match.end()
        if match["open"]:
            line, column = _position(text, match.start(), name, origin)
            reporter.error(line, column, "comment is never closed")
            return "".join(pieces)
        if match["comment"]:
            pieces.append(re.sub(r"[^\n]", " ", match.group()))
        else:
            pieces.append(match.group())
    return "".join(pieces) + text[index:]


def _position(text: str, index: int, name: str, origin: Line | None) -> tuple[Line, int]:
    begin = text.rfind("\n", 0, index) + 1
    end = text.find("\n", index)
    shown = text[begin : end if end >= 0 else len(text)]
    reason = "included" if origin else ""
    clean = _FOREIGN.sub("?", shown)
    return Line(name, text.count("\n", 0, index) + 1, clean[:MAX_LINE], origin, reason), index - begin + 1
