"""Debian's kernel as an SEV guest, and its migration while its first process works. More of it: `guests.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.linux.small import bzimage
from mh_emulator.linux import work

ACTIVE = "Memory Encryption Features active: AMD SEV"


def test_a_stock_kernel_is_migrated_and_does_not_notice(linux_kernel: Path, command: Command) -> None:
    """It prints the same as one that stays, byte for byte: time stamps and digests too."""
    stays = command("boot", "--kernel", linux_kernel, "--json")
    moves = command("boot", "--kernel", linux_kernel, "--migrate", "--json")
    assert (stays.code, moves.code) == (0, 0), stays.err + moves.err
    one, other = json.loads(stays.out), json.loads(moves.out)
    assert one["console"] == other["console"]
    assert ACTIVE in one["console"]
    assert one["console"].replace("\r", "").endswith("\n".join([*work.lines(), ""]))
    assert one["guest_ok"]
    assert other["guest_ok"]
    assert (one["moved"], one["pages"], one["equal"], one["scheme"]) == (None, None, None, "regions")
    assert one["helper_equal"]
    assert other["helper_equal"]
    moved = other["moved"]
    assert moved["pages"] == other["pages"] > 15_000
    assert moved["shared_pages"] >= 16_384, "SWIOTLB alone has 64 MiB"
    assert other["equal"]
    assert (moved["equal"], moved["source_plain_pages"], moved["naive_equal_pages"]) == (True, 0, 0)
    seen = [milestone["what"] for milestone in other["milestones"]]
    half = work.lines()[work.STEPS // 2]
    assert seen[0] == "launched"
    assert seen.index(ACTIVE) < seen.index("Run /init as init process") < seen.index(half)
    assert seen[seen.index(half) : seen.index(half) + 3] == [half, "stopped", "moved"]
    assert seen[-2:] == [work.DONE, "idle"]


def test_something_has_to_be_booted(command: Command) -> None:
    outcome = command("boot", "--migrate")
    assert (outcome.code, outcome.err) == (2, "build.py: error: one of --fd and --kernel is needed, or both\n")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--start", "es", "--fd", "own"), 2, "--start es: a kernel is booted through firmware in plain SEV only"),
        (("--start", "es", "--migrate", "--at", "syscall"), 2, "--start es: KVM sets no breakpoint in such a guest"),
        (("--vars", "x"), 2, "--vars needs --fd"),
        (("--at", "3"), 2, "--at needs --migrate"),
        (("--post-copy",), 2, "--post-copy needs --migrate"),
        (("--post-copy", "--migrate", "--start", "es"), 2, "--start es: the registers of such a guest come with its"),
        (("--migrate", "--at", "12"), 2, "--at '12': neither a step, 0 to 11, nor idle, syscall, interrupt"),
        (("--migrate", "--at", "12+1"), 2, "--at '12+1': neither a step, 0 to 11, nor idle, syscall, interrupt"),
        (("--migrate", "--at", "3+"), 2, "--at '3+': neither a step, 0 to 11, nor idle, syscall, interrupt"),
        (("--migrate", "--at", "-1"), 2, "--at '-1': neither a step, 0 to 11, nor idle, syscall, interrupt"),
        (("--migrate", "--at", "sent"), 2, "--at 'sent': neither a step, 0 to 11, nor idle, syscall, interrupt"),
        (("--migrate", "--initrd", "disk", "--at", "3"), 2, "--at 3 needs our first process"),
        (("--migrate", "--initrd", "disk", "--at", "syscall"), 2, "--at syscall needs our first process"),
        (("--initrd", "nothing"), 2, "nothing: No such file or directory"),
        (("--initrd", "large", "--memory", "128M"), 1, "large: 0x8000001 bytes, at most 0x8000000 are expected"),
        (
            ("--initrd", "most", "--memory", "128M"),
            1,
            "own: initrd of 0x8000000 bytes: above 0x1200000 there is room for",
        ),
        (("--append", "x" * 256), 1, "own: command line of 256 bytes: no zeros, at most 255"),
        (("--append", "a\0b"), 1, "own: command line of 3 bytes: no zeros, at most 255"),
        (("--memory", "64M"), 2, "--memory 0x4000000: not in 0x8000000 to 0x80000000"),
    ],
)
def test_bad_requests(command: Command, tmp_path: Path, options: tuple[str, ...], code: int, message: str) -> None:
    (tmp_path / "own").write_bytes(bzimage(b"\xf4"))
    for name, size in (("disk", 4), ("most", 1 << 27), ("large", (1 << 27) + 1)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    outcome = command("boot", "--kernel", "own", *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err.splitlines()[-1]
    assert len([line for line in outcome.err.splitlines() if "error" in line]) == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("text", b"no kernel at all", "text: no kernel: no setup header of x86"),
        ("arm", bytes(0x38) + b"ARMd" + bytes(999), "arm: a kernel for arm64, not for x86-64"),
        ("old", bzimage(b"\xf4", xload_flags=0), "old: no entry for 64-bit mode: xloadflags 0x0"),
    ],
)
def test_other_files(command: Command, tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    outcome = command("boot", "--kernel", name)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.endswith(f"{message}\n")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--initrd", "--append", "--at"])
def test_firmware_takes_no_kernels_options(command: Command, option: str) -> None:
    outcome = command("boot", "--fd", "nothing.fd", option, "x")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{option} needs --kernel" in outcome.err


def test_firmware_alone_is_not_followed_by_its_pages(command: Command) -> None:
    outcome = command("boot", "--fd", "nothing.fd", "--migrate", "--post-copy")
    assert (outcome.code, outcome.err) == (2, "build.py: error: --post-copy needs --kernel\n")


def test_a_kernel_without_our_process(command: Command, tmp_path: Path) -> None:
    """Nobody knows what another first process has to print."""
    (tmp_path / "own").write_bytes(bzimage(b"\xfb\xf4"))
    (tmp_path / "disk").write_bytes(b"disk")
    outcome = command("boot", "--kernel", "own", "--initrd", "disk", "--memory", "128M", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["guest_ok"] is None


def test_a_kernel_that_prints_the_wrong(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(bzimage(b"\xfb\xf4"))
    outcome = command("boot", "--kernel", "own", "--memory", "128M")
    assert outcome.code == 1
    assert "first process: WRONG" in outcome.out
