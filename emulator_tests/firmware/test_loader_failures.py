"""Everything that can go wrong for the loader: the right line, the status, and nothing left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from emulator_tests.firmware.machine import OTHER_VOLUME, Booted, compact_image, volume
from mh_builder.paging import GIB, PAGE_BYTES
from mh_emulator.kvm.vm import Vm
from mh_emulator.loader import HelperImage
from mh_emulator.parts import CpuidResult
from mh_emulator.uefi.firmware import FREE_MEMORY
from mh_emulator.uefi.loaded import loaded
from mh_emulator.uefi.services import NOT_FOUND
from payload import abi

STEP = abi.mh_load_step
ERROR = 1 << 63
LOAD_ERROR, UNSUPPORTED, SECURITY_VIOLATION, COMPROMISED_DATA = (ERROR | number for number in (1, 3, 26, 33))
INJECTED = ERROR | 7

CALLS = [
    ("LocateHandleBuffer", 0, STEP.MH_LOAD_FIND, INJECTED),
    ("HandleProtocol", 1, STEP.MH_LOAD_FIND, INJECTED),
    ("ReadSection", 1, STEP.MH_LOAD_FIND, INJECTED),
    ("ReadSection", 2, STEP.MH_LOAD_FIND, INJECTED),
    ("AllocatePages", 0, STEP.MH_LOAD_RESERVE, INJECTED),
    ("AllocatePool", 0, STEP.MH_LOAD_PUBLISH, INJECTED),
    ("InstallConfigurationTable", 0, STEP.MH_LOAD_PUBLISH, INJECTED),
    ("SetVariable", 0, STEP.MH_LOAD_VARIABLE, INJECTED),
    ("AllocatePages", 1, STEP.MH_LOAD_HANDOVER, INJECTED),
]


@pytest.fixture(scope="module")
def image() -> HelperImage:
    return compact_image("regions")


def test_every_call_is_among_those_that_fail_below(image: HelperImage) -> None:
    """But for the first volume, which has no image file, and for what gives memory back."""
    calls = Counter(Booted(image).outcome.calls)
    harmless = {("HandleProtocol", 0), ("ReadSection", 0), *(("FreePool", number) for number in range(3))}
    failing = {(name, number) for name, number, _, _ in CALLS}
    assert failing | harmless == {(name, number) for name, count in calls.items() for number in range(count)}


@pytest.mark.parametrize(("name", "number", "step", "status"), CALLS)
def test_a_service_fails(image: HelperImage, name: str, number: int, step: int, status: int) -> None:
    booted = Booted(image, failures={(name, number): INJECTED})
    booted.check_failed(step, status)
    assert booted.leaf(booted.home + image.ring_offset).private
    if step > STEP.MH_LOAD_RESERVE:
        assert not any(booted.firmware.memory.read(booted.home, len(image.data)))


def test_no_memory_for_two_tables(image: HelperImage) -> None:
    """The 1 GiB page stays whole."""
    booted = Booted(image, largest_page=GIB, failures={("AllocatePages", 1): INJECTED})
    booted.check_failed(STEP.MH_LOAD_HANDOVER, INJECTED)
    assert booted.leaf(booted.home).page_bytes == GIB


@pytest.mark.parametrize("page", [0, 1, -1])
def test_somebody_has_one_of_its_pages(image: HelperImage, page: int) -> None:
    home = image.home or 0
    taken = home + (page * PAGE_BYTES if page >= 0 else image.memory_bytes - PAGE_BYTES)
    Booted(image, taken=taken).check_failed(STEP.MH_LOAD_RESERVE, NOT_FOUND)


def test_its_neighbours_may_be_taken(image: HelperImage) -> None:
    assert Booted(image, taken=(image.home or 0) + image.memory_bytes).outcome.status == 0
    assert Booted(image, taken=(image.home or 0) - PAGE_BYTES).outcome.status == 0


def test_no_file(image: HelperImage) -> None:
    Booted(image, volumes=[OTHER_VOLUME]).check_failed(STEP.MH_LOAD_FIND, NOT_FOUND)
    Booted(image, volumes=[]).check_failed(STEP.MH_LOAD_FIND, NOT_FOUND)


def test_no_digest(image: HelperImage) -> None:
    alone = {next(iter(volume(b""))): [image.data]}
    Booted(image, volumes=[alone]).check_failed(STEP.MH_LOAD_FIND, NOT_FOUND)
    Booted(image, volumes=[volume(image.data, b"short")]).check_failed(STEP.MH_LOAD_FIND, NOT_FOUND)


@pytest.mark.parametrize("bit", [0, 8 * 0x1000 + 3, -1])
def test_wrong_digest(image: HelperImage, bit: int) -> None:
    good = next(iter(volume(image.data).values()))[1]
    data = bytearray(image.data)
    data[bit // 8] ^= 1 << bit % 8
    Booted(image, volumes=[volume(bytes(data), good)]).check_failed(STEP.MH_LOAD_DIGEST, COMPROMISED_DATA)


def changed(field: str, change: Callable[[int], int]) -> Callable[[HelperImage], bytes]:
    def make(image: HelperImage) -> bytes:
        descriptor = abi.mh_descriptor(image.data)
        setattr(descriptor, field, change(getattr(descriptor, field)))
        head = descriptor.dumps()
        return bytes(head + image.data[len(head) :])

    return make


def relocation(record: abi.mh_relocation) -> Callable[[HelperImage], bytes]:
    def make(image: HelperImage) -> bytes:
        at = image.descriptor.relocation_offset
        data = record.dumps()
        return bytes(image.data[:at] + data + image.data[at + len(data) :])

    return make


BAD_IMAGES: dict[str, Callable[[HelperImage], bytes]] = {
    "short": lambda image: image.data[: len(abi.mh_descriptor) - 1],
    "magic": changed("magic", lambda magic: magic ^ 1),
    "version": changed("version", lambda version: version + 1),
    "descriptor-bytes": changed("descriptor_bytes", lambda size: size + 8),
    "image-bytes": changed("image_bytes", lambda size: size + 1),
    "home-not-a-page": changed("home", lambda home: home + 1),
    "home-too-high": changed("home", lambda _: 1 << 32),
    "end-too-high": changed("home", lambda _: (1 << 32) - PAGE_BYTES),
    "no-home": changed("home", lambda _: abi.MH_NO_HOME),
    "memory-not-pages": changed("memory_bytes", lambda size: size + 1),
    "memory-wraps": changed("memory_bytes", lambda _: (1 << 64) - PAGE_BYTES),
    "memory-below-ring": changed("memory_bytes", lambda _: PAGE_BYTES),
    "ring-in-image": changed("ring_offset", lambda _: PAGE_BYTES),
    "ring-not-a-page": changed("ring_offset", lambda offset: offset + 8),
    "secret-in-image": changed("secret_offset", lambda _: 0),
    "secret-in-ring": changed("secret_bytes", lambda _: 1 << 31),
    "regions-outside": changed("region_offset", lambda _: 1 << 31),
    "too-many-regions": changed("region_count", lambda _: abi.MH_HANDOVER_REGIONS + 1),
    "relocations-outside": changed("relocation_count", lambda _: 1 << 29),
    "other-c-bit": changed("flags", lambda flags: flags | abi.MH_FLAG_FIXED_CBIT),
    "fixed-elsewhere": changed("link_base", lambda base: base + PAGE_BYTES),
    "relocation-outside": relocation(abi.mh_relocation(offset=0xFFFF_FFF8, count=1, kinds=1)),
    "relocation-beyond-the-end": relocation(abi.mh_relocation(offset=0x1000, count=0xFFFF, kinds=1)),
    "unknown-kind": relocation(abi.mh_relocation(offset=0x1000, count=1, kinds=4)),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_image(image: HelperImage, case: str) -> None:
    """Its digest is right: this is what a broken linker would make."""
    good = compact_image("alias-gpa") if case == "fixed-elsewhere" else image
    booted = Booted(good, volumes=[volume(BAD_IMAGES[case](good))], sev=case == "other-c-bit")
    booted.check_failed(STEP.MH_LOAD_DESCRIPTOR, LOAD_ERROR)


def test_another_mirror_address_is_relocated(image: HelperImage) -> None:
    """Where the first tuple says that the mirror sees it."""
    at = image.descriptor.region_offset
    moved = bytearray(image.data)
    for number, region in enumerate(image.regions()):
        region.mirror_gpa += 0x123000
        moved[at + number * len(abi.mh_region) : at + (number + 1) * len(abi.mh_region)] = region.dumps()
    other = HelperImage(bytes(moved), image.descriptor)
    booted = Booted(other)
    assert booted.outcome.status == 0
    assert booted.loaded() == loaded(other, booted.c_bit)
    assert booted.loaded()[:0x10000] != loaded(image, booted.c_bit)[:0x10000]


class HidesSev(Vm):
    """A host that tells the guest there is no SEV."""

    def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
        result = super().cpuid(leaf, subleaf)
        return result._replace(eax=0) if leaf == 0x8000_001F else result


class MovesTheCBit(Vm):
    """A host that names another bit."""

    bit = 47

    def cpuid(self, leaf: int, subleaf: int) -> CpuidResult:
        result = super().cpuid(leaf, subleaf)
        return result._replace(ebx=result.ebx & ~0x3F | self.bit) if leaf == 0x8000_001F else result


class MovesTheCBitLow(MovesTheCBit):
    """Into what every entry has set."""

    bit = 0


@pytest.mark.parametrize("liar", [MovesTheCBit, MovesTheCBitLow])
def test_a_host_that_lies_about_the_c_bit_is_found_out(image: HelperImage, liar: type[Vm]) -> None:
    Booted(image, vm_type=liar).check_failed(STEP.MH_LOAD_FIND, SECURITY_VIOLATION)


def test_a_host_that_hides_sev_gets_a_helper_without_c_bits(image: HelperImage) -> None:
    """It sees no plain text by that: the helper's pages are private, and its own tables reach ciphertext only."""
    booted = Booted(image, vm_type=HidesSev)
    assert booted.outcome.status == 0
    private = booted.firmware.memory.read(booted.home, len(image.data))
    assert private == loaded(image, None)[: len(image.data)]
    raw = booted.memory.read_raw(booted.home, len(image.data))
    assert not any(raw[at : at + 16] == private[at : at + 16] for at in range(0, len(raw), 16))


def test_pages_that_are_mapped_shared(image: HelperImage) -> None:
    home = image.home or 0
    shared = Booted(image, shared=[home + 5 * PAGE_BYTES])
    shared.check_failed(STEP.MH_LOAD_RESERVE, SECURITY_VIOLATION)
    # Pool memory comes from the lowest pages: handles, then the image.
    buffer = Booted(image, shared=[FREE_MEMORY + 2 * PAGE_BYTES])
    buffer.check_failed(STEP.MH_LOAD_FIND, SECURITY_VIOLATION)
