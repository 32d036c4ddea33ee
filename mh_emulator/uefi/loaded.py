"""What a firmware's loader has to leave in memory, computed without it."""

from __future__ import annotations

from mh_abi.image import HelperImage
from mh_emulator.host import handover


def loaded(image: HelperImage, c_bit: int | None) -> bytes:
    """All pages of an image with a home, from there on; `c_bit` is None without SEV.

    Behind the relocated image all is zero, but for the hand-over that goes with region tuples and for the
    secret, which is shown as zero here: a loader leaves its pages as they are.
    """
    regions = image.regions()
    base = int(regions[0].mirror_gpa) if regions else image.descriptor.home
    memory = bytearray(image.relocated(base, c_bit).ljust(image.memory_bytes, b"\0"))
    if regions:
        page = handover.write(handover.image_regions(image, image.descriptor.link_base))
        memory[image.ring_offset : image.ring_offset + len(page)] = page
    return bytes(memory)
