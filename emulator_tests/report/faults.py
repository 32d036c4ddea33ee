"""Faults to be seeded into the page tables of a built image, entry by entry.

Each takes the flat image with its C-bit applied, and changes it; `rule` is the audit's rule that has to name it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from emulator_tests.report.build import NX, PAGE, PAT, PCD, PWT, A, D, G, P, U, W
from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.paging import ADDRESS_FIELD, ENTRY_BYTES, LARGE, table_index
from mh_builder.schemes.space import HELPER_VA, RAM_VA, SHARED_OFFSET

C_BIT = 51
C = 1 << C_BIT


class Patient:
    """An image whose tables are changed; `data` are its bytes as loaded at the link base."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.data = bytearray(parse_image(image.data).relocated(image.space.base, C_BIT))
        self.base = image.space.base

    def entry_at(self, va: int, level: int = 1) -> int:
        """Offset of the entry of `level` for `va`."""
        table = self.image.section(".tables").offset
        for above in range(4, level, -1):
            table = (self.entry(table + table_index(va, above) * ENTRY_BYTES) & ADDRESS_FIELD & ~C) - self.base
        return table + table_index(va, level) * ENTRY_BYTES

    def entry(self, offset: int) -> int:
        (value,) = struct.unpack_from("<Q", self.data, offset)
        return int(value)

    def put(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.data, offset, value)

    def change(self, va: int, *, set_bits: int = 0, clear: int = 0, level: int = 1) -> None:
        offset = self.entry_at(va, level)
        assert self.entry(offset) & P
        self.put(offset, self.entry(offset) & ~clear | set_bits)

    def va(self, section: str) -> int:
        return self.image.section(section).va

    def gpa(self, section: str) -> int:
        return self.base + self.image.section(section).offset

    @property
    def spare(self) -> int:
        """A virtual address in the tables of the image at which nothing is mapped: behind the last block."""
        block = self.image.section(".vcpu")
        return block.va + block.size + PAGE

    @property
    def ram(self) -> int:
        """Virtual address of RAM that is mapped with large pages."""
        return RAM_VA + (1 << 30)


def alias(section: str, bits: int) -> Callable[[Patient], None]:
    """The first page of `section` once more, with these bits."""

    def seed(patient: Patient) -> None:
        patient.put(patient.entry_at(patient.spare), patient.gpa(section) | bits)

    return seed


def bits(section: str, *, set_bits: int = 0, clear: int = 0, level: int = 1) -> Callable[[Patient], None]:
    """Other bits in the entry of a section's first page."""

    def seed(patient: Patient) -> None:
        patient.change(patient.va(section), set_bits=set_bits, clear=clear, level=level)

    return seed


def ram(*, set_bits: int = 0, clear: int = 0) -> Callable[[Patient], None]:
    """Other bits in a leaf of the RAM window."""

    def seed(patient: Patient) -> None:
        patient.change(patient.ram, set_bits=set_bits, clear=clear, level=3)

    return seed


def guard(section: str) -> Callable[[Patient], None]:
    """The page below a stack mapped, to where the image has it."""

    def seed(patient: Patient) -> None:
        below = patient.va(section) - PAGE
        patient.put(patient.entry_at(below), patient.gpa(section) - PAGE | P | W | NX | C)

    return seed


def swapped(patient: Patient) -> None:
    """Two pages of variables in each other's place."""
    first, second = (patient.entry_at(patient.va(".bss") + page * PAGE) for page in (0, 1))
    one, two = patient.entry(first), patient.entry(second)
    patient.put(first, two)
    patient.put(second, one)


def helper_in_window(patient: Patient) -> None:
    """The last page of the hole in the RAM window closed, with what RAM would have there."""
    space = patient.image.space
    assert space.home is not None
    named = space.home + patient.image.memory_bytes - PAGE
    patient.put(patient.entry_at(RAM_VA + named), space.window + named | P | W | NX | C)


def ram_at_null(patient: Patient) -> None:
    """The first 512 GiB of the RAM window at virtual address 0 as well."""
    patient.put(patient.entry_at(0, 4), patient.entry(patient.entry_at(RAM_VA, 4)))


def ram_shifted(patient: Patient) -> None:
    """A leaf of the RAM window that maps the GiB after its own."""
    offset = patient.entry_at(patient.ram, 3)
    patient.put(offset, patient.entry(offset) + (1 << 30))


