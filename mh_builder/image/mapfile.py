"""The map beside an image: where each byte goes, which symbol lies where."""

from __future__ import annotations

from collections.abc import Iterator

from mh_builder.image.model import Image, PlacedSection
from mh_builder.schemes.space import human


def write_map(image: Image) -> str:
    """The map as text, one line a section, an object's piece or a symbol."""
    return "\n".join([*_head(image), "", *_sections(image), "", *_symbols(image)]) + "\n"


def _head(image: Image) -> Iterator[str]:
    space = image.space
    yield f"scheme        {space.name}"
    yield f"image         {len(image.data):#x} bytes in the file, {image.memory_bytes:#x} in memory"
    yield f"page tables   {image.table_bytes:#x} bytes"
    yield f"mirror GPA    {space.helper}{'' if space.moves else ' (fixed)'}"
    yield f"main GPA      {'none' if space.home is None else f'{space.home:#x}'}"
    yield f"RAM           {space.ram} in the mirror, addresses below {space.options.ram_limit:#x}"
    for span in space.ram_spans():
        yield f"  mapped      {span.va:#x} to {span.end:#x} rw- private ({human(span.size)})"


def _sections(image: Image) -> Iterator[str]:
    yield f"{'virtual':18} {'mirror GPA':14} {'offset':>8} {'bytes':>8} {'file':>8} rights view     section"
    for section in image.sections:
        if not section.size:
            continue
        yield _row(image, section)
        for piece in section.pieces:
            place = f"{section.va + piece.offset:#018x} {'':14} {section.offset + piece.offset:>#8x} {piece.size:>#8x}"
            yield f"{place} {'':24}   {piece.name}"


def _row(image: Image, section: PlacedSection) -> str:
    view = "private" if section.private else "shared"
    return (
        f"{section.va:#018x} {image.space.base + section.offset:<#14x} {section.offset:>#8x} {section.size:>#8x} "
        f"{section.stored:>#8x} {section.rights:6} {view:8} {section.name}"
    )


def _symbols(image: Image) -> Iterator[str]:
    yield f"{'virtual':18} {'binding':7} {'section':12} {'object':22} symbol"
    for symbol in image.symbols:
        if symbol.section is None or symbol.name.startswith(".L") or "@" in symbol.name:
            continue
        binding = "global" if symbol.is_global else "local"
        yield f"{symbol.value:#018x} {binding:7} {symbol.section:12} {symbol.origin:22} {symbol.name}"
