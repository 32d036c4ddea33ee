"""`python -m mh_model`: all configurations and mutants, side by side, as one table. Exit status 1 for any surprise."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from mh_model.configurations import CONFIGURATIONS, Configuration
from mh_model.mutants import MUTANTS, Mutant
from mh_model.spin import MODEL, SpinFailed, verify

README = MODEL / "README.md"
BEGIN = "<!-- python -m mh_model --write -->\n"
END = "<!-- end -->\n"


class Surprise(Exception):
    """The model does not do what is expected of it; the message says where."""


def hold(configuration: Configuration) -> str:
    """A row: the configuration holds, states, depth. Raises Surprise if it does not hold."""
    verdict = verify(configuration.defines)
    if verdict.violated is not None:
        raise Surprise(f"{configuration.name}: {verdict.violated.value}")
    return f"| {configuration.name} | {configuration.about} | {verdict.states} | {verdict.depth} |"


def notice(mutant: Mutant) -> str:
    """A row: what happens without the guard. Raises Surprise if it is anything else than expected."""
    violated = verify(mutant.defines).violated
    found = "none" if violated is None else violated.value
    if violated is not mutant.violates:
        raise Surprise(f"{mutant.drops}: {found}")
    drops = " ".join(f"`{name}`" for name in mutant.drops.split() if "=" not in name)
    return f"| {drops} | {mutant.guard} | {mutant.configuration.name} | {found} |"


def check_all() -> Iterator[str]:
    """The lines of both tables; a line that tells of a surprise begins with an exclamation mark."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        held = [pool.submit(hold, configuration) for configuration in CONFIGURATIONS]
        noticed = [pool.submit(notice, mutant) for mutant in MUTANTS]
        yield "| configuration | what it has | states | depth |"
        yield "|---|---|---|---|"
        yield from (outcome_of(row) for row in held)
        yield ""
        yield "| dropped | guard | configuration | violated property |"
        yield "|---|---|---|---|"
        yield from (outcome_of(row) for row in noticed)


def outcome_of(row: Future[str]) -> str:
    """The row, or what went wrong."""
    try:
        return row.result()
    except (Surprise, SpinFailed) as wrong:
        return f"! {wrong}"


def main(arguments: list[str]) -> int:
    """Print the tables, and with `--write` put them into the README; without it the README must have them."""
    lines = []
    for line in check_all():
        print(line, flush=True)
        lines.append(f"{line}\n")
    if any(line.startswith("!") for line in lines):
        return 1
    before, rest = README.read_text().split(BEGIN)
    text = before + BEGIN + "".join(lines) + END + rest.split(END)[1]
    if arguments == ["--write"]:
        README.write_text(text)
    elif text != README.read_text():
        print("docs/protocol/README.md has other tables: python -m mh_model --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
