"""A hostile host, played by hypothesis: whatever it writes into the rings, the helpers keep their word."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from emulator_tests.helper.conftest import PAGES, SECRET, contents_of, launched, started
from emulator_tests.helper.oracle import overheard
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_emulator.host.ring import HelperStopped, Request, Sealed
from mh_emulator.host.session import begin, greet
from mh_emulator.host.side import Side

PAGE = abi.MH_PAGE_BYTES
Op = abi.mh_op
STATUSES = {status.value for status in abi.mh_status}

CONTENTS = contents_of(PAGES)


@cache
def image() -> Image:
    """A small one."""
    return build_helper("regions", Options(ram_limit=1 << 30))


def around() -> list[int]:
    """Addresses at both ends of the helper's memory."""
    home, size = image().space.options.home, image().memory_bytes
    return [home - PAGE, home, home + 0x1000, home + size - PAGE, home + size]


addresses = st.one_of(
    st.sampled_from([page * PAGE for page in range(4)]),
    st.deferred(lambda: st.sampled_from(around())),
    st.sampled_from([(1 << 30) - PAGE, 1 << 30, 1 << 47, 1 << 51, (1 << 64) - PAGE, 1, PAGE - 1]),
    st.integers(0, (1 << 64) - 1),
)
small = st.one_of(st.integers(0, 4), st.sampled_from([511, 512, 513, 0xFFFF]))


def digest(side: Side, names: tuple[str, ...]) -> bytes:
    """Of sections that must never change."""
    result = hashlib.sha256()
    for name in names:
        section = image().section(name)
        for offset in range(section.offset, section.offset + section.size, PAGE):
            result.update(side.machine.read_helper(offset, PAGE))
    return result.digest()


CONSTANT = (".header", ".text", ".rodata", ".tables", ".secret")


