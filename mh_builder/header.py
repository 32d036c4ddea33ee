"""The head of an image: descriptor, parameters, region tuples, relocations (payload/abi.h)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mh_abi import abi
from mh_builder.image.model import ImageRelocation, PlacedSection, vcpu_section
from mh_builder.schemes.space import RAM_VA, AddressSpace, RegionTuple, Start

PROTECTION: Mapping[Start, abi.mh_protection] = MappingProxyType({
    Start.HOST: abi.mh_protection.MH_PROTECTION_SEV,
    Start.ES: abi.mh_protection.MH_PROTECTION_SEV_ES,
    Start.SNP: abi.mh_protection.MH_PROTECTION_SEV_SNP,
})  # fmt: skip
"""How the guest of a helper is protected that starts so."""


def header_bytes(space: AddressSpace, relocations: int) -> int:
    """Bytes of a header with that many relocations."""
    return _relocation_offset(space) + relocations * len(abi.mh_relocation)


def header(
    space: AddressSpace,
    sections: Mapping[str, PlacedSection],
    relocations: Sequence[ImageRelocation],
    *,
    entry: int,
    entry32: int,
    image_bytes: int,
) -> bytes:
    """The first bytes of an image of so many bytes."""
    descriptor = _descriptor(space, sections, relocations, (entry, entry32), image_bytes)
    ring_offset = sections[".ring"].offset
    head = b"".join(
        [
            descriptor.dumps(),
            _params(space, sections).dumps(),
            *(_region(part).dumps() for part in space.tuples(ring_offset)),
            *(abi.mh_relocation(offset=r.offset, count=r.count, kinds=r.kinds).dumps() for r in relocations),
        ]
    )
    if len(head) != header_bytes(space, len(relocations)):
        raise AssertionError(f"header of {len(head):#x} bytes in {header_bytes(space, len(relocations)):#x}")
    return head


def _region_offset() -> int:
    return len(abi.mh_descriptor) + len(abi.mh_params)


def _relocation_offset(space: AddressSpace) -> int:
    return _region_offset() + len(space.tuples(0)) * len(abi.mh_region)


def _descriptor(
    space: AddressSpace,
    sections: Mapping[str, PlacedSection],
    relocations: Sequence[ImageRelocation],
    entries: tuple[int, int],
    image_bytes: int,
) -> abi.mh_descriptor:
    options = space.options
    flags = (0 if space.moves else abi.MH_FLAG_FIXED_BASE) | (0 if options.c_bit is None else abi.MH_FLAG_FIXED_CBIT)
    flags |= abi.MH_FLAG_ES if options.start.measured else 0
    flags |= abi.MH_FLAG_STRICT if options.strict else 0
    flags |= abi.MH_FLAG_SNP if options.owner else 0
    stack = sections[".stack"]
    return abi.mh_descriptor(
        magic=abi.MH_DESCRIPTOR_MAGIC,
        version=abi.MH_ABI_VERSION,
        scheme=space.scheme_id,
        descriptor_bytes=len(abi.mh_descriptor),
        flags=flags,
        image_bytes=image_bytes,
        memory_bytes=space.memory_bytes,
        link_base=space.base,
        home=abi.MH_NO_HOME if space.home is None else space.home,
        window=space.window,
        ram_limit=options.ram_limit,
        cr3=space.base + sections[".tables"].offset | space.c_mask,
        entry64=entries[0],
        stack64=stack.va + stack.size,
        c_bit=options.c_bit or 0,
        ring_offset=sections[".ring"].offset,
        ring_count=options.vcpus,
        secret_offset=sections[".secret"].offset,
        secret_bytes=sections[".secret"].size,
        relocation_offset=_relocation_offset(space),
        relocation_count=len(relocations),
        region_offset=_region_offset(),
        region_count=len(space.tuples(0)),
        entry32=entries[1],
        vmsa_offset=(space.vmsas.start - space.base) % (1 << 64),
        ring_stride=abi.MH_RING_BYTES,
        vcpu_stride=_vcpu_stride(sections),
    )


def _vcpu_stride(sections: Mapping[str, PlacedSection]) -> int:
    second = vcpu_section(".vcpu", 1)
    return sections[second].offset - sections[".vcpu"].offset if second in sections else 0


def _params(space: AddressSpace, sections: Mapping[str, PlacedSection]) -> abi.mh_params:
    unused = [abi.mh_range()] * (abi.MH_PROTECTED_MAX - len(space.protected))
    return abi.mh_params(
        window_va=RAM_VA,
        ram_limit=space.options.ram_limit,
        ring_va=sections[".ring"].va,
        secret_va=sections[".secret"].va,
        bitmap_va=sections[".bitmap"].va,
        moved_va=sections[".moved_bitmap"].va,
        shared_va=sections[".shared_bitmap"].va,
        authenticators_va=sections[".authenticators"].va if space.options.strict else 0,
        vmsa_va=space.vmsa_span().va,
        vcpus=space.options.vcpus,
        vcpu_stride=_vcpu_stride(sections),
        protect=[abi.mh_range(start=part.start, end=part.end) for part in space.protected] + unused,
        # Every part with SEV-ES has the instructions that the helper needs.
        features=abi.MH_FEATURE_AESNI if space.options.start.measured else 0,
        protocol_low=space.options.protocols[0],
        protocol_high=space.options.protocols[1],
        addresses=space.addresses,
        protection=PROTECTION[space.options.start].value,
    )


def _region(part: RegionTuple) -> abi.mh_region:
    kind = abi.MH_REGION_PRIVATE if part.is_private else abi.MH_REGION_SHARED
    return abi.mh_region(main_gpa=part.main_gpa, length=part.length, mirror_gpa=part.mirror_gpa, kind=kind)
