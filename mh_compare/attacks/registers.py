"""The host against the registers of the helper's vCPU, which plain SEV leaves open at every exit."""

from __future__ import annotations

from dataclasses import replace

from mh_abi import abi
from mh_builder.schemes.space import HELPER_VA
from mh_compare.arena import TRANSPORT_KEY, Arena, Op, Role, Side, export_entry
from mh_compare.attacks.attack import Attack
from mh_compare.evidence import blocks_of, nonce_reuse
from mh_compare.outcome import Outcome, harmless, succeeds
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.host.ring import Request
from mh_emulator.host.session import Batch
from mh_emulator.kvm.exits import Reason

_OPEN = "Plain SEV does not encrypt registers; SEV-ES does, and starts vCPUs only from a measured VMSA (--start es)."

_STRIDE = 64
"""Instructions between two looks."""


def read(arena: Arena[Side]) -> Outcome:
    """Interrupt the helper again and again while it exports a page, and look into its vector registers."""
    source = arena.exporting()
    blocks = blocks_of(arena.plaintext(0))
    source.ring.submit(export_entry(arena.address(0)))
    vcpu = source.vcpu
    looks = 0
    while vcpu.run(_STRIDE).reason is Reason.LIMIT:
        looks += 1
        if blocks & {value.to_bytes(BLOCK_BYTES, "little") for value in vcpu.get_registers().xmm}:
            return succeeds("a vector register shows a block of the page")
    return harmless(f"no block of the page in {looks} looks")


def start_anywhere(arena: Arena[Side]) -> Outcome:
    """Start the helper in a routine that copies 64 bytes, with the addresses of the key and of the ring."""
    source = arena.source
    vcpu = source.vcpu
    ring = arena.candidate.image.section(".ring").va
    gadget = source.entry.with_changes(
        rip=HELPER_VA + arena.offset("copy64"),
        rsi=HELPER_VA + arena.key_offset,
        rdi=ring + abi.MH_RING_DATA,
    )
    vcpu.set_registers(gadget)
    vcpu.run(max_instructions=9)
    if TRANSPORT_KEY in source.ring.read(abi.MH_RING_DATA, 64):
        return succeeds("the ring shows the transport key")
    return harmless("the ring does not show the transport key")


def start_again(arena: Arena[Side]) -> Outcome:
    """Start the helper again on the ring as it is, peer's hello too, with another page in place of the first."""
    source = arena.source
    # Each of the three has a place of its own, so that what the helper reads is there still when it begins again.
    peer, own, page = range(3)
    source.ring.ask("hello", Request(Op.MH_OP_HELLO, slot=own))
    source.ring.put_packet(peer, arena.peer(source.ring.take_hello(own)).hello)
    source.ring.ask("start", Request(Op.MH_OP_START, role=Role.MH_ROLE_SOURCE, slot=peer, count=1))
    batch = Batch(address=arena.address(0), count=1)
    batch.submit(source.ring, Op.MH_OP_EXPORT, page)
    first = source.ring.take_sealed(page)
    last = (source.ring.header().head - 1) % abi.MH_RING_ENTRIES
    other = replace(batch, address=arena.address(1)).request(Op.MH_OP_EXPORT, page)
    source.ring.write(abi.MH_RING_SUBMISSIONS + last * len(abi.mh_submission), other.dumps(cookie=0))
    source.begin_again()
    again = source.ring.take_sealed(page)
    if again == first:
        raise AssertionError("the helper that was started again seals nothing")
    return nonce_reuse(first, again, arena.plaintext(0), arena.plaintext(1))


ATTACKS = (
    Attack("host-reads-registers", "Host interrupts the helper and reads its registers", read, _OPEN),
    Attack("host-sets-registers", "Host starts the helper at an instruction of its choice", start_anywhere, _OPEN),
    Attack("host-restarts-helper", "Host starts the helper again with the same ring and hello", start_again),
)
