"""Files that no loader should take: one line that says what and where, and exit code 1."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.igvm.oracle import SEV, SEV_ES, SEV_SNP, assemble, context, header, page, platform, resealed
from mh_builder.igvm.file import LARGEST_IGVM

PAGE = bytes(4096)
ONE = assemble([platform(SEV, 1), page(0x1000)])


def patched(data: bytes, offset: int, *words: int) -> bytes:
    return data[:offset] + struct.pack(f"<{len(words)}I", *words) + data[offset + 4 * len(words) :]


def with_data(*headers: bytes, size: int = 4096) -> bytes:
    """A SEV-ES file of those headers, and `size` bytes of data behind them."""
    return assemble([platform(SEV_ES, 2), *headers], bytes(size))


def area(number: int, size: int = 0x1000, offset: int = 0) -> bytes:
    return header(0x301, struct.pack("<QII", size, number, offset))


def insert(number: int, gpa: int = 0x5000) -> bytes:
    return header(0x303, struct.pack("<QII", gpa, 1, number))


def policy(mask: int = 1, reserved: int = 0) -> bytes:
    return header(0x101, struct.pack("<QII", 1, mask, reserved))


def sev(*headers: bytes) -> bytes:
    return assemble([platform(SEV, 1), *headers])


BAD: dict[str, tuple[bytes, str]] = {
    "magic-alone": (b"IGVM", "0x4 bytes have no room for a fixed header of 0x18"),
    "version": (patched(ONE, 4, 3), "format version 3, known are 1 and 2"),
    "no-room-for-version-2": (
        resealed(patched(b"IGVM" + bytes(22), 4, 2, 24, 0, 26)),
        "0x1a bytes have no room for a fixed header of 0x20",
    ),
    "architecture": (
        resealed(patched(assemble([platform(SEV, 1)], version=2), 24, 1)),
        "architecture 0x1 with pages of 0x1000, not 0x0 (x86-64) with 0x1000",
    ),
    "page-size": (
        resealed(patched(assemble([platform(SEV, 1)], version=2), 28, 0x10000)),
        "architecture 0x0 with pages of 0x10000, not 0x0 (x86-64) with 0x1000",
    ),
    "truncated": (ONE[:-8], "the fixed header says 0x50 bytes, there are 0x48"),
    "trailing": (ONE + b"\0", "the fixed header says 0x50 bytes, there are 0x51"),
    "headers-behind-the-file": (
        patched(ONE, 8, 24, 0x48),
        "variable headers of 0x48 bytes at 0x18 are not between 0x18 and 0x50",
    ),
    "headers-too-large-by-wrapping": (
        patched(ONE, 8, 0x20, 0xFFFF_FFF8),
        "variable headers of 0xfffffff8 bytes at 0x20 are not between 0x18 and 0x50",
    ),
    "headers-in-the-fixed-header": (
        patched(ONE, 8, 16),
        "variable headers of 0x38 bytes at 0x10 are not between 0x18 and 0x50",
    ),
    "checksum": (patched(ONE, 64, 0x2000), "CRC-32 of the headers is 0x311aaf08, the fixed header says 0x17b70007"),
    "cut-header": (assemble([platform(SEV, 1), bytes(4)]), "header at 0x30: 0x4 bytes are left, 0x8 needed"),
    "header-too-long": (
        sev(struct.pack("<II", 0x302, 0xFFFF_FFFF)),
        "header of type 0x302 at 0x30: 0xffffffff bytes, 0x0 are left",
    ),
    "wrong-size": (sev(header(0x302, bytes(16))), "PAGE_DATA at 0x30 has 0x10 bytes, not 0x18"),
    "padding": (
        sev(header(0x80000999, b"x")[:-1] + b"y"),
        "header of type 0x80000999 at 0x30: the bytes behind its 0x1 are not zero",
    ),
    "unknown": (sev(header(0x999, b"")), "header of the unknown type 0x999 at 0x30, and it is not optional"),
    "optional-page": (
        sev(struct.pack("<I", 0x8000_0302) + page(0x1000)[4:]),
        "PAGE_DATA at 0x30 is marked as optional: loaders may differ on it",
    ),
    "reserved": (sev(policy(reserved=1)), "GUEST_POLICY at 0x30: a reserved field is not zero"),
    "order": (sev(page(0x1000), policy()), "GUEST_POLICY at 0x50 comes after headers of type 0x301 on"),
    "no-platform": (assemble([]), "no platform in 0 headers"),
    "policy-without-platform": (
        assemble([policy()]),
        "GUEST_POLICY at 0x18: compatibility mask 0x1, the platforms are 0x0",
    ),
    "unknown-platform": (assemble([platform(9, 1)]), "SUPPORTED_PLATFORM at 0x18: unknown platform 0x9 of version 0x1"),
    "platform-version": (
        assemble([platform(SEV, 1, 2)]),
        "SUPPORTED_PLATFORM at 0x18: unknown platform 0x4 of version 0x2",
    ),
    "two-bits": (assemble([platform(SEV, 3)]), "SUPPORTED_PLATFORM at 0x18: mask 0x3 is not one new bit beside 0x0"),
    "same-bit": (
        assemble([platform(SEV, 1), platform(SEV_ES, 1)]),
        "SUPPORTED_PLATFORM at 0x30: mask 0x1 is not one new bit beside 0x1",
    ),
    "same-platform": (
        assemble([platform(SEV, 1), platform(SEV, 2)]),
        "SUPPORTED_PLATFORM at 0x30: a second one of index 0x4 for the platforms 0x1",
    ),
    "foreign-mask": (sev(page(0x1000, 3)), "PAGE_DATA at 0x30: compatibility mask 0x3, the platforms are 0x1"),
    "no-mask": (sev(page(0x1000, 0)), "PAGE_DATA at 0x30: compatibility mask 0x0, the platforms are 0x1"),
    "two-policies": (sev(policy(), policy()), "GUEST_POLICY at 0x48: a second one of index 0x0 for the platforms 0x1"),
    "flags": (sev(page(0x1000, flags=8)), "PAGE_DATA at 0x30: flags 0x8, known are 0x7"),
    "data-type": (sev(page(0x1000, data_type=4)), "PAGE_DATA at 0x30: unknown type of page 0x4"),
    "odd-place": (sev(page(0x1800)), "PAGE_DATA at 0x30: GPA 0x1800 is not a multiple of 0x1000"),
    "odd-large-place": (sev(page(0x1000, flags=1)), "PAGE_DATA at 0x30: GPA 0x1000 is not a multiple of 0x200000"),
    "high-place": (
        sev(page((1 << 64) - 4096)),
        "PAGE_DATA at 0x30: GPA 0xfffffffffffff000 and 0x1000 bytes are no pages below 0x10000000000000",
    ),
    "data-in-the-headers": (
        sev(page(0x1000, offset=8)),
        "PAGE_DATA at 0x30: 0x1000 bytes of data at 0x8, data are at 0x50 to 0x50",
    ),
    "data-behind-the-file": (
        assemble([platform(SEV, 1), page(0x1000, offset=0x51)], PAGE),
        "PAGE_DATA at 0x30: 0x1000 bytes of data at 0x51, data are at 0x50 to 0x1050",
    ),
    "data-of-a-large-page": (
        assemble([platform(SEV, 1), page(0x200000, offset=0x50, flags=1)], PAGE),
        "PAGE_DATA at 0x30: 0x200000 bytes of data at 0x50, data are at 0x50 to 0x1050",
    ),
    "same-place": (
        sev(page(0x1000), page(0x1000)),
        "PAGE_DATA at 0x50: memory at 0x1000 is filled by PAGE_DATA at 0x30 as well",
    ),
    "inside-a-large-page": (
        sev(page(0x201000), page(0x200000, flags=1)),
        "PAGE_DATA at 0x30: memory at 0x201000 is filled by PAGE_DATA at 0x50 as well",
    ),
    "parameters-over-a-page": (
        sev(page(0x5000), area(1), insert(1)),
        "PARAMETER_INSERT at 0x68: memory at 0x5000 is filled by PAGE_DATA at 0x30 as well",
    ),
    "no-area": (
        sev(insert(1)),
        "PARAMETER_INSERT at 0x30: parameter area 1 is not declared before, or inserted already",
    ),
    "area-inserted-twice": (
        sev(area(1), insert(1), insert(1, 0x9000)),
        "PARAMETER_INSERT at 0x60: parameter area 1 is not declared before, or inserted already",
    ),
    "parameter-after-the-insert": (
        sev(area(1), insert(1), header(0x307, struct.pack("<II", 1, 0))),
        "VP_COUNT_PARAMETER at 0x60: parameter area 1 is not declared before, or inserted already",
    ),
    "parameter-behind-its-area": (
        sev(area(1), header(0x307, struct.pack("<II", 1, 0x1000))),
        "VP_COUNT_PARAMETER at 0x48: offset 0x1000 of an area of 0x1000 bytes",
    ),
    "area-twice": (sev(area(1), area(1)), "PARAMETER_AREA at 0x48: parameter area 1 is there a second time"),
    "odd-area": (
        sev(area(1, 0x800)),
        "PARAMETER_AREA at 0x30: 0x800 bytes are no number of pages of at most 0x20000000",
    ),
    "huge-area": (
        sev(area(1, 1 << 63)),
        "PARAMETER_AREA at 0x30: 0x8000000000000000 bytes are no number of pages of at most 0x20000000",
    ),
    "registers-of-two-platforms": (
        assemble([platform(SEV, 1), platform(SEV_ES, 2), context(0, 3, 0x68)], PAGE),
        "VP_CONTEXT at 0x48: registers of the platforms 0x3, each has a layout of its own",
    ),
    "registers-twice": (
        with_data(context(0, 2, 0x70), context(0, 2, 0x70)),
        "VP_CONTEXT at 0x50: a second one of index 0x0 for the platforms 0x2",
    ),
    "registers-without-data": (
        with_data(context(0, 2, 0)),
        "VP_CONTEXT at 0x30: 0x1000 bytes of data at 0x0, data are at 0x50 to 0x1050",
    ),
    "memory-required-nowhere": (
        sev(header(0x305, struct.pack("<QIIII", 0x1000, 1, 0x123, 0, 0))),
        "REQUIRED_MEMORY at 0x30: GPA 0x1000 and 0x123 bytes are no pages below 0x10000000000000",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_refused(command: Command, tmp_path: Path, case: str) -> None:
    data, message = BAD[case]
    (tmp_path / "bad.igvm").write_bytes(data)
    expected = (1, "", f"build.py: error: bad.igvm: IGVM: {message}\n")
    for verb in (["igvm"], ["table"], ["measure"], ["extract", "-o", "x"], ["wrap", "-o", "x"]):
        assert command("ovmf", verb[0], "bad.igvm", *verb[1:]) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["bad.igvm"]


def test_refused_before_a_helper_is_built(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.igvm").write_bytes(BAD["checksum"][0])
    outcome = command("ovmf", "inject", "bad.igvm", "-o", "x", "--scheme", "regions")
    assert outcome == (1, "", f"build.py: error: bad.igvm: IGVM: {BAD['checksum'][1]}\n")


def test_too_large(command: Command, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.write(b"IGVM")
        file.truncate(1 << 40)
    message = f"huge: 0x10000000000 bytes, at most {LARGEST_IGVM:#x} are expected"
    assert command("ovmf", "igvm", "huge") == (1, "", f"build.py: error: {message}\n")


LARGE = [page(0x200000 * number, 7, flags=1) for number in range(257)]
MANY: dict[str, tuple[list[bytes], str]] = {
    "headers": ([platform(SEV, 1), *[header(0x8000_0FFF, b"")] * (1 << 18)], "more than 0x40000 variable headers"),
    "memory": (
        [platform(SEV_SNP, 4), platform(SEV, 1), platform(SEV_ES, 2), *LARGE],
        "pages of 0x20200000 bytes, at most",
    ),
}


@pytest.mark.parametrize("case", list(MANY))
def test_small_files_that_ask_for_much_work(command: Command, tmp_path: Path, case: str) -> None:
    headers, message = MANY[case]
    (tmp_path / "bad.igvm").write_bytes(assemble(headers))
    outcome = command("ovmf", "igvm", "bad.igvm")
    assert outcome.code == 1
    assert outcome.err.startswith(f"build.py: error: bad.igvm: IGVM: {message}")


UNLAUNCHED: dict[str, tuple[bytes, str, str]] = {
    "other-platform": (ONE, "snp", "not for SEV_SNP, its platforms are SEV"),
    "secrets-without-snp": (sev(page(0x1000, data_type=1)), "sev", "page at 0x1000 of type SECRETS: for SNP alone"),
    "registers-elsewhere": (
        with_data(context(0x1000, 2, 0x50)),
        "seves",
        "registers of vCPU 0 at 0x1000: vCPU 0's belong at 0xfffffffff000",
    ),
    "registers-with-a-gap": (
        with_data(context(0xFFFF_FFFF_F000, 2, 0x50, 1)),
        "seves",
        "registers of vCPU 1 at 0xfffffffff000: vCPU 0's belong at 0xfffffffff000",
    ),
}


@pytest.mark.parametrize("case", list(UNLAUNCHED))
def test_no_digest(command: Command, tmp_path: Path, case: str) -> None:
    data, mode, message = UNLAUNCHED[case]
    (tmp_path / "odd.igvm").write_bytes(data)
    outcome = command("ovmf", "measure", "odd.igvm", "--mode", mode)
    assert outcome == (1, "", f"build.py: error: odd.igvm: IGVM: {message}\n")
    if case != "other-platform":
        assert command("ovmf", "igvm", "odd.igvm").out.endswith(f"{mode:6} no digest: IGVM: {message}\n")


@pytest.mark.parametrize("size", [0, 0x1000])
def test_no_firmware(command: Command, tmp_path: Path, size: int) -> None:
    """Pages of another kind, or with a gap below 4 GiB, are no flash image."""
    headers = [platform(SEV, 1), page((1 << 32) - 0x1000, flags=2), page((1 << 32) - 0x2000)]
    (tmp_path / "none.igvm").write_bytes(assemble(headers, bytes(size)))
    outcome = command("ovmf", "table", "none.igvm")
    message = "no firmware: no measured page ends at 0x100000000"
    assert outcome == (1, "", f"build.py: error: none.igvm: IGVM: {message}\n")
