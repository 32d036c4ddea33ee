"""A guest of a few instructions that goes on elsewhere by way of the landing; here the test moves its memory."""

from __future__ import annotations

from collections.abc import Callable

from emulator_tests.machine.guests import HANDLERS, MEMORY, PAGE, Guest, assemble
from mh_abi import abi
from mh_builder.landing import Landing
from mh_builder.parts import PARTS
from mh_builder.save_area import Segment, get, get_segment, put, put_segment
from mh_emulator.cpu.registers import SEGMENT_NAMES, Hidden, Registers, Segments, SystemSegment
from mh_emulator.dram.process import UserMemory
from mh_emulator.host.landing import registers
from mh_emulator.kvm import EsVcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.psp.policy import Policy

End = abi.mh_landing_end
Change = Callable[[bytearray], None]
"""Of a VMSA on its way."""
WAY = HANDLERS + 0x400
"""Where the guest's kernel has POP RDX with IRETQ behind it."""
AT = 1 << 32
HALTS = Exit(Reason.HLT)
TERMINATE, SET_SHIFT, REASON_SHIFT = 0x100, 12, 16


def source(part: str = "milan", levels: int = 4, way: str = "pop rdx\n iretq") -> Guest:
    """An SEV-ES guest with a way back in the page of its handlers, behind what is none; every handler halts."""
    guest = Guest(part, es=True, levels=levels)
    guest.patch(WAY - 8, b"\x5b\xc3" + b"\x57\x48\xcf" + b"\x60\x48\xcf")  # POP with RET, PUSH and 60 with IRETQ
    guest.patch(WAY, assemble(way))
    return guest


def vmsa_of(guest: Guest, vcpu: EsVcpu) -> bytes:
    """That of a vCPU which has left the guest, as only the holder of the memory key reads it."""
    return guest.platform.dram.read_private(guest.vm.asid, vcpu.vmsa.spa(0), PAGE)


class Target:
    """A guest whose vCPU is at the landing; nothing has arrived."""

    def __init__(self, guest: Guest, levels: int | None = None) -> None:
        self.guest = Guest(guest.part, es=True, seed=2)
        self.landing = Landing(AT, PARTS[guest.part].c_bit, levels or guest.levels)
        vm, contents = self.guest.vm, self.landing.contents
        self.memory: UserMemory = self.guest.platform.memory(len(contents))
        self.memory.write_raw(0, contents)
        self.guest.memory.write_raw(0, bytes(MEMORY))
        vm.set_user_memory_region(1, AT, self.memory.size, self.memory, 0)
        vm.sev_init2()
        vcpu = vm.create_vcpu()
        assert isinstance(vcpu, EsVcpu)
        self.vcpu = vcpu
        vcpu.set_registers(registers(self.landing))
        vm.sev_launch_start(Policy.ES)
        for memory in (self.guest.memory, self.memory):
            vm.sev_launch_update_data(memory, 0, memory.size)
        vm.sev_launch_update_vmsa()
        vm.sev_launch_measure()
        vm.sev_launch_finish()

    def receive(self, guest: Guest, vmsa: bytes) -> None:
        """Have all of its memory, and that VMSA where the landing looks for it."""
        dram, asid = self.guest.platform.dram, self.guest.vm.asid
        for gpa in range(0, MEMORY, PAGE):
            dram.write_private(asid, self.guest.spa(gpa), guest.private(gpa, PAGE))
        dram.write_private(asid, self.memory.spa(self.landing.state_offset), vmsa)


def arrived(guest: Guest, vcpu: EsVcpu, change: Change = lambda _: None) -> Target:
    """Where that guest is to go on, with its registers changed on their way."""
    page = bytearray(vmsa_of(guest, vcpu))
    change(page)
    target = Target(guest)
    target.receive(guest, bytes(page))
    return target


def refused(exit_: Exit) -> End:
    """Why the landing has asked for the end."""
    assert exit_.reason is Reason.SYSTEM_EVENT, exit_
    known = TERMINATE | abi.MH_LANDING_REASON_SET << SET_SHIFT
    assert exit_.value & ~(0xFF << REASON_SHIFT) == known
    return End(exit_.value >> REASON_SHIFT)


def launched(guest: Guest, text: str = "hlt", **state: object) -> EsVcpu:
    """Its vCPU has left the guest before the first instruction."""
    vcpu = guest.launch(text, **state)
    assert isinstance(vcpu, EsVcpu)
    assert vcpu.run(0) == Exit(Reason.LIMIT)
    return vcpu


def differences(one: Guest, other: Guest) -> list[int]:
    """GPAs of bytes in which their memory differs."""
    found = []
    for gpa in range(0, MEMORY, PAGE):
        mine, theirs = one.private(gpa, PAGE), other.private(gpa, PAGE)
        if mine != theirs:
            found += [gpa + at for at in range(PAGE) if mine[at] != theirs[at]]
    return found


def meant(state: Registers) -> Registers:
    """Without what segments hide that no instruction can use."""
    hidden = [Hidden(0, 0) if getattr(state, name) < 4 else getattr(state.hidden, name) for name in SEGMENT_NAMES]
    ldtr = state.ldtr if state.ldtr.selector & ~3 else SystemSegment()
    return state.with_changes(hidden=Segments(*hidden), ldtr=ldtr)


def goes_on(guest: Guest, vcpu: EsVcpu, change: Change = lambda _: None) -> tuple[Registers, list[int]]:
    """Registers where both halt, the same; and in which bytes memory differs then."""
    target = arrived(guest, vcpu, change)
    assert (vcpu.run(), target.vcpu.run()) == (HALTS, HALTS)
    stays, moves = meant(guest.inside(vcpu)), meant(target.guest.inside(target.vcpu))
    assert moves == stays
    return moves, differences(guest, target.guest)


def number(name: str, value: int) -> Change:
    return lambda page: put(page, name, value)


def bits(name: str, mask: int) -> Change:
    """With these inverted."""
    return lambda page: put(page, name, get(page, name) ^ mask)


def segment(name: str, **changes: int) -> Change:
    return lambda page: put_segment(page, name, get_segment(page, name)._replace(**changes))


def both(one: Change, other: Change) -> Change:
    def change(page: bytearray) -> None:
        one(page)
        other(page)

    return change


def whole(name: str, value: Segment) -> Change:
    return lambda page: put_segment(page, name, value)
