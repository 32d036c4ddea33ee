"""What a helper is launched with: an owner's record, and a build that may have room for a strict finish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from emulator_tests.helper.conftest import SECRET
from mh_abi import abi
from mh_abi.image import HelperImage, parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.schemes.space import HOME_START, Options
from mh_emulator.secret import Secret

PAGE = abi.MH_PAGE_BYTES
RINGS = 2
RAM_LIMIT = 0xB0_5000
"""Above a helper at the lowest home; the last page is in the middle of a word of the maps."""


@dataclass(frozen=True, slots=True)
class Terms:
    """`secret` is the owner's; `has_room` is of the build."""

    secret: Secret
    has_room: bool

    @property
    def image(self) -> Image:
        """A helper of two rings."""
        return _image(self.has_room)

    @property
    def helper(self) -> HelperImage:
        """The image, as a host reads it."""
        return _helper(self.has_room)

    @property
    def protected(self) -> range:
        """Addresses of the helper's own pages."""
        return range(HOME_START, HOME_START + self.helper.memory_bytes)

    @property
    def pages(self) -> tuple[int, ...]:
        """All pages that the helper sees of the guest, as the maps count them: RAM, and VMSAs behind it."""
        return _pages(self.protected)


PLAIN = Terms(SECRET, has_room=False)
STRICT = Terms(replace(SECRET, flags=abi.MH_OWNER_STRICT), has_room=True)
UNABLE = Terms(STRICT.secret, has_room=False)
"""The owner asks for what the build has not."""


@cache
def _image(has_room: bool) -> Image:
    return build_helper("regions", Options(vcpus=RINGS, home=HOME_START, ram_limit=RAM_LIMIT, strict=has_room))


@cache
def _helper(has_room: bool) -> HelperImage:
    return parse_image(_image(has_room).data)


@cache
def _pages(protected: range) -> tuple[int, ...]:
    return tuple(page for page in range(0, RAM_LIMIT + abi.MH_VMSA_BYTES, PAGE) if page not in protected)
