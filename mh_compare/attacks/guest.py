"""The guest's own kernel against the helper, which lies in the guest's memory or does not."""

from __future__ import annotations

from mh_abi import abi
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET
from mh_compare.arena import TRANSPORT_KEY, export_entry
from mh_compare.attacks.attack import Attack
from mh_compare.guest_os import DATA, GuestOs, assemble
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, harmless, succeeds
from mh_emulator.host.machine import Machine

_MARK = b"\xbd\xc0\xde" + bytes(5)

_OWN_MEMORY = (
    "The helper lies in the main VM's memory, under its key, and SEV has no right that a guest's kernel lacks."
)


def overwrite_code(arena: MirrorArena) -> Outcome:
    """Store code over the helper's entry; then the host starts the helper."""
    machine = arena.launched()
    mark = arena.candidate.image.section(".ring").va + abi.MH_RING_DATA
    stub = assemble(f"mov rax, {int.from_bytes(_MARK, 'little'):#x}\n mov rdi, {mark:#x}\n mov [rdi], rax\n hlt")
    GuestOs(machine).run(
        f"mov rsi, {DATA:#x}\n mov rdi, {HELPER_VA + arena.offset('entry64'):#x}\n"
        f"mov ecx, {len(stub)}\n rep movsb\n hlt",
        stub,
    )
    ring = arena.side(machine).ring
    if ring.read(abi.MH_RING_DATA, len(_MARK)) == _MARK:
        return succeeds("the mirror's vCPU runs the guest's code")
    return harmless("the mirror's vCPU does not run the guest's code")


def read_key(arena: MirrorArena) -> Outcome:
    """Load the transport key from the launch secret."""
    machine = arena.launched()
    if steal_key(arena, machine) == TRANSPORT_KEY:
        return succeeds("a page of the guest's holds the transport key")
    return harmless("no page of the guest's holds the transport key")


def steal_key(arena: MirrorArena, machine: Machine) -> bytes:
    """What the guest's kernel finds in the place of the transport key; raise `Ended` where it has no such place."""
    page = GuestOs(machine).run(
        f"mov rsi, {HELPER_VA + arena.key_offset:#x}\n mov rdi, {DATA:#x}\n"
        f"mov ecx, {abi.MH_KEY_BYTES}\n rep movsb\n hlt"
    )
    return page[: abi.MH_KEY_BYTES]


def call(arena: MirrorArena) -> Outcome:
    """Jump to the helper's entry in the middle of a session; then the host goes on with the session."""
    source, _ = arena.connect()
    address = arena.address(0)
    # With an empty ring, so that it has nothing to do there.
    tail = HELPER_VA + SHARED_OFFSET + arena.helper.ring_offset + abi.mh_ring.fields["tail"].offset
    GuestOs(source.machine).run(
        f"mov rsi, {tail:#x}\n mov dword ptr [rsi], 0\n mov rax, {HELPER_VA + arena.offset('entry64'):#x}\n jmp rax"
    )
    status = source.ask(abi.mh_op.MH_OP_EXPORT, address)
    if status == abi.mh_status.MH_DONE:
        return harmless("the helper runs in the main VM; the session goes on")
    return succeeds(f"the helper runs in the main VM and forgets its session: {status.name}")


def post_request(arena: MirrorArena) -> Outcome:
    """Write a request into the ring; then the host runs the helper."""
    source = arena.exporting()
    served = source.ring.header().head
    ring = HELPER_VA + SHARED_OFFSET + arena.helper.ring_offset
    entry = ring + abi.MH_RING_SUBMISSIONS + served % abi.MH_RING_ENTRIES * len(abi.mh_submission)
    GuestOs(source.machine).run(
        f"mov rsi, {DATA:#x}\n mov rdi, {entry:#x}\n mov ecx, {len(abi.mh_submission)}\n rep movsb\n"
        f"mov rdi, {ring + abi.mh_ring.fields['tail'].offset:#x}\n inc dword ptr [rdi]\n hlt",
        export_entry(arena.address(0)),
    )
    source.run_on()
    if source.ring.header().head == served + 1:
        status = source.ring.results(0, 1)[0].status
        return succeeds(f"the helper serves the guest's request: {status.name}")
    return harmless("the helper serves nothing")


ATTACKS = (
    Attack("guest-overwrites-helper", "Guest OS overwrites the helper's code", overwrite_code, _OWN_MEMORY),
    Attack("guest-reads-key", "Guest OS reads the transport key", read_key, _OWN_MEMORY),
    Attack("guest-calls-helper", "Guest OS jumps into the helper during a migration", call, _OWN_MEMORY),
    Attack(
        "guest-posts-request",
        "Guest OS puts a request of its own into the ring",
        post_request,
        "The ring lies in the main VM's memory and is shared; the guest may write there what the host may.",
    ),
)
