"""A guest's request, opened: what every answer is made from."""

from __future__ import annotations

from dataclasses import dataclass

from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.processor import SnpProcessor


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, with which VMPCK, and what."""

    sp: SnpProcessor
    sender: SnpGuest
    vmpck: int
    payload: bytes
    """With zeros behind it, as in the firmware's buffer: fields that a short message does not have are zero."""
