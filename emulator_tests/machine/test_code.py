"""Code that changes under the CPU's feet, and instructions that it must execute right."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    CODE,
    DATA,
    HEAP,
    HEAP_WORD,
    PAGE,
    RW,
    SHARED,
    TEXT,
    Guest,
    assemble,
    caught,
    gprs,
    run_to_halt,
)
from mh_builder.parts import PARTS


def test_code_that_the_host_replaced_is_what_runs_next() -> None:
    guest = Guest()
    vcpu = guest.launch("mov eax, 1\n hlt")
    assert run_to_halt(vcpu).rax == 1
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(TEXT), assemble("mov eax, 2\n hlt"))
    vcpu.set_registers(guest.registers())
    assert run_to_halt(vcpu).rax == 2


def test_code_whose_ciphertext_the_host_changed_runs_as_garbage() -> None:
    guest = Guest()
    vcpu = guest.launch("mov eax, 1\n hlt")
    run_to_halt(vcpu)
    guest.memory.write_raw(TEXT, bytes(16))
    vcpu.set_registers(guest.registers(rax=0))
    vcpu.run(100)
    assert vcpu.get_registers().rip != TEXT + 6


def test_instructions_that_the_guest_writes_itself() -> None:
    guest = Guest()
    guest.tables.map(TEXT, TEXT, CODE | RW)
    vcpu = guest.launch(
        "xor ebx, ebx\nagain:\n mov eax, 1\n inc ebx\n cmp ebx, 2\n je done\n"
        "mov byte ptr [rip + again + 1], 7\n jmp again\ndone: hlt"
    )
    assert run_to_halt(vcpu).rax == 7


def test_a_function_that_is_written_twice_from_elsewhere() -> None:
    """Its last form is RDMSR of an MSR that nobody has: #GP, where the engine alone would read zero."""
    guest = Guest()
    guest.tables.map(TEXT + PAGE, TEXT + PAGE, CODE | RW)
    guest.contents[TEXT + PAGE] = assemble("inc r8\n ret")
    nops, rdmsr = assemble("nop\n nop\n nop\n ret").hex(), assemble("rdmsr\n nop\n ret").hex()
    writes = [f"mov dword ptr [rbx], 0x{bytes.fromhex(code)[::-1].hex()}\n call rbx\n" for code in (nops, rdmsr)]
    vcpu = guest.launch(f"call rbx\n {''.join(writes)} ud2", rbx=TEXT + PAGE, r8=0, rcx=0x1234)
    fault = caught(vcpu)
    assert (fault.vector, fault.rip, vcpu.get_registers().r8) == (13, TEXT + PAGE, 1)


def test_trapping_instructions_that_the_guest_writes_itself() -> None:
    guest = Guest()
    guest.tables.map(TEXT, TEXT, CODE | RW)
    # INC EBX; HLT over two NOPs that have been executed before.
    vcpu = guest.launch("again: nop\n nop\n nop\n mov dword ptr [rip + again], 0x90f4c3ff\n jmp again")
    assert run_to_halt(vcpu).rip == TEXT + 3


def test_code_written_through_another_mapping_and_through_the_shared_view() -> None:
    guest = Guest()
    guest.tables.map(HEAP + 0x10_0000, TEXT + PAGE, DATA)
    guest.contents[TEXT] = assemble(
        f"mov rdi, {TEXT + PAGE}\n call rdi\n mov dword ptr [{HEAP + 0x10_0000 + 1}], 5\n call rdi\n mov ebx, eax\n"
        f"mov rcx, [{SHARED + TEXT + PAGE}]\n call rdi\n mov [{SHARED + TEXT + PAGE}], rcx\n call rdi\n hlt"
    )
    guest.code(TEXT + PAGE, "mov eax, 1\n ret")
    state = run_to_halt(guest.launch())
    assert (state.rbx, state.rax) == (5, 5)


def test_another_vcpu_of_the_vm_sees_stores_at_once_also_into_code() -> None:
    guest = Guest()
    guest.tables.map(HEAP + 0x10_0000, TEXT, DATA)
    guest.code(TEXT, "mov eax, 1\n mov rbx, [rdi]\n hlt")
    guest.code(TEXT + PAGE, f"mov byte ptr [{HEAP + 0x10_0001}], 9\n mov qword ptr [rdi], 4\n hlt")
    first = guest.launch(rdi=HEAP)
    second = guest.vm.create_vcpu()
    second.set_registers(guest.registers(rip=TEXT + PAGE, rdi=HEAP))
    assert gprs(run_to_halt(first), "rax rbx") == {"rax": 1, "rbx": HEAP_WORD}
    run_to_halt(second)
    first.set_registers(guest.registers(rdi=HEAP))
    assert gprs(run_to_halt(first), "rax rbx") == {"rax": 9, "rbx": 4}


def test_two_vcpus_flip_the_view_of_one_page_under_each_other() -> None:
    guest = Guest()
    guest.code(TEXT, f"again: mov rax, [{HEAP}]\n mov rbx, [{HEAP + PAGE}]\n hlt\n jmp again")
    guest.code(TEXT + PAGE, f"again: mov rax, [{SHARED + HEAP}]\n hlt\n jmp again")
    first = guest.launch()
    raw = int.from_bytes(guest.memory.read_raw(HEAP, 8), "little")
    second = guest.vm.create_vcpu()
    second.set_registers(guest.registers(rip=TEXT + PAGE))
    for _ in range(5):
        assert run_to_halt(first).rax == HEAP_WORD
        assert run_to_halt(second).rax == raw


@pytest.mark.parametrize("part", PARTS)
def test_aes_gcm_instructions_give_what_the_standard_says(part: str) -> None:
    # FIPS 197, appendix B: one round is enough to tell a wrong byte order; PCLMULQDQ of x * x.
    guest = Guest(part)
    block = bytes.fromhex("193de3bea0f4e22b9ac68d2ae9f84808")
    round_key = bytes.fromhex("a0fafe1788542cb123a339392a6c7605")
    guest.contents[HEAP] = block + round_key
    vcpu = guest.launch(
        f"movdqu xmm0, [{HEAP}]\n movdqu xmm1, [{HEAP + 16}]\n aesenc xmm0, xmm1\n"
        "mov eax, 2\n movq xmm2, rax\n pclmulqdq xmm2, xmm2, 0\n hlt"
    )
    state = run_to_halt(vcpu)
    assert state.xmm[0].to_bytes(16, "little") == bytes.fromhex("a49c7ff2689f352b6b5bea43026a5049")
    assert state.xmm[2] == 4
