"""Attacks of `compare` that end in another way under SNP, and what that says about the questions of 2021.

The page is made without carrying them out again: a test holds these lists against a run.
"""

from __future__ import annotations

from typing import NamedTuple


class Flip(NamedTuple):
    """One attack: its name, and how it ends in plain SEV, under SEV-ES and under SNP."""

    attack: str
    sev: str
    es: str
    snp: str


_IN_GUEST = "succeeds; isolated: refused"

ENDED = (
    Flip("guest-overwrites-helper", _IN_GUEST, _IN_GUEST, "refused"),
    Flip("guest-reads-key", _IN_GUEST, _IN_GUEST, "refused"),
    Flip("guest-reads-session", _IN_GUEST, _IN_GUEST, "refused"),
    Flip("guest-calls-helper", _IN_GUEST, _IN_GUEST, "refused"),
    Flip("host-replays-guest", "succeeds", "succeeds", "refused"),
    Flip("host-replays-helper", "succeeds", "succeeds", "refused"),
    Flip("host-compares-ciphertext-turin", "succeeds", "succeeds", "refused"),
    Flip("host-reads-registers", "succeeds", "refused", "refused"),
    Flip("host-sets-registers", "succeeds", "refused", "refused"),
    Flip("host-swaps-pages", "succeeds", "succeeds", "refused"),
    Flip("host-replaces-helper", "succeeds", "succeeds", "refused"),
    Flip("host-aliases-secret", "succeeds", "succeeds", "refused"),
    Flip("host-aliases-code", "succeeds", "succeeds", "refused"),
    Flip("tenant-uses-key", _IN_GUEST, _IN_GUEST, "refused"),
    Flip("host-clones-guest", "succeeds", "succeeds", "refused"),
    Flip("host-moves-again", "succeeds", "succeeds", "refused"),
    Flip("host-never-resumes", "succeeds", "succeeds", "refused"),
    Flip("host-relaunches-rdrand", "succeeds", "succeeds", "detected"),
    Flip("host-loads-elsewhere", "succeeds", "succeeds", "detected"),
    Flip("host-repeats-secret", "succeeds", "succeeds", "refused"),
    Flip("host-shares-shareable-key", "succeeds", "succeeds", "refused"),
    Flip("host-second-mirror", "succeeds", "refused", "refused"),
)
"""They succeed somewhere, and under SNP no more."""

STOPPED_SOONER = tuple(
    Flip(attack, "garbage", "garbage", "refused")
    for attack in (
        "host-flips-guest", "host-flips-code", "host-flips-tables", "host-moves-guest", "host-moves-helper",
        "host-moves-chosen", "host-copies-ciphertext", "host-chooses-plaintext",
    )
)  # fmt: skip
"""They made noise of a page, and under SNP do not touch it."""

REMAIN = (
    Flip("guest-posts-request", _IN_GUEST, _IN_GUEST, "succeeds"),
    Flip("host-compares-ciphertext", "succeeds", "succeeds", "succeeds"),
    Flip("host-debugs-debuggable", "succeeds", "succeeds", "succeeds"),
    Flip("host-sends-sendable-guest", "succeeds", "succeeds", "succeeds"),
)
"""They succeed under SNP too."""


class Question(NamedTuple):
    """What somebody asked in the thread on mirror VMs, or what it left open, and the attacks that answer it."""

    text: str
    answer: str
    attacks: tuple[str, ...]


SETTLED = (
    Question(
        "What keeps the guest's kernel out of a helper that is in the guest's memory?",
        "rights of VMPL1, which the helper gives for each page, and for none of its own",
        ("guest-overwrites-helper", "guest-reads-key", "guest-reads-session", "guest-calls-helper"),
    ),
    Question(
        "What if the slots of the mirror, or the guest's tuples, show something else than they say?",
        "the RMP has one GPA for a page, and the CPU asks it for every access",
        ("host-swaps-pages", "host-replaces-helper", "host-aliases-secret", "host-aliases-code"),
    ),
    Question(
        "Who attests where the helper lies, and that there is one of it?",
        "the launch digest has the GPA of every page, and a mirror has no VMSA to run",
        ("host-loads-elsewhere", "host-second-mirror"),
    ),
    Question(
        "Who keeps the source silent, and the target until all is there?",
        "the helper: a vCPU runs by a VMSA, and nobody else makes one",
        ("host-clones-guest", "host-moves-again", "host-never-resumes"),
    ),
)

OPEN = (
    Question(
        "May the guest use the helper's time?",
        "yes: the ring is shared, so the guest's kernel writes there what the host may",
        ("guest-posts-request",),
    ),
    Question(
        "Does ciphertext tell a host what has changed?",
        "yes, except on parts that hide it",
        ("host-compares-ciphertext",),
    ),
    Question(
        "Does the owner have to look at the policy?",
        "yes: DEBUG and MIGRATE_MA give the guest away, and only the report shows them",
        ("host-debugs-debuggable", "host-sends-sendable-guest"),
    ),
)
