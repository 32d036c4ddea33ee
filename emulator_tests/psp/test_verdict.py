"""The verdict on the thread's third scheme: every sequence, executed once on two parts."""

from __future__ import annotations

import json

import pytest

from emulator_tests.command.conftest import ROOT, Command, command  # noqa: F401 - a fixture
from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_cli import psp_page
from mh_cli.psp import DEFAULT_PARTS, judge
from mh_emulator.owner import Expected, OwnerRefuses
from mh_emulator.secret import Secret
from mh_emulator.verdict.proof import Peer, WrongPlaintext, prove
from mh_emulator.verdict.run import Case, Outcome, Verdict
from mh_emulator.verdict.scene import Cast, Scene
from mh_emulator.verdict.steps import Log

WORKS, REFUSED = Outcome.WORKS, Outcome.REFUSED

# Written from the sources: AMD-ASPFW, sev_mcmd.c; Linux, sev.c.
EXPECTED = {
    ("a", 0x1): REFUSED, ("a", 0x3): REFUSED,
    ("b", 0x1): WORKS, ("b", 0x3): REFUSED, ("b", 0x9): REFUSED,
    ("b-oracle", 0x1): WORKS, ("b-oracle", 0x3): REFUSED, ("b-oracle", 0x9): REFUSED,
    ("b-launch", 0x1): WORKS, ("b-launch", 0x3): REFUSED,
    ("c-launch", 0x3): WORKS, ("c-target", 0x3): WORKS, ("c-copy", 0x3): WORKS, ("c-guest", 0x3): WORKS,
    ("attack-key-sharing", 0x1): WORKS, ("attack-key-sharing", 0x3): REFUSED,
}  # fmt: skip


def refusals(case: Case) -> list[tuple[str, int | None, str | None]]:
    return [(step.command, step.status, step.errno) for step in case.steps if step.refused]


def test_every_case_ends_as_the_sources_say() -> None:
    """One run for everything that is to be seen in it: it is the dear part."""
    verdict = judge(list(DEFAULT_PARTS))
    for part in DEFAULT_PARTS:
        cases = {(case.id, case.policy): case for case in verdict.cases if case.part == part}
        assert {key: case.outcome for key, case in cases.items()} == EXPECTED
        _check_refusals(cases)
        _check_works(cases)
        _check_flushes(cases, coherent=PARTS[part].coherent)
    _check_packets(verdict)
    page = ROOT / "docs" / "isolated.md"
    assert psp_page.render(verdict) == page.read_text(), "run: build.py psp --markdown > docs/isolated.md"


def _check_refusals(cases: dict[tuple[str, int], Case]) -> None:
    for policy in (0x1, 0x3):
        assert refusals(cases["a", policy]) == [
            ("KVM_SEV_RECEIVE_START", None, "EINVAL"),
            ("KVM_SEV_RECEIVE_UPDATE_DATA", None, "EINVAL"),
            ("RECEIVE_UPDATE_DATA", 0x02, None),
            ("ACTIVATE", 0x0C, None),
        ]
    for case, command_name in (
        (cases["b", 0x3], "KVM_SEV_RECEIVE_START"),
        (cases["b-oracle", 0x3], "KVM_SEV_RECEIVE_START"),
        (cases["b-launch", 0x3], "KVM_SEV_LAUNCH_START"),
        (cases["attack-key-sharing", 0x3], "KVM_SEV_RECEIVE_START"),
        (cases["b", 0x9], "KVM_SEV_SEND_START"),
        (cases["b-oracle", 0x9], "KVM_SEV_SEND_START"),
    ):
        assert refusals(case) == [(command_name, 0x07, "EIO")]


def _check_works(cases: dict[tuple[str, int], Case]) -> None:
    for (name, policy), case in cases.items():
        if case.outcome is REFUSED:
            continue
        assert refusals(case) == []
        if name.startswith("attack"):
            assert "0x4000 bytes of the guest's RAM in plaintext" in case.main_vm
            continue
        assert [step.command for step in case.steps][-1] == "helper: import"
        assert "helper: export" in [step.command for step in case.steps]
        assert case.main_vm == "nothing: no page of it is in a slot"
        assert case.verdict.startswith("isolated" if policy & 2 else "self-defeating")
    pages = {step.count for step in cases["c-copy", 0x3].steps if step.command == "COPY"}
    assert min(pages) > 16


