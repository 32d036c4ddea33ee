"""`ovmf check`: each answer flipped by one fault, and no answer where there cannot be one."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.small import (
    Small,
    patched,
    resized,
    shrink,
    variables,
    with_file,
    with_inner,
    with_inner_file,
)
from emulator_tests.firmware.tails import with_entry_data, with_guid, with_items
from mh_builder.firmware import guids
from mh_builder.firmware.bridge import with_entry
from mh_builder.firmware.flash import read_flash
from mh_builder.firmware.inject import inject
from mh_builder.firmware.measure import Vcpus
from mh_builder.firmware.section import VOLUME_IMAGE, make_section
from mh_builder.firmware.table import read_table
from mh_builder.firmware.volume import TYPE_DRIVER, TYPE_SMM_CORE
from mh_builder.igvm.wrap import wrap
from mh_builder.image.model import Image
from mh_cli import ovmf_check

DXE_CORE = UUID("d6a2cb7f-6a18-4e2f-b43b-9920a733700a")
X64_HEADER = b"PE\0\0\x64\x86"
PLACE = struct.pack("<II", 0x810000, 0xC00)

Rows = dict[str, tuple[str, bool]]
"""Question -> answer, and whether it decides."""

GOOD: Rows = {
    "readable": ("yes", True),
    "volumes whole": ("yes", True),
    "DXE core is X64": ("yes", True),
    "table sound": ("yes", True),
    "helper whole": ("yes", True),
    "room for the helper": ("yes", False),
    "launchable as SEV": ("yes", False),
    "launchable as SEV-ES": ("yes", False),
    "launchable as SEV-SNP": ("yes", False),
    "launch secret": ("no", False),
    "kernel hashes": ("no", False),
    "variables included": ("no", False),
    "variables only by SMM": ("no", False),
    "debug messages": ("no", False),
}


@pytest.fixture(scope="module")
def stock_small(stock: Find) -> Small:
    return shrink(stock("X64").read_bytes())


@pytest.fixture(scope="module")
def small(stock_small: Small, images: dict[str, Image]) -> Small:
    return replace(stock_small, data=inject(stock_small.data, images["alias-gpa"].data))


def first_driver(small: Small) -> UUID:
    files = read_flash(small.data).driver_files().files
    return next(file.guid for file in files if file.kind == TYPE_DRIVER)


def other_guid(small: Small, guid: UUID) -> bytes:
    """A file gets a GUID with the same sum, which keeps its header's."""
    return with_inner(small, lambda inner: inner.replace(guid.bytes_le, guid.bytes_le[::-1]))


def without_our_entry(small: Small) -> bytes:
    numbers = [entry.guid for entry in read_table(small.data).entries]
    return with_guid(small.data, numbers.index(guids.FIRMWARE_ENTRY), UUID(int=5))


def spoiled_blob(small: Small) -> bytes:
    return with_inner_file(small, guids.IMAGE_FILE, None, lambda body: patched(body, 0x200, b"\xcc"))


def no_reset(small: Small) -> bytes:
    numbers = [entry.guid for entry in read_table(small.data).entries]
    return with_guid(small.data, numbers.index(guids.SEV_ES_RESET), UUID(int=6))


