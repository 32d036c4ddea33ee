"""`ovmf diff`: what was done to an image is what is listed, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sevsnpmeasure.ovmf import OVMF

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.small import (
    CARRIER_BYTES,
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
from mh_abi import abi
from mh_builder.firmware import guids
from mh_builder.firmware.compressed import compress
from mh_builder.firmware.diff import Kind, diff, other_bytes
from mh_builder.firmware.digests import Digests
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.facts import Fact, Part, facts_of
from mh_builder.firmware.flash import read_flash
from mh_builder.firmware.inject import inject
from mh_builder.firmware.section import RAW, USER_INTERFACE, join, make_guided, make_section
from mh_builder.firmware.volume import TYPE_DRIVER, file_header
from mh_builder.image.model import Image

DRIVERS = "FVMAIN_COMPACT/DXEFV"
LAUNCH = {("changed", "launch", mode) for mode in ("sev", "seves", "snp")}
TOP = ("changed", "SECFV", str(guids.VOLUME_TOP))
FOREIGN = UUID("5a1d1a2b-7b0f-4f5c-9a58-2d3c2f9d1b11")

Listed = set[tuple[str, str, str]]
"""Kinds, place, title."""


@pytest.fixture(scope="module")
def small(stock: Find) -> Small:
    return shrink(stock("X64").read_bytes())


def listed(command: Command, tmp_path: Path, before: bytes, after: bytes) -> Listed:
    (tmp_path / "a.fd").write_bytes(before)
    (tmp_path / "b.fd").write_bytes(after)
    outcome = command("ovmf", "diff", "a.fd", "b.fd", "--json")
    assert outcome.err == ""
    report = json.loads(outcome.out)
    assert report["schema"] == "sev-migration-helper/ovmf-diff/1"
    assert outcome.code == bool(report["changes"])
    found = [(" ".join(change["kinds"]), change["where"], change["title"]) for change in report["changes"]]
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.parametrize("name", ["X64", "4M-secboot"])
def test_what_an_injection_did(command: Command, tmp_path: Path, stock: Find, injected: Find, name: str) -> None:
    found = listed(command, tmp_path, stock(name).read_bytes(), injected(name).read_bytes())
    assert found == {
        ("added", DRIVERS, abi.MH_LOADER_FILE_GUID),
        ("added", DRIVERS, abi.MH_IMAGE_FILE_GUID),
        ("added", "GUIDed table", f"migration helper {abi.MH_FIRMWARE_ENTRY_GUID}"),
        TOP,
        *(change for change in LAUNCH if OVMF(str(stock(name))).metadata_items() or change[2] != "snp"),
    }


def test_another_helper(command: Command, tmp_path: Path, small: Small, images: dict[str, Image]) -> None:
    """Of another scheme at another place: no file is added."""
    before, after = (inject(small.data, images[scheme].data) for scheme in ("regions", "alias-gpa"))
    assert listed(command, tmp_path, before, after) == {
        ("changed", DRIVERS, abi.MH_IMAGE_FILE_GUID),
        ("changed", "GUIDed table", f"migration helper {abi.MH_FIRMWARE_ENTRY_GUID}"),
        TOP,
        *LAUNCH,
    }


def files_swapped(small: Small) -> bytes:
    """The last two drivers, one in the place of the other."""
    flash = read_flash(small.data)
    first, second = flash.driver_files().files[-2:]
    one, other = flash.inner[first.offset : first.end], flash.inner[second.offset : second.end]
    both = other.ljust(-(-len(other) // 8) * 8, b"\xff") + one
    end = first.offset + len(both)
    return with_inner(small, lambda inner: inner[: first.offset] + both + inner[end:])


def driver_guids(small: Small) -> list[str]:
    return [str(file.guid) for file in read_flash(small.data).driver_files().files]


def last_driver(small: Small, change: Callable[[bytes], bytes], kind: int | None = None) -> bytes:
    return with_inner_file(small, UUID(driver_guids(small)[-1]), kind, change)


def recompressed(small: Small) -> bytes:
    """The LZMA stream of the highest preset."""
    flash = read_flash(small.data)
    old = flash.carrier
    body = make_guided(guids.LZMA, compress(flash.inner, 0))
    file = file_header(old.guid, old.kind, old.attributes, body) + body
    return patched(small.data, old.offset, file.ljust(CARRIER_BYTES - old.offset, b"\xff"))


def first_difference(small: Small) -> int:
    """Of the stream: the presets give the same contents."""
    return next(at for at, pair in enumerate(zip(small.data, recompressed(small), strict=True)) if pair[0] != pair[1])


def carrier_aligned(small: Small) -> bytes:
    """The compressed file wants another alignment."""
    old = read_flash(small.data).carrier
    header = file_header(old.guid, old.kind, old.attributes ^ 0x10, small.data[old.body : old.end])
    return patched(small.data, old.offset, header)


CHANGES: dict[str, tuple[Callable[[Small], bytes], Callable[[Small], Listed]]] = {
    "one byte of a driver": (
        lambda small: last_driver(small, lambda body: patched(body, len(body) // 2, b"\xaa\xbb\xcc")),
        lambda small: {("changed", DRIVERS, driver_guids(small)[-1])},
    ),
    "the type of a driver": (
        lambda small: last_driver(small, lambda body: body, 0x08),
        lambda small: {("changed", DRIVERS, driver_guids(small)[-1])},
    ),
    "two drivers swapped": (files_swapped, lambda small: {("moved", DRIVERS, driver_guids(small)[-1])}),
    "a foreign file": (
        lambda small: with_file(small, FOREIGN), lambda _: {("added", "FVMAIN_COMPACT", str(FOREIGN))},
    ),
    "variables": (
        lambda small: variables(small) + small.data,
        lambda _: {("added", "variables", "volume"), ("changed", "image", "image")},
    ),
    "header of a volume": (
        lambda small: small.data[:CARRIER_BYTES] + resized(patched(small.data[CARRIER_BYTES:], 54, b"\x01")),
        lambda _: {("changed", "SECFV", "volume")},
    ),
    "beside the compressed volumes": (
        lambda small: with_inner(small, lambda inner: inner + make_section(RAW, b"more")),
        lambda small: {("changed", "FVMAIN_COMPACT", str(read_flash(small.data).carrier.guid))},
    ),
    "attributes of the compressed file": (
        carrier_aligned,
        lambda small: {("changed", "FVMAIN_COMPACT", str(read_flash(small.data).carrier.guid))},
    ),
    "a gap between volumes": (
        lambda small: small.data[:CARRIER_BYTES] + bytes(0x1000) + small.data[CARRIER_BYTES:],
        lambda _: {("changed", "image", "outside of volumes"), ("changed", "image", "image")},
    ),
    "a name of a volume": (
        lambda small: with_inner(small, lambda inner: inner.replace(guids.DXEFV.bytes_le, FOREIGN.bytes_le)),
        lambda small: {
            ("added", f"FVMAIN_COMPACT/{FOREIGN}", "volume"), ("removed", DRIVERS, "volume"),
            *(("moved", f"FVMAIN_COMPACT/{FOREIGN}", guid) for guid in driver_guids(small)),
        },
    ),
    "an area": (
        lambda small: with_items(small.data, [(0x900000, 0x9000, 1)]),
        lambda _: {
            ("added", "SEV metadata", "SEC memory at 0x900000"), ("removed", "SEV metadata", "SEC memory at 0x800000"),
            TOP,
        },
    ),
    "data of an entry": (
        lambda small: with_entry_data(small.data, guids.LAUNCH_SECRET, b"\0\0\x81\0\0\x0c\0\0"),
        lambda _: {("changed", "GUIDed table", f"launch secret {guids.LAUNCH_SECRET}"), TOP},
    ),
    "an unknown entry": (
        lambda small: with_guid(small.data, 0, FOREIGN),
        lambda small: {
            ("added", "GUIDed table", str(FOREIGN)), ("removed", "GUIDed table", first_entry(small)), TOP,
        },
    ),
    "the same contents, compressed otherwise": (
        recompressed,
        lambda small: {
            ("changed", "image", f"the same contents in other bytes, from {first_difference(small):#x} on"),
        },
    ),
}  # fmt: skip


def first_entry(small: Small) -> str:
    """Title of the entry under the footer."""
    entries = [fact for fact in facts_of(small.data, Digests()) if fact.part is Part.ENTRY]
    return entries[0].title


@pytest.mark.parametrize("name", CHANGES)
def test_one_change(command: Command, tmp_path: Path, small: Small, name: str) -> None:
    """Every one of them is measured too."""
    make, expected = CHANGES[name]
    before, after = (small.data, make(small))
    assert before != after
    assert listed(command, tmp_path, before, after) - LAUNCH == expected(small)
    back = {"added": "removed", "removed": "added"}
    reverse = listed(command, tmp_path, after, before) - LAUNCH
    if "moved" not in {kind for kind, _, _ in reverse}:
        assert reverse == {(back.get(kind, kind), where, title) for kind, where, title in expected(small)}


def test_bytes_between_volumes(command: Command, tmp_path: Path, small: Small) -> None:
    before, after = (
        small.data[:CARRIER_BYTES] + gap.ljust(0x1000, b"\0") + small.data[CARRIER_BYTES:] for gap in (b"one", b"other")
    )
    assert listed(command, tmp_path, before, after) - LAUNCH == {("changed", "image", "outside of volumes")}


def test_two_images_of_a_distributor(command: Command, tmp_path: Path, stock: Find) -> None:
    """As a foreign parser lists their files, by GUID."""
    paths = stock("X64"), stock("4M-secboot")
    there = [Counter(foreign_files(path)) for path in paths]
    found = listed(command, tmp_path, *(path.read_bytes() for path in paths))
    files = [(kind, title) for kind, _, title in found if re.fullmatch(r"[0-9a-f-]{36}", title)]
    pad = str(guids.PAD_FILE)
    assert there[0] != there[1]
    assert {title for kind, title in files if kind == "added"} == set(there[1] - there[0]) - {pad}
    assert {title for kind, title in files if kind == "removed"} == set(there[0] - there[1]) - {pad}


def foreign_files(path: Path) -> list[str]:
    parser = Path(sys.executable).parent / "uefi-firmware-parser"
    done = subprocess.run([parser, path], capture_output=True, text=True, check=True, timeout=100)
    return re.findall(r"File \d+: ([0-9a-f-]{36})", done.stdout)


def test_equal_images(command: Command, stock: Find, name: str) -> None:
    path = stock(name)
    assert command("ovmf", "diff", path, path) == (0, f"{path} and {path}: no difference\n", "")


def test_text(command: Command, tmp_path: Path, small: Small, images: dict[str, Image]) -> None:
    (tmp_path / "a.fd").write_bytes(small.data)
    (tmp_path / "b.fd").write_bytes(inject(small.data, images["regions"].data))
    outcome = command("ovmf", "diff", "a.fd", "b.fd")
    assert (outcome.code, outcome.err) == (1, "")
    lines = outcome.out.splitlines()
    assert lines[0] == f"{DRIVERS}: 2 added"
    assert re.fullmatch(
        rf"  \+ MigrationHelperLoader {abi.MH_LOADER_FILE_GUID} type driver, size 0x[0-9a-f]+", lines[1]
    )
    assert lines[3] == "SECFV: 1 changed"
    assert re.fullmatch(rf"  ~ volume-top file {guids.VOLUME_TOP} size 0x[0-9a-f]+ -> 0x[0-9a-f]+", lines[4])
    measured = json.loads(command("ovmf", "measure", "b.fd", "--json").out)["digests"]
    assert [line.split()[1] for line in lines if line.startswith("    +")] == list(measured.values())
    assert lines[-1] == "a.fd and b.fd: 7 differences: 3 added, 4 changed"


def test_reasons_are_compared_as_digests_are(command: Command, tmp_path: Path, small: Small) -> None:
    (tmp_path / "a.fd").write_bytes(small.data)
    (tmp_path / "b.fd").write_bytes(with_items(small.data, [(0x800000, 0x9000, 0x20)]))
    lines = command("ovmf", "diff", "a.fd", "b.fd").out.splitlines()
    at = lines.index("  ~ snp")
    assert re.fullmatch("    - [0-9a-f]{96}", lines[at + 1])
    assert lines[at + 2].startswith("    + none: SEV metadata: area at 0x800000 is of the unknown kind 0x20")


@pytest.mark.parametrize("number", [0, 1])
def test_the_error_names_the_image(command: Command, tmp_path: Path, small: Small, number: int) -> None:
    (tmp_path / "0.fd").write_bytes(small.data)
    (tmp_path / "1.fd").write_bytes(small.data)
    (tmp_path / f"{number}.fd").write_bytes(patched(small.data, 50, b"\x01\x02"))
    outcome = command("ovmf", "diff", "0.fd", "1.fd")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"build.py: error: {number}.fd: volume at 0x0: bad checksum")
    assert outcome.err.count("\n") == 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_change_is_without_a_difference(small: Small, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from([0, small.carrier, small.free, small.pad, small.top, len(small.data) - 0x400]))
    at = min(at + data.draw(st.integers(0, 0x3FF)), len(small.data) - 1)
    mutated = patched(small.data, at, bytes([small.data[at] ^ data.draw(st.integers(1, 255))]))
    try:
        after = facts_of(mutated, Digests())
    except FirmwareError as error:
        assert "\n" not in str(error)  # noqa: PT017 - a change that spoils the image is said as well
        return
    assert diff(facts_of(small.data, Digests()), after) or other_bytes(small.data, mutated)


FACTS = st.lists(
    st.builds(
        Fact,
        st.sampled_from([Part.FILE, Part.ENTRY]),
        st.sampled_from(["one", "two"]),
        st.sampled_from("abcdef"),
        st.fixed_dictionaries({"size": st.integers(0, 2)}),
    ),
    unique_by=lambda fact: fact.key,
)


@settings(max_examples=100, deadline=None)
@given(before=FACTS, after=FACTS)
def test_differences_explain_the_other_image(before: list[Fact], after: list[Fact]) -> None:
    """With them the facts of `after` come out of those of `before`, and no fact is there twice."""
    changes = diff(before, after)
    assert diff(before, before) == []
    left = [fact for fact in before if fact not in [change.before for change in changes]]
    made = [*left, *(change.after for change in changes if change.after is not None)]
    assert sorted(made, key=repr) == sorted(after, key=repr)
    assert all(change.kinds for change in changes)
    counts, back = (Counter(kind for one in found for kind in one.kinds) for found in (changes, diff(after, before)))
    assert (counts[Kind.ADDED], counts[Kind.REMOVED]) == (back[Kind.REMOVED], back[Kind.ADDED])


@settings(max_examples=60, deadline=None)
@given(order=st.permutations("abcdef"))
def test_as_few_as_possible_have_moved(order: list[str]) -> None:
    before, after = ([Fact(Part.FILE, "one", name, {}) for name in names] for names in ("abcdef", order))
    moved = diff(before, after)
    assert {change.kinds for change in moved} <= {(Kind.MOVED,)}
    kept = max(size for size in range(1, 7) for some in combinations(order, size) if list(some) == sorted(some))
    assert len(moved) == 6 - kept


def test_a_name_cannot_write_to_the_terminal(command: Command, tmp_path: Path, small: Small) -> None:
    name = ("\x1b[2J\n\u202e" + "x" * 100 + "\0").encode("utf-16-le")
    flash = read_flash(small.data)
    body = join([make_section(USER_INTERFACE, name)])
    file = file_header(FOREIGN, TYPE_DRIVER, 0, body) + body
    free = flash.driver_files().free
    (tmp_path / "a.fd").write_bytes(small.data)
    (tmp_path / "b.fd").write_bytes(with_inner(small, lambda inner: patched(inner, free, file)))
    outcome = command("ovmf", "diff", "a.fd", "b.fd")
    assert f"  + ?[2J??{'x' * 58} {FOREIGN} type driver" in outcome.out
    assert outcome.out.isascii()


def test_more_lines_than_anybody_reads(command: Command, tmp_path: Path, small: Small) -> None:
    """1001 volumes, each with a line of its own and one for its place."""
    empty = resized(small.data[: small.carrier].ljust(0x1000, b"\xff"))
    (tmp_path / "a.fd").write_bytes(small.data)
    (tmp_path / "b.fd").write_bytes(empty * 1001 + small.data)
    lines = command("ovmf", "diff", "a.fd", "b.fd").out.splitlines()
    assert len(lines) == 1002
    assert re.fullmatch(r"\.\.\. and \d+ more lines; --json has all", lines[-2])
    assert re.match(r"a.fd and b.fd: 10\d\d differences: 10\d\d added", lines[-1])
