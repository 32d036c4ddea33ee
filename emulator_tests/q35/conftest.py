"""Stock images, and the command that boots them."""

from __future__ import annotations

from emulator_tests.command.conftest import command
from emulator_tests.firmware.conftest import injected, stock

__all__ = ["command", "injected", "stock"]
