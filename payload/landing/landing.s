# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Where the vCPU of an SEV-ES guest begins at the target of a migration. It is measured, and lies behind all RAM, outside of what
# moves. The registers arrive in `state`, a page of its own; it loads them without any help of the guest's kernel, of which it needs
# a POP of a general register with IRETQ behind it, in code that the supervisor may execute: Linux returns so from a nested NMI.
#
# The last instruction under its own page tables is MOV CR3 from that register. It lies in `stub`, a page that these tables
# map where the guest's have the POP, so that it ends where the POP begins; what is fetched next is the guest's own. Nothing of the
# guest's memory is written but 48 bytes below its stack, which any kernel takes for free.
#
# edi: GPA of `landing`, rsi: the C-bit, rdx: its view of all guest-physical memory, ecx: 39 or 48, where the index of
# its root table begins in an address. rbp is the VMSA throughout.

.equ PAGE, 0x1000
.equ ENTRY_PRESENT, 1 << 0
.equ ENTRY_WRITABLE, 1 << 1

.equ EFER_NEEDED, 1 << 8 | 1 << 10 | 1 << 11
.equ CR0_PG_PE, 1 << 31 | 1 << 0
.equ CR4_LA57, 1 << 12
.equ CR4_PAE, 1 << 5
.equ CR4_REFUSED, 1 << 22 | 1 << 23 | 1 << 24   # PKE, CET, PKS
.equ DR7_RESET, 0x400
.equ RFLAGS_VM, 1 << 17

.equ GHCB_TERMINATE, 0x100 | MH_LANDING_REASON_SET << 12

# Of a segment in a VMSA.
.equ segment.attributes, 2
.equ segment.limit, 4
.equ segment.base, 8
.equ ATTRIBUTE_LONG, 1 << 9

.equ TSS_RSP0, 4
.equ BELOW, 128                 # bytes that a process has below its stack
.equ FRAME_WORDS, 6             # what POP and IRETQ take
.equ MOV_CR3, 0x220f
.equ MOV_CR3_RAX, 0xd8
.equ MOV_CR3_BYTES, 3

# What refuses the state for `reason` under a condition.
.macro refuse condition, reason
    mov edi, \reason
    j\condition end
.endm

.text
.global landing
landing:
    mov [rip + base], rdi
    mov [rip + c_mask], rsi
    mov [rip + window], rdx
    mov [rip + top], rcx
    lea rbp, [rip + state]
.Lawait:
    mov rax, [rbp + vmsa.cr3]
    test rax, rax
    jnz .Larrived
    hlt
    jmp .Lawait
.Larrived:
    call check
    call find_way
    call make_stub
    call put_frame
    call load_vectors
    call load_msrs
    call load_control
    jmp load_segments

# What cannot be loaded, or would not be all of it.
check:
    mov rax, [rbp + vmsa.efer]
    not rax
    test eax, EFER_NEEDED
    refuse nz, MH_LANDING_MODE
    mov rax, [rbp + vmsa.cr0]
    not rax
    test eax, CR0_PG_PE
    refuse nz, MH_LANDING_MODE
    mov rax, cr4
    xor rax, [rbp + vmsa.cr4]
    test eax, CR4_LA57 | CR4_PAE
    refuse nz, MH_LANDING_MODE
    test dword ptr [rbp + vmsa.cr4], CR4_REFUSED
    refuse nz, MH_LANDING_FEATURE
    mov rax, [rbp + vmsa.xcr0]
    and rax, ~3
    or rax, [rbp + vmsa.xss]
    or rax, [rbp + vmsa.sev_features]
    or rax, [rbp + vmsa.dbgctl]
    mov ecx, [rbp + vmsa.pkru]
    or rax, rcx
    refuse nz, MH_LANDING_FEATURE
    cmp qword ptr [rbp + vmsa.dr7], DR7_RESET
    refuse ne, MH_LANDING_FEATURE
    test dword ptr [rbp + vmsa.rflags], RFLAGS_VM
    refuse nz, MH_LANDING_LEVEL
    movzx eax, byte ptr [rbp + vmsa.cpl]
    movzx ecx, word ptr [rbp + vmsa.cs]
    and ecx, 3
    cmp eax, ecx
    refuse ne, MH_LANDING_LEVEL
    cmp eax, 3
    je .Lprocess
    test eax, eax
    refuse nz, MH_LANDING_LEVEL
    test word ptr [rbp + vmsa.cs + segment.attributes], ATTRIBUTE_LONG
    refuse z, MH_LANDING_LEVEL