def with_few_bytes_left(small: Small) -> bytes:
    """The drivers' volume ends 4 KiB behind its last driver."""
    flash = read_flash(small.data)
    end = -(-(flash.driver_files().free + 0x1000) // 0x1000) * 0x1000
    volume = resized(flash.inner[flash.drivers.offset : end])
    return with_inner(small, lambda _: make_section(VOLUME_IMAGE, volume))


Fault = tuple[Callable[[Small], bytes], Rows, str]
"""What is done, which answers become others, and the reason of the first of them."""

NO = ("no", True)
UNKNOWN = ("cannot tell", False)
UNREADABLE_INSIDE: Rows = {
    "volumes whole": NO,
    "DXE core is X64": NO,
    "helper whole": ("cannot tell", True),
    "room for the helper": NO,
    "variables only by SMM": UNKNOWN,
    "debug messages": UNKNOWN,
}
NO_SNP: Rows = {"table sound": NO, "launchable as SEV-SNP": ("no", False)}

FAULTS: dict[str, Fault] = {
    "volume's header": (
        lambda small: patched(small.data, 50, b"\x01\x02"),
        UNREADABLE_INSIDE | {"variables included": UNKNOWN},
        "volume at 0x0: bad checksum",
    ),
    "state of a file": (
        lambda small: patched(small.data, small.carrier + 23, b"\xff"),
        UNREADABLE_INSIDE,
        "file at 0x78: state 0xff",
    ),
    "a file of the drivers": (
        lambda small: with_inner(small, lambda inner: patched(inner, inner.rindex(guids.IMAGE_FILE.bytes_le), b"\0")),
        UNREADABLE_INSIDE,
        "bad checksum",
    ),
    "core of another machine": (
        lambda small: with_inner(small, lambda inner: inner.replace(X64_HEADER, b"PE\0\0\x4c\x01")),
        {"DXE core is X64": NO},
        "^IA32$",
    ),
    "area launched twice": (
        lambda small: with_items(small.data, [(0x800000, 0x9000, 1), (0x800000, 0x9000, 1)]),
        NO_SNP,
        "launched twice",
    ),
    "unknown area": (lambda small: with_items(small.data, [(0x800000, 0x9000, 0x20)]), NO_SNP, "unknown kind 0x20"),
    "image of the helper": (spoiled_blob, {"helper whole": NO, "room for the helper": UNKNOWN}, "image file: SHA-256"),
    "entry of the helper": (
        lambda small: with_entry_data(small.data, guids.FIRMWARE_ENTRY, bytes(8)),
        {"helper whole": NO, "room for the helper": UNKNOWN},
        "our entry says 0000",
    ),
    "no entry of the helper": (
        without_our_entry, {"helper whole": NO, "room for the helper": UNKNOWN}, "but no entry for it",
    ),
    "no loader": (
        lambda small: other_guid(small, guids.LOADER_FILE),
        {"helper whole": NO, "room for the helper": UNKNOWN},
        "nothing loads the helper",
    ),
    "no image": (
        lambda small: other_guid(small, guids.IMAGE_FILE),
        {"helper whole": NO, "room for the helper": UNKNOWN},
        "a loader is there, but no image",
    ),
    "reset vector of 0": (
        lambda small: with_entry_data(small.data, guids.SEV_ES_RESET, bytes(4)),
        {"launchable as SEV-ES": ("no", False), "launchable as SEV-SNP": ("no", False)},
        "0x0, which QEMU refuses",
    ),
    "no reset vector": (
        no_reset,
        {"launchable as SEV-ES": ("no", False), "launchable as SEV-SNP": ("no", False)},
        "no SEV-ES reset vector",
    ),
    "a place for secrets": (
        lambda small: with_entry_data(small.data, guids.LAUNCH_SECRET, PLACE),
        {"launch secret": ("yes", False)},
        "at 0x810000, 0xc00 bytes",
    ),
    "a place for hashes": (
        lambda small: with_entry_data(small.data, guids.KERNEL_HASHES, PLACE),
        {"kernel hashes": ("yes", False)},
        "at 0x810000, 0xc00 bytes",
    ),
    "variables": (
        lambda small: variables(small) + small.data, {"variables included": ("yes", False)}, "in the volume at 0x0",
    ),
    "a core of SMM": (
        lambda small: with_inner_file(small, first_driver(small), TYPE_SMM_CORE, lambda body: body),
        {"variables only by SMM": ("yes", False)},
        "KVM has no SMM for SEV-ES guests",
    ),
    "a DEBUG build": (
        lambda small: with_inner_file(
            small, DXE_CORE, None, lambda body: patched(body, 0x800, b"Loading driver at 0x%11p EntryPoint=0x%11p ")
        ),
        {"debug messages": ("yes", False)},
        "a DEBUG build",
    ),
}  # fmt: skip


def answers(command: Command, tmp_path: Path, data: bytes, *options: str) -> tuple[int, Rows, dict[str, str]]:
    """(exit code, answers, reasons)."""
    (tmp_path / "in.fd").write_bytes(data)
    outcome = command("ovmf", "check", "in.fd", "--json", *options)
    assert outcome.err == ""
    report = json.loads(outcome.out)
    assert report["schema"] == "sev-migration-helper/ovmf-check/1"
    assert report["good"] == (outcome.code == 0)
    rows = {row["question"]: (row["answer"], row["decides"]) for row in report["rows"]}
    return outcome.code, rows, {row["question"]: row["reason"] for row in report["rows"]}


def test_sound_image(command: Command, tmp_path: Path, small: Small) -> None:
    assert answers(command, tmp_path, small.data)[:2] == (0, GOOD)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault(command: Command, tmp_path: Path, small: Small, fault: str) -> None:
    make, changed, reason = FAULTS[fault]
    code, rows, reasons = answers(command, tmp_path, make(small))
    assert rows == GOOD | changed
    assert re.search(reason, reasons[next(iter(changed))])
    assert code == (NO in changed.values())


@pytest.mark.parametrize(
    ("fault", "mode", "code"),
    [
        ("no reset vector", "sev", 0), ("no reset vector", "seves", 1), ("no reset vector", "snp", 1),
        ("a place for secrets", "snp", 0),
    ],
)  # fmt: skip
def test_a_kind_of_guest_that_is_asked_for(
    command: Command, tmp_path: Path, small: Small, fault: str, mode: str, code: int
) -> None:
    found, rows, _ = answers(command, tmp_path, FAULTS[fault][0](small), "--mode", mode)
    assert found == code
    deciding = [question for question, (_, decides) in rows.items() if decides and "launchable" in question]
    assert deciding == [
        {"sev": "launchable as SEV", "seves": "launchable as SEV-ES", "snp": "launchable as SEV-SNP"}[mode]
    ]


def test_an_image_that_no_guest_can_be_launched_from(command: Command, tmp_path: Path, small: Small) -> None:
    """The three rows decide then."""
    code, rows, reasons = answers(command, tmp_path, small.data[0x10:])
    assert code == 1
    assert [rows[f"launchable as {name}"] for name in ("SEV", "SEV-ES", "SEV-SNP")] == [NO] * 3
    assert "are not a number of pages" in reasons["launchable as SEV"]


@pytest.mark.parametrize(
    ("make", "options", "answer", "reason"),
    [
        (lambda small: small.data, (), UNKNOWN, "--scheme says which"),
        (lambda small: small.data, ("--scheme", "alias-window"), ("yes", True), "and their loader fit"),
        (lambda small: small.data, ("--scheme", "isolated"), NO, "memory that only the mirror maps"),
        (lambda small: with_file(small, UUID(int=7)), (), NO, "follows the compressed section"),
        (lambda small: with_file(small, UUID(int=7)), ("--scheme", "regions"), NO, "follows the compressed"),
        (with_few_bytes_left, ("--scheme", "regions"), NO, "no room"),
    ],
)
def test_room(
    command: Command,
    tmp_path: Path,
    stock_small: Small,
    make: Callable[[Small], bytes],
    options: tuple[str, ...],
    answer: tuple[str, bool],
    reason: str,
) -> None:
    code, rows, reasons = answers(command, tmp_path, make(stock_small), *options)
    assert rows == GOOD | {"helper whole": ("no", False), "room for the helper": answer}
    assert reason in reasons["room for the helper"]
    assert code == (answer == NO)


def test_nothing_is_built_for_what_takes_no_helper(
    command: Command, tmp_path: Path, stock_small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ovmf_check, "build_helper")
    image = with_file(stock_small, UUID(int=7))
    assert answers(command, tmp_path, image, "--scheme", "regions")[0] == 1


@pytest.mark.parametrize("data", [b"", b"a text\n", bytes(0x3000), b"IGVM" + bytes(20), b"\x1f\x8b gz"])
def test_what_is_no_image_has_one_row(command: Command, tmp_path: Path, data: bytes) -> None:
    assert answers(command, tmp_path, data)[:2] == (1, {"readable": NO})


def test_padded_image(command: Command, tmp_path: Path, small: Small) -> None:
    code, rows, reasons = answers(command, tmp_path, small.data + bytes(0x1000))
    assert (code, rows) == (1, {"readable": NO})
    assert reasons["readable"].endswith("but 0x1000 bytes follow, all 0x00: padded")


def test_igvm_file(command: Command, tmp_path: Path, small: Small) -> None:
    assert answers(command, tmp_path, wrap(small.data, Vcpus(1, 0x00A00F11)))[:2] == (0, GOOD)


def test_igvm_file_of_firmware_without_a_reset_vector(command: Command, tmp_path: Path, small: Small) -> None:
    """Its registers are in the file, so what the table says of them does not count."""
    flash = FAULTS["reset vector of 0"][0](small)
    assert answers(command, tmp_path, wrap(flash, Vcpus(1, 0x00A00F11)))[:2] == (0, GOOD)


def test_tail_of_an_image(command: Command, tmp_path: Path, small: Small) -> None:
    """It has a table, and no volume."""
    code, rows, reasons = answers(command, tmp_path, small.data[-0x1000:])
    assert (code, rows) == (1, GOOD | UNREADABLE_INSIDE)
    assert reasons["volumes whole"] == "volumes: 0, files: 0"


def test_entry_of_no_helper(command: Command, tmp_path: Path, stock_small: Small) -> None:
    """Neither image nor loader is inside."""
    code, rows, reasons = answers(command, tmp_path, with_entry(stock_small.data, bytes(32)))
    assert (code, rows) == (1, GOOD | {"helper whole": NO, "room for the helper": UNKNOWN})
    assert reasons["helper whole"].startswith("the GUIDed table has an entry for it, but no image ")


def test_text(command: Command, tmp_path: Path, small: Small) -> None:
    (tmp_path / "in.fd").write_bytes(FAULTS["core of another machine"][0](small))
    outcome = command("ovmf", "check", "in.fd")
    lines = outcome.out.splitlines()
    assert (outcome.code, outcome.err, len(lines)) == (1, "", len(GOOD) + 1)
    assert "no          * DXE core is X64        IA32" in lines
    assert "no            variables included     no volume of variables: give QEMU one" in lines
    assert lines[-1] == "in.fd: no, because of: DXE core is X64"


def test_real_images(command: Command, stock: Find, name: str) -> None:
    """And only what is built for SMM says so."""
    outcome = command("ovmf", "check", stock(name))
    assert (outcome.code, outcome.err) == (0, "")
    assert ("yes           variables only by SMM" in outcome.out) == (name == "4M-secboot")
    assert ("yes           variables included" in outcome.out) == (name == "with-variables")


def test_no_such_file(command: Command) -> None:
    assert command("ovmf", "check", "none.fd") == (2, "", "build.py: error: none.fd: No such file or directory\n")
