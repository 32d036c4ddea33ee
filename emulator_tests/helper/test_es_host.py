"""A host of an SEV-ES guest: what it cannot set, cannot see, and cannot make the helper do."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest

from emulator_tests.helper.conftest import DRAM_BYTES, PAGES, SECRET
from emulator_tests.helper.test_handover import started
from emulator_tests.helper.test_migrate import loaded
from emulator_tests.machine.guests import fails
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS
from mh_emulator.cpu.registers import Registers
from mh_emulator.host.launch import Launch, launch
from mh_emulator.host.placement import place
from mh_emulator.host.ring import HelperStopped
from mh_emulator.host.session import Batch, connect, export_batch
from mh_emulator.host.site import Site, prepare
from mh_emulator.kvm import Vm
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.owner import POLICY_ES, GuestOwner, OwnerRefuses
from mh_emulator.platform import Platform

C_MASK = 1 << PARTS["milan"].c_bit


def ground(image: Image) -> Site:
    """A guest that has not been launched."""
    helper = loaded(image)
    return prepare(Platform(PARTS["milan"], DRAM_BYTES, 1), place(PAGES * PAGE_BYTES, helper), helper)


@pytest.mark.parametrize("who", ["helper", "guest"])
def test_other_registers_at_the_start_are_no_helper_of_the_owners(
    es_images: dict[str, Image], monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """LAUNCH_UPDATE_VMSA measures what the host has set, so the owner sees another digest and keeps its key."""
    site = ground(es_images["regions"])
    worker = site.placement.worker(1, site.helper.image, site.base)
    protect = Launch.protect

    def change_and_protect(begun: Launch, vm: Vm, states: Iterable[Registers]) -> None:
        if (vm is site.vm) == (who == "guest"):
            vcpu = vm._vcpus[0]
            vcpu.set_registers(vcpu.get_registers().with_changes(rbx=1))
        protect(begun, vm, states)

    monkeypatch.setattr(Launch, "protect", change_and_protect)
    with pytest.raises(OwnerRefuses, match="^launch measurement: expected "):
        launch(site, GuestOwner(POLICY_ES), worker.contents(C_MASK), SECRET, worker.start(C_MASK))


def test_a_policy_without_es_takes_no_vmsa(es_images: dict[str, Image]) -> None:
    """The owner's policy decides: without bit 2 the secure processor gives the guest no ASID of that kind."""
    site = ground(es_images["regions"])
    with pytest.raises(OSError, match=r"KVM_SEV_LAUNCH_START: EIO \(firmware: INVALID_ASID\)"):
        launch(site, GuestOwner(POLICY_ES & ~4), (), SECRET)


def test_registers_of_guest_and_helper_are_nobodys(es_images: dict[str, Image]) -> None:
    machine = started(es_images["isolated"])
    machine.start_helper()
    for vcpu in (machine.vcpu, machine.mirror.vcpu):
        with fails(errno.EINVAL, "KVM_GET_REGS"):
            vcpu.get_registers()
        with fails(errno.EINVAL, "KVM_SET_REGS"):
            vcpu.set_registers(Registers.long_mode(0, 0, 0))


def test_a_request_for_no_ram_stops_the_helper(es_images: dict[str, Image]) -> None:
    """KVM makes the page MMIO, which is #VC: the helper has no handler but the one that wipes keys and says so."""
    machine = started(es_images["regions"])
    other = started(es_images["regions"])
    ring = machine.start_helper()
    connect(ring, other.start_helper())
    behind = machine.placement.topology.ram_bytes + PAGE_BYTES
    with pytest.raises(HelperStopped, match=r"MH_RING_FAULT, vector 29, error code 0x400, "):
        export_batch(ring, Batch(address=behind, count=1))


def test_a_target_that_goes_on_too_early_waits(es_images: dict[str, Image]) -> None:
    """The landing halts again while no registers have arrived."""
    site = ground(es_images["regions"])
    worker = site.placement.worker(1, site.helper.image, site.base)
    machine = launch(site, GuestOwner(POLICY_ES), worker.awaiting(C_MASK), SECRET, worker.landing(C_MASK))
    for _ in range(3):
        assert machine.run_guest() == Exit(Reason.HLT)
