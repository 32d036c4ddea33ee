"""`secret`: what the owner gives one guest's helpers."""

from __future__ import annotations

import stat
from pathlib import Path
from uuid import UUID

import pytest

from emulator_tests.command.conftest import Command
from mh_abi import abi

GUEST = "9f0c6f4e-93b6-4c56-8d7e-27a9c1c40a11"


def record_of(path: Path) -> abi.mh_secret:
    """The record in OVMF's table, read by hand."""
    table = path.read_bytes()
    assert table[:16] == UUID(abi.MH_SECRET_TABLE_GUID).bytes_le
    assert int.from_bytes(table[16:20], "little") == len(table)
    assert table[20:36] == UUID(abi.MH_SECRET_RECORD_GUID).bytes_le
    assert int.from_bytes(table[36:40], "little") == len(table) - 20
    return abi.mh_secret(table[40:])


def test_a_record(command: Command, tmp_path: Path) -> None:
    outcome = command("secret", "-o", "a.secret", "--guest", GUEST, "--peer", "es", "--strict")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"a.secret: guest {GUEST}, peer at least es, strict finish\n"
    record = record_of(tmp_path / "a.secret")
    assert (record.version, record.flags, record.reserved) == (abi.MH_SECRET_VERSION, abi.MH_OWNER_STRICT, 0)
    assert record.protection == abi.mh_protection.MH_PROTECTION_SEV_ES
    assert bytes(record.guest) == UUID(GUEST).bytes
    assert stat.S_IMODE((tmp_path / "a.secret").stat().st_mode) == 0o600


def test_no_two_are_alike(command: Command, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert command("secret", "-o", name).code == 0
    first, second = (record_of(tmp_path / name) for name in ("a", "b"))
    assert bytes(first.key) != bytes(second.key)
    assert bytes(first.guest) != bytes(second.guest)


def test_no_file_is_replaced(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"the only key")
    outcome = command("secret", "-o", "a")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "build.py: error: a: exists, and is not replaced: it may hold a guest's only key\n"
    assert (tmp_path / "a").read_bytes() == b"the only key"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-o", "missing/a"), "build.py: error: missing/a: No such file or directory"),
        (("-o", "a", "--guest", "me"), "'me' is not a UUID"),
        ((), "the following arguments are required: -o/--output"),
    ],
)
def test_bad_input(command: Command, tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    outcome = command("secret", *arguments)
    assert outcome.code in (1, 2)
    assert complaint in outcome.err
    assert not (tmp_path / "a").exists()
