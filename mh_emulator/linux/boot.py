"""A Linux guest from its kernel's first instruction until it is idle, and its migration by the helper beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mh_abi import abi
from mh_builder.parts import Part
from mh_emulator.kvm.exits import Exit
from mh_emulator.linux.launch import Running, Way, hand_over
from mh_emulator.linux.stop import Chase, Stop, Stopped
from mh_emulator.linux.work import Listener
from mh_emulator.platform import Platform
from mh_emulator.q35 import saved
from mh_emulator.q35.board import Telling
from mh_emulator.q35.moved import Following, Moved, move
from mh_emulator.q35.progress import Milestone, Progress
from mh_emulator.q35.run import Entered, GuestStopped, Patience, run, run_guest, where
from mh_emulator.snapshot.shelf import Shelf

_MORE_DRAM = 96 << 20
"""Beyond the guest's RAM: the helper's, and what the platform takes."""

SILENT_SECONDS = 120.0
"""CPU seconds in which a guest may print nothing. With `quiet` that is all of a boot: 15 on an idle computer."""

FIRST_PROCESS = "Run /init as init process"
"""What the kernel prints before its first process, which a snapshot is made behind."""

_MILESTONES = ("Linux version ", "Memory Encryption Features active: ", "Run ")
"""How lines of the kernel begin that are one."""
_PANIC_END = "---[ end Kernel panic - "


@dataclass
class Report:
    """One boot."""

    part: str
    scheme: str
    kernel: str
    ram_bytes: int
    milestones: list[Milestone]
    helper_equal: bool = False
    """Whether the helper's private pages are, when the guest is stopped or idle, still what was launched."""
    snapshot: str | None = None
    """Whether it was `saved` in this run, or `restored` from an earlier one; None without one."""
    stopped: Stopped | None = None
    """Where it was stopped, so that it moves; None too of an SEV-ES guest."""
    moved: Moved | None = None
    console: str = ""
    """What the guest has printed on the serial port."""
    guest_ok: bool | None = None
    """Whether its first process printed what an independent computation says; None of another one than ours."""
    cpu_seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether it came to its end with the right result, and its migration was good."""
        return self.helper_equal and self.guest_ok is not False and (self.moved is None or self.moved.good)

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        moved = self.moved
        found = {"pages": moved and moved.pages, "equal": moved and moved.equal, "good": self.good}
        return asdict(self) | found


@dataclass(frozen=True)
class LinuxGuest:
    """What is to be booted, and beside which helper."""

    part: Part
    scheme: str
    kernel: str
    """Its release."""
    ram_bytes: int
    way: Way
    expected: Sequence[str] = field(default=())
    """Lines of its first process, in their order; none where nobody knows them."""

    def made_of(self) -> dict[str, str]:
        """What has to be the same for a snapshot of it."""
        found = {"part": self.part.name, "RAM": f"{self.ram_bytes:#x} bytes", "scheme": self.scheme}
        return found | self.way.made_of()


class Boot:
    """One boot; `on_milestone` is told of each as it comes.

    With a `shelf` it begins where the snapshot there was made, or makes one where the first process begins.
    """

    def __init__(
        self, guest: LinuxGuest, on_milestone: Callable[[Milestone], None], shelf: Shelf | None = None
    ) -> None:
        self._guest = guest
        self._shelf = shelf
        self._progress = Progress(on_milestone)
        self._running: Running | None = None
        self._noted: set[str] = set()
        self._listener = Listener(guest.expected)
        self._said: list[str] = []
        """Lines of the first process that are known."""
        self._panicked = False
        self._chase: Chase | None = None
        self.report = Report(guest.part.name, guest.scheme, guest.kernel, guest.ram_bytes, self._progress.milestones)

    def run(self) -> Report:
        """Boot until the guest is idle. Raises `GuestStopped`, `KernelError`, `SnapshotError`."""
        with self._reported():
            running = self._begin()
            self._go_on(running)
            self.report.helper_equal = self._guest.way.is_whole(running.machine)
        return self.report

    def migrate(self, stop: Stop) -> Report:
        """Boot by way of a migration. Raises as `run` does, and what a migration raises."""
        with self._reported():
            running, arrived = self._stopped(stop)
            self.report.moved = move(running.machine, arrived.machine)
            hand_over(running.machine, arrived.machine, running.board)
            running.machine.close()
            self._progress.reach("moved")
            self._arrive(arrived)
            self._go_on(arrived)
        return self.report

    def post_copy(self, stop: Stop) -> Report:
        """Boot by way of a migration in which the guest goes on at once, and its pages follow. Raises as `migrate`."""
        with self._reported():
            running, arrived = self._stopped(stop)
            following = Following(running.machine, arrived.machine)
            self.report.moved = following.moved
            hand_over(running.machine, arrived.machine, running.board)
            self._progress.reach("resumed")
            self._arrive(arrived)
            self._go_on(arrived, following.guest)
            following.finish()
            running.machine.close()
            self._progress.reach("moved")
        return self.report

    def _stopped(self, stop: Stop) -> tuple[Running, Running]:
        """The guest where it is to be migrated, and where it is to arrive."""
        running = self._begin()
        source = running.machine
        chase = self._go_to(stop, running)
        if not source.consent.allowed:
            raise GuestStopped("the kernel has not allowed its migration")
        self._progress.reach("stopped")
        self.report.stopped = chase.stopped(running)
        self.report.helper_equal = self._guest.way.is_whole(source)
        return running, self._guest.way.expect(self._platform(2), running)

    def _arrive(self, arrived: Running) -> None:
        self._running, arrived.timer.sleeps = arrived, True

    def _begin(self) -> Running:
        """A guest that has been launched, or is where its first process begins."""
        running, shelf = self._power_on(), self._shelf
        if shelf is None:
            return running
        if shelf.saved is None:
            self._go_to(Stop(FIRST_PROCESS), running)
            state, body = saved.take(running.machine, running.board)
            shelf.save(self._guest.made_of(), self._guest.way.secret, state, body)
            self.report.snapshot = "saved"
        else:
            said = shelf.saved.state(self._guest.made_of())
            saved.put(running.machine, running.board, said, shelf.saved.contents.body)
            for line in running.board.serial.lines:
                self._listener.hear(line)
            self.report.snapshot = "restored"
        self._progress.reach(self.report.snapshot)
        return running

    def _go_to(self, stop: Stop, running: Running) -> Chase:
        self._chase = chase = Chase(stop)
        missing = chase.run(running, lambda: self._go_on(running))
        self._chase = None
        if missing is not None:
            raise GuestStopped(f"the guest is idle, and has not {missing}")
        return chase

    def _power_on(self) -> Running:
        running = self._guest.way.power_on(self._platform(1), Telling(self._on_debug, _ignore, self._on_line))
        self._running, self._progress.clock = running, running.board.clock
        self._progress.reach("launched")
        return running

    def _go_on(self, running: Running, guest: Entered | None = None) -> Exit:
        """Until the guest is idle, or paused; `guest` is who runs it, where its machine does not."""
        entered = guest or running.machine
        serial = running.board.serial
        patience = Patience(lambda: serial.printed, SILENT_SECONDS)
        exit_ = run(running.machine.vcpu, running.board, lambda: run_guest(entered), patience)
        if self._panicked:
            raise GuestStopped(f"the kernel has given up{where(running.machine.vcpu, running.board)}")
        return exit_

    def _platform(self, seed: int) -> Platform:
        return Platform(self._guest.part, self._guest.ram_bytes + _MORE_DRAM, seed)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except GuestStopped as stopped:
            self._note_console()
            raise GuestStopped(f"{stopped}; last seen: {self.report.milestones[-1].what}") from None
        self._note_console()
        self._progress.reach("idle")
        self.report.cpu_seconds = self._progress.cpu_seconds
        if self._guest.expected:
            self.report.guest_ok = self._said == [*self._guest.expected]

    def _note_console(self) -> None:
        if self._running is not None:
            self.report.console = self._running.board.serial.text

    def _on_debug(self, line: str) -> None:
        if line.startswith(abi.MH_DEBUG_MARKER):
            self._progress.reach("loader's line")

    def _on_line(self, line: str) -> None:
        text = self._listener.hear(line)
        self._note(text)
        if text in self._guest.expected:
            self._said.append(text)
        if self._running is None:
            return
        if text.startswith(_PANIC_END):
            self._panicked = True
            self._running.machine.vcpu.kick()
        elif self._chase is not None:
            self._chase.hear(text, self._running)

    def _note(self, text: str) -> None:
        """A milestone, where it is one, and the first of its kind: a guest may print for ever."""
        known = (*_MILESTONES, *self._guest.expected)
        found = next((beginning for beginning in known if text.startswith(beginning)), None)
        if found is not None and found not in self._noted:
            self._noted.add(found)
            self._progress.reach(text.split(" (", maxsplit=1)[0])


def _ignore(_text: str) -> None:
    """Devices of a kernel are no milestones."""
