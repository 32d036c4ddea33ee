"""Layouts of our own images, from their bytes alone: descriptor, parameters, page tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mh_abi import abi
from mh_abi.image import HelperImage, parse_image
from mh_builder.image.model import PlacedSection, vcpu_section
from mh_builder.paging import GIB, PAGE_BYTES, Geometry, whole_pages
from mh_builder.report.layout import Backing, Layout, Plan
from mh_builder.report.mapping import ACTED_ON, MARKS
from mh_builder.report.memory_type import PATS
from mh_builder.report.physical import PhysicalMemory, Piece
from mh_builder.report.reader import Reading, read_tables
from mh_builder.schemes import name_of
from mh_builder.schemes.space import HELPER_VA, HOME_LIMIT, Range


def image_layout(data: bytes, base: int, geometry: Geometry, sections: Sequence[PlacedSection] | None = None) -> Layout:
    """The layout of an image whose flat bytes `data` are relocated for mirror GPA `base` and `geometry`.

    `sections` are the linker's, where they are known: a flat image does not say where its code ends and its
    constants begin, so without them what the tables allow to execute is taken for code. Raises `ImageError`.
    """
    image = parse_image(data)
    descriptor, params = image.descriptor, image.params
    memory = PhysicalMemory([Piece(base, descriptor.memory_bytes, data)])
    reading = read_tables(memory, descriptor.cr3, geometry)
    found = tuple(_sections(image, base, reading)) if sections is None else tuple(sections)
    vmsa_va, vmsa_gpa = params.vmsa_va, (base + descriptor.vmsa_offset) % (1 << 64)
    vmsas = Backing(vmsa_gpa, abi.MH_VMSA_BYTES, None, None)
    plan = Plan(
        scheme=name_of(descriptor.scheme, descriptor.window),
        base=base,
        home=image.home,
        window=descriptor.window,
        window_va=params.window_va,
        ram_limit=descriptor.ram_limit,
        memory_bytes=descriptor.memory_bytes,
        ring_offset=descriptor.ring_offset,
        entry32=descriptor.entry32,
        vmsas=Range(vmsa_va, vmsa_va + abi.MH_VMSA_BYTES),
        vmsa_gpa=vmsa_gpa,
        by_gpa=image.by_gpa,
        sections=found,
        backings=tuple(sorted([*_backings(image, base), vmsas])),
    )
    return Layout(plan.scheme, memory, reading, plan, pat=PATS["reset"], counted=ACTED_ON | MARKS)


def _backings(image: HelperImage, base: int) -> Iterator[Backing]:
    window, limit = image.descriptor.window, image.descriptor.ram_limit
    if image.by_gpa:
        yield from _low(0, limit, main_gpa=0, ram_addr=None)
        return
    if image.home is None:
        yield Backing(base, image.memory_bytes, None, None)
    elif image.hands_over:
        yield Backing(base, image.memory_bytes, image.home, image.home)
    else:
        yield from _low(0, min(4 * GIB, window), main_gpa=0, ram_addr=None)
    yield from _low(window, limit, main_gpa=None, ram_addr=0)


def _low(gpa: int, size: int, main_gpa: int | None, ram_addr: int | None) -> Iterator[Backing]:
    """Below `HOME_LIMIT` main GPA and `ram_addr` are equal, above it one of them is not known."""
    low = min(size, HOME_LIMIT)
    yield Backing(gpa, low, 0, 0)
    if size > low:
        above = (None if start is None else start + low for start in (main_gpa, ram_addr))
        yield Backing(gpa + low, size - low, *above)


def _sections(image: HelperImage, base: int, reading: Reading) -> Iterator[PlacedSection]:
    """The sections as far as header and tables tell."""
    descriptor, params = image.descriptor, image.params
    stored = descriptor.image_bytes
    header = whole_pages(descriptor.relocation_offset + descriptor.relocation_count * len(abi.mh_relocation))
    tables = [gpa - base for gpa in reading.tables if base <= gpa < base + stored]
    code_end = _code_end(header, reading)
    places = params.bitmap_va, params.moved_va, params.shared_va
    bitmap, moved_bitmap, shared_bitmap = (place - HELPER_VA for place in places)
    secret, ring = descriptor.secret_offset, descriptor.ring_offset
    authenticators = params.authenticators_va - HELPER_VA if params.authenticators_va else secret
    secrets = image.snp_secrets_offset
    # Every map has as many pages.
    validated = authenticators if secrets is None else 2 * shared_bitmap - moved_bitmap
    constants_end = min(tables) - (0 if secrets is None else PAGE_BYTES)
    for name, start, end, rights in (
        (".header", 0, header, ""),
        (".text", header, code_end, "x"),
        (".rodata", code_end, constants_end, ""),
        *([] if secrets is None else [(".owner", constants_end, min(tables), "")]),
        (".tables", min(tables), max(tables) + PAGE_BYTES, ""),
        (".data", max(tables) + PAGE_BYTES, stored, "w"),
        (".bss", stored, bitmap, "w"),
        (".bitmap", bitmap, moved_bitmap, "w"),
        (".moved_bitmap", moved_bitmap, shared_bitmap, "w"),
        (".shared_bitmap", shared_bitmap, validated, "w"),
        (".validated", validated, authenticators, "w"),
        (".authenticators", authenticators, secret, "w"),
        (".secret", secret, secret + descriptor.secret_bytes, "" if secrets is None else "w"),
        *([] if secrets is None else [(".snp_secrets", secrets, secrets + PAGE_BYTES, "w")]),
        *_blocks(descriptor),
        (".ring", ring, descriptor.memory_bytes, "w"),
    ):
        size = max(0, end - start)
        kept = max(0, min(size, stored - start))
        yield PlacedSection(
            name,
            start,
            size,
            stored=kept,
            writable="w" in rights,
            executable="x" in rights,
            private=name != ".ring",
        )


def _blocks(descriptor: abi.mh_descriptor) -> Iterator[tuple[str, int, int, str]]:
    """Stacks and block of every vCPU; the last block ends where the rings begin."""
    stride, count = descriptor.vcpu_stride, descriptor.ring_count
    block_bytes = descriptor.ring_offset - (descriptor.stack64 - HELPER_VA) - (count - 1) * stride
    for number in range(count):
        block = descriptor.stack64 - HELPER_VA + number * stride
        stack = block - abi.MH_STACK_BYTES
        fault_stack_end = stack - abi.MH_GUARD_BYTES
        fault_stack = fault_stack_end - abi.MH_FAULT_STACK_BYTES
        yield vcpu_section(".fault_stack", number), fault_stack, fault_stack_end, "w"
        yield vcpu_section(".stack", number), stack, block, "w"
        yield vcpu_section(".vcpu", number), block, block + block_bytes, "w"


def _code_end(start: int, reading: Reading) -> int:
    """Offset at which the first code behind offset `start` ends, or `start` without any."""
    end = HELPER_VA + start
    for mapping in reading.mappings:
        is_first = mapping.va >= end == HELPER_VA + start
        if mapping.executable and (is_first or mapping.va == end):
            end = mapping.end
    return end - HELPER_VA
