"""Who reaches what: the helper's memory from either VM, the firmware's code, the highest RAM."""

from __future__ import annotations

from dataclasses import replace

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES, level_shift
from mh_builder.parts import Part
from mh_builder.report.layout import RAM, Region
from mh_builder.schemes import EVERY_SCHEME
from mh_builder.schemes.space import HOME_LIMIT, MAX_RAM_LIMIT, PCI_HOLE, RAM_VA, Options, human
from mh_compare.columns.column import Column, Value
from mh_compare.subject import MirrorSubject, Subject

_LEVELS = (4, 5)


def from_main(subject: MirrorSubject) -> Value:
    """Bytes of the helper's memory behind any slot of the main VM: its kernel may write them, as SEV has no rights."""
    machine = subject.source.machine
    helper = {
        machine.helper_memory.spa(machine.helper_offset + at)
        for at in range(0, machine.helper.memory_bytes, PAGE_BYTES)
    }
    topology = machine.placement.topology
    ram = [topology.gpa(page) for page in machine.memory.populated()]
    reached = PAGE_BYTES * len(helper & {machine.vm.spa(gpa) for gpa in ram})
    return Value(human(reached) if reached else "nothing", reached, f"of {human(machine.helper.memory_bytes)}")


def from_mirror(subject: Subject) -> Value:
    """Bytes of the helper's memory that its own page tables let it write."""
    regions = [region for region in subject.layout.regions if region.mapping.writable]
    own = sum(region.mapping.size for region in regions if _is_own(region, subject))
    window = sum(_overlap(region, subject) for region in regions if region.purpose == RAM)
    code = sum(region.mapping.size for region in regions if region.mapping.executable)
    return Value(human(own), own, f"{code} bytes of code; {window} bytes through the RAM window")


def _is_own(region: Region, subject: Subject) -> bool:
    helper = subject.image.space.helper
    return helper.start <= region.mapping.gpa < helper.end


def _overlap(region: Region, subject: Subject) -> int:
    """Bytes of the helper that a mapping of RAM reaches, by `ram_addr`, which is the GPA at a home."""
    home, backing = subject.image.space.home, region.backing
    if home is None or backing is None or backing.ram_addr is None:
        return 0
    end = backing.ram_addr + backing.size
    return max(0, min(end, home + subject.image.memory_bytes) - max(backing.ram_addr, home))


def firmware_code(subject: Subject) -> Value:
    """Bytes outside of the helper's image that its page tables let it execute."""
    regions = [region for region in subject.layout.regions if region.mapping.executable]
    size = sum(region.mapping.size for region in regions if not _is_own(region, subject))
    own = sum(region.mapping.size for region in regions if _is_own(region, subject))
    return Value(human(size) if size else "nothing", size, f"it executes {human(own)} of its own")


def ram_room(subject: Subject) -> Value:
    """The largest RAM for which the part's addresses have room beside a helper of this size."""
    rooms = {(part.name, levels): _room(subject, part, levels) for part in subject.parts for levels in _LEVELS}
    parts = [part.name for part in subject.parts]
    said = ", ".join(f"{part} {human(rooms[part, 4])}" for part in parts)
    more = [part for part in parts if rooms[part, 5] > rooms[part, 4]]
    five = f"more with 5 levels on {', '.join(more)}" if more else "no more with 5 levels"
    room = rooms[subject.part.name, subject.part.levels]
    return Value(human(room), room, f"{said}; {five}; a build takes {human(MAX_RAM_LIMIT)}")


def _room(subject: Subject, part: Part, levels: int) -> int:
    """Bytes of RAM: behind it lie the VMSAs, and a helper that moves; by GPA the PCI hole is in between."""
    options = replace(subject.options, window_bit=Options.for_part(part).window_bit)
    space = EVERY_SCHEME[subject.scheme].space(options, subject.image.memory_bytes)
    behind = abi.MH_VMSA_BYTES + (space.memory_bytes if space.moves else 0)
    by_gpa = min(1 << part.system_bits, 1 << part.c_bit) - space.window
    by_va = (1 << level_shift(levels + 1) - 1) - RAM_VA
    hole = 0 if space.devices is None else PCI_HOLE.end - HOME_LIMIT
    return min(by_gpa, by_va) - behind - hole


COLUMNS = (
    Column("main-writes", "memory of the helper that the guest's kernel can write", "bytes", from_main),
    Column("mirror-writes", "memory of the helper that it can write itself", "bytes", from_mirror),
    Column("firmware-code", "code of the firmware that the helper uses", "bytes", firmware_code),
    Column("ram-room", "RAM that the part's addresses have room for, by ram_addr", "bytes", ram_room),
)
