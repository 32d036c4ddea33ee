"""Tries every verb on every firmware image that Debian has, and writes what came of it into `docs/firmware.md`.

`python docs/firmware.py FOLDER` writes the rows between the page's marks; FOLDER is what `ovmf_patches.images` fetched.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mh_builder.helper import build_helper
from mh_builder.schemes.space import Options
from mh_cli.main import main
from ovmf_patches.images import PACKAGES, VERSION

PAGE = Path(__file__).with_name("firmware.md")
START, END = "<!-- images -->", "<!-- /images -->"
COLUMNS = (
    "suite",
    "image",
    "`table`",
    "`measure` SEV",
    "SEV-ES",
    "SNP",
    "`inject`",
    "`extract`",
    "`boot`",
    "`inject --by hob`",
)
SCHEME = "regions"
_MODES = ("sev", "seves", "snp")
_SHOWN_DIGITS = 8
_BOOT_SECONDS = "240"


@dataclass
class Notes:
    """The reasons that cells name by number."""

    reasons: list[str] = field(default_factory=list)

    def cell(self, what: str, reason: str) -> str:
        """`what`, with the number of its reason."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"{what} ({self.reasons.index(reason) + 1})"


def images(folder: Path) -> Iterator[Path]:
    """Every image with code in it, by suite and name."""
    for suite in PACKAGES:
        for path in sorted((folder / suite).glob("*.fd")):
            if "VARS" not in path.name:
                yield path


def read_cells(path: Path, notes: Notes) -> list[str]:
    """What the verbs that only read say."""
    shown = _tool("table", str(path), "--json")
    table = json.loads(shown.stdout) if shown.stdout else None
    entries = "refused" if table is None else f"{len(table['entries'])} entries"
    findings = "; ".join(table["findings"]) if table else _reason(shown, path)
    cells = [notes.cell(entries, findings) if findings else entries]
    measured = _tool("measure", str(path), "--json")
    report = json.loads(measured.stdout) if measured.stdout else {"digests": {}, "reasons": {}}
    for mode in _MODES:
        digest = report["digests"].get(mode)
        why = report["reasons"].get(mode) or _reason(measured, path)
        cells.append(f"{digest[:_SHOWN_DIGITS]}..." if digest else notes.cell("no", why))
    return [path.parent.name, f"`{path.name}`", *cells]


def tried_cells(path: Path, notes: Notes) -> list[str]:
    """What comes of an injection, of its way back, of a boot, and of an announcement."""
    with tempfile.TemporaryDirectory(prefix="mh-firmware-") as name:
        work = Path(name)
        injected = work / "injected.fd"
        done = _tool("inject", str(path), "-o", str(injected), "--scheme", SCHEME, "--json")
        inject = "yes" if done.returncode == 0 else notes.cell("refused", _reason(done, path))
        image = injected if injected.exists() else path
        extracted = work / "extracted.bin"
        back = _tool("extract", str(image), "-o", str(extracted))
        equal = extracted.exists() and extracted.read_bytes() == build_helper(SCHEME, Options()).data
        extract = "equal" if equal else notes.cell("no", _reason(back, image))
        return [inject, extract, _booted(image, path, notes), _announced(path, work, notes)]


def _booted(image: Path, original: Path, notes: Notes) -> str:
    boot = _tool("boot", str(image), *_variables(original), "--timeout", _BOOT_SECONDS, "--json")
    good = bool(boot.stdout) and json.loads(boot.stdout)["good"]
    return "loads, equal" if good else notes.cell("no", _reason(boot, image))


def _announced(original: Path, work: Path, notes: Notes) -> str:
    wrapped, announced = work / "wrapped.igvm", work / "announced.igvm"
    wrap = _tool("wrap", str(original), "-o", str(wrapped))
    if wrap.returncode:
        return notes.cell("refused", _reason(wrap, original))
    inject = _tool("inject", str(wrapped), "--by", "hob", "-o", str(announced), "--scheme", SCHEME)
    if inject.returncode:
        return notes.cell("refused", _reason(inject, wrapped))
    return _booted(announced, original, notes)


def _variables(original: Path) -> list[str]:
    """The empty variable store that belongs to an image with none of its own."""
    if "CODE" not in original.name:
        return []
    suffix = "_4M" if "_4M" in original.name else ""
    return ["--vars", str(original.with_name(f"{original.name.partition('_')[0]}_VARS{suffix}.fd"))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb returned and wrote."""

    returncode: int
    stdout: str
    stderr: str


def _tool(*words: str) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["ovmf", *words])
    return Outcome(code, out.getvalue(), err.getvalue())


def _reason(done: Outcome, path: Path) -> str:
    line = (done.stderr or done.stdout).strip().splitlines()[0]
    return line.removeprefix("build.py: error: ").removeprefix(f"{path}: ").replace(str(path), path.name)


def table(folder: Path) -> str:
    """The rows as Markdown, the reasons, and what was tried."""
    notes = Notes()
    rows = [f"| {' | '.join(cells(path, notes))} |" for path in images(folder)]
    head = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    reasons = [f"{number}. {reason}" for number, reason in enumerate(notes.reasons, start=1)]
    versions = ", ".join(f"{suite} {version(folder / suite)}" for suite in PACKAGES if (folder / suite).is_dir())
    return "\n".join([START, f"Packages: {versions}.", "", *head, *rows, "", *reasons, END])


def version(suite: Path) -> str:
    """The version of the packages in a suite's folder."""
    return (suite / VERSION).read_text(encoding="ascii").strip()


def cells(path: Path, notes: Notes) -> list[str]:
    """A whole row."""
    return [*read_cells(path, notes), *tried_cells(path, notes)]


def page(text: str, table: str) -> str:
    """The page with other rows."""
    return re.sub(f"{START}.*{END}", lambda _: table, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), table(Path(sys.argv[1]))), encoding="utf-8")
