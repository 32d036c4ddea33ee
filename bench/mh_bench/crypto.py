"""Speed of sealing and opening pages: the linked helper's kernels, other implementations, and the limit.

A page is 4 KiB with 64 bytes of AAD. All contestants take turns, a batch of pages each, round after round; figures are
medians over the rounds, ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import ctypes.util
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mh_bench import harness, native
from mh_builder.helper import build_helper
from mh_builder.schemes.space import Options

ROUNDS = 41
BATCH = 768
"""Pages for one contestant in one round."""
KEY = bytes(range(32))
DIRECTIONS = {"export": "seal", "import": "open"}
PEERS = {"openssl": "crypto", "libgcrypt": "gcrypt"}
"""Peers in the harness, by the names of their libraries."""
PYTHON_PEER = "cryptography"


class Kernel(NamedTuple):
    """One kernel in one direction; a ratio above 1 means that it is faster, None that the other is not here."""

    kernel: str
    direction: str
    gbps: float
    cycles_per_byte: float
    ratio_openssl: float | None
    ratio_libgcrypt: float | None
    ratio_cryptography: float | None
    ratio_limit: float


class Peer(NamedTuple):
    """An implementation to compare with; without a speed where `note` says why."""

    name: str
    version: str
    direction: str
    gbps: float | None
    note: str


class Limit(NamedTuple):
    """AES alone, GHASH alone, and one after the other."""

    kernel: str
    aes_gbps: float
    ghash_gbps: float
    gbps: float


class Report(NamedTuple):
    """All of one run. `clock_ghz` is that of the core, by a chain of additions."""

    harness: str
    """The compiler of the loop that times."""
    clock_ghz: float
    kernels: list[Kernel]
    limits: list[Limit]
    peers: list[Peer]
    absent: list[str]


class _Run:
    """Contestants by name, and the nanoseconds for a page of each in every round."""

    def __init__(self) -> None:
        self._contestants: dict[str, Callable[[], float]] = {}
        self.times: dict[str, list[float]] = {}

    def add(self, name: str, measure: Callable[[], float]) -> None:
        self._contestants[name] = measure
        self.times[name] = []

    def go(self) -> None:
        for number in range(ROUNDS + 1):
            for name, measure in self._contestants.items():
                elapsed = measure()
                if number:  # the first round warms up
                    self.times[name].append(elapsed)

    def gbps(self, name: str) -> float:
        return harness.PAGE_BYTES / median(self.times[name])

    def ratio(self, mine: str, *theirs: str) -> float | None:
        """How many times faster `mine` is than all of `theirs` one after the other."""
        if not all(name in self.times for name in theirs):
            return None
        sums = [sum(parts) for parts in zip(*(self.times[name] for name in theirs), strict=True)]
        return float(median(total / own for total, own in zip(sums, self.times[mine], strict=True)))


def measure() -> Report:
    """Measure everything that is here. Raises `harness.NoCompilerError`."""
    image = native.NativeImage(build_helper("regions", Options(vector_bits=512)))
    limits = native.Limits()
    driver = harness.make(KEY)
    kernels = [kernel for kernel in native.NEEDS if not native.missing(kernel)]
    absent = [
        f"kernel {kernel}: this CPU lacks {', '.join(native.missing(kernel))}"
        for kernel in native.NEEDS
        if kernel not in kernels
    ]
    run = _Run()
    peers: dict[str, tuple[str, str]] = {}
    if kernels:
        driver.set_image(image.set_key(KEY), image.address("gcm_seal"), image.address("gcm_open"))
        driver.seal_ring("image_seal")
        for kernel in kernels:
            _add_kernel(run, driver, image, limits, kernel)
    for name, library in PEERS.items():
        peers[name] = _add_peer(run, driver, name, library)
    _add_python(run)
    peers[PYTHON_PEER] = (backend.openssl_version_text(), "through Python, calls included")
    run.go()
    return Report(
        driver.compiler,
        run.gbps("clock") if kernels else 0.0,
        [_kernel(run, kernel, direction) for kernel in kernels for direction in DIRECTIONS],
        [_limit(run, kernel) for kernel in kernels],
        [_peer(run, name, direction, *peers[name]) for name in peers for direction in DIRECTIONS],
        absent,
    )


def _add_kernel(
    run: _Run, driver: harness.Harness, image: native.NativeImage, limits: native.Limits, kernel: str
) -> None:
    def timed(step: str, prepare: Callable[[], None]) -> Callable[[], float]:
        def measure() -> float:
            prepare()
            return driver.nanoseconds(step, BATCH)

        return measure

    for direction, verb in DIRECTIONS.items():
        run.add(f"{kernel} {direction}", timed(f"image_{verb}", lambda: image.choose(kernel)))
    for part in ("aes", "ghash"):
        address = limits.address(f"{part}_{kernel}")
        run.add(f"{kernel} {part}", timed("alone", lambda address=address: driver.set_alone(address)))  # type: ignore[misc]
    run.add("clock", timed("alone", lambda: driver.set_alone(limits.address("cycles_4096"))))
    image.choose(kernel)
    driver.check_open("image_open")


def _add_peer(run: _Run, driver: harness.Harness, name: str, library: str) -> tuple[str, str]:
    """Add a peer if it is here; give its version and why there is no figure."""
    path = ctypes.util.find_library(library)
    version = driver.open_peer(name, path) if path else ""
    if not version:
        return "", "not here"
    driver.check_open(f"{name}_open")
    for direction, verb in DIRECTIONS.items():
        run.add(f"{name} {direction}", lambda verb=verb: driver.nanoseconds(f"{name}_{verb}", BATCH))  # type: ignore[misc]
    return version, ""


def _add_python(run: _Run) -> None:
    cipher, page, aad = AESGCM(KEY), bytes(harness.PAGE_BYTES), bytes(harness.AAD_BYTES)
    ivs = [number.to_bytes(12, "big") for number in range(harness.PAGES)]
    sealed = [cipher.encrypt(iv, page, aad) for iv in ivs]

    def timed(work: Callable[[int], bytes]) -> Callable[[], float]:
        def measure() -> float:
            began = time.perf_counter_ns()
            for number in range(harness.PAGES):
                work(number)
            return (time.perf_counter_ns() - began) / harness.PAGES

        return measure

    run.add(f"{PYTHON_PEER} export", timed(lambda number: cipher.encrypt(ivs[number], page, aad)))
    run.add(f"{PYTHON_PEER} import", timed(lambda number: cipher.decrypt(ivs[number], sealed[number], aad)))


def _kernel(run: _Run, kernel: str, direction: str) -> Kernel:
    name = f"{kernel} {direction}"
    openssl, libgcrypt, python = (run.ratio(name, f"{peer} {direction}") for peer in (*PEERS, PYTHON_PEER))
    limit = run.ratio(name, f"{kernel} aes", f"{kernel} ghash") or 0.0
    # The clock's step is one cycle for each byte of a page.
    cycles = 1 / (run.ratio(name, "clock") or 1.0)
    return Kernel(kernel, direction, run.gbps(name), cycles, openssl, libgcrypt, python, limit)


def _limit(run: _Run, kernel: str) -> Limit:
    aes, ghash = (run.gbps(f"{kernel} {part}") for part in ("aes", "ghash"))
    return Limit(kernel, aes, ghash, 1 / (1 / aes + 1 / ghash))


def _peer(run: _Run, name: str, direction: str, version: str, note: str) -> Peer:
    known = f"{name} {direction}"
    return Peer(name, version, direction, run.gbps(known) if known in run.times else None, note)
