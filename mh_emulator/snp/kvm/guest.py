"""A small guest that KVM runs under SNP: 2 MiB, code of a case's own, and a handler for every exception."""

from __future__ import annotations

import struct

from mh_builder.asm import assemble_text
from mh_builder.firmware.snp import PageType
from mh_builder.flat_segments import CS, GDT, SS, interrupt_gate
from mh_builder.paging import ACCESSED, DIRTY, GIB, LARGE, MIB, PAGE_BYTES, PRESENT, WRITABLE
from mh_builder.save_area import SNP_ACTIVE, put
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import Registers, Table
from mh_emulator.kvm import SnpVcpu, SnpVm
from mh_emulator.kvm.exits import Exit
from mh_emulator.kvm.hypercalls import MAP_GPA_RANGE
from mh_emulator.psp.snp.context import KEY_BYTES
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.psp.snp.secrets import VMPCK_OFFSET
from mh_emulator.psp.status import CommandError, Status
from mh_emulator.rmp.entry import ALL_PERMS
from mh_emulator.snp.channel import Mailbox
from mh_emulator.snp_platform import SnpPlatform

RAM_BYTES = 2 * MIB
DATA, OTHER, AP_VMSA, GHCB, FRESH = 0x1_2000, 0x1_3000, 0x1_4000, 0x2_0000, 0x3_0000
"""A page with WORD; one that could be a VMSA of VMPL0; one that can be of `ap_vmpl`; what the guest shares; what it
has not validated."""
TEXT, AP_TEXT, HANDLERS = 0x1_0000, 0x1_0800, 0x1_0F00
SHARED = GIB
"""Where the same memory lies without the C-bit."""
WORD = 0x5EC2_E700_0000_0001
"""At DATA."""

_ROOT, _UPPER, _PRIVATE, _SHARED_TABLE, _SYSTEM, _STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x1_2000
_FIRST, _END, _SECRETS = 0x1000, 0x1_5000, 0x1_5000
_TABLE, _LEAF = PRESENT | WRITABLE | ACCESSED | DIRTY, PRESENT | WRITABLE | ACCESSED | DIRTY | LARGE
_IDT_OFFSET, _VECTORS = 0x100, 32
_GHCB_CODE, _GHCB_INFO_1, _GHCB_INFO_2, _GHCB_RAX, _GHCB_BITMAP = 0x390, 0x398, 0x3A0, 0x1F8, 0x3F0

LAUNCHED = range(_FIRST, _SECRETS + PAGE_BYTES, PAGE_BYTES)
"""Pages of the launch."""

PVALIDATE = "xor ecx, ecx\n mov edx, 1\n .byte 0xf2, 0x0f, 0x01, 0xff\n setc bl\n"
"""Of the page in RAX; EAX has the code, and BL says whether nothing has changed."""
REGISTER_GHCB = f"mov ecx, 0xc0010130\n xor edx, edx\n mov eax, {GHCB | 0x12}\n wrmsr\n rep vmmcall\n"


def rmpadjust(gpa: int, vmpl: int, perms: int, *, vmsa_bit: int = 0) -> str:
    """Code that shares a page out."""
    rights = vmpl | perms << 8 | vmsa_bit << 16
    return f"mov rax, {gpa}\n xor ecx, ecx\n mov edx, {rights}\n .byte 0xf3, 0x0f, 0x01, 0xfe\n"


def share_all(vmpl: int) -> str:
    """Code that gives all pages of the launch to `vmpl`, but for DATA and the VMSA."""
    pages = (page for page in range(_FIRST, _END, PAGE_BYTES) if page not in (DATA, AP_VMSA))
    return "".join(rmpadjust(page, vmpl, ALL_PERMS) for page in pages)


