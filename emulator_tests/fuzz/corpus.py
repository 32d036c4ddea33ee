"""Inputs in folders, a file each, named by its contents; and as few of them as reach what all do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from emulator_tests.fuzz.runner import Outcome, Runner
from emulator_tests.fuzz.script import loads

FOLDER = Path(__file__).with_name("corpus")
"""Those that are kept with the sources."""
CRASHES = Path(__file__).with_name("crashes")
"""Those that once violated something, by name."""
_DIGITS = 16


def name_of(data: bytes) -> str:
    """How the file of an input is called."""
    return f"{hashlib.sha256(data).hexdigest()[:_DIGITS]}.bin"


def read(folder: Path) -> list[bytes]:
    """All inputs of a folder, in the order of their names."""
    return [path.read_bytes() for path in sorted(folder.glob("*.bin"))]


def write(folder: Path, data: bytes) -> Path:
    """Keep an input; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name_of(data)
    path.write_bytes(data)
    return path


def minimized(runner: Runner, inputs: Iterable[bytes]) -> list[bytes]:
    """The inputs that are needed to reach what any reaches without a violation: the most for its bytes first."""
    reached = {data: outcome.reached for data, outcome in _outcomes(runner, inputs) if outcome.violation is None}
    left = set().union(*reached.values())
    kept = []
    while left:
        best = max(reached, key=lambda data: (len(reached[data] & left) / len(data), data))
        kept.append(best)
        left -= reached[best]
    for data in sorted(kept, key=lambda data: len(reached[data])):
        others = set().union(*(reached[other] for other in kept if other != data))
        if reached[data] <= others:
            kept.remove(data)
    return kept


def _outcomes(runner: Runner, inputs: Iterable[bytes]) -> Iterator[tuple[bytes, Outcome]]:
    for data in dict.fromkeys(inputs):
        script = loads(data)
        yield script.dumps(), runner.run(script)
