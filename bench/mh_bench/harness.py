"""Times one contestant for a number of pages: in compiled C where there is a compiler, else through ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

PAGE_BYTES = 4096
PAGES = 32
AAD_BYTES = 64
TAG_BYTES = 16
MASK = math.pi
"""For the scratch of gcm_open."""

Step = Callable[[int], int]
_Buffers = list[ctypes.Array[ctypes.c_char]]


class Harness(Protocol):
    """A ring of pages and what works on it; a step gives 0 when it succeeded."""

    kind: str

    def set_image(self, key: int, seal: int, open_: int) -> None:
        """Take the helper's functions and the address of its page key."""

    def set_alone(self, function: int) -> None:
        """Take a function of limit.s for the step `alone`."""

    def seal_ring(self, name: str) -> None:
        """Make what is to be opened, with the step of that name; `RuntimeError` if it fails."""

    def check_open(self, name: str) -> None:
        """Have a step open what was sealed; `RuntimeError` if it does not find the plaintext."""

    def nanoseconds(self, name: str, count: int) -> float:
        """Give the time of a step for one page, over `count` pages; `RuntimeError` if one fails."""

    def open_peer(self, name: str, path: str) -> str:
        """Open a library; give its version, or nothing where it cannot be measured here."""


class Compiled:
    """harness.c, compiled for this run."""

    kind = "compiled"

    def __init__(self, compiler: str, key: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "harness.so"
            source = Path(__file__).with_name("harness.c")
            command = (compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl")
            subprocess.run(command, check=True, timeout=60)  # noqa: S603 - our own source
            self._library = ctypes.CDLL(str(library))
        self._library.time_steps.restype = ctypes.c_uint64
        self._library.set_key(key)

    def set_image(self, key: int, seal: int, open_: int) -> None:
        """See `Harness`."""
        self._library.set_image(*map(ctypes.c_void_p, (key, seal, open_)))

    def set_alone(self, function: int) -> None:
        """See `Harness`."""
        self._library.set_alone(ctypes.c_void_p(function))

    def seal_ring(self, name: str) -> None:
        """See `Harness`."""
        if self._library.seal_ring(self._step(name)):
            raise RuntimeError(f"{name} failed")

    def check_open(self, name: str) -> None:
        """See `Harness`."""
        if self._library.check_open(self._step(name)):
            raise RuntimeError(f"{name} does not open what another sealed")

    def nanoseconds(self, name: str, count: int) -> float:
        """See `Harness`."""
        elapsed = self._library.time_steps(self._step(name), count)
        if not elapsed:
            raise RuntimeError(f"{name} failed")
        return int(elapsed) / count

    def open_peer(self, name: str, path: str) -> str:
        """See `Harness`."""
        opener = self._library[f"open_{name}"]
        opener.restype = ctypes.c_char_p
        version = opener(path.encode())
        return version.decode() if version else ""

    def _step(self, name: str) -> ctypes.c_void_p:
        return ctypes.cast(self._library[f"step_{name}"], ctypes.c_void_p)


class Interpreted:
    """The same ring in Python: each page costs a call through ctypes, and libraries are not measured."""

    kind = "ctypes"

    def __init__(self) -> None:
        def pages(size: int) -> _Buffers:
            return [ctypes.create_string_buffer(size) for _ in range(PAGES)]

        self._plain, self._sealed, self._output = pages(PAGE_BYTES), pages(PAGE_BYTES), pages(PAGE_BYTES)
        self._aad, self._iv, self._tag, self._made = pages(AAD_BYTES), pages(16), pages(TAG_BYTES), pages(TAG_BYTES)
        self._sealed_iv = pages(16)
        self._scratch = ctypes.create_string_buffer(PAGE_BYTES)
        self._fresh = 0
        self._steps: dict[str, Step] = {}

    def set_image(self, key: int, seal: int, open_: int) -> None:
        """See `Harness`."""
        # gcm_open takes its mask from xmm0, where a double as the first such argument lies.
        sealer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        opener = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_double)

        def jobs(iv: _Buffers, source: _Buffers, tag: _Buffers) -> list[ctypes.Array[ctypes.c_uint64]]:
            at = ctypes.addressof
            return [
                (ctypes.c_uint64 * 8)(
                    at(iv[n]),
                    at(self._aad[n]),
                    AAD_BYTES,
                    at(source[n]),
                    at(self._output[n]),
                    PAGE_BYTES,
                    at(tag[n]),
                    at(self._scratch),
                )
                for n in range(PAGES)
            ]

        sealing = jobs(self._iv, self._plain, self._made)
        opening = jobs(self._sealed_iv, self._sealed, self._tag)
        run_seal, run_open = sealer(seal), opener(open_)

        def seal_page(page: int) -> int:
            self._fresh += 1
            self._iv[page].raw = bytes(4) + self._fresh.to_bytes(8, "little")
            return int(run_seal(key, ctypes.byref(sealing[page])))

        self._key = key
        self._steps["image_seal"] = seal_page
        self._steps["image_open"] = lambda page: int(run_open(key, ctypes.byref(opening[page]), MASK))

    def set_alone(self, function: int) -> None:
        """See `Harness`."""
        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(function)

        def step(page: int) -> int:
            run(self._key, ctypes.addressof(self._plain[page]), ctypes.addressof(self._output[page]))
            return 0

        self._steps["alone"] = step

    def seal_ring(self, name: str) -> None:
        """See `Harness`."""
        if any(self._steps[name](page) for page in range(PAGES)):
            raise RuntimeError(f"{name} failed")
        for page in range(PAGES):
            self._sealed_iv[page].raw = self._iv[page].raw
            self._sealed[page].raw, self._tag[page].raw = self._output[page].raw, self._made[page].raw

    def check_open(self, name: str) -> None:
        """See `Harness`."""
        for page in range(PAGES):
            if self._steps[name](page) or self._output[page].raw != self._plain[page].raw:
                raise RuntimeError(f"{name} does not open what another sealed")

    def nanoseconds(self, name: str, count: int) -> float:
        """See `Harness`."""
        work, bad, began = self._steps[name], 0, time.perf_counter_ns()
        for number in range(count):
            bad |= work(number % PAGES)
        elapsed = time.perf_counter_ns() - began
        if bad:
            raise RuntimeError(f"{name} failed")
        return elapsed / count

    def open_peer(self, name: str, path: str) -> str:  # noqa: ARG002 - see Harness
        """See `Harness`."""
        return ""


def make(key: bytes) -> Harness:
    """The compiled harness where that works, else the other."""
    compiler = shutil.which("cc")
    if compiler:
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            return Compiled(compiler, key)
    return Interpreted()
