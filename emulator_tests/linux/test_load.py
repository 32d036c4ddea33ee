"""Where everything lies, as a kernel reads it."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import pairwise

import pytest

from emulator_tests.linux.small import ADDRESS, ROOM, bzimage
from mh_emulator.host.topology import FOUR_GIB, Topology
from mh_emulator.linux.kernel import KernelError, read_kernel
from mh_emulator.linux.load import Plan, check, helper_home, load

MIB = 1 << 20
PLAN = Plan(
    read_kernel(bzimage(b"\xf4")), b"disk", "quiet", Topology(256 * MIB, 64 * MIB), range(0x200_0000, 0x280_0000)
)


def parameters(plan: Plan) -> bytes:
    loaded = load(plan, 51)
    return dict(loaded.contents)[loaded.registers.rsi]


def test_a_kernel_finds_its_parameters() -> None:
    """Documentation/arch/x86/zero-page.rst and boot.rst."""
    loaded = load(PLAN, 51)
    contents, zero = dict(loaded.contents), parameters(PLAN)
    assert loaded.registers.rip == ADDRESS + 0x200
    assert loaded.registers.cr3 >> 51 == 1
    assert contents[ADDRESS][0x200] == 0xF4
    assert zero[0x202:0x206] == b"HdrS"
    (line,) = struct.unpack_from("<I", zero, 0x228)
    assert contents[line].split(b"\0")[0] == b"quiet"
    where, size = struct.unpack_from("<II", zero, 0x218)
    assert (where, size) == (256 * MIB - 4096, 4)
    assert contents[where][:4] == b"disk"
    (rsdp,) = struct.unpack_from("<Q", zero, 0x70)
    assert contents[rsdp][:8] == b"RSD PTR "
    assert all(gpa % 16 == len(data) % 16 == 0 for gpa, data in loaded.contents)


def test_nothing_lies_on_anything_else() -> None:
    pieces = sorted((gpa, gpa + len(data)) for gpa, data in load(PLAN, 51).contents)
    assert all(one[1] <= other[0] for one, other in pairwise(pieces))
    assert not any(start < PLAN.reserved.stop and PLAN.reserved.start < end for start, end in pieces)


@pytest.mark.parametrize("has_helper", [True, False])
def test_the_memory_map(has_helper: bool) -> None:
    plan = PLAN if has_helper else replace(PLAN, reserved=range(0x200_0000, 0x200_0000))
    zero = parameters(plan)
    found = [struct.unpack_from("<QQI", zero, 0x2D0 + 20 * n) for n in range(zero[0x1E8])]
    low = [(0, 0x9F000, 1), (0x9F000, 0x1000, 3)]
    high = [(FOUR_GIB, 64 * MIB, 1)]
    middle = [(MIB, 0x1F0_0000, 1), (0x200_0000, 0x80_0000, 2), (0x280_0000, 0xD80_0000, 1)]
    assert found == [*low, *(middle if has_helper else [(MIB, 255 * MIB, 1)]), *high]


def test_the_helper_lies_behind_what_the_kernel_needs() -> None:
    assert helper_home(PLAN.kernel) == -(-(ADDRESS + ROOM) // 0x20_0000) * 0x20_0000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command_line": "a\0b"}, "command line of 3 bytes: no zeros, at most 255"),
        ({"command_line": "x" * 256}, "command line of 256 bytes: no zeros, at most 255"),
        ({"initrd": bytes(0xD80_0001)}, "initrd of 0xd800001 bytes: above 0x2800000 there is room for 0xd800000"),
        ({"topology": Topology(0x270_0000, 0)}, "kernel and helper reach 0x2800000, RAM below 4 GiB 0x2700000"),
        ({"kernel": read_kernel(bzimage(b"\xf4", room=0xF000_0000))}, "kernel and helper reach 0xf1000000, RAM below"),
        ({"kernel": read_kernel(bzimage(b"\xf4", address=0x8000))}, "the kernel wants to be at 0x8000: below 0x100000"),
        ({"kernel": read_kernel(bzimage(b"\xf4", address=ADDRESS + 16))}, "the kernel wants to be at 0x1000010: below"),
        ({"kernel": read_kernel(bzimage(b"\xf4", address=1 << 63))}, "kernel and helper reach 0x8000000000100000, RAM"),
    ],
)
def test_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(KernelError) as caught:
        check(replace(PLAN, **changes))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_line_of_the_longest_and_a_disk_that_just_fits() -> None:
    check(replace(PLAN, command_line="x" * 255, initrd=bytes(0xD80_0000)))
