"""A helper that is launched alone, without firmware: as a mirror of its own, or as an incoming-migration image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mh_abi.image import HelperImage, ImageError
from mh_builder.firmware.digests import Mode
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.snp import PageType, SnpPage, pages_at, pages_of_type, vmsa_page


@dataclass(frozen=True, slots=True)
class HelperLaunch:
    """A flat image at its link base, for the part with that C-bit, with the VMSAs of its vCPUs.

    Its private memory is launched, in the order of its addresses: what is in the file as NORMAL pages, the rest up to
    the ring as ZERO pages; then the VMSAs. The ring is shared memory.
    """

    image: HelperImage
    c_bit: int
    vmsas: tuple[bytes, ...]

    def modes(self) -> Sequence[Mode]:
        """The kinds of guests that are asked for without a word."""
        return tuple(Mode)

    def sev_data(self, mode: Mode) -> Iterable[bytes]:
        """The launched memory, and under SEV-ES the VMSAs. Raises `FirmwareError`."""
        yield self._memory()
        if mode is Mode.SEV_ES:
            self._check_vmsas()
            yield from self.vmsas

    def snp_pages(self) -> Iterable[SnpPage]:
        """What is launched of an SNP guest, in order. Raises `FirmwareError`."""
        self._check_vmsas()
        base, stored, memory = self.image.descriptor.link_base, len(self.image.data), self._memory()
        yield from pages_at(base, memory[:stored])
        yield from pages_of_type(PageType.ZERO, base + stored, len(memory) - stored)
        yield from map(vmsa_page, self.vmsas)

    def warnings(self) -> Sequence[str]:
        """None is known."""
        return ()

    def _memory(self) -> bytes:
        try:
            return self.image.launched(self.image.descriptor.link_base, self.c_bit)
        except ImageError as error:
            raise FirmwareError(str(error)) from None

    def _check_vmsas(self) -> None:
        if not self.vmsas:
            raise FirmwareError("no --vmsa: a helper alone starts from the VMSAs of its vCPUs")
