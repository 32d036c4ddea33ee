"""A machine as it was at some point, to be brought back there again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mh_emulator.cpu.rdrand import Generator, Repeating
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.process import UserMemory
from mh_emulator.host.machine import Machine
from mh_emulator.kvm import EsVcpu, Vcpu
from mh_emulator.kvm.vcpu import Answer

Restore = Callable[[], None]
"""Brings one thing back to what it was when this was made."""


class Saved:
    """Whatever is brought back, in this order.

    What CPUs have cached of code stays: no code changes, and it must not tell.
    """

    def __init__(self, restores: Iterable[Restore]) -> None:
        self._restores = list(restores)

    @classmethod
    def of(cls, machine: Machine, memories: Sequence[UserMemory]) -> Saved:
        """A guest of plain SEV or SEV-ES whose helper's vCPUs have halted, and `memories` of its host."""
        return cls(
            (
                *of_platform(machine.platform.dram, machine.platform.generator, memories),
                attribute(machine.platform.psp.region, "_checked", dict),
                *(restore for vcpu in machine.mirror.vcpus for restore in of_vcpu(vcpu)),
            )
        )

    def restore(self) -> None:
        """Bring all back."""
        for restore in self._restores:
            restore()


def attribute(of: object, name: str, copy: Callable[[Any], Any] = lambda value: value) -> Restore:
    """An attribute; `copy` makes one of it that does not change with it."""
    value = copy(getattr(of, name))
    return lambda: setattr(of, name, copy(value))


def of_platform(dram: Dram, generator: Generator, memories: Iterable[UserMemory]) -> Iterator[Restore]:
    """DRAM, who has which frames of it, and the generator behind RDRAND."""
    yield _dram(dram)
    yield from map(_memory, memories)
    yield _generator(generator)


def of_vcpu(vcpu: Vcpu) -> Iterator[Restore]:
    """What a host can see of it, or make it do; a VMSA is DRAM's."""
    yield attribute(vcpu, "_injected")
    yield attribute(vcpu, "_pending")
    yield lambda: setattr(vcpu, "_answer", Answer())
    yield attribute(vcpu._core.msrs, "ghcb")
    if isinstance(vcpu, EsVcpu):
        yield lambda: setattr(vcpu._core, "held", None)
        yield vcpu.flush_translations
    else:
        registers = vcpu.get_registers()
        yield lambda: vcpu.set_registers(registers)


def _dram(dram: Dram) -> Restore:
    contents, views, given = bytes(dram.view), dram.views[:], bytes(dram._given)
    handed_out, resident = attribute(dram, "given"), attribute(dram.resident, "_order", deque)

    def restore() -> None:
        dram.view[:] = contents
        dram.views[:] = views
        dram._given[:] = given
        handed_out()
        resident()

    return restore


def _memory(memory: UserMemory) -> Restore:
    frames, populated = bytes(memory._frames.cast("B")), list(memory._populated)

    def restore() -> None:
        memory._frames.cast("B")[:] = frames
        memory._populated[:] = populated

    return restore


def _generator(generator: Generator) -> Restore:
    assert isinstance(generator, Repeating)
    values, given = generator._values, attribute(generator, "_given")
    state = values.getstate()

    def restore() -> None:
        generator.fault = None
        values.setstate(state)
        given()

    return restore
