"""START, RUN, EXPORT, CONTEXT, FINISH, ABORT in any order, against the table of docs/protocol.md: never two guests."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from emulator_tests.vmpl.context import absorb, export
from emulator_tests.vmpl.pairs import Op, Role, Status, ask, carry, is_silent, pair, restart, run
from mh_emulator.host.session import connect, greet
from mh_emulator.host.snp_context import ImageMachine

SOURCE, TARGET = 0, 1
SIDES = st.sampled_from([SOURCE, TARGET])
STARTS = {
    "here": {Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET},
    "coming": {Role.MH_ROLE_TARGET},
    "came": {Role.MH_ROLE_SOURCE},
    "gone": set(),
}
"""In which roles a helper starts, by where its guest is."""


class AnyOrder(RuleBasedStateMachine):
    """Both hosts ask for what they like."""

    @initialize()
    def launch(self) -> None:
        self.both = pair(kind=ImageMachine)
        self.sides = [self.both.source, self.both.target]
        self.hellos = [greet(side.rings[0]) for side in self.sides]
        self.guest = ["here", "here"]
        self.role: list[int | None] = [None, None]
        self.runs = [False, False]
        self.joined = self.moved = False
        self.has_key = True

    @rule(side=SIDES, role=st.sampled_from([Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET]))
    def start(self, side: int, role: int) -> None:
        if self.role[side] is not None:
            return
        comes_over = role == Role.MH_ROLE_TARGET and self.runs[side]
        allowed = role in STARTS[self.guest[side]] and not comes_over
        status = restart(self.sides[side], role, self.hellos[1 - side])
        assert status == (Status.MH_DONE if allowed else Status.MH_WRONG_STATE)
        if allowed:
            self.role[side] = role
            if role == Role.MH_ROLE_TARGET:
                self.guest[side] = "coming"

    @precondition(lambda self: self.role == [None, None] and self.guest[0] == "here")
    @rule()
    def connect(self) -> None:
        if self.guest[TARGET] not in ("here", "coming"):
            return
        connect(*(side.rings[0] for side in self.sides))
        self.role = [Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET]
        self.guest[TARGET] = "coming"
        self.joined, self.moved = True, False

    @rule(side=SIDES)
    def run(self, side: int) -> None:
        if self.runs[side] or (side == TARGET and self.guest[side] == "here"):
            return  # A target has no VMSA before one has come: #VC, in test_states.
        allowed = self.role[side] is None and self.guest[side] in ("here", "came")
        assert run(self.sides[side]) == (Status.MH_DONE if allowed else Status.MH_WRONG_STATE)
        self.runs[side] = allowed

    @precondition(lambda self: self.joined and not self.moved)
    @rule()
    def export(self) -> None:
        assert carry(self.both, self.both.source.vmsa) == Status.MH_DONE
        self.runs[SOURCE], self.moved = False, True

    @precondition(lambda self: self.joined and (self.moved or self.runs[SOURCE]))
    @rule()
    def context(self) -> None:
        status = export(self.both)
        if not self.has_key:
            assert status == Status.MH_NO_KEY
        elif self.runs[SOURCE]:
            assert status == Status.MH_RUNNING
        else:
            assert status == Status.MH_DONE
            self.guest[SOURCE], self.has_key = "gone", False
            assert absorb(self.both) == Status.MH_DONE

    @precondition(lambda self: self.joined and (self.moved or self.runs[SOURCE]))
    @rule()
    def finish(self) -> None:
        source, target = (side.rings[0] for side in self.sides)
        status = ask(self.both.source, Op.MH_OP_FINISH)
        assert status == (Status.MH_RUNNING if self.runs[SOURCE] else Status.MH_DONE)
        if status == Status.MH_DONE:
            self.guest[SOURCE] = "gone"
            target.put_sealed(0, source.take_sealed(0))
            assert ask(self.both.target, Op.MH_OP_FINISH) == Status.MH_DONE
            self.guest[TARGET], self.has_key = "came", False
            self.role, self.joined = [None, None], False

    @rule(side=SIDES)
    def abort(self, side: int) -> None:
        assert ask(self.sides[side], Op.MH_OP_ABORT) == Status.MH_DONE
        self.role[side], self.joined = None, False

    @invariant()
    def never_two(self) -> None:
        if hasattr(self, "sides"):
            silent = [is_silent(side) for side in self.sides]
            assert silent == [not runs for runs in self.runs]
            assert any(silent)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=12, stateful_step_count=14, deadline=None, derandomize=True, database=None
)
