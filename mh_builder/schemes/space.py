"""An address space: where guest RAM and the helper appear in the mirror VM, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mh_abi import abi
from mh_abi.errors import MigrationHelperError
from mh_builder.paging import GIB, KIB, MIB, PAGE_BYTES, TIB, Origin, Span
from mh_builder.parts import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELPER_VA = 0xFFFF_8000_0000_0000
"""Virtual address of byte 0 of the image. It never moves, so only page tables need the load base."""

RAM_VA = 64 * TIB
"""Virtual address of request address 0: a multiple of every page's size, and above every request address.

So a request address that is used without it reaches no RAM.
"""

NULL_BYTES = 2 * MIB
"""Nothing is mapped at virtual addresses below this: a wiped pointer faults, and so does a field behind it."""

SHARED_OFFSET = 256 * GIB
"""The shared view of a page lies this far above the place its private view would have."""

DEFAULT_HOME = 64 * MIB
"""Main GPA that the firmware reserves for the helper."""

HOME_START = NULL_BYTES
"""A home begins here at the lowest, for the 32-bit start is mapped at its own address.

It also leaves out the real-mode vectors, the VGA window and option ROMs.
"""

HOME_LIMIT = 2 * GIB
"""A home ends below this: q35 starts its PCI hole here at the lowest, and below it `ram_addr` equals GPA."""

MEMORY_LIMIT = 4 * GIB
"""`memory_bytes` of the descriptor has 32 bits."""

DEFAULT_RAM_LIMIT = 64 * GIB
MAX_RAM_LIMIT = 4 * TIB

HIGH_BASE = 4 * TIB
"""Mirror GPA of a helper that lies above all RAM; below the C-bit and the reduced width of every part."""

C_BITS = range(abi.MH_CBIT_FLOOR, abi.MH_HIGHEST_CBIT + 1)
"""Where a C-bit can be: in a page-table entry's address field, above what 32-bit addresses reach."""


LARGE_PAGES = (2 * MIB, GIB)
"""What the largest page of a part may be, in bytes."""


class LayoutError(MigrationHelperError, ValueError):
    """An address space that cannot be built; the message names the things and their numbers."""


class Start(Enum):
    """Who sets the registers with which the helper starts."""

    HOST = "host"
    """The host, in plain SEV."""
    ES = "es"
    """SEV-ES: a measured VMSA. The helper then executes nothing that raises #VC."""
    SNP = "snp"
    """SEV-SNP: the same, at VMPL0 of the guest itself."""

    @property
    def measured(self) -> bool:
        """Whether a VMSA has the registers."""
        return self is not Start.HOST


MIRROR_STARTS = (Start.HOST, Start.ES)
"""Where the helper runs in a mirror."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a build may choose. Addresses and sizes in bytes; `base` None takes the scheme's own."""

    home: int = DEFAULT_HOME
    ram_limit: int = DEFAULT_RAM_LIMIT
    base: int | None = None
    window_bit: int = 42
    """MAXPHYADDR - reduction - 1 of the part: 42 up to Milan, 45 from Genoa on (CPUID 8000_001F, 8000_0008)."""
    c_bit: int | None = None
    """Fixes the C-bit at link time; None leaves it to the loader."""
    start: Start = Start.HOST
    largest_page: int = GIB
    """Bytes of the largest page that the part translates: 1 GiB or 2 MiB (CPUID 8000_0001 EDX[26])."""
    vector_bits: int = 256
    """Of the widest vectors that a kernel is linked for; which kernel is taken is decided when the helper runs."""
    vcpus: int = 1
    """vCPUs that may work at once, each with a ring of its own."""
    strict: bool = False
    """Whether there is room for a strict finish: MH_AUTHENTICATOR_BYTES for every page of RAM."""
    protocols: tuple[int, int] = (abi.MH_PROTOCOL_LOW, abi.MH_PROTOCOL_HIGH)
    """The lowest and the highest version that the helper says it speaks with another."""
    owner: bytes = b""
    """The owner's X25519 key, MH_OWNER_KEY_BYTES, for a helper that fetches its record by a report; else none."""

    @staticmethod
    def for_part(part: Part) -> Options:
        """What a build for that part takes of it, and the defaults."""
        return Options(window_bit=part.window_bit, largest_page=part.largest_page, vector_bits=part.vector_bits)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes from `start` up to, not including, `end`."""

    start: int
    end: int

    def overlaps(self, other: Range) -> bool:
        """Whether any byte lies in both."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{self.start:#x} to {self.end:#x}"


