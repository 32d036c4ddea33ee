"""The columns of schemes with a mirror: each figure against another way to it."""

from __future__ import annotations

import pytest

from emulator_tests.command.conftest import ROOT
from mh_abi import abi
from mh_builder.image.model import Image
from mh_builder.paging import GIB, MIB, PAGE_BYTES, TIB
from mh_builder.parts import PARTS
from mh_builder.schemes import EVERY_SCHEME, SCHEMES
from mh_compare.columns import COLUMNS
from mh_compare.columns.ending import SPEEDS
from mh_compare.results import Cell, Comparison
from mh_compare.run import DEFAULT_PART

RESIDENT = set(SCHEMES) - {"isolated"}


def row(comparison: Comparison, column: str) -> dict[str, Cell]:
    return {cell.layout: cell for cell in comparison.mirrors.cells if cell.column == column}


def numbers(comparison: Comparison, column: str) -> dict[str, float | None]:
    return {layout: cell.number for layout, cell in row(comparison, column).items()}


def values(comparison: Comparison, column: str) -> dict[str, str]:
    return {layout: cell.value for layout, cell in row(comparison, column).items()}


def test_no_cell_is_empty(comparison: Comparison) -> None:
    assert [(cell.column, cell.layout) for cell in comparison.cells] == [
        (column, scheme) for column in COLUMNS for scheme in EVERY_SCHEME
    ]
    assert all(cell.value and cell.how and cell.title for cell in comparison.cells)
    assert all((cell.number is None) == (cell.unit == "") for cell in comparison.cells)
    for cell in comparison.mirrors.cells:
        assert (cell.unit, cell.layout in SCHEMES) == (COLUMNS[cell.column].unit, True)


