"""Files that our tools make, what reads them, and the places in them that readers look at."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from cryptography.hazmat.primitives import hashes

from emulator_tests.attest.machine import FIRMWARE, PRIVATE, SECRET, SOURCE, TARGET, SnpHelper, trust_of
from emulator_tests.firmware.conftest import STOCK
from emulator_tests.firmware.readers import readers
from emulator_tests.firmware.small import Small, resized, shrink, with_inner
from emulator_tests.igvm import oracle
from emulator_tests.igvm.uses import uses
from mh_abi.image import parse_image
from mh_builder.firmware import guids
from mh_builder.firmware.flash import read_flash
from mh_builder.firmware.inject import inject
from mh_builder.firmware.measure import Vcpus
from mh_builder.firmware.section import GUIDED_HEADER_BYTES
from mh_builder.helper import build_helper
from mh_builder.igvm.read import read_igvm
from mh_builder.igvm.wrap import wrap
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start
from mh_emulator.attest.owner import Shown, SnpOwner
from mh_emulator.attest.report import REPORT_BYTES, SIGNED_BYTES
from mh_emulator.psp.ecc import ecdsa_sign
from mh_emulator.psp.snp.tcb import FIRST_TCB

Spot = tuple[int, int]
"""(offset, bytes)."""

_VCPUS = Vcpus(2, 0x00A0_0F11)
_HEADER, _VOLUME_HEADER, _FILE_HEADER = 0x18, 0x78, 24


@dataclass(frozen=True)
class Subject:
    """A file that is good, and what is done with changed ones."""

    data: bytes
    spots: Sequence[Spot]
    readers: Callable[[bytes], Sequence[Callable[[], object]]]
    """What there is to be done with a file: each has an answer, or refuses it in one line."""
    seal: Callable[[bytes], bytes] = field(default=bytes)
    """The file with its checksums, or signatures, as its contents have them now; it may raise what readers may."""


def small_flash() -> Small | None:
    """A real flash image with fewer drivers, if this machine has a stock one."""
    path = STOCK["X64"]
    return shrink(path.read_bytes()) if path.exists() else None


def _flash(stock: Small) -> Subject:
    image = inject(stock.data, build_helper("alias-gpa", Options()).data)
    flash = read_flash(image)
    spots = [(volume.offset, _VOLUME_HEADER) for volume in flash.volumes]
    spots += [(flash.carrier.offset, _FILE_HEADER + GUIDED_HEADER_BYTES + 32)]
    spots += [(image.rindex(guids.VOLUME_TOP.bytes_le), _FILE_HEADER + 64)]
    spots += [(len(image) - 0x100, 0x100), (len(image) - 0x600, 0x600)]
    return Subject(image, spots, readers, lambda data: _summed(data, flash.volumes[0].offset))


def _summed(data: bytes, offset: int) -> bytes:
    """The first volume with the checksum of its header."""
    end = offset + _VOLUME_HEADER
    return data[:offset] + resized(data[offset:])[:_VOLUME_HEADER] + data[end:] if len(data) >= end else data


def _contents(stock: Small) -> Subject:
    """What is compressed in it."""
    flash = read_flash(stock.data)
    files = flash.driver_files().files
    spots = [(0, 0x40), (flash.drivers.offset, _VOLUME_HEADER), *((file.offset, 0x40) for file in files)]
    return Subject(flash.inner, spots, lambda data: readers(with_inner(stock, lambda _: data)))


def _igvm(data: bytes) -> Subject:
    igvm = read_igvm(data)
    start, size = struct.unpack_from("<II", data, 8)
    spots = [(0, _HEADER), *((at, 0x28) for at in range(start, start + size, 0x20))]
    return Subject(igvm.data, spots[:200], uses, oracle.resealed)


def _loose_igvm() -> Subject:
    """A file of few pages, of three platforms."""
    headings = [oracle.platform(oracle.SEV, 1), oracle.platform(oracle.SEV_SNP, 2), oracle.platform(oracle.SEV_ES, 4)]
    first = oracle.data_offset([*headings, *[oracle.page(0)] * 3, oracle.context(0, 2, 0)])
    pages = [oracle.page(0x1000 * number, 7, first + 0x1000 * number) for number in range(3)]
    vmsa = oracle.context(0xFFFF_FFFF_F000, 2, first)
    return _igvm(oracle.assemble([*headings, *pages, vmsa], bytes(0x3000)))


def _image(options: Options, scheme: str) -> Subject:
    data = build_helper(scheme, options).data
    return Subject(data, [(0, 0x40), (0x40, 0x80), (0xC0, 0x80), (0x140, 0x100)], _image_readers)


def _image_readers(data: bytes) -> list[Callable[[], object]]:
    image = parse_image(data)
    part = PARTS["milan"]
    return [
        image.regions,
        lambda: image.digest(part.c_bit),
        lambda: image.launched(image.descriptor.link_base + (1 << 32), part.c_bit),
        lambda: image.relocated(image.descriptor.link_base, None),
    ]


class _Believer:
    """An owner who has met two helpers; one of them is shown in another way."""

    def __init__(self) -> None:
        self._source, target = SnpHelper(seed=1, firmware=FIRMWARE), SnpHelper(seed=2)
        self._trust = trust_of(self._source, target)
        shown = self._source.messenger.show(SOURCE, bytes(range(16)))
        self._target = target.messenger.show(TARGET, bytes(range(16)))
        self._share, self._part = shown.share, shown.part
        self._report = shown.report
        self._sizes = [len(one) for one in shown.chain]
        self.data = shown.report + b"".join(shown.chain)

    @property
    def spots(self) -> list[Spot]:
        """The report's fields, and where certificates have theirs."""
        found = [(0, 0x60), (0x50, 0x70), (0x90, 0x60), (0x160, 0x80), (0x1E0, 0xC0), (SIGNED_BYTES, 0x200)]
        at = REPORT_BYTES
        for size in self._sizes:
            found += [(at, 0x40), (at + 0x40, 0x100), (at + size - 0x280, 0x80)]
            at += size
        return found

    def seal(self, data: bytes) -> bytes:
        """With the signature of a chip that says whatever it is asked."""
        if len(data) < REPORT_BYTES:
            return data
        key = self._source.platform.psp._sp.identity.vcek(FIRST_TCB)
        signature = ecdsa_sign(key, data[:SIGNED_BYTES], hashes.SHA384())
        return data[:SIGNED_BYTES] + signature + data[SIGNED_BYTES + len(signature) :]

    def readers(self, data: bytes) -> list[Callable[[], object]]:
        """The owner looks."""
        return [lambda: self._look(data)]

    def _look(self, data: bytes) -> None:
        """Raises `NotBelieved`, or what shows that the owner believes too much."""
        parts, at = [], REPORT_BYTES
        for size in self._sizes:
            parts.append(data[at : at + size])
            at += size
        report = data[:REPORT_BYTES]
        owner = SnpOwner(self._trust, SECRET.table(), PRIVATE, lambda size: bytes(range(size)))
        owner.challenge(SOURCE)
        owner.challenge(TARGET)
        owner.give(Shown(report, parts, self._share, self._part), self._target)
        for field_ in (slice(0x08, 0x10), slice(0x30, 0x34), slice(0x50, 0xC0), slice(0x160, 0x180)):
            if report[field_] != self._report[field_]:
                raise AssertionError(f"the owner believes {report[field_].hex()} at {field_.start:#x} of a report")


def _report() -> Subject:
    believer = _Believer()
    return Subject(believer.data, believer.spots, believer.readers, believer.seal)


def _of_stock(make: Callable[[Small], Subject]) -> Subject:
    stock = small_flash()
    return Subject(b"", [(0, 0)], readers) if stock is None else make(stock)


_ES = Options(start=Start.ES, c_bit=PARTS["milan"].c_bit)
SUBJECTS: Mapping[str, Callable[[], Subject]] = MappingProxyType({
    "flash": lambda: _of_stock(_flash),
    "contents": lambda: _of_stock(_contents),
    "wrapped": lambda: _of_stock(lambda stock: _igvm(wrap(stock.data, _VCPUS))),
    "igvm": _loose_igvm,
    "image": lambda: _image(Options(), "regions"),
    "report": _report,
})  # fmt: skip
"""By the stage that they make; where there is no stock image, what is made of one is an empty file."""


@cache
def subject(stage: str) -> Subject:
    """The one of a stage."""
    return SUBJECTS[stage]()