def loop(patient: Patient) -> None:
    """The root as a table of itself: as in some kernels, where it lays all tables open."""
    root = patient.image.section(".tables").offset
    patient.put(root + 300 * ENTRY_BYTES, patient.base + root | P | W | C)


def far_table(patient: Patient) -> None:
    """A table where the image has no memory."""
    root = patient.image.section(".tables").offset
    patient.put(root + 300 * ENTRY_BYTES, 0x7_0000_0000 | P | W | C)


def large_root(patient: Patient) -> None:
    root = patient.image.section(".tables").offset
    patient.put(root + 300 * ENTRY_BYTES, P | W | LARGE | C)


def not_aligned(patient: Patient) -> None:
    patient.change(patient.ram, set_bits=1 << 20, level=3)


def device(patient: Patient) -> None:
    """The local APIC, where no RAM is."""
    patient.put(patient.entry_at(patient.spare), 0xFEE0_0000 | P | W | NX | C)


def vmsa_elsewhere(patient: Patient) -> None:
    """A page of the VMSAs' window that is the one behind it."""
    va = HELPER_VA + patient.image.memory_bytes
    patient.put(patient.entry_at(va), (patient.base + patient.image.memory_bytes + PAGE) | P | W | NX | C)


def ring_alias(patient: Patient) -> None:
    """The ring's first page where its private view would be, decrypted."""
    ring = patient.image.section(".ring")
    va = ring.va - SHARED_OFFSET
    patient.put(patient.entry_at(va), patient.gpa(".ring") | P | W | NX | C)


def user_page(patient: Patient) -> None:
    """User mode takes every level."""
    for level in (4, 3, 2, 1):
        patient.change(patient.va(".bss"), set_bits=U, level=level)


def no_table(patient: Patient) -> None:
    """An entry that is not present and holds an address."""
    patient.put(patient.entry_at(patient.spare), patient.gpa(".bss") | W | NX | C)


def uncached_table(patient: Patient) -> None:
    patient.change(patient.va(".text"), set_bits=PCD, level=2)


class Fault(NamedTuple):
    """`rule` has to name it; `schemes` None is all."""

    seed: Callable[[Patient], None]
    rule: str
    names: str
    """What the finding has to say, as a regular expression."""
    schemes: tuple[str, ...] | None = None


HOMED = ("alias-gpa", "alias-window", "alias-window-high", "regions")

