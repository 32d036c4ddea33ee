"""The attack matrix: what has to be refused is, what physics allows succeeds, and every verdict comes from the run."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from emulator_tests.compare.weakened import weakened
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_builder.schemes import EVERY_SCHEME, SCHEMES
from mh_builder.schemes.space import MIRROR_STARTS, Start
from mh_compare.attacks import ATTACKS, FAMILIES
from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Comparison
from mh_compare.run import Task
from mh_emulator.cpu.rdrand import FAULTS

RESIDENT = set(SCHEMES) - {"isolated"}
HOST, ES = (start.value for start in MIRROR_STARTS)

SUCCEED_EVERYWHERE = {
    "host-moves-chosen-naples", "host-replays-guest", "host-replays-helper", "host-swaps-pages", "host-replaces-helper",
    "host-aliases-secret", "host-aliases-code", "host-clones-guest", "host-loads-elsewhere", "host-repeats-secret",
    "host-never-resumes", "host-relaunches-rdrand", "host-debugs-debuggable", "host-shares-shareable-key",
    "host-sends-sendable-guest", "host-compares-ciphertext", "host-compares-ciphertext-turin", "host-moves-again",
}  # fmt: skip
"""What docs/security.md says that nobody defends in SEV, with encrypted registers or without."""

SUCCEED_IN = {
    HOST: SUCCEED_EVERYWHERE | {"host-reads-registers", "host-sets-registers", "host-second-mirror"},
    ES: SUCCEED_EVERYWHERE,
}

OF_TENANTS = {"tenant-uses-key"}
"""Succeeds where the guest's own kernel does: it is one."""

REFUSALS = {
    "host-exports-twice": "MH_REPEATED",
    "host-imports-at-source": "MH_WRONG_STATE",
    "host-replays-packet": "MH_REPEATED",
    "host-replays-epoch": "MH_WRONG_EPOCH",
    "host-replays-stream": "MH_WRONG_SESSION",
    "host-relabels-session": "MH_BAD_TAG",
    "host-reorders": "MH_OUT_OF_ORDER",
    "host-renumbers": "MH_BAD_TAG",
    "host-relocates": "MH_WRONG_ADDRESS",
    "host-readdresses": "MH_BAD_TAG",
    "host-tampers": "MH_BAD_TAG",
    "host-mixes": "MH_BAD_TAG",
    "host-forges-until-lucky": (
        "MH_BAD_TAG, which ends the session; the next: MH_WRONG_STATE; the true packet: MH_WRONG_STATE"
    ),
    "host-plays-target": "MH_OTHER_GUEST; with the guest's identity written into the hello: MH_BAD_HELLO",
    "tenant-joins-host": "MH_OTHER_GUEST; with the guest's identity written into the hello: MH_BAD_HELLO",
    "host-edits-hello": (
        "low: MH_BAD_HELLO, high: MH_BAD_HELLO, protection: MH_BAD_HELLO, flags: MH_OTHER_TERMS, "
        "addresses: MH_OTHER_ADDRESSES, nonce: MH_BAD_HELLO, share: MH_BAD_HELLO, guest: MH_OTHER_GUEST"
    ),
    "host-reflects-hello": "MH_BAD_NONCE",
    "host-mixes-schemes": "MH_OTHER_ADDRESSES",
    "host-downgrades-peer": "MH_WEAKER_PEER",
    "host-rolls-back-post-copy": "the target: MH_REPEATED; the source, once it was told: MH_REPEATED",
    "host-wipes-key": "MH_NO_KEY",
    "host-halves-key": "MH_NO_KEY",
    "host-changes-policy": "KVM_SEV_LAUNCH_START: firmware BAD_MEASUREMENT (0x0b)",
    "host-debugs": "KVM_SEV_DBG_DECRYPT: firmware POLICY_FAILURE (0x07)",
    "host-shares-key": "KVM_SEV_LAUNCH_START: firmware POLICY_FAILURE (0x07)",
    "host-sends-guest": "KVM_SEV_SEND_START: firmware POLICY_FAILURE (0x07)",
    "host-launches-into-mirror": "KVM_SEV_LAUNCH_UPDATE_DATA: EINVAL",
    "host-launches-late": "KVM_SEV_LAUNCH_UPDATE_DATA: firmware INVALID_GUEST_STATE (0x02)",
    "host-mirrors-mirror": "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: EINVAL",
}

