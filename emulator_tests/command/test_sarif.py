"""`audit --sarif`: what a program that collects findings needs is there, and says what `--json` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.report.faults import FAULTS, Patient
from mh_builder.image.model import Image
from mh_builder.report.audit import RULES


@pytest.fixture
def bad(images: dict[str, Image], tmp_path: Path) -> Path:
    """An image with writable code."""
    patient = Patient(images["isolated"])
    FAULTS["code-writable"].seed(patient)
    path = tmp_path / "bad.bin"
    path.write_bytes(bytes(patient.data))
    return path


def read(path: Path) -> dict[str, Any]:
    log = json.loads(path.read_text())
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    return dict(run)


def test_findings_are_those_of_json(command: Command, bad: Path) -> None:
    outcome = command("audit", bad, "--json", "--sarif", "found.sarif")
    assert outcome.code == 1
    (audit,) = json.loads(outcome.out)["audits"]
    run = read(bad.parent / "found.sarif")
    results = run["results"]
    assert [result["ruleId"] for result in results] == [finding["rule"] for finding in audit["findings"]]
    assert [result["message"]["text"] for result in results] == [
        f"{audit['name']}: {one['what']}" for one in audit["findings"]
    ]
    for result, finding in zip(results, audit["findings"], strict=True):
        assert result["level"] == "error"
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        places = [location["physicalLocation"] for location in result["locations"]]
        assert {place["artifactLocation"]["uri"] for place in places} == {bad.as_uri()}
        found = [hex(place["address"]["absoluteAddress"]) for place in places if "address" in place]
        assert found == [mapping["va"] for mapping in finding["mappings"]]


def test_every_rule_is_described(command: Command, bad: Path) -> None:
    command("audit", bad, "--sarif", "found.sarif")
    rules = read(bad.parent / "found.sarif")["tool"]["driver"]["rules"]
    assert {rule["id"]: rule["shortDescription"]["text"] for rule in rules} == {
        name: rule.holds for name, rule in RULES.items()
    }


def test_clean_run_has_no_results(command: Command, tmp_path: Path) -> None:
    assert command("audit", "--sarif", "found.sarif").code == 0
    assert read(tmp_path / "found.sarif")["results"] == []


def test_file_that_cannot_be_written(command: Command, bad: Path) -> None:
    outcome = command("audit", bad, "--sarif", "/proc/found.sarif")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "/proc/found.sarif" in outcome.err
