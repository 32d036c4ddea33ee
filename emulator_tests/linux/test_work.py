"""The first process, on this computer's own CPU, against what Python computes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mh_builder.asm.native import is_possible
from mh_emulator.linux import work


@pytest.mark.skipif(not is_possible(), reason="needs x86-64 Linux")
def test_the_program_prints_what_python_computes(tmp_path: Path) -> None:
    path = tmp_path / "init"
    path.write_bytes(work.program())
    path.chmod(0o755)
    with subprocess.Popen([path], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().rstrip("\n") for _ in work.lines()]
        process.kill()
    assert lines == work.lines()
    assert len(set(lines)) == work.STEPS + 1
    assert (tmp_path / "work").stat().st_size == work.STEPS * 4096


@pytest.mark.skipif(not is_possible(), reason="needs x86-64 Linux")
def test_it_says_when_it_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "init"
    path.write_bytes(work.program())
    path.chmod(0o755)
    (tmp_path / "work").mkdir()
    with subprocess.Popen([path], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "the system call failed\n"
        process.kill()


def test_messages_of_the_kernel_in_the_middle_of_a_line_are_not_its_own() -> None:
    message = "[    1.800700] clocksource: Watchdog kvm-clock read timed out: 100000ns"
    one, two = work.lines()[:2]
    printed = [f"firmware{message}", one, f"{two[:6]}{message}", message, f"{two[6:9]}{message}", two[9:], f"[1] {one}"]
    listener = work.Listener(work.lines())
    text = message.partition("] ")[2]
    assert [listener.hear(line) for line in printed] == [text, one, text, text, text, two, f"[1] {one}"]
