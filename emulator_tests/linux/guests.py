"""Debian's kernel under every scheme, on every part, stopped elsewhere, and later kernels: `make test-guests`.

Not of the suite.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.conftest import FIRMWARE, debians_kernel
from emulator_tests.linux.conftest import command
from emulator_tests.measured import Measured, measured
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES
from ovmf_patches.kernels import SUITES

__all__ = ["command", "measured"]

CASES = [
    *(("--scheme", scheme) for scheme in SCHEMES),
    *(("--part", part) for part in PARTS if part != "milan"),
    ("--memory", "1G"),
]
PLACES = ("0", "11", "6+123457", "idle", "syscall", "interrupt")
FOLLOWED = ("6", "interrupt")
ES_CASES = [("regions", "milan"), ("isolated", "genoa")]
ES_PLACES = ("0", "6+123457", "idle", "interrupt")
TICK_MS = 4
ES_SUITES = ("sid",)
"""Later kernels that boot as SEV-ES guests here."""
THROUGH = [
    ("bookworm/OVMF_CODE.fd", "bookworm"),
    ("trixie/OVMF_CODE_4M.fd", "bookworm"),
    ("trixie/OVMF_CODE_4M.fd", "sid"),
]
INCOHERENT = [part.name for part in PARTS.values() if not part.coherent]


class Kept(NamedTuple):
    """A guest's snapshot, and what the run has said that made it, which stayed."""

    path: Path
    stays: dict[str, Any]


