"""`build --igvm`: the helper's pages, VMSAs and policy in one file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.igvm import oracle
from mh_abi.image import parse_image
from mh_builder.igvm.layout import Platform
from mh_builder.igvm.wrap import POLICIES
from mh_builder.schemes.space import HIGH_BASE
from mh_emulator.owner import POLICY, POLICY_ES


def test_sev_es(command: Command, tmp_path: Path) -> None:
    """The VMSAs are those that `build` writes; the digest is that of all that the secure processor is given."""
    build = ("build", "--scheme", "isolated", "--start", "es", "--c-bit", 51, "--vcpus", 2, "-o", "out", "--igvm")
    outcome = command(*build)
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, "out/isolated.igvm")
    data = (tmp_path / "out/isolated.igvm").read_bytes()
    found = oracle.parse(data)
    vmsas = [(tmp_path / f"out/isolated{number}.vmsa").read_bytes() for number in ("", ".1")]
    memory = parse_image((tmp_path / "out/isolated.bin").read_bytes()).launched(HIGH_BASE, 51)
    assert found.masks == {oracle.SEV_ES: 2}
    assert found.policies == [(POLICY_ES, 2)]
    assert found.contexts == [(0xFFFF_FFFF_F000, 2, number, page) for number, page in enumerate(vmsas)]
    assert [gpa for gpa, *_ in found.pages] == [*range(HIGH_BASE, HIGH_BASE + len(memory), 4096)]
    assert b"".join(contents or b"" for *_, contents in found.pages) == memory
    digest = hashlib.sha256(memory + b"".join(vmsas)).hexdigest()
    assert command("ovmf", "measure", "out/isolated.igvm") == (0, f"seves  {digest}\n", "")
    assert command(*build[:-3], "-o", "again", "--igvm").code == 0
    assert (tmp_path / "again/isolated.igvm").read_bytes() == data


def test_plain_sev(command: Command, scheme: str, tmp_path: Path) -> None:
    """No registers are measured, and none are in the file: the host sets them."""
    command("build", "--scheme", scheme, "--c-bit", 47, "--igvm", "--policy", "0x1", "-o", ".")
    found = oracle.parse((tmp_path / f"{scheme}.igvm").read_bytes())
    assert (found.masks, found.policies, found.contexts) == ({oracle.SEV: 1}, [(1, 1)], [])
    digest = parse_image((tmp_path / f"{scheme}.bin").read_bytes()).digest(47)
    assert command("ovmf", "measure", f"{scheme}.igvm", "--mode", "sev").out == f"sev    {digest.hex()}\n"


def test_no_firmware_to_put_it_into(command: Command) -> None:
    command("build", "--scheme", "regions", "--c-bit", 51, "--igvm", "-o", ".")
    for by in ("volume", "hob"):
        outcome = command("ovmf", "inject", "regions.igvm", "-o", "x", "--scheme", "regions", "--by", by)
        message = "IGVM: no firmware: no measured page ends at 0x100000000"
        assert outcome == (1, "", f"build.py: error: regions.igvm: {message}\n")


def test_policies_are_what_a_careful_owner_demands() -> None:
    assert (POLICIES[Platform.SEV], POLICIES[Platform.SEV_ES]) == (POLICY, POLICY_ES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--igvm"], "--igvm needs --c-bit: there are page tables among the pages"),
        (["--policy", "0xf"], "--policy is for an IGVM file: give --igvm"),
    ],
)
def test_what_does_not_go_together(command: Command, arguments: list[str], message: str) -> None:
    assert command("build", *arguments) == (2, "", f"build.py: error: {message}\n")


def test_no_policy(command: Command) -> None:
    outcome = command("build", "--igvm", "--c-bit", 51, "--policy", 1 << 32)
    assert outcome.code == 2
    assert outcome.err.endswith("--policy: '4294967296' is not a guest policy of 32 bits (examples: 15, 0xf)\n")


def test_a_helper_that_no_reader_would_take(command: Command, tmp_path: Path) -> None:
    """What a strict finish needs for 64 GiB of RAM is 512 MiB."""
    layout = ("--scheme", "isolated", "--strict", "--c-bit", 51)
    outcome = command("build", *layout, "--igvm")
    assert outcome.code == 1
    assert outcome.err.endswith("bytes of private memory, an IGVM file is read up to 0x20000000\n")
    assert not (tmp_path / "out").exists()
