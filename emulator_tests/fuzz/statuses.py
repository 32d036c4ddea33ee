"""Which statuses a helper of plain SEV may answer an operation with, as payload/abi.h has them; all by number."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mh_abi import abi

Op = abi.mh_op
S = abi.mh_status


def _numbers(*statuses: abi.mh_status) -> frozenset[int]:
    return frozenset(status.value for status in statuses)


_EVERY = _numbers(S.MH_DONE, S.MH_WRONG_RING, S.MH_BAD_ENTRY)
_BEGIN = _numbers(S.MH_WRONG_STATE, S.MH_NO_FEATURE, S.MH_NO_ENTROPY, S.MH_NO_KEY)
_PEER = _numbers(
    *(S.MH_NOT_STRICT, S.MH_NOT_HELLO, S.MH_NO_PROTOCOL, S.MH_OTHER_ADDRESSES, S.MH_OTHER_GUEST, S.MH_OTHER_TERMS),
    *(S.MH_WEAKER_PEER, S.MH_BAD_HELLO, S.MH_BAD_NONCE, S.MH_BAD_SHARE),
)
_PLACE = _numbers(S.MH_NOT_ALIGNED, S.MH_OUT_OF_RANGE, S.MH_PROTECTED)
_MOVE = _PLACE | _numbers(S.MH_SHARED, S.MH_REPEATED, S.MH_NO_KEY, S.MH_ENDED)
_PACKET = _numbers(
    *(S.MH_BAD_PACKET, S.MH_WRONG_SESSION, S.MH_WRONG_STREAM, S.MH_WRONG_EPOCH, S.MH_REPLAYED, S.MH_OUT_OF_ORDER),
    S.MH_BAD_TAG,
)
_TOTALS = _PACKET | _numbers(S.MH_WRONG_STATE, S.MH_EPOCH_PENDING, S.MH_NO_KEY, S.MH_INCOMPLETE, S.MH_BAD_TOTALS)
_REFUSED = _numbers(S.MH_WRONG_RING, S.MH_BAD_ENTRY)
_NOT_NOW = _REFUSED | _numbers(S.MH_WRONG_STATE, S.MH_EPOCH_PENDING)

_PAGES: Mapping[int, frozenset[int]] = MappingProxyType({
    Op.MH_OP_EXPORT.value: _MOVE,
    Op.MH_OP_IMPORT.value: _MOVE | _PACKET | _numbers(S.MH_WRONG_ADDRESS, S.MH_SKIPPED, S.MH_NO_ENTROPY),
    Op.MH_OP_SHARE.value: _PLACE,
})  # fmt: skip

BATCHES: Mapping[int, frozenset[int]] = MappingProxyType({
    Op.MH_OP_EXPORT.value: _NOT_NOW | _numbers(S.MH_NOT_STRICT),
    Op.MH_OP_IMPORT.value: _NOT_NOW,
    Op.MH_OP_SHARE.value: _REFUSED,
})  # fmt: skip
"""Of each operation on pages, the statuses with which no page has been looked at."""

_OPERATIONS: Mapping[int, frozenset[int]] = MappingProxyType({
    Op.MH_OP_HELLO.value: _BEGIN,
    Op.MH_OP_START.value: _BEGIN | _PEER | _numbers(S.MH_BUSY),
    Op.MH_OP_EPOCH.value: _TOTALS,
    Op.MH_OP_FINISH.value: _TOTALS | _numbers(S.MH_CHANGED),
    Op.MH_OP_ABORT.value: frozenset(),
    Op.MH_OP_JOIN.value: _numbers(S.MH_WRONG_STATE, S.MH_NO_FEATURE),
    Op.MH_OP_RESUME.value: _numbers(S.MH_WRONG_STATE),
    **{op: _PAGES[op] | refused for op, refused in BATCHES.items()},
})  # fmt: skip


def of_operation(op: int) -> frozenset[int]:
    """What may be the answer to a submission."""
    return _EVERY | _OPERATIONS[op] if op in _OPERATIONS else _numbers(S.MH_BAD_OP)


def of_page(op: int) -> frozenset[int]:
    """What may become of a page of a batch."""
    return _PAGES[op] | _numbers(S.MH_DONE)
