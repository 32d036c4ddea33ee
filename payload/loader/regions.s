# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The region tuples of an image that the mirror sees elsewhere than at its home: all at one distance, the first from byte 0
# on. An image without tuples lies at its home.

.include "state.inc"

.extern below

.equ PAGE_MASK, MH_PAGE_BYTES - 1

.text

# As the checks of descriptor.s: r12 is the image, r14 the end of guest-physical space; carry where something is wrong.
.global check_regions
check_regions:
    movzx ecx, word ptr [r12 + mh_descriptor.scheme]
    cmp ecx, 32                 # survives one more, one less: 31 is no scheme, and 32 is 0 to BT, which is none
    jae .Lbad
    mov r9d, [r12 + mh_descriptor.region_count]
    test r9d, r9d
    jnz .Ltuples
    mov eax, MH_SCHEMES_AT_HOME
    bt eax, ecx
    jnc .Lbad
    mov rax, [r12 + mh_descriptor.home]
    cmp [r12 + mh_descriptor.link_base], rax
    jne .Lbad
    ret
.Ltuples:
    mov eax, MH_SCHEMES_WITH_TUPLES
    bt eax, ecx
    jnc .Lbad
    cmp r9d, MH_HANDOVER_REGIONS
    ja .Lbad
    mov r8d, [r12 + mh_descriptor.region_offset]
    add r8, r12
    mov r10, [r8 + mh_region.mirror_gpa]
.Ltuple:
    call check_tuple
    jc .Lbad
    add r8, sizeof.mh_region
    dec r9d
    jnz .Ltuple
    clc
    ret

# The tuple at r8; r10 is where the mirror sees the first one, which so is at distance 0: at home. Keeps r8 to r14.
check_tuple:
    mov rax, [r8 + mh_region.main_gpa]
    mov rdx, [r8 + mh_region.length]
    mov rdi, [r8 + mh_region.mirror_gpa]
    mov rcx, rax
    or rcx, rdx
    or rcx, rdi
    test ecx, PAGE_MASK
    jnz .Lbad
    test rdx, rdx
    jz .Lbad
    sub rax, [r12 + mh_descriptor.home]
    mov rsi, rax
    mov rcx, [r12 + mh_descriptor.memory_bytes]
    call below
    jc .Lbad
    mov rax, rdi
    mov rcx, r14
    call below
    jc .Lbad
    sub rdi, r10
    cmp rdi, rsi
    jne .Lbad
    # Pages from the rings on are shared.
    mov eax, [r12 + mh_descriptor.ring_offset]
    xor ecx, ecx
    cmp rsi, rax
    setae cl
    cmp [r8 + mh_region.kind], rcx
    jne .Lbad
    ret

.if MH_REGION_PRIVATE != 0 || MH_REGION_SHARED != 1
    .error "the kinds of regions are numbered in another way"
.endif

.Lbad:
    stc
    ret
