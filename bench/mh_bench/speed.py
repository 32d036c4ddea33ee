"""Speed of the toolchain and the emulator: each figure is the best of a few runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from mh_abi.image import parse_image
from mh_builder.helper import build_helper, helper_objects
from mh_builder.image.elf import write_elf
from mh_builder.parts import PARTS
from mh_builder.schemes.space import MAX_RAM_LIMIT, Options
from mh_emulator.host.migration import Scenario, run

RUNS = 3
PAGES = 1024


class Figure(NamedTuple):
    """One measured number."""

    name: str
    value: float
    unit: str


def measure() -> list[Figure]:
    """Measure everything."""
    return [_assembly(), _link("link regions, 64 GiB", Options()), _link("link regions, 4 TiB", _LARGE), _migration()]


_LARGE = Options(ram_limit=MAX_RAM_LIMIT)


def _best(work: Callable[[], object]) -> float:
    def once() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return min(once() for _ in range(RUNS))


def _assembly() -> Figure:
    def work() -> None:
        helper_objects.cache_clear()
        helper_objects()

    return Figure("assemble the helper, warm", _best(work) * 1e3, "ms")


def _link(name: str, options: Options) -> Figure:
    return Figure(name, _best(lambda: write_elf(build_helper("regions", options))) * 1e3, "ms")


def _migration() -> Figure:
    image = build_helper("regions", Options())
    scenario = Scenario("regions", PARTS["milan"], parse_image(image.data), image.table_bytes, bytes(PAGES * 4096))
    return Figure("emulated migration, proof included", PAGES / _best(lambda: run(scenario)), "pages/s")
