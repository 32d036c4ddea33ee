"""Plays a script on a stage: the host's part in it, and its peer's."""

from __future__ import annotations

import random

from emulator_tests.fuzz.es_host import EsHost
from emulator_tests.fuzz.ground import PAGE, RINGS, begin_at
from emulator_tests.fuzz.invariants import Invariants
from emulator_tests.fuzz.mirror_ground import MirrorGround
from emulator_tests.fuzz.peer import PlayedPeer, Wanted
from emulator_tests.fuzz.script import FAMILIES, KINDS_OF, OPERANDS, Script, Step
from emulator_tests.fuzz.snp_ground import SnpGround
from emulator_tests.fuzz.snp_host import SnpHost
from emulator_tests.fuzz.stage import Entry, Stage, Violation
from mh_abi import abi
from mh_emulator.cpu.eventinj import EventInjection
from mh_emulator.cpu.rdrand import FAULTS
from mh_emulator.host.ring import Lane
from mh_emulator.kvm.exits import Reason

_AREAS = {
    "header": (0, 0),
    "submissions": (abi.MH_RING_SUBMISSIONS, len(abi.mh_submission)),
    "completions": (abi.MH_RING_COMPLETIONS, len(abi.mh_completion)),
    "list": (abi.MH_RING_LIST, 8),
    "results": (abi.MH_RING_RESULTS, len(abi.mh_result)),
    "packets": (abi.MH_RING_PACKETS, abi.MH_PACKET_SLOT_BYTES),
    "data": (abi.MH_RING_DATA, PAGE),
    "urgent submissions": (abi.MH_URGENT_SUBMISSIONS, len(abi.mh_submission)),
    "urgent completions": (abi.MH_URGENT_COMPLETIONS, len(abi.mh_completion)),
    "urgent list": (abi.MH_URGENT_LIST, 8),
    "urgent results": (abi.MH_URGENT_RESULTS, len(abi.mh_result)),
    "urgent packets": (abi.MH_URGENT_PACKETS, abi.MH_PACKET_SLOT_BYTES),
    "urgent data": (abi.MH_URGENT_DATA, PAGE),
}
"""Where each area of a ring begins, and how far its entries are apart."""


_NOISE = 0x0123_4567_89AB_CDEF
_ANY = ("rax", "rcx", "rsp", "rbp", "r12", "r13")
"""What a host puts into registers of which a start believes nothing."""
_ANSWERS = 1 << 13
_STATUSES, _PHASES = 64, 8
_TRIES = 4
"""How often a vCPU runs on at the end that has left for what its host did."""


