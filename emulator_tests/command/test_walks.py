"""`bench --dump`: what reading a dump takes, whole processes; who cannot take part is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.report.build import NX, PAGE, Memory, P, W
from emulator_tests.report.kdumps import kdump
from emulator_tests.report.test_dumps import note
from emulator_tests.report.test_memory import core


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mh_bench.walks.RUNS", 1)


def tables(levels: int = 4) -> tuple[bytes, bytes]:
    """Memory, and QEMU's note of it."""
    memory = Memory()
    root = memory.chain(levels, memory.table({0: 0x5000 | P, 1: 0x6000 | P | W | NX}))
    return bytes(memory.data), note(root, cr4=0x20 if levels == 4 else 0x1020)


def test_each_program_is_measured(command: Command, tmp_path: Path) -> None:
    data, notes = tables()
    (tmp_path / "dump").write_bytes(core([(0, data, len(data))], notes))
    outcome = command("bench", "--dump", "dump", "--volatility", "no/python", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert found["schema"] == "sev-migration-helper/bench-walks/1"
    assert [walk["name"] for walk in found["walks"]] == ["show --json", "audit"]
    assert all(walk["seconds"] > 0 and 5 < walk["mib"] < 100 for walk in found["walks"])
    assert found["absent"] == ["volatility3: no/python: No such file or directory"]


def test_dumps_that_the_peer_does_not_read(command: Command, tmp_path: Path) -> None:
    data, notes = tables()
    (tmp_path / "kdump").write_bytes(
        kdump({at // PAGE: data[at : at + PAGE] for at in range(0, len(data), PAGE)}, notes)
    )
    data, notes = tables(5)
    (tmp_path / "high").write_bytes(core([(0, data, len(data))], notes))
    for name, reason in (
        ("kdump", "volatility3: it reads ELF cores, and this is another dump"),
        ("high", "volatility3: it reads 4 levels, and these tables have 5"),
    ):
        outcome = command("bench", "--dump", name)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.splitlines()[-1] == reason


def test_what_is_no_dump_is_refused_first(command: Command, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"hello")
    outcome = command("bench", "--dump", "text")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("build.py: error: text: 0x5 bytes that start with 68656c6c6f are neither an image")
