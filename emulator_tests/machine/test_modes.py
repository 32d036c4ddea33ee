"""Real mode, protected mode, and the way from there into long mode: what firmware begins with."""

from __future__ import annotations

import struct

from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmsa import VMSA

from emulator_tests.machine.guests import (
    HEAP,
    IDT,
    KERNEL_SS,
    PAGE,
    RSP0,
    STACK,
    TEXT,
    TSS,
    USER_SS,
    Guest,
    assemble,
    run_to_halt,
)
from mh_abi import abi
from mh_builder.image.model import Image
from mh_builder.image.reset import RESET_PAGE, write_reset
from mh_builder.image.vmsa import hosted
from mh_builder.parts import PARTS
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.engine import MSR_EFER
from mh_emulator.cpu.registers import CR0_PE, EFER_LMA, EFER_LME, EFER_NXE, Hidden, Registers, Segments
from mh_emulator.dram.process import Place
from mh_emulator.host.launch import Launch
from mh_emulator.host.mirror import Mirror
from mh_emulator.host.placement import place
from mh_emulator.host.site import Site, prepare
from mh_emulator.host.view import MirrorSlot
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

MILAN = PARTS["milan"]
RESET = Registers.reset(MILAN.signature)
WORD = 0x1234_5678


def test_reset_is_what_an_owner_measures() -> None:
    """sev-snp-measure's page of the first vCPU, as QEMU has KVM make it."""
    theirs = next(VMSA(SevMode.SEV_ES, 0, MILAN.signature, 0).pages(1))
    ours = vmsa.make(RESET, fpu=True)
    assert ours == bytes(theirs)
    assert vmsa.load(ours).with_changes(cr4=0, tr=RESET.tr, ldtr=RESET.ldtr) == RESET


def from_reset(image: Image) -> tuple[Site, Mirror]:
    """A launched guest, and its mirror with a vCPU behind RESET: `.reset` lies in the firmware's place."""
    helper = hosted(image, MILAN.c_bit)
    site = prepare(Platform(MILAN, 64 << 20, 1), place(PAGE, helper), helper)
    launch = Launch(site.platform, site.vm, GuestOwner(POLICY, helper=helper.digest(MILAN.c_bit)))
    page = Place(site.platform.memory(PAGE), 0)
    launch.load(*site.loaded[0])
    launch.load(page, write_reset(image))
    launch.finish(Secret.fresh(abi.mh_protection.MH_PROTECTION_SEV).table(), site.secrets)
    mirror = site.mirror()
    site.helper.clear_rings()
    ram = [MirrorSlot(one.gpa, one.size, site.memory, one.ram_addr) for one in site.placement.topology.blocks]
    mirror.show([*ram, MirrorSlot(RESET_PAGE, PAGE, page.memory, 0)])
    mirror.vcpu.set_registers(RESET)
    return site, mirror


def test_a_helper_starts_from_the_reset_vector(images: dict[str, Image]) -> None:
    """On the way, at each instruction, another vCPU gets the registers and goes on."""
    site, mirror = from_reset(images["alias-gpa"])
    vcpu, other = mirror.vcpu, mirror.vm.create_vcpu()
    modes = []
    state = vcpu.get_registers()
    assert state == RESET
    while not state.is_64_bit:
        mode = (state.cr0 & CR0_PE, state.cr0 >> 31, state.efer & EFER_LMA, state.hidden.cs.attributes >> 8)
        modes += [mode] if mode not in modes else []
        assert vmsa.load(vmsa.store(bytes(PAGE), state)) == state
        other.set_registers(state)
        assert other.run(1) == Exit(Reason.LIMIT)
        vcpu, other = other, vcpu
        state = vcpu.get_registers()
    assert modes == [(0, 0, 0, 0x0), (1, 0, 0, 0x0), (1, 0, 0, 0xC), (1, 1, EFER_LMA, 0xC)]
    assert vcpu.run() == Exit(Reason.HLT)
    ring = abi.mh_ring(site.helper.place.memory.read_raw(site.helper.ring(0).offset, len(abi.mh_ring)))
    assert (ring.magic, ring.state) == (abi.MH_RING_MAGIC, abi.mh_ring_state.MH_RING_READY)


def test_without_paging_all_is_private_and_lma_follows_cr0() -> None:
    """Code of 32 bits leaves long mode and comes back; between, it writes a page that the host cannot read."""
    guest = Guest()
    code = f"""
    .code32
        mov ecx, {MSR_EFER:#x}
        mov eax, cr0
        btr eax, 31
        mov cr0, eax
        mov dword ptr [{HEAP:#x}], {WORD:#x}
        rdmsr
        mov ebx, eax
        mov eax, cr0
        bts eax, 31
        mov cr0, eax
        rdmsr
        hlt
    """
    state = guest.registers(cs=0x30, ds=KERNEL_SS, hidden=Segments(cs=Hidden(0xFFFF_FFFF, 0xC9B)))
    vcpu = guest.launch(code)
    vcpu.set_registers(state)
    end = run_to_halt(vcpu)
    assert (end.rbx, end.rax) == (state.efer & ~EFER_LMA, state.efer)
    assert guest.word(HEAP) & 0xFFFF_FFFF == WORD
    assert guest.memory.read_raw(HEAP, 4) != WORD.to_bytes(4, "little")


