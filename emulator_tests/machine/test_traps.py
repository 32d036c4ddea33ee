"""Instructions that leave the guest are found wherever code is executed: in blocks, and within other instructions."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import TEXT, Guest, assemble
from mh_emulator.cpu.traps import _starts
from mh_emulator.kvm.exits import Reason

IN_AL_DX, HLT = b"\xec", b"\xf4"
MOVABS = b"\x48\xb8"


@pytest.mark.parametrize("limit", [None, 10], ids=["free", "counted"])
def test_an_instruction_within_another(limit: int | None) -> None:
    """Executed as the last bytes of a number first, and then as IN."""
    guest = Guest()
    number = (bytes(6) + IN_AL_DX + HLT).ljust(8, b"\0")
    guest.contents[TEXT] = MOVABS + number + assemble(f"mov rcx, {TEXT + 8}\n jmp rcx")
    vcpu = guest.launch()
    exit_ = vcpu.run(limit)
    assert (exit_.reason, exit_.size) == (Reason.IO, 1)
    assert vcpu.get_registers().rax == int.from_bytes(number, "little")
    assert vcpu.run(limit).reason is Reason.HLT


@pytest.mark.parametrize("limit", [None, 10], ids=["free", "counted"])
def test_behind_a_halt(limit: int | None) -> None:
    """Where a CPU begins it is looked at once, and no further than to what ends a block."""
    guest = Guest()
    guest.contents[TEXT] = HLT + IN_AL_DX + HLT
    vcpu = guest.launch()
    assert [vcpu.run(limit).reason for _ in range(3)] == [Reason.HLT, Reason.IO, Reason.HLT]


@pytest.mark.parametrize(
    ("code", "instructions", "starts"),
    [
        (b"\x48\xb8" + bytes(8) + b"\xf4", 2, [0, 10]),
        (b"\x48\xf4", 2, [0, 1]),
        (b"\xb8\0\0\xf4", 2, [0, 3]),
        (b"\x0f\x04\xf4", 2, [0, 1, 2]),
    ],
    ids=["64-bit", "32-bit", "16-bit", "nobody's"],
)
def test_where_instructions_begin(code: bytes, instructions: int, starts: list[int]) -> None:
    """By what unicorn says of a block: so many instructions, of so many bytes."""
    assert list(_starts(code, instructions)) == starts
