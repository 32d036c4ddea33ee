"""What the first process of a guest does: `init.s`, and what it has to print."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from mh_builder.asm import assemble
from mh_builder.paging import PAGE_BYTES

STEPS = 12
PAGES = 256
"""Of memory, each of which a step changes."""
SEED = 0x0123_4567_89AB_CDEF
MULTIPLIER = 0x9E37_79B9_7F4A_7C15
DONE = "done"
PAUSE_NS = 20_000_000
"""Between two steps."""

_TEXT, _DATA = 0x40_0000, 0x60_0000
_BUFFER = _DATA
_INPUT = _BUFFER + PAGES * PAGE_BYTES
_LINE = _INPUT + PAGE_BYTES
_DATA_BYTES = _LINE + PAGE_BYTES - _DATA
_MASK = (1 << 64) - 1

_TIME = re.compile(r"\[ *\d+\.\d{6}\] ")

_ELF_HEADER, _PROGRAM_HEADER = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_IDENTITY = b"\x7fELF\x02\x01\x01"
_EXECUTABLE, _X86_64, _LOAD = 2, 62, 1
_READ_EXECUTE, _READ_WRITE = 5, 6


@cache
def program() -> bytes:
    """`init.s` as a static ELF file: its text, and memory of zeros (System V gABI, chapter 5)."""
    sections = {
        section.name: section for section in assemble(Path(__file__).with_name("init.s"), symbols=_symbols()).sections
    }
    code = bytes(sections[".text"].data)
    headers = _ELF_HEADER.size + 2 * _PROGRAM_HEADER.size
    size = headers + len(code)
    header = _ELF_HEADER.pack(
        _IDENTITY, _EXECUTABLE, _X86_64, 1, _TEXT + headers, _ELF_HEADER.size, 0, 0,
        _ELF_HEADER.size, _PROGRAM_HEADER.size, 2, 0, 0, 0,
    )  # fmt: skip
    text = _PROGRAM_HEADER.pack(_LOAD, _READ_EXECUTE, 0, _TEXT, _TEXT, size, size, PAGE_BYTES)
    data = _PROGRAM_HEADER.pack(_LOAD, _READ_WRITE, 0, _DATA, _DATA, 0, _DATA_BYTES, PAGE_BYTES)
    return header + text + data + code


def lines() -> list[str]:
    """What it prints, from an independent computation."""
    return [*(f"step {step:02} {digest:016x}" for step, digest in enumerate(_digests())), DONE]


class Listener:
    """Hears a console line by line; messages of the kernel may stand in the middle of a line that is `expected`."""

    def __init__(self, expected: Sequence[str]) -> None:
        self._expected = expected
        self._begun = ""

    def hear(self, line: str) -> str:
        """What it says: a message without its time, or a line of somebody else's, put together."""
        message = _TIME.search(line)
        if message is None:
            begun, self._begun = self._begun, ""
            return begun + line
        begun = self._begun + line[: message.start()]
        # What firmware printed before the first message, without an end, is not continued.
        self._begun = begun if any(known.startswith(begun) for known in self._expected) else ""
        return line[message.end() :]


def _symbols() -> dict[str, int]:
    return {
        "work.seed": SEED,
        "work.multiplier": MULTIPLIER,
        "work.pages": PAGES,
        "work.steps": STEPS,
        "work.pause_ns": PAUSE_NS,
        "work.buffer": _BUFFER,
        "work.input": _INPUT,
        "work.line": _LINE,
    }


def _digests() -> Iterator[int]:
    memory, file, digest = bytearray(PAGES * PAGE_BYTES), bytearray(), SEED
    for step in range(STEPS):
        for page in range(PAGES):
            place = page * PAGE_BYTES + (digest >> 40 & 0xFF8)
            digest = _mix(digest, int.from_bytes(memory[place : place + 8], "little"))
            memory[place : place + 8] = digest.to_bytes(8, "little")
        written = step % PAGES * PAGE_BYTES
        file += memory[written : written + PAGE_BYTES]
        read = step // 2 * PAGE_BYTES
        for (word,) in struct.iter_unpack("<Q", file[read : read + PAGE_BYTES]):
            digest = _mix(digest, word)
        yield digest


def _mix(digest: int, word: int) -> int:
    return (((digest << 13 | digest >> 51) & _MASK) ^ word) * MULTIPLIER & _MASK
