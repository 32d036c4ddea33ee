# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# A call before an instruction that is made only while a flag is set, in machine code of the computer that emulates.
# mh_emulator/cpu/code_hooks.py has it called; names of fields are from there.
#
# Source of the calling convention: System V ABI for AMD64, 3.2.3.
#
# void native_gate(uc rdi, u64 address rsi, u32 size edx, struct gate *rcx)

.text
.global native_gate
native_gate:
    mov rax, [rcx + gate.flag]
    cmp qword ptr [rax], 0
    jne .Lopen
    ret
.Lopen:
    jmp qword ptr [rcx + gate.slow]
