"""What the host asks of a helper during a migration, one call an operation."""

from __future__ import annotations

from collections.abc import Iterable

from mh_emulator.host.ring import Completion, Request, Ring, Sealed
from payload import abi

Op = abi.mh_op
Role = abi.mh_role


def greet(ring: Ring) -> bytes:
    """Ask for the helper's nonce."""
    return ring.ask("hello", Request(Op.MH_OP_HELLO)).nonce


def begin(ring: Ring, role: int, peer_nonce: bytes) -> None:
    """Start a session in that role."""
    ring.ask("start", Request(Op.MH_OP_START, role=role, nonce=peer_nonce))


def connect(source: Ring, target: Ring) -> None:
    """Exchange nonces and start both sides. Raises `HelperRefused`."""
    source_nonce, target_nonce = greet(source), greet(target)
    begin(source, Role.MH_ROLE_SOURCE, target_nonce)
    begin(target, Role.MH_ROLE_TARGET, source_nonce)


def export_pages(ring: Ring, addresses: Iterable[int]) -> list[Completion]:
    """Seal the pages at these request addresses."""
    return ring.serve(Request(Op.MH_OP_EXPORT, address=address) for address in addresses)


def import_pages(ring: Ring, pages: Iterable[tuple[int, Sealed]]) -> list[Completion]:
    """Open these packets, each into the page at its request address."""
    return ring.serve(Request(Op.MH_OP_IMPORT, address=address, sealed=sealed) for address, sealed in pages)


def finish(source: Ring, target: Ring) -> int:
    """End both sides; return the authenticated number of pages. Raises `HelperRefused`."""
    end = source.ask("finish", Request(Op.MH_OP_FINISH))
    return target.ask("finish", Request(Op.MH_OP_FINISH, sealed=end.sealed)).pages


def abort(ring: Ring) -> None:
    """Make the helper forget its session."""
    ring.ask("abort", Request(Op.MH_OP_ABORT))
