"""The driver's portable parts as a process of this machine: see native/harness.c."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from mh_abi import abi
from ovmf_patches import DRIVER

NATIVE = Path(__file__).parent / "native"
PARTS = ("Image.c", "PageTable.c", "Sha256.c")
TABLES = 0x1000_0000
"""Where page tables lie in the process."""

SPARE_TABLES = 2
"""As many as a 1 GiB page needs."""

_FLAGS = (
    "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip
_REQUEST = struct.Struct("<cQQQQQ")


def compile_driver(compiler: str, program: Path) -> None:
    """Compile the parts and the harness with sanitizers. Raises `subprocess.CalledProcessError`."""
    includes = [f"-I{folder}" for folder in (NATIVE, DRIVER, abi.HEADER.parent)]
    sources = [str(NATIVE / "harness.c"), *(str(DRIVER / part) for part in PARTS)]
    subprocess.run([compiler, *_FLAGS, *includes, "-o", str(program), *sources], check=True)


class NativeDriver:
    """One process; what a sanitizer finds ends it, and the next answer is missing."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0

    def sha256(self, data: bytes) -> bytes:
        """The digest."""
        return self._ask(b"d", (), data, 32)

    def mirror_base(self, image: bytes, c_bit: int) -> int | None:
        """The mirror GPA of a sound image, None for another."""
        sound, base = struct.unpack("<QQ", self._ask(b"c", (c_bit,), image, 16))
        return base if sound else None

    def relocated(self, image: bytes, delta: int, c_mask: int) -> bytes:
        """A sound image, relocated."""
        return self._ask(b"r", (delta % (1 << 64), c_mask), image, len(image))

    def is_private(self, tables: bytes, levels: int, c_mask: int, address: int, size: int) -> bool:
        """Whether `size` bytes are mapped private by tables that lie at `TABLES`."""
        answer = self._ask(b"p", (levels, c_mask, address, size), tables, 8)
        return bool(struct.unpack("<Q", answer)[0])

    def share(self, tables: bytes, levels: int, c_mask: int, address: int) -> tuple[int, bytes]:
        """The level of the page that is shared now, and the tables, which lie at `TABLES`, the spare ones behind them.

        Level 0 is none: the address was not mapped, or not by private tables.
        """
        data = tables + bytes(SPARE_TABLES * abi.MH_PAGE_BYTES)
        answer = self._ask(b"s", (levels, c_mask, address), data, 8 + len(data))
        return int(struct.unpack_from("<Q", answer)[0]), answer[8:]

    def _ask(self, letter: bytes, numbers: tuple[int, ...], data: bytes, answer_bytes: int) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(_REQUEST.pack(letter, *numbers, *[0] * (4 - len(numbers)), len(data)) + data)
        self._process.stdin.flush()
        answer = self._process.stdout.read(answer_bytes)
        assert len(answer) == answer_bytes, "the process has ended"
        return answer