PCI_HOLE = Range(0xB000_0000, 4 * GIB)
"""GPAs at which q35 never has RAM: ECAM, PCI memory, I/O APIC, HPET, local APIC, flash (QEMU, hw/i386/pc_q35.c).

It begins lower where a guest has more RAM than fits below.
"""


@dataclass(frozen=True, slots=True)
class RegionTuple:
    """The thread's (main GPA, length, mirror GPA)."""

    main_gpa: int
    length: int
    mirror_gpa: int
    is_private: bool


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """One scheme, decided for one image of `memory_bytes` bytes, the last `ring_bytes` of them shared."""

    name: str
    scheme_id: int
    addresses: int
    """What requests carry: enum mh_address_kind."""
    options: Options
    base: int
    """Mirror GPA of the image."""
    home: int | None
    """Main GPA of the image, None where the main VM has no part in it."""
    window: int
    """Mirror GPA of request address 0."""
    moves: bool
    """Whether a loader may choose another base."""
    memory_bytes: int
    devices: Range | None = None
    """Request addresses at which there is no RAM."""

    @property
    def helper(self) -> Range:
        """The image in the mirror's guest-physical space."""
        return Range(self.base, self.base + self.memory_bytes)

    @property
    def ram(self) -> Range:
        """Guest RAM in the mirror's guest-physical space."""
        return Range(self.window, self.window + self.options.ram_limit)

    @property
    def vmsas(self) -> Range:
        """Where the host may show VMSAs: behind all RAM, in images that move behind the image, with which it moves."""
        start = self.helper.end if self.moves else self.ram.end
        return Range(start, start + abi.MH_VMSA_BYTES)

    @property
    def c_mask(self) -> int:
        """The C-bit as a mask where the build fixes it, else 0."""
        return 0 if self.options.c_bit is None else 1 << self.options.c_bit

    @property
    def protected(self) -> tuple[Range, ...]:
        """Request addresses that reach the image, or no RAM."""
        own = () if self.home is None else (Range(self.home, self.home + self.memory_bytes),)
        return own if self.devices is None else (*own, self.devices)

    def ram_spans(self) -> Iterator[Span]:
        """The RAM window as mappings, without what is protected."""
        start = 0
        for hole in (*self.protected, Range(self.options.ram_limit, self.options.ram_limit)):
            end = min(hole.start, self.options.ram_limit)
            if end > start:
                yield self._ram_span(start, end - start)
            start = hole.end

    def vmsa_span(self) -> Span:
        """The window for VMSAs as a mapping."""
        if self.moves:
            return self.image_span(self.memory_bytes, abi.MH_VMSA_BYTES, writable=True, executable=False, private=True)
        return self._ram_span(self.vmsas.start - self.window, abi.MH_VMSA_BYTES)

    def _ram_span(self, start: int, size: int) -> Span:
        """`size` bytes from request address `start`, or behind all of those."""
        return Span(RAM_VA + start, self.window + start, size, writable=True, executable=False, private=True)

    def image_span(self, offset: int, size: int, *, writable: bool, executable: bool, private: bool) -> Span:
        """`size` bytes of the image at `offset`, in the view that they have."""
        va = HELPER_VA + offset + (0 if private else SHARED_OFFSET)
        return Span(va, offset, size, writable, executable, private, Origin.IMAGE)

    def identity_span(self, offset: int) -> Span:
        """The page of the image at `offset`, to be executed at its own mirror GPA while paging is turned on."""
        return Span(
            self.base + offset, offset, PAGE_BYTES, writable=False, executable=True, private=True, origin=Origin.IMAGE
        )

    def tuples(self, ring_offset: int) -> tuple[RegionTuple, ...]:
        """What the guest tells the host about the image, when the mirror sees it at another address."""
        if self.home is None or self.home == self.base:
            return ()
        private = RegionTuple(self.home, ring_offset, self.base, is_private=True)
        shared_bytes = self.memory_bytes - ring_offset
        return private, RegionTuple(self.home + ring_offset, shared_bytes, self.base + ring_offset, is_private=False)


