"""The helper: its vCPUs, and what they share."""

from __future__ import annotations

from collections.abc import Callable

from emulator_tests.reference.entropy import Entropy
from emulator_tests.reference.memory import Memory
from emulator_tests.reference.part import MOVING
from emulator_tests.reference.shared import Shared
from emulator_tests.reference.state import State
from emulator_tests.reference.vcpu import Vcpu
from mh_emulator.secret import Secret


class Helper:
    """A helper of `rings` vCPUs that serves `memory`; `has_room` for a strict finish. None has been started."""

    def __init__(self, secret: Secret, memory: Memory, entropy: Entropy, rings: int, *, has_room: bool) -> None:
        self.state = State(secret, memory, entropy, rings, Shared(rings), has_room)
        self.vcpus = [Vcpu(self.state, index, self._works_beside(index)) for index in range(rings)]

    @property
    def memory(self) -> Memory:
        """What it serves."""
        return self.state.memory

    @property
    def shared(self) -> Shared:
        """What its host sees."""
        return self.state.shared

    def start(self) -> None:
        """Start all vCPUs."""
        for vcpu in self.vcpus:
            vcpu.start()

    def _works_beside(self, index: int) -> Callable[[], bool]:
        def works() -> bool:
            others = (vcpu for number, vcpu in enumerate(self.vcpus) if number != index)
            return any(vcpu.is_busy and vcpu.part.phase in MOVING for vcpu in others)

        return works
