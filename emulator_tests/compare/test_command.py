"""`build.py compare` on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from mh_builder.schemes import EVERY_SCHEME, SCHEMES, starting
from mh_builder.schemes.space import Start
from mh_cli.main import _parser
from mh_compare.results import Comparison

ONE = ("compare", "--jobs", "1", "--attack", "host-drops")


def test_json(command: Command) -> None:
    outcome = command(*ONE, "--attack", "guest-reads-key", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    assert result["schema"] == "sev-migration-helper/compare/3"
    assert [(attack["attack"], attack["start"], attack["layout"]) for attack in result["attacks"]] == [
        (attack, start.value, scheme)
        for attack in ("host-drops", "guest-reads-key")
        for start in Start
        for scheme in starting(start)
    ]
    for attack in result["attacks"]:
        assert all(attack[field] for field in ("attack", "layout", "outcome", "seen", "how", "family", "title"))


@pytest.mark.parametrize("start", ["host", "es", "snp"])
def test_one_start(command: Command, start: str) -> None:
    arguments = (
        "--scheme",
        "vmpl" if start == "snp" else "isolated",
        "--attack",
        "host-reads-registers",
        "--attack",
        "host-downgrades-peer",
    )
    attacks = json.loads(command("compare", "--jobs", "1", "--start", start, *arguments, "--json").out)["attacks"]
    found = {(attack["attack"], attack["start"]): attack["outcome"] for attack in attacks}
    assert (
        found
        == {
            "host": {("host-reads-registers", "host"): "succeeds"},
            "es": {("host-reads-registers", "es"): "refused", ("host-downgrades-peer", "es"): "refused"},
            "snp": {("host-reads-registers", "snp"): "refused", ("host-downgrades-peer", "snp"): "refused"},
        }[start]
    )


def test_an_attack_that_makes_no_sense(command: Command) -> None:
    outcome = command("compare", "--start", "host", "--attack", "host-downgrades-peer")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "build.py: error: --start host: none of these attacks makes sense there\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--scheme", "vmpl", "--start", "host"), "--start host: scheme vmpl has start snp"),
        (("--scheme", "regions", "--start", "snp"), "--start snp: scheme regions has start host, es"),
        (("--scheme", "vmpl", "--part", "rome"), "--part rome: scheme vmpl has start snp"),
        (("--scheme", "vmpl", "--start", "es", "--column", "slots"), "--start es: scheme vmpl has start snp"),
        (("--part", "rome", "--start", "snp"), "--start snp: rome has no SEV-SNP, genoa, milan, turin have"),
    ],
)
def test_no_such_guest(command: Command, arguments: tuple[str, ...], told: str) -> None:
    outcome = command("compare", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"build.py: error: {told}\n"


def test_a_part_without_snp_has_the_rest(command: Command) -> None:
    attacks = json.loads(command(*ONE, "--part", "rome", "--json").out)["attacks"]
    assert {attack["start"] for attack in attacks} == {"host", "es"}


def test_a_row_for_both_starts_where_they_end_alike(command: Command) -> None:
    text = command("compare", "--jobs", "1", "--attack", "host-drops", "--attack", "host-sets-registers").out
    rows = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    cells = [row[1:] for row in rows if len(row) == 3]
    assert cells == [["guest", "outcome"], ["both", "detected"], ["SEV", "succeeds"], ["SEV-ES", "refused"]]


def test_what_tells_schemes_apart_comes_first(command: Command) -> None:
    text = command("compare", "--jobs", "1", "--attack", "host-drops", "--attack", "guest-reads-key").out
    schemes, snp = text.split("attacks that end otherwise on an SNP guest")
    different, same = schemes.split("attacks that end alike under all")
    assert snp.split("Guest OS reads the transport key")[1].split()[:2] == ["succeeds;", "succeeds;"]
    assert (different.count("succeeds"), different.count("refused")) == (len(SCHEMES) - 1, 1)
    assert same.split("Guest OS reads")[0].count("detected") == 1
    assert "Host drops" not in different


def test_how_is_a_command_that_does_it_again(command: Command, comparison: Comparison) -> None:
    hows = [cell.how for cell in comparison.cells] + [attack.how for attack in comparison.attacks]
    for how in hows:
        _parser().parse_args(how.split()[1:])
    first = comparison.attacks[0]
    again = json.loads(command(*first.how.split()[1:], "--json", "--jobs", "1").out)["attacks"]
    assert again == [json.loads(json.dumps(first.as_json()))]


def test_cells(command: Command) -> None:
    outcome = command("compare", "--jobs", "1", "--column", "table-pages", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    assert [(row["layout"], row["start"]) for row in result["rows"]] == [
        (scheme, "host" if scheme in SCHEMES else "snp") for scheme in EVERY_SCHEME
    ]
    assert all(cell["value"] and cell["how"] for row in result["rows"] for cell in row["cells"])
    assert result["attacks"] == []


def test_a_column_that_is_not_applicable_says_why(command: Command) -> None:
    arguments = ("compare", "--jobs", "1", "--start", "snp", "--column", "slots")
    [row] = json.loads(command(*arguments, "--json").out)["rows"]
    [cell] = row["cells"]
    assert (row["layout"], cell["value"]) == ("vmpl", "not applicable")
    assert cell["detail"].startswith("there is no mirror")
    assert not {"number", "unit"} & set(cell)
    assert f"vmpl: not applicable ({cell['detail']})" in " ".join(command(*arguments).out.split())
    assert f"* {cell['detail'].capitalize()[:20]}" in command(*arguments, "--markdown").out


def test_columns_of_a_part_without_snp(command: Command) -> None:
    outcome = command("compare", "--jobs", "1", "--part", "rome", "--column", "ram-room", "--json")
    assert [row["layout"] for row in json.loads(outcome.out)["rows"]] == list(SCHEMES)


def test_files(command: Command, tmp_path: Path) -> None:
    arguments = ["--scheme", "isolated", "--column", "table-pages", "--html", "page.html", "--svg", "drawing.svg"]
    assert command("compare", "--jobs", "1", *arguments).code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "drawing.svg").read_text().startswith("<svg ")
    outcome = command("compare", *arguments[:4], "--html", tmp_path)
    assert outcome.code == 1
    assert outcome.err == f"build.py: error: {tmp_path}: Is a directory\n"


def test_several_processes_find_the_same(command: Command) -> None:
    arguments = ["--scheme", "isolated", *ONE[3:]]
    assert command("compare", "--jobs", "2", *arguments).out == command("compare", "--jobs", "1", *arguments).out


@pytest.mark.parametrize("columns", ["80", "120"])
def test_no_value_is_cut_off(command: Command, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", columns)
    names = ("start-32", "brought-by", "pieces", "never-mapped")
    text = command("compare", "--jobs", "1", *(word for name in names for word in ("--column", name))).out
    for word in ("requests", "home", "alone", "firmware"):
        assert word in text.split()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_terminals_of_any_width(command: Command, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    text = command(*ONE).out
    assert "\x1b[3" not in text
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in text.splitlines()) <= columns
    assert text.count("detected") == (2 * len(SCHEMES) + 1 if columns < 80 else 1)


@pytest.mark.parametrize("arguments", [["--attack", "nonsense"], ["--jobs", "0"], ["--jobs", "x"], ["--scheme", "x"]])
def test_bad_arguments(command: Command, arguments: list[str]) -> None:
    outcome = command("compare", *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert arguments[1] in outcome.err
