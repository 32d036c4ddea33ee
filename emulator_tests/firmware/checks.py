"""What a loader checks: cases that it must refuse, and what it says of each.

`python -m emulator_tests.firmware.checks` runs all of them with both loaders and writes the table of docs/security.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

from emulator_tests.firmware import liars, wrong
from emulator_tests.firmware.loaders import LOADERS
from emulator_tests.firmware.machine import ES, GROUNDS, OTHER_VOLUME, PLAIN, Booted, Ground, small_image, volume
from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.paging import GIB, MIB, PAGE_BYTES
from mh_emulator.kvm.vm import Vm
from mh_emulator.uefi.layout import FREE_MEMORY

PAGE = abi.HEADER.parents[1] / "docs" / "security.md"
BEGIN, END = "<!-- what each loader checks: begin -->", "<!-- what each loader checks: end -->"

DEVICE_ERROR = 1 << 63 | 7
STATUSES = {
    1: "LOAD_ERROR", 3: "UNSUPPORTED", 7: "DEVICE_ERROR", 14: "NOT_FOUND", 26: "SECURITY_VIOLATION",
    33: "COMPROMISED_DATA",
}  # fmt: skip
"""EFI_STATUS without its highest bit: UEFI 2.10, appendix D. A service that fails here says DEVICE_ERROR."""

TELLS, IS_SILENT = "loads, tells the host", "loads, tells nobody"

SNP = {"SNP": ES}
"""A guest of SEV-ES whose CPU says that SNP is active: pages have no state in an RMP here, and no check gets to it."""

Boot = Callable[[bytes, Ground], Booted]
"""What becomes of a driver in a guest."""


class Check(NamedTuple):
    """One row: every one of `boots` ends as `verdict` says, on each of `grounds`."""

    what: str
    verdict: str
    boots: Sequence[Boot]
    grounds: Mapping[str, Ground] = GROUNDS


def verdict(booted: Booted) -> str:
    """The step and the status of a failure that left nothing behind, or what a success did."""
    if booted.outcome.status == 0:
        assert booted.outcome.debug == f"SEV-MH {booted.home:016x} {booted.image.memory_bytes:016x}\n"
        return TELLS if booted.outcome.msr_writes else IS_SILENT
    step = int(booted.outcome.debug.removeprefix("SEV-MH failed ")[:2], 16)
    booted.check_failed(step, booted.outcome.status)
    name = abi.mh_load_step(step).name.removeprefix("MH_LOAD_")
    return f"{name}: {STATUSES[booted.outcome.status & ~(1 << 63)]}"


@cache
def regions() -> HelperImage:
    return small_image("regions")


def boot(**options: object) -> Boot:
    """One of `regions`; a ground among the options is in place of the check's."""
    return lambda driver, ground: Booted(regions(), **{"ground": ground, "driver": driver, **options})  # type: ignore[arg-type]


def failing(service: str, number: int, **options: object) -> Boot:
    return boot(failures={(service, number): DEVICE_ERROR}, **options)


def carrying(make: Callable[[bytes], bytes]) -> Boot:
    """Another image, with its right digest."""
    return lambda driver, ground: Booted(regions(), ground, driver, [volume(make(regions().data))])


def lying(*kinds: type[Vm]) -> list[Boot]:
    return [boot(vm_type=kind) for kind in kinds]


def fields(*names: str) -> list[Boot]:
    bad = [(field, value) for field, value in wrong.FIELDS if field in names]
    return [carrying(partial(wrong.with_field, field=field, wrong=value)) for field, value in bad]


def fixed_to(c_bit: int, **options: object) -> Boot:
    """An image for parts with this C-bit."""
    return boot(volumes=[volume(wrong.fixed_to(regions().data, c_bit))], **options)