@dataclass(frozen=True, slots=True)
class Scheme:
    """One address-space scheme: all that the rest of the toolchain asks of it."""

    name: str
    """As users type it."""
    number: int
    """enum mh_scheme."""
    space: Callable[[Options, int], AddressSpace]
    """Decides the address space for an image of that many bytes. Raises `LayoutError`."""
    is_low: bool = False
    """The image stays at its home, below 4 GiB, where 32-bit code can run without paging."""
    window: int | None = None
    """Mirror GPA of the RAM window, where that tells it from another scheme of its number."""
    starts: tuple[Start, ...] = MIRROR_STARTS


def checked(space: AddressSpace) -> AddressSpace:
    """Return `space`, or raise `LayoutError` for the first thing that cannot be."""
    options = space.options
    if not 0 < options.ram_limit <= MAX_RAM_LIMIT:
        raise LayoutError(f"{space.name}: RAM limit {options.ram_limit:#x} is not in 0x1 to {MAX_RAM_LIMIT:#x}")
    for what, number in (("RAM limit", options.ram_limit), ("home", options.home), ("base", space.base)):
        if number % PAGE_BYTES or number < 0:
            raise LayoutError(f"{space.name}: {what} {number:#x} is not a multiple of {PAGE_BYTES:#x}")
    _check_size(space)
    if not 1 <= options.vcpus <= abi.MH_MAX_RINGS:
        raise LayoutError(f"{space.name}: {options.vcpus} vCPUs are not 1 to {abi.MH_MAX_RINGS}")
    if space.moves and space.ram.overlaps(space.helper):
        raise LayoutError(f"{space.name}: region helper {space.helper} overlaps region RAM {space.ram}")
    if options.c_bit is not None and options.c_bit not in C_BITS:
        raise LayoutError(f"{space.name}: C-bit {options.c_bit} is not in {C_BITS.start} to {C_BITS.stop - 1}")
    _check_owner(space)
    if options.largest_page not in LARGE_PAGES:
        raise LayoutError(f"{space.name}: largest page {options.largest_page:#x} is neither {2 * MIB:#x} nor {GIB:#x}")
    _check_reach(space)
    return space


def _check_owner(space: AddressSpace) -> None:
    options = space.options
    name, expected = f"{space.name}: owner's key", f"expected {abi.MH_OWNER_KEY_BYTES} bytes that are not all zero"
    if options.start is not Start.SNP and options.owner:
        raise LayoutError(f"{name}: start {options.start.value} has LAUNCH_SECRET, only start snp needs one")
    if options.start is Start.SNP and (len(options.owner) != abi.MH_OWNER_KEY_BYTES or not any(options.owner)):
        raise LayoutError(f"{name}: {expected}, found {len(options.owner)}: {options.owner.hex()}")


def _check_size(space: AddressSpace) -> None:
    if space.home is not None and space.home < HOME_START:
        raise LayoutError(f"{space.name}: home {space.home:#x} is below {HOME_START:#x}")
    if space.home is not None and space.home + space.memory_bytes > HOME_LIMIT:
        raise LayoutError(
            f"{space.name}: helper of {space.memory_bytes:#x} bytes at home {space.home:#x} "
            f"ends at {space.home + space.memory_bytes:#x}, above {HOME_LIMIT:#x}"
        )
    if space.memory_bytes >= MEMORY_LIMIT:
        raise LayoutError(f"{space.name}: helper of {space.memory_bytes:#x} bytes, below {MEMORY_LIMIT:#x} fit")


def _check_reach(space: AddressSpace) -> None:
    bit = abi.MH_LOWEST_CBIT if space.options.c_bit is None else space.options.c_bit
    for what, place in (("helper", space.helper), ("RAM", space.ram), ("VMSAs", space.vmsas)):
        if place.end > 1 << bit:
            raise LayoutError(f"{space.name}: region {what} {place} reaches the C-bit {1 << bit:#x}")


def human(size: int) -> str:
    """`size` in bytes as people say it, to five digits: 64 MiB, 511.94 GiB."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.5g} {name}"
    return f"{size} bytes"
