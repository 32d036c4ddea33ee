"""The migration helper itself: its sources become objects, its objects an image for each scheme."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from mh_builder.asm import ObjectFile, assemble
from mh_builder.image.model import Image
from mh_builder.image.vc import check_no_vc
from mh_builder.link import link
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import LayoutError, Options, Start
from payload import abi

SOURCES = Path(abi.HEADER).parent

_SWITCHES: Mapping[Start, Mapping[str, int | str]] = MappingProxyType({Start.HOST: {}, Start.ES: {"MH_START_ES": 1}})
"""What the sources ask for with `.ifdef`."""


@cache
def helper_objects(start: Start = Start.HOST) -> tuple[ObjectFile, ...]:
    """All sources of the helper, assembled for `start`, in the order of their names. Raises `AssemblyError`."""
    symbols = {**abi.assembler_symbols(), **_SWITCHES[start]}
    return tuple(assemble(path, symbols=symbols, name=f"payload/{path.name}") for path in sorted(SOURCES.glob("*.s")))


def build_helper(scheme: str, options: Options) -> Image:
    """The helper for the scheme of that name. Raises `LayoutError`, `AssemblyError`, `LinkError`."""
    if scheme not in SCHEMES:
        raise LayoutError(f"no scheme {scheme!r}; there are {', '.join(SCHEMES)}")
    image = link(helper_objects(options.start), SCHEMES[scheme], options)
    if options.start is Start.ES:
        check_no_vc(image)
    return image
