# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# What unicorn tells of a block of instructions that it has translated, taken note of in machine code of the computer that
# emulates where the block is known to have nothing that is watched: by all of its bytes, which lie where a page of
# instructions is known to (`Fetched`). All else goes to `told.slow`, which gets the same arguments. Names of fields are
# those of blocks.py, fetched.NAME of native.py; tb.NAME of unicorn's uc_tb.
#
# Source of the calling convention: System V ABI for AMD64, 3.2.3.
#
# void native_block(uc rdi, uc_tb *block rsi, uc_tb *before rdx, struct told *rcx)

.equ PAGE_SHIFT, 12
.equ PAGE_BYTES, 1 << PAGE_SHIFT

.reg PC, r8
.reg CODE, r11
.reg KNOWN, r10
.reg SIZE, r9d
.reg INSTRUCTIONS, eax
.reg TRIES, r8d                         # once its address has been used

.text
.global native_block
native_block:
    mov qword ptr [rcx + told.told], 1
    # The flag first, then the bus: mh_emulator/dram/bus.py.
    mov eax, 1
    mov r10, [rcx + told.native]
    xchg [r10], rax
    mov r10, [rcx + told.taken]
    cmp qword ptr [r10], 0
    jne .Lslow

    # Its bytes, in a page that is known.
    mov PC, [rsi + tb.pc]
    movzx SIZE, word ptr [rsi + tb.size]
    mov rax, PC
    shr rax, PAGE_SHIFT
    mov r10d, eax
    and r10d, fetched.places - 1
    shl r10d, fetched.shift
    add r10, [rcx + told.fetched]
    cmp rax, [r10 + fetched.page]
    jne .Lslow
    mov CODE, [r10 + fetched.frame]
    shl CODE, PAGE_SHIFT
    mov eax, r8d
    and eax, PAGE_BYTES - 1
    add CODE, rax
    add eax, SIZE
    cmp eax, PAGE_BYTES
    ja .Lslow
    add CODE, [rcx + told.host]

    # What is known lies at its address or in the next places, each filled once and for all.
    mov rax, known.factor
    imul rax, PC
    shr rax, known.shift
    shl rax, known.entry_shift
    mov KNOWN, [rcx + told.known]
    add KNOWN, rax
    movzx INSTRUCTIONS, word ptr [rsi + tb.icount]
    mov TRIES, known.tries
    push rdi
    push rsi
    push rcx
.Ltry:
    cmp [KNOWN + known.size], SIZE
    jne .Lother
    cmp [KNOWN + known.instructions], INSTRUCTIONS
    jne .Lother
    mov rsi, CODE
    mov rdi, [KNOWN + known.code]
    mov ecx, SIZE
    repe cmpsb
    je .Lfound
.Lother:
    add KNOWN, sizeof.known
    dec TRIES
    jnz .Ltry
    pop rcx
    pop rsi
    pop rdi
.Lslow:
    mov rax, [rcx + told.native]
    mov qword ptr [rax], 0
    jmp qword ptr [rcx + told.slow]

.Lfound:
    pop rcx
    pop rsi
    pop rdi
    inc qword ptr [rcx + told.answered]
    mov rax, [rcx + told.native]
    mov qword ptr [rax], 0
    ret
