"""A kernel of a few instructions in a snapshot: what is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.linux.kept import ALLOW, FIRST, SAY, TINY, Place, boot, guest
from emulator_tests.linux.small import bzimage, kernel
from emulator_tests.linux.test_small import HANDLER, MSRS, RAM, SECRET, SET_TIMER
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_emulator.linux.boot import FIRST_PROCESS, Report
from mh_emulator.linux.stop import Stop
from mh_emulator.platform import Platform
from mh_emulator.q35 import saved
from mh_emulator.q35.board import Telling
from mh_emulator.q35.interrupts import TimerState
from mh_emulator.q35.run import GuestStopped
from mh_emulator.snapshot import file
from mh_emulator.snapshot.codec import encode

WRITES = "".join(
    f"mov ecx, {index}\n mov eax, {value & 0xFFFFFFFF}\n mov edx, {value >> 32}\n wrmsr\n"
    for index, value in MSRS.items()
)
READS = "".join(f"mov ecx, {index}\n rdmsr\n call hex\n mov eax, edx\n call hex\n" for index in MSRS)

KEEPS = f"""
    {ALLOW}
    {WRITES}
    fldpi
    mov rax, 0x1122334455667788
    movq xmm9, rax
    mov r14, rax
    xor r15, r15
    rdrand rbx
    mov dx, 0xcf8
    mov eax, 0x80000040
    out dx, eax
    mov dx, 0xcfc
    mov eax, 0x12345678
    out dx, eax
    mov al, 0x10
    out 0x70, al
    mov al, 0x5a
    out 0x71, al
    mov al, 0x11
    out 0x70, al
    mov dx, 0x600
    mov eax, 0x3000
    out dx, eax
    mov dx, 0x510
    mov ax, 0x19
    out dx, ax
    mov dx, 0x511
    in al, dx
    mov dx, 0x3ff
    mov al, 0x77
    out dx, al
    mov dx, 0x402
    mov al, 0x64
    out dx, al
    mov dx, 0x3f8
    mov al, 10
    out dx, al
    {SET_TIMER}
    sti
    hlt
    cli
    {SET_TIMER}
    {SAY}
    mov dx, 0x402
    mov al, 10
    out dx, al
    mov rdi, 0x3000000
    rdrand rax
    call hex
    mov dx, 0x3ff
    in al, dx
    call hex
    mov dx, 0x600
    in eax, dx
    call hex
    in al, 0x70
    call hex
    mov al, 0x10
    out 0x70, al
    in al, 0x71
    call hex
    mov dx, 0xcfc
    in eax, dx
    call hex
    mov dx, 0x511
    in eax, dx
    call hex
    rdtsc
    call hex
    {READS}
    fistp qword ptr [rsp - 8]
    mov rax, [rsp - 8]
    call hex
    movq rax, xmm9
    call hex
    sti
    hlt
    cli
    mov rax, r15
    call hex
    rdtsc
    call hex
    sti
2:  hlt
    jmp 2b
hex:
    push rdx
    push rcx
    mov ecx, 16
