"""The record of what runs: against capstone, by hand, and whole."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import capstone
import pytest

from emulator_tests.command.conftest import ROOT
from emulator_tests.coverage import blobs, report
from emulator_tests.coverage.blobs import NO_TARGET, RECORDED, blob, is_32_bit
from emulator_tests.coverage.recorder import Entry, Recorder, Watch
from emulator_tests.coverage.report import Gap, Seen, Traces, gaps, stale

BASE = 0x5000
END = 24
NOWHERE = (1 << 64) - 1


@pytest.mark.parametrize("name", RECORDED)
def test_statements_are_instructions_and_branches_those_of_capstone(name: str) -> None:
    modes = {True: capstone.CS_MODE_32, False: capstone.CS_MODE_64}
    engines = {is_32: capstone.Cs(capstone.CS_ARCH_X86, mode) for is_32, mode in modes.items()}
    for engine in engines.values():
        engine.detail = True
    one = blob(name)
    for instruction in one.instructions:
        code = one.text[instruction.offset : instruction.offset + instruction.size]
        (decoded,) = engines[is_32_bit(instruction.line)].disasm(code, instruction.offset)
        assert decoded.size == instruction.size, instruction
        conditional = decoded.group(capstone.CS_GRP_JUMP) and decoded.mnemonic not in {"jmp", "ljmp"}
        target = decoded.operands[0].imm if conditional else None
        assert instruction.target == target, instruction


def test_a_blob_is_known_wherever_it_is_linked_for_and_only_whole() -> None:
    helper = blob("helper")
    other = bytearray(helper.text)
    offset, size = helper.fields[0]
    other[offset : offset + size] = bytes(size)
    assert helper.is_at(bytes(other) + b"behind")
    assert not helper.is_at(bytes(other[:-1]))
    assert not blob("loader").is_at(helper.text)
    other[0] ^= 1
    assert not helper.is_at(bytes(other))


def played(blocks: list[tuple[int, int]], targets: dict[int, int]) -> dict[int, tuple[int, int, int]]:
    """What the native record makes of (address, bytes) of blocks: {offset: (size, fell, taken)}."""
    recorder = Recorder()
    entries = (Entry * (END + 1))()
    for end, entry in enumerate(entries):
        entry.target = targets.get(end, NO_TARGET)
    watch = Watch(BASE, END, NOWHERE, ctypes.addressof(entries))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)(
        recorder.function.address
    )
    for address, size in blocks:
        call(None, address, size, ctypes.addressof(watch))
    found = {offset: (entry.size, entry.fell, entry.taken) for offset, entry in enumerate(entries)}
    return {offset: one for offset, one in found.items() if any(one)}


@pytest.mark.parametrize(
    ("blocks", "found"),
    [
        ([(BASE, 4)], {0: (4, 0, 0)}),
        ([(BASE, 4), (BASE + 4, 2)], {0: (4, 0, 0), 4: (2, 1, 0)}),
        ([(BASE, 4), (BASE + 8, 2)], {0: (4, 0, 0), 4: (0, 0, 1), 8: (2, 0, 0)}),
        ([(BASE, 4), (BASE + 10, 2)], {0: (4, 0, 0), 10: (2, 0, 0)}),
        ([(BASE, 4), (BASE - 1, 2), (BASE + 8, 2)], {0: (4, 0, 0), 8: (2, 0, 0)}),
        ([(BASE, 4), (BASE + END, 1), (BASE + 4, 1)], {0: (4, 0, 0), 4: (1, 0, 0)}),
        ([(BASE, 4), (BASE, 2), (BASE, 3)], {0: (4, 0, 0)}),
        ([(BASE + 20, 5)], {}),
    ],
    ids=["one", "falls", "branches", "elsewhere", "left-below", "left-above", "longest", "beyond"],
)
def test_native_record(blocks: list[tuple[int, int]], found: dict[int, tuple[int, int, int]]) -> None:
    """A branch that ends at 4 goes to 8."""
    assert played(blocks, {4: 8}) == found


def test_gaps_of_a_trace() -> None:
    """Of one branch: not run, run one way, the other way, both ways."""
    branch = next(one for one in blob("helper").instructions if one.target is not None)
    end = branch.offset + branch.size

    def missing(ran: bool, fell: bool, taken: bool) -> list[str]:
        traces = Traces()
        blocks = [(branch.offset, branch.size)] if ran else []
        traces.add("helper", blocks, [end] if fell else [], [end] if taken else [])
        return [gap.missing for gap in gaps({branch.key: traces.seen(["helper"])[branch.key]})]

    assert missing(ran=False, fell=False, taken=False) == ["never runs"]
    assert missing(ran=True, fell=True, taken=False) == ["is never taken"]
    assert missing(ran=True, fell=False, taken=True) == ["always branches"]
    assert missing(ran=True, fell=True, taken=True) == []


def test_what_a_host_shows_as_code_is_not_this_code() -> None:
    """Its blocks begin anywhere, and go on behind a branch: of those only what can be a block of the blob counts."""
    code = blob("helper")
    numbers = [number for number, one in enumerate(code.instructions) if one.target is not None]
    first, branch, behind = code.instructions[numbers[0] - 1 : numbers[0] + 2]
    size = branch.offset + branch.size - first.offset
    assert code.clip(first.offset, size) == size
    assert code.clip(first.offset, size + behind.size) == size
    assert code.clip(first.offset, first.size) == first.size
    assert code.clip(branch.offset + 1, 100) == 0
    traces = Traces()
    traces.add("helper", [(first.offset, size + behind.size), (behind.offset + 1, 1000)], [], [])
    seen = traces.seen(["helper"])
    assert (seen[first.key].ran, seen[branch.key].ran, seen[behind.key].ran) == (True, True, False)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A payload of two files, one of which runs elsewhere."""
    folder = tmp_path / "payload"
    folder.mkdir()
    (folder / "here.s").write_text(
        "    nop\n    jc 1f   # one side: it is never clear\n    hlt   # not here: it is last\n"
    )
    (folder / "there.s").write_text("# not here: natively\n    nop\n")
    monkeypatch.setattr(blobs, "PAYLOAD", folder)
    for cached in (blobs.source, report.reason):
        cached.cache_clear()
    return folder


def test_reasons(sources: Path) -> None:
    assert sources.is_dir()
    seen = {
        ("payload/here.s:1", 0): Seen(),
        ("payload/here.s:2 from payload/here.s:1", 0): Seen(ran=True, fell=True, is_branch=True),
        ("payload/here.s:3", 0): Seen(ran=True),
        ("payload/there.s:2", 0): Seen(),
    }
    assert gaps(seen) == [
        Gap("payload/here.s:1", "never runs", None),
        Gap("payload/here.s:2", "is never taken", "it is never clear"),
        Gap("payload/there.s:2", "never runs", "natively"),
    ]
    assert stale(seen) == ["payload/here.s:3"]
    for cached in (blobs.source, report.reason):
        cached.cache_clear()


def test_a_session_fails_for_what_it_does_not_run(tmp_path: Path) -> None:
    """And tells it from what it does, which its workers saw."""
    written = tmp_path / "coverage.txt"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "emulator_tests.coverage.plugin"]
    command += [f"--coverage-report={written}", "emulator_tests/helper/test_hello.py", "-k", "slots"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
    lines = written.read_text().splitlines()
    assert any(line.startswith("payload/strict.s:") and line.endswith("never runs: WITHOUT A REASON") for line in lines)
    ran = {line[:32].strip(): int(line[32:].split()[0]) for line in lines[1:9]}
    assert ran["helper"] > 1000
    assert ran["loader"] == 0
