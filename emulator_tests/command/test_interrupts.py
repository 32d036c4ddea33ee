"""Ctrl-C: noticed also where a library swallows it, and ignored where the caller ignores it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emulator_tests.command.conftest import ROOT
from mh_cli import interrupts


def test_an_interrupt_that_is_swallowed_is_not_lost() -> None:
    with interrupts.noted():
        interrupts.check()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupts.noted():
        interrupts.check()


def test_a_command_in_the_background_goes_on(tmp_path: Path) -> None:
    """A shell that is no terminal's starts such a command with SIGINT ignored."""
    background = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    process = subprocess.Popen(
        [*background, sys.executable, ROOT / "build.py", "build", "--scheme", "isolated"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with process:
        for _ in range(3):
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "out" / "isolated.bin").exists()