class Snapshots:
    """One of each guest, as it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str | Path, ...], Kept] = {}

    def of(self, command: Command, measured: Measured, *guest: str | Path) -> Kept:
        if guest not in self._known:
            path = self._folder / f"{len(self._known)}"
            self._known[guest] = Kept(path, measured(command, *guest, snapshot=path))
        return self._known[guest]


class Moves:
    """Moves guests from where their first process begins; what they print is as of one that stays."""

    def __init__(self, command: Command, measured: Measured, snapshots: Snapshots) -> None:
        self._command = command
        self._measured = measured
        self._snapshots = snapshots

    def stays(self, *guest: str | Path) -> dict[str, Any]:
        """What one says that stays."""
        return self._snapshots.of(self._command, self._measured, *guest).stays

    def __call__(self, *guest: str | Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
        kept = self._snapshots.of(self._command, self._measured, *guest)
        found = check_moved(self._measured(self._command, *guest, "--migrate", *options, snapshot=kept.path))
        assert found["snapshot"] == "restored"
        assert found["console"] == kept.stays["console"]
        assert found["milestones"][-1]["virtual_ms"] == kept.stays["milestones"][-1]["virtual_ms"]
        return found


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshots]:
    """They go at the end: each has all the memory of a guest."""
    folder = tmp_path_factory.mktemp("snapshots")
    yield Snapshots(folder)
    shutil.rmtree(folder)


@pytest.fixture
def move(command: Command, measured: Measured, snapshots: Snapshots) -> Moves:
    """How guests are moved here."""
    return Moves(command, measured, snapshots)


def check_moved(found: dict[str, Any]) -> dict[str, Any]:
    assert found["guest_ok"]
    assert found["moved"]["equal"]
    assert "Memory Encryption Features active: AMD SEV" in found["console"]
    return found


@pytest.mark.parametrize("options", CASES, ids=" ".join)
def test_migrates(linux_kernel: Path, command: Command, measured: Measured, options: tuple[str, ...]) -> None:
    check_moved(measured(command, "--kernel", linux_kernel, "--migrate", *options))


@pytest.mark.parametrize("at", PLACES)
def test_is_stopped_anywhere_and_does_not_notice(linux_kernel: Path, move: Moves, at: str) -> None:
    stopped = move("--kernel", linux_kernel, options=("--at", at))["stopped"]
    if at in ("syscall", "interrupt"):
        # At the first instruction there, with the stack and GS of its process.
        assert (stopped["privilege"], stopped["interrupts"]) == (0, False)
        assert stopped["rip"] >= 0xFFFF_FFFF_8000_0000
        assert stopped["process_rip"] in range(0x40_0000, 0x40_1000)


@pytest.mark.parametrize("at", FOLLOWED)
def test_its_pages_follow_it(linux_kernel: Path, move: Moves, at: str) -> None:
    """It goes on at the target at once; it needs few of its pages before it is idle."""
    moved = move("--kernel", linux_kernel, options=("--post-copy", "--at", at))["moved"]
    assert 100 < moved["demanded_pages"] < moved["pages"] // 10


@pytest.mark.parametrize("part", INCOHERENT)
def test_a_snapshot_has_what_caches_hold(
    linux_kernel: Path, command: Command, measured: Measured, move: Moves, part: str
) -> None:
    """What a run has said that made none is the reference."""
    guest = ("--kernel", linux_kernel, "--part", part)
    assert measured(command, *guest)["console"] == move.stays(*guest)["console"]
    move(*guest)


@pytest.mark.parametrize("suite", SUITES[1:])
def test_a_later_kernel_is_migrated_and_does_not_notice(move: Moves, suite: str) -> None:
    move("--kernel", debians_kernel(suite))


class EsMoves:
    """Moves guests of SEV-ES, of which there are no snapshots; each kind stays once."""

    def __init__(self, command: Command, measured: Measured, known: dict[tuple[str | Path, ...], Any]) -> None:
        self._command = command
        self._measured = measured
        self._known = known

    def stays(self, *guest: str | Path) -> dict[str, Any]:
        """What one says that stays."""
        if guest not in self._known:
            found = self._measured(self._command, *guest)
            assert found["guest_ok"]
            assert found["helper_equal"]
            assert "Memory Encryption Features active: AMD SEV SEV-ES" in found["console"]
            self._known[guest] = found
        found = self._known[guest]
        assert isinstance(found, dict)
        return found

    def __call__(self, *guest: str | Path, options: tuple[str, ...] = ()) -> tuple[float, float]:
        """Virtual milliseconds until the guest is idle, of one that stays and of one that moves."""
        found = check_moved(self._measured(self._command, *guest, "--migrate", *options))
        stays = self.stays(*guest)
        assert found["console"] == stays["console"]
        assert found["stopped"] is None
        return stays["milestones"][-1]["virtual_ms"], found["milestones"][-1]["virtual_ms"]


@pytest.fixture(scope="session")
def es_known() -> dict[tuple[str | Path, ...], Any]:
    """What guests of SEV-ES say that stay."""
    return {}


@pytest.fixture
def es_move(command: Command, measured: Measured, es_known: dict[tuple[str | Path, ...], Any]) -> EsMoves:
    """How guests of SEV-ES are moved here."""
    return EsMoves(command, measured, es_known)


@pytest.mark.parametrize(("scheme", "part"), ES_CASES)
def test_an_sev_es_guest_works_repeats_exactly_and_does_not_notice_its_migration(
    linux_kernel: Path, command: Command, measured: Measured, es_move: EsMoves, scheme: str, part: str
) -> None:
    guest = ("--kernel", linux_kernel, "--start", "es", "--scheme", scheme, "--part", part)
    assert measured(command, *guest)["console"] == es_move.stays(*guest)["console"]
    stays, moves = es_move(*guest)
    assert moves == stays


@pytest.mark.parametrize("at", ES_PLACES)
def test_an_sev_es_guest_is_stopped_anywhere_and_does_not_notice(linux_kernel: Path, es_move: EsMoves, at: str) -> None:
    stays, moves = es_move("--kernel", linux_kernel, "--start", "es", options=("--at", at))
    assert moves == stays


@pytest.mark.parametrize("suite", ES_SUITES)
def test_a_later_kernel_is_migrated_under_sev_es(es_move: EsMoves, suite: str) -> None:
    """Its console is the same; one of its timers is set for some microseconds later, 260 ms after it has moved."""
    stays, moves = es_move("--kernel", debians_kernel(suite), "--start", "es")
    assert abs(moves - stays) < TICK_MS + 1


@pytest.mark.parametrize(("image", "suite"), THROUGH)
def test_firmware_loads_it_and_the_helper(move: Moves, image: str, suite: str) -> None:
    """The loader in the firmware brings the helper, ACPI and kernel come by fw_cfg, and all of it moves."""
    guest = ("--fd", FIRMWARE / image, "--kernel", debians_kernel(suite))
    assert "] efi: EFI v" in move(*guest)["console"]
    seen = [milestone["what"] for milestone in move.stays(*guest)["milestones"]]
    assert seen[:2] == ["launched", "loader's line"]
