"""Whether the helper may lie in an SNP guest in pieces."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from mh_builder.firmware.snp import SnpPage, pages_at
from mh_builder.paging import MIB, PAGE_BYTES
from mh_compare.arena import Op
from mh_compare.columns.column import Value
from mh_compare.outcome import EXPECTED, by_exception
from mh_compare.snp_arena import SnpArena
from mh_compare.subject import SnpSubject
from mh_emulator.host.placement import Placement

_ELSEWHERE = 128 * MIB
"""GPA of a second piece."""


class InPieces(SnpArena):
    """A guest with a page of the helper's code at another place as well."""

    @cached_property
    def placement(self) -> Placement:
        """Room for it."""
        usual = super().placement
        return replace(usual, topology=replace(usual.topology, below=2 * _ELSEWHERE))

    @property
    def piece(self) -> int:
        """Where in the helper that page belongs."""
        return self.offset("dispatch") & -PAGE_BYTES

    @cached_property
    def guest(self) -> list[SnpPage]:
        """Its own pages, and that one."""
        code = self.helper.launched(self.helper.descriptor.link_base, self.part.c_bit)
        return [*super().guest, *pages_at(_ELSEWHERE, code[self.piece : self.piece + PAGE_BYTES])]


def pieces(subject: SnpSubject) -> Value:
    """Have the nested tables show the piece in its place, and ask the helper for something."""
    arena = InPieces(subject.small)
    source = arena.source
    source.machine.vm.remap(source.base + arena.piece, source.machine.spa(_ELSEWHERE))
    try:
        source.ask(Op.MH_OP_HELLO)
    except EXPECTED as error:
        return Value("no", detail=f"a page of code that was launched elsewhere: {by_exception(error).seen}")
    return Value("yes", detail=f"a page of code is at GPA {_ELSEWHERE:#x}")
