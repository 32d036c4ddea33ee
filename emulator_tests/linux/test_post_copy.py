"""A guest that runs at the target while its pages come: what both helpers have been told, and what the host is told."""

from __future__ import annotations

from emulator_tests.linux.kept import guest
from emulator_tests.linux.test_small import RAM
from emulator_tests.linux.test_stops import USES_MEMORY
from mh_abi import abi
from mh_builder.image.model import Image
from mh_emulator.host.post_copy import PostCopy
from mh_emulator.host.session import end_epoch
from mh_emulator.host.side import one_page
from mh_emulator.kvm.exits import Reason
from mh_emulator.linux.launch import Running, hand_over
from mh_emulator.platform import Platform
from mh_emulator.q35.board import Telling
from mh_emulator.q35.run import run_guest

Op, Status = abi.mh_op, abi.mh_status
FIRST = 0x300_0000


def stopped(images: dict[str, Image]) -> tuple[Running, Running]:
    """Behind its line, and where it is to arrive."""
    found, kicked = guest(images, USES_MEMORY), list[Running]()

    def hear(_line: str) -> None:
        kicked[0].machine.vcpu.kick()

    platforms = [Platform(found.part, RAM + (96 << 20), seed) for seed in (1, 2)]
    source = found.way.power_on(platforms[0], Telling(lambda _: None, lambda _: None, hear))
    kicked.append(source)
    assert run_guest(source.machine).reason is Reason.LIMIT
    return source, found.way.expect(platforms[1], source)


def test_no_page_is_moved_twice(images: dict[str, Image]) -> None:
    """In a later epoch neither: a host could put the source's copy over what the guest has written since."""
    running, arrived = stopped(images)
    source, target = running.machine, arrived.machine
    pages = source.guest_pages()
    target.regions = source.regions
    moving = PostCopy(source, target, pages)
    hand_over(source, target, running.board)
    assert target.vm.absent == {target.placement.topology.gpa(page) for page in pages}
    assert moving.run_guest().reason is Reason.HLT
    assert FIRST not in target.vm.absent
    end_epoch(source.rings[0], target.rings[0])
    address = source.request_address(target.placement.topology.ram_addr(FIRST))
    exported = source.rings[0].serve([one_page(Op.MH_OP_EXPORT, address)])[0]
    assert exported.status == Status.MH_REPEATED
    moving.finish()
    assert moving.equal
    assert target.vm.absent == set()
