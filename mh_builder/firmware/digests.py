"""The digests of a launch: one for each kind of guest, or the reason why there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.snp import SnpPage, snp_digest


class Mode(Enum):
    """Which kind of guest is launched."""

    SEV = "sev"
    SEV_ES = "seves"
    SNP = "snp"


class Launch(Protocol):
    """Something that a VMM launches: a flash image, an IGVM file, a helper alone."""

    def modes(self) -> Sequence[Mode]:
        """The kinds of guests that are asked for without a word."""

    def sev_data(self, mode: Mode) -> Iterable[bytes]:
        """What is measured of a guest without SNP, in order: memory, then VMSAs. Raises `FirmwareError`."""

    def snp_pages(self) -> Iterable[SnpPage]:
        """What is launched of an SNP guest, in order. Raises `FirmwareError`."""

    def warnings(self) -> Sequence[str]:
        """What stands against an SNP launch although there is a digest, a line each. Raises `FirmwareError`."""


class Incoming(Protocol):
    """Which of the pages are the incoming-migration image."""

    def marked(self, pages: Iterable[SnpPage]) -> list[SnpPage]:
        """`pages`, with those of the image marked. Raises `FirmwareError`."""


@dataclass
class Digests:
    """A digest for each kind of guest, or why there is none; IMD where it was asked for; what to warn of."""

    digests: dict[Mode, bytes] = field(default_factory=dict)
    reasons: dict[Mode, str] = field(default_factory=dict)
    imd: bytes | None = None
    warnings: tuple[str, ...] = ()


def digest_of(launch: Launch, mode: Mode) -> bytes:
    """The digest of a launch as one kind of guest. Raises `FirmwareError`.

    Source: SEV API (55766), LAUNCH_MEASURE: GCTX.LD is the SHA-256 of all that was launched.
    """
    if mode is Mode.SNP:
        return snp_digest(launch.snp_pages()).ld
    digest = hashlib.sha256()
    for data in launch.sev_data(mode):
        digest.update(data)
    return digest.digest()


def digests_of(launch: Launch, modes: Iterable[Mode], incoming: Incoming | None = None) -> Digests:
    """Measure a launch as every kind of guest in `modes`; none is left out without a word."""
    result = Digests()
    for mode in modes:
        try:
            if mode is Mode.SNP:
                _add_snp(result, launch, incoming)
            else:
                result.digests[mode] = digest_of(launch, mode)
        except FirmwareError as error:
            result.reasons[mode] = str(error)
    return result


def _add_snp(result: Digests, launch: Launch, incoming: Incoming | None) -> None:
    pages = launch.snp_pages()
    both = snp_digest(pages if incoming is None else incoming.marked(pages))
    result.digests[Mode.SNP] = both.ld
    result.imd = None if incoming is None else both.imd
    result.warnings = tuple(launch.warnings())