REFUSED_UNDER_ES = {
    "host-reads-registers": "KVM_GET_REGS: EINVAL",
    "host-sets-registers": "KVM_SET_REGS: EINVAL",
    "host-restarts-helper": "KVM_SET_REGS: EINVAL",
    "host-second-mirror": "KVM_SEV_LAUNCH_UPDATE_VMSA: firmware INVALID_GUEST_STATE (0x02)",
}
"""What the host does with registers that it has in plain SEV."""

HARMLESS = {
    "host-guesses-page", "host-sees-equal-blocks", "host-chooses-plaintext", "host-replays-hello",
    "host-reads-recorded-stream", "host-sticks-rdrand", "host-injects-at-rest",
}  # fmt: skip
"""Carried out to the end, and nothing comes of it."""

DETECTED = {
    "host-injects-events", "host-drops", "host-overruns-ring", "host-changes-helper", "host-downgrades-firmware",
    "host-forges-report",
}  # fmt: skip

ABSENT = {
    "host-validates-twice": "such a guest has no PVALIDATE: #UD",
    "host-validates-remapped": "such a guest has no PVALIDATE: #UD",
    "guest-takes-rights": "such a guest has no RMPADJUST: #UD",
    "host-replays-swap": "milan: no command of SEV swaps, the host does that itself, as in host-replays-guest",
}
"""What only SNP has."""


def results(comparison: Comparison, name: str) -> list[AttackResult]:
    return [result for result in comparison.mirrors.attacks if result.attack == name]


def test_every_attack_under_every_layout_and_start(comparison: Comparison) -> None:
    done = [(result.attack, result.layout, result.start) for result in comparison.attacks]
    assert sorted(done) == sorted(
        (attack.name, scheme, start.value)
        for attack in ATTACKS.values()
        for scheme, layout in EVERY_SCHEME.items()
        for start in attack.starts
        if start in layout.starts
    )
    assert all(result.outcome in {verdict.value for verdict in Verdict} for result in comparison.attacks)
    assert all(result.seen and result.how and result.title for result in comparison.attacks)


def test_only_one_attack_makes_no_sense_in_plain_sev() -> None:
    assert [attack.name for attack in ATTACKS.values() if attack.starts != tuple(Start)] == ["host-downgrades-peer"]


def test_what_succeeds_has_a_reason(comparison: Comparison) -> None:
    for result in comparison.attacks:
        assert bool(result.why) == (result.outcome == "succeeds"), result


@pytest.mark.parametrize("start", [HOST, ES])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_succeeds(comparison: Comparison, scheme: str, start: str) -> None:
    """Exactly what docs/security.md admits; a guest's kernel only where the helper lies in its memory."""
    found = {
        result.attack
        for result in comparison.attacks
        if (result.layout, result.start, result.outcome) == (scheme, start, "succeeds")
    }
    of_guest = {attack.name for attack in FAMILIES["guest OS"]} | OF_TENANTS if scheme in RESIDENT else set()
    assert found == SUCCEED_IN[start] | of_guest


@pytest.mark.parametrize("attack", REFUSALS)
def test_refused_with_the_right_status(comparison: Comparison, attack: str) -> None:
    for result in results(comparison, attack):
        assert (result.outcome, result.seen) == ("refused", REFUSALS[attack])


@pytest.mark.parametrize("attack", REFUSED_UNDER_ES)
def test_registers_are_nobodys_under_es(comparison: Comparison, attack: str) -> None:
    found = [result for result in results(comparison, attack) if result.start == ES]
    assert [(result.outcome, result.seen) for result in found] == [("refused", REFUSED_UNDER_ES[attack])] * len(SCHEMES)


@pytest.mark.parametrize(
    ("attacks", "outcome"), [(HARMLESS, "garbage"), (DETECTED, "detected")], ids=["harmless", "detected"]
)
def test_carried_out_and_in_vain(comparison: Comparison, attacks: set[str], outcome: str) -> None:
    for attack in attacks:
        assert {result.outcome for result in results(comparison, attack)} == {outcome}, attack