.Lprocess:
    mov rdi, [rbp + vmsa.rip]
    call is_canonical
    refuse a, MH_LANDING_ADDRESS
    ret

.include "walk.inc"

# Map MOV CR3 before r13.
make_stub:
    lea rbx, [rip + root]
    lea rsi, [rip + tables]
    mov ecx, [rip + top]
.Ltable:
    mov rdx, r13
    shr rdx, cl
    and edx, 511
    lea rax, [rip + landing]
    sub rax, rsi
    neg rax
    add rax, [rip + base]
    or rax, [rip + c_mask]
    or rax, ENTRY_PRESENT
    cmp ecx, 12
    je .Lstub
    or rax, ENTRY_WRITABLE
    mov [rbx + 8 * rdx], rax
    mov rbx, rsi
    add rsi, PAGE
    sub ecx, 9
    jmp .Ltable
.Lstub:
    mov [rbx + 8 * rdx], rax
    lea rax, [r13 - MOV_CR3_BYTES]
    mov [rip + target], rax
    and eax, PAGE - 1
    add rax, rsi
    mov word ptr [rax], MOV_CR3
    lea ecx, [r14 + MOV_CR3_RAX]
    mov [rax + 2], cl
    ret

# General registers as the stub has them, and what POP and IRETQ take.
put_frame:
    .irp name, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
    mov rax, [rbp + vmsa.\name]
    mov [rip + general.\name], rax
    .endr
    mov rax, [rbp + vmsa.rip]
    mov [rip + frame + 8], rax
    movzx eax, word ptr [rbp + vmsa.cs]
    mov [rip + frame + 16], rax
    mov rax, [rbp + vmsa.rflags]
    mov [rip + frame + 24], rax
    mov rax, [rbp + vmsa.rsp]
    mov [rip + frame + 32], rax
    movzx eax, word ptr [rbp + vmsa.ss]
    mov [rip + frame + 40], rax
    # That of the way takes CR3 to the stub, and its value comes by POP.
    lea rcx, [rip + general]
    lea rcx, [rcx + 8 * r14]
    mov rax, [rcx]
    mov [rip + frame], rax
    mov rax, [rbp + vmsa.cr3]
    mov [rcx], rax
    mov rbx, [rbp + vmsa.rsp]
    sub rbx, BELOW
    cmp byte ptr [rbp + vmsa.cpl], 0
    je .Lon_stack
    mov rdi, [rbp + vmsa.tr + segment.base]
    add rdi, TSS_RSP0
    call translate
    refuse c, MH_LANDING_STACK
    mov ebx, [rax]
    mov rdi, [rbp + vmsa.tr + segment.base]
    add rdi, TSS_RSP0 + 4
    call translate
    refuse c, MH_LANDING_STACK
    mov eax, [rax]
    shl rax, 32
    or rbx, rax
.Lon_stack:
    and rbx, -16
    sub rbx, 8 * FRAME_WORDS
    mov [rip + general.rsp], rbx
    lea rsi, [rip + frame]
    mov r12d, FRAME_WORDS
.Lword:
    mov rdi, rbx
    call translate
    refuse c, MH_LANDING_STACK
    mov rdx, [rsi]
    mov [rax], rdx
    add rsi, 8
    add rbx, 8
    dec r12d
    jnz .Lword
    ret

.include "load.inc"

# Any exception under its own IDT.
.global fault
fault:
    mov edi, MH_LANDING_FAULT

# end(edi: enum mh_landing_end): for good.
end:
    mov eax, edi
    shl eax, 16
    or eax, GHCB_TERMINATE
    xor edx, edx
    mov ecx, MH_MSR_GHCB
    wrmsr
    rep vmmcall                 # VMGEXIT
    jmp end

# Pages that are written, from here to the end of the stack.
.balign PAGE
.global data
data:
general:
    .irp name, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
general.\name:
    .zero 8
    .endr
frame:
    .zero 8 * FRAME_WORDS
base:
    .zero 8
c_mask:
    .zero 8
window:
    .zero 8
top:
    .zero 8
target:
    .zero 8
table:
    .zero 16
descriptor:
    .zero 16
.balign 16
fx:
    .zero 512
.balign PAGE
    .zero PAGE
.global stack_end
stack_end:
# MOV CR3 is mapped by these: a table for each level below the root, and behind the last one the stub.
.global tables
tables:
    .zero 5 * PAGE
# GDT and IDT.
.global system
system:
    .zero PAGE
.global state
state:
    .zero PAGE
# Its page tables.
.global root
root:
    .zero 8 * PAGE
