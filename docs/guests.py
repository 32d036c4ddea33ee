"""Fills the tables of `docs/guests.md` with the boots in `docs/guests.json`, which were measured.

`python docs/guests.py [RUNS]`: RUNS is what `make test-guests` writes, and takes the place of `docs/guests.json` first.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES

PAGE, KEPT = (Path(__file__).with_name(f"guests.{kind}") for kind in ("md", "json"))

ACTIVE, PROCESS, LINE = "Memory Encryption Features active: ", "Run /init as init process", "loader's line"
NONE = "-"

LINUX = (
    "kernel", "through", "part", "helper", "stopped", LINE, "SEV active", "first process", "moved in", "private pages",
    "shared",
)  # fmt: skip
FIRMWARE = ("image", "part", "helper", LINE, "moved in", "idle", "private pages")
PLACES = {
    "idle": "asleep behind step 6", "syscall": "in a system call", "interrupt": "in its timer's interrupt",
}  # fmt: skip
"""How `--at` is said."""

Run = Mapping[str, Any]
"""`arguments` of `boot`, and its `report` without texts."""


def option(run: Run, name: str, default: str) -> str:
    """What the run was given."""
    arguments = run["arguments"]
    return str(arguments[arguments.index(name) + 1]) if name in arguments else default


def reached(run: Run, what: str) -> float | None:
    """CPU seconds until a milestone whose name begins so; None without one, or behind a snapshot, which takes time."""
    for milestone in run["report"]["milestones"]:
        if milestone["what"] in ("saved", "restored"):
            return None
        if milestone["what"].startswith(what):
            return float(milestone["cpu_seconds"])
    return None


def moving(run: Run) -> float | None:
    """CPU seconds from where the guest was stopped until it had moved; None where it worked meanwhile."""
    seconds = {milestone["what"]: milestone["cpu_seconds"] for milestone in run["report"]["milestones"]}
    if "resumed" in seconds:
        return None
    begun = seconds.get("stopped", seconds.get("restored", seconds.get(LINE)))
    return None if "moved" not in seconds else float(seconds["moved"] - begun)


def where(run: Run) -> str:
    """Where a Linux guest was stopped."""
    if "--migrate" not in run["arguments"]:
        return "stays"
    at = option(run, "--at", "6")
    step, _, instructions = at.partition("+")
    later = f", {instructions} instructions later" if instructions else ""
    place = PLACES.get(at, f"behind step {step}{later}")
    if "--post-copy" not in run["arguments"]:
        return place
    return f"{place}; post-copy, {run['report']['moved']['demanded_pages']} pages on demand"


def helper(run: Run) -> str:
    """Which helper, and of which kind of guest."""
    is_es = option(run, "--start", "host") == "es"
    carried = "none" if run["report"]["helper_equal"] is None else f"`{option(run, '--scheme', 'regions')}`"
    return f"{carried}, SEV-ES" if is_es else carried


def linux(run: Run) -> Iterator[str]:
    """The row of a kernel."""
    report = run["report"]
    ram = option(run, "--memory", "256M")
    yield report["kernel"].split(" ")[0] + ("" if ram == "256M" else f", {ram}")
    yield option(run, "--fd", NONE)
    yield report["part"]
    yield helper(run)
    yield where(run)
    yield from (seconds(reached(run, what)) for what in (LINE, ACTIVE, PROCESS))
    yield from moved(run)
    yield NONE if report["moved"] is None else str(report["moved"]["shared_pages"])


def firmware(run: Run) -> Iterator[str]:
    """The row of firmware alone."""
    yield option(run, "--fd", NONE)
    yield run["report"]["part"]
    yield helper(run)
    yield seconds(reached(run, LINE))
    spent, pages = moved(run)
    yield spent
    yield seconds(reached(run, "idle"))
    yield pages


def moved(run: Run) -> tuple[str, str]:
    """How long that took, and how many private pages there were."""
    found = run["report"]["moved"]
    return seconds(moving(run)), NONE if found is None else str(found["pages"])


def seconds(value: float | None) -> str:
    """As the tables have it."""
    return NONE if value is None else f"{value:.1f} s"


def order(run: Run) -> tuple[object, ...]:
    """By firmware, kernel, kind, helper, part, and place."""
    version = [int(part) for part in re.findall(r"\d+", run["report"].get("kernel", "").split(" ")[0])]
    names = option(run, "--scheme", "regions"), run["report"]["part"]
    return (
        option(run, "--fd", ""), version, option(run, "--start", "host") == "es", option(run, "--memory", ""),
        list(SCHEMES).index(names[0]), list(PARTS).index(names[1]), "--migrate" in run["arguments"],
        option(run, "--at", ""),
    )  # fmt: skip


def table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """As Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def filled(page: str, kept: Mapping[str, Any]) -> str:
    """The page with these runs in its tables. Raises `ValueError` where it has no place for them."""
    runs = sorted(kept["runs"], key=order)
    tables = {
        "linux": table(LINUX, (list(linux(run)) for run in runs if "kernel" in run["report"])),
        "firmware": table(FIRMWARE, (list(firmware(run)) for run in runs if "kernel" not in run["report"])),
    }
    for name, text in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start not in page or end not in page:
            raise ValueError(f"no {start.strip()} in the page")
        before, after = page.split(start, maxsplit=1)[0], page.split(end)[1]
        page = f"{before}{start}Measured {kept['made']}.\n\n{text}{end}{after}"
    return page


def main(arguments: Sequence[str]) -> None:
    """Take runs, if any are named, and write the page."""
    for runs in arguments:
        KEPT.write_text(Path(runs).read_text(encoding="utf-8"), encoding="utf-8")
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), kept), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
