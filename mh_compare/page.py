"""A comparison as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mh_builder.report.html import PageSection, figure, on_demand, page, region_table
from mh_builder.report.layout import Layout
from mh_compare import advice, dossier, grid
from mh_compare.decision import Decision, decide
from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Comparison
from mh_compare.rows import headline, reasons

_LEGEND = (
    (Verdict.REFUSED, "Something says no before anything happens: helper, KVM, secure processor, or there is no slot."),
    (Verdict.DETECTED, "Carried out, and noticed before anything comes of it."),
    (Verdict.HARMLESS, "Carried out, and gives the attacker nothing that he can choose or read."),
    (Verdict.SUCCEEDS, "The attacker has what he wants. Below stands why nothing prevents it."),
    (Verdict.ABSENT, "What it is about is not there."),
)

_CSS = """
.decision td:first-child{font-weight:600}
ul.legend{list-style:none;padding:0;font-size:.9rem}
dl.why dt{font-weight:600;margin-top:.8rem}dl.why dt,dl.why dd{max-width:90ch}
dl.why dd{margin:0;font-size:.85rem}dl.why ul{margin:.2rem 0}
"""


def as_html(result: Comparison, layouts: Sequence[Layout]) -> str:
    """One self-contained file; every title leads to what was seen and to the command that shows it again."""
    sections = []
    decision = decide(result)
    if decision is not None:
        sections.append(PageSection("Which to choose", _decision(decision)))
    if result.cells:
        sections.append(PageSection("What each costs and can do", grid.cell_tables(result)))
    if result.mirrors.attacks:
        sections.append(PageSection("Attacks, carried out", _legend() + grid.attack_tables(result.mirrors)))
    if result.snp:
        legend = "" if result.mirrors.attacks else _legend()
        sections.append(PageSection("The same on an SNP guest", legend + _snp(result) + grid.snp_tables(result)))
    if result.attacks:
        sections.append(PageSection("Why some succeed", _reasons(result.attacks)))
    sections.append(PageSection("Address spaces, from the page tables", "".join(map(_address_space, layouts))))
    sections.append(PageSection("What was seen", dossier.dossier(result)))
    style = f"<style>{grid.CSS}{dossier.CSS}{_CSS}</style>"
    sections[0] = sections[0]._replace(body=style + sections[0].body)
    return page("The address spaces of the SEV migration helper, compared", _lead(result), sections)


def _lead(result: Comparison) -> str:
    where = f"Measured and executed on the emulated part {result.part}"
    others = sorted({attack.part for attack in result.attacks} - {result.part})
    if others:
        where += f"; where a row names {' or '.join(others)}, on that one"
    if any(attack.start == "es" for attack in result.attacks):
        where += "; for SEV-ES with images that are built for it"
    return f"{where}. A title leads to what was seen, with the command that shows it again."


def _decision(decision: Decision) -> str:
    rows = "".join(f"<tr><td>{escape(who)}</td><td>{escape(text)}</td></tr>" for who, text in advice.choices(decision))
    head = "".join(f'<th scope="col">{escape(headline(name))}</th>' for name in advice.HEADINGS)
    never = "".join(f"<li>{escape(line)}</li>" for line in advice.impossible(decision))
    return (
        f'<div class="scroll"><table class="decision"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"<ul>{never}</ul>{on_demand('How that follows', _needs(decision))}"
    )


def _needs(decision: Decision) -> str:
    entries = []
    for need, answers in advice.matrix(decision):
        where = [layout for layout, answer in zip(decision.met, answers, strict=True) if answer == "yes"]
        rows = ", ".join(f'<a href="#seen-{name}">{name}</a>' for name in need.rows)
        entries.append(f"<li>{escape(headline(need.text))}: {', '.join(where)}. Read from {rows}.</li>")
    return f"<ul>{''.join(entries)}</ul>"


def _snp(result: Comparison) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in advice.under_snp(result))


def _legend() -> str:
    words = "".join(f"<li>{grid.verdict(verdict.value)} {escape(text)}</li>" for verdict, text in _LEGEND)
    return f'<ul class="legend">{words}</ul>'


def _address_space(layout: Layout) -> str:
    return f"<h3>{escape(layout.name)}</h3>{figure(layout)}{on_demand('Its regions as a table', region_table(layout))}"


def _reasons(attacks: Sequence[AttackResult]) -> str:
    entries = []
    for why, found in reasons(attacks).items():
        titles = "".join(f"<li>{grid.link(title, name)} ({escape(where)})</li>" for name, title, where in found)
        number = f"{len(found)} attack{'s' * (len(found) > 1)}"
        entries.append(f"<dt>{escape(why)}</dt><dd>{on_demand(number, f'<ul>{titles}</ul>')}</dd>")
    return f'<dl class="why">{"".join(entries)}</dl>'
