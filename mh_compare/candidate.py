"""What is compared: a scheme's image for one part and one start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mh_abi.image import HelperImage
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import hosted
from mh_builder.paging import GIB
from mh_builder.parts import PARTS, Part
from mh_builder.schemes.space import Options, Start

_RAM_LIMIT = 8 * GIB

OWNER = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
"""Who owns all SNP guests here: the public half is in their helpers' measured pages."""


@dataclass(frozen=True)
class Candidate:
    """A scheme with its image."""

    name: str
    image: Image
    part: Part

    @property
    def start(self) -> Start:
        """Plain SEV, SEV-ES, or SNP."""
        return self.image.space.options.start

    @cached_property
    def helper(self) -> HelperImage:
        """The image as a host gets it: with the page that starts it where that is measured."""
        return hosted(self.image, self.part.c_bit)


@cache
def candidate(scheme: str, part: str, start: Start = Start.HOST) -> Candidate:
    """The scheme's image for that part, for a small guest: the less there is to launch the better."""
    known = PARTS[part]
    options = replace(options_for(known, start), ram_limit=_RAM_LIMIT)
    return Candidate(scheme, build_helper(scheme, options), known)


def options_for(part: Part, start: Start) -> Options:
    """What `build.py build` takes without further options; under SNP with an owner."""
    owner = OWNER.public_key().public_bytes_raw() if start is Start.SNP else b""
    return replace(Options.for_part(part), start=start, owner=owner)
