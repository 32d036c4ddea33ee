"""What has to hold after each run of a helper's vCPU, whatever its host has done before."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from emulator_tests.fuzz.answers import Answers
from emulator_tests.fuzz.ground import BLOCKS, PAGE
from emulator_tests.fuzz.secrets import words_of
from emulator_tests.fuzz.snp_ground import SnpGround
from emulator_tests.fuzz.stage import ATTESTED, IDLE, SOURCE, Before, Block, Stage, Violation
from emulator_tests.fuzz.whereabouts import Whereabouts
from mh_abi import abi
from mh_emulator.kvm.exits import Exit, Reason

State = abi.mh_ring_state

_RING_PAGES = abi.MH_RING_BYTES // PAGE
_DATA = range(abi.MH_RING_DATA // PAGE, abi.MH_URGENT_SUBMISSIONS // PAGE)
"""Pages of a ring that are looked at when a script has ended: the others after each run."""
_WORDS = struct.Struct(f"<{PAGE // 8}Q")


class Invariants:
    """Of one stage, on which one script is played."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.answers = Answers(stage)
        self.sealed: dict[int, set[bytes]] = {}
        """What the peer has sealed for each page of the guest: nothing else may come there."""
        self._ground = stage.ground
        self._dram = stage.ground.dram
        self._constant, self._shared = stage.constant, list(stage.shared)
        self._all = range(len(self._shared))
        self._control = [index for index in self._all if index % _RING_PAGES not in _DATA]
        self._guest = {page: stage.ground.read(page) for page in stage.ground.own_pages()}
        self._always = stage.code_words | words_of(stage.secret.key, *stage.ground.secrets())
        self.whereabouts = Whereabouts(stage, stage.ground) if isinstance(stage.ground, SnpGround) else None
        self._plain = words_of(*self._guest.values())
        self._secrets: set[int] = set()
        """Of all keys that there have been."""
        self._known: set[int] = set()
        """Of all hellos: their nonces are made with keys."""

    def _page(self, start: int) -> bytes:
        return self._dram._bytes[start : start + PAGE]

    def wrote(self, *pages: int) -> None:
        """The guest has written to these pages, or its host has put others there."""
        self._guest |= {page: self._ground.read(page) for page in pages}
        self._plain = words_of(*self._guest.values())

    def after(self, number: int, before: Before, exit_: Exit, *, event: bool, limited: bool, midway: bool) -> None:
        """Look at everything, after a run that may have been limited, and did begin midway. Raises `Violation`."""
        block = self.stage.block(number)
        self._left_well(number, before, exit_, event=event, limited=limited)
        rests = exit_.reason is Reason.HLT
        if exit_.reason is not Reason.SHUTDOWN:
            answered = self.answers.check(number, before, midway=midway, rests=rests)
            if self.whereabouts is not None:
                self.whereabouts.after(number, answered, midway=midway, rests=rests)
        self._guest_is_whole()
        self._secrets |= words_of(*before.block.keys(), *block.keys())
        self._known |= words_of(block.field("vcpu.hello", size=abi.MH_HELLO_MAC_BYTES))
        self._nothing_is_shared(self._control)
        if rests and self._has_block(number):
            self._rests(number, block)

    def at_the_end(self) -> None:
        """Look at what a run seldom changes. Raises `Violation`."""
        if any(self._page(start) != was for start, was in self._constant):
            raise Violation("what the helper never writes has changed")
        self._nothing_is_shared(self._all)
        if self.whereabouts is not None:
            self.whereabouts.at_the_end()

    # ---- exits ----

    def _left_well(self, number: int, before: Before, exit_: Exit, *, event: bool, limited: bool) -> None:
        """HLT, or what its host has asked for: an address without RAM, an event that shuts it down, a limit."""
        if exit_.reason is Reason.LIMIT and self.stage.edges.is_over(self._ground.vcpus[number]):
            raise Violation(f"ring {number}: does not halt within {BLOCKS} blocks")
        allowed = {Reason.HLT, Reason.NO_MEMORY, Reason.LIMIT if limited else Reason.HLT}
        if event:
            allowed.add(Reason.SHUTDOWN)
        if exit_.reason not in allowed and not self._ground.brings_about(exit_):
            raise Violation(f"ring {number}: left with {exit_}")
        header = self._ground.rings[number].header()
        if header.state == State.MH_RING_FAULT and self.stage.is_stopped(number) and not (event or before.stopped):
            fault = header.fault
            if self._ground.provokes(fault):
                return
            where = f"RIP {fault.rip:#x}, CR2 {fault.cr2:#x}"
            raise Violation(f"ring {number}: vector {fault.vector}, error code {fault.error_code:#x}, {where}")

    def _has_block(self, number: int) -> bool:
        """Whether a halted vCPU was the one that its block is of: not one that found it taken."""
        if not self.stage.is_stopped(number):
            return True
        return self._ground.rings[number].header().state in (State.MH_RING_FAULT, State.MH_RING_BROKEN)

    # ---- memory ----

    def _guest_is_whole(self) -> None:
        """The guest's pages are as they were, or what the peer has sealed for them."""
        ground, changed = self._ground, False
        new = [page for page in ground.own_pages() if page not in self._guest]
        for page in (*self._guest, *new):
            now = ground.read(page)
            if page not in self._guest and ground.is_given(page):
                self._guest[page] = now  # of the host, which has given zeros: nobody has written there
            elif now != self._guest.get(page):
                if now not in self.sealed.get(page, ()) and not ground.is_given(page):
                    raise Violation(f"the guest's page {page:#x} has changed")
                self._guest[page], changed = now, True
        if changed:
            self._plain = words_of(*self._guest.values())

    def _nothing_is_shared(self, pages: Iterable[int]) -> None:
        """No key, no page of the guest, no code of the helper has come into shared memory."""
        changed = [(index, self._page(self._shared[index][0])) for index in pages]
        changed = [(index, now) for index, now in changed if now != self._shared[index][1]]
        if not changed:
            return
        for index, now in changed:
            self._shared[index] = self._shared[index][0], now
            words = set(_WORDS.unpack(now))
            leaked = (words & self._secrets | words & self._plain | words & self._always) - self._known
            if leaked:
                ring, page = divmod(index, _RING_PAGES)
                raise Violation(f"ring {ring}: page {page} has {min(leaked):#x}, which is secret")

    def _rests(self, number: int, block: Block) -> None:
        """Without a session a halted vCPU has no key, and in one no more than it needs; registers have none at all."""
        phase = block.number("vcpu.phase")
        if phase == IDLE and any(block.wiped()):
            raise Violation(f"ring {number}: keys are left when the session is over")
        kept = "vcpu.hello_schedule" if phase == ATTESTED else "vcpu.start_secrets"
        if phase >= SOURCE and any(block.range(kept, "vcpu.secrets_end")):
            raise Violation(f"ring {number}: secrets of the start are left in the session")
        values = set(self._ground.vcpus[number]._core._engine._general.read())
        if values & (words_of(*block.keys(), self.stage.secret.key) | self._plain):
            raise Violation(f"ring {number}: a register has a secret")
