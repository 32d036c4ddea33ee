"""Files that are something else than a flash image of OVMF: one line says what, before anything is built."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import VARIABLES, Find
from emulator_tests.firmware.small import Small, patched, resized, shrink, variables, with_inner
from emulator_tests.firmware.tails import table_only
from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.inject import check_target
from mh_builder.firmware.kind import kind
from mh_builder.firmware.section import PE32, TE, make_section
from mh_builder.firmware.volume import TYPE_PEI_CORE, TYPE_SEC_CORE, file_header
from mh_cli import ovmf_inject

FMP_CAPSULE = UUID("6dcbd5ed-e82d-4c44-bda1-7194199ad92a")
X64_HEADER = b"PE\0\0\x64\x86"
STORE = "a variable store (VARS) of 0x20000 bytes without firmware (CODE)"
WRONG_ORDER = "a variable store: CODE before VARS, the right order is VARS before CODE"
NOT = "not an OVMF image: "


@pytest.fixture(scope="module")
def small(stock: Find) -> Small:
    return shrink(stock("X64").read_bytes())


def code_for(kind_of_section: int, header: bytes, core: int) -> Callable[[Small], bytes]:
    """A volume behind a page of zeros with nothing in it but a core of that machine."""

    def make(small: Small) -> bytes:
        body = make_section(kind_of_section, header.ljust(0x60, b"\0"))
        volume = small.data[: small.carrier] + file_header(FMP_CAPSULE, core, 0, body) + body
        return b"\x14\0\0\0".ljust(0x1000, b"\0") + resized(volume.ljust(0x10000, b"\xff"))

    return make


def pe(machine: int) -> bytes:
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + struct.pack("<H", machine)


def cloud_hypervisor(small: Small) -> bytes:
    """An ELF header in the first page, and a reset vector without the table."""
    no_table = patched(small.data, len(small.data) - 48, bytes(16))
    return b"\x7fELF\x02\x01\x01".ljust(0x1000, b"\0") + no_table


KINDS: dict[str, tuple[Callable[[Small], bytes], str]] = {
    "empty": (lambda _: b"", "empty"),
    "zeros": (lambda _: bytes(0x3000), "0x3000 bytes, all 0x00"),
    "erased": (lambda _: b"\xff" * 0x84000, "0x84000 bytes, all 0xff"),
    "gzip": (lambda small: gzip.compress(small.data, 1), "compressed by gzip"),
    "xz": (lambda small: lzma.compress(small.data, preset=0), "compressed by xz"),
    "bzip2": (lambda small: bz2.compress(small.data, 1), "compressed by bzip2"),
    "zstd": (lambda small: b"\x28\xb5\x2f\xfd" + small.data, "compressed by zstd"),
    "qcow2": (lambda small: b"QFI\xfb" + struct.pack(">I", 3) + small.data, "a disk image in qcow2"),
    "igvm": (lambda _: b"IGVM" + struct.pack("<II", 2, 0x20), "an IGVM file"),
    "deb": (lambda _: b"!<arch>\ndebian-binary   ", "an archive of ar, as Debian's packages are"),
    "capsule": (lambda small: FMP_CAPSULE.bytes_le.ljust(0x1000, b"\0") + small.data, "an EFI capsule"),
    "elf": (lambda _: b"\x7fELF" + bytes(0x2000), "an ELF file"),
    "cloud-hypervisor": (
        cloud_hypervisor, "OVMF of cloud-hypervisor, an ELF file for PVH whose reset vector has no GUIDed table",
    ),
    "kernel": (lambda _: pe(0x8664), "a PE file, an EFI program or a kernel"),
    "variables": (variables, STORE),
    "padded-variables": (
        lambda small: variables(small) + bytes(0x5000), STORE,
    ),
    "code-then-variables": (
        lambda small: small.data + variables(small, 0x21000),
        f"its GUIDed table ends the image at 0x54000, but 0x21000 bytes follow, {WRONG_ORDER}",
    ),
    "code-then-half-of-variables": (
        lambda small: small.data + variables(small)[:0x1000],
        f"its GUIDed table ends the image at 0x54000, but 0x1000 bytes follow, {WRONG_ORDER}",
    ),
    "padded-with-zeros": (
        lambda small: small.data + bytes(0x1234),
        "its GUIDed table ends the image at 0x54000, but 0x1234 bytes follow, all 0x00: padded",
    ),
    "padded-with-ones": (
        lambda small: small.data + b"\xff",
        "its GUIDed table ends the image at 0x54000, but 0x1 bytes follow, all 0xff: padded",
    ),
    "followed": (
        lambda small: small.data + b"something",
        "its GUIDed table ends the image at 0x54000, but 0x9 bytes follow",
    ),
    "code-twice": (
        lambda small: small.data * 2,
        "two images, one ends at 0x54000 and one at 0xa8000, the same twice",
    ),
    "two-of-them": (
        lambda small: table_only([]) + small.data,
        "two images, one ends at 0x1000 and one at 0x55000, not the same",
    ),
    "tail-cut": (
        lambda small: small.data[:-0x1000],
        "no GUIDed table, volume at 0x20000: truncated, it ends at 0x54000, the data at 0x53000",
    ),
    "tail-cut-between-volumes": (
        lambda small: small.data[:0x20000],
        "its tail is missing: the last volume ends at 0x20000 and has no reset vector",
    ),
    "aarch64": (code_for(TE, b"VZ\x64\xaa", TYPE_SEC_CORE), "UEFI firmware for AArch64"),
    "risc-v": (code_for(PE32, pe(0x5064), TYPE_PEI_CORE), "UEFI firmware for RISC-V"),
    "unknown-machine": (code_for(TE, b"VZ\x34\x12", TYPE_PEI_CORE), "UEFI firmware for machine 0x1234"),
    "seabios": (
        lambda _: b"\0SeaBIOS (version 1.2)".ljust(0xFFF0, b"\0") + bytes.fromhex("ea5be000f0").ljust(16, b"\0"),
        "SeaBIOS, firmware without UEFI",
    ),
    "bios": (
        lambda _: b"\x01".ljust(0xFFF0, b"\0") + bytes.fromhex("ea5be000f0").ljust(16, b"\0"),
        "a PC's BIOS, firmware without UEFI",
    ),
    "option-rom": (lambda _: b"\x55\xaa\x40".ljust(0x8000, b"\0"), "an option ROM of a PC"),
}  # fmt: skip

VERBS = {
    "table": (), "measure": (), "boot": (), "extract": ("-o", "x.bin"), "diff": ("in.fd",),
    "inject": ("-o", "x.fd", "--scheme", "regions"),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_it_is_named(small: Small, case: str) -> None:
    make, expected = KINDS[case]
    assert kind(make(small)) == expected


@pytest.mark.parametrize("case", ["gzip", "code-then-variables", "code-twice", "capsule"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_so(
    small: Small, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, verb: str
) -> None:
    """And `inject` builds nothing for it."""
    monkeypatch.delattr(ovmf_inject, "build_helper")
    make, expected = KINDS[case]
    (tmp_path / "in.fd").write_bytes(make(small))
    outcome = command("ovmf", verb, "in.fd", *VERBS[verb])
    assert outcome == (1, "", f"build.py: error: in.fd: {NOT}{expected}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.fd"]


def test_what_is_an_image_stays_one(stock: Find, injected: Find, name: str, small: Small) -> None:
    """Also with the variables before the code, and as the tail of an image."""
    whole = stock(name).read_bytes()
    assert [*map(kind, (whole, injected(name).read_bytes(), variables(small) + whole, whole[-0x2000:]))] == [None] * 4


def test_what_is_known_of_nothing_is_left_to_the_reader() -> None:
    assert kind(b"a text\n" * 99) is None


@pytest.mark.skipif(not VARIABLES.exists(), reason=f"{VARIABLES} is not installed")
def test_real_variables() -> None:
    assert kind(VARIABLES.read_bytes()) == "a variable store (VARS) of 0x84000 bytes without firmware (CODE)"


@pytest.mark.parametrize("cut", [0x1000, 0x20000, 0x21000])
def test_head_that_is_missing(small: Small, cut: int) -> None:
    """What is left ends with a table, so `table` shows it; there is nothing to inject into."""
    rest = small.data[cut:]
    assert kind(rest) is None
    with pytest.raises(
        FirmwareError, match=r"head of the image missing\?$|without any firmware volume$|no volume-top file"
    ):
        check_target(rest)


@pytest.mark.parametrize(
    ("machine", "name"),
    [(b"\x4c\x01", "IA32"), (b"\x64\xaa", "AArch64"), (b"\xbc\x0e", "machine 0xebc"), (b"\0\0", "machine 0x0")],
)
def test_core_of_another_machine(
    small: Small, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: bytes, name: str
) -> None:
    monkeypatch.delattr(ovmf_inject, "build_helper")
    (tmp_path / "in.fd").write_bytes(
        with_inner(small, lambda inner: inner.replace(X64_HEADER, X64_HEADER[:4] + machine))
    )
    outcome = command("ovmf", "inject", "in.fd", "-o", "x.fd", "--scheme", "regions")
    what = (
        f"DXE core in {guids.DXEFV} (DXEFV): {name}, not X64: it dispatches no X64 driver, so no helper would be loaded"
    )
    assert outcome == (1, "", f"build.py: error: in.fd: {what}\n")


@pytest.fixture(scope="module")
def pieces(small: Small) -> list[bytes]:
    """Heads of all kinds, and parts of an image."""
    parts = [small.data[:0x1000], small.data[-0x1000:], variables(small)[:0x1000], bytes(0x1000)]
    return [*parts, *(make(small)[:0x2000] for make, _ in KINDS.values())]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_bytes_have_a_kind_or_none(pieces: list[bytes], data: st.DataObject) -> None:
    made = b"".join(data.draw(st.lists(st.sampled_from(pieces) | st.binary(max_size=64), max_size=4)))
    found = kind(made)
    assert found is None or (found and "\n" not in found)


def test_a_table_in_every_page() -> None:
    """Of the largest image: only the last two are looked at."""
    page = table_only([])
    assert "two images" in (kind(b"\0" + bytes(0xFFF) + page * 0x3FFF) or "")


@pytest.mark.parametrize("damage", [b"\0\0", b"\xff\xff"])
def test_footers_of_no_table(damage: bytes) -> None:
    """In every page, with a length that no table has."""
    page = bytearray(table_only([]))
    page[-50:-48] = damage
    assert kind(bytes(page) * 15) is None
