"""The model of the protocol: the small configurations, a few mutants, and that the runner tells a surprise."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest

from mh_model.__main__ import Surprise, hold, notice
from mh_model.configurations import CONFIGURATIONS, ONE_STREAM, RINGS, Configuration
from mh_model.mutants import MUTANTS
from mh_model.spin import MODEL, SpinFailed, parse

BY_NAME = {mutant.drops: mutant for mutant in MUTANTS}


@pytest.fixture(autouse=True)
def verifier(request: pytest.FixtureRequest, program: Callable[[str], str]) -> None:
    if "bare" not in request.node.name:
        program("spin")
        program("cc")


@pytest.mark.parametrize("configuration", [ONE_STREAM, RINGS], ids=lambda configuration: configuration.name)
def test_the_protocol_holds_as_the_readme_says(configuration: Configuration) -> None:
    assert f"{hold(configuration)}\n" in (MODEL / "README.md").read_text()


@pytest.mark.parametrize("drops", ["DROP_BUSY_RULE", "DROP_SEQUENCE_CHECK"])
def test_a_dropped_guard_is_noticed(drops: str) -> None:
    assert f"{notice(BY_NAME[drops])}\n" in (MODEL / "README.md").read_text()


def test_a_mutant_that_survives_is_a_surprise() -> None:
    harmless = dataclasses.replace(BY_NAME["DROP_SEQUENCE_CHECK"], drops="DROP_NO_GUARD")
    with pytest.raises(Surprise, match="DROP_NO_GUARD: none"):
        notice(harmless)


def test_a_broken_protocol_is_a_surprise() -> None:
    broken = Configuration("broken", "", f"{ONE_STREAM.bounds} DROP_SEQUENCE_CHECK")
    with pytest.raises(Surprise, match="prefix"):
        hold(broken)


def test_a_model_that_does_not_parse_is_no_verdict() -> None:
    with pytest.raises(SpinFailed, match=r"Error|error"):
        hold(Configuration("broken", "", "RINGS=none"))


@pytest.mark.parametrize("cut", ["error: max search depth too small", "Warning: Search not completed"])
def test_bare_a_search_that_is_cut_off_is_no_verdict(cut: str) -> None:
    report = "State-vector 20 byte, depth reached 999, errors: 0\n     7 states, stored\n"
    assert parse(report).states == 7
    with pytest.raises(SpinFailed):
        parse(f"{cut}\n{report}")


def test_bare_every_guard_of_the_model_has_a_mutant() -> None:
    text = "".join(source.read_text() for source in MODEL.glob("*.pml"))
    dropped = {name for mutant in MUTANTS for name in mutant.drops.split() if "=" not in name}
    assert set(re.findall(r"DROP_\w+|LATE_\w+", text)) == dropped


def test_bare_the_readme_names_everything_that_runs() -> None:
    text = (MODEL / "README.md").read_text()
    assert all(f"| {configuration.name} |" in text for configuration in CONFIGURATIONS)
    assert all(f"| {mutant.guard} |" in text for mutant in MUTANTS)
