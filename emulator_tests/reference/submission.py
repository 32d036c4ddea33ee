"""A submission: what its operation takes of it, and who may ask."""

from __future__ import annotations

from enum import Flag, auto

from mh_abi import abi

Op = abi.mh_op
Role = abi.mh_role
Status = abi.mh_status


class Uses(Flag):
    """What an operation uses of a submission, and which lanes serve it."""

    NOTHING = 0
    ROLE = auto()
    SLOT = auto()
    COUNT = auto()
    PAGES = auto()
    """Address, chunk and flags; with slot and count they describe a batch."""
    FIRST_RING = auto()
    OTHER_RINGS = auto()
    URGENT = auto()


_BATCH = Uses.SLOT | Uses.COUNT | Uses.PAGES

OPERATIONS: dict[abi.mh_op, Uses] = {
    Op.MH_OP_HELLO: Uses.SLOT | Uses.FIRST_RING,
    Op.MH_OP_START: Uses.ROLE | Uses.SLOT | Uses.COUNT | Uses.FIRST_RING,
    Op.MH_OP_EXPORT: _BATCH | Uses.URGENT,
    Op.MH_OP_IMPORT: _BATCH | Uses.URGENT,
    Op.MH_OP_EPOCH: Uses.SLOT,
    Op.MH_OP_FINISH: Uses.SLOT,
    Op.MH_OP_ABORT: Uses.NOTHING,
    Op.MH_OP_JOIN: Uses.OTHER_RINGS,
    Op.MH_OP_SHARE: _BATCH,
    Op.MH_OP_RESUME: Uses.NOTHING,
}
"""Those of a helper that has a LAUNCH_SECRET."""

_FLAGS = {
    Op.MH_OP_EXPORT: abi.MH_BATCH_LIST | abi.MH_BATCH_VMSA,
    Op.MH_OP_IMPORT: abi.MH_BATCH_LIST | abi.MH_BATCH_VMSA,
    Op.MH_OP_SHARE: abi.MH_BATCH_LIST | abi.MH_BATCH_PRIVATE,
}


def refusal(entry: abi.mh_submission, stream: int, slots: int, rings: int) -> abi.mh_status:
    """What is wrong with `entry` itself, on the lane of `stream` with `slots`, in a helper of `rings` rings."""
    uses = OPERATIONS.get(Op(entry.op))
    if uses is None:
        return Status.MH_BAD_OP
    if not _serves(uses, stream):
        return Status.MH_WRONG_RING
    if not (_is_bounded(entry, uses, slots) and _is_zero_elsewhere(entry, uses)):
        return Status.MH_BAD_ENTRY
    if Uses.PAGES in uses and not _is_batch(entry, slots):
        return Status.MH_BAD_ENTRY
    if entry.op == Op.MH_OP_START and not 1 <= entry.count <= rings:
        return Status.MH_BAD_ENTRY
    return Status.MH_DONE


def _serves(uses: Uses, stream: int) -> bool:
    if stream & abi.MH_STREAM_URGENT:
        return Uses.URGENT in uses
    return (Uses.FIRST_RING if stream else Uses.OTHER_RINGS) not in uses


def _is_bounded(entry: abi.mh_submission, uses: Uses, slots: int) -> bool:
    role = Uses.ROLE not in uses or entry.role in (Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET)
    return role and (Uses.SLOT not in uses or entry.slot < slots)


def _is_zero_elsewhere(entry: abi.mh_submission, uses: Uses) -> bool:
    unused = [entry.reserved0, *entry.reserved1]
    unused += [] if Uses.ROLE in uses else [entry.role]
    unused += [] if Uses.SLOT in uses else [entry.slot]
    unused += [] if Uses.COUNT in uses else [entry.count]
    unused += [] if Uses.PAGES in uses else [entry.address, entry.chunk, entry.flags]
    return not any(unused)


def _is_batch(entry: abi.mh_submission, slots: int) -> bool:
    if entry.slot + entry.count > slots or not 1 <= entry.chunk <= entry.count:
        return False
    if entry.flags & ~_FLAGS[Op(entry.op)]:
        return False
    return not entry.flags & abi.MH_BATCH_LIST or (entry.chunk == 1 and entry.address == 0)
