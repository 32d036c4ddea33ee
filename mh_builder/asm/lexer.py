"""Cuts the operands of a statement into tokens."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from mh_builder.asm.diagnostics import StatementError

MAX_NUMBER = (1 << 64) - 1

NAME = r"[A-Za-z_.][A-Za-z0-9_.]*"
STRING = r'"(?:[^"\\\n]|\\[^\n])*"'
CHARACTER = r"'(?:[^'\\\n]|\\[^x\n]|\\x[0-9A-Fa-f]{2})'"

_TOKEN = re.compile(
    rf"[ \t]*(?:(?P<name>{NAME})|(?P<word>[0-9][A-Za-z0-9_.]*)|(?P<string>{STRING})|(?P<character>{CHARACTER})"
    r"|(?P<op><<|>>|<=|>=|==|!=|&&|\|\||[-+*/%~!<>&^|()\[\],:=]))"
)
_LOCAL = re.compile(r"[0-9]+[bf]")
_NUMBERS = (
    (re.compile(r"0x([0-9A-Fa-f]+)"), 16),
    (re.compile(r"0b([01]+)"), 2),
    (re.compile(r"0o([0-7]+)"), 8),
    (re.compile(r"(0|[1-9][0-9]*)"), 10),
)
_ESCAPE = re.compile(r"\\(?:x(?P<hex>[0-9A-Fa-f]{2})|(?P<plain>.))")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'"}


class Token(NamedTuple):
    """A token; `kind` is name, local (`1b`), number, string, op or end. Columns count from 1."""

    kind: str
    text: str
    column: int
    value: int = 0


@lru_cache(maxsize=4096)
def tokenize(text: str, start: int) -> tuple[Token, ...]:
    """Cut `text` from index `start` into tokens and a final end token; what is included often is cut once."""
    tokens: list[Token] = []
    index, end = start, len(text.rstrip(" \t"))
    while index < end:
        match = _TOKEN.match(text, index)
        if match is None:
            wrong = len(text) - len(text[index:].lstrip(" \t"))
            raise StatementError(wrong + 1, _complaint(text[wrong]))
        tokens.append(_token(match))
        index = match.end()
    tokens.append(Token("end", "end of line", len(text.rstrip()) + 1))
    return tuple(tokens)


def unescape(body: str, column: int) -> str:
    """Replace the escapes of a string's body; every character of the result stands for one byte."""

    def replace(match: re.Match[str]) -> str:
        if match["hex"]:
            return chr(int(match["hex"], 16))
        if match["plain"] not in _ESCAPES:
            raise StatementError(column + match.start() + 1, f"unknown escape '\\{match['plain']}'")
        return _ESCAPES[match["plain"]]

    return _ESCAPE.sub(replace, body)


def _complaint(character: str) -> str:
    match character:
        case '"':
            return "unterminated string"
        case "'":
            return "a character constant is one character between single quotes"
        case "\\":
            return "'\\' outside a string: not a parameter of this macro"
        case _:
            return f"unexpected character {character!r}"


def _token(match: re.Match[str]) -> Token:
    kind = match.lastgroup or ""
    text, column = match[kind], match.start(kind) + 1
    if kind == "word":
        return _word(text, column)
    if kind == "character":
        return Token("number", text, column, ord(unescape(text[1:-1], column)))
    return Token(kind, text, column)


def _word(text: str, column: int) -> Token:
    for pattern, base in _NUMBERS:
        match = pattern.fullmatch(text)
        if match:
            return Token("number", text, column, _number(match[1], base, column))
    if _LOCAL.fullmatch(text):
        return Token("local", text, column)
    if text.isdecimal():
        raise StatementError(column, f"a leading zero is ambiguous; write 0o{text.lstrip('0')} or {text.lstrip('0')}")
    raise StatementError(column, f"malformed number '{text[:40]}'")


def _number(digits: str, base: int, column: int) -> int:
    value = int(digits, base) if len(digits) <= 64 else MAX_NUMBER + 1
    if value > MAX_NUMBER:
        raise StatementError(column, "number does not fit in 64 bits")
    return value
