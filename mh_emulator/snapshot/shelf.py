"""Where the snapshot of one guest lies, or is to lie, and what that guest is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mh_abi import abi
from mh_emulator.secret import Secret
from mh_emulator.snapshot import file
from mh_emulator.snapshot.codec import decode, encode
from mh_emulator.snapshot.errors import SnapshotError

_MADE_OF, _OWNER, _STATE = "made of", "owner", "state"


class _Owned(NamedTuple):
    """What the guest's owner gave its helper."""

    key: bytes
    guest: bytes


@dataclass(frozen=True)
class Saved:
    """A snapshot that is whole; what is in it is still to be checked."""

    contents: file.Contents

    @classmethod
    def read(cls, data: bytes) -> Saved:
        """That of a file. Raises `SnapshotError`."""
        contents = file.read(data)
        expected = {_MADE_OF, _OWNER, _STATE}
        if contents.head.keys() != expected:
            raise SnapshotError(
                f"it says {', '.join(sorted(contents.head)) or 'nothing'}, not {', '.join(sorted(expected))}"
            )
        return cls(contents)

    def secret(self, protection: int) -> Secret:
        """The owner's, who demands that much of a peer. Raises `SnapshotError`."""
        owned = decode(_Owned, self.contents.head[_OWNER], _OWNER)
        if (len(owned.key), len(owned.guest)) != (abi.MH_KEY_BYTES, abi.MH_GUEST_BYTES):
            raise SnapshotError(f"{_OWNER}: a key of {len(owned.key)} bytes, and an identity of {len(owned.guest)}")
        return Secret(owned.key, owned.guest, protection)

    def state(self, made_of: Mapping[str, str]) -> object:
        """The state of a guest that is made of these. Raises `SnapshotError` for one that is not."""
        said = self.contents.head[_MADE_OF]
        if not isinstance(said, dict):
            raise SnapshotError(f"{_MADE_OF}: no object of JSON")
        for name in dict.fromkeys((*made_of, *said)):
            found, expected = said.get(name), made_of.get(name)
            if found != expected:
                raise SnapshotError(f"{name}: {_shown(found)} in the snapshot, {_shown(expected)} here")
        return self.contents.head[_STATE]


@dataclass(frozen=True)
class Shelf:
    """The place: what is there, else how to put something there."""

    saved: Saved | None
    store: Callable[[bytes], None]

    def secret(self, protection: int) -> Secret:
        """The owner's for this guest, that of the snapshot or a new one. Raises `SnapshotError`."""
        return Secret.fresh(protection) if self.saved is None else self.saved.secret(protection)

    def save(self, made_of: Mapping[str, str], secret: Secret, state: object, body: Iterable[bytes]) -> None:
        """Put a snapshot there. Raises what `store` raises."""
        head = {_MADE_OF: dict(made_of), _OWNER: encode(_Owned(secret.key, secret.guest)), _STATE: encode(state)}
        self.store(file.write(head, body))


def fingerprint(data: bytes) -> str:
    """What a snapshot says of something that its guest is made of."""
    return f"SHA-256 {hashlib.sha256(data).hexdigest()}"


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)[:200]
