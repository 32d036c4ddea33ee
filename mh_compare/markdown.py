"""`docs/compare.md`: which scheme to choose, in plain words and in what was executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Comparison
from mh_compare.rows import families

_HEAD = """\
# Which address space?

*Made by `build.py compare --markdown`: every cell and every outcome below was executed in the emulator.*

The thread of August 2021 proposed three address spaces for the mirror VM. This page says what tells them apart; the
figures (page tables, translations, memory, calls, host exits) are printed by `build.py compare`, and `--html FILE`
makes one page of all that with pictures. Each cell there names the command that reproduces it.

* **`isolated`** is the only one in which the guest's own kernel cannot reach the helper: it has no address for it.
  It takes no RAM of the guest, so a host with newer firmware may bring a larger helper, or one at another place, and
  its RAM window has no hole, so that a GiB is one translation. Its price is a launch in which the host gives
  LAUNCH_UPDATE_DATA pages that are in no slot of the main VM, as `docs/isolated.md` says.
* **`regions`** keeps the helper in the guest's memory, at an address that both firmwares must reserve, and moves it
  out of the way in the mirror. It costs a slot more than the others, and the guest has to hand its tuples over.
* **`alias-window`** and **`alias-window-high`** are as `regions`, with one slot less; they can be started in 32-bit
  mode. They differ in where the window begins.
* **`alias-gpa`** asks for nothing new of the host, but what has no guest-physical address cannot be named: unplugged
  memory and the like stay behind.

What a hostile *host* can do does not depend on the scheme: where SEV has no integrity none of them makes up for it.

## What each can do
"""

_ATTACKS = """
## Attacks, carried out

*refused*: something says no before anything happens. *detected*: it is noticed before anything comes of it. *garbage*:
it gives the attacker nothing that he can choose or read. **succeeds**: it does; why nothing in SEV prevents it stands
below. Every attack was tried on a guest of plain SEV and on one of SEV-ES, where it makes sense there: a row for
*both*, where they end alike.
"""

_FIGURES = frozenset({"bytes", "pages", "leaves", "commands", "exits"})
"""Units of what changes with every change of the helper."""

_WORDS = {Verdict.HARMLESS.value: "garbage", Verdict.SUCCEEDS.value: "**succeeds**"}


def render(result: Comparison) -> str:
    """The whole page."""
    lines = [_HEAD, *_row("", result.layouts), *_row("---", ["---"] * len(result.layouts))]
    cells = (cell for cell in result.cells if cell.unit not in _FIGURES)
    for title, answers in groupby(cells, key=lambda cell: cell.title):
        lines += _row(title, [cell.value for cell in answers])
    for family, rows in families(result.attacks):
        lines += [_ATTACKS if family == result.attacks[0].family else "", f"### {family[0].upper()}{family[1:]}\n"]
        lines += _row("", ["guest", *result.layouts])
        lines += _row("---", ["---"] * (1 + len(result.layouts)))
        for row in rows:
            lines += _row(row.title, [row.start, *(_WORDS.get(one.outcome, one.outcome) for one in row.results)])
    lines += ["\n## Why some succeed\n", *_reasons(result.attacks)]
    return "\n".join(lines) + "\n"


def _row(title: str, cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join((title, *cells))} |"]


def _reasons(attacks: Sequence[AttackResult]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for attack in attacks:
        if attack.why and attack.title not in reasons.setdefault(attack.why, []):
            reasons[attack.why].append(attack.title)
    for why, titles in reasons.items():
        yield f"* {why} (*{'*; *'.join(titles)}*)"
