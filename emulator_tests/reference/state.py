"""What all vCPUs of a helper share."""

from __future__ import annotations

from dataclasses import dataclass, field

from emulator_tests.reference.authenticators import Authenticators
from emulator_tests.reference.entropy import Entropy
from emulator_tests.reference.maps import Maps
from emulator_tests.reference.memory import Memory
from emulator_tests.reference.session import Session
from emulator_tests.reference.shared import Shared
from mh_emulator.secret import Secret


@dataclass
class State:
    """A helper's memory, secret and session; `rings` is how many vCPUs it has."""

    secret: Secret
    memory: Memory
    entropy: Entropy
    rings: int
    shared: Shared
    has_room: bool
    """For authenticators, which a strict finish needs."""
    maps: Maps = field(default_factory=Maps)
    session: Session = field(default_factory=Session)
    authenticators: Authenticators = field(default_factory=Authenticators)
