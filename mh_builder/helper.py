"""The migration helper itself: its sources become objects, its objects an image for each scheme."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile, assemble
from mh_builder.image.model import Image
from mh_builder.link import link
from mh_builder.schemes import EVERY_SCHEME
from mh_builder.schemes.space import LayoutError, Options, Scheme, Start
from mh_builder.vc import check_no_vc

WIDEST_VECTOR = 512

_WHY_NOT = {
    True: "it runs at VMPL0 of an SNP guest, with start snp",
    False: "no mirror of an SNP guest runs (docs/snp.md, vcpu-mirror): scheme vmpl has it",
}
"""Why a scheme has not that start, by whether it has that of SNP."""


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
    if scheme not in EVERY_SCHEME:
        raise LayoutError(f"no scheme {scheme!r}; there are {', '.join(EVERY_SCHEME)}")
    found = EVERY_SCHEME[scheme]
    if options.start not in found.starts:
        raise LayoutError(f"{scheme}: start {options.start.value}: {_WHY_NOT[Start.SNP in found.starts]}")
    image = link(helper_objects(_switches(found, options), sources), found, options)
    if options.start.measured:
        check_no_vc(image)
    return image


def _switches(scheme: Scheme, options: Options) -> frozenset[str]:
    if options.start.measured:
        # It asks no CPUID, so it takes the kernel that every part has.
        return frozenset({"MH_START_ES", *({"MH_START_SNP"} if options.start is Start.SNP else ())})
    low = {"MH_START_32"} if scheme.is_low else set()
    wide = {"MH_VECTORS_512"} if options.vector_bits == WIDEST_VECTOR else set()
    return frozenset(low | wide)
