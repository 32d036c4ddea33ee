"""The command that boots kernels."""

from __future__ import annotations

from emulator_tests.command.conftest import command

__all__ = ["command"]
