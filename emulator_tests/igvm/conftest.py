"""Stock OVMF images, and IGVM files of them."""

from __future__ import annotations

import pytest

from emulator_tests.command.conftest import command
from emulator_tests.firmware.conftest import Find, stock
from emulator_tests.firmware.small import shrink
from mh_builder.firmware.measure import Vcpus

__all__ = ["command", "stock"]

VCPUS = Vcpus(2, 0x00A00F11)


@pytest.fixture(scope="session")
def small(stock: Find) -> bytes:
    """A real flash image with fewer drivers: 84 pages, with SEV metadata."""
    return shrink(stock("X64").read_bytes()).data
