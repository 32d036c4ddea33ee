"""A helper as an IGVM file: all its private memory at its mirror GPAs, its VMSAs, and the policy of its launch."""

from __future__ import annotations

from mh_abi.image import parse_image
from mh_builder.firmware.errors import FirmwareError
from mh_builder.igvm.layout import Platform
from mh_builder.igvm.read import MEMORY_LIMIT
from mh_builder.igvm.wrap import MASKS, context, heading, pages_of
from mh_builder.igvm.write import write_igvm
from mh_builder.image.model import Image
from mh_builder.image.vmsa import write_vmsa
from mh_builder.schemes.space import LayoutError, Start


def helper_igvm(image: Image, policy: int | None = None) -> bytes:
    """The file for SEV, or for SEV-ES where the image starts from a VMSA; `policy` None takes that of `POLICIES`.

    The ring is not in it: it is shared memory, which nobody measures. Plain SEV has no registers in it: the host sets
    them from the descriptor. Raises `LayoutError` where the C-bit is not fixed, `FirmwareError` where the helper is
    too large.
    """
    c_bit, base = image.space.options.c_bit, image.space.base
    if c_bit is None:
        raise LayoutError(f"{image.space.name}: page tables in an IGVM file need their C-bit: say --c-bit")
    if image.space.options.start is Start.SNP:
        raise LayoutError(f"{image.space.name}: start snp: IGVM files are written for start host and es")
    helper = parse_image(image.data)
    if helper.ring_offset > MEMORY_LIMIT:
        raise FirmwareError(
            f"{image.space.name}: the helper takes {helper.ring_offset:#x} bytes of private memory, "
            f"an IGVM file is read up to {MEMORY_LIMIT:#x}"
        )
    starts_es = image.space.options.start is Start.ES
    platform = Platform.SEV_ES if starts_es else Platform.SEV
    parts = [*heading([platform], policy), *pages_of(helper.launched(base, c_bit), base, MASKS[platform])]
    if starts_es:
        vcpus = range(image.space.options.vcpus)
        parts += [context(platform, vcpu, write_vmsa(image, base, c_bit, vcpu)) for vcpu in vcpus]
    return write_igvm(parts)