def _check_flushes(cases: dict[tuple[str, int], Case], *, coherent: bool) -> None:
    flushed = {key for key, case in cases.items() if any("stale" in step.command for step in case.steps)}
    assert flushed == (set() if coherent else {("b", 0x1), ("b-launch", 0x1)})


def _check_packets(verdict: Verdict) -> None:
    told = {(handling.transport, handling.attack): (handling.accepted, handling.told) for handling in verdict.packets}
    attacks = ("relocate", "replay", "reorder", "drop")
    assert [told["psp", attack] for attack in attacks] == [(True, "SUCCESS 0x00")] * 4
    assert {attack: told["helper", attack] for attack in attacks} == {
        "relocate": (False, "MH_WRONG_ADDRESS"), "replay": (False, "MH_REPEATED"),
        "reorder": (False, "MH_OUT_OF_ORDER"), "drop": (False, "MH_OUT_OF_ORDER"),
    }  # fmt: skip


def test_json_and_trace(command: Command) -> None:  # noqa: F811 - a fixture
    outcome = command("psp", "--part", "genoa", "--json", "--trace")
    assert outcome.code == 0
    result = json.loads(outcome.out)
    assert result["schema"] == "sev-migration-helper/psp/1"
    assert {case["part"] for case in result["cases"]} == {"genoa"}
    assert {(case["id"], int(case["policy"], 0)): Outcome(case["outcome"]) for case in result["cases"]} == EXPECTED
    first = result["cases"][0]
    assert set(first) >= {"id", "policy", "part", "steps", "outcome", "why"}
    asked = [step for step in first["steps"] if step["command"] == "ACTIVATE"]
    assert asked == [
        {"command": "ACTIVATE", "status": "0x0c", "status_name": "ASID_OWNED", "errno": None, "count": 1}
    ]  # fmt: skip
    lines = outcome.err.splitlines()
    assert lines[0] == "a, policy 0x1"
    assert "  RECEIVE_UPDATE_DATA (0x051): INVALID_GUEST_STATE (0x02)" in lines
    assert "  COPY (0x024): SUCCESS (0x00)" in lines


def test_usage(command: Command) -> None:  # noqa: F811 - a fixture
    assert command("psp", "--part", "pentium").code == 2
    assert command("psp", "--json", "--markdown").code == 2


@pytest.fixture
def cast(images: dict[str, Image]) -> Cast:
    return Cast(PARTS["milan"], parse_image(images["isolated"].data), Secret.fresh())


def test_the_proof_notices_a_helper_with_another_key(cast: Cast) -> None:
    """A VM that does not share the guest's key runs the helper, and moves garbage."""
    peer, scene = Peer(cast), Scene(cast, Log(), 1)
    scene.launch(0x1, scene.in_guest)
    place, alone = scene.private_place(), scene.platform.create_vm()
    scene.launch_helper(alone, 0x1, place)
    with pytest.raises(WrongPlaintext, match="export"):
        prove(scene, alone, place, peer)


def test_the_owner_gives_no_key_to_a_changed_helper(cast: Cast) -> None:
    scene = Scene(cast, Log(), 1)
    owner = cast.owner(0x3)
    changed = cast.code[:-1] + b"X"
    scene.main.sev_init()
    scene.main.sev_launch_start(0x3, owner.open_session(scene.platform.credentials()))
    scene.ram.write_raw(0, changed)
    scene.main.sev_launch_update_data(scene.ram, 0, len(changed))
    with pytest.raises(OwnerRefuses, match="helper: expected SHA-256"):
        owner.wrap_secret(scene.main.sev_launch_measure(), Expected([changed]), b"key")


def test_reach_is_counted_over_the_main_vms_slots(cast: Cast) -> None:
    scene = Scene(cast, Log(), 1)
    assert scene.reachable_pages(scene.in_guest) == len(cast.pages)
    assert scene.reachable_pages(scene.private_place()) == 0


def test_a_log_counts_what_is_repeated() -> None:
    log = Log()
    for _ in range(3):
        log.do("KVM_SEV_SEND_UPDATE_DATA", lambda: None)
    log.do("WBINVD", lambda: None)
    assert [(step.command, step.count, step.told) for step in log.steps] == [
        ("KVM_SEV_SEND_UPDATE_DATA", 3, "SUCCESS 0x00"),
        ("WBINVD", 1, "done"),
    ]
