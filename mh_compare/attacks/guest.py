"""The guest's own kernel against the helper, which lies in the guest's memory or does not."""

from __future__ import annotations

from typing import Protocol

from mh_abi import abi
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET
from mh_compare.arena import TRANSPORT_KEY, Arena, Side, export_entry
from mh_compare.attacks.attack import Attack
from mh_compare.guest_os import DATA, GuestOs, assemble
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, harmless, succeeds
from mh_emulator.peer import SessionKeys

_MARK = b"\xbd\xc0\xde" + bytes(5)

_OWN_MEMORY = (
    "The helper lies in the main VM's memory, under its key, and SEV has no right that a guest's kernel lacks."
)


class Runs(Protocol):
    """A hostile kernel."""

    def run(self, text: str, data: bytes = b"") -> bytes:
        """Run code with `data` at `DATA`; return the page that it has there then. Raises `Ended`."""


def overwrite(arena: Arena[Side], kernel: Runs) -> None:
    """Store code over the helper's entry that leaves a mark in the ring."""
    mark = arena.candidate.image.section(".ring").va + abi.MH_RING_DATA
    stub = assemble(f"mov rax, {int.from_bytes(_MARK, 'little'):#x}\n mov rdi, {mark:#x}\n mov [rdi], rax\n hlt")
    kernel.run(
        f"mov rsi, {DATA:#x}\n mov rdi, {HELPER_VA + arena.offset('entry64'):#x}\n"
        f"mov ecx, {len(stub)}\n rep movsb\n hlt",
        stub,
    )


def overwrite_code(arena: MirrorArena) -> Outcome:
    """Store code over the helper's entry; then the host starts the helper."""
    machine = arena.launched()
    overwrite(arena, GuestOs(machine))
    ring = arena.side(machine).ring
    if ring.read(abi.MH_RING_DATA, len(_MARK)) == _MARK:
        return succeeds("the mirror's vCPU runs the guest's code")
    return harmless("the mirror's vCPU does not run the guest's code")


def read_key(arena: MirrorArena) -> Outcome:
    """Load the transport key from the launch secret."""
    machine = arena.launched()
    return key_in(steal_key(arena, GuestOs(machine)))


def key_in(found: bytes) -> Outcome:
    """Whether what a kernel has found is the transport key."""
    if found == TRANSPORT_KEY:
        return succeeds("a page of the guest's holds the transport key")
    return harmless("no page of the guest's holds the transport key")


def steal_key(arena: Arena[Side], kernel: Runs) -> bytes:
    """What the guest's kernel finds in the place of the transport key; raise `Ended` where it has no such place."""
    return copy(kernel, arena.key_offset)


def copy(kernel: Runs, offset: int) -> bytes:
    """As many bytes as a key has, from an offset in the helper."""
    page = kernel.run(
        f"mov rsi, {HELPER_VA + offset:#x}\n mov rdi, {DATA:#x}\nmov ecx, {abi.MH_KEY_BYTES}\n rep movsb\n hlt"
    )
    return page[: abi.MH_KEY_BYTES]


def read_session(arena: MirrorArena) -> Outcome:
    """Load the page key of a session."""
    source = arena.source
    keys = arena.alone(source)
    return session_key_in(copy(GuestOs(source.machine), arena.offset("vcpu_page_key")), keys)


def session_key_in(found: bytes, keys: SessionKeys) -> Outcome:
    """Whether what a kernel has found is that session's page key."""
    if found == keys.stream(0).page_key:
        return succeeds("a page of the guest's holds the page key of the session")
    return harmless("no page of the guest's holds the page key of the session")


def call(arena: MirrorArena) -> Outcome:
    """Jump to the helper's entry in the middle of a session; then the host goes on with the session."""
    source, _ = arena.connect()
    address = arena.address(0)
    jump(arena, GuestOs(source.machine))
    status = source.ask(abi.mh_op.MH_OP_EXPORT, address)
    if status == abi.mh_status.MH_DONE:
        return harmless("the helper runs in the main VM; the session goes on")
    return succeeds(f"the helper runs in the main VM and forgets its session: {status.name}")


def jump(arena: Arena[Side], kernel: Runs) -> None:
    """Jump to the helper's entry, with an empty ring, so that it has nothing to do there."""
    tail = HELPER_VA + SHARED_OFFSET + arena.helper.ring_offset + abi.mh_ring.fields["tail"].offset
    kernel.run(
        f"mov rsi, {tail:#x}\n mov dword ptr [rsi], 0\n mov rax, {HELPER_VA + arena.offset('entry64'):#x}\n jmp rax"
    )


def post_request(arena: MirrorArena) -> Outcome:
    """Write a request into the ring; then the host runs the helper."""
    source = arena.exporting()
    return post(arena, source, GuestOs(source.machine))


def post(arena: Arena[Side], source: Side, kernel: Runs) -> Outcome:
    """The same by any kernel."""
    served = source.ring.header().head
    ring = HELPER_VA + SHARED_OFFSET + arena.helper.ring_offset
    entry = ring + abi.MH_RING_SUBMISSIONS + served % abi.MH_RING_ENTRIES * len(abi.mh_submission)
    kernel.run(
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
    Attack("guest-reads-session", "Guest OS reads the page key of a session", read_session, _OWN_MEMORY),
    Attack("guest-calls-helper", "Guest OS jumps into the helper during a migration", call, _OWN_MEMORY),
    Attack(
        "guest-posts-request",
        "Guest OS puts a request of its own into the ring",
        post_request,
        "The ring lies in the guest's memory and is shared, under SNP too; the guest may write what the host may.",
    ),
)
