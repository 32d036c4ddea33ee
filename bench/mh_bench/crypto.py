"""Speed of sealing and opening packets: the linked helper's kernels, other implementations, and limits.

A packet is a page with 64 bytes of AAD, unless another size is asked for. All contestants take turns, a batch of
packets each, round after round; figures are medians over the rounds, ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mh_bench import harness, native
from mh_bench.peers import Library
from mh_bench.rounds import Rounds, Spread
from mh_builder.helper import build_helper
from mh_builder.schemes.space import Options

BATCH_BYTES = 768 * harness.PAGE_BYTES
"""For one contestant in one round."""
KEY = bytes(range(32))
DIRECTIONS = {"export": "seal", "import": "open"}
PYTHON_PEER = "cryptography"
PAGE_STEPS = ("aes", "ghash", "ports")
"""Of limit.s, for a page each, whatever a packet has, as is the clock."""


class Kernel(NamedTuple):
    """One kernel in one direction; cycles are for a byte, a ratio above 1 means that the kernel is faster."""

    kernel: str
    direction: str
    gbps: float
    cycles_per_byte: float
    """The median."""
    cycles_min: float
    cycles_median: float
    cycles_max: float
    port_limit: float
    """Cycles that its AES instructions and multiplications take where nothing else is, and none waits for another."""
    ratio_openssl: float | None
    ratio_libgcrypt: float | None
    ratio_cryptography: float | None
    ratio_limit: float
    ratios: dict[str, Spread]
    """By name and version of each peer."""


class Peer(NamedTuple):
    """An implementation to compare with; without a speed where `note` says why."""

    name: str
    version: str
    direction: str
    gbps: float | None
    note: str


class Limit(NamedTuple):
    """AES alone, GHASH alone, one after the other, and the ports that both need."""

    kernel: str
    aes_gbps: float
    ghash_gbps: float
    gbps: float
    port_limit: float
    """Cycles for a byte."""


class Report(NamedTuple):
    """All of one run. `clock_ghz` is that of the core, by a chain of additions."""

    cpu: str
    """Its name as it says itself."""
    harness: str
    """The compiler of the loop that times."""
    packet_bytes: int
    clock_ghz: float
    kernels: list[Kernel]
    limits: list[Limit]
    peers: list[Peer]
    absent: list[str]


class _Known(NamedTuple):
    """A peer, and the name of it as a contestant."""

    kind: str
    contestant: str
    version: str
    note: str


class _Contest:
    """One run for packets of `size` bytes."""

    def __init__(self, driver: harness.Harness, size: int) -> None:
        self.rounds = Rounds()
        self._driver = driver
        self._size = size

    def add_kernel(self, image: native.NativeImage, limits: native.Limits, kernel: str) -> None:
        """A kernel in both directions, and its limits."""
        for direction, verb in DIRECTIONS.items():
            self._add(f"{kernel} {direction}", f"image_{verb}", partial(image.choose, kernel))
        for part in PAGE_STEPS:
            self._add_alone(f"{kernel} {part}", limits.address(f"{part}_{kernel}"))
        self._add_alone("clock", limits.address("cycles_4096"))
        image.choose(kernel)
        self._driver.check_open("image_open")

    def add_library(self, library: Library) -> _Known:
        """A library in both directions, if it is here."""
        contestant = f"{library.kind} {library.number}"
        if not library.path:
            return _Known(library.kind, contestant, "", "not here")
        choose = partial(self._driver.choose_peer, library.number)
        choose()
        try:
            version = self._driver.open_peer(library.function, library.path)
        except harness.PeerError as error:
            return _Known(library.kind, contestant, "", str(error))
        self._driver.check_open(f"{library.function}_open")
        for direction, verb in DIRECTIONS.items():
            self._add(f"{contestant} {direction}", f"{library.function}_{verb}", choose)
        return _Known(library.kind, contestant, version, "")

    def add_python(self) -> _Known:
        """cryptography, through Python."""
        cipher, data, aad = AESGCM(KEY), bytes(self._size), bytes(harness.AAD_BYTES)
        ivs = [number.to_bytes(12, "big") for number in range(harness.PAGES)]
        sealed = [cipher.encrypt(iv, data, aad) for iv in ivs]

        def timed(work: Callable[[int], bytes]) -> float:
            began = time.perf_counter_ns()
            for number in range(harness.PAGES):
                work(number)
            return (time.perf_counter_ns() - began) / harness.PAGES

        seal = partial(timed, lambda number: cipher.encrypt(ivs[number], data, aad))
        open_ = partial(timed, lambda number: cipher.decrypt(ivs[number], sealed[number], aad))
        self.rounds.add(f"{PYTHON_PEER} export", seal)
        self.rounds.add(f"{PYTHON_PEER} import", open_)
        return _Known(PYTHON_PEER, PYTHON_PEER, backend.openssl_version_text(), "through Python, calls included")

    def _add(self, name: str, step: str, prepare: Callable[[], None]) -> None:
        self._add_batch(name, step, prepare, BATCH_BYTES // self._size)

    def _add_alone(self, name: str, function: int) -> None:
        prepare = partial(self._driver.set_alone, function)
        self._add_batch(name, "alone", prepare, BATCH_BYTES // harness.PAGE_BYTES)

    def _add_batch(self, name: str, step: str, prepare: Callable[[], None], batch: int) -> None:
        def measure() -> float:
            prepare()
            return self._driver.nanoseconds(step, batch)

        self.rounds.add(name, measure)

    def gbps(self, name: str) -> float:
        """Speed of a contestant in packets."""
        return self._size / self.rounds.time(name)

    def cycles(self, name: str) -> Spread:
        """For a byte of a packet; a step of the clock is a cycle for each byte of a page."""
        low, middle, high = (1 / ratio for ratio in self.rounds.ratios(name, "clock"))
        scale = harness.PAGE_BYTES / self._size
        return Spread(high * scale, middle * scale, low * scale)

    def kernel(self, kernel: str, direction: str, peers: Sequence[_Known]) -> Kernel:
        """What was found of one."""
        name = f"{kernel} {direction}"
        names = {peer: f"{peer.contestant} {direction}" for peer in peers}
        ratios = {peer: self.rounds.ratios(name, other) for peer, other in names.items() if other in self.rounds}
        first = {peer.kind: spread.middle for peer, spread in reversed(ratios.items())}
        cycles = self.cycles(name)
        alone = self.rounds.ratios(name, f"{kernel} aes", f"{kernel} ghash").middle
        return Kernel(
            kernel=kernel,
            direction=direction,
            gbps=self.gbps(name),
            cycles_per_byte=cycles.middle,
            cycles_min=cycles.low,
            cycles_median=cycles.middle,
            cycles_max=cycles.high,
            port_limit=self.limit(kernel).port_limit,
            ratio_openssl=first.get("openssl"),
            ratio_libgcrypt=first.get("libgcrypt"),
            ratio_cryptography=first.get(PYTHON_PEER),
            ratio_limit=alone * self._size / harness.PAGE_BYTES,
            ratios={f"{peer.kind} {peer.version}": spread for peer, spread in ratios.items()},
        )

    def limit(self, kernel: str) -> Limit:
        """What bounds it."""
        aes, ghash = (harness.PAGE_BYTES / self.rounds.time(f"{kernel} {part}") for part in ("aes", "ghash"))
        ports = 1 / self.rounds.ratios(f"{kernel} ports", "clock").middle
        return Limit(kernel, aes, ghash, 1 / (1 / aes + 1 / ghash), ports)

    def peer(self, known: _Known, direction: str) -> Peer:
        """What was found of another implementation."""
        name = f"{known.contestant} {direction}"
        speed = self.gbps(name) if name in self.rounds else None
        return Peer(known.kind, known.version, direction, speed, known.note)


def measure(size: int, libraries: Sequence[Library]) -> Report:
    """Measure everything that is here, with packets of `size` bytes. Raises `harness.NoCompilerError`."""
    image = native.NativeImage(build_helper("regions", Options(vector_bits=512)))
    driver = harness.make(KEY)
    driver.set_size(size)
    contest = _Contest(driver, size)
    kernels = [kernel for kernel in native.NEEDS if not native.missing(kernel)]
    if kernels:
        limits = native.Limits()
        driver.set_image(image.set_key(KEY), image.address("gcm_seal"), image.address("gcm_open"))
        driver.seal_ring("image_seal")
        for kernel in kernels:
            contest.add_kernel(image, limits, kernel)
    peers = [*map(contest.add_library, libraries), contest.add_python()]
    contest.rounds.go()
    return Report(
        cpu=native.cpu_name(),
        harness=driver.compiler,
        packet_bytes=size,
        clock_ghz=harness.PAGE_BYTES / contest.rounds.time("clock") if kernels else 0.0,
        kernels=[contest.kernel(kernel, direction, peers) for kernel in kernels for direction in DIRECTIONS],
        limits=[contest.limit(kernel) for kernel in kernels],
        peers=[contest.peer(peer, direction) for peer in peers for direction in DIRECTIONS],
        absent=[
            f"kernel {kernel}: this CPU lacks {', '.join(native.missing(kernel))}"
            for kernel in native.NEEDS
            if kernel not in kernels
        ],
    )
