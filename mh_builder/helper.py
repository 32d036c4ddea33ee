"""The migration helper itself: its sources become objects, its objects an image for each scheme."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mh_builder.asm import ObjectFile, assemble
from mh_builder.image.model import Image
from mh_builder.link import link
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import LayoutError, Options
from payload import abi

SOURCES = Path(abi.HEADER).parent


@cache
def helper_objects() -> tuple[ObjectFile, ...]:
    """All sources of the helper, assembled, in the order of their names. Raises `AssemblyError`."""
    symbols = abi.assembler_symbols()
    return tuple(assemble(path, symbols=symbols, name=f"payload/{path.name}") for path in sorted(SOURCES.glob("*.s")))


def build_helper(scheme: str, options: Options) -> Image:
    """The helper for the scheme of that name. Raises `LayoutError`, `AssemblyError`, `LinkError`."""
    if scheme not in SCHEMES:
        raise LayoutError(f"no scheme {scheme!r}; there are {', '.join(SCHEMES)}")
    return link(helper_objects(), SCHEMES[scheme], options)