def test_efer_is_written_before_paging() -> None:
    """LME, and LMA comes with CR0.PG."""
    guest = Guest()
    code = f".code32\n mov ecx, {MSR_EFER:#x}\n mov eax, {EFER_LME | EFER_NXE:#x}\n xor edx, edx\n wrmsr\n rdmsr\n hlt"
    vcpu = guest.launch(code)
    state = guest.registers(cs=0x30, ds=KERNEL_SS, hidden=Segments(cs=Hidden(0xFFFF_FFFF, 0xC9B)))
    vcpu.set_registers(state.with_changes(cr0=CR0_PE, efer=0))
    assert run_to_halt(vcpu).rax == EFER_LME | EFER_NXE
    vcpu.set_registers(state.with_changes(rip=TEXT))
    assert run_to_halt(vcpu).rax == EFER_LME | EFER_NXE | EFER_LMA


PROTECTED = Segments(cs=Hidden(0xFFFF_FFFF, 0xC9B))
HANDLER = 0x3_0000


def protected(code: str, handler: str, **changes: object) -> tuple[Guest, Vcpu]:
    """A guest in protected mode without paging, whose vectors 6, 13 and 0x40 lead to `handler`; 0x41 is not present."""
    guest = Guest()
    guest.contents[TEXT] = assemble(f".code32\n{code}")
    guest.contents[HANDLER] = assemble(f".code32\n{handler}")
    for vector in (6, 13, 0x40, 0x41):
        rights = 0x8E if vector == 6 else 0x6E if vector == 0x41 else 0xEE
        guest.patch(IDT + 8 * vector, struct.pack("<HHBBH", HANDLER & 0xFFFF, 0x30, 0, rights, HANDLER >> 16))
    guest.patch(TSS + 4, struct.pack("<IH", RSP0, KERNEL_SS))
    vcpu = guest.launch()
    state = guest.registers(cs=0x30, ds=KERNEL_SS, hidden=PROTECTED, cr0=CR0_PE, efer=0, rsp=STACK, rflags=0x202)
    vcpu.set_registers(state.with_changes(**changes))
    return guest, vcpu


def test_exceptions_in_protected_mode_have_frames_of_32_bits() -> None:
    guest, vcpu = protected("ud2", "hlt")
    end = run_to_halt(vcpu)
    assert (end.rsp, end.rflags & 0x202) == (STACK - 12, 2)
    assert struct.unpack("<3I", guest.private(end.rsp, 12)) == (TEXT, 0x30, 0x202)


def test_int_in_protected_mode_goes_by_a_trap_gate_and_back() -> None:
    guest, vcpu = protected("int 0x40\n hlt", "inc ebx\n iretd")
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(IDT + 8 * 0x40 + 5), b"\xef")
    end = run_to_halt(vcpu)
    assert (end.rip, end.rbx, end.rsp, end.rflags & 0x202) == (TEXT + 3, 1, STACK, 0x202)


def test_a_gate_that_is_not_present_is_a_fault_with_its_own_error_code() -> None:
    """#NP has no gate here at all, which is #GP, and two contributory ones make #DF, which has none: a triple fault."""
    _, vcpu = protected("int 0x41", "hlt")
    assert vcpu.run() == Exit(Reason.SHUTDOWN)


def test_another_level_gets_the_stack_of_the_tss() -> None:
    user = Hidden(0xFFFF_FFFF, 0xCFB)
    guest, vcpu = protected("int 0x40", "hlt", cs=0x33, ss=USER_SS, hidden=PROTECTED._replace(cs=user))
    end = run_to_halt(vcpu)
    assert (end.rsp, end.ss, end.cs, end.privilege) == (RSP0 - 20, KERNEL_SS, 0x30, 0)
    assert struct.unpack("<5I", guest.private(end.rsp, 20)) == (TEXT + 2, 0x33, 0x202, STACK, USER_SS)


def test_real_mode_has_vectors() -> None:
    guest = Guest()
    guest.contents = {0: struct.pack("<2H", 0x20, 0x800) * 256, 0x8020: b"\xf4", 0x8100: assemble(".code16\n int 0x21")}
    vcpu = guest.launch(rip=0x8100)
    vcpu.set_registers(RESET.with_changes(cs=0, cs_base=0, rip=0x8100, rsp=0x7000, rflags=0x202))
    end = run_to_halt(vcpu)
    assert (end.cs, end.cs_base, end.rip, end.rsp & 0xFFFF) == (0x800, 0x8000, 0x21, 0x6FFA)
    assert struct.unpack("<3H", guest.private(0x6FFA, 6)) == (0x8102, 0, 0x202)


OUT_80 = b"\xe6\x80"


def test_what_leaves_the_guest_in_a_first_block_of_32_bit_code() -> None:
    """In 64-bit code it would be a part of a number."""
    guest, vcpu = protected("hlt", "hlt")
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(TEXT), b"\x48\xb8" + bytes(4) + OUT_80 + b"\x90\x90\xf4")
    exit_ = vcpu.run()
    assert (exit_.reason, exit_.port) == (Reason.IO, 0x80)


def test_what_leaves_the_guest_in_a_first_block_of_64_bit_code() -> None:
    """In 32-bit and in 16-bit code the number before it would have a RET, behind which nothing is executed."""
    guest = Guest()
    guest.contents[TEXT] = b"\x48\xb8" + b"\0\0\xc3\0\xc3\0\0\0" + OUT_80 + b"\xf4"
    exit_ = guest.launch().run()
    assert (exit_.reason, exit_.port) == (Reason.IO, 0x80)
