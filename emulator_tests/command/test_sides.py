"""`compare A B` and `show A B`: two files side by side."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.report.build import Memory, P, W
from mh_builder.image.model import Image
from mh_builder.image.output import write_images


@pytest.fixture
def files(images: dict[str, Image], tmp_path: Path) -> Path:
    write_images([images["regions"], images["isolated"]], tmp_path)
    for name, leaf in (("one.raw", 0x5000 | P | W), ("two.raw", 0x6000 | P | W)):
        memory = Memory()
        memory.chain(4, memory.table({1: leaf}))
        (tmp_path / name).write_bytes(bytes(memory.data))
    return tmp_path


def test_text(command: Command, files: Path) -> None:
    outcome = command("compare", files / "regions.elf", files / "isolated.elf")
    assert (outcome.code, outcome.err) == (0, "")
    head, *lines = outcome.out.splitlines()
    assert head == "regions and isolated: 19 of 22 regions differ"
    assert sum(line.startswith("moved ") for line in lines) == 12
    assert command("show", files / "regions.elf", files / "isolated.elf").out == outcome.out


def test_json(command: Command, files: Path) -> None:
    outcome = command("compare", files / "regions.bin", files / "regions.bin", "--json")
    found = json.loads(outcome.out)
    assert found["schema"] == "sev-migration-helper/sides/1"
    assert all(region["different"] == [] and region["before"] == region["after"] for region in found["regions"])


def test_foreign_dumps_as_page_and_drawing(command: Command, files: Path) -> None:
    where = ("--cr3", "0x3000", "--physical-bits", "40")
    dumps = (files / "one.raw", files / "two.raw")
    outcome = command("show", *dumps, *where, "--html", "page.html", "--svg", "drawing.svg")
    assert outcome.out.splitlines()[0] == "one and two: 1 of 1 regions differ"
    assert command("compare", *dumps, *where).out == outcome.out
    page = (files / "page.html").read_text()
    assert page.count("<svg ") == 2
    assert "<title>Address spaces of one and two</title>" in page
    root = ET.parse(files / "drawing.svg").getroot()  # noqa: S314 - our own
    assert float(root.get("height", "0")) > 60


def test_nothing_is_not_taken_for_the_same(command: Command, files: Path) -> None:
    (files / "zero.raw").write_bytes(bytes(0x1000))
    outcome = command("compare", files / "zero.raw", files / "zero.raw", "--cr3", "0")
    assert (outcome.code, outcome.out) == (0, "zero and zero: 0 of 0 regions differ\n")
    line = f"{files / 'zero.raw'}: warning: nothing is mapped by the tables at CR3 0x0\n"
    assert outcome.err == 2 * line


def test_names_are_text(command: Command, files: Path) -> None:
    hostile = files / "<script>&\"'.raw"
    hostile.write_bytes((files / "one.raw").read_bytes())
    outcome = command("show", hostile, files / "two.raw", "--cr3", "0x3000", "--html", "p.html", "--svg", "p.svg")
    assert (outcome.code, outcome.err) == (0, "")
    assert "<script" not in (files / "p.html").read_text() + (files / "p.svg").read_text()
    ET.parse(files / "p.svg")  # noqa: S314 - our own


def test_a_part_is_that_of_the_files(command: Command, files: Path) -> None:
    """Without --part a dump has no C-bit, whatever part schemes are compared on."""
    dumps = (files / "one.raw", files / "two.raw", "--cr3", "0x3000", "--json")
    views = [
        json.loads(command("compare", *dumps, *part).out)["regions"][0]["before"]["view"]
        for part in ((), ("--part", "milan"))
    ]
    assert views == [None, "shared"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "one.raw"), "1 file: two are put side by side"),
        (("compare", "one.raw", "two.raw", "one.raw"), "3 files: two are put side by side"),
        (("compare", "one.raw", "two.raw", "--attack", "host-drops"), "--attack is about schemes: of two files only"),
        (("compare", "one.raw", "two.raw", "--markdown"), "--markdown is about schemes: of two files only"),
        (("compare", "--cr3", "0x3000"), "--cr3 is about two files, and none is named"),
        (("compare", "--la57"), "--la57 is about two files, and none is named"),
        (("show", "one.raw", "two.raw", "--writable"), "--writable is for one layout, not for two side by side"),
        (("compare", "one.raw", "missing"), "missing: No such file or directory"),
    ],
)
def test_bad_arguments(command: Command, files: Path, arguments: tuple[str, ...], message: str) -> None:
    assert files.is_dir()
    cr3 = ("--cr3", "0x3000") if "missing" in arguments else ()
    outcome = command(*arguments, *cr3)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"build.py: error: {message}")
    assert outcome.err.count("\n") == 1
