"""The migration helper itself: its sources become objects, its objects an image for each scheme."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile, assemble
from mh_builder.image.model import Image
from mh_builder.link import link
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import LayoutError, Options, Start
from mh_builder.vc import check_no_vc

WIDEST_VECTOR = 512


@cache
def helper_objects(switches: frozenset[str] = frozenset(), sources: Path = PAYLOAD) -> tuple[ObjectFile, ...]:
    """All sources of the helper, assembled, in the order of their names. Raises `AssemblyError`, `LayoutError`.

    `switches` are what the sources ask for with `.ifdef`.
    """
    for header in abi.HEADERS:
        own = sources / header.name
        if not own.is_file() or own.read_bytes() != header.read_bytes():
            raise LayoutError(f"{sources} has another ABI: its {header.name} is not that of {header.parent}")
    return tuple(_object(path, switches) for path in sorted(sources.glob("*.s")))


def _object(path: Path, switches: frozenset[str]) -> ObjectFile:
    """The file, assembled; once for all switches that it does not ask for."""
    known = _objects(path)
    for others, unit in known.items():
        if not (others ^ switches) & unit.asked:
            return unit
    symbols = abi.assembler_symbols() | dict.fromkeys(switches, 1)
    known[switches] = assemble(path, symbols=symbols, name=f"payload/{path.name}")
    return known[switches]


@cache
def _objects(_path: Path) -> dict[frozenset[str], ObjectFile]:
    """What the file has become so far, by its switches."""
    return {}


def build_helper(scheme: str, options: Options, sources: Path = PAYLOAD) -> Image:
    """The helper for the scheme of that name, from this folder. Raises `LayoutError`, `AssemblyError`, `LinkError`."""
    if scheme not in SCHEMES:
        raise LayoutError(f"no scheme {scheme!r}; there are {', '.join(SCHEMES)}")
    image = link(helper_objects(_switches(scheme, options), sources), SCHEMES[scheme], options)
    if options.start is Start.ES:
        check_no_vc(image)
    return image


def _switches(scheme: str, options: Options) -> frozenset[str]:
    if options.start is Start.ES:
        # It asks no CPUID, so it takes the kernel that every part has.
        return frozenset({"MH_START_ES", "MH_START_SNP"} if options.owner else {"MH_START_ES"})
    low = {"MH_START_32"} if SCHEMES[scheme].is_low else set()
    wide = {"MH_VECTORS_512"} if options.vector_bits == WIDEST_VECTOR else set()
    return frozenset(low | wide)