1:  rol rax, 4
    mov rdi, rax
    and edi, 15
    lea rsi, [rip + digits]
    mov r11b, [rsi + rdi]
    xchg rax, r11
    mov edx, 0x3f8
    out dx, al
    xchg rax, r11
    loop 1b
    mov al, 10
    out dx, al
    pop rcx
    pop rdx
    ret
{HANDLER}
digits: .ascii "0123456789abcdef"
{FIRST}
"""
"""Sets what CPU and devices keep, says the line, and prints what it finds then."""


def seen(report: Report) -> tuple[str, float, bool]:
    return report.console, report.milestones[-1].virtual_ms, report.good


@pytest.mark.parametrize(("part", "scheme"), [*((part, "regions") for part in PARTS), ("milan", "isolated")])
def test_the_rest_is_that_of_a_run_from_reset(images: Mapping[str, Image], part: str, scheme: str) -> None:
    """Of one that makes the snapshot, of one that goes on from it, and of one that moves then."""
    found, place = guest(images, KEEPS, part, scheme), Place([])
    whole, makes = boot(found).run(), boot(found, place).run()
    assert place.shelf().secret(SECRET.protection) == SECRET
    stays, moves = boot(found, place).run(), boot(found, place).migrate(Stop())
    assert whole.console.count("\n") > 2 * len(MSRS) + 8
    assert seen(whole) == seen(makes) == seen(stays) == seen(moves)
    assert [report.snapshot for report in (whole, makes, stays, moves)] == [None, "saved", "restored", "restored"]
    assert [one.what for one in stays.milestones] == ["launched", "restored", "idle"]
    assert len(place.files) == 1


def test_what_is_put_is_taken_again(images: Mapping[str, Image]) -> None:
    """Of every device too that says nothing of it."""
    found, place = guest(images, KEEPS), Place([])
    boot(found, place).run()
    head, body = file.read(place.files[0])
    running = found.way.power_on(Platform(found.part, RAM + (96 << 20), 1), Telling(lambda _: None, lambda _: None))
    fresh = encode(saved.take(running.machine, running.board)[0])
    saved.put(running.machine, running.board, head["state"], body)
    state, frames = saved.take(running.machine, running.board)
    assert encode(state) == head["state"]
    assert b"".join(frames) == body
    # Whatever a guest can change has been changed before, or this would say nothing of it.
    assert isinstance(fresh, dict)
    board = encode(state.board)
    assert isinstance(board, dict)
    assert [name for name, value in board.items() if value == fresh["board"][name]] == []
    assert state.timer != TimerState(0, 0)


def test_the_file_is_the_same_each_time(images: Mapping[str, Image]) -> None:
    """All that is random in it is the owner's."""
    places = Place([]), Place([])
    for place in places:
        boot(guest(images, TINY), place).run()
    assert places[0].files == places[1].files


def test_a_kernel_without_a_process_leaves_no_snapshot(images: Mapping[str, Image]) -> None:
    place = Place([])
    with pytest.raises(GuestStopped, match=f'^the guest is idle, and has not printed "{FIRST_PROCESS}"'):
        boot(guest(images, "sti\n hlt"), place).run()
    assert place.files == []


def test_the_command_saves_and_goes_on(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(kernel(TINY))
    (tmp_path / "disk").write_bytes(b"disk")
    run = ("boot", "--kernel", "own", "--initrd", "disk", "--memory", "128M", "--snapshot", "state")
    first, second, moved = command(*run, "--json"), command(*run, "--json"), command(*run, "--migrate", "--json")
    assert [one.code for one in (first, second, moved)] == [0, 0, 0], first.err + second.err + moved.err
    reports = [json.loads(one.out) for one in (first, second, moved)]
    assert [one["snapshot"] for one in reports] == ["saved", "restored", "restored"]
    assert [one["console"] for one in reports] == [f"{FIRST_PROCESS}\nmore\n"] * 3
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "own", "state"]
    for options, message in (
        (("--append", "x"), "command line: console=ttyS0 nokaslr mitigations=off panic=-1 reboot=t in the snapshot, x"),
        (("--part", "genoa"), "part: milan in the snapshot, genoa here"),
        (("--scheme", "isolated"), "scheme: regions in the snapshot, isolated here"),
        (("--memory", "129M"), "RAM: 0x8000000 bytes in the snapshot, 0x8100000 bytes here"),
    ):
        refused = command(*run, *options)
        assert (refused.code, refused.out) == (1, "")
        assert refused.err.splitlines()[-1].startswith(f"build.py: error: state: {message}")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-1])
    assert command(*run).err.startswith("build.py: error: state: 0x")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--snapshot", "no/state"), 2, "no/state: no is no folder"),
        (("--snapshot", "."), 2, ". is no regular file"),
        (("--snapshot", "own"), 1, "own: no snapshot: it begins with "),
        (("--snapshot", "state", "--start", "es"), 2, "--snapshot needs --start host: no host has the registers"),
    ],
)
def test_bad_requests(command: Command, tmp_path: Path, options: tuple[str, ...], code: int, message: str) -> None:
    (tmp_path / "own").write_bytes(bzimage(b"\xf4"))
    outcome = command("boot", "--kernel", "own", "--memory", "128M", *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(f"build.py: error: {message}")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "state").exists()


def test_a_snapshot_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    """The file takes its name when it is whole."""
    (tmp_path / "own").write_bytes(kernel(TINY))
    (tmp_path / "disk").write_bytes(b"disk")
    name = "x" * 255
    outcome = command("boot", "--kernel", "own", "--initrd", "disk", "--memory", "128M", "--snapshot", name)
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("build.py: error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "own"]
