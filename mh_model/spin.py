"""One run of spin: model to verifier to verdict. Spin's manual: https://spinroot.com/spin/Man/."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

MODEL = Path(__file__).parent.parent / "docs" / "protocol"

MAX_DEPTH = 1_000_000
MAX_MEGABYTES = 1800


class Property(Enum):
    """What the model promises, in words."""

    SESSION = "nothing of an ended session is done in a later one"
    ZERO_KEY = "no key that everybody knows"
    EPOCH_PAGE = "a page once in an epoch"
    SESSION_PAGE = "no page again after RESUME"
    EPOCH = "an epoch begins when all rings have ended the one before"
    NUMBER_ONCE = "a key and a sequence number once"
    BAD_TAG = "nothing is begun after a bad tag"
    PACKET = "packets of this session only, and from its source"
    PREFIX = "what is accepted is a prefix of what was sealed on that stream"
    COMPLETE = "complete means: all that was sealed was accepted"
    PEER = "the peer holds the transport key"
    SESSION_KEY = "Ks is there for those who have yet to join, and for nobody after the end"
    FAIR = "a fair host gets through"


# By a part of the assertion's text, without spaces and what is between brackets.
ASSERTIONS = {
    "key[]==started[]": Property.SESSION,
    "key[]!=0": Property.ZERO_KEY,
    "epoch[]==session_epoch[]": Property.EPOCH,
    "ended_ghost[]>=": Property.EPOCH,
    "epoch_ghost[]&": Property.EPOCH_PAGE,
    "session_ghost[]&": Property.SESSION_PAGE,
    "sealed[]==0": Property.NUMBER_ONCE,
    "sequence[]==taken[]": Property.NUMBER_ONCE,
    "key[]!=broken[]": Property.BAD_TAG,
    "start_side[]!=s": Property.PACKET,
    "start_source[]==start_source[]": Property.PACKET,
    "from_turn==taken[]": Property.PREFIX,
    "other_turn<taken[]": Property.COMPLETE,
    "peer<=": Property.PEER,
    "violated0": Property.SESSION_KEY,
    "epoch_ghost[]==1": Property.FAIR,
    "complete[]&&": Property.FAIR,
    "invalidendstate": Property.FAIR,
}


class SpinFailed(Exception):
    """Spin, the compiler or the verifier did not reach a verdict; the message is what it said."""


@dataclass(frozen=True)
class Verdict:
    """What the verifier has found: the number of different states, the longest path, the first violated property."""

    states: int
    depth: int
    violated: Property | None


def verify(defines: tuple[str, ...]) -> Verdict:
    """Search all states of the model with these macros (`NAME` or `NAME=1`), up to the first error.

    Raises SpinFailed where the search is not exhaustive: a syntax error, or too little depth or memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        for source in MODEL.glob("*.pml"):
            (Path(folder) / source.name).write_text(source.read_text())
        run(folder, "spin", "-a", *(f"-D{define}" for define in defines), "helper.pml")
        run(folder, "gcc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MAX_MEGABYTES}", "-o", "pan", "pan.c")
        return parse(run(folder, "./pan", f"-m{MAX_DEPTH}"))


def run(folder: str, *command: str) -> str:
    """The program's standard output. Raises SpinFailed with all it said if it fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError as missing:
        raise SpinFailed(f"{command[0]} is not installed") from missing
    if done.returncode != 0 or "Error:" in done.stdout:
        raise SpinFailed(done.stdout + done.stderr)
    return done.stdout


def parse(report: str) -> Verdict:
    """The verdict in a verifier's report. Raises SpinFailed if the search was cut off without an error found."""
    summary = re.search(r"depth reached (\d+), errors: (\d+)", report)
    states = re.search(r"(\d+) states, stored", report)
    found = re.search(r"^pan:1: (.*) \(at depth", report, re.MULTILINE)
    if summary is None or states is None or (found is None) != (summary[2] == "0"):
        raise SpinFailed(report)
    if found is None and ("Search not completed" in report or "too small" in report):
        raise SpinFailed(report)
    return Verdict(int(states[1]), int(summary[1]), found and property_of(found[1]))


def property_of(message: str) -> Property:
    """Which property the verifier's message is about. Raises SpinFailed if it is none of the model's."""
    text = re.sub(r"\s", "", message)
    while (bare := re.sub(r"\[[^\[\]]+\]", "[]", text.replace("[]", "?"))) != text:
        text = bare
    text = text.replace("?", "[]")
    for part, name in ASSERTIONS.items():
        if part in text:
            return name
    raise SpinFailed(message)
