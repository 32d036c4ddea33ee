"""What became of the mutants, kept line by line: a run goes on where it was stopped, and parts can be joined."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from emulator_tests.coverage.blobs import source
from emulator_tests.mutation.mutants import Mutant
from mh_abi.sources import PAYLOAD

_INCLUDE = re.compile(r'\s*\.include "([^"]+)"')


@dataclass(frozen=True, slots=True)
class Result:
    """`verdict` is "is noticed", "lives" or "is not reached"; `last` the test that noticed, or how many did not."""

    mutant: Mutant
    verdict: str
    last: str


@cache
def digest(name: str) -> str:
    """Of the code of a source, what it includes and the headers, comments apart: results of other code mean nothing."""
    headers = {path.relative_to(PAYLOAD.parent).as_posix() for path in PAYLOAD.rglob("*.h")}
    names = [name, *sorted(_included(name) | headers)]
    lines = (line.partition("#")[0].rstrip() for one in names for line in source(one))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _included(name: str) -> set[str]:
    folder = Path(name).parent
    direct = {(folder / found[1]).as_posix() for line in source(name) if (found := _INCLUDE.match(line))}
    return direct.union(*map(_included, direct))


def read(path: Path) -> list[Result]:
    """The results in a file that are of these sources."""
    if not path.exists():
        return []
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}"))
    results = ((row["digest"], Result(Mutant(**row["mutant"]), row["verdict"], row["last"])) for row in rows)
    return [result for of, result in results if of == digest(result.mutant.source)]


class Results:
    """The file of one shard; what has been noticed need not be run again."""

    def __init__(self, path: Path, total: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._total = path, total
        self.found = {result.mutant: result for result in read(path) if result.verdict == "is noticed"}
        path.write_text("".join(map(_row, self.found.values())), encoding="utf-8")

    def add(self, result: Result) -> None:
        """Keep it, and say how far it is."""
        self.found[result.mutant] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_row(result))
        if (result.verdict == "is noticed") != (result.mutant.equivalent is None):
            sys.stderr.write(f"\r{' ' * 60}\r{sentence(result)}\n")
        lives = sum(one.verdict == "lives" and one.mutant.equivalent is None for one in self.found.values())
        sys.stderr.write(f"\r{len(self.found)} of {self._total} mutants, {lives} live ")
        sys.stderr.flush()

    def withdraw(self, test: str) -> None:
        """What this test has noticed: it fails without a fault too."""
        sys.stderr.write(f"\n{test}: fails without a fault\n")
        for mutant, result in self.found.items():
            if result.last == test:
                self.found[mutant] = Result(mutant, "has not run", "")
        self._path.write_text("".join(map(_row, self.found.values())), encoding="utf-8")


def _row(result: Result) -> str:
    return json.dumps({"digest": digest(result.mutant.source), **asdict(result)}) + "\n"


def sentence(result: Result) -> str:
    """One line for people."""
    if result.verdict == "is noticed" and result.mutant.equivalent:
        return f"{result.mutant}: carries a reason, and {result.last} notices it"
    behind = f" after {result.last}" if result.verdict == "lives" else ""
    return f"{result.mutant}: {result.verdict}{behind}"


_MANY = {
    "is noticed": "are noticed",
    "lives": "live",
    "is not reached": "are not reached",
    "has not run": "have not run",
}


def summary(results: Sequence[Result], mutants: Iterable[Mutant]) -> Iterator[str]:
    """What a run or several say together: those that live, reasons that are none, how many there were."""
    verdicts = {result.mutant: result for result in results}
    counts: Counter[str] = Counter()
    for mutant in mutants:
        result = verdicts.get(mutant, Result(mutant, "has not run", ""))
        if mutant.equivalent is None:
            counts[_MANY[result.verdict]] += 1
            if result.verdict != "is noticed":
                yield sentence(result)
        elif result.verdict == "is noticed":
            counts["carry a reason, and are noticed"] += 1
            yield sentence(result)
        else:
            counts["carry a reason"] += 1
    noticed = counts.pop(_MANY["is noticed"], 0)
    others = "".join(f", {number} {what}" for what, number in sorted(counts.items()))
    yield f"{noticed} of {noticed + sum(counts.values())} mutants are noticed{others}"


def is_good(results: Sequence[Result], mutants: Iterable[Mutant]) -> bool:
    """Whether each is noticed, or carries a reason that holds."""
    noticed = {result.mutant for result in results if result.verdict == "is noticed"}
    return all((mutant in noticed) == (mutant.equivalent is None) for mutant in mutants)