class Player:
    """One script's way through a stage; `invariants` are looked at after every run."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.invariants = Invariants(stage)
        self._ground = stage.ground
        self._snp = SnpHost(stage, stage.ground, self.invariants) if isinstance(stage.ground, SnpGround) else None
        self._es = EsHost(stage.ground) if FAMILIES[stage.name] == "es" else None
        self._peer = PlayedPeer(stage, self.invariants.sealed)
        self._stuck: set[int] = set()
        """Rings whose vCPU has shut down."""
        self._events: set[int] = set()
        """Rings whose vCPU has not halted since an event."""
        self._midway: set[int] = set()
        """Rings whose vCPU has not halted in its last run."""

    @property
    def counts(self) -> bytes:
        """Of each edge, and then of each answer in a phase."""
        answers = bytearray(_ANSWERS)
        for op, status, phase in self.invariants.answers.seen:
            answers[(op * _STATUSES + status % _STATUSES) * _PHASES + phase % _PHASES] = 1
        return self.stage.edges.counts[:] + bytes(answers)

    def play(self, script: Script) -> None:
        """Take all steps, and end all sessions. Raises `Violation`."""
        for step in script.steps:
            self._take(step)
        self._end()

    def _take(self, step: Step) -> None:
        if step.kind not in KINDS_OF[FAMILIES[self.stage.name]]:
            return
        own = getattr(self, f"_{step.kind}", None)
        if own is not None:
            own(step)
        elif self._snp is not None:
            self._snp.take(step)
        elif self._es is not None:
            self._es.take(step)

    def _end(self) -> None:
        """A host that starts again whoever does not serve, and ends the session, gets answers, and there is no key.

        Where it cannot start a vCPU again, it lets it run on, and asks the ones that serve.
        """
        self._ground.generator.fault = None
        self._ground.at_peace()
        if self._es is not None:
            self._es.mend()
        for number, vcpu in enumerate(self._ground.vcpus):
            vcpu._injected = None
            self._events.discard(number)
            if not self._is_idle(number):
                self._again(number)
        for number, ring in enumerate(self._ground.rings):
            if not self._serves(number):
                continue
            ring.submit(abi.mh_submission(op=abi.mh_op.MH_OP_ABORT).dumps())
            self._enter(number)
            if ring.completed != ring._submitted and not self._ground.harmed:
                raise Violation(f"ring {number}: asked to end the session, it does not answer")
        if self._snp is not None and self._serves(0):
            self._enter(0)
            self._snp.asks_for_the_guest(self._enter)
        self.invariants.at_the_end()

    def _again(self, number: int) -> None:
        """Have a vCPU serve that does not, if there is a way."""
        if self._ground.restarts:
            self._begin(number, number, anew=True, clear=True)
            return
        for _ in range(_TRIES):
            if number in self._midway:
                self._enter(number)
        block = self.stage.block(number)
        for lane, head in zip(
            (self._ground.rings[number], self._ground.rings[number].urgent), block.heads, strict=True
        ):
            begin_at(lane, head)

    def _serves(self, number: int) -> bool:
        """Whether a vCPU that cannot be started again is at its ring."""
        return self._ground.restarts or not (number in self._stuck | self._midway or self.stage.is_stopped(number))

    def _is_idle(self, number: int) -> bool:
        """Whether a vCPU waits for a submission, and its ring says so."""
        ring, heads = self._ground.rings[number], self.stage.block(number).heads
        if number in self._stuck | self._midway or self.stage.is_stopped(number):
            return False
        said = ring.header()
        tails = {(ring._submitted, ring.urgent._submitted), (said.tail, said.urgent_tail)}
        return tails == {heads} and said.head == heads[0]

    # ---- steps ----

    def _submit(self, step: Step) -> None:
        entry = abi.mh_submission(
            op=step.number("op"), role=step.number("role"), slot=step.number("slot"), count=step.number("count"),
            chunk=step.number("chunk"), flags=step.number("flags"), address=self._address(step, "address"),
        )  # fmt: skip
        data = bytearray(entry.dumps())
        more = str(step["more"])
        if more != "none":
            field, _, index = more.partition("[")
            data[abi.mh_submission.fields[field].offset + 8 * int(index.rstrip("]") or 0)] ^= 1
        self._lane(step).submit(bytes(data))
        if step["then"] == "run":
            self._enter(self._ring(step))

    def _list(self, step: Step) -> None:
        addresses = [self._address(step, name) for name in ("first", "second", "third")]
        slot = min(step.number("slot"), self._slots(step) - len(addresses))
        self._lane(step).put_list(slot, addresses)

    def _packet(self, step: Step) -> None:
        """Into a slot."""
        wanted = Wanted(
            self._ring(step), self._urgent(step), step.number("kind"), self._address(step, "address"),
            step.number("pages"), str(step["wrong"]), step.number("by"),
        )  # fmt: skip
        sealed = self._peer.seal(wanted)
        slot = step.number("slot") % self._slots(step)
        lane = self._lane(step)
        lane.put_packet(slot, sealed.packet)
        room = (self._slots(step) - slot) * PAGE
        lane.write(lane._layout.data + slot * PAGE, sealed.data[:room])

    def _hello(self, step: Step) -> None:
        """Into a slot of ring 0."""
        hello = self._peer.hello(str(step["wrong"]), step.number("by"))
        self._ground.rings[0].put_packet(step.number("slot") % abi.MH_RING_SLOTS, hello)

    def _run(self, step: Step) -> None:
        self._enter(step.number("ring"), step.number("instructions") * (1 + step.number("more")))

    def _start(self, step: Step) -> None:
        how, number = str(step["how"]), step.number("ring")
        index = RINGS if "no such" in how else number
        self._begin(number, index, anew="anew" in how, clear="cleared" in how, noise="noise" in how)

    def _event(self, step: Step) -> None:
        error = step["error"]
        event = EventInjection(step.number("kind"), step.number("vector"), None if error == "none" else int(error))
        self._ground.vcpus[step.number("ring")].inject_event(event)
        self._events.add(step.number("ring"))

    def _write(self, step: Step) -> None:
        start, distance = _AREAS[str(step["area"])]
        place = start + step.number("entry") * distance + step.number("offset")
        data = bytes(step.number(name) for name in OPERANDS["write"] if name.startswith("byte"))
        self._ground.rings[step.number("ring")].write(min(place, abi.MH_RING_BYTES - len(data)), data)

    def _tail(self, step: Step) -> None:
        lane = self._lane(step)
        tail = lane.completed + step.number("ahead") + (step.number("far") << 24)
        lane._submitted = tail % (1 << 32)
        lane.write(lane._layout.tail, lane._submitted.to_bytes(4, "little"))

    def _guest(self, step: Step) -> None:
        pages = self._ground.own_pages()
        page = pages[step.number("page") % len(pages)]
        old = self._ground.read(page)
        new = {
            "zeros": bytes(PAGE),
            "other bytes": random.Random(f"guest {page} {old[0]}").randbytes(PAGE),
            "one byte": bytes([old[0] ^ 1]) + old[1:],
        }[str(step["contents"])]
        if page != self._ground.state_page or self._ground.restarts:
            self._ground.write(page, new)
        self.invariants.wrote(page)

    def _random(self, step: Step) -> None:
        self._ground.generator.fault = FAULTS.get(str(step["generator"]))

    # ---- vCPUs ----

    def _begin(self, number: int, index: int, *, anew: bool, clear: bool = False, noise: bool = False) -> None:
        """Put a vCPU to its entry, with a ring's index in EDI, and run it."""
        if clear:
            self._ground.rings[number].write(0, bytes(PAGE))
        assert isinstance(self._ground, MirrorGround)
        registers = dict.fromkeys(_ANY, _NOISE) if noise else {}
        self._ground.begin(number, index | (abi.MH_START_ANEW if anew else 0), **registers)
        starts = index == number and (anew or not self.stage.block(number).number("vcpu.busy"))
        self._stuck.discard(number)
        if starts:
            self._midway.discard(number)
        self._ground.rings[number] = self._ground.ring_again(number)
        self._enter(number, entry=Entry.STARTS if starts else Entry.REFUSED)

    def _enter(self, number: int, instructions: int = 0, entry: Entry = Entry.GOES_ON) -> None:
        """Run a vCPU until it halts, or for so many instructions, and look."""
        if number in self._stuck or self._refuses(number):
            return
        before = self.stage.before(number, entry)
        vcpu = self._ground.vcpus[number]
        self._peer.taken(number)
        exit_ = self._ground.enter(vcpu, instructions or None)
        if exit_.reason is Reason.FAIL_ENTRY and number in self._events:
            exit_ = self._ground.enter(vcpu, instructions or None)  # without the event, which is none
        self.invariants.after(
            number, before, exit_,
            event=number in self._events, limited=bool(instructions), midway=number in self._midway,
        )  # fmt: skip
        if exit_.reason is Reason.SHUTDOWN:
            self._stuck.add(number)
        if exit_.reason is Reason.HLT:
            self._midway.discard(number)
            self._events.discard(number)
        else:
            self._midway.add(number)

    def _refuses(self, number: int) -> bool:
        """Whether the CPU does not take the registers of a vCPU, which the host has changed."""
        if self._es is None or not self._es.has_changed(number):
            return False
        exit_ = self._ground.enter(self._ground.vcpus[number])
        if exit_.reason is not Reason.FAIL_ENTRY:
            raise Violation(f"ring {number}: goes on with registers that are not its own: {exit_}")
        return True

    # ---- operands ----

    def _ring(self, step: Step) -> int:
        return int(str(step["lane"])[5])

    def _urgent(self, step: Step) -> bool:
        return str(step["lane"]).endswith("urgent")

    def _slots(self, step: Step) -> int:
        return int(abi.MH_URGENT_SLOTS if self._urgent(step) else abi.MH_RING_SLOTS)

    def _lane(self, step: Step) -> Lane:
        ring = self._ground.rings[self._ring(step)]
        return ring.urgent if self._urgent(step) else ring

    def _address(self, step: Step, name: str) -> int:
        return self.stage.addresses[str(step[name])]
