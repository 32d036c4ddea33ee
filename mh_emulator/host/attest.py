"""Between a helper under SNP and the owner of its guest: reports one way, the sealed record the other.

The host is only a messenger here. What it changes the owner does not believe, or the helper does not open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mh_abi import abi
from mh_emulator.attest.owner import Shown, SnpOwner
from mh_emulator.host.ring import Request, Ring

_SOURCE, _TARGET = abi.mh_role.MH_ROLE_SOURCE, abi.mh_role.MH_ROLE_TARGET


@dataclass(frozen=True, slots=True)
class Messenger:
    """The host of one helper, whose ring 0 it has."""

    ring: Ring
    chain: Sequence[bytes]
    """Of the chip: VCEK, ASK and ARK in DER."""
    part: str
    """The product's name in lower case."""

    def show(self, role: abi.mh_role, challenge: bytes) -> Shown:
        """Have the helper make its share, and a report of it. Raises `HelperRefused`."""
        self.ring.put_packet(0, challenge)
        self.ring.ask("attest", Request(abi.mh_op.MH_OP_ATTEST, role=role))
        shown = abi.mh_shown(self.ring.take_data(0, len(abi.mh_shown)))
        return Shown(bytes(shown.report), self.chain, bytes(shown.share), self.part)

    def give(self, sealed: bytes) -> None:
        """Have the helper open its record. Raises `HelperRefused`."""
        self.ring.put_packet(0, sealed)
        self.ring.ask("record", Request(abi.mh_op.MH_OP_RECORD))


def fetch_records(owner: SnpOwner, source: Messenger, target: Messenger) -> None:
    """Have the owner give its record to both helpers, or to none. Raises `NotBelieved`, `HelperRefused`."""
    shown = [side.show(role, owner.challenge(role)) for role, side in ((_SOURCE, source), (_TARGET, target))]
    for side, sealed in zip((source, target), owner.give(*shown), strict=True):
        side.give(sealed)
