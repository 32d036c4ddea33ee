# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Unicorn's UC_HOOK_BLOCK, natively: void record(uc_engine *uc, uint64_t address, uint32_t size, struct watch *watch).
#
# The table has an entry for every byte of a blob's code: the size of the longest block that began there, the target of
# the conditional branch that ends there (all ones without one), and whether that fell through, and was taken.

.equ WATCH_BASE, 0
.equ WATCH_BYTES, 8
.equ WATCH_LAST, 16             # where the last block ended, all ones if that was elsewhere
.equ WATCH_TABLE, 24

.equ ENTRY_SHIFT, 4
.equ ENTRY_SIZE, 0
.equ ENTRY_TARGET, 4
.equ ENTRY_FELL, 8
.equ ENTRY_TAKEN, 12

.text
.global record
record:
    mov r8, [rcx + WATCH_LAST]
    mov qword ptr [rcx + WATCH_LAST], -1
    sub rsi, [rcx + WATCH_BASE]
    cmp rsi, [rcx + WATCH_BYTES]
    jae 9f
    mov r9, [rcx + WATCH_TABLE]
    cmp r8, -1
    je 2f
    mov r10, r8
    shl r10, ENTRY_SHIFT
    add r10, r9
    cmp r8, rsi
    jne 1f
    mov dword ptr [r10 + ENTRY_FELL], 1
1:  cmp esi, [r10 + ENTRY_TARGET]
    jne 2f
    mov dword ptr [r10 + ENTRY_TAKEN], 1
2:  lea r8, [rsi + rdx]
    cmp r8, [rcx + WATCH_BYTES]
    ja 9f
    mov [rcx + WATCH_LAST], r8
    shl rsi, ENTRY_SHIFT
    add rsi, r9
    cmp edx, [rsi + ENTRY_SIZE]
    jbe 9f
    mov [rsi + ENTRY_SIZE], edx
9:  ret
