"""What the project needs is asked by trying it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from mh_builder import needs

BROKEN = "#!/bin/sh\necho 'x.c:1:10: fatal error: stdio.h: No such file or directory' >&2\nexit 1\n"


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A compiler on PATH that compiles nothing, as gcc without the headers of the C library."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cc", "g++"):
        (folder / name).write_text(BROKEN)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return "stdio.h: No such file or directory"


def test_compiler_that_compiles_nothing_is_missing(broken: str) -> None:
    assert broken in needs.trouble(needs.by_name("cc"))
    assert {"gcc", "libc6-dev"} <= set(needs.missing(needs.TESTS))


def test_doctor_says_so(broken: str, command: Command) -> None:
    lines = [line for line in command("doctor").out.splitlines() if line.startswith("cc ")]
    assert len(lines) == 1
    assert broken in lines[0]
    assert "libc6-dev" in lines[0]


def test_bench_measures_nothing_with_it(broken: str, command: Command) -> None:
    outcome = command("bench")
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert broken in outcome.err


@pytest.mark.parametrize("name", ["objdump", "gdb", "xz"])
def test_program_that_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert needs.trouble(needs.by_name(name)) == "is not there"


def test_program_that_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gdb").write_bytes(b"no program")
    (tmp_path / "gdb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert needs.trouble(needs.by_name("gdb")).startswith("does not run: ")


def test_names_are_told_apart() -> None:
    names = [need.name for need in needs.NEEDS]
    assert len(set(names)) == len(names)
    uses = {use for need in needs.NEEDS for use in need.uses}
    assert uses - {needs.PACKAGES} == {needs.TESTS, needs.FIRMWARE, needs.MODEL}
