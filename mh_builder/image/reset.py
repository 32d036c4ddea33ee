"""The page of the reset vector: what a vCPU finds that starts as after INIT, in real mode."""

from __future__ import annotations

from mh_abi.sources import PAYLOAD
from mh_builder.asm import assemble
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import HELPER_VA

RESET_PAGE = (4 << 30) - PAGE_BYTES
"""GPA of the page whose last 16 bytes are the reset vector (APM volume 2, section 14.1.3)."""

_SOURCE = PAYLOAD / "reset" / "reset.s"


def has_reset(image: Image) -> bool:
    """Whether the image has a 32-bit start, where the reset vector leads."""
    return any(symbol.name == "entry32" and symbol.is_global for symbol in image.symbols)


def write_reset(image: Image) -> bytes:
    """The page for RESET_PAGE, for the image at the base for which it was linked."""
    entry32 = image.space.base + image.symbol("entry32").value - HELPER_VA
    symbols = {"RESET_PAGE": RESET_PAGE, "RESET_ENTRY32": entry32}
    unit = assemble(_SOURCE, symbols=symbols, name=f"payload/reset/{_SOURCE.name}")
    page = next(section.data for section in unit.sections if section.name == ".text")
    if len(page) != PAGE_BYTES:
        raise AssertionError(f"the reset page has {len(page):#x} bytes, not {PAGE_BYTES:#x}")
    return bytes(page)
