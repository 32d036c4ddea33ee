"""Times one contestant for a number of pages, in compiled C."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

from mh_abi.errors import MigrationHelperError
from mh_builder.needs import by_name, trouble

PAGE_BYTES = 4096
PAGES = 32
AAD_BYTES = 64
TAG_BYTES = 16
PEERS = 8
"""Libraries of one kind."""


class NoCompilerError(MigrationHelperError):
    """Nothing here compiles a line of C."""


class PeerError(MigrationHelperError):
    """A library that cannot be measured."""


class Harness:
    """A ring of pages and what works on it: harness.c, compiled for this run. A step gives 0 when it succeeded."""

    def __init__(self, compiler: str, key: bytes) -> None:
        version = subprocess.run((compiler, "--version"), capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
        self.compiler = version.stdout.splitlines()[0]
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "harness.so"
            source = Path(__file__).with_name("harness.c")
            command = (compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl")
            subprocess.run(command, check=True, timeout=60)  # noqa: S603 - our own source
            self._library = ctypes.CDLL(str(library))
        self._library.time_steps.restype = ctypes.c_uint64
        self._library.set_key(key)

    def set_image(self, key: int, seal: int, open_: int) -> None:
        """Take the helper's functions and the address of its page key."""
        self._library.set_image(*map(ctypes.c_void_p, (key, seal, open_)))

    def set_alone(self, function: int) -> None:
        """Take a function of limit.s for the step `alone`."""
        self._library.set_alone(ctypes.c_void_p(function))

    def seal_ring(self, name: str) -> None:
        """Make what is to be opened, with the step of that name; `RuntimeError` if it fails."""
        if self._library.seal_ring(self._step(name)):
            raise RuntimeError(f"{name} failed")

    def check_open(self, name: str) -> None:
        """Have a step open what was sealed; `RuntimeError` if it does not find the plaintext."""
        if self._library.check_open(self._step(name)):
            raise RuntimeError(f"{name} does not open what another sealed")

    def nanoseconds(self, name: str, count: int) -> float:
        """Give the time of a step for one packet, over `count` of them; `RuntimeError` if one fails."""
        elapsed = self._library.time_steps(self._step(name), count)
        if not elapsed:
            raise RuntimeError(f"{name} failed")
        return int(elapsed) / count

    def set_size(self, size: int) -> None:
        """Bytes of a packet, up to a page."""
        self._library.set_size(ctypes.c_size_t(size))

    def choose_peer(self, number: int) -> None:
        """Have the library of that number, up to `PEERS` of a kind, do the steps of its kind."""
        self._library.choose_peer(ctypes.c_uint(number))

    def open_peer(self, kind: str, path: str) -> str:
        """Open a library as the chosen one; give its version. Raises `PeerError` where it cannot be measured here."""
        opener = self._library[f"open_{kind}"]
        opener.restype = ctypes.c_char_p
        self._library.trouble.restype = ctypes.c_char_p
        version = opener(path.encode())
        if not version:
            raise PeerError(self._library.trouble().decode())
        return str(version.decode())

    def _step(self, name: str) -> ctypes.c_void_p:
        return ctypes.cast(self._library[f"step_{name}"], ctypes.c_void_p)


def make(key: bytes) -> Harness:
    """The compiled harness. Raises `NoCompilerError`."""
    why = trouble(by_name("cc"))
    if why:
        raise NoCompilerError(f"cc {why}; the kernels cannot be timed without a C compiler")
    return Harness(str(shutil.which("cc")), key)