@pytest.mark.parametrize("attack", ABSENT)
def test_what_is_not_there(comparison: Comparison, attack: str) -> None:
    found = {(result.outcome, result.seen) for result in results(comparison, attack)}
    assert found == {("not applicable", ABSENT[attack])}


def test_broken_randomness(comparison: Comparison) -> None:
    """What is plainly broken gives no hello; what repeats itself gives no nonce a second time."""
    for result in results(comparison, "host-sticks-rdrand"):
        answers = dict(part.split(": ") for part in result.seen.split(", "))
        assert answers == dict.fromkeys(FAULTS, "MH_NO_ENTROPY") | {"repeats": "the packets are under different keys"}


def test_every_event_is_noticed(comparison: Comparison) -> None:
    for result in results(comparison, "host-injects-events"):
        assert result.seen == "8 x the fault handler wipes the keys"
    assert {result.seen for result in results(comparison, "host-injects-at-rest")} == {
        "the helper's vCPU stops: triple fault"
    }


def test_only_isolated_keeps_kernels_out(comparison: Comparison) -> None:
    seen = {HOST: "no memory slot at GPA 0x40000", ES: "no memory slot: the guest's kernel takes #VC"}
    for attack in (*(attack.name for attack in FAMILIES["guest OS"]), *OF_TENANTS):
        found = [result for result in results(comparison, attack) if result.layout == "isolated"]
        assert len(found) == len(seen)
        assert all(result.seen.startswith(seen[result.start]) for result in found)


@pytest.mark.parametrize("attack", ["host-replays-guest", "host-replays-helper"])
def test_a_host_flushes_caches_that_are_not_coherent(attack: str) -> None:
    assert not PARTS["rome"].coherent
    assert Task(attack, "regions", "rome", Start.HOST).run().outcome == "succeeds"  # type: ignore[union-attr]


def test_tuples_that_lie(comparison: Comparison) -> None:
    """`regions` asks the guest where its helper lies, and does not believe everything."""
    for result in results(comparison, "guest-lies-in-tuples"):
        if result.layout == "regions":
            assert result.seen.startswith("the host refuses the hand-over tuple 0: mirror GPA 0x1000 to 0x2000")
        elif result.layout != "isolated":
            assert result.outcome == "garbage"


def test_helper_is_named_by_no_alias(comparison: Comparison) -> None:
    for attack in ("host-exports-helper", "host-imports-over-helper"):
        for result in results(comparison, attack):
            assert result.outcome == "refused"
            protected = {"MH_PROTECTED"} if result.layout in RESIDENT else set()
            assert set(result.seen.split(", ")) == {"MH_NOT_ALIGNED", "MH_OUT_OF_RANGE"} | protected


ACCEPT = "xor eax, eax"
NOTHING = "nop"


@pytest.mark.parametrize(
    ("attack", "routines", "seen"),
    [
        ("host-reorders", {"check_turn": ACCEPT, "open_packet": ACCEPT}, "the target takes the second packet first"),
        ("host-replays-epoch", {"check_turn": ACCEPT, "open_packet": ACCEPT}, "the target goes back to the old page"),
        ("host-exports-twice", {"claim": ACCEPT}, "the helper seals the page a second time"),
        ("host-tampers", {"open_packet": ACCEPT}, "the target takes the changed page"),
        ("host-readdresses", {"open_packet": ACCEPT}, "the target writes the page elsewhere"),
        ("host-restarts-helper", {"random_derived": ACCEPT}, "two pages under one key and IV"),
        ("host-sticks-rdrand", {"random_derived": ACCEPT}, "two hellos have the same nonce"),
        ("host-rolls-back-post-copy", {"resume": ACCEPT}, "the guest loses what it has written at the target"),
        ("host-reads-recorded-stream", {"wipe_session": NOTHING}, "the host opens the packets of a session that is"),
        ("host-injects-events", {"wipe_session": NOTHING}, "EventInjection"),
        ("host-forges-until-lucky", {"abort": ACCEPT}, "the target lets a host try again"),
    ],
)
def test_a_weaker_helper_gives_in(plain: Image, attack: str, routines: Mapping[str, str], seen: str) -> None:
    outcome = ATTACKS[attack].outcome(weakened(plain, routines))
    assert (outcome.verdict, outcome.seen[: len(seen)]) == (Verdict.SUCCEEDS, seen), outcome