class HostileHost(RuleBasedStateMachine):
    """Submissions, packets and shared memory of the host's choice, on both sides of a session."""

    @initialize()
    def launch(self) -> None:
        self.source = started(launched(parse_image(image().data), PARTS["milan"], 1, CONTENTS))
        self.target = started(launched(parse_image(image().data), PARTS["milan"], 2, b""))
        self.dead: set[int] = set()
        self.sealed: list[Sealed] = []
        self.before = [digest(side, CONSTANT) for side in self.sides]
        self.connect()

    @property
    def sides(self) -> list[Side]:
        return [self.source, self.target]

    def connect(self) -> None:
        hellos = greet(self.source.ring), greet(self.target.ring)
        self.keys = overheard(SECRET, ((image(), self.source.machine), (image(), self.target.machine)), hellos).stream(
            0
        )
        begin(self.source.ring, abi.mh_role.MH_ROLE_SOURCE, hellos[1])
        begin(self.target.ring, abi.mh_role.MH_ROLE_TARGET, hellos[0])

    def serve(self, number: int, requests: list[Request]) -> None:
        """Every answer is a documented status. An address without RAM takes the vCPU to the host that named it."""
        if number in self.dead:
            return
        try:
            completions = self.sides[number].ring.serve(requests)
        except HelperStopped as stopped:
            if "Reason.MMIO" not in str(stopped):
                raise
            self.dead.add(number)
            return
        for completion in completions:
            assert completion.status.value in STATUSES

    @rule(
        number=st.integers(0, 1),
        fields=st.fixed_dictionaries(
            {
                "op": st.one_of(st.integers(0, 11), st.integers(0, 0xFFFF)),
                "role": small,
                "slot": small,
                "count": small,
                "chunk": small,
                "flags": st.integers(0, 3),
                "address": addresses,
            }
        ),
    )
    def any_submission(self, number: int, fields: dict[str, Any]) -> None:
        self.serve(number, [Request(**fields)])

    @rule(number=st.integers(0, 1), op=st.sampled_from([3, 4]), address=addresses, count=st.integers(1, 3))
    def batch(self, number: int, op: int, address: int, count: int) -> None:
        self.serve(number, [Request(op, address=address, count=count, chunk=count)])

    @rule(number=st.integers(0, 1), listed=st.lists(addresses, min_size=1, max_size=5), op=st.sampled_from([3, 4]))
    def listed(self, number: int, listed: list[int], op: int) -> None:
        self.sides[number].ring.put_list(0, listed)
        self.serve(number, [Request(op, count=len(listed), chunk=1, flags=abi.MH_BATCH_LIST)])

    @rule(page=st.integers(0, 2))
    def export(self, page: int) -> None:
        if 0 in self.dead:
            return
        if self.source.ask(Op.MH_OP_EXPORT, page * PAGE) == abi.mh_status.MH_DONE:
            self.sealed.append(self.source.ring.take_sealed(0))

    @rule(data=st.data(), flip=st.booleans())
    def deliver(self, data: st.DataObject, flip: bool) -> None:
        """Some packet of this or an earlier session, maybe with a bit changed, to some address."""
        if not self.sealed or 1 in self.dead:
            return
        sealed = data.draw(st.sampled_from(self.sealed))
        if flip:
            packet = bytearray(sealed.packet)
            packet[data.draw(st.integers(0, len(packet) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            sealed = Sealed(bytes(packet), sealed.data)
        address = data.draw(st.one_of(st.just(abi.mh_packet(sealed.packet).address), addresses))
        before = [self.target.machine.read_guest(page * PAGE) for page in range(PAGES // 2)]
        try:
            status = self.target.put(address, sealed)
        except HelperStopped as stopped:
            if "Reason.MMIO" not in str(stopped):
                raise
            self.dead.add(1)
            return
        after = [self.target.machine.read_guest(page * PAGE) for page in range(PAGES // 2)]
        if status != abi.mh_status.MH_DONE:
            assert after == before
        elif address < len(before) * PAGE:
            number = address // PAGE
            assert after[number] == CONTENTS[number * PAGE : (number + 1) * PAGE]
            assert not flip

    @rule(
        number=st.integers(0, 1), offset=st.integers(0x1000, abi.MH_RING_DATA), noise=st.binary(min_size=1, max_size=64)
    )
    def scribble(self, number: int, offset: int, noise: bytes) -> None:
        """Into submissions, completions, list, results and packets."""
        self.sides[number].ring.write(offset, noise)

    @rule(op=st.sampled_from([Op.MH_OP_EPOCH, Op.MH_OP_FINISH]), deliver=st.booleans())
    def end(self, op: int, deliver: bool) -> None:
        if self.dead:
            return
        if self.source.ask(op) == abi.mh_status.MH_DONE and deliver:
            self.target.ask(op, sealed=self.source.ring.take_sealed(0))

    @rule()
    def again(self) -> None:
        """A new session, with a helper that stopped started anew; the old packets stay in the host's hands."""
        for number, side in enumerate(self.sides):
            if number in self.dead:
                side.ring = side.machine.start_helper(anew=True)
            assert side.ask(Op.MH_OP_ABORT) == abi.mh_status.MH_DONE
        self.dead.clear()
        self.connect()

    @rule(number=st.integers(0, 1), ahead=st.integers(abi.MH_RING_ENTRIES + 1, (1 << 32) - 1))
    def impossible_tail(self, number: int, ahead: int) -> None:
        if number in self.dead:
            return
        ring = self.sides[number].ring
        tail = (ring.header().head + ahead) % (1 << 32)
        ring.write(abi.mh_ring.fields["tail"].offset, tail.to_bytes(4, "little"))
        try:
            ring.run()
        except HelperStopped:
            self.dead.add(number)
        assert number in self.dead

    @invariant()
    def helpers_are_whole(self) -> None:
        assert [digest(side, CONSTANT) for side in self.sides] == self.before

    @invariant()
    def nothing_secret_is_shared(self) -> None:
        secrets = (SECRET.key, self.keys.page_key, CONTENTS[: 3 * PAGE])
        for side in self.sides:
            seen = side.ring.read(0, abi.MH_RING_DATA + 8 * PAGE)
            for secret in secrets:
                assert all(secret[at : at + 16] not in seen for at in range(0, len(secret), 512))


HostileHost.TestCase.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
)  # fmt: skip
test_hostile_host = HostileHost.TestCase
