"""Which statuses a helper may answer an operation with, as payload/abi.h has them; all by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Statuses:
    """Of one build."""

    operations: Mapping[int, frozenset[int]]
    """What an operation may be answered with beside what any may."""
    pages: Mapping[int, frozenset[int]]
    """What may be wrong with a page."""

    def of_operation(self, op: int) -> frozenset[int]:
        """What may be the answer to a submission."""
        return _EVERY | self.operations[op] if op in self.operations else _numbers(S.MH_BAD_OP)

    def of_page(self, op: int) -> frozenset[int]:
        """What may become of a page of a batch."""
        return self.pages[op] | _numbers(S.MH_DONE)


MIRROR = Statuses(_OPERATIONS, _PAGES)
"""Of a helper in a mirror."""

_NOT_FRESH = _numbers(S.MH_NOT_FRESH)
SNP = Statuses(
    MappingProxyType({
        **_OPERATIONS,
        Op.MH_OP_IMPORT.value: _OPERATIONS[Op.MH_OP_IMPORT.value] | _NOT_FRESH,
        Op.MH_OP_FINISH.value: _OPERATIONS[Op.MH_OP_FINISH.value] | _numbers(S.MH_RUNNING),
        Op.MH_OP_ATTEST.value: _numbers(S.MH_WRONG_STATE, S.MH_NO_ENTROPY, S.MH_NO_KEY, S.MH_NO_REPORT),
        Op.MH_OP_RECORD.value: _numbers(S.MH_WRONG_STATE, S.MH_BAD_RECORD),
        Op.MH_OP_RUN.value: _numbers(S.MH_WRONG_STATE, S.MH_BAD_VMSA),
        Op.MH_OP_CONTEXT.value: _TOTALS | _numbers(S.MH_NO_ENTROPY, S.MH_RUNNING, S.MH_NO_CONTEXT),
    }),
    MappingProxyType({**_PAGES, Op.MH_OP_IMPORT.value: _PAGES[Op.MH_OP_IMPORT.value] | _NOT_FRESH}),
)  # fmt: skip
"""Of one in an SNP guest."""
