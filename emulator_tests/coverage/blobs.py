"""The linked blobs as coverage sees them: code, instructions by source line, conditional branches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile
from mh_builder.firmware.driver import Finds, build_loader, loader_objects
from mh_builder.helper import build_helper, helper_objects
from mh_builder.image.model import Image
from mh_builder.landing import landing_object
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import Options, Start
from mh_builder.symbols import merge
from mh_emulator.uefi.driver import load_driver

NO_TARGET = 0xFFFF_FFFF

_DIRECTIVE = re.compile(r"\s*(\w+:\s*)?\.")
_SHORT = range(0x70, 0x80)
_COUNTED = range(0xE0, 0xE4)
_NEAR = range(0x80, 0x90)
_ADDRESS_SIZE = 0x67
_LEAVES = frozenset(b"\xc3\xe8\xe9\xeb\xf4")
"""RET, CALL, JMP and HLT: no block has anything behind them."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One statement of the source as it was linked; `target` is that of a conditional branch."""

    offset: int
    size: int
    place: str
    """file:line, with the macro uses that led there."""
    count: int
    """Which of the instructions of that place, from 0: loops repeat theirs."""
    target: int | None

    @property
    def key(self) -> tuple[str, int]:
        """What is the same instruction in other blobs."""
        return self.place, self.count

    @property
    def line(self) -> str:
        """file:line of the text itself."""
        return self.place.partition(" ")[0]


@dataclass(frozen=True)
class Blob:
    """Linked code; `fields` are the (offset, size) that a link for another address space writes otherwise."""

    name: str
    text: bytes
    objects: Sequence[ObjectFile]

    @cached_property
    def fields(self) -> list[tuple[int, int]]:
        """(offset, bytes) of what depends on where other sections are."""
        starts = merge(self.objects, ".text").starts
        return sorted(
            (starts[unit.name] + relocation.offset, 8)
            for unit in self.objects
            for section in unit.sections
            if section.name == ".text"
            for relocation in section.relocations
        )

    @cached_property
    def instructions(self) -> list[Instruction]:
        """All of them, by offset."""
        return list(self._instructions())

    def _instructions(self) -> Iterator[Instruction]:
        merged = merge(self.objects, ".text")
        counts: Counter[str] = Counter()
        for unit in self.objects:
            for section in unit.sections:
                if section.name != ".text" or not section.size:
                    continue
                start = merged.starts[unit.name]
                for offset, size, place in section.places:
                    if is_data(place.partition(" ")[0]):
                        continue
                    begin = start + offset
                    target = branch_target(self.text[begin : begin + size], begin)
                    yield Instruction(begin, size, place, counts[place], target)
                    counts[place] += 1

    @cached_property
    def _next(self) -> dict[int, tuple[int, bool]]:
        """Where each instruction ends, and whether it may go on elsewhere."""
        return {
            one.offset: (one.offset + one.size, one.target is not None or self.text[one.offset] in _LEAVES)
            for one in self.instructions
        }

    def clip(self, offset: int, size: int) -> int:
        """As many bytes of a block that began there as can be of this code: up to what may go on elsewhere.

        Where a hostile host shows other pages as code, other instructions run at its addresses.
        """
        at, leaves = offset, False
        while at < offset + size and not leaves and at in self._next:
            at, leaves = self._next[at]
        return min(at - offset, size)

    def is_at(self, memory: bytes) -> bool:
        """Whether this is its code, linked for whichever address space."""
        if len(memory) < len(self.text):
            return False
        return all(memory[start:end] == self.text[start:end] for start, end in self._fixed)

    @cached_property
    def _fixed(self) -> list[tuple[int, int]]:
        found, start = [], 0
        for offset, size in self.fields:
            if offset > start:
                found.append((start, offset))
            start = max(start, offset + size)
        return [*found, (start, len(self.text))]


@cache
def source(name: str) -> list[str]:
    """The lines of a file, named as places name it."""
    return (PAYLOAD.parent / name).read_text(encoding="ascii").splitlines()


def is_data(line: str) -> bool:
    """Whether a directive makes its bytes, not an instruction."""
    name, _, number = line.rpartition(":")
    return _DIRECTIVE.match(source(name)[int(number) - 1]) is not None


def is_32_bit(line: str) -> bool:
    """Whether the code there is of 32 bits: what the last directive before it says."""
    name, _, number = line.rpartition(":")
    said = [row.strip() for row in source(name)[: int(number)] if row.strip() in {".code32", ".code64"}]
    return said[-1:] == [".code32"]


def branch_target(data: bytes, offset: int) -> int | None:
    """Where a conditional branch goes that lies at `offset`; None for any other instruction."""
    if data[0] in _SHORT or data[0] in _COUNTED or (data[0] == _ADDRESS_SIZE and data[1] in _COUNTED):
        width = 1
    elif data[0] == 0x0F and data[1] in _NEAR:
        width = 4
    else:
        return None
    return offset + len(data) + int.from_bytes(data[len(data) - width :], "little", signed=True)


def _of_image(name: str, image: Image, switches: frozenset[str]) -> Blob:
    section = image.section(".text")
    return Blob(name, image.data[section.offset : section.offset + section.size], helper_objects(switches))


def _of_loader(name: str, finds: Finds) -> Blob:
    size = merge(loader_objects(finds), ".text").size
    image = load_driver(build_loader(finds)).image
    return Blob(name, image[PAGE_BYTES : PAGE_BYTES + size], loader_objects(finds))


def _of_landing() -> Blob:
    found = landing_object()
    end = next(symbol.value for symbol in found.symbols if symbol.name == "data")
    text = next(section.data for section in found.sections if section.name == ".text")
    return Blob(LANDING, bytes(text[:end]), [found])


_HELPERS = {
    "helper": ("regions", Options(), ()),
    "helper, 32-bit start": ("alias-window", Options(), ("MH_START_32",)),
    "helper, SEV-ES": ("regions", Options(start=Start.ES), ("MH_START_ES",)),
    "helper, SEV-SNP": (
        "vmpl",
        Options(start=Start.SNP, owner=b"\1" * abi.MH_OWNER_KEY_BYTES),
        ("MH_START_ES", "MH_START_SNP"),
    ),
    "helper, 512 bits": ("regions", Options(vector_bits=512), ("MH_VECTORS_512",)),
    "helper, 32-bit start, 512 bits": ("alias-window", Options(vector_bits=512), ("MH_START_32", "MH_VECTORS_512")),
}
_LOADERS = {"loader": Finds.VOLUME, "loader, by HOB": Finds.HOB}

HELPERS, LOADERS = tuple(_HELPERS), tuple(_LOADERS)
NAMES = (*HELPERS, *LOADERS)
"""The helpers that differ in their code, whatever their address space, and the loaders."""
LANDING = "landing"
RECORDED = (*NAMES, LANDING)
"""All blobs."""


@cache
def blob(name: str) -> Blob:
    """One of `RECORDED`, linked once."""
    return linked(name)


def linked(name: str) -> Blob:
    """One of `RECORDED`, of what the assembler makes of the sources now."""
    if name == LANDING:
        return _of_landing()
    if name in _LOADERS:
        return _of_loader(name, _LOADERS[name])
    return _of_image(name, helper_image(name), frozenset(_HELPERS[name][2]))


def helper_image(name: str) -> Image:
    """The image of a helper whose code is the blob of that name."""
    scheme, options, _ = _HELPERS[name]
    return build_helper(scheme, options)
