"""The host against what ciphertext tells: SEV encrypts a block alike whenever it lies at the same address.

So a host that makes a helper write what it wants to know, or to have, where it can look, needs no key.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_compare.arena import CONTENTS, TARGET, Arena, Op, Side, Status
from mh_compare.attacks.attack import Attack
from mh_compare.attacks.mapping import NOP, Liar, key_thief, stolen
from mh_compare.evidence import blocks_of, nonce_reuse, xor
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import INSTRUCTIONS, Outcome, Verdict, harmless, succeeds
from mh_compare.stored import Blocks, Watch, Zeros
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.host.ring import Sealed
from mh_emulator.host.session import Batch, abort, connect, export_batch
from mh_emulator.host.side import one_page

_STRIDE = 3000
"""Instructions between two looks."""

_SCHEDULE_BYTES = 240
"""Of the round keys of AES-256."""


def guess(arena: Arena[Side]) -> Outcome:
    """Forge data that decrypts to zeros if a guess at the page is right, and look where zeros come to lie.

    What zeros look like at each place the host knows from before the helper began.
    """
    target = arena.target
    zeros = Watch(target, arena.candidate.image).zeros()
    noise = random.Random("a wrong guess").randbytes(PAGE_BYTES)  # noqa: S311
    right, wrong = xor(noise, noise), noise
    # The first leaves something else than zeros wherever they could come to lie.
    _, found, missed = (_became_zero(arena, target, zeros, error) for error in (wrong, right, wrong))
    told = found - missed
    if told:
        return succeeds(f"{len(told)} private blocks say that the guess is right, the first at {min(told):#x}")
    return harmless("no private block turns zero with the right guess that does not with a wrong one")


def _became_zero(arena: Arena[Side], target: Side, zeros: Zeros, error: bytes) -> set[int]:
    """The private blocks that turn zero while a page is imported whose forged data decrypts to `error`."""
    for side in (arena.source, target):
        abort(side.ring)
    connect(arena.source.ring, target.ring)
    sealed = arena.source.export(arena.address(0))
    forged = Sealed(sealed.packet, xor(sealed.data, xor(arena.plaintext(0), error)))
    looks = _import(target, Watch(target, arena.candidate.image), arena.address(0), forged)
    _expect(target, Status.MH_BAD_TAG)
    return {place for changed in looks for place, block in changed.items() if block == zeros.at(place)}


def _import(target: Side, watch: Watch, address: int, sealed: Sealed) -> list[Blocks]:
    """All looks at the target's helper while it imports a page."""
    target.ring.put_sealed(0, sealed)
    target.ring.submit(one_page(Op.MH_OP_IMPORT, address).dumps(cookie=0))
    return list(watch.follow(_STRIDE))


def _expect(target: Side, status: abi.mh_status) -> None:
    found = target.ring.results(0, 1)[0].status
    if found != status:
        raise AssertionError(f"the target answers {found.name}, not {status.name}")


_TWINS = (1, 4)
"""Numbers of pages that are alike in their first halves."""


