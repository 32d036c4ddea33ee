"""The attack matrix: what has to be refused is, what physics allows succeeds, and every verdict comes from the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mh_builder.asm import assemble_text
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import GIB
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import HELPER_VA, Options
from mh_compare.arena import Arena, Candidate
from mh_compare.attacks import ATTACKS, FAMILIES
from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Comparison
from mh_compare.run import Task
from mh_emulator.parts import PARTS

RESIDENT = set(SCHEMES) - {"isolated"}

SUCCEED_EVERYWHERE = {
    "host-moves-chosen-naples", "host-replays-guest", "host-replays-helper", "host-reads-registers",
    "host-sets-registers", "host-swaps-pages", "host-replaces-helper", "host-aliases-secret", "host-aliases-code",
    "host-clones-guest", "host-loads-elsewhere", "host-debugs-debuggable", "host-shares-shareable-key",
    "host-sends-sendable-guest", "host-second-mirror", "host-replays-es-helper",
}  # fmt: skip
"""What docs/security.md says that nobody defends in plain SEV."""

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
    "host-plays-target": "MH_BAD_TAG",
    "host-changes-policy": "KVM_SEV_LAUNCH_START: firmware BAD_MEASUREMENT (0x0b)",
    "host-debugs": "KVM_SEV_DBG_DECRYPT: firmware POLICY_FAILURE (0x07)",
    "host-shares-key": "KVM_SEV_LAUNCH_START: firmware POLICY_FAILURE (0x07)",
    "host-sends-guest": "KVM_SEV_SEND_START: firmware POLICY_FAILURE (0x07)",
    "host-reads-es-registers": "KVM_GET_REGS: EINVAL",
    "host-sets-es-registers": "KVM_SET_REGS: EINVAL",
    "host-second-es-mirror": "KVM_SEV_LAUNCH_UPDATE_VMSA: firmware INVALID_GUEST_STATE (0x02)",
    "host-launches-into-mirror": "KVM_SEV_LAUNCH_UPDATE_DATA: EINVAL",
    "host-launches-late": "KVM_SEV_LAUNCH_UPDATE_DATA: firmware INVALID_GUEST_STATE (0x02)",
    "host-mirrors-mirror": "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: EINVAL",
}


def results(comparison: Comparison, name: str) -> dict[str, AttackResult]:
    return {result.layout: result for result in comparison.attacks if result.attack == name}


def test_every_attack_under_every_layout(comparison: Comparison) -> None:
    done = [(result.attack, result.layout) for result in comparison.attacks]
    assert sorted(done) == sorted((attack, scheme) for attack in ATTACKS for scheme in SCHEMES)
    assert all(result.outcome in {verdict.value for verdict in Verdict} for result in comparison.attacks)
    assert all(result.seen and result.how and result.title for result in comparison.attacks)


def test_what_succeeds_has_a_reason(comparison: Comparison) -> None:
    for result in comparison.attacks:
        assert bool(result.why) == (result.outcome == "succeeds"), result


def test_what_succeeds(comparison: Comparison) -> None:
    """Exactly what docs/security.md admits; the guest's kernel only where the helper lies in its memory."""
    for scheme in SCHEMES:
        found = {
            result.attack for result in comparison.attacks if (result.layout, result.outcome) == (scheme, "succeeds")
        }
        of_guest = {attack.name for attack in FAMILIES["guest OS"]} if scheme in RESIDENT else set()
        assert found == SUCCEED_EVERYWHERE | of_guest, scheme


@pytest.mark.parametrize("attack", REFUSALS)
def test_refused_with_the_right_status(comparison: Comparison, attack: str) -> None:
    for result in results(comparison, attack).values():
        assert (result.outcome, result.seen) == ("refused", REFUSALS[attack])


def test_only_isolated_keeps_the_guest_out(comparison: Comparison) -> None:
    for attack in FAMILIES["guest OS"]:
        assert results(comparison, attack.name)["isolated"].seen.startswith("no memory slot at GPA 0x40000")


@pytest.mark.parametrize("attack", ["host-replays-guest", "host-replays-helper"])
def test_a_host_flushes_caches_that_are_not_coherent(attack: str) -> None:
    assert not PARTS["rome"].coherent
    assert Task(attack, "regions", "rome").run().outcome == "succeeds"  # type: ignore[union-attr]


def test_tuples_that_lie(comparison: Comparison) -> None:
    """`regions` asks the guest where its helper lies, and does not believe everything."""
    found = results(comparison, "guest-lies-in-tuples")
    assert found["regions"].seen.startswith("the host refuses the hand-over tuple 0: mirror GPA 0x1000 to 0x2000")
    assert {result.outcome for layout, result in found.items() if layout.startswith("alias")} == {"harmless garbage"}


def test_helper_is_named_by_no_alias(comparison: Comparison) -> None:
    for attack in ("host-exports-helper", "host-imports-over-helper"):
        for scheme, result in results(comparison, attack).items():
            assert result.outcome == "refused"
            statuses = {"MH_NOT_ALIGNED", "MH_OUT_OF_RANGE"} | ({"MH_PROTECTED"} if scheme in RESIDENT else set())
            assert set(result.seen.split(", ")) == statuses


@pytest.fixture(scope="module")
def image() -> Image:
    return build_helper("regions", Options(ram_limit=8 * GIB))


def weakened(image: Image, symbol: str, text: str) -> Arena:
    """An arena whose helper has a routine that does nothing but `text`."""
    code = assemble_text(f"{text}\n ret", "weak").sections[0].data
    start = image.symbol(symbol).value - HELPER_VA
    data = image.data[:start] + code + image.data[start + len(code) :]
    return Arena(Candidate("regions", replace(image, data=data), PARTS["milan"]))


@pytest.mark.parametrize(
    ("attack", "symbol", "text", "seen"),
    [
        ("host-reorders", "check_turn", "xor eax, eax", "the target takes the second packet first"),
        ("host-replays-epoch", "check_turn", "xor eax, eax", "the target goes back to the old page"),
        ("host-exports-twice", "claim", "xor eax, eax", "the helper seals the page a second time"),
        ("host-tampers", "open_packet", "xor eax, eax", "the target takes the changed page"),
        ("host-plays-target", "open_packet", "xor eax, eax", "the host's target opens the packet"),
        ("host-readdresses", "open_packet", "xor eax, eax", "the target writes the page elsewhere"),
        ("host-restarts-helper", "kdf256", "mov rdi, rdx", "two pages under one key and IV"),
    ],
)
def test_a_weaker_helper_gives_in(image: Image, attack: str, symbol: str, text: str, seen: str) -> None:
    outcome = ATTACKS[attack].outcome(weakened(image, symbol, text))
    assert outcome.seen.startswith(seen), outcome