def request(code: int, info_1: int = 0, info_2: int = 0, rax: int = 0) -> str:
    """Code that asks KVM by the GHCB, which is registered."""
    values = {_GHCB_CODE: code, _GHCB_INFO_1: info_1, _GHCB_INFO_2: info_2, _GHCB_RAX: rax}
    bitmap = sum(1 << offset // 8 for offset in values)
    words = values | {_GHCB_BITMAP: bitmap % (1 << 64), _GHCB_BITMAP + 8: bitmap >> 64}
    stores = "".join(f"mov rax, {value}\n mov [rdi + {offset}], rax\n" for offset, value in words.items())
    call = f"mov ecx, 0xc0010130\n xor edx, edx\n mov eax, {GHCB}\n wrmsr\n rep vmmcall\n"
    return f"mov rdi, {SHARED + GHCB}\n{stores}{call}"


class KvmMailbox(Mailbox):
    """VMPCK0 of a guest whose messages KVM carries."""

    def __init__(self, vm: SnpVm, key: bytes) -> None:
        self._vm = vm
        self.key = key
        self.vmpck = 0
        self.count = 0

    def carry(self, message: bytes) -> bytes:
        """SNP_GUEST_REQUEST, as KVM makes it of what the guest asks. Raises `CommandError`."""
        status, page = self._vm.request(message)
        if status:
            raise CommandError("SNP_GUEST_REQUEST", Status(status))
        return page


class KvmGuest:
    """One guest with two vCPUs, launched; the first stands at `code`, the second's own code is `ap_code`."""

    def __init__(self, platform: SnpPlatform, code: str = "hlt", ap_code: str = "hlt", ap_vmpl: int = 1) -> None:
        self.platform = platform
        self.memory = platform.memory(RAM_BYTES)
        self._c_mask = 1 << platform.part.c_bit
        for gpa, data in self._contents(code, ap_code, ap_vmpl):
            self.memory.write_raw(gpa, data)
        self.vm = platform.create_vm()
        self.vcpus = self._launch()
        key = platform.dram.read_private(self.vm.asid, self.spa(_SECRETS) + VMPCK_OFFSET, KEY_BYTES)
        self.mailbox = KvmMailbox(self.vm, key)
        """The guest's end of its messages to the secure processor."""

    @property
    def gctx(self) -> int:
        """SPA of its context. Raises `ValueError` where the guest has none."""
        if self.vm.gctx is None:
            raise ValueError("the guest is closed")
        return self.vm.gctx

    def run(self, number: int = 0) -> Exit:
        """Run a vCPU until something is left for the host."""
        return self.vcpus[number].run()

    def inside(self, number: int = 0) -> Registers:
        """Registers of a vCPU, as the guest has them."""
        spa = self.vcpus[number].vmsa_spa
        if spa is None:
            raise ValueError(f"vCPU {number} has no VMSA")
        return vmsa.load(self.platform.dram.read_private(self.vm.asid, spa, PAGE_BYTES))

    def vector(self, number: int = 0) -> int | None:
        """The exception in whose handler a vCPU halted, or None."""
        vector = self.inside(number).rip - 1 - HANDLERS
        return vector if 0 <= vector < _VECTORS else None

    def spa(self, gpa: int) -> int:
        """Where a private page is."""
        spa = self.vm.private_spa(gpa)
        if spa is None:
            raise ValueError(f"no slot at {gpa:#x}")
        return spa

    def place(self, gpa: int, spa: int) -> None:
        """Have a private page elsewhere: a hostile kernel's doing."""
        self.vm.remap(gpa, spa)

    def mirror(self) -> SnpVm:
        """A mirror as KVM makes it; its vCPU is the last of `vcpus`."""
        mirror = self.platform.create_vm()
        mirror.copy_enc_context_from(self.vm)
        mirror.set_user_memory_region(0, 0, RAM_BYTES, self.memory, 0)
        self.vcpus.append(mirror.create_vcpu())
        return mirror

    def show_memory(self, mirror: SnpVm) -> None:
        """Have the private pages in the mirror too: what one guest_memfd for both would be."""
        mirror.set_memory_attributes(0, RAM_BYTES, private=True)
        for gpa in LAUNCHED:
            mirror.remap(gpa, self.spa(gpa))

    def start_ap(self) -> None:
        """Have the second vCPU go on with the guest's own VMSA, as KVM does for AP_CREATION."""
        self.vcpus[1].replace_vmsa(AP_VMSA)
        self.vcpus[1].init()

    def answered(self) -> tuple[int, int]:
        """SW_EXITINFO1 and 2 in the GHCB."""
        return struct.unpack("<QQ", self.memory.read_raw(GHCB + _GHCB_INFO_1, 16))

    def _launch(self) -> list[SnpVcpu]:
        vm = self.vm
        vm.set_user_memory_region(0, 0, RAM_BYTES, self.memory, 0)
        vm.enable_exit_hypercall(1 << MAP_GPA_RANGE)
        vm.sev_init2()
        vm.set_memory_attributes(0, RAM_BYTES, private=True)
        vm.set_memory_attributes(GHCB, PAGE_BYTES, private=False)
        vcpus = [vm.create_vcpu() for _ in range(2)]
        for vcpu in vcpus:
            vcpu.set_registers(self._registers(TEXT))
        vm.snp_launch_start(DEFAULT_POLICY)
        vm.snp_launch_update(_FIRST, self.memory, _FIRST, _END - _FIRST)
        vm.snp_launch_update(_SECRETS, self.memory, _SECRETS, PAGE_BYTES, PageType.SECRETS)
        vm.snp_launch_finish()
        return vcpus

    def _contents(self, code: str, ap_code: str, ap_vmpl: int) -> list[tuple[int, bytes]]:
        c_mask = self._c_mask
        entries = {
            _ROOT: (_UPPER | _TABLE | c_mask,),
            _UPPER: (_PRIVATE | _TABLE | c_mask, _SHARED_TABLE | _TABLE | c_mask),
            _PRIVATE: (_LEAF | c_mask,),
            _SHARED_TABLE: (_LEAF,),
        }
        return [
            *((gpa, struct.pack(f"<{len(words)}Q", *words)) for gpa, words in entries.items()),
            (_SYSTEM, GDT),
            (_SYSTEM + _IDT_OFFSET, b"".join(interrupt_gate(HANDLERS + vector) for vector in range(_VECTORS))),
            (TEXT, _assemble(code)),
            (AP_TEXT, _assemble(ap_code)),
            (HANDLERS, b"\xf4" * _VECTORS),
            (DATA, struct.pack("<Q", WORD)),
            (AP_VMSA, self._ap_vmsa(ap_vmpl)),
            (OTHER, self._ap_vmsa(0)),
        ]

    def _ap_vmsa(self, vmpl: int) -> bytes:
        page = bytearray(vmsa.make(self._registers(AP_TEXT), fpu=True, features=SNP_ACTIVE))
        put(page, "vmpl", vmpl)
        return bytes(page)

    def _registers(self, rip: int) -> Registers:
        return Registers.long_mode(rip, _STACK, _ROOT | self._c_mask).with_changes(
            cs=CS,
            ss=SS,
            gdtr=Table(_SYSTEM, 3 * 8 - 1),
            idtr=Table(_SYSTEM + _IDT_OFFSET, _VECTORS * 16 - 1),
        )


def _assemble(code: str) -> bytes:
    unit = assemble_text(f".text\n{code}\n", "guest.s")
    data = next(section.data for section in unit.sections if section.name == ".text")
    if len(data) > HANDLERS - AP_TEXT:
        raise ValueError(f"{len(data):#x} bytes of code, there is room for {HANDLERS - AP_TEXT:#x}")
    return data
