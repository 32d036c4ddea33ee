"""The state of a plain SEV guest and of its devices, between two instructions, for a snapshot.

What is not in it is made again by the launch: keys, handles, slots, the mirror, what fw_cfg offers. What the CPU keeps
is in the layout of a VMSA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.rdrand import Repeating
from mh_emulator.dram.process import UserMemory
from mh_emulator.host import handover
from mh_emulator.host.consent import ConsentState
from mh_emulator.host.machine import Machine
from mh_emulator.q35.board import Board, BoardState
from mh_emulator.q35.interrupts import Timer, TimerState
from mh_emulator.snapshot import frames
from mh_emulator.snapshot.codec import decode
from mh_emulator.snapshot.errors import SnapshotError
from mh_emulator.snapshot.frames import FramesState

_MOST_DRAWN = 1 << 24


class MachineState(NamedTuple):
    """One guest with its devices; `key` is that of the memory controller behind `asid`, `drawn` counts its RDRAND."""

    asid: int
    key: bytes
    vmsa: bytes
    msrs: dict[int, int]
    msr_devices: dict[int, int]
    drawn: int | None
    consent: ConsentState
    regions: bytes | None
    """What the guest has handed over, where it does, as it writes it."""
    board: BoardState
    timer: TimerState | None
    frames: FramesState


def take(machine: Machine, board: Board) -> tuple[MachineState, list[bytes]]:
    """The state of a guest that has left without anything to be answered, and the body of its frames."""
    vcpu, generator, dram = machine.vcpu, machine.vm.generator, machine.platform.dram
    key = dram.key(machine.asid)
    state, body = frames.save(dram, key, _memories(machine))
    return MachineState(
        machine.asid,
        key,
        vmsa.store(bytes(PAGE_BYTES), vcpu.get_registers()),
        dict(vcpu.msrs),
        {index: device.read() for index, device in vcpu.msr_devices.items()},
        generator.drawn if isinstance(generator, Repeating) else None,
        machine.consent.state,
        handover.write(machine.regions) if machine.helper.hands_over else None,
        board.state,
        board.interrupts.state if isinstance(board.interrupts, Timer) else None,
        state,
    ), body


def put(machine: Machine, board: Board, said: object, body: memoryview) -> None:
    """Have a guest that has just been launched, and has not begun, be in that state. Raises `SnapshotError`."""
    state = decode(MachineState, said, "state")
    launched = machine.asid, machine.platform.dram.key(machine.asid)
    if (state.asid, state.key) != launched:
        raise SnapshotError(
            f"ASID {state.asid:#x} with its key, where the launch has {launched[0]:#x} with another key"
        )
    try:
        _put_msrs(machine, state)
        frames.restore(machine.platform.dram, state.key, _memories(machine), state.frames, body)
        _put_registers(machine, state.vmsa)
        _put_said(machine, state)
        board.restore(state.board)
        _put_timer(board, state.timer)
    except SnapshotError:
        raise
    except ValueError as error:
        raise SnapshotError(f"no state of this machine: {error}") from None


def _memories(machine: Machine) -> Sequence[UserMemory]:
    """RAM, flash, and the helper's where it has memory of its own."""
    shown = machine.vm.memories
    return shown if machine.helper_memory in shown else [*shown, machine.helper_memory]


def _put_msrs(machine: Machine, state: MachineState) -> None:
    """Before RAM: what a write does there is in it already."""
    vcpu = machine.vcpu
    for found, known in ((state.msrs, vcpu.msrs), (state.msr_devices, vcpu.msr_devices)):
        if found.keys() != known.keys():
            raise SnapshotError(f"MSRs {_list(found.keys() ^ known.keys())} are on one side only")
    vcpu.msrs = dict(state.msrs)
    for index, value in state.msr_devices.items():
        vcpu.msr_devices[index].write(value)


def _put_registers(machine: Machine, page: bytes) -> None:
    if len(page) != PAGE_BYTES:
        raise SnapshotError(f"registers of {len(page):#x} bytes, not {PAGE_BYTES:#x}")
    registers = vmsa.load(page)
    machine.vcpu.set_registers(registers)
    if machine.vcpu.get_registers() != registers:
        raise SnapshotError("registers that no CPU of this machine can have")


def _put_said(machine: Machine, state: MachineState) -> None:
    machine.consent.restore(state.consent)
    if (state.regions is None) is machine.helper.hands_over:
        raise SnapshotError("the helper of one side is handed over, and that of the other is not")
    if state.regions is not None:
        if len(state.regions) != len(abi.mh_handover):
            raise SnapshotError(f"a hand-over of {len(state.regions):#x} bytes, not {len(abi.mh_handover):#x}")
        machine.regions = handover.read(state.regions, machine.limits())
    generator = machine.vm.generator
    if not isinstance(generator, Repeating):
        return
    if state.drawn is None or not generator.drawn <= state.drawn <= _MOST_DRAWN:
        raise SnapshotError(f"{state.drawn} numbers drawn, at most {_MOST_DRAWN:#x}")
    while generator.drawn < state.drawn:
        generator.next()


def _put_timer(board: Board, state: TimerState | None) -> None:
    timer = board.interrupts
    if isinstance(timer, Timer) is (state is None):
        raise SnapshotError("the timer of one side interrupts, and that of the other does not")
    if isinstance(timer, Timer) and state is not None:
        timer.restore(state)


def _list(numbers: Sequence[int] | set[int]) -> str:
    return ", ".join(f"{number:#x}" for number in sorted(numbers))
