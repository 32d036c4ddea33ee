"""An attestation report, as somebody reads it who was not there.

Source: offsets from Linux, Documentation/virt/coco/sev-guest.rst, and virtee/sev, src/firmware/guest/types/snp.rs.
Versions 2 and later have these fields alike.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

REPORT_BYTES, SIGNED_BYTES = 0x4A0, 0x2A0
_VERSIONS = range(2, 6)
_SIGNING_KEY_SHIFT, _SIGNING_KEY_MASK = 2, 7
SIGNED_BY_VCEK = 0


class FormError(ValueError):
    """What was shown is no report."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an owner looks at."""

    policy: int
    vmpl: int
    signing_key: int
    """0: VCEK, 1: VLEK, 7: none."""
    data: bytes
    """REPORT_DATA, the guest's own 64 bytes."""
    measurement: bytes
    """LD."""
    report_id_ma: bytes
    """All ones without a migration agent."""
    reported_tcb: int
    committed_tcb: int
    chip_id: bytes
    """All zeros where the host masks it."""

    @classmethod
    def parse(cls, data: bytes) -> Report:
        """Read it, unbelieved. Raises `FormError`."""
        if len(data) != REPORT_BYTES:
            raise FormError(f"report: expected {REPORT_BYTES:#x} bytes, found {len(data):#x}")
        version = _number(data, 0x00, "<I")
        if version not in _VERSIONS:
            raise FormError(f"report: expected version {_VERSIONS[0]} to {_VERSIONS[-1]}, found {version}")
        return cls(
            policy=_number(data, 0x08, "<Q"),
            vmpl=_number(data, 0x30, "<I"),
            signing_key=_number(data, 0x48, "<I") >> _SIGNING_KEY_SHIFT & _SIGNING_KEY_MASK,
            data=data[0x50:0x90],
            measurement=data[0x90:0xC0],
            report_id_ma=data[0x160:0x180],
            reported_tcb=_number(data, 0x180, "<Q"),
            committed_tcb=_number(data, 0x1E0, "<Q"),
            chip_id=data[0x1A0:0x1E0],
        )


def _number(data: bytes, offset: int, form: str) -> int:
    value: int = struct.unpack_from(form, data, offset)[0]
    return value
