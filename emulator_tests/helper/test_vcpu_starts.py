"""Starts of vCPUs that a host should not make, or makes because it has lost one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emulator_tests.helper.conftest import SECRET, Status
from emulator_tests.helper.rings import RINGS, Rings, block_holds, block_of, connected, machine_of, restarted
from mh_abi import abi
from mh_emulator.host.ring import HelperStopped, Request

Op = abi.mh_op
Kind = abi.mh_kind
PAGE = abi.MH_PAGE_BYTES
EACH = range(RINGS)


@pytest.fixture
def rings() -> Rings:
    return connected()


def test_index_beyond_the_rings_halts_at_once() -> None:
    machine = machine_of(2, 1)
    before = [ring.read(0, 128) for ring in machine.rings]
    vcpu = machine.mirror.vcpus[1]
    for index in (2, 64, 0x7FFF_FFFF, 2 | abi.MH_START_ANEW):
        vcpu.set_registers(replace(machine.mirror.helper.registers(1), rdi=index))
        assert vcpu.run().reason.value == "hlt"
        assert [ring.read(0, 128) for ring in machine.rings] == before
    machine.mirror.begin(1)


def test_second_vcpu_on_a_ring_in_work_halts_and_touches_nothing(rings: Rings) -> None:
    """Two in one block would use one sequence number twice."""
    machine = rings.sources[0].machine
    ring = rings.sources[1].ring
    ring.submit(Request(Op.MH_OP_EXPORT, address=rings.pages[0], count=1, chunk=1).dumps(0))
    assert machine.mirror.vcpus[1].run(500).reason.value == "limit"
    before = block_of(machine, 1)
    second = machine.mirror.vm.create_vcpu()
    second.set_registers(machine.mirror.helper.registers(1))
    assert second.run().reason.value == "hlt"
    assert ring.header().state == abi.mh_ring_state.MH_RING_CLAIMED
    assert block_of(machine, 1) == before
    # The first one goes on with its own.
    with pytest.raises(HelperStopped, match="MH_RING_CLAIMED"):
        ring.run()
    assert ring.completion(0).status == Status.MH_DONE
    sealed = ring.take_sealed(0)
    assert rings.keys(1).open(sealed.packet, sealed.data) == rings.page(0)


@pytest.mark.parametrize("number", EACH)
def test_start_of_a_ring_with_a_session_ends_it_for_all(rings: Rings, number: int) -> None:
    rings.sources[number].export(rings.pages[0])
    rings.sources[number].ring = restarted(rings.sources[0].machine, number)
    for other, side in enumerate(rings.sources):
        assert side.ask(Op.MH_OP_EXPORT, rings.pages[1]) == Status.MH_WRONG_STATE
        assert not block_holds(side.machine, other, rings.keys(other).page_key)


def test_vcpu_lost_in_its_work_is_replaced_when_the_host_says_so(rings: Rings) -> None:
    machine = rings.sources[0].machine
    rings.sources[1].ring.submit(Request(Op.MH_OP_EXPORT, address=rings.pages[0], count=1, chunk=1).dumps(0))
    assert machine.mirror.vcpus[1].run(500).reason.value == "limit"
    with pytest.raises(HelperStopped, match="MH_RING_CLAIMED"):
        restarted(machine, 1).check()
    restarted(machine, 1, anew=True).check()
    assert rings.sources[0].ask(Op.MH_OP_EXPORT, rings.pages[1]) == Status.MH_WRONG_STATE
    assert not block_holds(rings.sources[1].machine, 1, rings.keys(1).page_key)


def test_transport_key_is_on_no_ring_and_in_no_block(rings: Rings) -> None:
    machine = rings.sources[0].machine
    for number, ring in enumerate(machine.rings):
        assert not block_holds(machine, number, SECRET.key)
        assert block_holds(machine, number, rings.keys(number).page_key), "the search can find something"
        assert SECRET.key[:16] not in ring.read(0, abi.MH_RING_BYTES)
