"""A host that injects events into a helper that it has stopped somewhere, again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mh_abi import abi
from mh_emulator.cpu.eventinj import EventInjection
from mh_emulator.host.machine import Machine
from mh_emulator.host.watchdog import limited
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason

PAGE = abi.MH_PAGE_BYTES
SECONDS = 20.0
"""Many times what a handler takes to wipe everything."""


def inject_at(vcpu: Vcpu, event: EventInjection, steps: int) -> Exit:
    """Run `steps` instructions, none of which may leave; inject `event`, run on, and return the exit.

    No steps are fast: code that counts its instructions is translated anew.
    """
    if steps:
        assert vcpu.run(steps) == Exit(Reason.LIMIT)
    vcpu.inject_event(event)
    with limited(SECONDS, vcpu.kick):
        return vcpu.run()


def reach(vcpu: Vcpu, va: int, beyond: int = 0) -> None:
    """Step until RIP is `va`, and then `beyond` instructions more."""
    for _ in range(20_000):
        if vcpu.get_registers().rip == va:
            break
        assert vcpu.run(1) == Exit(Reason.LIMIT)
    else:
        raise AssertionError(f"the helper does not come to {va:#x}")
    assert vcpu.run(beyond) == Exit(Reason.LIMIT)


@dataclass(frozen=True, slots=True)
class Difference:
    """What has happened since a checkpoint, by `ram_addr`."""

    guest: list[int]
    """Pages of the guest that are other than they were, or new."""
    helper: list[int]
    """Private pages of the helper that are other than they were."""
    exposed: list[int]
    """Private pages of the helper, but for the launch secret, that hold the first half of a secret."""


class Checkpoint:
    """A plain SEV machine whose helper has stopped somewhere, and that can be brought back there.

    What the host alone writes, and what a helper that goes on writes again, is left out: all of the ring but its
    first page.
    """

    def __init__(self, machine: Machine, *secrets: bytes) -> None:
        self._machine = machine
        self._vcpu = machine.mirror.vcpu
        self._registers = self._vcpu.get_registers()
        self._ring = machine.helper_offset + machine.helper.ring_offset
        self._populated = machine.memory.populated()
        ring = range(self._ring, self._ring + abi.MH_RING_BYTES)
        helper = range(machine.helper_offset, machine.helper_offset + machine.helper.memory_bytes)
        private = [page for page in self._populated if page not in ring]
        self._contents = {page: machine.read_guest(page) for page in private}
        self._starts = {page: machine.memory.spa(page) - machine.platform.dram.base_spa for page in private}
        self._guest = [page for page in private if page not in helper]
        self._helper = [page for page in private if page in helper]
        self._launch_secret = machine.helper.descriptor.secret_offset + machine.helper_offset
        self._halves = [secret[: len(secret) // 2] for secret in secrets]
        self._exposed = [page for page in self._helper if self._exposes(page)]
        self._header = self._read_header()

    def difference(self) -> Difference:
        """What is other than it was."""
        new = sorted(set(self._machine.memory.populated()) - set(self._populated))
        helper = self._changed(self._helper)
        exposed = [page for page in {*helper, *self._exposed} if self._exposes(page)]
        return Difference(self._changed(self._guest) + new, helper, exposed)

    def is_header_as_it_was(self) -> bool:
        """Whether the first page of the ring has not changed."""
        return self._read_header() == self._header

    def restore(self, difference: Difference) -> None:
        """Bring memory and registers back from there."""
        dram, memory, asid = self._machine.platform.dram, self._machine.memory, self._machine.asid
        for page in (*difference.guest, *difference.helper):
            dram.write_private(asid, memory.spa(page), self._contents[page])
        memory.write_raw(self._ring, self._header)
        self._vcpu.set_registers(self._registers)

    def _changed(self, pages: list[int]) -> list[int]:
        return [page for page in pages if self._now(page) != self._contents[page]]

    def _exposes(self, page: int) -> bool:
        return page != self._launch_secret and any(half in self._now(page) for half in self._halves)

    def _now(self, page: int) -> bytes:
        """The page as the helper sees it: DRAM holds it so since the constructor has read it."""
        start = self._starts[page]
        return bytes(self._machine.platform.dram.view[start : start + PAGE])

    def _read_header(self) -> bytes:
        return self._machine.memory.read_raw(self._ring, PAGE)


def restart(machine: Machine) -> None:
    """Put the helper's vCPU to the very start, where it has executed nothing."""
    machine.mirror.vcpu.set_registers(replace(machine.mirror.helper.registers(), rdi=abi.MH_START_ANEW))
