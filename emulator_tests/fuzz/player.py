"""Plays a script on a stage: the host's part in it, and its peer's."""

from __future__ import annotations

import random
from dataclasses import replace

from emulator_tests.fuzz.invariants import Invariants
from emulator_tests.fuzz.peer import PlayedPeer, Wanted
from emulator_tests.fuzz.script import OPERANDS, Script, Step
from emulator_tests.fuzz.stage import PAGE, RINGS, Entry, Stage, Violation
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
"""What a host puts into registers of which a start believes nothing."""


class Player:
    """One script's way through a stage; `invariants` are looked at after every run."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.invariants = Invariants(stage)
        self._machine = stage.machine
        self._peer = PlayedPeer(stage, self.invariants.sealed)
        self._stuck: set[int] = set()
        """Rings whose vCPU has shut down."""
        self._events: set[int] = set()
        """Rings whose vCPU has not halted since an event."""
        self._midway: set[int] = set()
        """Rings whose vCPU has not halted in its last run."""

    def play(self, script: Script) -> None:
        """Take all steps, and end all sessions. Raises `Violation`."""
        for step in script.steps:
            getattr(self, f"_{step.kind}")(step)
        self._end()

    def _end(self) -> None:
        """A host that starts again whoever does not serve, and ends the session, gets answers, and there is no key."""
        self._machine.platform.generator.fault = None
        for number, vcpu in enumerate(self._machine.mirror.vcpus):
            vcpu._injected = None
            self._events.discard(number)
            if not self._is_idle(number):
                self._begin(number, number, anew=True, clear=True)
        for number, ring in enumerate(self._machine.rings):
            ring.submit(abi.mh_submission(op=abi.mh_op.MH_OP_ABORT).dumps())
            self._enter(number)
            if ring.completed != ring._submitted:
                raise Violation(f"ring {number}: asked to end the session, it does not answer")
        self.invariants.at_the_end()

    def _is_idle(self, number: int) -> bool:
        """Whether a vCPU waits for a submission, and its ring says so."""
        ring, heads = self._machine.rings[number], self.stage.block(number).heads
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
        self._machine.rings[0].put_packet(step.number("slot") % abi.MH_RING_SLOTS, hello)

    def _run(self, step: Step) -> None:
        self._enter(step.number("ring"), step.number("instructions") * (1 + step.number("more")))

    def _start(self, step: Step) -> None:
        how, number = str(step["how"]), step.number("ring")
        index = RINGS if "no such" in how else number
        self._begin(number, index, anew="anew" in how, clear="cleared" in how, noise="noise" in how)

    def _event(self, step: Step) -> None:
        error = step["error"]
        event = EventInjection(step.number("kind"), step.number("vector"), None if error == "none" else int(error))
        self._machine.mirror.vcpus[step.number("ring")].inject_event(event)
        self._events.add(step.number("ring"))

    def _write(self, step: Step) -> None:
        start, distance = _AREAS[str(step["area"])]
        place = start + step.number("entry") * distance + step.number("offset")
        data = bytes(step.number(name) for name in OPERANDS["write"] if name.startswith("byte"))
        self._machine.rings[step.number("ring")].write(min(place, abi.MH_RING_BYTES - len(data)), data)

    def _tail(self, step: Step) -> None:
        lane = self._lane(step)
        tail = lane.completed + step.number("ahead") + (step.number("far") << 24)
        lane._submitted = tail % (1 << 32)
        lane.write(lane._layout.tail, lane._submitted.to_bytes(4, "little"))

    def _guest(self, step: Step) -> None:
        pages = self._machine.guest_pages()
        page = pages[step.number("page") % len(pages)]
        old = self._machine.read_guest(page)
        new = {
            "zeros": bytes(PAGE),
            "other bytes": random.Random(f"guest {page} {old[0]}").randbytes(PAGE),
            "one byte": bytes([old[0] ^ 1]) + old[1:],
        }[str(step["contents"])]
        self._machine.platform.dram.write_private(self._machine.asid, self._machine.memory.spa(page), new)
        self.invariants.wrote(page)

    def _random(self, step: Step) -> None:
        self._machine.platform.generator.fault = FAULTS.get(str(step["generator"]))

    # ---- vCPUs ----

    def _begin(self, number: int, index: int, *, anew: bool, clear: bool = False, noise: bool = False) -> None:
        """Put a vCPU to its entry, with a ring's index in EDI, and run it."""
        if clear:
            self._machine.rings[number].write(0, bytes(PAGE))
        registers = self._machine.mirror.helper.registers(number)
        registers = replace(registers, rdi=index | (abi.MH_START_ANEW if anew else 0))
        if noise:
            registers = replace(registers, rax=_NOISE, rcx=_NOISE, rsp=_NOISE, rbp=_NOISE, r12=_NOISE, r13=_NOISE)
        self._machine.mirror.vcpus[number].set_registers(registers)
        starts = index == number and (anew or not self.stage.block(number).number("vcpu.busy"))
        self._stuck.discard(number)
        if starts:
            self._midway.discard(number)
        self._machine.rings[number] = self.stage.ring(number)
        self._enter(number, entry=Entry.STARTS if starts else Entry.REFUSED)

    def _enter(self, number: int, instructions: int = 0, entry: Entry = Entry.GOES_ON) -> None:
        """Run a vCPU until it halts, or for so many instructions, and look."""
        if number in self._stuck:
            return
        before = self.stage.before(number, entry)
        vcpu = self._machine.mirror.vcpus[number]
        self._peer.taken(number)
        exit_ = self.stage.enter(vcpu, instructions or None)
        if exit_.reason is Reason.FAIL_ENTRY and number in self._events:
            exit_ = self.stage.enter(vcpu, instructions or None)  # without the event, which is none
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

    # ---- operands ----

    def _ring(self, step: Step) -> int:
        return int(str(step["lane"])[5])

    def _urgent(self, step: Step) -> bool:
        return str(step["lane"]).endswith("urgent")

    def _slots(self, step: Step) -> int:
        return int(abi.MH_URGENT_SLOTS if self._urgent(step) else abi.MH_RING_SLOTS)

    def _lane(self, step: Step) -> Lane:
        ring = self._machine.rings[self._ring(step)]
        return ring.urgent if self._urgent(step) else ring

    def _address(self, step: Step, name: str) -> int:
        return self.stage.addresses[str(step[name])]
