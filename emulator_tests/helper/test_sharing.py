"""What a guest tells its host: which pages it shares, and whether it may be migrated."""

from __future__ import annotations

import pytest

from emulator_tests.helper.test_handover import started
from emulator_tests.helper.test_migrate import scenario
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host import migration
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import run
from mh_emulator.host.topology import FOUR_GIB
from mh_emulator.kvm.hypercalls import EINVAL, MAP_GPA_RANGE_ENCRYPTED

SHARED, PRIVATE = 0, MAP_GPA_RANGE_ENCRYPTED


@pytest.fixture
def machine(images: dict[str, Image]) -> Machine:
    """A guest that has said that one page is shared."""
    return started(images["isolated"])


def test_the_host_keeps_the_status_of_each_page_by_ram_addr(machine: Machine) -> None:
    """Documentation/virt/kvm/x86/hypercalls.rst, KVM_HC_MAP_GPA_RANGE: bit 4 says encrypted."""
    said = machine.consent._map_gpa_range
    below = machine.placement.topology.below
    machine.consent.shared.clear()
    assert said(FOUR_GIB, 3, SHARED) == 0
    assert machine.consent.shared == {below, below + PAGE_BYTES, below + 2 * PAGE_BYTES}
    assert said(FOUR_GIB + PAGE_BYTES, 1, PRIVATE) == 0
    assert said(0, 1, SHARED | 2) == 0
    assert machine.consent.shared == {0, below, below + 2 * PAGE_BYTES}


@pytest.mark.parametrize(
    ("gpa", "pages", "attributes"),
    [
        (3 << 30, 1, SHARED),
        (FOUR_GIB - PAGE_BYTES, 2, SHARED),
        (0, 1 << 40, PRIVATE),
        (FOUR_GIB, (1 << 64) - 1, SHARED),
        (0, 1, 1 << 5),
        (0, 1, PRIVATE | 1 << 63),
        (0, 1, 3),
        (0, 1, 15),
    ],
)
def test_what_the_host_refuses(machine: Machine, gpa: int, pages: int, attributes: int) -> None:
    """No RAM, or RAM and something else; attributes that are reserved, page sizes that do not exist."""
    before = set(machine.consent.shared)
    assert machine.consent._map_gpa_range(gpa, pages, attributes) == -EINVAL
    assert machine.consent.shared == before


def test_a_shared_page_reads_as_garbage_through_the_helper(
    images: dict[str, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the host copies it; one that moves it as private memory breaks the guest, and nobody else."""
    assert run(scenario(images["regions"])).shared_pages == 1
    monkeypatch.setattr(Machine, "guest_pages", Machine._own_pages)
    monkeypatch.setattr(Machine, "shared_pages", lambda _machine: [])
    report = run(scenario(images["regions"]))
    assert report.equal, "the private views are: what is in them means nothing"
    assert not report.guest_ok


def test_a_shared_page_that_is_not_copied_is_missed(images: dict[str, Image], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "copy_shared", lambda *_arguments: None)
    report = run(scenario(images["regions"]))
    assert report.equal
    assert not report.guest_ok
