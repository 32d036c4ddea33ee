"""Writes into `payload/README.md` which source of the helper uses which: calls, jumps and tables, as the code has them.

`python docs/calls.py` writes the table between the page's marks. What all files use (wipe.s, state.s) is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

PAYLOAD = Path(__file__).parents[1] / "payload"
PAGE = PAYLOAD / "README.md"
START, END = "<!-- calls -->", "<!-- /calls -->"

_GLOBAL = re.compile(r"^\.global (\w+)", re.MULTILINE)
_EXTERN = re.compile(r"^\.extern ([\w.]+)", re.MULTILINE)
_DATA = {"state.s"}


def sources() -> dict[str, str]:
    """Name -> text of every source of the helper."""
    return {path.name: path.read_text(encoding="ascii") for path in sorted(PAYLOAD.glob("*.s"))}


def uses() -> dict[str, dict[str, list[str]]]:
    """File -> the files whose code it uses -> the symbols that it uses of them."""
    texts = sources()
    homes = {symbol: name for name, text in texts.items() for symbol in _GLOBAL.findall(text)}
    found: dict[str, dict[str, list[str]]] = {}
    for name, text in texts.items():
        found[name] = {}
        for symbol in sorted(_EXTERN.findall(text)):
            home = homes.get(symbol)
            if home is not None and home not in _DATA:
                found[name].setdefault(home, []).append(symbol)
    return found


def table() -> str:
    """The table as Markdown, with the marks."""
    rows = []
    for name, others in uses().items():
        cells = [f"`{home}`: {', '.join(symbols)}" for home, symbols in sorted(others.items())]
        rows.append(f"| `{name}` | {'; '.join(cells) or 'nothing'} |")
    return "\n".join([START, "| file | uses |", "|---|---|", *rows, END])


def page(text: str) -> str:
    """The page with the table of today."""
    return re.sub(f"{START}.*{END}", lambda _: table(), text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
