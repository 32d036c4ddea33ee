"""How a layout's helper comes into memory: by firmware, in several pieces, in which mode of the CPU it begins."""

from __future__ import annotations

from dataclasses import replace

from mh_abi import abi
from mh_builder.paging import MIB
from mh_compare.arena import SOURCE, Op, Status
from mh_compare.attacks.launch import Roomy
from mh_compare.attacks.mapping import Liar
from mh_compare.columns.column import Column, Value
from mh_compare.subject import MirrorSubject, Subject
from mh_emulator.dram.process import Place
from mh_emulator.host import handover
from mh_emulator.host.machine import Machine

_ELSEWHERE = 128 * MIB
"""GPA and `ram_addr` of a second piece."""


def brought_by(subject: Subject) -> Value:
    """Who can bring the helper into memory: what the image says of its home."""
    home = subject.image.space.home
    if home is None:
        return Value("the host alone", detail="at launch: there is no main GPA at which firmware could put it")
    if not (abi.MH_SCHEMES_AT_HOME | abi.MH_SCHEMES_WITH_TUPLES) >> subject.image.space.scheme_id & 1:
        return Value("the host alone", detail="at launch, with the guest: firmware loads no such image")
    return Value("firmware or host", detail=f"at main GPA {home:#x}")


def start32(subject: Subject) -> Value:
    """Whether the image has an entry for 32-bit protected mode."""
    entry = subject.small.helper.descriptor.entry32
    if entry:
        return Value("yes", detail=f"at GPA {entry:#x}")
    return Value("no", detail="a measured VMSA starts it" if subject.start.measured else "it lies above 4 GiB")


def pieces(subject: MirrorSubject) -> Value:
    """Put the second half of the helper elsewhere, let it export a page, and ask it for that half by name."""
    arena = Roomy(subject.small)
    helper = arena.helper
    if helper.home is not None and not helper.hands_over:
        return Value("no", detail="the mirror sees the helper at its main GPA")
    site = arena.site(SOURCE)
    cut = helper.descriptor.secret_offset
    memory = site.memory if helper.hands_over else site.platform.memory(helper.memory_bytes)
    second = Place(memory, _ELSEWHERE if helper.hands_over else 0)
    code = site.helper.code
    loaded = ((site.helper.place, code[:cut]), (second, code[cut : helper.ring_offset]))
    machine = Liar.beside(arena.launch(replace(site, loaded=loaded, secrets=(second,))))
    size = helper.ring_offset - cut
    if helper.hands_over:
        machine.regions = _tuples(machine, cut, size)
    else:
        machine.lie(machine.base + cut, second.memory, second.offset, size)
    source = arena.side(machine)
    arena.alone(source)
    source.export(machine.request_address(arena.ram[0]))
    status = source.ask(Op.MH_OP_EXPORT, machine.request_address(_ELSEWHERE)) if helper.hands_over else None
    if status == Status.MH_DONE:
        return Value(
            "only at its home", detail=f"{len(machine.regions)} tuples work, but a piece elsewhere is exported"
        )
    return Value("yes", detail=f"two, {cut:#x} and {size:#x} bytes")


def _tuples(machine: Machine, cut: int, size: int) -> tuple[handover.Region, ...]:
    """The tuples with the second piece elsewhere, as the guest would write and the host read them."""
    private, *others = machine.regions
    first = private._replace(length=cut)
    second = private._replace(main_gpa=_ELSEWHERE, length=size, mirror_gpa=private.mirror_gpa + cut)
    window = machine.helper.descriptor.window
    ram = range(window, window + machine.helper.descriptor.ram_limit)
    limits = handover.Limits(machine.placement.topology, ram, machine.platform.part.physical_bits)
    return handover.read(handover.write((first, second, *others)), limits)


COLUMNS = (
    Column("brought-by", "what brings the helper into memory", "", brought_by),
    Column("start-32", "can be started in 32-bit mode", "", start32),
    Column("pieces", "a helper in several pieces", "", pieces),
)
