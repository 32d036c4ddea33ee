"""The loaders in an SEV-ES guest: what they ask of the host goes through the firmware's handler of #VC."""

from __future__ import annotations

import errno

import pytest

from emulator_tests.firmware.machine import ES, SEV, Booted, Ground, small_image
from mh_builder.save_area import OFFSETS
from mh_emulator.kvm import EsVcpu, KvmError, Vcpu, Vm
from mh_emulator.kvm.exits import Exit
from mh_emulator.kvm.ghcb import Ghcb, Response
from mh_emulator.uefi.errors import FirmwareStopped

BITMAP = 0x3F0
"""Of the GHCB: a bit for each 8 bytes that are valid."""


class _Counting(EsVcpu):
    """Keeps the exit codes of what is asked in the page."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.codes: list[int] = []

    def _event(self, code: int, ghcb: Ghcb) -> Exit | None:
        self.codes.append(code)
        return super()._event(code, ghcb)


class _Refusing(EsVcpu):
    """Carries nothing out, and says that it could not."""

    def _event(self, _code: int, ghcb: Ghcb) -> Exit | None:
        ghcb.respond(Response.MALFORMED_INPUT, 0)
        return None


class _Silent(EsVcpu):
    """Goes back to the guest without an answer: the page tells of no register."""

    def _event(self, _code: int, _ghcb: Ghcb) -> Exit | None:
        return None


def omitting(register: str) -> type[EsVcpu]:
    """Answers, but does not say that this register is part of the answer."""

    class Omitting(EsVcpu):
        def _event(self, code: int, ghcb: Ghcb) -> Exit | None:
            exit_ = super()._event(code, ghcb)
            place = ghcb._spa + BITMAP
            bitmap = int.from_bytes(self._vm.dram.read_raw(place, 16), "little") & ~(1 << OFFSETS[register] // 8)
            self._vm.dram.write_raw(place, bitmap.to_bytes(16, "little"))
            return exit_

    return Omitting


def having(kind: type[EsVcpu]) -> type[Vm]:
    """A VM with such vCPUs."""

    class Having(Vm):
        def create_vcpu(self) -> Vcpu:
            vcpu = kind(self)
            self._vcpus.append(vcpu)
            return vcpu

    return Having


class _HasNoSuchMsr(Vm):
    """Promises MSR_KVM_MIGRATION_CONTROL, and has none."""

    def enable_user_space_msr(self, _reasons: int) -> None:
        super().enable_user_space_msr(0)


def test_everything_is_asked_in_the_page(driver: bytes) -> None:
    """CPUID, a byte of the debug port after the other, the MSR; and nobody saw a register."""
    booted = Booted(small_image("regions"), ES, driver, vm_type=having(_Counting))
    assert isinstance(booted.vcpu, _Counting)
    codes = booted.vcpu.codes
    assert set(codes) == {0x72, 0x7B, 0x7C}
    assert codes.count(0x7B) == len(booted.outcome.debug)
    assert codes.count(0x7C) == len(booted.outcome.msr_writes) == 1
    with pytest.raises(KvmError, match=errno.errorcode[errno.EINVAL]):
        booted.vcpu.get_registers()


@pytest.mark.parametrize("kind", [_Refusing, _Silent, *map(omitting, ("rax", "rbx", "rcx", "rdx"))])
def test_a_host_that_does_not_answer_ends_the_guest(driver: bytes, kind: type[EsVcpu]) -> None:
    """Before the loader has done anything: CPUID is the first that it asks for."""
    with pytest.raises(FirmwareStopped, match=r"reason=<Reason\.SYSTEM_EVENT: 'system-event'>"):
        Booted(small_image("regions"), ES, driver, vm_type=having(kind))


@pytest.mark.parametrize(("ground", "reason"), [(SEV, "SHUTDOWN"), (ES, "SYSTEM_EVENT")], ids=["SEV", "SEV-ES"])
def test_an_msr_that_was_promised_and_is_not_there(driver: bytes, ground: Ground, reason: str) -> None:
    """#GP, which this firmware has no handler for; under SEV-ES its handler of #VC ends the guest."""
    with pytest.raises(FirmwareStopped, match=rf"reason=<Reason\.{reason}:"):
        Booted(small_image("regions"), ground, driver, vm_type=_HasNoSuchMsr)
