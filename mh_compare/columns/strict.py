"""What an owner pays who asks for a strict finish: private memory, and work at the end."""

from __future__ import annotations

from dataclasses import replace

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.helper import build_helper
from mh_builder.paging import GIB, PAGE_BYTES
from mh_builder.schemes.space import human
from mh_compare.arena import Op, Side
from mh_compare.candidate import Candidate
from mh_compare.columns.column import Column, Value
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import INSTRUCTIONS
from mh_compare.subject import MirrorSubject, Subject
from mh_emulator.host.placement import Placement
from mh_emulator.host.ring import Request
from mh_emulator.host.side import one_page
from mh_emulator.kvm.exits import Reason
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

_RAM_LIMITS = {abi.mh_address_kind.MH_ADDRESS_GPA: 5 * GIB, abi.mh_address_kind.MH_ADDRESS_RAM: GIB}
"""Half of an arena's RAM lies above 4 GiB; what has a place below by `ram_addr` is launched sooner."""


class Strict(MirrorArena):
    """A guest whose owner asks for a strict finish."""

    @property
    def secret(self) -> Secret:
        """With the flag."""
        return replace(super().secret, flags=abi.MH_OWNER_STRICT)

    def ground(self, seed: int) -> tuple[Platform, Placement, HelperImage]:
        """With room for all private memory, which is launched."""
        _, placement, helper = super().ground(seed)
        return Platform(self.part, 2 * helper.memory_bytes, seed), placement, helper


def strict_finish(subject: MirrorSubject) -> Value:
    """Private memory for a GiB of RAM; and what FINISH executes for a page, beside what its export did."""
    limit = _RAM_LIMITS[abi.mh_address_kind(subject.small.image.space.addresses)]
    candidate, room = with_room(subject, limit)
    arena = Strict(candidate)
    source = arena.exporting()
    empty = instructions(source, Request(Op.MH_OP_FINISH))
    arena.alone(source)
    return costs(source, empty, room)


def with_room(subject: Subject, ram_limit: int) -> tuple[Candidate, float]:
    """Its image for a strict finish with so much RAM, and the private memory that this takes for a GiB."""
    image = build_helper(subject.scheme, replace(subject.small.image.space.options, ram_limit=ram_limit, strict=True))
    room = image.section(".authenticators").size * GIB / (ram_limit + abi.MH_VMSA_BYTES)
    return Candidate(subject.scheme, image, subject.part), room


def costs(source: Side, empty: int, room: float) -> Value:
    """What `source`, in a session, executes; `empty` is what FINISH takes there when nothing was exported."""
    pages = [source.request_address(page) for page in source.guest_pages()]
    exported = sum(instructions(source, one_page(Op.MH_OP_EXPORT, page)) for page in pages)
    finished = instructions(source, Request(Op.MH_OP_FINISH)) - empty
    return Value(
        human(int(room)),
        room,
        f"{PAGE_BYTES * room / GIB:g} bytes a page; about {exported // len(pages)} instructions to export one and "
        f"{finished // len(pages)} to look at it again",
    )


def instructions(source: Side, request: Request) -> int:
    """How many the helper executes for a request that has to succeed."""
    source.ring.submit(request.dumps(0))
    exit_ = source.vcpu.run(INSTRUCTIONS)
    if exit_.reason is Reason.LIMIT:
        raise AssertionError(f"{request} is not answered after {INSTRUCTIONS} instructions")
    if source.ring.completion(source.ring.completed - 1).status != abi.mh_status.MH_DONE:
        raise AssertionError(f"{request} is refused")
    return source.vcpu.begun


COLUMNS = (Column("strict-finish", "a strict finish: private memory for a GiB of RAM", "bytes", strict_finish),)
