"""Both engines for every test of the kernels."""

from __future__ import annotations

import pytest

from .kernels import Emulated, Engine, Native, NativeWide, NativeWidest, Traced


@pytest.fixture(scope="session")
def emulated_engine() -> Emulated:
    return Emulated()


@pytest.fixture(scope="session")
def native_engine() -> Native:
    if missing := Native.missing():
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    return Native()


@pytest.fixture(scope="session")
def wide_engine() -> NativeWide:
    if missing := NativeWide.missing():
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}: the VAES kernel cannot run")
    return NativeWide()


@pytest.fixture(scope="session")
def widest_engine() -> NativeWidest:
    if missing := NativeWidest.missing():
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}: the zmm kernel cannot run")
    return NativeWidest()


@pytest.fixture(scope="session")
def traced_engine() -> Traced:
    return Traced()


@pytest.fixture(
    params=["emulated_engine", "native_engine", "wide_engine", "widest_engine"],
    ids=["unicorn", "native", "vaes", "zmm"],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Engine)
    found.reset()
    return found


@pytest.fixture
def traced(traced_engine: Traced) -> Traced:
    traced_engine.reset()
    return traced_engine
