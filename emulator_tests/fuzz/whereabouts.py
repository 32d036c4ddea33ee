"""Where an SNP guest is, as its helper's answers tell, and what the RMP has to say then: never two guests that run.

The table is that of docs/protocol.md, "The guest under SNP". What is answered to a submission that a host may have
changed since is no answer to what lies there: where it matters, nothing is known from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from cryptography.exceptions import InvalidTag

from emulator_tests.fuzz.answers import Answered
from emulator_tests.fuzz.snp_ground import SnpGround
from emulator_tests.fuzz.stage import SOURCE, TARGET, Stage, Violation
from mh_abi import abi
from mh_emulator.host.ring import Lane

Op, Role, Status, Kind = abi.mh_op, abi.mh_role, abi.mh_status, abi.mh_kind
_LEAVES = (Kind.MH_KIND_END, Kind.MH_KIND_CONTEXT)
_GUEST_VMPL = 1


class Place(Enum):
    """Of the guest."""

    HERE = "here"
    COMING = "coming"
    CAME = "came"
    GONE = "gone"
    UNKNOWN = "unknown"


_STARTS = {
    Role.MH_ROLE_SOURCE: (Place.HERE, Place.CAME, Place.UNKNOWN),
    Role.MH_ROLE_TARGET: (Place.HERE, Place.COMING, Place.UNKNOWN),
}
_RUNS = (Place.HERE, Place.CAME, Place.UNKNOWN)


class Whereabouts:
    """Of one stage's guest while a script is played; begins with what its session says."""

    def __init__(self, stage: Stage, ground: SnpGround) -> None:
        self._stage = stage
        self._ground = ground
        phase = stage.block(0).number("vcpu.phase")
        self._role = {SOURCE: Role.MH_ROLE_SOURCE, TARGET: Role.MH_ROLE_TARGET}.get(phase)
        self.place = Place.COMING if phase == TARGET else Place.HERE
        self._streams = stage.block(0).number("vcpu.streams", size=8)
        self._finished: set[int] = set()
        self._launched = ground.own_pages() if ground.has_guest else []
        self._validated: dict[int, int] = {}
        self._note_validated()

    @property
    def is_whole(self) -> bool:
        """Whether the guest is here, and its registers with it."""
        entry = self._ground.entry(self._ground.state_page)
        return self.place in (Place.HERE, Place.CAME) and entry is not None and entry.validated

    def after(self, number: int, answered: Sequence[Answered], *, midway: bool, rests: bool) -> None:
        """Look at what a run has answered, and at what it has done. Raises `Violation`."""
        for one in answered:
            self._note(number, one, midway=midway)
        if not rests and number == 0 and self._role == Role.MH_ROLE_SOURCE and self._is_sealed():
            self.place = Place.GONE
        if self._ground.lives and self.place in (Place.COMING, Place.GONE):
            raise Violation(f"the guest is {self.place.value}, and may run")
        self._note_validated()
        started = rests and not midway and len(answered) == 1 and self._has_started(answered[0], Role.MH_ROLE_TARGET)
        self._look_at_rights(self._launched if started else None)

    def at_the_end(self) -> None:
        """No page of the helper is VMPL1's. Raises `Violation`."""
        for offset, entry in self._ground.helper_entries():
            if entry.perms[_GUEST_VMPL] and entry.asid:
                raise Violation(f"VMPL1 has the helper's page {offset:#x}")

    # ---- answers ----

    def _note(self, number: int, one: Answered, *, midway: bool) -> None:
        op, status = one.answer.op, one.answer.status
        if op == Op.MH_OP_START and status == Status.MH_DONE:
            self._start(one, midway=midway)
        elif op == Op.MH_OP_RUN and status == Status.MH_DONE and self.place not in _RUNS:
            raise Violation(f"RUN of a guest that is {self.place.value}")
        elif op == Op.MH_OP_CONTEXT and status in (Status.MH_DONE, Status.MH_NO_CONTEXT):
            self._leave()
        elif op == Op.MH_OP_FINISH and status == Status.MH_DONE:
            self._finish(number)

    def _start(self, one: Answered, *, midway: bool) -> None:
        if midway:
            self.place, self._role = Place.UNKNOWN, None
            return
        self._role, self._streams = Role(one.entry.role), one.entry.count
        self._finished.clear()
        if self.place not in _STARTS[self._role]:
            raise Violation(f"START as {self._role.name} of a guest that is {self.place.value}")
        if self._role == Role.MH_ROLE_TARGET and self.place is not Place.UNKNOWN:
            self.place = Place.COMING

    def _finish(self, number: int) -> None:
        self._finished.add(number)
        if self._role == Role.MH_ROLE_SOURCE and number == 0:
            self._leave()
        if self._role == Role.MH_ROLE_TARGET and len(self._finished) == self._streams and self.place is Place.COMING:
            self.place = Place.CAME

    def _leave(self) -> None:
        if self._role == Role.MH_ROLE_SOURCE and self.place is not Place.UNKNOWN:
            self.place = Place.GONE

    def _is_sealed(self) -> bool:
        """Whether the packet with which the guest leaves is whole already, though nothing has been answered."""
        ring, head = self._ground.rings[0], self._stage.block(0).heads[0]
        entry = ring.submission(head)
        if entry.op not in (Op.MH_OP_FINISH, Op.MH_OP_CONTEXT) or entry.slot >= abi.MH_RING_SLOTS:
            return False
        return self._opens(ring, entry.slot)

    def _opens(self, ring: Lane, slot: int) -> bool:
        sealed = ring.take_sealed(slot)
        if abi.mh_packet(sealed.packet).kind not in _LEAVES:
            return False
        try:
            self._stage.keys(0, urgent=False).open(sealed.packet, sealed.data)
        except (InvalidTag, ValueError):
            return False
        return True

    @staticmethod
    def _has_started(one: Answered, role: int) -> bool:
        answer = one.answer
        return answer.op == Op.MH_OP_START and answer.status == Status.MH_DONE and one.entry.role == role

    # ---- the RMP ----

    def _note_validated(self) -> None:
        """No page is validated twice: behind its GPA the host may have put another one."""
        for gpa in self._ground.own_pages():
            entry, spa = self._ground.entry(gpa), self._ground.machine.vm._gmem.get(gpa, 0)
            if entry is None or not entry.validated or entry.gpa != gpa:
                continue
            if self._validated.setdefault(gpa, spa) != spa:
                raise Violation(f"the page {gpa:#x} is validated twice")

    def _look_at_rights(self, allowed: Sequence[int] | None) -> None:
        """VMPL1 has nothing that has not been validated; nothing but `allowed` pages, where that is known."""
        for page in self._ground.own_pages():
            entry = self._ground.entry(page)
            if entry is None or not entry.perms[_GUEST_VMPL] or not entry.asid:
                continue
            if not entry.validated:
                raise Violation(f"VMPL1 has the page {page:#x}, which is not validated")
            if allowed is not None and page not in allowed:
                raise Violation(f"VMPL1 has the page {page:#x} of an earlier session")
