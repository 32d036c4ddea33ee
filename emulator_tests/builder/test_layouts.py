"""Address spaces that cannot be: one line with the things and their numbers."""

from __future__ import annotations

import re

import pytest

from mh_builder.helper import build_helper
from mh_builder.paging import GIB, MIB, TIB
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import LayoutError, Options, Range, Start, human

OWNER = bytes(range(1, 33))
UNALIGNED = "is not a multiple of 0x1000"

BAD = {
    "no-such-scheme": (
        "aliases",
        Options(),
        r"no scheme 'aliases'; there are alias-gpa, alias-window, alias-window-high, regions, isolated, vmpl",
    ),
    "limit-zero": ("regions", Options(ram_limit=0), r"regions: RAM limit 0x0 is not in 0x1 to 0x40000000000"),
    "limit-above-4-tib": (
        "regions",
        Options(ram_limit=8 * TIB),
        r"regions: RAM limit 0x80000000000 is not in 0x1 to 0x40000000000",
    ),
    "limit-unaligned": (
        "regions",
        Options(ram_limit=GIB + 1),
        r"regions: RAM limit 0x40000001 " + UNALIGNED,
    ),
    "odd-page-size": (
        "isolated",
        Options(largest_page=4 * MIB),
        r"isolated: largest page 0x400000 is neither 0x200000 nor 0x40000000",
    ),
    "home-unaligned": (
        "alias-gpa",
        Options(home=64 * MIB + 8),
        r"alias-gpa: home 0x4000008 " + UNALIGNED,
    ),
    "base-unaligned": (
        "isolated",
        Options(base=4 * TIB + 1),
        r"isolated: base 0x40000000001 " + UNALIGNED,
    ),
    "home-too-low": (
        "alias-gpa",
        Options(home=2 * MIB - 0x1000),
        r"alias-gpa: home 0x1ff000 is below 0x200000",
    ),
    "home-too-high": (
        "alias-window",
        Options(home=2 * GIB - MIB // 2),
        r"alias-window: helper of 0x[0-9a-f]+ bytes at home 0x7ff80000 ends at 0x[0-9a-f]+, above 0x80000000",
    ),
    "strict-bits-of-too-much-ram": (
        "isolated",
        Options(ram_limit=512 * GIB, strict=True),
        r"isolated: helper of 0x[0-9a-f]+ bytes, below 0x100000000 fit",
    ),
    "helper-in-ram": (
        "isolated",
        Options(base=GIB),
        r"isolated: region helper 0x40000000 to 0x[0-9a-f]+ overlaps region RAM 0x0 to 0x1000000000",
    ),
    "helper-at-the-edge-of-ram": (
        "regions",
        Options(base=64 * GIB - 0x1000),
        r"regions: region helper 0xffffff000 to 0x[0-9a-f]+ overlaps region RAM 0x0 to 0x1000000000",
    ),
    "helper-at-its-home": (
        "regions",
        Options(base=64 * MIB, home=64 * MIB),
        r"regions: region helper 0x4000000 to 0x[0-9a-f]+ overlaps region RAM 0x0 to 0x1000000000",
    ),
    "helper-under-the-high-window": (
        "alias-window",
        Options(home=64 * MIB, base=5 * GIB),
        r"alias-window: base 0x140000000 is not the home 0x4000000: the mirror sees it 1:1",
    ),
    "alias-elsewhere": (
        "alias-gpa",
        Options(base=4 * TIB),
        r"alias-gpa: base 0x40000000000 is not the home 0x4000000: requests carry GPAs",
    ),
    "beyond-the-c-bit": (
        "regions",
        Options(base=1 << 47),
        r"regions: region helper 0x800000000000 to 0x[0-9a-f]+ reaches the C-bit 0x800000000000",
    ),
    "beyond-a-fixed-c-bit": (
        "isolated",
        Options(base=(1 << 51) - 0x1000, c_bit=51),
        r"isolated: region helper 0x7fffffffff000 to 0x[0-9a-f]+ reaches the C-bit 0x8000000000000",
    ),
    "vmpl-elsewhere": (
        "vmpl",
        Options(base=4 * TIB, start=Start.SNP, owner=OWNER),
        r"vmpl: base 0x40000000000 is not the home 0x4000000: requests carry GPAs",
    ),
    "vmpl-in-a-mirror": ("vmpl", Options(), r"vmpl: start host: it runs at VMPL0 of an SNP guest, with start snp"),
    **{
        f"{scheme}-under-snp": (
            scheme,
            Options(start=Start.SNP, owner=OWNER),
            rf"{scheme}: start snp: no mirror of an SNP guest runs \(docs/snp.md, vcpu-mirror\): scheme vmpl has it",
        )
        for scheme in SCHEMES
    },
    "no-owner": (
        "vmpl",
        Options(start=Start.SNP),
        r"vmpl: owner's key: expected 32 bytes that are not all zero, found 0: ",
    ),
    "short-owner": (
        "vmpl",
        Options(start=Start.SNP, owner=b"\1" * 31),
        rf"vmpl: owner's key: expected 32 bytes that are not all zero, found 31: {'01' * 31}",
    ),
    "zero-owner": (
        "vmpl",
        Options(start=Start.SNP, owner=bytes(32)),
        rf"vmpl: owner's key: expected 32 bytes that are not all zero, found 32: {'00' * 32}",
    ),
    "owner-of-another-start": (
        "regions",
        Options(start=Start.ES, owner=OWNER),
        r"regions: owner's key: start es has LAUNCH_SECRET, only start snp needs one",
    ),
    "c-bit-in-the-page-offset": ("regions", Options(c_bit=11), r"regions: C-bit 11 is not in 32 to 51"),
    "c-bit-above-the-address": ("regions", Options(c_bit=52), r"regions: C-bit 52 is not in 32 to 51"),
    "c-bit-negative": ("regions", Options(c_bit=-1), r"regions: C-bit -1 is not in 32 to 51"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_layout(case: str) -> None:
    scheme, options, message = BAD[case]
    with pytest.raises(LayoutError, match=f"^{message}$"):
        build_helper(scheme, options)


def test_helper_right_above_ram_is_fine() -> None:
    image = build_helper("regions", Options(base=64 * GIB))
    assert image.space.helper.start == image.space.ram.end


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (12, "12 bytes"), (64 * MIB, "64 MiB"), (3 * GIB // 2, "1.5 GiB"), (4 * TIB, "4 TiB")],
)
def test_human_sizes(size: int, text: str) -> None:
    assert human(size) == text


def test_ranges_that_touch_do_not_overlap() -> None:
    assert not Range(0, 16).overlaps(Range(16, 32))
    assert Range(0, 17).overlaps(Range(16, 32))
    assert re.fullmatch("0x0 to 0x10", str(Range(0, 16)))