def spoiled(bit: int) -> Boot:
    """One bit of the image is not what the digest was made of."""

    def run(driver: bytes, ground: Ground) -> Booted:
        data = bytearray(regions().data)
        good = next(iter(volume(bytes(data)).values()))[1]
        data[bit // 8] ^= 1 << bit % 8
        return Booted(regions(), ground, driver, [volume(bytes(data), good)])

    return run


def without_file() -> Iterator[Boot]:
    yield boot(volumes=[])
    yield boot(volumes=[OTHER_VOLUME])


def without_digest() -> Iterator[Boot]:
    def run(driver: bytes, ground: Ground, digest: bytes | None) -> Booted:
        data = regions().data
        name = next(iter(volume(data)))
        sections = [data] if digest is None else [data, digest]
        return Booted(regions(), ground, driver, [{name: sections}, volume(data)])

    for digest in (None, b"short", bytes(33)):
        yield partial(run, digest=digest)


def taken_pages() -> Iterator[Boot]:
    image = regions()
    for page in (0, PAGE_BYTES, image.ring_offset, image.memory_bytes - PAGE_BYTES):
        yield boot(taken=(image.home or 0) + page)


def shared_pages() -> Iterator[Boot]:
    image = regions()
    secret = image.descriptor.secret_offset
    for page in (0, 5 * PAGE_BYTES, secret, image.ring_offset, image.memory_bytes - PAGE_BYTES):
        yield boot(shared=[(image.home or 0) + page])


def giving_shared(service: str, number: int) -> Boot:
    """What this call gives is mapped shared; its neighbour, which nobody uses, makes the pages there small ones."""
    return boot(shares=(service, number), shared=[FREE_MEMORY + 2 * MIB - PAGE_BYTES])


def shared_image() -> Iterator[Boot]:
    """Pool memory comes from the lowest pages: the handles, then the image."""
    for page in (1, 2, len(regions().data) // PAGE_BYTES):
        yield boot(shared=[FREE_MEMORY + page * PAGE_BYTES])


def elsewhere(driver: bytes, ground: Ground) -> Booted:
    """An image that is fixed to its place, and is to go to another."""
    image = small_image("alias-gpa")
    data = wrong.with_field(image.data, "link_base", wrong.more("link_base", PAGE_BYTES))
    return Booted(image, ground, driver, [volume(data)])


def homeless(driver: bytes, ground: Ground) -> Booted:
    return Booted(regions(), ground, driver, [volume(small_image("isolated").data)])


BAD, SHARED = "DESCRIPTOR: LOAD_ERROR", "SECURITY_VIOLATION"


def under_snp(svsm_bytes: int | None) -> Iterator[Boot]:
    """Whether the scheme hands pages over or not: the rings of all would have to be shared."""

    def run(driver: bytes, ground: Ground, scheme: str) -> Booted:
        return Booted(small_image(scheme), ground, driver, vm_type=liars.HasSnp, svsm_bytes=svsm_bytes)

    for scheme in ("regions", "alias-gpa"):
        yield partial(run, scheme=scheme)


def refusing() -> list[Check]:
    return [
        Check("SNP, also where no table names the secrets page", "SNP: UNSUPPORTED",
              [*under_snp(0), *under_snp(None)], SNP),
        Check("SNP below an SVSM", "SVSM: UNSUPPORTED",
              [*under_snp(1 << 23), *under_snp(1 << 63)], SNP),
    ]  # fmt: skip


def finding() -> list[Check]:
    unreadable = [("LocateHandleBuffer", 0), *(("HandleProtocol", n) for n in range(2))]
    unreadable += (("ReadSection", n) for n in range(3))
    return [
        Check("no firmware volume has the image", "FIND: NOT_FOUND", list(without_file())),
        Check("no digest beside the image, or not of 32 bytes", "FIND: NOT_FOUND", list(without_digest())),
        Check("the firmware volumes cannot be listed or read", "FIND: DEVICE_ERROR",
              [failing(service, number) for service, number in unreadable]),
        Check("CPUID names another C-bit than that of the live page tables", f"FIND: {SHARED}",
              lying(*map(liars.names_c_bit, (0, 1, 31, 33, 47, 50, 52, 63)))),
        Check("the list of volumes, the image or its digest is mapped shared", f"FIND: {SHARED}",
              [giving_shared("LocateHandleBuffer", 0), *shared_image(), giving_shared("ReadSection", 2)]),
        Check("a page table of a higher level is named without the C-bit", f"FIND: {SHARED}",
              [boot(open_level=level, largest_page=PAGE_BYTES) for level in (3, 4, 5)]),
        Check("the SHA-256 of the image", "DIGEST: COMPROMISED_DATA",
              [spoiled(bit) for bit in (0, 8 * 0x1000 + 3, -1)]),
    ]  # fmt: skip


def describing() -> list[Check]:
    short = [carrying(partial(wrong.cut, size=size)) for size in (1, len(abi.mh_descriptor) - 1)]
    memory = ("home", "memory_bytes", "ring_offset", "ring_count", "ring_stride", "vcpu_stride",
              "secret_offset", "secret_bytes")  # fmt: skip
    space = ("scheme", "link_base", "window", "ram_limit", "vmsa_offset", "cr3")
    tables = ("region_offset", "region_count", "relocation_offset", "relocation_count")
    tuples = [partial(wrong.with_tuple, index=n, field=field, wrong=value) for n, field, value in wrong.TUPLES]
    relocations = [
        partial(wrong.with_relocation, offset=offset, count=count, kinds=kinds)
        for offset, count, kinds in wrong.RELOCATIONS
    ]
    return [
        Check("descriptor: magic, version, flags, sizes", BAD,
              [*short, *fields("magic", "version", "descriptor_bytes", "flags", "image_bytes")]),
        Check("descriptor: home, memory, rings and secret are pages, inside each other, below 4 GiB", BAD,
              fields(*memory)),
        Check("descriptor: scheme and the mirror's address space", BAD, [*fields(*space), elsewhere, homeless]),
        Check("descriptor: the starts", BAD, fields("entry64", "stack64", "entry32")),
        Check("descriptor: tuples and relocations lie in the file", BAD, fields(*tables)),
        Check("the image is fixed to another C-bit", BAD,
              [*fields("c_bit"), *map(fixed_to, (0, 47, 63)), *(fixed_to(bit, ground=PLAIN) for bit in (0, 51))]),
        Check("each region tuple: place, length, kind, one distance for all", BAD, [*map(carrying, tuples)]),
        Check("each relocation: kind, place in the file, of the header CR3 only", BAD, [*map(carrying, relocations)]),
    ]  # fmt: skip


def placing() -> list[Check]:
    return [
        Check("a page of the home is taken", "RESERVE: NOT_FOUND", list(taken_pages())),
        Check("a page of the home is mapped shared: image, secret, ring or other", f"RESERVE: {SHARED}",
              list(shared_pages())),
        Check("the page table of the home's pages is named without the C-bit", f"RESERVE: {SHARED}",
              [boot(open_level=2, largest_page=PAGE_BYTES)]),
    ]  # fmt: skip


def announcing() -> list[Check]:
    return [
        Check("the configuration table is refused", "PUBLISH: DEVICE_ERROR",
              [failing("AllocatePool", 0), failing("InstallConfigurationTable", 0)]),
        Check("the memory of the configuration table is mapped shared", f"PUBLISH: {SHARED}",
              [giving_shared("AllocatePool", 0)]),
        Check("the variable is refused", "VARIABLE: DEVICE_ERROR", [failing("SetVariable", 0)]),
        Check("hand-over: no memory for page tables", "HANDOVER: DEVICE_ERROR",
              [failing("AllocatePages", 1), failing("AllocatePages", 1, largest_page=GIB)]),
        Check("hand-over: the memory for page tables is mapped shared", f"HANDOVER: {SHARED}",
              [giving_shared("AllocatePages", 1)]),
        Check("hand-over: the host is no KVM, or without migration control", IS_SILENT,
              [*lying(liars.IsNoKvm, liars.IsNoHypervisor), boot(kvm_features=0)]),
        Check("hand-over: KVM, also behind another interface of the hypervisor", TELLS,
              [*lying(Vm, liars.ShowsAnotherFirst), boot(ground=PLAIN)]),
    ]  # fmt: skip


def checks() -> list[Check]:
    """All rows of the table."""
    return [*refusing(), *finding(), *describing(), *placing(), *announcing()]


def cell(check: Check, driver: bytes) -> str:
    """What a loader makes of a check; several verdicts where its cases differ."""
    return " / ".join(
        sorted({verdict(boot(driver, ground)) for ground in check.grounds.values() for boot in check.boots})
    )


def row(check: Check, cells: Sequence[str]) -> str:
    """A line of the table."""
    return f"| {check.what} | {len(check.boots)} | {'; '.join(check.grounds)} | {' | '.join(cells)} |"


def table(rows: Sequence[str]) -> str:
    """What stands between the markers."""
    head = f"| checked | cases | run under | {' | '.join(LOADERS)} |"
    return "\n".join((BEGIN, head, "|---" * (3 + len(LOADERS)) + "|", *rows, END))


def documented() -> str:
    """What stands there now, markers included."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def main() -> None:
    """Run everything and write the table."""
    drivers = [build() for build in LOADERS.values()]
    made = table([row(check, [cell(check, driver) for driver in drivers]) for check in checks()])
    PAGE.write_text(PAGE.read_text(encoding="utf-8").replace(documented(), made), encoding="utf-8")


if __name__ == "__main__":
    main()
