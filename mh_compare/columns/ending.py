"""How a migration ends: what one that fails leaves behind, and how long the guest stands still at the end of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mh_builder.paging import GIB
from mh_compare.arena import Arena, Side, Status
from mh_compare.columns.column import Column, Value
from mh_compare.guest_os import GuestOs, read_word
from mh_compare.mirror_arena import MirrorArena
from mh_compare.subject import MirrorSubject, Subject
from mh_emulator.host.ring import Sealed
from mh_emulator.host.session import finish

_MOVED = 2
"""Pages that arrive before the migration fails."""


class Speed(NamedTuple):
    """GB/s of a kernel, in either direction."""

    kernel: str
    export: float
    open: float


SPEEDS = {
    128: Speed("AES-NI", 4.30, 3.61),
    256: Speed("VAES, ymm", 8.00, 7.33),
    512: Speed("VAES, zmm", 9.74, 7.67),
}
"""Bits of the widest vectors with AES -> what `build.py bench` said of the kernel that is taken there, on one core of
one machine: docs/performance.md, "The kernel on zmm registers"."""


def failed(subject: MirrorSubject) -> Value:
    """Break a packet in the middle of a migration; look at both guests; then try again."""
    arena = subject.arena()
    guest = GuestOs(arena.source.machine)
    return after_failure(arena, lambda: guest.run(read_word(0))[:8], lambda: _again(arena))


def after_failure(arena: Arena[Side], first_word: Callable[[], bytes], again: Callable[[], str]) -> Value:
    """What a broken packet leaves: `first_word` is what the source's guest reads, `again` tells of a new try."""
    source, target = arena.connect()
    addresses = [arena.address(page) for page in range(len(arena.ram))]
    for address in addresses[:_MOVED]:
        target.put(address, source.export(address))
    sealed = source.export(addresses[_MOVED])
    told = target.put(addresses[_MOVED], Sealed(sealed.packet, bytes([sealed.data[0] ^ 1]) + sealed.data[1:]))
    after = target.put(addresses[_MOVED], sealed)
    if Status.MH_DONE in (told, after):
        return Value(f"no end: {told.name}, {after.name}")
    kept = sum(target.read_guest(page) == source.read_guest(page) for page in arena.ram)
    is_whole = all(source.read_guest(page) == arena.plaintext(number) for number, page in enumerate(arena.ram))
    if not is_whole or first_word() != arena.plaintext(0)[:8]:
        return Value("no: the guest at the source is not whole")
    left = f"{told.name}, then {after.name}; {kept} of {len(addresses)} pages stay at the target"
    return Value(f"the guest runs on at the source; {again()}", detail=left)


def _again(arena: MirrorArena) -> str:
    """Move everything in a new session."""
    source, target = arena.connect()
    addresses = [arena.address(page) for page in range(len(arena.ram))]
    statuses = {target.put(address, source.export(address)) for address in addresses}
    if statuses != {Status.MH_DONE}:
        return f"a second try fails: {', '.join(sorted(status.name for status in statuses))}"
    return second_try(finish(source.ring, target.ring), len(addresses))


def second_try(total: int, pages: int) -> str:
    """What came of it: pages that both helpers agree on, of all there are."""
    return "a second try moves all" if total == pages else f"a second try moves {total}"


def downtime(subject: Subject) -> Value:
    """The time that one core takes for the last GiB of RAM; a model, of bytes and of a measured speed."""
    speed = SPEEDS[subject.part.vector_bits]
    seconds = GIB / min(speed.export, speed.open) / 1e9
    what = f"{speed.kernel} kernel, import at {speed.open:g} GB/s, which is slower than the export at {speed.export:g}"
    return Value(f"{seconds:.3f} s, modelled", seconds, f"{what}; without network and host exits")


COLUMNS = (
    Column("failed", "what a migration that fails in the middle leaves", "", failed),
    Column("downtime", "the guest stands still for the last GiB of RAM", "s", downtime),
)
