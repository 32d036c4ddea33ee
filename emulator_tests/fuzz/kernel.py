"""The kernel of an SNP guest's host: what it does with requests to the secure processor, and at exits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu.intercepts import Code, Intercept
from mh_emulator.kvm import SnpVcpu
from mh_emulator.kvm.exits import Exit
from mh_emulator.kvm.image_vm import ImageVm

_GHCB_BYTES = 0x3F8
"""Of the page, up to the end of the valid bitmap (mh_ghcb)."""


@dataclass
class Kernel:
    """What it does from now on."""

    message: str = "carried"
    """One of `script.MESSAGES`."""
    exits: str = "served"
    """One of `script.SERVED`."""
    by: int = 0
    status: int = 0
    """Told in the place of the firmware's, where it is not 0."""
    _answers: list[bytes] = field(default_factory=list)

    def carry(self, message: bytes, status: int, answer: bytes) -> tuple[int, bytes]:
        """What the guest is told, of an answer that the secure processor has made."""
        seen = self._answers[self.by % len(self._answers)] if self._answers else bytes(PAGE_BYTES)
        self._answers.append(answer)
        told = {
            "carried": answer,
            "bit": _with_bit(answer, self.by),
            "seen before": seen,
            "nothing": b"",
            "sent back": message,
        }[self.message]
        return self.status or status, told.ljust(PAGE_BYTES, b"\0")


def _with_bit(data: bytes, by: int) -> bytes:
    changed = bytearray(data)
    changed[by * 37 % 1024] ^= 1 << by % 8
    return bytes(changed)


class PlayedVm(ImageVm):
    """A VM whose kernel is `kernel`."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.kernel = Kernel()

    def request(self, request: bytes) -> tuple[int, bytes]:
        """Carry a message, or keep it back."""
        if self.kernel.message == "kept back":
            return self.kernel.status, bytes(PAGE_BYTES)
        return self.kernel.carry(request, *super().request(request))

    def create_vcpu(self) -> SnpVcpu:
        """KVM_CREATE_VCPU."""
        vcpu = PlayedVcpu(self)
        self._vcpus.append(vcpu)
        return vcpu


class PlayedVcpu(SnpVcpu):
    """A vCPU of it."""

    def __init__(self, vm: PlayedVm) -> None:
        super().__init__(vm)
        self._played = vm

    def _handle(self, stop: Intercept) -> Exit | None:
        if stop.code is not Code.VMGEXIT or self._core.vmpl:
            return super()._handle(stop)
        kernel = self._played.kernel
        if kernel.exits == "ignored":
            return None
        exit_ = super()._handle(stop)
        if kernel.exits == "answered with noise":
            self._core.msrs.ghcb = kernel.by * 0x0101_0101_0101_0101
            if self._ghcb_gpa is not None:
                self._write_shared(self._ghcb_gpa, bytes([kernel.by]) * _GHCB_BYTES)
        return exit_
