# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# entry64: long mode, paging on through our tables. Nothing else of the start state is trusted, and nothing
# of an earlier run survives: a host that starts the helper anew finds no session.

.include "descriptors.inc"
.include "state.inc"

.extern gdt_pointer
.extern gdt_tss
.extern idt_pointer
.extern tss
.extern detect_features
.extern forget_counts
.extern serve
.extern wipe_session
.extern linker.stack_top

.equ CR0_MP, 1 << 1
.equ CR0_EM, 1 << 2
.equ CR0_TS, 1 << 3
.equ CR0_NE, 1 << 5
.equ CR0_WP, 1 << 16
.equ CR4_OSFXSR, 1 << 9
.equ CR4_OSXMMEXCPT, 1 << 10
.equ TSS_PRESENT_AVAILABLE, 0x89

.text
.global entry64
entry64:
    cli
    cld
    mov rsp, offset linker.stack_top
    lgdt [rip + gdt_pointer]
    push SELECTOR_CODE
    lea rax, [rip + .Lreloaded]
    push rax
    retfq
.Lreloaded:
    mov eax, SELECTOR_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax

    mov rax, cr0
    and rax, ~(CR0_EM | CR0_TS)
    or rax, CR0_WP | CR0_NE | CR0_MP
    mov cr0, rax
    mov rax, cr4
    or rax, CR4_OSFXSR | CR4_OSXMMEXCPT
    mov cr4, rax

    call load_tables
    call detect_features
    call wipe_session
    call forget_counts
    xor eax, eax
    mov [rip + state_phase], eax
    mov [rip + state_head], eax
    call open_ring
    jmp serve

# The TSS descriptor is written whole: after an earlier start it would be busy. APM volume 2, figure 4-22.
load_tables:
    lea rax, [rip + tss]
    mov rdx, rax
    mov rcx, rax
    and eax, 0x00ffffff
    shl rax, 16
    or rax, TSS_BYTES - 1
    shr rcx, 24
    and ecx, 0xff
    shl rcx, 56
    or rax, rcx
    mov ecx, TSS_PRESENT_AVAILABLE
    shl rcx, 40
    or rax, rcx
    shr rdx, 32
    mov [rip + gdt_tss], rax
    mov [rip + gdt_tss + 8], rdx
    mov eax, SELECTOR_TSS
    ltr ax
    lidt [rip + idt_pointer]
    ret

open_ring:
    mov r12, [rip + linker.params + mh_params.ring_va]
    mov rax, MH_RING_MAGIC
    mov [r12 + mh_ring.magic], rax
    mov word ptr [r12 + mh_ring.version], MH_ABI_VERSION
    mov word ptr [r12 + mh_ring.entries], MH_RING_ENTRIES
    mov eax, [rip + state_features]
    mov [r12 + mh_ring.features], eax
    mov dword ptr [r12 + mh_ring.head], 0
    mov dword ptr [r12 + mh_ring.state], MH_RING_READY
    ret
