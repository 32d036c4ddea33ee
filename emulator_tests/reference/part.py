"""The part that one ring has in a session."""

from __future__ import annotations

from enum import IntEnum

from emulator_tests.reference.hello import Hello
from emulator_tests.reference.lane import Lane
from emulator_tests.reference.session import Session
from mh_abi import abi
from mh_emulator.peer import SessionKeys

Role = abi.mh_role


class Phase(IntEnum):
    """Where a ring is; from SOURCE on it has a part in a session."""

    IDLE = 0
    GREETED = 1
    SOURCE = 2
    TARGET = 3
    FINISHED = 4


PHASES = {Role.MH_ROLE_SOURCE: Phase.SOURCE, Role.MH_ROLE_TARGET: Phase.TARGET}
MOVING = (Phase.SOURCE, Phase.TARGET)


class Part:
    """Keys and counts of the ring with these lanes, the bulk one first."""

    def __init__(self, session: Session, lanes: tuple[Lane, Lane]) -> None:
        self._session = session
        self._lanes = lanes
        self._generation = 0
        self.phase = Phase.IDLE
        self.hello: Hello | None = None
        self.epoch = 0
        self.pages = 0
        """Moved in the session."""
        self.epoch_pages = 0
        self.has_ended = False
        """The epoch, which another ring has not."""
        self.is_live = False
        """The guest may run at the target."""
        self.word = 0
        """That RDRAND gave last."""

    def take(self, key: SessionKeys) -> None:
        """Have a part in the session whose key this is."""
        for lane in self._lanes:
            lane.begin(key.stream(lane.stream))
        self.hello = None
        self.epoch = self.pages = self.epoch_pages = 0
        self.has_ended = self.is_live = False
        self._generation = self._session.generation
        self.phase = PHASES[Role(self._session.role)]
        self._session.joined()

    def attend(self) -> None:
        """Notice that another ring has ended the session, or the epoch."""
        if self.phase < Phase.SOURCE:
            return
        if self._generation != self._session.generation:
            self.forget()
        elif self.has_ended and self.epoch != self._session.epoch:
            self.epoch = self._session.epoch
            self.epoch_pages = 0
            self.has_ended = False

    def abort(self) -> None:
        """End the session for all rings."""
        self._session.end()
        self.forget()

    def forget(self) -> None:
        """No session, and no hello."""
        self.wipe()
        self.phase = Phase.IDLE
        self.epoch = self.pages = 0
        self.has_ended = self.is_live = False

    def wipe(self) -> None:
        """All that is secret; counts stay."""
        self.hello = None
        self.word = 0
        for lane in self._lanes:
            lane.keys = None

    def moved(self, pages: int) -> None:
        """Count pages."""
        self.pages += pages
        self.epoch_pages += pages

    def finish(self) -> int:
        """This ring's part is over; return the pages of all rings whose parts are."""
        self.wipe()
        total = self._session.finish(self.pages)
        self.phase = Phase.FINISHED if self._session.is_alive else Phase.IDLE
        return total
