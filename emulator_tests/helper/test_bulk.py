"""Pages in bulk: batches of a migration on one ring and on several, and what becomes of it when one is refused."""

from __future__ import annotations

import threading
from itertools import cycle, islice

import pytest

from emulator_tests.helper.conftest import Status
from emulator_tests.helper.rings import Rings, connected
from emulator_tests.helper.rings import bulk as ends
from mh_emulator.host.bulk import bulk, move_all
from mh_emulator.host.machine import Machine
from mh_emulator.host.mirror import enter
from mh_emulator.host.ring import HelperRefused
from mh_emulator.host.session import Batch, export_batch, finish_all, share
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit

SECONDS = 60.0
"""Nobody waits for so long but where the test fails."""


class Log:
    """On which rings both sides of a session have worked since it began, in their order."""

    def __init__(self, rings: int) -> None:
        self.rings: Rings = connected(rings)
        self.begun: list[list[int]] = [[], []]
        self.changed = threading.Condition()
        self.paced = True
        """Whether each import waits for the exports that may go on beside it."""
        for number, side in enumerate((self.rings.sources, self.rings.targets)):
            self._watch(side[0].machine, self.begun[number])

    def _watch(self, machine: Machine, begun: list[int]) -> None:
        mirror = machine.mirror

        def noted(vcpu: Vcpu, seconds: float) -> Exit:
            with self.changed:
                begun.append(mirror.vcpus.index(vcpu))
                self.changed.notify_all()
                if self.paced and begun is self.begun[1]:
                    self._before_import(len(begun))
            return enter(vcpu, seconds)

        mirror._enter = noted

    def _before_import(self, number: int) -> None:
        """The source goes on until as many batches are on their way as there are rings, and no further."""
        begun, rings, pages = self.begun[0], len(self.rings.sources), len(self.rings.pages)
        allowed = min(number - 1 + rings, pages)
        assert self.changed.wait_for(lambda: len(begun) >= allowed, SECONDS)
        assert len(begun) == allowed

    def move(self) -> None:
        """Each page is a batch."""
        pairs = list(zip(*ends(self.rings), strict=True))
        move_all(pairs, [Batch(address=page, count=1) for page in self.rings.pages])


@pytest.mark.parametrize("rings", [1, 2, 3])
def test_rings_take_turns_and_have_one_batch_on_its_way(rings: int) -> None:
    log = Log(rings)
    log.move()
    pages = range(len(log.rings.pages))
    turns = list(islice(cycle(range(rings)), len(pages)))
    assert log.begun == [turns, turns]
    assert [log.rings.target_page(page) for page in log.rings.pages] == [log.rings.page(page) for page in pages]
    log.paced = False
    assert finish_all(*ends(log.rings)) == len(pages)


@pytest.mark.parametrize("rings", [1, 3])
@pytest.mark.parametrize("refusing", ["export", "import"])
def test_refused_batch_ends_it_on_both_sides(rings: int, refusing: str) -> None:
    log = Log(rings)
    log.paced = False
    refused = 2
    side = (log.rings.sources if refusing == "export" else log.rings.targets)[0]
    share(side.ring, Batch(address=log.rings.pages[refused], count=1))
    for begun in log.begun:
        begun.clear()
    threads = threading.active_count()
    with pytest.raises(HelperRefused, match=f"^helper refuses {refusing}: MH_SHARED") as caught:
        log.move()
    assert caught.value.status == Status.MH_SHARED
    assert threading.active_count() == threads
    source, target = map(len, log.begun)
    assert target == refused + (refusing == "import")
    assert refused < source <= refused + rings


def test_batch_of_no_pages_is_refused_by_name() -> None:
    with pytest.raises(HelperRefused, match=r"^helper refuses export: MH_BAD_ENTRY"):
        export_batch(connected(1).sources[0].ring, Batch())


def test_batches_are_no_longer_than_a_ring_s_part() -> None:
    pages = [number << 12 for number in range(1200)]
    assert [batch.count for batch in bulk(pages[:100], 16, 1)] == [100]
    assert [batch.count for batch in bulk(pages[:100], 16, 4)] == [32, 32, 32, 4]
    assert [batch.count for batch in bulk(pages, 16, 1)] == [512, 512, 176]
