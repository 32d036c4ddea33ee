"""The VMSA: the encrypted register file with which an SEV-ES vCPU starts the helper.

Source: AMD64 APM volume 2, section 15.5.1 (what VMRUN accepts), section 4.8 (segment attributes).

KVM makes this page from the registers that the VMM has set, and LAUNCH_UPDATE_VMSA measures it. So the file
is what the guest owner expects in the measurement, and what the VMM has to set to get it.
"""

from __future__ import annotations

from mh_abi.image import HelperImage, parse_image
from mh_builder.image.model import Image, vcpu_section
from mh_builder.paging import PAGE_BYTES
from mh_builder.save_area import SNP_ACTIVE, Segment, put, put_segment
from mh_builder.schemes.space import Start

_FLAT_CODE = Segment(0x08, 0xA9B, 0xFFFF_FFFF)
_FLAT_DATA = Segment(0x10, 0xC93, 0xFFFF_FFFF)
_NO_TABLE = Segment(0, 0, 0)
_LDT = Segment(0, 0x082, 0xFFFF)
_BUSY_TSS = Segment(0, 0x08B, 0xFFFF)

_SEGMENTS = {
    "es": _FLAT_DATA,
    "cs": _FLAT_CODE,
    "ss": _FLAT_DATA,
    "ds": _FLAT_DATA,
    "fs": _FLAT_DATA,
    "gs": _FLAT_DATA,
    "gdtr": _NO_TABLE,  # loaded by entry64 before it is used
    "ldtr": _LDT,
    "idtr": _NO_TABLE,
    "tr": _BUSY_TSS,
}

_EFER = 1 << 12 | 1 << 11 | 1 << 10 | 1 << 8
"""SVME, which VMRUN demands; NXE, LMA, LME."""
_CR0 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1 << 0
"""PG, WP, NE, ET, MP, PE."""
_CR4 = 1 << 10 | 1 << 9 | 1 << 6 | 1 << 5
"""OSXMMEXCPT, OSFXSR, MCE, which KVM adds in any case (svm_set_cr4), PAE."""
_RFLAGS = 1 << 1
_DR6, _DR7 = 0xFFFF_0FF0, 0x400
_G_PAT = 0x0007_0406_0007_0406
_XCR0 = 1
_MXCSR, _FCW = 0x1F80, 0x037F


def write_vmsa(image: Image, base: int, c_bit: int, vcpu: int = 0) -> bytes:
    """The page of vCPU `vcpu` for `image` loaded at mirror GPA `base`, on a part with that C-bit."""
    root = base + image.section(".tables").offset
    stack = image.section(vcpu_section(".stack", vcpu))
    page = bytearray(PAGE_BYTES)
    for segment, value in _SEGMENTS.items():
        put_segment(page, segment, value)
    registers = {
        "efer": _EFER,
        "cr4": _CR4,
        "cr3": root | 1 << c_bit,
        "cr0": _CR0,
        "dr7": _DR7,
        "dr6": _DR6,
        "rflags": _RFLAGS,
        "rip": image.symbol("entry64").value,
        "rsp": stack.va + stack.size,
        "rdi": vcpu,
        "g_pat": _G_PAT,
        "sev_features": SNP_ACTIVE if image.space.options.start is Start.SNP else 0,
        "xcr0": _XCR0,
        "mxcsr": _MXCSR,
        "fcw": _FCW,
    }
    for name, number in registers.items():
        put(page, name, number)
    return bytes(page)


def hosted(image: Image, c_bit: int, base: int | None = None) -> HelperImage:
    """`image` as a host gets it: with the page of vCPU 0 where one is measured, for GPA `base` or the image's own."""
    if not image.space.options.start.measured:
        return parse_image(image.data)
    return parse_image(image.data, write_vmsa(image, image.space.base if base is None else base, c_bit))
