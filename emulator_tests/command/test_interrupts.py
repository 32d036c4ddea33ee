"""Ctrl-C: noticed also where a library swallows it, and ignored where the caller ignores it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
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


def test_these_tests_hold_in_the_background_of_a_shell() -> None:
    test = f"{Path(__file__).relative_to(ROOT)}::{test_an_interrupt_that_is_swallowed_is_not_lost.__name__}"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", test],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "1 passed" in out


def test_a_command_in_the_background_goes_on(tmp_path: Path) -> None:
    """A shell that is no terminal's starts such a command with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [sys.executable, ROOT / "build.py", "build", "--scheme", "isolated"],
            cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        for delay in (0, 0.3, 0.4):
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "out" / "isolated.bin").exists()
