"""What all tests share: built images, and oracles that have to be there in CI."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.needs import by_name, trouble
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import Options, Start

_CACHE = Path(__file__).parents[1] / ".cache"
KERNELS, FIRMWARE = _CACHE / "kernels", _CACHE / "firmware"


def pytest_configure() -> None:
    """A shell gives SIGINT ignored to what it runs in its background, and the processes of tests would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_teardown() -> None:
    """Machines that nobody has any more are in cycles, and the collector does not see how much memory they hold."""
    if _resident() > _LIMIT.bytes:
        gc.collect()
        _LIMIT.bytes = max(_LIMIT.bytes, 2 * _resident())


class _Limit:
    def __init__(self) -> None:
        self.bytes = 1 << 30


_LIMIT = _Limit()


def _resident() -> int:
    """Bytes of this process in memory, where Linux says it (proc(5), statm)."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


class Built(Mapping[str, Image]):
    """An image for each scheme, built when it is first asked for."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._known: dict[str, Image] = {}

    def __getitem__(self, scheme: str) -> Image:
        if scheme not in self._known:
            self._known[scheme] = build_helper(scheme, self._options)
        return self._known[scheme]

    def __iter__(self) -> Iterator[str]:
        return iter(SCHEMES)

    def __len__(self) -> int:
        return len(SCHEMES)


@pytest.fixture(scope="session")
def images() -> Mapping[str, Image]:
    """Every scheme, built with the defaults."""
    return Built(Options())


@pytest.fixture(scope="session")
def es_images() -> Mapping[str, Image]:
    """Every scheme, built for SEV-ES."""
    return Built(Options(start=Start.ES))


@pytest.fixture(params=list(SCHEMES))
def scheme(request: pytest.FixtureRequest) -> str:
    """Each scheme in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Path of a program that serves as an oracle: in CI it must be there, elsewhere its absence is a skip."""

    @cache
    def find(name: str) -> str:
        need = by_name(name)
        why = trouble(need)
        if why and os.environ.get("CI") == "true":
            pytest.fail(f"{name} {why}")
        if why:
            pytest.skip(f"{name} {why}")
        return str(need.path)

    return find


@pytest.fixture(scope="session")
def linux_kernel() -> Path:
    """The kernel that `make kernel` fetches: in CI it must be there, elsewhere its absence is a skip."""
    return debians_kernel("bookworm")


def debians_kernel(suite: str) -> Path:
    """That of a suite of Debian, as `linux_kernel`."""
    path = KERNELS / suite / "vmlinuz"
    if not path.exists() and os.environ.get("CI") == "true":
        pytest.fail(f"{path} is missing: run `make kernel`")
    if not path.exists():
        pytest.skip(f"{path} is missing: run `make kernel`")
    return path
