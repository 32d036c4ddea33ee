"""The reference beside the linked helper: whatever is done to one is done to the other, and both must look the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from emulator_tests.helper.events import reach
from emulator_tests.reference.entropy import Entropy
from emulator_tests.reference.helper import Helper
from emulator_tests.reference.linked import SEED, SHARED_BYTES, TSC, Linked
from emulator_tests.reference.memory import Memory
from emulator_tests.reference.terms import PAGE, PLAIN, RAM_LIMIT, RINGS, Terms
from mh_abi import abi
from mh_emulator.cpu.rdrand import Fault, Repeating
from mh_emulator.host.ring import Ring


class Differ(AssertionError):
    """The linked helper and the reference do not show the same."""


class Reference:
    """A helper as `Linked` has it: guest and RDTSC, and with the same `seed` RDRAND."""

    def __init__(self, terms: Terms = PLAIN, seed: int = SEED) -> None:
        self.generator = Repeating(seed)
        memory = Memory(RAM_LIMIT, terms.protected)
        self.helper = Helper(terms.secret, memory, Entropy(self.generator, TSC), RINGS, has_room=terms.has_room)
        self.helper.start()
        self._guest_views = views(memory.bytes, terms.pages)
        self._shared_views = views(self.helper.shared.bytes, range(0, SHARED_BYTES, PAGE))

    def read(self) -> list[bytes]:
        """Each of the pages of `Terms`."""
        return list(map(bytes, self._guest_views))

    def read_shared(self) -> list[bytes]:
        """Each page that the helper shares with its host."""
        return list(map(bytes, self._shared_views))

    def read_page(self, what: str, number: int) -> bytes:
        """One of those pages, of "shared" or "guest"."""
        return bytes((self._shared_views if what == "shared" else self._guest_views)[number])

    def write(self, page: int, data: bytes) -> None:
        """The guest changes a page; `page` is its place among them."""
        self._guest_views[page][:] = data


def views(memory: bytearray, at: Iterable[int]) -> list[memoryview]:
    """A page at each of these places."""
    return [memoryview(memory)[page : page + PAGE] for page in at]


class Beside:
    """Both, with a host that writes the same into the rings of both; it reads from those of the reference."""

    def __init__(self, terms: Terms = PLAIN) -> None:
        self.terms = terms
        self.linked = Linked(terms)
        self.reference = Reference(terms)
        self.rings = [self._ring(number) for number in range(RINGS)]
        self.compare()

    def compare(self) -> None:
        """All shared memory and all memory of the guests is the same."""
        self._same("shared", self.linked.read_shared(), self.reference.read_shared())
        self._same("guest", self.linked.read(), self.reference.read())

    def run(self, number: int) -> None:
        """Let both vCPUs of that ring serve what is there."""
        self.linked.machine.mirror.run(number)
        self.reference.helper.vcpus[number].run()
        self.compare()

    def run_with(self, number: int, interlude: Callable[[], object]) -> None:
        """As `run`, with `interlude` between the first two chunks of a batch on the bulk lane.

        Nothing may wait in the urgent lane.
        """
        vcpu, other = self.linked.machine.mirror.vcpus[number], self.reference.helper.vcpus[number]
        look = self.terms.image.symbol("serve_urgent").value
        reach(vcpu, look, beyond=1)
        reach(vcpu, look)
        met: list[int] = []

        def once() -> None:
            if not met:
                met.append(number)
                self.compare()
                interlude()

        with other.having(once):
            other.run()
        assert met
        self.linked.machine.mirror.run(number)
        self.compare()

    def restart(self, number: int) -> None:
        """Put both vCPUs of that ring back to their entry, with the first page of the ring cleared."""
        self.write_raw(number * abi.MH_RING_BYTES, bytes(PAGE))
        self.rings[number] = self._ring(number)
        self.begin(number)

    def begin(self, number: int) -> None:
        """Let both vCPUs of that ring begin at their entry."""
        self.linked.machine.mirror.begin(number, anew=True)
        self.reference.helper.vcpus[number].start()
        self.compare()

    def guest_writes(self, page: int, data: bytes) -> None:
        """Both guests write a page."""
        self.linked.write(page, data)
        self.reference.write(page, data)

    def break_generators(self, fault: Fault | None) -> None:
        """RDRAND of both breaks, or works again."""
        self.linked.generator.fault = self.reference.generator.fault = fault

    def read_raw(self, offset: int, size: int) -> bytes:
        """What the host of both reads of the rings."""
        return self.reference.helper.shared.read_raw(offset, size)

    def write_raw(self, offset: int, data: bytes) -> None:
        """The host writes into both."""
        self.linked.write_shared(offset, data)
        self.reference.helper.shared.write_raw(offset, data)

    def _same(self, what: str, linked: list[bytes], reference: list[bytes]) -> None:
        """Raise `Differ` with the first place where pages of the two differ."""
        if linked == reference:
            return
        number = next(number for number, page in enumerate(linked) if reference[number] != page)
        one, other = linked[number], reference[number]
        place = next(place for place in range(PAGE) if one[place] != other[place]) & -16
        near = slice(place, place + 64)
        where = f"{what} page {number:#x} at {place:#x}"
        raise Differ(f"{where}: linked {one[near].hex()}, reference {other[near].hex()}")

    def _ring(self, number: int) -> Ring:
        return Ring(self, number * abi.MH_RING_BYTES, partial(self.run, number))
