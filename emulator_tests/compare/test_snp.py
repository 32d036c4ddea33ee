"""The attacks on an SNP guest, whose helper is in the guest itself: how each ends, and that it could end otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from emulator_tests.compare.weakened import with_routines
from mh_builder.schemes.space import Start
from mh_cli.snp_flips import ENDED, OPEN, REMAIN, SETTLED, STOPPED_SOONER, Flip
from mh_compare.across import all_of
from mh_compare.attacks import ATTACKS
from mh_compare.attacks.attack import carried_out
from mh_compare.candidate import candidate
from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult, Comparison
from mh_compare.run import DEFAULT_PART, Task
from mh_compare.snp_arena import SnpArena
from mh_compare.snp_attacks import AS_ELSEWHERE, OF_ITS_OWN, UNDER_SNP

SUCCEED = {
    "guest-posts-request", "host-compares-ciphertext", "host-debugs-debuggable", "host-sends-sendable-guest",
}  # fmt: skip
"""What SNP does not end: a shared ring, ciphertext on a part that does not hide it, and what a policy allows."""

NO_WRITE, NO_READ, NO_FETCH = "the RMP: #NPF 0x580000003", "the RMP: #NPF 0x580000001", "the RMP: #NPF 0x580000011"
HOST_WRITES = "the RMP: #PF 0x80000003 in the host"

SEEN = {
    "guest-overwrites-helper": ("refused", "the RMP: #NPF 0x1580000003"),
    "guest-reads-key": ("refused", "the RMP: #NPF 0x1580000001"),
    "guest-reads-session": ("refused", "the RMP: #NPF 0x1580000001"),
    "guest-calls-helper": ("refused", "the RMP: #NPF 0x1580000011"),
    "guest-takes-rights": ("refused", "RMPADJUST: FAIL_PERMISSION"),
    "tenant-uses-key": ("refused", "the RMP: #NPF 0x1580000001"),
    "host-flips-guest": ("refused", HOST_WRITES),
    "host-replays-guest": ("refused", HOST_WRITES),
    "host-replays-helper": ("refused", HOST_WRITES),
    "host-copies-ciphertext": ("refused", HOST_WRITES),
    "host-wipes-key": ("refused", HOST_WRITES),
    "host-compares-ciphertext-turin": ("refused", "the host reads 0xff, whatever is there"),
    "host-chooses-plaintext": ("refused", NO_FETCH),
    "host-swaps-pages": ("refused", NO_READ),
    "host-replaces-helper": ("refused", NO_FETCH),
    "host-aliases-secret": ("refused", NO_READ),
    "host-aliases-code": ("refused", NO_WRITE),
    "host-reads-registers": ("refused", "KVM_GET_REGS: EINVAL"),
    "host-sets-registers": ("refused", "KVM_SET_REGS: EINVAL"),
    "host-mixes-schemes": ("refused", "MH_OTHER_ADDRESSES"),
    "host-downgrades-peer": ("refused", "MH_WEAKER_PEER"),
    "host-clones-guest": (
        "refused", "the source: MH_WRONG_STATE, and VMRUN does not take the guest's vCPU; at the target it runs"
    ),
    "host-moves-again": ("refused", "MH_WRONG_STATE"),
    "host-rolls-back-post-copy": ("refused", "MH_WRONG_STATE"),
    "host-never-resumes": ("refused", "VMRUN: VMEXIT_INVALID, for only the helper makes a page a VMSA"),
    "host-relaunches-rdrand": ("detected", "the owner gives no key: given"),
    "host-changes-helper": ("detected", "the owner gives no key: digest"),
    "host-changes-policy": ("detected", "the owner gives no key: policy"),
    "host-loads-elsewhere": ("detected", "the owner gives no key: digest"),
    "host-repeats-secret": (
        "refused", "KVM_SEV_LAUNCH_SECRET: EPERM; the record is sealed for the helper's share"
    ),
    "host-shares-shareable-key": ("refused", "SNP_ACTIVATE: ASID_OWNED 0x0c"),
    "host-launches-into-mirror": ("refused", "KVM_SEV_SNP_LAUNCH_UPDATE: EINVAL"),
    "host-launches-late": ("refused", "KVM_SEV_SNP_LAUNCH_UPDATE: firmware INVALID_GUEST_STATE (0x02)"),
    "host-second-mirror": ("refused", "VMRUN: VMEXIT_INVALID, for KVM gives a mirror no VMSA of the guest's"),
    "host-validates-twice": ("detected", "PVALIDATE: CF 0x00"),
    "host-validates-remapped": ("detected", "the helper wipes its keys and stops: vector 29, error code 0x404"),
    "host-uses-stale-context": ("refused", "SNP_GUEST_STATUS: INVALID_GUEST 0x10"),
    "host-replays-swap": ("refused", "SNP_SWAP_IN: INVALID_MDATA_ENTRY 0x1b"),
    "host-downgrades-firmware": ("refused", "SNP_DOWNLOAD_FIRMWARE_EX: BAD_SVN 0x21"),
    "host-forges-report": ("refused", "owner: refuses: signature 0x01"),
    "host-moves-chosen-naples": ("not applicable", "naples has no SEV-SNP, milan, genoa, turin have"),
    "guest-lies-in-tuples": (
        "not applicable", "nobody asks the guest where its helper lies: the owner has launched it there"
    ),
}  # fmt: skip
"""What ends otherwise than on a guest with a mirror, or is about what only SNP has."""


def found(comparison: Comparison) -> dict[str, AttackResult]:
    return {result.attack: result for result in comparison.snp}


def test_each_is_carried_out_in_one_way() -> None:
    assert set(UNDER_SNP) == set(ATTACKS)
    assert not set(AS_ELSEWHERE) & set(OF_ITS_OWN)


def test_what_succeeds(comparison: Comparison) -> None:
    assert {name for name, result in found(comparison).items() if result.outcome == "succeeds"} == SUCCEED


@pytest.mark.parametrize("attack", SEEN)
def test_how_it_ends(comparison: Comparison, attack: str) -> None:
    result = found(comparison)[attack]
    assert (result.outcome, result.seen) == SEEN[attack]


def test_what_needs_no_mirror_ends_as_elsewhere(comparison: Comparison) -> None:
    """Requests, peers, the stream."""
    others = {
        result.attack: result for result in comparison.attacks if (result.layout, result.start) == ("regions", "es")
    }
    for row in all_of(comparison.attacks):
        if row.attack in AS_ELSEWHERE and ATTACKS[row.attack].is_gentle and row.attack not in SEEN:
            assert row.snp.outcome == others[row.attack].outcome, row.attack


def test_flips_are_read_from_results(comparison: Comparison) -> None:
    rows = {row.attack: row for row in all_of(comparison.attacks)}
    assert rows["host-swaps-pages"].is_ended
    assert rows["host-flips-guest"].is_stopped_sooner
    assert rows["guest-posts-request"].remains
    assert not rows["host-moves-chosen-naples"].is_ended
    assert rows["guest-reads-key"].said == {
        "host": "succeeds; isolated: refused", "es": "succeeds; isolated: refused", "snp": "refused"
    }  # fmt: skip
    changed = replace(comparison, attacks=tuple(replace(one, outcome="succeeds") for one in comparison.attacks))
    assert not any(row.is_ended for row in all_of(changed.attacks))


def test_the_page_has_what_flips(comparison: Comparison) -> None:
    """docs/snp.md, which is made without a run."""
    rows = all_of(comparison.attacks)
    for flips, chosen in (
        (ENDED, [row for row in rows if row.is_ended]),
        (STOPPED_SOONER, [row for row in rows if row.is_stopped_sooner]),
        (REMAIN, [row for row in rows if row.remains]),
    ):
        assert list(flips) == [Flip(row.attack, *row.said.values()) for row in chosen]


def test_questions_are_answered_by_what_flips() -> None:
    ended, remain = ({flip.attack for flip in flips} for flips in (ENDED, REMAIN))
    assert all(ended.issuperset(question.attacks) for question in SETTLED)
    assert {attack for question in OPEN for attack in question.attacks} == remain


@pytest.mark.parametrize(
    ("attack", "outcome"), [("host-compares-ciphertext", "refused"), ("host-guesses-page", "garbage")]
)
def test_a_part_that_hides_ciphertext(attack: str, outcome: str) -> None:
    result = Task(attack, "vmpl", "turin", Start.SNP).run()
    assert isinstance(result, AttackResult)
    assert result.outcome == outcome


ACCEPT = "xor eax, eax"


@pytest.mark.parametrize(
    ("attack", "routines", "seen"),
    [
        (
            "host-clones-guest",
            {"may_go": ACCEPT, "may_start": ACCEPT, "starts": ACCEPT},
            "one guest runs in two places",
        ),
        ("host-reorders", {"check_turn": ACCEPT, "open_packet": ACCEPT}, "the target takes the second packet first"),
        ("host-validates-remapped", {"set_bits": "nop"}, "the helper validates the page in its place"),
        ("host-exports-twice", {"claim": ACCEPT}, "the helper seals the page a second time"),
    ],
)
def test_a_weaker_helper_gives_in(attack: str, routines: Mapping[str, str], seen: str) -> None:
    plain = candidate("vmpl", DEFAULT_PART, Start.SNP)
    arena = SnpArena(replace(plain, image=with_routines(plain.image, routines)))
    outcome = carried_out(UNDER_SNP[attack], arena)
    assert (outcome.verdict, outcome.seen) == (Verdict.SUCCEEDS, seen), outcome
