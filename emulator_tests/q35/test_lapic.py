"""The local APIC: its timer in virtual time, and what waits in it. Source: AMD64 APM volume 2, chapter 16."""

from __future__ import annotations

import pytest

from mh_emulator.q35.clock import TSC_HZ, Clock
from mh_emulator.q35.console import Console
from mh_emulator.q35.interrupts import QUIET_NS, Silent, Timer
from mh_emulator.q35.lapic import GPAS, DeadlineMsr, LocalApic

EOI, ICR, ICR_HIGH, LVT, INITIAL, DIVIDE = 0xB0, 0x300, 0x310, 0x320, 0x380, 0x3E0
ISR, IRR = 0x100, 0x200
BY_1, PERIODIC, DEADLINE, MASKED = 0xB, 1 << 17, 2 << 17, 1 << 16


class Subject:
    """One, and its clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.apic = LocalApic(self.clock)
        self.deadline = DeadlineMsr(self.apic)
        self[DIVIDE] = BY_1

    def __setitem__(self, register: int, value: int) -> None:
        self.apic.write(GPAS.start + register, value)

    def __getitem__(self, register: int) -> int:
        return self.apic.read(GPAS.start + register)

    def at(self, now: int) -> int | None:
        self.clock.wait(now)
        return self.apic.vector()

    def serve(self) -> None:
        self.apic.acknowledge()
        self[EOI] = 0


def test_one_shot() -> None:
    one = Subject()
    one[LVT] = 0x40
    one[INITIAL] = 1000
    assert (one.apic.next_ns, one.at(999), one.at(1000)) == (1000, None, 0x40)
    one.serve()
    assert (one.at(10**9), one.apic.next_ns) == (None, None)


def test_divided_by_sixteen() -> None:
    one = Subject()
    one[DIVIDE], one[LVT], one[INITIAL] = 3, 0x40, 1000
    assert (one.at(15_999), one.at(16_000)) == (None, 0x40)


def test_periodic_and_what_was_missed() -> None:
    """A guest that looks late gets one interrupt, and the next in step."""
    one = Subject()
    one[LVT], one[INITIAL] = 0x40 | PERIODIC, 1000
    assert one.at(3500) == 0x40
    one.serve()
    assert (one.at(3999), one.apic.next_ns) == (None, 4000)
    assert one.at(4000) == 0x40


def test_deadline_is_of_the_time_stamp_counter() -> None:
    one = Subject()
    one.deadline.write(5)
    assert one.deadline.read() == 0, "another mode"
    one[LVT] = 0x41 | DEADLINE
    one[INITIAL] = 7
    assert one.apic.next_ns is None, "the count is not of this mode"
    one.deadline.write(TSC_HZ)
    assert (one.deadline.read(), one.at(999_999_999)) == (TSC_HZ, None)
    assert (one.at(10**9), one.deadline.read()) == (0x41, 0)
    one.serve()
    one.deadline.write(2 * TSC_HZ)
    one.deadline.write(0)
    assert one.at(3 * 10**9) is None


def test_a_masked_timer_expires_unseen() -> None:
    one = Subject()
    one[LVT], one[INITIAL] = 0x40 | MASKED, 1000
    assert (one.apic.next_ns, one.at(2000)) == (None, None)
    one[LVT] = 0x40
    assert one.at(3000) is None


@pytest.mark.parametrize(
    ("high", "low", "vector"),
    [
        (0, 1 << 18 | 0x50, 0x50),
        (0, 2 << 18 | 0x50, 0x50),
        (0, 0x50, 0x50),
        (1 << 24, 0x50, None),
        (0, 3 << 18 | 0x50, None),
        (0, 1 << 18 | 4 << 8 | 0x50, None),
    ],
    ids=["self", "all", "number 0", "number 1", "all others", "NMI"],
)
def test_what_it_sends_itself(high: int, low: int, vector: int | None) -> None:
    one = Subject()
    one[ICR_HIGH], one[ICR] = high, low
    assert one.apic.vector() == vector


def test_priorities() -> None:
    """The higher first; of the same 16 the one in service has to end."""
    one = Subject()
    for vector in (0x51, 0x58, 0x42):
        one[ICR] = vector | 1 << 18
    assert (one[IRR + 0x20], one[ISR + 0x20]) == (1 << 0x11 | 1 << 0x18 | 1 << 0x02, 0)
    assert one.apic.vector() == 0x58
    one.apic.acknowledge()
    assert (one[ISR + 0x20], one.apic.vector()) == (1 << 0x18, None)
    one[ICR] = 0x61 | 1 << 18
    assert one.apic.vector() == 0x61
    one.serve()
    assert one.apic.vector() is None
    one[EOI] = 0
    assert one.apic.vector() == 0x51
    one.serve()
    one.serve()
    assert (one[IRR + 0x20], one[ISR + 0x20], one.apic.vector()) == (0, 0, None)
    one[EOI] = 0


def test_sleep_lasts_until_the_timer_and_ends_when_all_is_quiet() -> None:
    one, console = Subject(), Console()
    timer = Timer(one.apic, one.clock, console)
    one[LVT], one[INITIAL] = 0x40 | PERIODIC, 1_000_000_000
    for naps, printed in enumerate((True, False, True, False, False), 1):
        if printed:
            console.put(ord("x"))
        assert timer.sleep()
        assert (one.clock.now, timer.vector()) == (naps * 1_000_000_000, 0x40)
        one.serve()
    assert QUIET_NS == 3 * 1_000_000_000
    assert not timer.sleep()
    console.put(ord("x"))
    assert timer.sleep()


def test_without_a_timer_nobody_wakes() -> None:
    one = Subject()
    timer = Timer(one.apic, one.clock, Console())
    assert not timer.sleep()
    one[ICR] = 0x50 | 1 << 18
    assert timer.sleep()
    timer.sleeps = False
    assert not timer.sleep()
    assert not Silent().sleep()
