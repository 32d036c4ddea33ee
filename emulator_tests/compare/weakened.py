"""A helper that is weaker than ours in one thing: attacks on it have to succeed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mh_builder.asm import assemble_text
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_builder.schemes.space import HELPER_VA
from mh_compare.candidate import Candidate
from mh_compare.mirror_arena import MirrorArena


def weakened(image: Image, routines: Mapping[str, str]) -> MirrorArena:
    """An arena whose helper has routines that do nothing but what is said here."""
    return MirrorArena(Candidate("regions", with_routines(image, routines), PARTS["milan"]))


def with_routines(image: Image, routines: Mapping[str, str]) -> Image:
    """The image with such routines."""
    data = bytearray(image.data)
    for symbol, text in routines.items():
        code = assemble_text(f"{text}\n ret", "weak").sections[0].data
        start = image.symbol(symbol).value - HELPER_VA
        data[start : start + len(code)] = code
    return replace(image, data=bytes(data))
