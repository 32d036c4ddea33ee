"""Whole migrations of SNP guests, and that the proof can fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from emulator_tests.vmpl.pairs import KEY, scenario
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.snp_machine import helper_pages
from mh_emulator.host.snp_migration import begin, run


@pytest.mark.parametrize(("part", "vcpus"), [("milan", 1), ("genoa", 2), ("turin", 1)])
def test_a_guest_moves(part: str, vcpus: int) -> None:
    report = run(scenario(part, pages=24, vcpus=vcpus), KEY)
    assert (report.start, report.vcpus, report.shared_pages) == ("snp", vcpus, 1)
    assert report.equal
    assert report.guest_ok
    assert report.attested
    assert report.copies == 1
    # The contents, the VMSA, and the guest's own pages: information, code, tables.
    assert report.pages > 25
    assert (report.source_plain_pages, report.target_plain_pages, report.naive_equal_pages) == (0, 0, 0)
    assert report.good


def test_what_is_private_takes_no_page_of_the_process() -> None:
    """Its slots show it what the guest shares: the helper's rings, and no page of the launch."""
    source = begin(scenario(), KEY).source
    rings = source.helper.ring(0).offset, source.helper.place.offset + source.image.memory_bytes
    assert source.memory.populated() == list(range(*rings, PAGE_BYTES))
    assert all(source.vm.is_private(page.gpa) for page in helper_pages(source.helper))


@pytest.mark.parametrize("change", [{"copies": 2}, {"copies": 0}, {"attested": False}, {"equal": False}])
def test_each_part_of_the_proof_counts(change: dict[str, Any]) -> None:
    report = run(scenario(pages=1), KEY)
    assert report.good
    assert not replace(report, **change).good
    assert report.as_json().keys() >= {"attested", "copies", "equal", "guest_ok"}
