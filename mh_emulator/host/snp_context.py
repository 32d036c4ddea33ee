"""How what the secure processor knows of a guest moves with it: by EXPORT at the source and ABSORB_NOMA at the target.

The target takes a guest in only where it was launched with exactly what the guest's launch has marked as its incoming
image: the helper, to the last VMSA. So both sides are launched by a KVM that can mark pages.
Source: AMD SEV-SNP firmware ABI (56860); AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c.
"""

from __future__ import annotations

from mh_abi import abi
from mh_builder.firmware.snp import Imi, WholeLaunch
from mh_emulator.host.ring import Request, Ring, Sealed
from mh_emulator.host.snp_machine import SnpMachine
from mh_emulator.kvm.image_vm import ImageVm

_SPA_BYTES = 8


class ImageMachine(SnpMachine):
    """The helper as incoming image."""

    incoming: Imi | WholeLaunch = WholeLaunch()
    moves_context = True

    @property
    def context_spa(self) -> int:
        """SPA of the guest's context page."""
        return self._image_vm.context_spa

    def give_context(self, target: SnpMachine) -> None:
        """Have the guest's context move to `target`, once the guest has stopped. Raises `HelperRefused`."""
        absorb_context(target.rings[0], export_context(self.rings[0], self.context_spa))

    def _create_vm(self) -> ImageVm:
        self._image_vm = self.platform.create(ImageVm)
        return self._image_vm


def export_context(ring: Ring, spa: int) -> Sealed:
    """Have the source's helper export the guest whose context lies there. Raises `HelperRefused`."""
    ring.put_packet(0, spa.to_bytes(_SPA_BYTES, "little"))
    ring.ask("context", Request(abi.mh_op.MH_OP_CONTEXT))
    return ring.take_sealed(0)


def absorb_context(ring: Ring, sealed: Sealed) -> None:
    """Have the target's helper become that guest. Raises `HelperRefused`."""
    ring.put_sealed(0, sealed)
    ring.ask("context", Request(abi.mh_op.MH_OP_CONTEXT))
