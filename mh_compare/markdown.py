"""`docs/compare.md`: which scheme to choose, in plain words and in what was executed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mh_compare import advice
from mh_compare.across import by_family, starts
from mh_compare.decision import Decision, decide
from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Cell, Comparison
from mh_compare.rows import NAMES, Row, alike, apart, cell_rows, families, headline, reasons

_HEAD = """\
# Which address space?

*Made by `build.py compare --markdown`: every outcome was executed in the emulator, and no cell is written by hand.*

The thread of August 2021 proposed three address spaces for the mirror VM. This page says which to choose, and what
tells them apart; the figures (page tables, translations, memory, calls, host exits) are printed by `build.py compare`,
and `--html FILE` makes one page of all that with pictures. Each cell there names the command that reproduces it.

## Which to choose
"""

_CELLS = """
What a hostile *host* can do does not depend on the mirror's scheme: where SEV has no integrity none of them makes up
for it. Under SEV-SNP no mirror runs: there the helper is in the guest itself, scheme `vmpl`, and the same attacks end
[otherwise](#under-snp).

## What each can do

`vmpl` is measured on an SNP guest, the others on guests of plain SEV unless a row says SEV-ES.
"""

_ATTACKS = """
## Attacks, carried out

*refused*: something says no before anything happens. *detected*: it is noticed before anything comes of it. *garbage*:
it gives the attacker nothing that he can choose or read. **succeeds**: it does; why nothing in SEV prevents it stands
below. *not applicable*: what it is about is not there. Every attack was tried on a guest of plain SEV and on one of
SEV-ES, where it makes sense there: a row for *both*, where they end alike. SEV-ES guests have images that are built
for it.
"""

_SNP = """
## Under SNP

Every attack again, on a guest whose helper is at its VMPL0, scheme `vmpl`; beside it how it ends on guests with a
mirror: under most schemes, and where one differs. [snp.md](snp.md#what-flips) says what that comes to.
"""

_FIGURES = frozenset({"bytes", "pages", "leaves", "commands", "exits"})
"""Units of what changes with every change of the helper."""

_WORDS = {Verdict.SUCCEEDS.value: "**succeeds**"}


def render(every: Comparison) -> str:
    """The whole page."""
    result = every.mirrors
    cells = [row for row in cell_rows(every.cells) if _FIGURES.isdisjoint(cell.unit for cell in row.cells)]
    found = list(families(result.attacks))
    lines = [
        _HEAD,
        *_decision(decide(every)),
        _CELLS,
        *_table(("",), every.layouts, [(row.title, *(cell.value for cell in row.cells)) for row in apart(cells)]),
        "\nThe same under all:\n",
        *_table(("",), ["value"], [(row.title, row.cells[0].value) for row in alike(cells)]),
        *_not_applicable(every.cells),
        _ATTACKS,
        *_attacks(((family, apart(rows)) for family, rows in found), result.layouts, result.part),
        "\n### The same under all\n",
        *_attacks(((family, alike(rows)) for family, rows in found), ["under all"], result.part),
        _SNP,
        *(f"{line}\n" for line in advice.under_snp(every)),
        *_across(every.attacks),
        *_absent((one.seen, one.title) for one in every.attacks if one.outcome == Verdict.ABSENT.value),
        "\n## Why some succeed\n",
        *_reasons(every.attacks),
    ]
    return "\n".join(lines) + "\n"


def _decision(decision: Decision | None) -> Iterator[str]:
    if decision is None:
        return
    chosen = [(" or ".join(f"`{name}`" for name in who.split(" or ")), text) for who, text in advice.choices(decision)]
    yield from _table(advice.HEADINGS, (), chosen)
    yield ""
    yield from (f"* {line}" for line in advice.impossible(decision))
    yield "\nIt follows from what each has, by the rows further below:\n"
    needs = [(headline(need.text), *answers) for need, answers in advice.matrix(decision)]
    yield from _table(("",), list(decision.met), needs)


def _attacks(found: Iterable[tuple[str, list[Row]]], columns: Sequence[str], part: str) -> list[str]:
    """One table; the family stands where the first of its rows does."""
    lines = []
    for family, rows in found:
        for number, row in enumerate(rows):
            where = "" if row.part == part else f", on {row.part}"
            shown = [_WORDS.get(one.outcome, one.outcome) for one in row.results[: len(columns)]]
            lines.append(("" if number else headline(family), row.title + where, row.start, *shown))
    return _table(("", "attack", "guest"), columns, lines)


def _across(attacks: Sequence[AttackResult]) -> list[str]:
    lines = []
    for family, rows in by_family(attacks):
        for number, row in enumerate(rows):
            shown = [_bold(said) for said in row.said.values()]
            lines.append(("" if number else headline(family), row.title, *shown))
    return _table(("", "attack"), [NAMES[start] for start in starts(attacks)], lines)


def _bold(said: str) -> str:
    first, *others = said.split("; ")
    return "; ".join([_WORDS.get(first, first), *others])


def _not_applicable(cells: Iterable[Cell]) -> Iterator[str]:
    """The columns that are about something that is not there."""
    return _absent((cell.detail, cell.title) for cell in cells if cell.value == Verdict.ABSENT.value)


def _absent(found: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Reasons why rows are not applicable, each with the titles of these."""
    reasons: dict[str, dict[str, None]] = {}
    for why, title in found:
        reasons.setdefault(why, {})[title] = None
    if reasons:
        yield "\nNot applicable, and why:\n"
        yield from (f"* {headline(why)} (*{'*; *'.join(titles)}*)" for why, titles in reasons.items())


def _table(corner: Sequence[str], columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = [*corner, *columns]
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _reasons(attacks: Sequence[AttackResult]) -> Iterator[str]:
    for why, found in reasons(attacks).items():
        yield f"* {why} (*{'*; *'.join(title for _, title, _ in found)}*)"
