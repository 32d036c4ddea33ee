"""`vmpl` on the command line: the migration, the files of the image, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command

OWNER = bytes(range(1, 33))


def test_command(command: Command, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(b"RAM" * 5000)
    small = ("migrate", "--start", "snp", "--ram", "ram", "--ram-limit", "5G")
    outcome = command(*small, "--scheme", "vmpl", "--json")
    assert outcome.code == 0, outcome.err
    assert '"attested": true' in outcome.out
    assert '"copies": 1' in outcome.out
    assert '"context": false' in outcome.out
    table = command(*small, "--context")
    assert table.code == 0
    assert table.out.splitlines()[-1].split()[-4:] == ["yes", "1", "yes", "migrated"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--scheme", "vmpl"], 1, "vmpl: start host: it runs at VMPL0 of an SNP guest, with start snp"),
        (["--scheme", "regions", "--start", "snp"], 1, "regions: start snp: no mirror of an SNP guest runs"),
        (["--start", "snp", "--part", "rome"], 2, "--start snp: rome has no SEV-SNP, genoa, milan, turin have"),
        (["--start", "snp", "--ram-limit", "4G"], 1, "the image maps addresses below 0x100000000"),
        (["--scheme", "regions", "--context"], 2, "only --start snp has a context that moves, found --start host"),
        (["--start", "snp", "--gdb", "0"], 2, "--gdb needs one --scheme, one vCPU and --start host"),
    ],
)
def test_what_the_command_refuses(
    command: Command, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "ram").write_bytes(b"RAM")
    outcome = command("migrate", "--ram", "ram", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (code, "", 1)
    assert message in outcome.err


def test_build_writes_the_image_and_the_measured_registers(command: Command, tmp_path: Path) -> None:
    built = command("build", "--start", "snp", "--owner-key", OWNER.hex(), "--c-bit", "51")
    assert built.code == 0, built.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"vmpl.{kind}" for kind in ("bin", "elf", "json", "map", "vmsa")
    }
    audit = command("audit", tmp_path / "out" / "vmpl.bin")
    assert audit.code == 0, audit.out
    shown = command("show", tmp_path / "out" / "vmpl.bin")
    assert shown.code == 0
    assert ".validated" in shown.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--start", "snp"], 1, "vmpl: owner's key: expected 32 bytes that are not all zero, found 0"),
        (["--start", "es", "--owner-key", OWNER.hex()], 1, "owner's key: start es has LAUNCH_SECRET"),
        (["--start", "snp", "--owner-key", "11"], 2, "'11' is not a key of 64 hexadecimal digits"),
        (["--start", "snp", "--owner-key", f"{OWNER.hex(' ')}"], 2, "is not a key of 64 hexadecimal digits"),
        (["--start", "snp", "--owner-key", OWNER.hex(), "--c-bit", "51", "--igvm"], 1, "start snp: IGVM files"),
    ],
)
def test_what_the_builder_refuses(command: Command, arguments: list[str], code: int, message: str) -> None:
    outcome = command("build", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err.splitlines()[-1]
