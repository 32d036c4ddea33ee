"""Two launched guests on platforms of their own, whose helpers have a session: what a test of a payload begins with."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.mirror import Enter, enter
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.session import Batch, connect
from mh_emulator.host.site import Site, prepare
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

if TYPE_CHECKING:
    from mh_abi.image import HelperImage
    from mh_builder.parts import Part
    from mh_emulator.host.ring import Ring, Sealed

PAGES = 6
"""Pages of the guest, half below the PCI hole and half above 4 GiB."""

_DRAM_BYTES = 4 * PAGE_BYTES
"""For each byte of the helper and each page of the guest, so that frames lie scattered."""


@dataclass(frozen=True)
class Side:
    """One guest with its helper. A page is named by its `ram_addr`, in bytes."""

    machine: Machine
    ring: Ring
    """Ring 0 of the helper: what is not a method here is asked for there."""

    def export(self, page: int) -> tuple[abi.mh_status, Sealed]:
        """Have the page sealed: the status, and what then lies in the ring, which is a packet only with MH_DONE."""
        status = self._serve(abi.mh_op.MH_OP_EXPORT, page)
        return status, self.ring.take_sealed(0)

    def take(self, page: int, sealed: Sealed) -> abi.mh_status:
        """Import a packet into the page; the status."""
        self.ring.put_sealed(0, sealed)
        return self._serve(abi.mh_op.MH_OP_IMPORT, page)

    def guest_sees(self, page: int) -> bytes:
        """The page as the guest reads it, under its key."""
        return self.machine.read_guest(page)

    def host_sees(self, page: int) -> bytes:
        """The page as the host reads it, without a key."""
        return self.machine.memory.read_raw(page, PAGE_BYTES)

    def _serve(self, op: int, page: int) -> abi.mh_status:
        batch = Batch(address=self.machine.request_address(page), count=1)
        return batch.submit(self.ring, op).status


@dataclass(frozen=True)
class Pair:
    """Source and target in a session. `pages` are those of the guest, each with contents of its own at the source."""

    source: Side
    target: Side
    pages: tuple[int, ...]


def connected_pair(helper: HelperImage, part: Part, pages: int = PAGES, enter: Enter = enter) -> Pair:
    """Launch both sides with this helper on platforms of this part, and start a session.

    The guest has that many pages; `enter` lets a vCPU of a helper run. The image is one that a host starts, not one for
    SEV-ES. Raises `PlacementError`, `OwnerRefuses`, `HelperStopped`; `HelperRefused` where the helpers do not agree.
    """
    secret = Secret.fresh(abi.mh_protection.MH_PROTECTION_SEV, 0)
    contents = random.Random("contents").randbytes(pages * PAGE_BYTES)  # noqa: S311 - the same in each run
    frames = _DRAM_BYTES * (pages + helper.memory_bytes // PAGE_BYTES)
    sites = [
        replace(prepare(Platform(part, frames, seed), place(len(contents), helper), helper), enter=enter)
        for seed in (1, 2)
    ]
    source, target = (_launched(site, secret, data) for site, data in zip(sites, (contents, b""), strict=True))
    moved = tuple(source.machine.guest_pages())
    for page in moved:
        # The host gives the target's guest its pages: all zero, as anonymous memory is.
        target.machine.memory.spa(page)
    connect(source.ring, target.ring)
    return Pair(source, target, moved)


def _launched(site: Site, secret: Secret, contents: bytes) -> Side:
    helper = site.helper.image
    owner = GuestOwner(POLICY, helper=helper.digest(site.platform.part.c_bit))
    machine = launch(site, owner, _placed(site.placement, contents), secret)
    return Side(machine, machine.start_helper())


def _placed(placement: Placement, contents: bytes) -> list[tuple[int, bytes]]:
    """(GPA, bytes) of each piece; none for a guest that is to arrive."""
    pieces = [(at.gpa, contents[at.offset : at.offset + at.size]) for at in placement.contents]
    return [(gpa, data) for gpa, data in pieces if data]
