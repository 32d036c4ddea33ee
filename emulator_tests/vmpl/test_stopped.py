"""A source that is stopped anywhere in the FINISH with which its guest leaves: the guest never runs on both sides."""

from __future__ import annotations

import random

from emulator_tests.vmpl.pairs import Op, Status, ask, carry, connected, is_silent, run
from mh_abi import abi
from mh_emulator.host.ring import Request, Sealed
from mh_emulator.host.session import Batch
from mh_emulator.host.snp_migration import Pair
from mh_emulator.kvm.exits import Reason

PLACES = 12
MOST_INSTRUCTIONS = 4000
"""Of a FINISH before it is stopped: it has sealed its packet behind a tenth of them."""


def leaving() -> Pair:
    """All has been carried but the end."""
    both = connected()
    for page in both.pages:
        assert carry(both, Batch(address=page, count=1)) == Status.MH_DONE
    assert carry(both, both.source.vmsa) == Status.MH_DONE
    return both


def arrives(both: Pair) -> bool:
    """The host carries what lies in the source's slot, a packet or not; whether the target has the guest then."""
    source, target = both.source.rings[0], both.target.rings[0]
    target.put_sealed(0, Sealed(source.read(abi.MH_RING_PACKETS, len(abi.mh_packet)), b""))
    status = ask(both.target, Op.MH_OP_FINISH)
    started = run(both.target)
    assert (status == Status.MH_DONE) == (started == Status.MH_DONE) == (not is_silent(both.target))
    return bool(started == Status.MH_DONE)


def test_a_source_that_is_stopped_while_its_guest_leaves() -> None:
    """Where the packet is whole the guest is gone, and where it is not, the target does not have it yet."""
    counts = random.Random("stopped")
    seen = []
    for place in range(PLACES):
        both = leaving()
        vcpu, ring = both.source.helpers[0], both.source.rings[0]
        ring.submit(Request(Op.MH_OP_FINISH).dumps(0))
        stopped = vcpu.run(round(MOST_INSTRUCTIONS ** counts.random()) if place else None).reason
        assert stopped in (Reason.LIMIT, Reason.HLT)
        assert is_silent(both.source)
        arrived = arrives(both)
        both.source.run_helper()
        # It has finished by now: whatever it had told by then, the guest is not here any more.
        assert run(both.source) == Status.MH_WRONG_STATE
        assert is_silent(both.source)
        assert arrived or arrives(both), "nobody has the guest"
        seen.append((stopped, arrived))
    assert set(seen) == {(Reason.LIMIT, False), (Reason.LIMIT, True), (Reason.HLT, True)}
