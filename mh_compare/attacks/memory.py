"""The host against DRAM: it sees and changes the stored bytes of every page, past all encryption."""

from __future__ import annotations

from mh_abi import abi
from mh_builder.paging import ENTRY_BYTES, PAGE_BYTES, table_index
from mh_builder.schemes.space import RAM_VA
from mh_compare.arena import TRANSPORT_KEY, Arena, Side, export_entry
from mh_compare.attacks.attack import Attack
from mh_compare.evidence import blocks_of, nonce_reuse, xor
from mh_compare.outcome import Ended, Outcome, harmless, refused, succeeds
from mh_emulator.dram.dram import BLOCK_BYTES

_NO_INTEGRITY = "SEV and SEV-ES keep no record of what a page held: no integrity, no freshness. SNP stops host writes."


_EQUAL = (
    "A block at an address is stored alike whenever it is the same. Only parts that hide ciphertext of SNP guests from "
    "their host end that."
)


def read_guest(arena: Arena[Side]) -> Outcome:
    """Look at every page of the guest."""
    source = arena.source
    pages = source.guest_pages()
    plain = sum(source.peek(source.spa(page)) == source.read_guest(page) for page in pages)
    return _readable(plain, len(pages), "pages of the guest")


def read_helper(arena: Arena[Side]) -> Outcome:
    """Look for the transport key in every private page of the helper, in the middle of a session."""
    source = arena.exporting()
    offsets = range(0, arena.helper.ring_offset, PAGE_BYTES)
    seen = sum(TRANSPORT_KEY in source.peek(source.helper_spa(offset)) for offset in offsets)
    if TRANSPORT_KEY not in source.read_helper(arena.key_offset, len(TRANSPORT_KEY)):
        raise AssertionError("the helper itself does not see its key")
    return _readable(seen, len(offsets), "private pages of the helper")


def read_stream(arena: Arena[Side]) -> Outcome:
    """Look for the guest's pages in the ring while they pass through it, and in the packets."""
    source = arena.exporting()
    passed = [source.export(arena.address(page)).data for page in range(len(arena.ram))]
    visible = blocks_of(b"".join(passed)) | blocks_of(source.ring.read(0, abi.MH_RING_BYTES))
    seen = sum(bool(blocks_of(arena.plaintext(page)) & visible) for page in range(len(arena.ram)))
    return _readable(seen, len(arena.ram), "exported pages")


def flip_guest(arena: Arena[Side]) -> Outcome:
    """Flip a bit of a guest page."""
    side = arena.source
    _flip(side, side.spa(arena.ram[0]))
    before, after = arena.plaintext(0), side.read_guest(arena.ram[0])
    wanted = bytes([before[0] ^ 1]) + before[1:]
    if after == wanted:
        return succeeds("the guest sees just that bit flipped")
    return _garbage(before, after)


def flip_code(arena: Arena[Side]) -> Outcome:
    """Flip a bit of the code that the helper is about to run."""
    return _flip_helper(arena, arena.offset("dispatch"))


def flip_tables(arena: Arena[Side]) -> Outcome:
    """Flip a bit in the entry of the root table that maps the first RAM."""
    root = arena.candidate.image.section(".tables").offset
    return _flip_helper(arena, root + ENTRY_BYTES * table_index(RAM_VA, level=4))


def move_guest(arena: Arena[Side]) -> Outcome:
    """Copy the stored bytes of one guest page over another."""
    source = arena.source
    first, second = (source.spa(page) for page in arena.ram[:2])
    source.poke(second, source.peek(first))
    after = source.read_guest(arena.ram[1])
    if after == arena.plaintext(0):
        return succeeds("the guest sees the first page in the place of the second")
    return _garbage(arena.plaintext(0), after)


def move_helper(arena: Arena[Side]) -> Outcome:
    """Copy the stored bytes of the launch secret over a guest page, for the guest to give it away."""
    source = arena.source
    secret = source.helper_spa(arena.helper.descriptor.secret_offset)
    source.poke(source.spa(arena.ram[0]), source.peek(secret))
    seen = source.read_guest(arena.ram[0])
    if TRANSPORT_KEY in seen:
        return succeeds("the guest's page shows the transport key")
    return _garbage(source.read_helper(arena.helper.descriptor.secret_offset, PAGE_BYTES), seen)


def move_chosen(arena: Arena[Side]) -> Outcome:
    """Learn how two places differ from a page that the host knows, then put a block of the host's choice there.

    The host knows what is in the first two pages (data that it sent to the guest). Moving a block of the
    first to the third shows the guest's plaintext changed by a constant of the two places; the host
    has the guest hold a block so prepared that the constant makes of it what the host wants.
    """
    source = arena.source
    known, victim = (source.spa(page) for page in arena.ram[:2])
    source.poke(victim, source.peek(known)[:BLOCK_BYTES])
    constant = xor(source.read_guest(arena.ram[1], BLOCK_BYTES), arena.plaintext(0)[:BLOCK_BYTES])
    wanted = b"chosen by a host"
    # What the guest receives from its network it writes privately; the host sends what suits it.
    source.write_guest(arena.ram[0], xor(wanted, constant))
    source.poke(victim, source.peek(known)[:BLOCK_BYTES])
    if source.read_guest(arena.ram[1], BLOCK_BYTES) == wanted:
        return succeeds("the guest sees a block of the host's choice")
    return harmless("the guest sees a block of noise: two places differ by no constant")


