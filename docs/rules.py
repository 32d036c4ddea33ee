"""Writes the rules of `build.py audit` into `docs/audit.md`, as the code has them.

`python docs/rules.py` writes the table between the page's marks.
"""

from __future__ import annotations

import re
from pathlib import Path

from mh_builder.report.audit import RULES

PAGE = Path(__file__).with_name("audit.md")
START, END = "<!-- rules -->", "<!-- /rules -->"


def table() -> str:
    """The table as Markdown, with the marks."""
    rows = []
    for name, rule in RULES.items():
        where = "images of ours" if rule.needs_plan else "memory with a C-bit" if rule.needs_c_bit else "all tables"
        where = "dumps with registers" if rule.needs_cpu else where
        where = f"{where}, a note" if rule.is_note else where
        rows.append(f"| `{name}` | {where} | {rule.holds} | {rule.why} |")
    return "\n".join([START, "| rule | of | what must hold | why |", "|---|---|---|---|", *rows, END])


def page(text: str) -> str:
    """The page with the table of today."""
    return re.sub(f"{START}.*{END}", lambda _: table(), text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