def _alike() -> bytes:
    """Contents with them, and no other two equal blocks."""
    data = bytearray(CONTENTS)
    first, second = (slice(page * PAGE_BYTES, page * PAGE_BYTES + PAGE_BYTES // 2) for page in _TWINS)
    data[second] = data[first]
    return bytes(data)


def see_equal(arena: Arena[Side]) -> Outcome:
    """Migrate page by page, and look for blocks of either helper that look alike for pages that are, and only then."""
    arena = arena.fresh(_alike())
    source, target = arena.connect()
    watches = [Watch(side, arena.candidate.image) for side in (source, target)]
    shown = [_Shown(), _Shown()]
    for page in range(len(arena.ram)):
        address = arena.address(page)
        source.ring.submit(one_page(Op.MH_OP_EXPORT, address).dumps(cookie=0))
        shown[0].add(page, list(watches[0].follow(_STRIDE)))
        shown[1].add(page, _import(target, watches[1], address, source.ring.take_sealed(0)))
        _expect(target, Status.MH_DONE)
    for name, seen in zip(("source", "target"), shown, strict=True):
        told = seen.only_in(*_TWINS)
        if told:
            return succeeds(f"{told} private blocks of the {name}'s helper look alike for pages that are alike")
    return harmless("no private block looks alike for the pages that are alike, and only for them")


class _Shown:
    """What each private block has looked like while a page was moved."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[bytes, set[int]]] = defaultdict(lambda: defaultdict(set))

    def add(self, page: int, looks: list[Blocks]) -> None:
        """These looks were taken while that page was moved."""
        for changed in looks:
            for place, block in changed.items():
                self._seen[place][block].add(page)

    def only_in(self, *moved: int) -> int:
        """How many blocks have looked alike while each of these pages was moved, and never else."""
        return sum(set(moved) in seen.values() for seen in self._seen.values())


KNOWN = CONTENTS[:PAGE_BYTES] + bytes(PAGE_BYTES) + CONTENTS[2 * PAGE_BYTES :]
"""The host knows the second page, for it is zero. The first is not, so that both travel as data."""


def choose(arena: MirrorArena) -> Outcome:
    """Forge a packet that makes the helper write a page of the host's choice, and show that as the helper's code.

    First one that decrypts to it, for the zero page gives the key stream away; then one that is it as it stands.
    """
    arena = arena.fresh(KNOWN)
    first, second = FORGES
    outcome = _plant(arena, first)
    return outcome if outcome.verdict is Verdict.SUCCEEDS else _plant(arena, second)


def _as_it_stands(stream: bytes, chosen: bytes) -> bytes:
    del stream
    return chosen


Forge = Callable[[bytes, bytes], bytes]
"""Makes a page's data of its key stream and of the page that the host wants."""

FORGES: tuple[Forge, Forge] = (xor, _as_it_stands)


def _plant(arena: MirrorArena, forge: Forge) -> Outcome:
    """Have the helper write a slide to code that steals the key, and show it that as its own code."""
    machine = Liar.beside(arena.launch(arena.site(TARGET), contents=()))
    for page in arena.ram:
        machine.memory.spa(page)
    target = arena.side(machine)
    found = plant(arena, target, forge)
    written = arena.offset("vcpu_scratch") + PAGE_BYTES
    machine.lie_now(machine.base + idle(arena) & -PAGE_BYTES, machine.helper_memory, machine.helper_offset + written)
    machine.mirror.vcpu.run(INSTRUCTIONS)
    outcome = stolen(target)
    if outcome.verdict is Verdict.SUCCEEDS:
        return outcome
    if found:
        return succeeds(f"{found} private blocks hold what the host chose")
    return harmless("no private block holds what the host chose; as code, what the helper wrote is noise")


def plant(arena: Arena[Side], target: Side, forge: Forge) -> int:
    """Have `target` import a forged packet; how many of its private blocks come to hold what the host wants."""
    for side in (arena.source, target):
        abort(side.ring)
    connect(arena.source.ring, target.ring)
    batch = Batch(address=arena.address(0), count=2, chunk=2)
    (sealed,), _ = export_batch(arena.source.ring, batch)
    thief = key_thief(arena)
    chosen = NOP * (PAGE_BYTES - len(thief)) + thief
    data = sealed.data[:PAGE_BYTES] + forge(sealed.data[PAGE_BYTES:], chosen)
    target.ring.put_sealed(0, Sealed(sealed.packet, data))
    target.ring.submit(batch.request(Op.MH_OP_IMPORT).dumps(cookie=0))
    found = _holding(target, Watch(target, arena.candidate.image), blocks_of(chosen))
    _expect(target, Status.MH_BAD_TAG)
    return found


def _holding(target: Side, watch: Watch, chosen: set[bytes]) -> int:
    """How many private blocks come to hold one of `chosen`, under the guest's key, while the helper goes on."""
    read = partial(target.read_helper, size=BLOCK_BYTES)
    return len({place for changed in watch.follow(_STRIDE) for place in changed if read(place) in chosen})


def idle(arena: Arena[Side]) -> int:
    """Where in the image the helper goes on after HLT; the image is public."""
    start = arena.offset("serve")
    for code in Cs(CS_ARCH_X86, CS_MODE_64).disasm(arena.helper.data[start : start + 0x100], start):
        if code.mnemonic == "hlt":
            return int(code.address) + int(code.size)
    raise AssertionError("the helper halts nowhere")


def wipe_key(arena: Arena[Side]) -> Outcome:
    """Put a page key's round keys in DRAM back to what they were before the session, then have two pages sealed."""
    first, second = (_sealed_after(arena, page, _SCHEDULE_BYTES) for page in range(2))
    return nonce_reuse(first, second, arena.plaintext(0), arena.plaintext(1))


def halve_key(arena: Arena[Side]) -> Outcome:
    """Overwrite half of the round keys."""
    _sealed_after(arena, 0, _SCHEDULE_BYTES // 2)
    return succeeds("the helper seals with a key half of which is zero")


def _sealed_after(arena: Arena[Side], page: int, size: int) -> Sealed:
    """Damage the page key of a new session in that many bytes; export a page. Raises `HelperRefused`."""
    source = arena.source
    key = arena.offset("vcpu_page_key")
    spa = source.helper_spa(key)
    abort(source.ring)
    before = source.peek(spa)[spa % PAGE_BYTES :][: size // BLOCK_BYTES * BLOCK_BYTES]
    keys = arena.alone(source)
    if not source.read_helper(key, _SCHEDULE_BYTES).startswith(keys.stream(0).page_key):
        raise AssertionError("the page key lies elsewhere")
    source.poke(spa, before)
    return source.export(arena.address(page))


ATTACKS = (
    Attack("host-guesses-page", "Host has a guess at a page decrypted, and looks for zeros", guess, is_gentle=True),
    Attack("host-sees-equal-blocks", "Host compares the helpers' memory over an honest migration", see_equal),
    Attack("host-chooses-plaintext", "Host has data of its choice decrypted, and shows it as helper code", choose),
    Attack("host-wipes-key", "Host puts the zeros that were there before over the page key", wipe_key, is_gentle=True),
    Attack("host-halves-key", "Host puts zeros over half of the page key", halve_key, is_gentle=True),
)
