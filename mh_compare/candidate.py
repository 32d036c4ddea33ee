"""What is compared: a scheme's image for one part and one start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

from mh_abi.image import HelperImage
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import hosted
from mh_builder.paging import GIB
from mh_builder.parts import PARTS, Part
from mh_builder.schemes.space import Options, Start

_RAM_LIMIT = 8 * GIB


@dataclass(frozen=True)
class Candidate:
    """A scheme with its image."""

    name: str
    image: Image
    part: Part

    @property
    def start(self) -> Start:
        """Plain SEV, or SEV-ES."""
        return self.image.space.options.start

    @cached_property
    def helper(self) -> HelperImage:
        """The image as a host gets it: under SEV-ES with the page that starts it."""
        return hosted(self.image, self.part.c_bit)


@cache
def candidate(scheme: str, part: str, start: Start = Start.HOST) -> Candidate:
    """The scheme's image for that part, for a small guest: the less there is to launch the better."""
    known = PARTS[part]
    options = replace(Options.for_part(known), ram_limit=_RAM_LIMIT, start=start)
    return Candidate(scheme, build_helper(scheme, options), known)
