"""Files of other tools: what they have beside pages, and that a helper put into them leaves all of it alone."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.igvm import oracle
from emulator_tests.igvm.oracle import PAGE, SEV_SNP, context, header, page, platform
from mh_builder.firmware.digests import Mode
from mh_builder.firmware.inject import inject
from mh_builder.igvm.firmware import flash_of, with_flash
from mh_builder.igvm.launch import launch_digest
from mh_builder.igvm.layout import VMSA_GPA
from mh_builder.igvm.read import read_igvm
from mh_builder.image.model import Image

NATIVE = 0


@dataclass(frozen=True)
class Foreign:
    """A file as igvm-wrap makes it: version 2, parameters first, pages by GPA, one piece of data for equal pages."""

    data: bytes
    headers: list[bytes]
    flash: bytes


def foreign(flash: bytes, digest: bytes = bytes(48)) -> Foreign:
    low = (1 << 32) - len(flash)
    pieces = sorted({flash[start : start + PAGE] for start in range(0, len(flash), PAGE)})
    pieces += [b"registers".ljust(PAGE, b"\1"), b"a document, not a page", b"shared by two pages".ljust(PAGE, b"\2")]

    def headers(first: int) -> list[bytes]:
        places = {piece: first + sum(map(len, pieces[:number])) for number, piece in enumerate(pieces)}
        registers, document, shared = (places[piece] for piece in pieces[-3:])
        starts = range(0, len(flash), PAGE)
        return [
            platform(NATIVE, 1), platform(SEV_SNP, 2), header(0x101, struct.pack("<QII", 0x30000, 2, 0)),
            header(0x8000_0104, struct.pack("<IIII", 2, document, 22, 0)),
            header(0x301, struct.pack("<QII", 0x2000, 7, 0)), header(0x30C, struct.pack("<II", 7, 0)),
            header(0x307, struct.pack("<II", 7, 0xC0)), header(0x303, struct.pack("<QII", 0x812000, 3, 7)),
            header(0x8000_0777, b"from tomorrow"), context(VMSA_GPA, 2, registers),
            header(0x30B, struct.pack("<IB3s48s", 2, 0, bytes(3), digest) + bytes(640)),
            page(0x80D000, 2, data_type=1), page(0x80E000, 2, data_type=2), page(0x810000, 2),
            page(0x814000, 3, shared), page(0x815000, 3, shared + 4, flags=2), page(0x816000, 3, flags=4),
            header(0x305, struct.pack("<QIIII", 0x900000, 2, 0x10000, 0, 0)),
            *(page(low + start, 3, places[flash[start : start + PAGE]]) for start in starts),
        ]  # fmt: skip

    first = oracle.data_offset(headers(0), 2)
    pieces[-1] += b"\2" * 4
    return Foreign(oracle.assemble(headers(first), b"".join(pieces), 2), headers(first), flash)


@pytest.fixture(scope="session")
def injected(small: bytes, images: dict[str, Image]) -> bytes:
    """The small flash image with a helper in it."""
    return inject(small, images["alias-gpa"].data)


def test_it_is_read(small: bytes) -> None:
    igvm = read_igvm(foreign(small).data)
    assert igvm.version == 2
    assert flash_of(igvm) == small
    assert with_flash(igvm, small).data == igvm.data


def test_snp_digest_with_parameters(small: bytes) -> None:
    """Parameters are unmeasured pages; shared ones are none; registers come last, for KVM launches them last."""
    igvm = read_igvm(foreign(small).data)
    found = oracle.parse(igvm.data)
    unmeasured = [(0x812000, 2, 2, 0, None), (0x813000, 2, 2, 0, None)]
    found.pages = unmeasured + [entry for entry in found.pages if not entry[2] & 4]
    assert launch_digest(igvm, Mode.SNP) == oracle.snp_digest(found)


def test_registers_are_measured_by_vcpu() -> None:
    """KVM launches them so, wherever the file has them."""
    heading = [platform(oracle.SEV_ES, 1)]
    first = oracle.data_offset([*heading, *[context(VMSA_GPA, 1, 0)] * 3, page(0x1000)])
    places = [(2, first + 2 * PAGE), (0, first), (1, first + PAGE)]
    headers = [*heading, *(context(VMSA_GPA, 1, offset, number) for number, offset in places), page(0x1000)]
    data = b"".join(bytes([number]) * PAGE for number in range(1, 4))
    igvm = read_igvm(oracle.assemble(headers, data))
    assert launch_digest(igvm, Mode.SEV_ES) == hashlib.sha256(bytes(PAGE) + data).digest()


def test_a_helper_put_in_changes_its_pages_alone(small: bytes, injected: bytes) -> None:
    before = foreign(small)
    igvm = with_flash(read_igvm(before.data), injected)
    assert flash_of(igvm) == injected
    old, new = oracle.parse(before.data), oracle.parse(igvm.data)
    low = (1 << 32) - len(small)
    assert new.kinds == old.kinds
    assert new.contexts == old.contexts
    assert [entry for entry in new.pages if entry[0] < low] == [entry for entry in old.pages if entry[0] < low]
    assert [entry[:4] for entry in new.pages] == [entry[:4] for entry in old.pages]
    flash = b"".join(contents or b"" for gpa, *_, contents in new.pages if gpa >= low)
    assert flash == injected
    start = 32
    for piece in before.headers:
        kept = igvm.data[start : start + len(piece)]
        assert kept[:20] + kept[24:] == piece[:20] + piece[24:]
        if piece[:4] != struct.pack("<I", 0x302):
            assert kept == piece
        start += len(piece)
    assert b"a document, not a page" in igvm.data


def test_a_second_helper_takes_the_first_ones_place(small: bytes, injected: bytes) -> None:
    once = with_flash(read_igvm(foreign(small).data), injected)
    back = with_flash(once, small)
    assert flash_of(back) == small
    assert len(back.data) == len(once.data)
    assert with_flash(back, injected).data == once.data


def test_the_digest_of_an_id_block(command: Command, small: bytes, tmp_path: Path) -> None:
    right = launch_digest(read_igvm(foreign(small).data), Mode.SNP)
    (tmp_path / "signed.igvm").write_bytes(foreign(small, right).data)
    assert "ID block" not in command("ovmf", "igvm", "signed.igvm").out
    outcome = command("ovmf", "inject", "signed.igvm", "-o", "out.igvm", "--scheme", "alias-gpa")
    data = (tmp_path / "out.igvm").read_bytes()
    wrong = launch_digest(read_igvm(data), Mode.SNP)
    line = f"SNP ID block: for the digest {right.hex()}, the file has {wrong.hex()}: sign another one\n"
    assert outcome.code == 0
    assert outcome.out.endswith(f"snp    before {right.hex()}\n       after  {wrong.hex()}\n{line}")
    assert command("ovmf", "igvm", "out.igvm").out.endswith(line)
    report = json.loads(command("ovmf", "igvm", "out.igvm", "--json").out)
    assert report["id_block"] == {"says": right.hex(), "launches": wrong.hex()}


def test_in_and_out(command: Command, small: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.igvm").write_bytes(foreign(small).data)
    outcome = command("ovmf", "inject", "in.igvm", "-o", "out.igvm", "--scheme", "regions", "--json")
    report = json.loads(outcome.out)
    assert outcome.code == 0
    assert set(report["digests"]["after"]) == {"snp"}
    command("build", "--scheme", "regions", "-o", ".")
    assert command("ovmf", "extract", "out.igvm", "-o", "regions.again").code == 0
    assert (tmp_path / "regions.again").read_bytes() == (tmp_path / "regions.bin").read_bytes()
    table = command("ovmf", "table", "out.igvm").out
    assert "migration helper" in table


def test_what_is_shown(command: Command, small: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.igvm").write_bytes(foreign(small).data)
    lines = command("ovmf", "igvm", "in.igvm").out.splitlines()
    size = len(foreign(small).data)
    digest = launch_digest(read_igvm(foreign(small).data), Mode.SNP).hex()
    assert lines[:3] == [
        f"IGVM version 2, {size:#x} bytes, {18 + len(small) // PAGE} headers",
        "platform NATIVE, mask 0x1", "platform SEV_SNP, mask 0x2",
    ]  # fmt: skip
    assert [line.split(maxsplit=2) for line in lines[12:18]] == [
        ["0x80d000", "0x1000", "PAGE_DATA       SEV_SNP  SECRETS"],
        ["0x80e000", "0x1000", "PAGE_DATA       SEV_SNP  CPUID_DATA"],
        ["0x810000", "0x1000", "PAGE_DATA       SEV_SNP  NORMAL, zero"],
        ["0x814000", "0x1000", "PAGE_DATA       NATIVE, SEV_SNP  NORMAL"],
        ["0x815000", "0x1000", "PAGE_DATA       NATIVE, SEV_SNP  NORMAL, unmeasured"],
        ["0x816000", "0x1000", "PAGE_DATA       NATIVE, SEV_SNP  NORMAL, shared, zero"],
    ]
    assert lines[-3].split() == [
        f"{(1 << 32) - len(small):#x}",
        f"{len(small):#x}",
        "PAGE_DATA",
        "NATIVE,",
        "SEV_SNP",
        "NORMAL",
    ]
    assert "0x80000777" in lines[9]
    assert lines[-2] == f"snp    {digest}"
