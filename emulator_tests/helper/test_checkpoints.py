"""The harness of hostile hosts: a helper that was brought back goes on as if nothing had been."""

from __future__ import annotations

from emulator_tests.helper.conftest import SECRET, Pair, Status
from emulator_tests.helper.events import Checkpoint, inject_at, reach
from mh_abi import abi
from mh_builder.image.model import Image
from mh_emulator.cpu.eventinj import EventInjection, Kind
from mh_emulator.host.session import Batch
from mh_emulator.kvm.exits import Exit, Reason

NMI = EventInjection(Kind.NMI)


def test_there_and_back(pair: Pair, images: dict[str, Image]) -> None:
    """In an export: an NMI wipes keys and leaves a record; then nothing of that is left, and the page moves."""
    side, page = pair.source, pair.pages[1]
    vcpu = side.machine.mirror.vcpu
    side.ring.submit(Batch(address=page, count=1).request(abi.mh_op.MH_OP_EXPORT).dumps(0))
    reach(vcpu, images["regions"].symbol("gcm_seal").value, 200)
    point = Checkpoint(side.machine, pair.keys.page_key, SECRET.key)
    here = vcpu.get_registers()
    for steps in (0, 1, 100):
        assert inject_at(vcpu, NMI, steps) == Exit(Reason.HLT)
        assert (side.ring.header().state, side.ring.header().fault.vector) == (abi.mh_ring_state.MH_RING_FAULT, 2)
        difference = point.difference()
        assert (difference.guest, difference.exposed, bool(difference.helper)) == ([], [], True)
        point.restore(difference)
        again = point.difference()
        assert (again.guest, again.helper, point.is_header_as_it_was(), vcpu.get_registers()) == ([], [], True, here)
        assert again.exposed
    side.ring.run()
    sealed = side.ring.take_sealed(0)
    assert pair.target.put(page, sealed) == Status.MH_DONE
    assert pair.target_page(page) == side.machine.read_guest(page)
