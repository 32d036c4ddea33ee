"""The columns of the scheme whose helper is in the SNP guest itself: each figure against another way to it."""

from __future__ import annotations

import json
import re

import pytest

from emulator_tests.command.conftest import Command
from mh_abi import abi
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import GIB, PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Start
from mh_compare.candidate import options_for
from mh_compare.columns import COLUMNS
from mh_compare.results import Cell, Comparison
from mh_compare.run import DEFAULT_PART, Task
from mh_compare.snp_columns import AS_ELSEWHERE, OF_ITS_OWN, UNDER_SNP
from mh_emulator.psp.snp.tcb import TCB_LAYOUTS

SCHEME = "vmpl"


@pytest.fixture(scope="module")
def image() -> Image:
    return build_helper(SCHEME, options_for(PARTS[DEFAULT_PART], Start.SNP))


@pytest.fixture(scope="module")
def cells(comparison: Comparison) -> dict[str, Cell]:
    return {cell.column: cell for cell in comparison.cells if cell.layout == SCHEME}


def test_each_is_measured_in_one_way() -> None:
    assert set(UNDER_SNP) == set(COLUMNS)
    assert not set(AS_ELSEWHERE) & set(OF_ITS_OWN)


def test_only_what_is_about_a_mirror_is_not_applicable(cells: dict[str, Cell]) -> None:
    absent = {name: cell.detail for name, cell in cells.items() if cell.value == "not applicable"}
    assert set(absent) == {"slots", "kvm-calls"}
    assert all("there is no mirror" in why for why in absent.values())


def test_a_cell_has_a_number_where_its_column_has_a_unit(cells: dict[str, Cell]) -> None:
    """But what is not applicable, and memory that cannot be plugged."""
    without = {name for name, cell in cells.items() if COLUMNS[name].unit and cell.number is None}
    assert without == {"slots", "kvm-calls", "hot-plug"}


def test_tables_are_those_of_the_image(cells: dict[str, Cell], image: Image) -> None:
    assert cells["tables-64gib"].number == image.table_bytes
    assert cells["table-pages"].number == image.table_bytes // PAGE_BYTES
    assert cells["helper-memory"].number == image.memory_bytes


def test_the_command_of_a_cell_finds_the_same(command: Command, cells: dict[str, Cell]) -> None:
    for name, field in (("tables-1tib", "table_bytes"), ("helper-memory", "memory_bytes")):
        outcome = command(*cells[name].how.split()[1:])
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["images"][0][field] == cells[name].number


def test_the_helper_lies_in_the_guest(cells: dict[str, Cell], image: Image) -> None:
    """All its memory is taken from the guest's; of that the guest's kernel writes what is shared, and nothing else."""
    assert cells["reserved"].number == image.memory_bytes
    assert cells["reserved"].detail == f"in one piece, from GPA {image.space.home:#x}"
    assert cells["main-writes"].number == sum(section.size for section in image.sections if not section.private)
    assert (cells["brought-by"].value, cells["start-32"].value) == ("the host alone", "no")
    assert cells["pieces"].value == "no"
    assert cells["pieces"].detail.endswith("the RMP: #NPF 0x580000011")


def test_a_launch(cells: dict[str, Cell], image: Image) -> None:
    """Each private page with a command of its own, and the helper's VMSA; then a report, and the page of its answer."""
    pages = image.section(".ring").offset // PAGE_BYTES
    others = ("GCTX_CREATE", "LAUNCH_START", "ACTIVATE", "LAUNCH_FINISH", "GUEST_REQUEST", "PAGE_RECLAIM")
    assert cells["psp-commands"].number == pages + 1 + len(others)
    assert f"LAUNCH_UPDATE x {pages + 1}," in cells["psp-commands"].detail
    assert all(name in cells["psp-commands"].detail for name in others)
    assert cells["policy"].value == "any of 3 tried"
    assert cells["policy"].detail == "tried: SMT|MUST_BE_ONE|DEBUG, SMT|MUST_BE_ONE, SMT|MUST_BE_ONE|SINGLE_SOCKET"