def replay_guest(arena: Arena[Side]) -> Outcome:
    """Keep the stored bytes of a page, and put them back after the guest has written it again."""
    source = arena.source
    spa = source.spa(arena.ram[0])
    old = source.peek(spa)
    source.write_guest(arena.ram[0], b"new" * (PAGE_BYTES // 3))
    source.poke(spa, old)
    after = source.read_guest(arena.ram[0])
    if after == arena.plaintext(0):
        return succeeds("the guest sees the page as it was")
    return _garbage(arena.plaintext(0), after)


def replay_helper(arena: Arena[Side]) -> Outcome:
    """Put the helper's variables back to before an export; does it use a sequence number twice?"""
    source = arena.exporting()
    state = arena.offset("vcpu_sequence") & -PAGE_BYTES
    spa = source.helper_spa(state)
    old = source.peek(spa)
    first = source.export(arena.address(0))
    source.poke(spa, old)
    # The helper's copy of the head went back as well, so the host serves it the slot of the first request again.
    entry = (source.ring.header().head - 1) % abi.MH_RING_ENTRIES * len(abi.mh_submission)
    source.ring.write(abi.MH_RING_SUBMISSIONS + entry, export_entry(arena.address(1)))
    source.run_on()
    second = source.ring.take_sealed(0)
    return nonce_reuse(first, second, arena.plaintext(0), arena.plaintext(1))


def compare_ciphertext(arena: Arena[Side]) -> Outcome:
    """Look at a page, have the guest write another one there, and then the first again."""
    source, old = arena.source, arena.plaintext(0)
    seen = [source.peek(source.spa(arena.ram[0]))]
    for data in (arena.plaintext(1), old):
        source.write_guest(arena.ram[0], data)
        seen.append(source.peek(source.spa(arena.ram[0])))
    if seen[0] == seen[2] != seen[1]:
        return succeeds("the stored bytes say that the page is as it was")
    if len(set(seen)) == 1:
        return refused(f"the host reads {seen[0][0]:#x}, whatever is there")
    return harmless("the stored bytes say nothing of the page")


def copy_to_target(arena: Arena[Side]) -> Outcome:
    """Copy the stored bytes of a guest page to another platform, instead of migrating it."""
    source, target = arena.source, arena.target
    target.poke(target.spa(arena.ram[0]), source.peek(source.spa(arena.ram[0])))
    after = target.read_guest(arena.ram[0])
    if after == arena.plaintext(0):
        return succeeds("the guest on the other platform sees the page")
    return _garbage(arena.plaintext(0), after)


def _flip_helper(arena: Arena[Side], offset: int) -> Outcome:
    """Flip a bit at `offset` of the helper, then ask it for a page. What noise does is chance, not a choice."""
    source = arena.exporting()
    start = offset & -BLOCK_BYTES
    wanted = bytearray(source.read_helper(start, BLOCK_BYTES))
    wanted[offset - start] ^= 1
    _flip(source, source.helper_spa(offset))
    if source.read_helper(start, BLOCK_BYTES) == wanted:
        return succeeds("the helper sees just that bit flipped")
    source.ring.submit(export_entry(arena.address(0)))
    try:
        source.run_on()
    except Ended as stopped:
        return harmless(f"a block of noise that the host cannot choose: {stopped}")
    return harmless("a block of noise that the host cannot choose: the helper runs over it")


def _flip(side: Side, spa: int) -> None:
    stored = side.peek(spa)
    side.poke(spa, bytes([stored[spa % PAGE_BYTES] ^ 1]))


def _readable(seen: int, of: int, what: str) -> Outcome:
    text = f"plaintext in {seen} of {of} {what}"
    return succeeds(text) if seen else harmless(text)


def _garbage(before: bytes, after: bytes) -> Outcome:
    """The guest sees `after`; how much of it is still as before."""
    blocks = range(0, len(before), BLOCK_BYTES)
    changed = sum(before[at : at + BLOCK_BYTES] != after[at : at + BLOCK_BYTES] for at in blocks)
    return harmless(f"{changed} of {len(blocks)} blocks turn to noise")


ATTACKS = (
    Attack("host-reads-guest", "Host reads guest pages in DRAM", read_guest, is_gentle=True),
    Attack("host-reads-helper", "Host looks for the transport key in the helper's pages", read_helper, is_gentle=True),
    Attack("host-reads-stream", "Host reads ring and packets while pages pass", read_stream, is_gentle=True),
    Attack("host-flips-guest", "Host flips a bit of a guest page", flip_guest, _NO_INTEGRITY),
    Attack("host-flips-code", "Host flips a bit of the helper's code", flip_code, _NO_INTEGRITY),
    Attack("host-flips-tables", "Host flips a bit of the helper's page tables", flip_tables, _NO_INTEGRITY),
    Attack("host-moves-guest", "Host moves a guest page to another address", move_guest, _NO_INTEGRITY),
    Attack("host-moves-helper", "Host moves the launch secret into a guest page", move_helper, _NO_INTEGRITY),
    Attack(
        "host-moves-chosen",
        "Host prepares a block and moves it to another address",
        move_chosen,
    ),
    Attack(
        "host-moves-chosen-naples",
        "Host prepares a block and moves it, first generation",
        move_chosen,
        "XE mode: a moved block changes by a constant of the two addresses. Later parts use XEX.",
        part="naples",
    ),
    Attack("host-replays-guest", "Host puts an old copy of a guest page back", replay_guest, _NO_INTEGRITY),
    Attack("host-replays-helper", "Host puts the helper's variables back", replay_helper, _NO_INTEGRITY),
    Attack("host-compares-ciphertext", "Host sees that a guest page is as it was", compare_ciphertext, _EQUAL),
    Attack(
        "host-compares-ciphertext-turin",
        "Host sees that a guest page is as it was, with ciphertext hiding",
        compare_ciphertext,
        _EQUAL,
        part="turin",
    ),
    Attack("host-copies-ciphertext", "Host copies stored bytes to another platform", copy_to_target),
)
