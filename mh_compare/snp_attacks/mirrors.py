"""The host makes mirrors of an SNP guest."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_compare.outcome import Outcome, refused, succeeds
from mh_compare.snp_arena import SnpArena, SnpSide
from mh_emulator.kvm import SnpVm
from mh_emulator.kvm.exits import Reason


def launch_into_mirror(arena: SnpArena) -> Outcome:
    """Have the secure processor encrypt host data through a mirror."""
    source = arena.source
    _launch(source, _mirror(source), arena.vmsa_gpa + PAGE_BYTES)
    return succeeds("the host's data is under the guest's key")


def launch_late(arena: SnpArena) -> Outcome:
    """Have the secure processor encrypt host data into the guest, after its launch."""
    _launch(arena.source, arena.source.machine.vm, arena.vmsa_gpa + PAGE_BYTES)
    return succeeds("the host's data is under the guest's key")


def mirror_of_mirror(arena: SnpArena) -> Outcome:
    """Make a mirror of a mirror."""
    platform = arena.source.platform
    platform.create_vm().copy_enc_context_from(_mirror(arena.source))
    return succeeds("a mirror of a mirror")


def second_mirror(arena: SnpArena) -> Outcome:
    """Let a mirror serve the helper's ring beside the helper."""
    mirror = _mirror(arena.source)
    exit_ = mirror.create_vcpu().run(1)
    if exit_.reason is Reason.FAIL_ENTRY:
        return refused("VMRUN: VMEXIT_INVALID, for KVM gives a mirror no VMSA of the guest's")
    return succeeds(f"the mirror's vCPU runs: {exit_.reason.value}")


def _mirror(source: SnpSide) -> SnpVm:
    """A mirror of the guest with its memory."""
    vm = source.platform.create_vm()
    vm.copy_enc_context_from(source.machine.vm)
    for number, block in enumerate(source.machine.placement.topology.blocks):
        vm.set_user_memory_region(number, block.gpa, block.size, source.machine.memory, block.ram_addr)
    return vm


def _launch(source: SnpSide, vm: SnpVm, gpa: int) -> None:
    """Launch a page at a GPA where the guest has none."""
    vm.set_memory_attributes(gpa, PAGE_BYTES, private=True)
    vm.snp_launch_update(gpa, source.platform.memory(PAGE_BYTES), 0, PAGE_BYTES)
