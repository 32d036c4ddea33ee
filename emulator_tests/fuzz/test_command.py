"""The command: parts, going on, Ctrl-C, what it finds, and joining what parts have found."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from emulator_tests.command.conftest import ROOT
from emulator_tests.fuzz import corpus
from emulator_tests.fuzz.script import loads
from emulator_tests.fuzz.seeds import SEEDS

COMMAND = [sys.executable, "-m", "emulator_tests.fuzz"]
FIND = """
import sys
from emulator_tests.fuzz.__main__ import main
from emulator_tests.mutation.plant import behind
with behind("payload/dispatch.s", ".Lbad_op:", ".byte 0x0f, 0x0b"):
    sys.exit(main())
"""
"""Fuzz a helper that faults where it is asked for an operation that there is not."""


def run(command: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(COMMAND, *arguments)


@pytest.fixture
def none(tmp_path: Path) -> list[str]:
    """Where to fuzz, and to begin with the seeds alone."""
    folder = tmp_path / "none"
    folder.mkdir()
    return ["--folder", str(tmp_path), "--corpus", str(folder)]


def until_it_fuzzes(process: subprocess.Popen[str]) -> None:
    """Read what it says until it keeps inputs."""
    assert process.stderr is not None
    while not re.search(r" [1-9]\d* kept", process.stderr.readline()):
        assert process.poll() is None


def inputs(folder: Path) -> int:
    return int(json.loads((folder / "state.json").read_text())["inputs"])


def test_parts_go_on_and_are_joined(tmp_path: Path, none: list[str]) -> None:
    """Two parts keep other inputs; joined, all of it is reached by fewer."""
    done = fuzz("--jobs", "2", "--inputs", "20", *none, "--shard", "1/2")
    assert (done.returncode, done.stdout) == (0, "")
    first = tmp_path / "1-of-2"
    assert " a second, " in done.stderr
    assert done.stderr.splitlines()[-1].endswith(" 0 violations ")
    before, kept = inputs(first), set(corpus.read(first / "corpus"))
    assert before >= 20 + 2 * len(SEEDS)
    assert kept
    assert fuzz("--jobs", "1", "--inputs", "15", *none, "--shard", "1/2").returncode == 0
    assert inputs(first) >= before + 15 + len(SEEDS) + len(kept)
    assert kept < set(corpus.read(first / "corpus"))
    assert fuzz("--jobs", "1", "--inputs", "15", *none, "--shard", "2/2").returncode == 0
    others = set(corpus.read(tmp_path / "2-of-2" / "corpus"))
    assert others
    assert not others & kept
    joined = tmp_path / "joined"
    done = fuzz("--join", str(first), str(tmp_path / "2-of-2"), "--corpus", str(joined))
    found = corpus.read(joined)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{joined}: {len(found)} inputs of {sum(map(len, found))} bytes, of ")
    assert 0 < len(found) < len(SEEDS) + len(corpus.read(first / "corpus")) + len(others)


def test_ctrl_c_ends_it(tmp_path: Path, none: list[str]) -> None:
    """All its processes, after the inputs at work; what there was is kept."""
    command = [*COMMAND, "--jobs", "2", *none]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        until_it_fuzzes(process)
        os.killpg(process.pid, signal.SIGINT)
        _, rest = process.communicate()
    assert process.returncode == 0
    assert "Traceback" not in rest
    assert inputs(tmp_path / "1-of-1") > len(SEEDS)


def test_a_run_that_is_killed_leaves_no_process(tmp_path: Path, none: list[str]) -> None:
    """Its processes have what it says open until they end."""
    command = [*COMMAND, "--jobs", "1", *none]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until_it_fuzzes(process)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert corpus.read(tmp_path / "1-of-1" / "corpus")


def test_what_it_finds(tmp_path: Path, none: list[str]) -> None:
    """One violation, shortened, as a file that shows what it is."""
    done = run([sys.executable, "-c", FIND], "--jobs", "1", "--inputs", "5", *none)
    assert done.returncode == 1
    (path,) = (tmp_path / "1-of-1" / "crashes").glob("*.bin")
    assert done.stdout.startswith(f"{path}: ring 0: vector 6, error code 0x0, RIP 0x")
    assert f"to keep it as a test: {corpus.CRASHES}/NAME.bin\n" in done.stdout
    script = loads(path.read_bytes())
    assert str(script) in done.stdout
    assert [one.kind for one in script.steps][-1] == "submit"
    shown = run([sys.executable, "-c", FIND], "--show", str(path))
    assert (shown.returncode, str(script) in shown.stdout) == (1, True)
    assert shown.stdout.startswith(f"{path}: ring 0: vector 6, ")


def test_a_process_that_is_killed_names_its_input(tmp_path: Path, none: list[str]) -> None:
    command = [*COMMAND, "--jobs", "1", *none]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        until_it_fuzzes(process)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        told, _ = process.communicate()
    assert process.returncode == 1
    (path,) = (tmp_path / "1-of-1" / "crashes").glob("*.bin")
    assert told.startswith(f"{path}: the process ends with status 9\nstage: ")


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1"])
def test_a_shard_that_is_none(shard: str) -> None:
    done = fuzz("--shard", shard)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"'{shard}' is not K/N with K from 1 to N")
