"""What a guest's owner gives its helpers: the transport record, in OVMF's table of GUIDed entries.

Source: payload/abi.h (struct mh_secret); edk2, OvmfPkg/AmdSev/SecretDxe (the table).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from uuid import UUID

from mh_abi import abi


@dataclass(frozen=True, slots=True)
class Secret:
    """One record: for all helpers of one guest, and of no other."""

    key: bytes
    """The transport key, 32 bytes."""
    guest: bytes
    """The guest's identity, 16 bytes; no secret."""
    protection: int = abi.mh_protection.MH_PROTECTION_SEV.value
    """The least that the peer must have."""
    flags: int = 0
    """MH_OWNER_..."""
    version: int = abi.MH_SECRET_VERSION

    @classmethod
    def fresh(
        cls,
        protection: int = abi.mh_protection.MH_PROTECTION_SEV.value,
        flags: int = 0,
        guest: bytes | None = None,
    ) -> Secret:
        """A key that no guest has had; without `guest` an identity that none has had either."""
        key = secrets.token_bytes(abi.MH_KEY_BYTES)
        return cls(key, secrets.token_bytes(abi.MH_GUEST_BYTES) if guest is None else guest, protection, flags)

    def record(self) -> bytes:
        """The `mh_secret`."""
        record = abi.mh_secret(
            version=self.version,
            protection=self.protection,
            flags=self.flags,
            guest=list(self.guest),
            key=list(self.key),
        )
        return bytes(record.dumps())

    def table(self) -> bytes:
        """What LAUNCH_SECRET puts into the helper's page: a table with this one entry."""
        return guided(abi.MH_SECRET_TABLE_GUID, guided(abi.MH_SECRET_RECORD_GUID, self.record()))


def guided(guid: str, data: bytes) -> bytes:
    """An entry of such a table, or the table itself."""
    size: int = abi.MH_SECRET_ENTRY_BYTES + len(data)
    return UUID(guid).bytes_le + size.to_bytes(4, "little") + data
