"""The launch of a guest, one command of KVM after the other.

Source: SEV API (AMD 55766), sections 2.2 and 6.1 to 6.6; Linux, Documentation/virt/kvm/x86/amd-memory-encryption.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import Place
from mh_emulator.host.machine import Machine
from mh_emulator.host.site import Site
from mh_emulator.kvm import Vm
from mh_emulator.owner import GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

T = TypeVar("T")

Launcher = Callable[[Site, GuestOwner, Iterable[tuple[int, bytes]], Secret, Registers | None], Machine]
"""As `launch`."""


class Recorder(Protocol):
    """Sees every command that a host gives."""

    def do(self, command: str, call: Callable[[], T]) -> T:
        """Give the command of that name by `call`."""


class Unrecorded:
    """Nobody looks."""

    def do(self, _command: str, call: Callable[[], T]) -> T:
        """Give the command."""
        return call()


UNRECORDED = Unrecorded()


class Launch:
    """A launch of `vm` that has started, under a key of its own or that of the guest `handle`; `finish` ends it.

    Every command may raise `KvmError`.
    """

    def __init__(
        self, platform: Platform, vm: Vm, owner: GuestOwner, handle: int = 0, recorder: Recorder = UNRECORDED
    ) -> None:
        """Raises `OwnerRefuses` for the platform."""
        self._vm = vm
        self._owner = owner
        self._do = recorder.do
        self._expected = owner.expect()
        if vm.has_protected_state:
            self._do("KVM_SEV_INIT2", vm.sev_init2)
        else:
            self._do("KVM_SEV_INIT", vm.sev_init)
        session = owner.open_session(platform.credentials())
        self._do("KVM_SEV_LAUNCH_START", lambda: vm.sev_launch_start(owner.policy, session, handle))

    def load(self, place: Place, data: bytes) -> None:
        """Encrypt `data` in place, wherever that is: no slot matters."""
        place.memory.write_raw(place.offset, data)
        update = partial(self._vm.sev_launch_update_data, place.memory, place.offset, len(data))
        self._do("KVM_SEV_LAUNCH_UPDATE_DATA", update)
        self._expected.add(data)

    def protect(self, vm: Vm, states: Iterable[Registers]) -> None:
        """Encrypt the registers of all vCPUs of the guest or of a mirror; the owner expects `states`."""
        self._do("KVM_SEV_LAUNCH_UPDATE_VMSA", vm.sev_launch_update_vmsa)
        for state in states:
            self._expected.add(vmsa.make(state, fpu=True))

    def finish(self, secret: bytes, places: Iterable[Place]) -> None:
        """Have the owner check the measurement, and put its secret into each place. Raises `OwnerRefuses`."""
        measurement = self._do("KVM_SEV_LAUNCH_MEASURE", self._vm.sev_launch_measure)
        packet = self._owner.wrap_secret(measurement, self._expected, secret)
        for place in places:
            put = partial(self._vm.sev_launch_secret, packet, place.memory, place.offset)
            self._do("KVM_SEV_LAUNCH_SECRET", put)
        self._do("KVM_SEV_LAUNCH_FINISH", self._vm.sev_launch_finish)


def launch(
    site: Site,
    owner: GuestOwner,
    contents: Iterable[tuple[int, bytes]],
    secret: Secret,
    registers: Registers | None = None,
) -> Machine:
    """Encrypt helper and `contents` ((GPA, bytes) each) in place; the owner checks, and gives its secret.

    The helper's bytes are measured wherever they lie: for `isolated` that is LAUNCH_UPDATE_DATA on the owner's VM
    with pages that only the mirror maps. Under SEV-ES the vCPUs of the mirror are measured too, so it is made here,
    and so is the guest's, which begins with `registers`. Raises `OwnerRefuses`, and `KvmError`.
    """
    begun = Launch(site.platform, site.vm, owner)
    for place, data in site.loaded:
        begun.load(place, data)
    for gpa, data in contents:
        begun.load(Place(site.memory, site.placement.topology.ram_addr(gpa)), data)
    vcpu = site.vm.create_vcpu()
    if registers is not None:
        vcpu.set_registers(registers)
    mirror = site.mirror()
    if site.es:
        begun.protect(mirror.vm, map(site.helper.registers, range(site.helper.vcpus)))
        begun.protect(site.vm, [registers or vcpu.get_registers()])
    begun.finish(secret.table(), site.secrets)
    return Machine(site, vcpu, mirror)
