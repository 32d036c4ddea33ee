"""What the host of an SEV-ES guest does beside what any host can: it writes into the pages of the vCPUs' registers."""

from __future__ import annotations

from emulator_tests.fuzz.ground import PAGE, Ground
from emulator_tests.fuzz.script import Step
from mh_emulator.kvm import EsVcpu
from mh_emulator.psp.vmsa import CHECKED_BYTES


class EsHost:
    """One script's host."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._first = [vcpu.vmsa.read_raw(0, PAGE) for vcpu in ground.vcpus if isinstance(vcpu, EsVcpu)]
        self._right: dict[int, bytes] = {}
        """What belongs into the pages that have something else."""

    def take(self, step: Step) -> None:
        """Write something into the page of a vCPU."""
        number, by = step.number("ring"), step.number("by")
        vcpu = self._vcpu(number)
        now = vcpu.vmsa.read_raw(0, PAGE)
        right = self._right.pop(number, now)
        changed = bytearray(now)
        changed[by * 16 % CHECKED_BYTES] ^= 1 << by % 8
        new = {
            "bit": bytes(changed),
            "as before": self._first[number],
            "zeros": bytes(PAGE),
            "other ring's": self._vcpu(1 - number).vmsa.read_raw(0, PAGE),
        }[str(step["what"])]
        vcpu.vmsa.write_raw(0, new)
        if new != right:
            self._right[number] = right

    def has_changed(self, number: int) -> bool:
        """Whether the page of a vCPU is other than the vCPU has left it."""
        return number in self._right

    def mend(self) -> None:
        """Put back what belongs there."""
        for number, right in self._right.items():
            self._vcpu(number).vmsa.write_raw(0, right)
        self._right.clear()

    def _vcpu(self, number: int) -> EsVcpu:
        vcpu = self._ground.vcpus[number]
        assert isinstance(vcpu, EsVcpu)
        return vcpu
