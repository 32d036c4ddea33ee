"""The host lies about memory: slots that show other pages than the scheme, or the guest's tuples, say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET
from mh_compare.arena import SOURCE, TARGET, TRANSPORT_KEY, Arena, Op, Side, export_entry
from mh_compare.attacks.attack import Attack
from mh_compare.guest_os import DATA, GuestOs, assemble
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import INSTRUCTIONS, Outcome, by_status, harmless, succeeds
from mh_emulator.dram.process import UserMemory
from mh_emulator.host.consent import MIGRATION_READY, MSR_KVM_MIGRATION_CONTROL
from mh_emulator.host.machine import Machine
from mh_emulator.host.mirror import Mirror
from mh_emulator.host.ring import Request
from mh_emulator.host.session import connect
from mh_emulator.host.side import one_page
from mh_emulator.host.site import Site
from mh_emulator.host.view import MirrorSlot
from mh_emulator.kvm import Vcpu

_NO_RMP = "Which page is behind a guest-physical address is up to the host in SEV and SEV-ES; in SNP the RMP decides."

NOP = b"\x90"


class Liar(Machine):
    """A host whose mirror shows at some guest-physical pages what `lie` says."""

    def __init__(self, site: Site, vcpu: Vcpu, mirror: Mirror) -> None:
        super().__init__(site, vcpu, mirror)
        self._lies: list[MirrorSlot] = []

    @classmethod
    def beside(cls, faithful: Machine) -> Liar:
        """Take a launched guest over from a faithful host."""
        return cls(faithful.site, faithful.vcpu, faithful.mirror)

    def lie(self, gpa: int, memory: UserMemory, offset: int, size: int = PAGE_BYTES) -> None:
        """Show the pages of `memory` from that of `offset` at the mirror's `gpa`."""
        self._lies.append(MirrorSlot(gpa & -PAGE_BYTES, size, memory, offset & -PAGE_BYTES))

    def lie_about_ram(self, address: int, memory: UserMemory, offset: int) -> None:
        """Show it where requests say `address`."""
        self.lie(self.helper.descriptor.window + address, memory, offset)

    def lie_now(self, gpa: int, memory: UserMemory, offset: int) -> None:
        """Show one page of `memory` there to a helper that has been started."""
        self.mirror.show(replace(slot, size=0) for slot in self.mirror_slots())
        self.lie(gpa, memory, offset)
        self.mirror.show(self.mirror_slots())

    def mirror_slots(self) -> list[MirrorSlot]:
        """The scheme's slots, cut where there is a lie."""
        slots = super().mirror_slots()
        for lie in self._lies:
            slots = [*_without(slots, lie), lie]
        return slots


def _without(slots: Iterable[MirrorSlot], hole: MirrorSlot) -> Iterator[MirrorSlot]:
    """What is left of the slots beside `hole`."""
    for slot in slots:
        below = min(max(hole.gpa - slot.gpa, 0), slot.size)
        above = min(max(hole.gpa + hole.size - slot.gpa, 0), slot.size)
        for start, end in ((0, below), (above, slot.size)):
            if end > start:
                yield MirrorSlot(slot.gpa + start, end - start, slot.memory, slot.offset + start)


def swap_guest_pages(arena: MirrorArena) -> Outcome:
    """Exchange two guest pages in the window of the source's mirror, then migrate the first."""
    machine = Liar.beside(arena.launch(arena.site(SOURCE)))
    for shown, page in ((0, 1), (1, 0)):
        machine.lie_about_ram(machine.request_address(arena.ram[shown]), machine.memory, arena.ram[page])
    source = arena.side(machine)
    connect(source.ring, arena.target.ring)
    address = machine.request_address(arena.ram[0])
    status = arena.target.put(address, source.export(address))
    if arena.target.machine.read_guest(arena.ram[0]) == arena.plaintext(1):
        return succeeds("the target's guest has the second page in the place of the first")
    return by_status(status, "the target's helper takes the packet")


def replace_helper(arena: MirrorArena) -> Outcome:
    """Show a guest page, which holds what the host sent to the guest, in the place of the helper's code."""
    machine = Liar.beside(arena.launch(arena.site(SOURCE)))
    entry = arena.offset("entry64")
    _received_by_guest(machine, arena.ram[0], entry, key_thief(arena))
    machine.lie(machine.base + entry, machine.memory, arena.ram[0])
    return stolen(arena.side(machine))


def export_helper(arena: MirrorArena) -> Outcome:
    """Show the launch secret at an unprotected address of the RAM window, then migrate that page."""
    machine = Liar.beside(arena.launch(arena.site(SOURCE)))
    address = machine.request_address(arena.ram[0])
    secret = machine.helper_offset + arena.helper.descriptor.secret_offset
    machine.lie_about_ram(address, machine.helper_memory, secret)
    source = arena.side(machine)
    connect(source.ring, arena.target.ring)
    status = arena.target.put(address, source.export(address))
    if TRANSPORT_KEY in arena.target.machine.read_guest(arena.ram[0]):
        return succeeds("the target's guest finds the transport key in its RAM; the host sees it sealed")
    return by_status(status, "the target's helper takes the packet")


