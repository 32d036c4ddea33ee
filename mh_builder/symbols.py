"""What the objects of a link define together: merged sections and symbols."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mh_abi import abi
from mh_abi.errors import DiagnosticsError
from mh_builder.asm import ObjectFile
from mh_builder.image.model import Piece, PlacedSection, PlacedSymbol
from mh_builder.schemes.space import HELPER_VA


class LinkError(DiagnosticsError):
    """Objects that do not make an image; one line for each reason in `reasons`."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = tuple(reasons)


PADDING = {".text": b"\xcc"}
"""What stands between two objects: a jump that misses its target traps."""


@dataclass
class MergedSection:
    """One section of all objects, in the order of the objects; it lies in the image's section `home`."""

    name: str
    home: str
    data: bytearray = field(default_factory=bytearray)
    size: int = 0
    pieces: list[Piece] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)


def merge(objects: Iterable[ObjectFile], name: str) -> MergedSection:
    """Join the sections called `name` of all objects, in their order."""
    return _merge(objects, MergedSection(name, name))


def merge_behind(objects: Iterable[ObjectFile], name: str, home: str, size: int) -> MergedSection:
    """The same, behind the first `size` bytes of another section of the image, which the linker fills."""
    return _merge(objects, MergedSection(name, home, bytearray(size), size, [Piece("linker", 0, size)]))


def _merge(objects: Iterable[ObjectFile], merged: MergedSection) -> MergedSection:
    for unit in objects:
        for section in unit.sections:
            if section.name != merged.name or not section.size:
                continue
            start = -(-merged.size // section.align) * section.align
            merged.starts[unit.name] = start
            merged.pieces.append(Piece(unit.name, start, section.size))
            if section.data:
                merged.data.extend(PADDING.get(merged.name, b"\0") * (start - len(merged.data)))
                merged.data.extend(section.data)
            merged.size = start + section.size
    return merged


PHYSICAL = "physical."
"""`physical.NAME` is the mirror GPA of NAME, for code that runs without paging."""


class SymbolTable:
    """All symbols of a link: each object's own, the global ones, and the linker's.

    `base` is the mirror GPA of the image; where a loader may choose it, None, and there are no `physical.` symbols.
    """

    def __init__(
        self,
        objects: Sequence[ObjectFile],
        merged: Mapping[str, MergedSection],
        sections: Mapping[str, PlacedSection],
        base: int | None,
    ) -> None:
        self._base = base
        self._local: dict[tuple[str, str], PlacedSymbol] = {}
        self._global: dict[str, PlacedSymbol] = {}
        reasons: list[str] = []
        for symbol in _linker_symbols(sections):
            self._global[symbol.name] = symbol
        for unit in objects:
            for symbol in _placed_symbols(unit, merged, sections):
                self._local[unit.name, symbol.name] = symbol
                if not symbol.is_global:
                    continue
                if symbol.name in self._global:
                    first = self._global[symbol.name].origin
                    reasons.append(f"{unit.name}: error: symbol '{symbol.name}' is defined in {first} already")
                self._global.setdefault(symbol.name, symbol)
        if reasons:
            raise LinkError(reasons)

    def find(self, unit: ObjectFile, name: str) -> PlacedSymbol | None:
        """The symbol that `name` means in `unit`."""
        if name.startswith(PHYSICAL):
            return self._physical(unit, name)
        return self._local.get((unit.name, name)) or self._global.get(name)

    def _physical(self, unit: ObjectFile, name: str) -> PlacedSymbol | None:
        symbol = self.find(unit, name.removeprefix(PHYSICAL))
        if symbol is None or symbol.section is None or self._base is None:
            return None
        return PlacedSymbol(name, self._base + symbol.value - HELPER_VA, None, is_global=True, origin="linker")

    def required(self, name: str) -> int:
        """The address of the global `name`, which every image has."""
        if name not in self._global:
            raise LinkError([f"linker: error: no object defines the global symbol '{name}'"])
        return self._global[name].value

    def placed(self) -> list[PlacedSymbol]:
        """Every symbol once, by address and name."""
        linkers = [symbol for symbol in self._global.values() if symbol.origin == "linker"]
        return sorted([*self._local.values(), *linkers], key=lambda symbol: (symbol.value, symbol.name, symbol.origin))


def _linker_symbols(sections: Mapping[str, PlacedSection]) -> Iterator[PlacedSymbol]:
    tops = {"linker.stack_top": ".stack", "linker.fault_stack_top": ".fault_stack"}
    for name, section in tops.items():
        yield PlacedSymbol(
            name, sections[section].va + sections[section].size, section, is_global=True, origin="linker"
        )
    yield PlacedSymbol("linker.vcpu", sections[".vcpu"].va, ".vcpu", is_global=True, origin="linker")
    yield PlacedSymbol("linker.tables", sections[".tables"].va, ".tables", is_global=True, origin="linker")
    for section in sections.keys() & {".owner", ".snp_secrets", ".validated"}:
        yield PlacedSymbol(f"linker{section}", sections[section].va, section, is_global=True, origin="linker")
    params = HELPER_VA + len(abi.mh_descriptor)
    yield PlacedSymbol("linker.params", params, ".header", is_global=True, origin="linker")


def _placed_symbols(
    unit: ObjectFile, merged: Mapping[str, MergedSection], sections: Mapping[str, PlacedSection]
) -> Iterator[PlacedSymbol]:
    for symbol in unit.symbols:
        value, home = symbol.value, None
        if symbol.section is not None:
            section = merged[symbol.section]
            home = section.home
            value += sections[home].va + section.starts.get(unit.name, 0)
        yield PlacedSymbol(symbol.name, value, home, symbol.is_global, unit.name)
