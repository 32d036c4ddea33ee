# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Unicorn's UC_HOOK_BLOCK, natively: void count(uc_engine *uc, uint64_t address, uint32_t size, struct watch *watch).
#
# Counts the edges between blocks, each in a byte of its own that stays at 255: for every offset at which a block ends there are
# two, going on behind it and going where its last instruction says; for every offset at which one may begin there is one, being
# come to from elsewhere (RET, or a jump by a table). A block that begins where none may is the rest of one that an exit cut.

.equ WATCH_BASE, 0
.equ WATCH_BYTES, 8
.equ WATCH_LAST, 16             # where the last block ended, all ones if that was elsewhere
.equ WATCH_PLACES, 24           # for every offset: where the instruction goes that ends there, and whether a block may begin
.equ WATCH_COUNTS, 32
.equ WATCH_LEFT, 40             # blocks until `stop`
.equ WATCH_STOP, 48             # void stop(void)

.equ PLACE_SHIFT, 3
.equ PLACE_TARGET, 0
.equ PLACE_BEGINS, 4

.text
.global count
count:
    dec qword ptr [rcx + WATCH_LEFT]
    jz 8f
1:  mov r8, [rcx + WATCH_LAST]
    mov qword ptr [rcx + WATCH_LAST], -1
    sub rsi, [rcx + WATCH_BASE]
    cmp rsi, [rcx + WATCH_BYTES]
    jae 9f
    lea rax, [rsi + rdx]
    cmp rax, [rcx + WATCH_BYTES]
    ja 9f
    mov [rcx + WATCH_LAST], rax
    cmp r8, -1
    je 9f
    mov r9, [rcx + WATCH_PLACES]
    mov r10, rsi
    shl r10, PLACE_SHIFT
    cmp dword ptr [r9 + r10 + PLACE_BEGINS], 0
    je 9f
    mov r10, r8
    shl r10, PLACE_SHIFT
    lea rax, [r8 + r8]
    cmp r8, rsi
    je 2f
    inc rax
    cmp esi, [r9 + r10 + PLACE_TARGET]
    je 2f
    mov rax, [rcx + WATCH_BYTES]
    lea rax, [rax * 2 + 2]
    add rax, rsi
2:  add rax, [rcx + WATCH_COUNTS]
    inc byte ptr [rax]
    jnz 9f
    dec byte ptr [rax]
9:  ret
8:  push rcx
    push rsi
    push rdx
    call [rcx + WATCH_STOP]
    pop rdx
    pop rsi
    pop rcx
    jmp 1b
