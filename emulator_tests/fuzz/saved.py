"""A machine as it was at some point, to be brought back there again and again."""

from __future__ import annotations

from collections.abc import Sequence

from mh_emulator.cpu.rdrand import Repeating
from mh_emulator.dram.process import UserMemory
from mh_emulator.host.machine import Machine


class Saved:
    """DRAM, who has which frames of it, registers of the helper's halted vCPUs, and the generator behind RDRAND.

    What CPUs have cached of code stays: no code changes, and it must not tell.
    """

    def __init__(self, machine: Machine, memories: Sequence[UserMemory]) -> None:
        self._machine = machine
        self._memories = memories
        dram = machine.platform.dram
        self._bytes, self._views = bytes(dram.view), dram.views[:]
        self._next = dram._frames._state, dram._frames._started
        self._frames = [(bytes(memory._frames.cast("B")), list(memory._populated)) for memory in memories]
        self._registers = [vcpu.get_registers() for vcpu in machine.mirror.vcpus]
        generator = machine.platform.generator
        assert isinstance(generator, Repeating)
        self._generator = generator
        self._random = generator._values.getstate(), generator._given

    def restore(self) -> None:
        """Bring all back."""
        dram = self._machine.platform.dram
        dram.view[:] = self._bytes
        dram.views[:] = self._views
        dram._frames._state, dram._frames._started = self._next
        for memory, (frames, populated) in zip(self._memories, self._frames, strict=True):
            memory._frames.cast("B")[:] = frames
            memory._populated[:] = populated
        self._generator.fault = None
        self._generator._values.setstate(self._random[0])
        self._generator._given = self._random[1]
        for vcpu, registers in zip(self._machine.mirror.vcpus, self._registers, strict=True):
            vcpu._injected = None
            vcpu.set_registers(registers)
