"""SHA-256 over what is launched.

Most of the time of a launch would go into it, and most launches in one process begin with the same helper: so the state
behind what came first is kept, and taken again where the same bytes, compared one by one, come first.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

_WORTH = range(1 << 20, 8 << 20)
"""Bytes: less are hashed in no time, more would take much memory."""
_HEAD_BYTES = 1 << 12
_REMEMBERED = 16
"""Beginnings; each is as large as what was launched."""


class _Begun(NamedTuple):
    data: bytes
    state: hashlib._Hash


_begun: dict[bytes, _Begun] = {}
"""By the first bytes, those that were needed last at the end."""


class LaunchDigest:
    """The digest of one launch."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()
        self._is_empty = True

    def update(self, data: bytes) -> None:
        """Measure what is launched next."""
        if self._is_empty and len(data) in _WORTH:
            self._state = _state_behind(data)
        else:
            self._state.update(data)
        self._is_empty = False

    def digest(self) -> bytes:
        """SHA-256 of all so far."""
        return self._state.digest()


def _state_behind(data: bytes) -> hashlib._Hash:
    head = data[:_HEAD_BYTES]
    found = _begun.pop(head, None)
    if found is None or found.data != data:
        found = _Begun(data, hashlib.sha256(data))
    while len(_begun) >= _REMEMBERED:
        del _begun[next(iter(_begun))]
    _begun[head] = found
    return found.state.copy()
