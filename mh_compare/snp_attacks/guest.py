"""The guest's own kernel, at VMPL1."""

from __future__ import annotations

from mh_builder.schemes.space import HELPER_VA
from mh_compare.arena import Op, Status
from mh_compare.attacks import guest
from mh_compare.guest_os import DATA
from mh_compare.outcome import Outcome, absent, harmless, refused, succeeds
from mh_compare.snp_arena import SnpArena
from mh_compare.vmpl1 import Vmpl1
from mh_emulator.rmp.entry import Perm
from mh_emulator.rmp.instructions import Code
from mh_emulator.snp.kvm.guest import rmpadjust


def overwrite_code(arena: SnpArena) -> Outcome:
    """Store code over the helper's entry."""
    guest.overwrite(arena, Vmpl1(arena, arena.source))
    return succeeds("the kernel at VMPL1 writes to the helper's code")


def read_key(arena: SnpArena) -> Outcome:
    """Load the transport key from the page of the owner's record."""
    return guest.key_in(guest.steal_key(arena, Vmpl1(arena, arena.source)))


def read_session(arena: SnpArena) -> Outcome:
    """Load the page key of a session."""
    kernel = Vmpl1(arena, arena.source)
    keys = arena.alone(arena.source)
    return guest.session_key_in(guest.copy(kernel, arena.offset("vcpu_page_key")), keys)


def call(arena: SnpArena) -> Outcome:
    """Jump to the helper's entry in the middle of a session."""
    source = arena.source
    kernel = Vmpl1(arena, source)
    arena.alone(source)
    guest.jump(arena, kernel)
    status = source.ask(Op.MH_OP_EXPORT, arena.address(0))
    if status == Status.MH_DONE:
        return harmless("the helper runs at VMPL1; the session goes on")
    return succeeds(f"the helper runs at VMPL1 and forgets its session: {status.name}")


def post_request(arena: SnpArena) -> Outcome:
    """Write a request into the ring, which is shared; then the host runs the helper."""
    source = arena.source
    kernel = Vmpl1(arena, source)
    arena.alone(source)
    return guest.post(arena, source, kernel)


def take_rights(arena: SnpArena) -> Outcome:
    """Give itself the page of the helper's record by RMPADJUST, then read the key there."""
    page = HELPER_VA + arena.helper.descriptor.secret_offset
    store = f"mov rdi, {DATA:#x}\n mov [rdi], rax\n hlt"
    found = Vmpl1(arena, arena.source).run(rmpadjust(page, 1, Perm.READ) + store)
    code = int.from_bytes(found[:8], "little")
    if code == Code.SUCCESS:
        return succeeds("the kernel at VMPL1 has the page")
    return refused(f"RMPADJUST: {Code(code).name}")


def lie_in_tuples(arena: SnpArena) -> Outcome:
    """Hand over tuples."""
    if arena.helper.hands_over:
        raise AssertionError("the helper takes tuples")
    return absent("nobody asks the guest where its helper lies: the owner has launched it there")