def import_over_helper(arena: MirrorArena) -> Outcome:
    """Show the target's helper its own code in the RAM window, then have it import what the host sent to the guest."""
    machine = Liar.beside(arena.launch(arena.site(TARGET)))
    address = machine.request_address(arena.ram[0])
    machine.lie_about_ram(address, machine.helper_memory, machine.helper_offset + arena.offset("wipe_session"))
    target = arena.side(machine)
    thief = key_thief(arena)
    _received_by_guest(arena.source.machine, arena.ram[0], PAGE_BYTES - len(thief), thief, filler=NOP)
    connect(arena.source.ring, target.ring)
    target.ring.put_sealed(0, arena.source.export(address))
    # The page may also have what the helper runs next.
    for request in (one_page(Op.MH_OP_IMPORT, address), Request(Op.MH_OP_ABORT)):
        target.ring.submit(request.dumps(cookie=0))
        machine.mirror.vcpu.run(INSTRUCTIONS)
    return stolen(target)


def leave_out(arena: Arena[Side]) -> Outcome:
    """Name RAM that the mirror's slots do not have."""
    source = arena.exporting()
    source.ring.submit(export_entry(arena.helper.descriptor.ram_limit - PAGE_BYTES))
    source.run_on()
    return succeeds("the helper exports what is not there")


def key_thief(arena: Arena[Side]) -> bytes:
    """Code that copies the transport key into the ring and halts."""
    ring = arena.candidate.image.section(".ring").va + abi.MH_RING_DATA
    return assemble(
        f"mov rsi, {HELPER_VA + arena.key_offset:#x}\n mov rdi, {ring:#x}\n"
        f"mov ecx, {len(TRANSPORT_KEY)}\n rep movsb\n hlt"
    )


def stolen(side: Side) -> Outcome:
    """Whether the thief has been there."""
    if side.ring.read(abi.MH_RING_DATA, len(TRANSPORT_KEY)) == TRANSPORT_KEY:
        return succeeds("the mirror's vCPU runs the host's code; the ring shows the transport key")
    return harmless("the ring does not show the transport key")


def _received_by_guest(machine: Machine, ram_addr: int, offset: int, data: bytes, filler: bytes = b"\xcc") -> None:
    """Have the guest hold `data` at `offset` of a page: it came over the guest's network."""
    start = offset % PAGE_BYTES
    page = filler * start + data
    page += filler * (PAGE_BYTES - len(page))
    machine.platform.dram.write_private(machine.asid, machine.memory.spa(ram_addr), page)


def lie_to_host(arena: MirrorArena) -> Outcome:
    """Have the guest hand over a tuple that puts its own page into the mirror's window of RAM; then migrate."""
    machine = arena.launched()
    tuple_ = abi.mh_region(main_gpa=0, length=PAGE_BYTES, mirror_gpa=PAGE_BYTES, kind=abi.MH_REGION_PRIVATE)
    lie = abi.mh_handover(
        magic=abi.MH_HANDOVER_MAGIC,
        version=abi.MH_ABI_VERSION,
        count=1,
        regions=[tuple_] + [abi.mh_region()] * (abi.MH_HANDOVER_REGIONS - 1),
    )
    guest = GuestOs(machine)
    ring = HELPER_VA + SHARED_OFFSET + arena.helper.ring_offset
    guest.run(
        f"mov rsi, {DATA:#x}\n mov rdi, {ring:#x}\n mov ecx, {len(lie)}\n rep movsb\n"
        f"{guest.write_msr(MSR_KVM_MIGRATION_CONTROL, MIGRATION_READY)} hlt",
        lie.dumps(),
    )
    source = arena.side(machine)
    arena.alone(source)
    source.export(machine.request_address(arena.ram[0]))
    return harmless("the guest is not asked: the helper exports what it should")


ATTACKS = (
    Attack("guest-lies-in-tuples", "Guest OS hands over a tuple inside the RAM window", lie_to_host),
    Attack("host-swaps-pages", "Host's slots exchange two guest pages", swap_guest_pages, _NO_RMP),
    Attack(
        "host-replaces-helper",
        "Host's slots or tuples show a guest page as helper code",
        replace_helper,
        _NO_RMP,
    ),
    Attack("host-aliases-secret", "Host's slots show the helper's secret in the RAM window", export_helper, _NO_RMP),
    Attack("host-aliases-code", "Host's slots show the helper's code in the RAM window", import_over_helper, _NO_RMP),
    Attack("host-leaves-out-ram", "Host names RAM that no slot has", leave_out),
)
