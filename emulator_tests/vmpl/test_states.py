"""Where the guest is, as its helpers know: which of RUN, START and FINISH each allows, and that it is never in two."""

from __future__ import annotations

import pytest

from emulator_tests.vmpl.pairs import (
    VMSA,
    Op,
    Role,
    Status,
    ask,
    carry,
    connected,
    is_silent,
    pair,
    restart,
    run,
)
from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.ring import HelperStopped, Request
from mh_emulator.host.session import Batch, connect, end_epoch, finish_all, greet
from mh_emulator.host.snp_migration import Pair, move
from mh_emulator.kvm.exits import Reason


def arrived() -> Pair:
    """Both sides after a whole migration."""
    both = pair()
    both.work()
    move(both.source, both.target, both.pages)
    return both


def peer_hello(both: Pair) -> bytes:
    return greet(both.target.rings[0])


def test_after_a_migration_the_source_is_silent_for_good() -> None:
    """Whatever its host asks: the guest again, a second target, or the guest back."""
    both = arrived()
    hello = peer_hello(both)
    assert is_silent(both.source)
    assert run(both.source) == Status.MH_WRONG_STATE
    for role in (Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET):
        assert restart(both.source, role, hello) == Status.MH_WRONG_STATE
    assert ask(both.source, Op.MH_OP_ABORT) == Status.MH_DONE
    assert run(both.source) == Status.MH_WRONG_STATE
    assert is_silent(both.source)


def test_a_guest_that_came_is_not_overwritten_and_may_go_on() -> None:
    both = arrived()
    hello = greet(both.source.rings[0])
    assert restart(both.target, Role.MH_ROLE_TARGET, hello) == Status.MH_WRONG_STATE
    assert ask(both.target, Op.MH_OP_ABORT) == Status.MH_DONE
    assert run(both.target) == Status.MH_DONE
    assert not is_silent(both.target)
    assert restart(both.target, Role.MH_ROLE_SOURCE, hello) == Status.MH_DONE


def test_the_target_is_silent_until_all_has_come() -> None:
    both = connected()
    for batch in (Batch(address=both.pages[0], count=1), both.source.vmsa):
        assert carry(both, batch) == Status.MH_DONE
        assert run(both.target) == Status.MH_WRONG_STATE
    assert is_silent(both.target)
    assert ask(both.target, Op.MH_OP_ABORT) == Status.MH_DONE
    assert run(both.target) == Status.MH_WRONG_STATE
    assert ask(both.source, Op.MH_OP_ABORT) == Status.MH_DONE
    assert restart(both.target, Role.MH_ROLE_SOURCE, greet(both.source.rings[0])) == Status.MH_WRONG_STATE


def test_a_migration_that_failed_can_be_tried_again_and_the_guest_goes_on_in_between() -> None:
    both = pair()
    both.work()
    connect(both.source.rings[0], both.target.rings[0])
    for batch in (Batch(address=both.pages[0], count=1), both.source.vmsa):
        assert carry(both, batch) == Status.MH_DONE
    assert is_silent(both.source)
    assert run(both.source) == Status.MH_WRONG_STATE, "while the session is alive"
    for side in (both.source, both.target):
        assert ask(side, Op.MH_OP_ABORT) == Status.MH_DONE
    assert run(both.source) == Status.MH_DONE
    assert both.source.run_guest(100).reason is Reason.LIMIT
    move(both.source, both.target, both.pages)
    assert is_silent(both.source)
    assert run(both.target) == Status.MH_DONE


def test_a_guest_that_may_run_does_not_leave() -> None:
    both = pair()
    both.work()
    connect(both.source.rings[0], both.target.rings[0])
    assert carry(both, Batch(address=both.pages[0], count=1)) == Status.MH_DONE
    assert ask(both.source, Op.MH_OP_FINISH) == Status.MH_RUNNING
    assert not is_silent(both.source)
    assert carry(both, both.source.vmsa) == Status.MH_DONE
    finish_all(both.source.rings, both.target.rings)


def test_no_guest_comes_over_one_that_may_run() -> None:
    """Its vCPUs would go on beside those that come."""
    both = pair()
    both.work()
    hello = peer_hello(both)
    assert restart(both.source, Role.MH_ROLE_TARGET, hello) == Status.MH_WRONG_STATE
    assert not is_silent(both.source)
    assert restart(both.source, Role.MH_ROLE_SOURCE, hello) == Status.MH_DONE
    both.target.rings[0].ask("abort", Request(Op.MH_OP_ABORT))
    assert both.source.vmsa.submit(both.source.rings[0], Op.MH_OP_EXPORT).status == Status.MH_DONE
    assert ask(both.source, Op.MH_OP_ABORT) == Status.MH_DONE
    assert restart(both.source, Role.MH_ROLE_TARGET, hello) == Status.MH_DONE
    assert run(both.source) == Status.MH_WRONG_STATE
    assert is_silent(both.source)