def test_what_is_asked_of_the_host(cells: dict[str, Cell], image: Image) -> None:
    """A slot behind all RAM, for VMSAs; nothing that Linux has not."""
    limit = image.space.options.ram_limit
    assert (cells["new-slots"].number, cells["new-slots"].detail) == (
        1, f"GPA {limit:#x}: {abi.MH_VMSA_BYTES:#x} bytes"
    )  # fmt: skip
    assert (cells["missing-calls"].value, cells["missing-memory"].value) == ("none", "none")
    assert "KVM_SEV_SNP_LAUNCH_FINISH" in cells["missing-calls"].detail
    assert (cells["hot-plug"].value, cells["hot-plug"].detail) == (
        "no", "nobody has validated the page, and the source's helper stops: vector 29, error code 0x404"
    )  # fmt: skip


def test_what_moves(cells: dict[str, Cell]) -> None:
    found = {name: cells[name].value for name in ("never-mapped", "unplugged", "post-copy", "sev-es", "sev-snp")}
    assert found == {
        "never-mapped": "no: it has no name in requests",
        "unplugged": "no: it has no name in requests",
        "post-copy": "no: MH_WRONG_STATE",
        "sev-es": "no",
        "sev-snp": "yes",
    }
    assert cells["sev-es"].detail == "vmpl: start es: it runs at VMPL0 of an SNP guest, with start snp"
    assert cells["sev-snp"].detail.endswith("the VMSA one of them; copies of the guest that run afterwards: 1")
    assert 0 < (cells["exits"].number or 1) < 0.016


def test_where_to(cells: dict[str, Cell]) -> None:
    """The helper takes RAM of the guest, as that of `alias-gpa` does."""
    found = [cells[name].value for name in ("upgrade", "upgrade-larger", "upgrade-moved")]
    assert found == ["yes", "no: MH_PROTECTED", "no: MH_PROTECTED"]


def test_room_for_ram(cells: dict[str, Cell]) -> None:
    """From GPA 0, without the PCI hole and the VMSAs; on the parts that have SNP."""
    bits = PARTS[DEFAULT_PART].system_bits
    assert (cells["ram-room"].number or 0) + 2 * GIB + abi.MH_VMSA_BYTES == 1 << bits
    assert [part in cells["ram-room"].detail for part in PARTS] == [part in TCB_LAYOUTS for part in PARTS]


def test_endings(cells: dict[str, Cell], comparison: Comparison) -> None:
    """A migration that fails, a strict finish and the model of the downtime are what they are with a mirror."""
    for name in ("failed", "downtime", "upgrade"):
        others = {(cell.value, cell.detail) for cell in comparison.mirrors.cells if cell.column == name}
        assert (cells[name].value, cells[name].detail) in others
    (mirrored, *_) = (cell for cell in comparison.mirrors.cells if cell.column == "strict-finish")
    own = cells["strict-finish"]
    assert own.value == mirrored.value
    assert re.split(r"\d{4,}", own.detail) == re.split(r"\d{4,}", mirrored.detail)
    for found, expected in zip(
        *(map(int, re.findall(r"\d{4,}", cell.detail)) for cell in (own, mirrored)), strict=True
    ):
        assert abs(found - expected) * 100 < expected, "less than one in a hundred, for other ranges of each page"


@pytest.mark.parametrize("part", ["genoa", "turin"])
def test_another_part(part: str) -> None:
    for name, value in (("sev-snp", "yes"), ("policy", "any of 3 tried"), ("missing-calls", "none")):
        cell = Task(name, SCHEME, part).run()
        assert isinstance(cell, Cell)
        assert (cell.value, cell.how) == (value, f"build.py compare --scheme vmpl --part {part} --column {name}")
