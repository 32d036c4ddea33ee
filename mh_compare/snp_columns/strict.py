"""What an owner of an SNP guest pays who asks for a strict finish."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from mh_abi import abi
from mh_builder.firmware.snp import SnpPage, pages_of
from mh_builder.paging import GIB
from mh_compare.arena import Op
from mh_compare.columns.column import Value
from mh_compare.columns.strict import costs, instructions, with_room
from mh_compare.snp_arena import SnpArena
from mh_compare.subject import SnpSubject
from mh_emulator.host.placement import Content, Placement
from mh_emulator.host.ring import Request
from mh_emulator.host.topology import Topology
from mh_emulator.secret import Secret

_RAM_LIMIT = GIB


class Strict(SnpArena):
    """A guest below 4 GiB, which does not run, and whose owner asks for a strict finish."""

    @property
    def secret(self) -> Secret:
        """With the flag."""
        return replace(super().secret, flags=abi.MH_OWNER_STRICT)

    @cached_property
    def placement(self) -> Placement:
        """All contents below the helper: the less RAM the image is for, the less there is to launch."""
        below = self.helper.descriptor.link_base + self.helper.memory_bytes
        return Placement(Topology(below, above=0), (Content(0, 0, len(self.contents)),))

    @cached_property
    def guest(self) -> list[SnpPage]:
        """The contents alone."""
        return pages_of(self.boot_contents())


def strict_finish(subject: SnpSubject) -> Value:
    """Private memory for a GiB of RAM; and what FINISH executes for a page, beside what its export did.

    A source's FINISH is for good, so that of an empty session is another guest's.
    """
    candidate, room = with_room(subject, _RAM_LIMIT)
    empty = instructions(Strict(candidate).exporting(), Request(Op.MH_OP_FINISH))
    return costs(Strict(candidate).exporting(), empty, room)