FAULTS = {
    "code-writable": Fault(bits(".text", set_bits=W), "w^x", ".text"),
    "header-writable": Fault(bits(".header", set_bits=W), "rights", ".header"),
    "secret-writable": Fault(bits(".secret", set_bits=W), "rights", ".secret"),
    "table-writable": Fault(bits(".tables", set_bits=W), "table-writable", ".tables"),
    "table-writable-elsewhere": Fault(alias(".tables", P | W | NX | C), "table-writable", "unexpected"),
    "code-writable-elsewhere": Fault(alias(".text", P | W | NX | C), "code-writable", ".text"),
    "variables-executable": Fault(bits(".bss", clear=NX), "w^x", ".bss"),
    "header-executable": Fault(bits(".header", clear=NX), "rights", ".header"),
    "stack-executable": Fault(bits(".stack", clear=NX), "w^x", ".stack"),
    "code-not-executable": Fault(bits(".text", set_bits=NX), "rights", ".text"),
    "variables-read-only": Fault(bits(".bss", clear=W), "rights", ".bss"),
    "ram-executable": Fault(ram(clear=NX), "w^x", "guest RAM"),
    "ram-read-only": Fault(ram(clear=W), "rights", "guest RAM"),
    "user-page": Fault(user_page, "user", ".bss"),
    "ram-shared": Fault(ram(clear=C), "view", "guest RAM.*should be private"),
    "code-shared": Fault(bits(".text", clear=C), "view", ".text"),
    "stack-shared": Fault(bits(".stack", clear=C), "view", ".stack"),
    "ring-private": Fault(bits(".ring", set_bits=C), "view", ".ring.*should be shared"),
    "table-pointer-shared": Fault(bits(".text", clear=C, level=2), "table-shared", "PD entry"),
    "both-views": Fault(alias(".bss", P | W | NX), "two-views", ".bss"),
    "ring-also-private": Fault(ring_alias, "two-views", ".ring"),
    "alias": Fault(alias(".bss", P | W | NX | C), "alias", ".bss"),
    "no-stack-guard": Fault(guard(".stack"), "guard", "below .stack"),
    "no-fault-stack-guard": Fault(guard(".fault_stack"), "guard", "below .fault_stack"),
    "image-page-missing": Fault(bits(".bss", clear=P), "missing", ".bss"),
    "pages-swapped": Fault(swapped, "place", ".bss"),
    "ram-missing": Fault(ram(clear=P), "ram-missing", "^RAM at (GPA|ram_addr) 0x40000000 to 0x80000000 is not mapped"),
    "ram-shifted": Fault(ram_shifted, "ram-place", "is not at GPA"),
    "ram-at-null": Fault(ram_at_null, "null", "^0x0 to 0x200000 .* is where a wiped pointer leads"),
    "helper-in-window": Fault(helper_in_window, "helper-reachable", r"\(guest RAM\)", HOMED),
    "device-mapped": Fault(device, "unexpected", "0xfee00000"),
    "vmsa-elsewhere": Fault(vmsa_elsewhere, "vmsa-place", "VMSAs", ("regions", "isolated")),
    "above-maxphyaddr": Fault(bits(".bss", set_bits=1 << 48), "reserved", "MAXPHYADDR"),
    "reserved-bit": Fault(not_aligned, "reserved", "not aligned"),
    "large-root": Fault(large_root, "reserved", "no large pages"),
    "code-global": Fault(bits(".text", set_bits=G), "global", ".text.* global"),
    "ram-global": Fault(ram(set_bits=G), "global", "guest RAM"),
    "code-uncached": Fault(bits(".text", set_bits=PCD | PWT), "write-back", ".text.* UC "),
    "secret-pat": Fault(bits(".secret", set_bits=PAT | PWT), "write-back", ".secret.* WT "),
    "ring-uncached": Fault(bits(".ring", set_bits=PCD | PWT), "write-back", ".ring.* UC "),
    "ram-uncached": Fault(ram(set_bits=PCD), "write-back", "guest RAM.* UC- "),
    "ram-pat": Fault(ram(set_bits=1 << 12 | PCD), "write-back", "guest RAM.* UC- "),
    "key": Fault(bits(".bss", set_bits=5 << 59), "key", ".bss.* protection key 5"),
    "table-uncached": Fault(uncached_table, "entry", "^PD entry .* has PCD$"),
    "table-global": Fault(bits(".text", set_bits=G, level=3), "entry", "^PDPT entry .* has G$"),
    "bit-52": Fault(bits(".text", set_bits=1 << 52), "entry", "^PT entry .* has AVL52$"),
    "bits-9-to-11": Fault(bits(".bss", set_bits=0b101 << 9), "entry", "^PT entry .* has AVL9 and AVL11$"),
    "not-accessed": Fault(bits(".text", clear=A), "entry", "^PT entry .* is without A$"),
    "not-dirty": Fault(ram(clear=D), "entry", "^PDPT entry .* is without D$"),
    "not-present-with-address": Fault(no_table, "entry", "is not present, and not zero"),
    "user-in-leaf": Fault(bits(".text", set_bits=U), "entry", "^PT entry .* has US$"),
    "user-in-pointer": Fault(bits(".text", set_bits=U, level=4), "entry", "^PML4 entry .* has US$"),
    "nothing-executable-below": Fault(bits(".text", set_bits=NX, level=3), "rights", r".text.* r-- .*should be r-x"),
    "nothing-writable-below": Fault(bits(".bss", clear=W, level=2), "rights", r".bss.* r-- .*should be rw-"),
    "pointer-not-writable": Fault(bits(".bss", clear=W, level=4), "entry", "^PML4 entry .* is without RW$"),
    "code-of-the-host": Fault(bits(".text", clear=C), "code-shared", ".text"),
    "table-of-the-host": Fault(alias(".tables", P | NX), "table-exposed", "in shared memory"),
    "device-private": Fault(device, "device-private", "0xfee00000", ("alias-gpa",)),
    "loop": Fault(loop, "loop", "serves as PML4 and PDPT and PD and PT"),
    "table-outside": Fault(far_table, "table-missing", "outside the memory"),
}
"""Every fault by name."""
