"""What happened while an attack was carried out, line by line."""

from __future__ import annotations

import json
import re

import pytest

from emulator_tests.command.conftest import Command
from mh_builder.schemes.space import Start
from mh_compare.page import as_html
from mh_compare.results import AttackResult, Comparison
from mh_compare.run import DEFAULT_PART, Task
from mh_compare.trace import MOST_LINES, Trace

WITHOUT_CALLS = {"host-reads-guest", "host-downgrades-firmware"}
"""No ioctl is made, and no helper is asked: the host looks at bytes in DRAM, or the owner at a version."""


def carried_out(attack: str, scheme: str, start: Start = Start.HOST) -> AttackResult:
    result = Task(attack, scheme, DEFAULT_PART, start).run()
    assert isinstance(result, AttackResult)
    return result


def test_every_attack_leaves_evidence(comparison: Comparison) -> None:
    for result in comparison.attacks:
        assert len(result.evidence) <= MOST_LINES + 1, result.attack
        assert all(line.isprintable() for line in result.evidence)
    carried_out = [result for result in comparison.attacks if result.outcome != "not applicable"]
    assert {result.attack for result in carried_out if not result.evidence} == WITHOUT_CALLS


def test_a_status_was_a_helpers_answer(comparison: Comparison) -> None:
    """Where a verdict is a status, the request that was answered so is there."""
    found = [result for result in comparison.attacks if re.fullmatch(r"MH_[A-Z_]+", result.seen)]
    assert len(found) > 100
    for result in found:
        assert any(line.endswith(f": {result.seen}") and ", helper: " in line for line in result.evidence), result


def test_a_refused_ioctl_is_there(comparison: Comparison) -> None:
    found = [result for result in comparison.attacks if re.match(r"KVM_\w+: E[A-Z]+$", result.seen)]
    assert len(found) > 5
    for result in found:
        assert any(result.seen in line for line in result.evidence), result


def test_addresses_are_those_of_the_verdict() -> None:
    result = carried_out("guest-reads-key", "isolated")
    address = result.seen.removeprefix("no memory slot at GPA ")
    assert result.evidence[-1] == f"source, main VM: KVM_RUN: read at GPA {address}, where no slot is"
    slots = [line for line in result.evidence if "KVM_SET_USER_MEMORY_REGION" in line]
    assert slots[0] == "source, main VM: KVM_SET_USER_MEMORY_REGION: slot 0, GPA 0x0 to 0x3000, memory from 0x0"


def test_requests_and_answers_are_read_from_the_ring() -> None:
    lines = carried_out("host-tampers", "regions").evidence
    assert lines[-2:] == ("source, helper: EXPORT 0x0: MH_DONE", "target, helper: IMPORT 0x0: MH_BAD_TAG")
    by_gpa = carried_out("host-relocates", "alias-gpa", Start.ES).evidence
    assert by_gpa[-1].endswith(": MH_WRONG_ADDRESS")


@pytest.mark.parametrize("attack", ["host-tampers", "host-reorders", "host-drops", "host-second-mirror"])
def test_it_is_the_same_whatever_was_done_before(comparison: Comparison, attack: str) -> None:
    known = next(
        one for one in comparison.attacks if (one.attack, one.layout, one.start) == (attack, "regions", "host")
    )
    carried_out("host-forges-until-lucky", "regions")
    assert carried_out(attack, "regions").evidence == known.evidence


def test_lines_are_counted_and_bounded() -> None:
    trace = Trace()
    for line in ["a", "a", *map(str, range(100)), "z"]:
        trace.add(line)
    assert trace.lines[0] == "a, 2 times"
    assert trace.lines[-1] == "z"
    assert trace.lines[MOST_LINES // 2] == f"... {102 - MOST_LINES} lines ..."
    assert len(trace.lines) == MOST_LINES + 1


def test_it_is_said_on_demand(command: Command, comparison: Comparison) -> None:
    arguments = ("compare", "--jobs", "1", "--scheme", "regions", "--start", "host", "--attack", "host-tampers")
    line = "target, helper: IMPORT 0x0: MH_BAD_TAG"
    assert line in command(*arguments, "--evidence").out
    assert line not in command(*arguments).out
    assert line in json.loads(command(*arguments, "--evidence", "--json").out)["attacks"][0]["evidence"]
    assert "evidence" not in json.loads(command(*arguments, "--json").out)["attacks"][0]
    assert line in as_html(comparison, []).split('<section id="what-was-seen">')[1]
