"""A hostile host on several rings and both lanes: no nonce twice, nothing imported but what was exported."""

from __future__ import annotations

from functools import partial

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from emulator_tests.helper.rings import connected
from mh_abi import abi
from mh_emulator.host.machine import Machine
from mh_emulator.host.ring import Lane, Request, Ring, Sealed
from mh_emulator.host.session import Batch, connect_all

RINGS = 2
PAGES = 6
PAGE = abi.MH_PAGE_BYTES
Op = abi.mh_op
Status = abi.mh_status

ring_numbers = st.integers(0, RINGS - 1)
sides = st.integers(0, 1)
urgencies = st.booleans()
SINGLE_OPS = [Op.MH_OP_HELLO, Op.MH_OP_JOIN, *[Op.MH_OP_EPOCH] * 5, Op.MH_OP_FINISH, Op.MH_OP_ABORT]


class HostileRings(RuleBasedStateMachine):
    """Any operation on any ring of either side, in any order, with vCPUs that are started anew in between."""

    @initialize()
    def launch(self) -> None:
        self.rings = connected(RINGS)
        self.machines: list[Machine] = [self.rings.sources[0].machine, self.rings.targets[0].machine]
        self.truth = {address: self.machines[0].read_guest(address) for address in self.rings.pages}
        assert len(set(self.truth.values())) >= PAGES
        self.sealed: list[Sealed] = []
        self.nonces: dict[tuple[bytes, int, int], Sealed] = {}

    def lane(self, side: int, number: int, *, urgent: bool = False) -> Lane:
        ring = self.machines[side].rings[number]
        return ring.urgent if urgent else ring

    def keep(self, lane: Lane) -> None:
        """What a source made; two packets of one session must never share stream and sequence."""
        sealed = lane.take_sealed(0)
        packet = abi.mh_packet(sealed.packet)
        nonce = bytes(packet.session), int(packet.stream), int(packet.sequence)
        assert self.nonces.setdefault(nonce, sealed) == sealed
        self.sealed.append(sealed)

    @rule(number=ring_numbers, urgent=urgencies, page=st.integers(0, PAGES - 1), at_once=st.booleans())
    def export(self, number: int, urgent: bool, page: int, at_once: bool) -> None:
        lane = self.lane(0, number, urgent=urgent)
        if Batch(address=self.rings.pages[page], count=1).submit(lane, Op.MH_OP_EXPORT).status == Status.MH_DONE:
            self.keep(lane)
            if at_once:
                self.deliver(self.sealed[-1], number, urgent=urgent)

    @rule(data=st.data(), number=ring_numbers, urgent=urgencies)
    def deliver_any(self, data: st.DataObject, number: int, urgent: bool) -> None:
        """A packet of this or an earlier session, on some lane."""
        if self.sealed:
            self.deliver(data.draw(st.sampled_from(self.sealed)), number, urgent=urgent)

    def deliver(self, sealed: Sealed, number: int, *, urgent: bool) -> None:
        """If a packet is taken, its page is as on the source."""
        packet = abi.mh_packet(sealed.packet)
        lane = self.lane(1, number, urgent=urgent)
        lane.put_sealed(0, sealed)
        ends = {abi.mh_kind.MH_KIND_EPOCH: Op.MH_OP_EPOCH, abi.mh_kind.MH_KIND_END: Op.MH_OP_FINISH}
        kind = abi.mh_kind(packet.kind)
        if kind in ends:
            assert lane.serve([Request(ends[kind])])[0].status in set(Status)
            return
        before = self.machines[1].read_guest(packet.address)
        status = Batch(address=packet.address, count=1).submit(lane, Op.MH_OP_IMPORT).status
        after = self.machines[1].read_guest(packet.address)
        if status == Status.MH_DONE:
            assert after == self.truth[packet.address]
            assert packet.stream == (number | (abi.MH_STREAM_URGENT if urgent else 0))
        else:
            assert after == before

    @rule(side=sides, number=ring_numbers, op=st.sampled_from(SINGLE_OPS))
    def single(self, side: int, number: int, op: int) -> None:
        lane = self.lane(side, number)
        status = lane.serve([Request(op)])[0].status
        if side == 0 and status == Status.MH_DONE and op in {Op.MH_OP_EPOCH, Op.MH_OP_FINISH}:
            self.keep(lane)

    @rule(side=sides, number=ring_numbers, seldom=st.integers(0, 3))
    def start_anew(self, side: int, number: int, seldom: int) -> None:
        """The host puts a vCPU back to its entry."""
        if seldom:
            return
        machine = self.machines[side]
        offset = machine.helper_offset + machine.helper.ring_offset + number * machine.helper.descriptor.ring_stride
        machine.helper_memory.write_raw(offset, bytes(PAGE))
        machine.rings[number] = Ring(machine.helper_memory, offset, partial(machine.mirror.run, number))
        machine.mirror.begin(number, anew=True)
        machine.rings[number].check()

    @rule()
    def again(self) -> None:
        """A new session of all rings; the old packets stay in the host's hands."""
        for machine in self.machines:
            for ring in machine.rings:
                assert ring.serve([Request(Op.MH_OP_ABORT)])[0].status == Status.MH_DONE
        connect_all(self.machines[0].rings, self.machines[1].rings)

    @invariant()
    def source_is_whole(self) -> None:
        assert all(self.machines[0].read_guest(address) == page for address, page in self.truth.items())


HostileRings.TestCase.settings = settings(
    max_examples=15, stateful_step_count=60, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
)  # fmt: skip
test_hostile_rings = HostileRings.TestCase
