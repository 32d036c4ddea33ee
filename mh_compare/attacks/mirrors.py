"""The host against KVM's rules for mirrors, and with more mirrors than one."""

from __future__ import annotations

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import HELPER_VA, Start
from mh_compare.arena import export_entry
from mh_compare.attacks.attack import Attack
from mh_compare.evidence import nonce_reuse
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, succeeds
from mh_emulator.kvm import Vcpu

_ENOUGH = 100_000
"""Instructions in which a page is exported."""

_STRIDE = 4
"""Instructions; fewer than `describe_packet` has."""


def launch_into_mirror(arena: MirrorArena) -> Outcome:
    """Have the secure processor encrypt host data through the mirror."""
    machine = arena.source.machine
    machine.mirror.vm.sev_launch_update_data(machine.platform.memory(PAGE_BYTES), 0, PAGE_BYTES)
    return succeeds("the host's data is under the guest's key")


def launch_late(arena: MirrorArena) -> Outcome:
    """Have the secure processor encrypt host data through the main VM, after its launch."""
    machine = arena.source.machine
    machine.vm.sev_launch_update_data(machine.platform.memory(PAGE_BYTES), 0, PAGE_BYTES)
    return succeeds("the host's data is under the guest's key")


def mirror_of_mirror(arena: MirrorArena) -> Outcome:
    """Make a mirror of the mirror."""
    machine = arena.source.machine
    arena.create_vm(machine.platform).copy_enc_context_from(machine.mirror.vm)
    return succeeds("a mirror of a mirror")


def second_mirror(arena: MirrorArena) -> Outcome:
    """Let two mirrors serve one ring: the second when the first has described its packet, and not spent the number."""
    source = arena.exporting()
    first = source.machine.mirror.vcpu
    second = _another(arena)
    entry = source.ring.header().head % abi.MH_RING_ENTRIES * len(abi.mh_submission)
    source.ring.submit(export_entry(arena.address(0)))
    describe, seal = (HELPER_VA + arena.offset(symbol) for symbol in ("describe_packet", "seal_packet"))
    source.step_until(describe, seal, _STRIDE)
    source.step_until(seal, seal + 1)
    source.ring.write(abi.MH_RING_SUBMISSIONS + entry, export_entry(arena.address(1)))
    second.run(_ENOUGH)
    overtaken = source.ring.take_sealed(0)
    first.run(_ENOUGH)
    return nonce_reuse(source.ring.take_sealed(0), overtaken, arena.plaintext(0), arena.plaintext(1))


def _another(arena: MirrorArena) -> Vcpu:
    """A second mirror with the slots of the first, its vCPU in the state of the first's, behind its claim.

    Its stack is the one for faults. Under SEV-ES the host has not got that state: it is to begin as the first did.
    """
    machine = arena.source.machine
    mirror = arena.create_vm(machine.platform)
    mirror.copy_enc_context_from(machine.vm)
    for number, slot in enumerate(machine.mirror_slots()):
        mirror.set_user_memory_region(number, slot.gpa, slot.size, slot.memory, slot.offset)
    vcpu = mirror.create_vcpu()
    if arena.start is Start.ES:
        vcpu.set_registers(machine.mirror.helper.registers())
        mirror.sev_launch_update_vmsa()
        return vcpu
    stack = arena.candidate.image.section(".fault_stack")
    state = machine.mirror.vcpu.get_registers()
    vcpu.set_registers(state.with_changes(rip=HELPER_VA + arena.offset("serve"), rsp=stack.va + stack.size // 2))
    return vcpu


_TWO_VIEWS = (
    "KVM allows any number of mirrors, and plain SEV lets the host copy registers. Under SEV-ES a mirror's VMSA has "
    "to be measured before LAUNCH_FINISH, so the owner sees a second one."
)

ATTACKS = (
    Attack("host-launches-into-mirror", "Host encrypts data through the mirror", launch_into_mirror, is_gentle=True),
    Attack("host-launches-late", "Host encrypts data through the running main VM", launch_late, is_gentle=True),
    Attack("host-mirrors-mirror", "Host makes a mirror of the mirror", mirror_of_mirror, is_gentle=True),
    Attack("host-second-mirror", "Host lets a second mirror race the first", second_mirror, _TWO_VIEWS),
)