def test_the_guest_is_gone_before_the_packet_is_whole() -> None:
    """Even where ring 1 has not finished, and never will: the host cannot have the guest and ring 0's packet."""
    both = connected(vcpus=2)
    assert ask(both.source, Op.MH_OP_FINISH) == Status.MH_DONE
    assert ask(both.source, Op.MH_OP_ABORT) == Status.MH_DONE
    assert run(both.source) == Status.MH_WRONG_STATE


def test_ring_1_may_finish_first() -> None:
    both = connected(vcpus=2)
    assert ask(both.source, Op.MH_OP_FINISH, ring=1) == Status.MH_DONE
    assert ask(both.source, Op.MH_OP_ABORT) == Status.MH_DONE
    assert run(both.source) == Status.MH_DONE, "ring 0 has sealed nothing"


def test_finish_while_an_epoch_is_pending() -> None:
    """It is refused before the guest counts as gone."""
    both = connected(vcpus=2)
    assert ask(both.source, Op.MH_OP_EPOCH) == Status.MH_DONE
    assert ask(both.source, Op.MH_OP_FINISH) == Status.MH_EPOCH_PENDING
    assert ask(both.source, Op.MH_OP_ABORT) == Status.MH_DONE
    assert run(both.source) == Status.MH_DONE


def test_finish_without_a_session() -> None:
    both = pair()
    assert ask(both.source, Op.MH_OP_FINISH) == Status.MH_WRONG_STATE
    assert run(both.source) == Status.MH_DONE


@pytest.mark.parametrize("count", [0, abi.MH_VMSA_BYTES // PAGE_BYTES, 0xFFFF])
def test_run_of_no_vcpu(count: int) -> None:
    both = pair()
    assert ask(both.source, Op.MH_OP_RUN, count) == Status.MH_BAD_ENTRY


def test_run_is_ring_0s_and_has_no_further_field() -> None:
    both = pair(vcpus=2)
    assert ask(both.source, Op.MH_OP_RUN, 2, ring=1) == Status.MH_WRONG_RING
    assert ask(both.source, Op.MH_OP_RUN, 2, role=1) == Status.MH_BAD_ENTRY
    assert ask(both.source, Op.MH_OP_RUN, 2, slot=abi.MH_RING_SLOTS) == Status.MH_BAD_ENTRY
    for field in ({"address": PAGE_BYTES}, {"chunk": 1}, {"flags": VMSA}):
        request = Request(Op.MH_OP_RUN, count=2, **field)
        assert both.source.rings[0].serve([request])[0].status == Status.MH_BAD_ENTRY
    assert ask(both.source, Op.MH_OP_RUN, 2, slot=abi.MH_RING_SLOTS - 1) == Status.MH_DONE


@pytest.mark.parametrize("number", [7, abi.MH_VMSA_BYTES // PAGE_BYTES - 1])
def test_run_of_a_page_that_nobody_has_launched(number: int) -> None:
    """#VC, which the helper never expects: it stops for good. The last number that there can be is one too."""
    both = pair()
    both.source.expect([both.source.image.descriptor.ram_limit + number * PAGE_BYTES])
    with pytest.raises(HelperStopped, match="vector 29"):
        ask(both.source, Op.MH_OP_RUN, number)


def test_vmsas_are_not_shared() -> None:
    """SHARE lends pages to VMPL1: a VMSA is none of these."""
    both = pair()
    batch = Batch(address=PAGE_BYTES, count=1, flags=VMSA | abi.MH_BATCH_PRIVATE)
    assert batch.submit(both.source.rings[0], Op.MH_OP_SHARE).status == Status.MH_BAD_ENTRY


def test_pages_come_again_in_a_later_epoch() -> None:
    """They are validated once, and are not validated anew."""
    both = pair()
    both.work()
    source, target = both.source.rings[0], both.target.rings[0]
    connect(source, target)
    batch = Batch(address=both.pages[0], count=1)
    assert carry(both, batch) == Status.MH_DONE
    both.source.run_guest(200)
    end_epoch(source, target)
    for page in both.pages:
        assert carry(both, Batch(address=page, count=1)) == Status.MH_DONE
    assert carry(both, both.source.vmsa) == Status.MH_DONE
    finish_all([source], [target])
    for gpa in map(both.placement.topology.gpa, both.source.consent.shared):
        both.target.write_shared(gpa, both.source.read_shared(gpa))
    assert run(both.target) == Status.MH_DONE
    assert both.target.run_guest().reason is Reason.HLT
