"""Devices on the engine of a plain guest: what an instruction asks of them is answered before its next one.

It stands for an exit that KVM_RUN completes at once: KVM decodes and emulates instructions of a plain guest.
Source: Linux, arch/x86/kvm/emulate.c; arch/x86/kvm/svm/svm.c (svm_can_emulate_instruction: what it may decode of SEV).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unicorn import unicorn_const, x86_const

from mh_emulator.cpu.devices import Devices
from mh_emulator.cpu.engine import Engine
from mh_emulator.dram.bus import Turn

WINDOW = 1 << 50
"""Physical address for the engine of what lies at GPA 0 and has no slot; no part has DRAM there."""
WINDOW_BYTES = 1 << 32


def attach(engine: Engine, devices: Devices, turn: Turn, leave: Callable[[], None]) -> None:
    """Have IN, OUT, and loads and stores of the window answered; `leave` the guest where an interrupt waits then.

    But not behind a load or a store: stopped there, the engine would begin the instruction again. What waits then is
    for the next exit.
    """

    @contextmanager
    def asking() -> Iterator[None]:
        with turn.hooked():
            yield
            if devices.vector() is not None:
                leave()

    def read_port(_uc: object, number: int, size: int, _data: object) -> int:
        with asking():
            return devices.read_port(number, size)

    def write_port(_uc: object, number: int, size: int, value: int, _data: object) -> None:
        with asking():
            devices.write_port(number, size, value & (1 << 8 * size) - 1)

    def read_memory(_uc: object, gpa: int, size: int, _data: object) -> int:
        with turn.hooked():
            return devices.read_memory(gpa, size)

    def write_memory(_uc: object, gpa: int, size: int, value: int, _data: object) -> None:
        with turn.hooked():
            devices.write_memory(gpa, size, value & (1 << 8 * size) - 1)

    uc = engine.uc
    uc.hook_add(unicorn_const.UC_HOOK_INSN, read_port, None, 1, 0, x86_const.UC_X86_INS_IN)
    uc.hook_add(unicorn_const.UC_HOOK_INSN, write_port, None, 1, 0, x86_const.UC_X86_INS_OUT)
    uc.mmio_map(WINDOW, WINDOW_BYTES, read_memory, None, write_memory, None)