def test_tables_are_those_of_the_image(comparison: Comparison, images: dict[str, Image]) -> None:
    tables = {scheme: image.table_bytes for scheme, image in images.items()}
    assert numbers(comparison, "tables-64gib") == tables
    assert numbers(comparison, "table-pages") == {scheme: size // PAGE_BYTES for scheme, size in tables.items()}


def test_growth(comparison: Comparison, images: dict[str, Image]) -> None:
    """From 1 to 4 TiB: six page-directory-pointer tables of 512 GiB each, and a table for each 2 MiB of bitmaps."""
    one, four = numbers(comparison, "tables-1tib"), numbers(comparison, "tables-4tib")
    for scheme, image in images.items():
        bitmaps = sum(section.name.endswith("bitmap") for section in image.sections)
        grown = 6 + bitmaps * (3 * TIB // PAGE_BYTES // 8) // (2 * MIB)
        assert (four[scheme] or 0) - (one[scheme] or 0) == grown * PAGE_BYTES


def test_translations(comparison: Comparison, images: dict[str, Image]) -> None:
    """A GiB is one page, but for that with the helper's hole: 2 MiB pages, and 4 KiB pages up to the next of these.

    By GPA a quarter of the third and the whole fourth are the PCI hole.
    """
    for scheme, image in images.items():
        leaves = 1
        if scheme in RESIDENT:
            end = image.space.helper.end - image.space.base + 64 * MIB
            whole = -(-end // (2 * MIB)) * 2 * MIB
            leaves = 32 + (whole - end) // PAGE_BYTES + (GIB - whole) // (2 * MIB)
        assert numbers(comparison, "tlb-hole")[scheme] == leaves
        others, ram = (61 + 384, 62.75) if scheme == "alias-gpa" else (63, 64)
        assert numbers(comparison, "tlb-ram")[scheme] == pytest.approx((others + leaves) / ram, rel=1e-3)


def test_memory(comparison: Comparison, images: dict[str, Image]) -> None:
    sizes = {scheme: image.memory_bytes for scheme, image in images.items()}
    assert numbers(comparison, "helper-memory") == sizes
    assert numbers(comparison, "reserved") == sizes | {"isolated": 0}


def test_calls(comparison: Comparison, images: dict[str, Image]) -> None:
    slots = dict.fromkeys(SCHEMES, 2) | {"regions": 3}
    assert numbers(comparison, "slots") == slots
    assert numbers(comparison, "kvm-calls") == {scheme: 3 + number for scheme, number in slots.items()}
    for scheme, cell in row(comparison, "psp-commands").items():
        private = images[scheme].section(".ring").offset // PAGE_BYTES
        assert cell.number == private + len(("START", "ACTIVATE", "MEASURE", "SECRET", "FINISH"))
        assert f"LAUNCH_UPDATE_DATA x {private}," in cell.detail


def test_host_exits(comparison: Comparison) -> None:
    assert all(0 < (number or 1) < 0.012 for number in numbers(comparison, "exits").values())


def test_what_moves(comparison: Comparison) -> None:
    """Requests of `alias-gpa` carry GPAs; what has none cannot be asked for."""
    for column in ("never-mapped", "unplugged"):
        assert values(comparison, column) == dict.fromkeys(SCHEMES, "yes") | {
            "alias-gpa": "no: it has no name in requests"
        }


def test_where_to(comparison: Comparison) -> None:
    """Only a helper that takes nothing of the guest's RAM can be replaced by any other."""
    assert set(values(comparison, "upgrade").values()) == {"yes"}
    for column in ("upgrade-larger", "upgrade-moved"):
        assert values(comparison, column) == dict.fromkeys(RESIDENT, "no: MH_PROTECTED") | {"isolated": "yes"}


def test_post_copy(comparison: Comparison) -> None:
    """The mirror has slots of its own, so under no scheme does it need what the main VM waits for."""
    assert values(comparison, "post-copy") == dict.fromkeys(SCHEMES, "yes")
    assert {cell.detail for cell in row(comparison, "post-copy").values()} == {
        "1 of 6 pages on the urgent lane, when the guest asked for it"
    }


def test_under_es(comparison: Comparison) -> None:
    assert values(comparison, "sev-es") == dict.fromkeys(SCHEMES, "yes")
    assert all("VMSA" in cell.detail for cell in row(comparison, "sev-es").values())


def test_no_mirror_of_an_snp_guest(comparison: Comparison) -> None:
    assert values(comparison, "sev-snp") == dict.fromkeys(SCHEMES, "no")
    assert all("no mirror of an SNP guest runs" in cell.detail for cell in row(comparison, "sev-snp").values())


def test_policy(comparison: Comparison) -> None:
    assert set(values(comparison, "policy").values()) == {"any of 3 tried"}
    assert all("NODBG|NOKS|NOSEND" in cell.detail for cell in row(comparison, "policy").values())


def test_who_writes_the_helper(comparison: Comparison, images: dict[str, Image]) -> None:
    """SEV has no rights for a guest's kernel: what the main VM maps at all it may write."""
    sizes = {scheme: image.memory_bytes for scheme, image in images.items()}
    assert numbers(comparison, "main-writes") == sizes | {"isolated": 0}
    for scheme, image in images.items():
        sections = [section for section in image.sections if section.writable]
        size = sum(-(-section.size // PAGE_BYTES) * PAGE_BYTES for section in sections)
        cell = row(comparison, "mirror-writes")[scheme]
        assert (cell.number, cell.detail) == (size, "0 bytes of code; 0 bytes through the RAM window")
    assert values(comparison, "firmware-code") == dict.fromkeys(SCHEMES, "nothing")


def test_room_for_ram(comparison: Comparison, images: dict[str, Image]) -> None:
    """RAM, what lies behind it, and the PCI hole fill the address space from the window on."""
    system_bits = PARTS[DEFAULT_PART].system_bits
    for scheme, cell in row(comparison, "ram-room").items():
        space = images[scheme].space
        behind = abi.MH_VMSA_BYTES + (space.memory_bytes if space.moves else 0)
        hole = 2 * GIB if scheme == "alias-gpa" else 0
        assert space.window + (cell.number or 0) + behind + hole == 1 << system_bits
        assert [part in cell.detail for part in PARTS] == [True] * len(PARTS)
        assert "no more with 5 levels; a build takes 4 TiB" in cell.detail


def test_what_is_asked_of_the_host(comparison: Comparison) -> None:
    assert numbers(comparison, "new-slots") == {
        "alias-gpa": 0, "alias-window": 1, "alias-window-high": 1, "regions": 3, "isolated": 2
    }  # fmt: skip
    assert values(comparison, "missing-calls") == dict.fromkeys(SCHEMES, "none")
    assert all("KVM_CAP_VM_COPY_ENC_CONTEXT_FROM" in cell.detail for cell in row(comparison, "missing-calls").values())
    assert numbers(comparison, "missing-memory") == dict.fromkeys(SCHEMES, 1)
    assert values(comparison, "hot-plug") == dict.fromkeys(SCHEMES, "1 slot")


def test_how_the_helper_gets_there(comparison: Comparison) -> None:
    brought = dict.fromkeys(RESIDENT, "firmware or host") | {"isolated": "the host alone"}
    assert values(comparison, "brought-by") == brought
    assert values(comparison, "start-32") == {name: "yes" if it.is_low else "no" for name, it in SCHEMES.items()}
    assert values(comparison, "pieces") == dict.fromkeys(SCHEMES, "no") | {
        "regions": "only at its home",
        "isolated": "yes",
    }


def test_a_migration_that_fails(comparison: Comparison) -> None:
    text = "the guest runs on at the source; a second try moves all"
    assert values(comparison, "failed") == dict.fromkeys(SCHEMES, text)
    assert {cell.detail for cell in row(comparison, "failed").values()} == {
        "MH_BAD_TAG, then MH_WRONG_STATE; 2 of 6 pages stay at the target"
    }


def test_downtime_is_modelled_from_what_was_measured(comparison: Comparison) -> None:
    """The figures are those of docs/performance.md, of the kernel that the part takes."""
    text = (ROOT / "docs" / "performance.md").read_text().split("## The kernel on zmm registers")[1]
    for speed in SPEEDS.values():
        for direction, figure in (("export", speed.export), ("import", speed.open)):
            assert f"| {speed.kernel} | {direction} | {figure:.2f} |" in text
    speed = SPEEDS[PARTS[DEFAULT_PART].vector_bits]
    assert set(numbers(comparison, "downtime").values()) == {GIB / min(speed.export, speed.open) / 1e9}
    assert all(value.endswith(", modelled") for value in values(comparison, "downtime").values())
