"""Attacks of `compare` that end in another way under SNP: which case of `snp` shows it."""

from __future__ import annotations

from typing import NamedTuple


class Flip(NamedTuple):
    """One attack: its row in docs/compare.md, how it ends there on a guest of plain SEV, and the case under SNP."""

    title: str
    sev: str
    case: str


FLIPS = (
    Flip("Guest OS overwrites the helper's code", "succeeds", "vcpu-vmpl1-writes-helper"),
    Flip("Guest OS reads the transport key", "succeeds", "vcpu-vmpl1-reads-helper"),
    Flip("Host moves a guest page to another address", "garbage", "vcpu-exchange-pages"),
    Flip("Host flips a bit of the helper's code", "garbage", "vcpu-old-ciphertext"),
    Flip("Host puts an old copy of a guest page back", "succeeds", "vcpu-old-ciphertext"),
    Flip("Host puts the helper's variables back", "succeeds", "vcpu-old-page"),
    Flip("Host starts the helper at an instruction of its choice", "succeeds", "vcpu-vmsa-by-host"),
    Flip("Host's slots exchange two guest pages", "succeeds", "vcpu-exchange-pages"),
    Flip("Host's slots or tuples show a guest page as helper code", "succeeds", "vcpu-exchange-code"),
    Flip("Host lets a second mirror race the first", "succeeds", "vcpu-mirror"),
    Flip("Host loads the helper at another place in RAM", "succeeds", "launch-elsewhere"),
)
"""With their outcome on a helper in the guest's own memory, `alias-gpa`."""

STAYS = (Flip("Host lets the guest run on at the source", "succeeds", "two-copies"),)
"""Attacks that SNP does not end: the helper has to be silent when the guest has left."""
