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
from mh_emulator.cpu.ctrl_c import held_back


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


def test_engine_is_not_stopped_where_it_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    stops: list[bool] = []
    try:
        with held_back(lambda: stops.append(True)):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert stops == []


@pytest.mark.parametrize("words", [["build", "-o", "."], ["migrate", "--ram", "ram"]], ids=lambda words: words[0])
def test_a_command_in_the_background_goes_on(tmp_path: Path, words: list[str]) -> None:
    """A shell that is no terminal's starts such a command with SIGINT ignored."""
    (tmp_path / "ram").write_bytes(bytes(range(256)) * 256)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [sys.executable, ROOT / "build.py", *words, "--scheme", "isolated"],
            cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        for _ in range(10):
            time.sleep(0.1)
            os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "isolated" in out
    assert (tmp_path / "isolated.bin").exists() == (words[0] == "build")
