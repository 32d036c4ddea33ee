"""From assembly sources to images: assembler, linker, page tables, schemes, writers.

The names here are for programs that build images; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "PARTS",
    "SCHEMES",
    "AssemblyError",
    "Image",
    "LayoutError",
    "LinkError",
    "MigrationHelperError",
    "Options",
    "Part",
    "Start",
    "build_helper",
    "write_images",
]

if TYPE_CHECKING:
    from mh_abi.errors import MigrationHelperError
    from mh_builder.asm.diagnostics import AssemblyError
    from mh_builder.helper import build_helper
    from mh_builder.image.model import Image
    from mh_builder.image.output import write_images
    from mh_builder.parts import PARTS, Part
    from mh_builder.schemes import SCHEMES
    from mh_builder.schemes.space import LayoutError, Options, Start
    from mh_builder.symbols import LinkError
else:
    _HOMES = {
        "MigrationHelperError": "mh_abi.errors",
        "AssemblyError": "mh_builder.asm.diagnostics",
        "build_helper": "mh_builder.helper",
        "Image": "mh_builder.image.model",
        "write_images": "mh_builder.image.output",
        "PARTS": "mh_builder.parts",
        "Part": "mh_builder.parts",
        "SCHEMES": "mh_builder.schemes",
        "LayoutError": "mh_builder.schemes.space",
        "Options": "mh_builder.schemes.space",
        "Start": "mh_builder.schemes.space",
        "LinkError": "mh_builder.symbols",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
