"""Which scheme to choose follows from the cells, and from nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from emulator_tests.command.conftest import Command
from mh_cli.matrix import print_comparison
from mh_compare import advice
from mh_compare.attacks import ATTACKS
from mh_compare.columns import COLUMNS
from mh_compare.decision import NEEDS, Decision, decide
from mh_compare.results import Comparison


def decision(result: Comparison) -> Decision:
    found = decide(result)
    assert found is not None
    return found


def changed(result: Comparison, layout: str, values: dict[str, str]) -> Comparison:
    """The comparison with other answers of one layout."""
    cells = tuple(
        replace(cell, value=values[cell.column]) if cell.layout == layout and cell.column in values else cell
        for cell in result.cells
    )
    attacks = tuple(
        replace(one, outcome=values[one.attack]) if one.layout == layout and one.attack in values else one
        for one in result.attacks
    )
    return replace(result, cells=cells, attacks=attacks)


def advised(result: Comparison) -> dict[str, str]:
    return dict(advice.choices(decision(result)))


def test_every_need_is_read_from_rows_and_tells_schemes_apart(comparison: Comparison) -> None:
    assert {row for need in NEEDS for row in need.rows} <= {*COLUMNS, *ATTACKS}
    assert decision(comparison).needs == NEEDS


def test_who_is_told_what(comparison: Comparison) -> None:
    found = advised(comparison)
    assert list(found) == ["isolated", "alias-gpa", "alias-window or alias-window-high", "vmpl", "regions"]
    assert found["isolated"].startswith("a guest's kernel that cannot have the helper work for it; or ")
    assert "an SEV-ES guest together with a guest's kernel that cannot reach the helper's code" in found["isolated"]
    assert found["alias-gpa"] == "no memory slots but those of RAM"
    assert found["vmpl"] == "an SNP guest"
    assert "moves of RAM that has no GPA together with a start in 32-bit mode" in found[list(found)[2]]
    assert found["regions"] == "nothing: alias-window and alias-window-high meet all that it does, and more"


def test_another_cell_is_another_decision(comparison: Comparison) -> None:
    split = advised(changed(comparison, "regions", {"pieces": "yes"}))
    assert split["regions"].startswith("a helper that firmware brings together with a helper in pieces")
    everything = {"brought-by": "firmware or host", "start-32": "yes", "new-slots": "0"}
    advice_for = advised(changed(comparison, "isolated", everything))
    assert advice_for.pop("vmpl") == "an SNP guest"
    [first, *others] = advice_for.items()
    assert first[0] == "isolated"
    assert all(text == "nothing: isolated meets all that it does, and more" for _, text in others)
    parted = advised(changed(comparison, "alias-window-high", {"start-32": "no"}))
    assert parted["alias-window-high or regions"].startswith("nothing: alias-window meets")


def test_without_snp_guests_it_is_about_mirrors(comparison: Comparison) -> None:
    found = decision(comparison.mirrors)
    assert found.needs == tuple(need for need in NEEDS if not {"sev-es", "sev-snp"} & set(need.rows))
    everywhere = advised(comparison.mirrors)
    assert "vmpl" not in everywhere
    assert everywhere["isolated"].startswith("a guest's kernel that cannot reach the helper's code and keys; or ")


def test_a_helper_that_gives_in_is_not_chosen_for_that(comparison: Comparison) -> None:
    weak = decision(changed(comparison, "vmpl", {"guest-reads-key": "succeeds"}))
    [need] = [need for need in weak.needs if "guest-reads-key" in need.rows]
    assert (weak.meeting([need]), decision(comparison).meeting([need])) == (("isolated",), ("isolated", "vmpl"))


def test_another_outcome_is_another_decision(comparison: Comparison) -> None:
    found = advised(changed(comparison, "isolated", {"guest-reads-key": "succeeds", "guest-posts-request": "succeeds"}))
    assert [layout for layout, text in found.items() if "kernel" in text] == ["vmpl"]


@pytest.mark.parametrize("start", ["host", "es"])
def test_one_start_is_enough_to_fail(comparison: Comparison, start: str) -> None:
    attacks = tuple(
        replace(one, outcome="succeeds") if (one.attack, one.start) == ("guest-reads-key", start) else one
        for one in comparison.attacks
    )
    found = decision(replace(comparison, attacks=attacks))
    [need] = [need for need in found.needs if "guest-reads-key" in need.rows]
    assert found.meeting([need]) == ("vmpl",)


def test_what_no_scheme_has_together(comparison: Comparison) -> None:
    found = decision(comparison)
    pairs = [(one, other) for some, others in found.impossible for one in some for other in others]
    assert len(pairs) == 25
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert not any(found.meeting(pair) for pair in pairs)
    said = list(advice.impossible(found))
    assert "No scheme has moves of RAM that has no GPA together with no memory slots but those of RAM." in said
    assert said[0].startswith("No scheme has an SNP guest together with any of (an SEV-ES guest; ")


def test_nothing_is_decided_over_too_little(comparison: Comparison) -> None:
    """What only some rows say may be the contrary of what all say."""
    assert decide(replace(comparison, layouts=("regions",))) is None
    for need in NEEDS:
        for row in need.rows:
            cells = tuple(cell for cell in comparison.cells if cell.column != row)
            attacks = tuple(attack for attack in comparison.attacks if attack.attack != row)
            assert decide(replace(comparison, cells=cells, attacks=attacks)) is None


def test_where_all_are_alike_there_is_nothing_to_choose(comparison: Comparison) -> None:
    kept = {cell.column: cell.value for cell in comparison.cells if cell.layout == "regions"}
    cells = tuple(replace(cell, value=kept[cell.column]) for cell in comparison.cells)
    attacks = tuple(replace(attack, outcome="refused") for attack in comparison.attacks)
    found = decision(replace(comparison, cells=cells, attacks=attacks))
    assert (found.needs, found.impossible) == ((), ())
    assert dict(advice.choices(found)) == {" or ".join(comparison.layouts): "any of it: all schemes meet the same"}


def test_text_says_it_first(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(comparison.without_evidence())
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.split() == ["choose", "if", "you", "need"]
    assert second.startswith("isolated ")


def test_json_says_it(command: Command, comparison: Comparison) -> None:
    found = decision(comparison).as_json()
    assert [choice["layouts"] for choice in found["choices"]] == [
        ["isolated"], ["alias-gpa"], ["alias-window", "alias-window-high"], ["vmpl"], ["regions"]
    ]  # fmt: skip
    assert found["choices"][1]["if_needed"] == [["no memory slots but those of RAM"]]
    assert found["choices"][3]["if_needed"] == [["an SNP guest"]]
    assert found["choices"][4] == {
        "layouts": ["regions"], "if_needed": [], "better": ["alias-window", "alias-window-high"], "differ_in": []
    }  # fmt: skip
    assert [need["rows"] for need in found["needs"]] == [list(need.rows) for need in NEEDS]
    assert json.loads(command("compare", "--jobs", "1", "--column", "start-32", "--json").out)["decision"] is None
