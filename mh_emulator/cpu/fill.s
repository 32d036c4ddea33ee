# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# unicorn's question for the page of an address, answered in machine code of the computer that emulates, for what needs
# nothing but a look: data, in frames that have a page and are held as the access sees them, allowed; and instructions
# that Python has looked at before, while they are still cached. All else is left, before anything has changed, to
# `fill.slow`, which gets the same arguments: mh_emulator/cpu/tlb.py, whose answers these are. Names of fields
# (fill.NAME, range.NAME, fetched.NAME) are those of native.py; control.NAME, of engine.py's Control.
#
# Source of the calling convention: System V ABI for AMD64, 3.2.3; of translation: mmu.py.
#
# bool native_fill(uc rdi, u64 va rsi, int access edx, uc_tlb_entry *rcx, struct fill *r8)

.equ ACCESS_WRITE, 17                   # unicorn's numbers (unicorn.h, uc_mem_type, uc_prot)
.equ ACCESS_FETCH, 18
.equ PROT_READ, 1
.equ PROT_WRITE, 2
.equ PROT_EXECUTE, 4
.equ entry.paddr, 0
.equ entry.perms, 8

.equ PRESENT, 1 << 0
.equ WRITABLE, 1 << 1
.equ USER, 1 << 2
.equ ACCESSED, 1 << 5
.equ DIRTY, 1 << 6
.equ LARGE, 1 << 7
.equ LARGE_PAT, 1 << 12
.equ NO_EXECUTE_BIT, 63
.equ PAGE_SHIFT, 12
.equ ENTRY_MASK, 511
.equ GIB_SHIFT, 30                      # of the largest leaf
.equ TOP_SHIFT, 39                      # of the root table with 4 levels
.equ LEVEL_BITS, 9

.equ CR0_WP, 1 << 16
.equ CR0_PG, 1 << 31
.equ CR4_PAE, 1 << 5
.equ CR4_LA57, 1 << 12
.equ CR4_SMAP, 1 << 21
.equ RFLAGS_AC, 1 << 18
.equ EFER_LME, 1 << 8
.equ EFER_NXE, 1 << 11
.equ CPL_MASK, 3

# The stack: a path of 5 entries, where they lie in this process; then the engine.
.equ path, 0
.equ saved_uc, 40
.equ FRAME_BYTES, 56

.reg FILL, rbx
.reg VA, rbp
.reg ACCESS, r12d
.reg ANSWER, r13
.reg TABLE, r14
.reg ENTRY, r14
.reg SHIFT, r15d
.reg CONTROL, r8
.reg EVERY, r9                          # bits that all entries have
.reg EVERY_LOW, r9d
.reg ANY, r10                           # bits that any entry has
.reg DEPTH, r11                         # entries of the path

.text
.global native_fill
native_fill:
    cmp qword ptr [r8 + fill.off], 0
    jne .Lslow
    mov r9, [r8 + fill.native]
    mov r10, [r8 + fill.taken]
    mov r11, [r8 + fill.patience]
    # The flag first, then the bus: mh_emulator/dram/bus.py.
.Lask:
    mov eax, 1
    xchg [r9], rax
    cmp qword ptr [r10], 0
    je .Lmine
    mov qword ptr [r9], 0
.Lwait:
    sub r11, 1
    jc .Lslow
    pause
    cmp qword ptr [r10], 0
    jne .Lwait
    jmp .Lask
.Lmine:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    sub rsp, FRAME_BYTES
    mov FILL, r8
    mov VA, rsi
    mov ACCESS, edx
    mov ANSWER, rcx
    mov [rsp + saved_uc], rdi
    mov rsi, [FILL + fill.numbers]
    mov rdx, [FILL + fill.places]
    mov ecx, fill.registers
    call qword ptr [FILL + fill.read_registers]
    mov CONTROL, [FILL + fill.control]

    # Long mode with paging only.
    test dword ptr [CONTROL + control.cr0], CR0_PG
    jz .Lback
    test dword ptr [CONTROL + control.cr4], CR4_PAE
    jz .Lback
    test dword ptr [FILL + fill.efer], EFER_LME
    jz .Lback

    # How many levels, and whether the address is canonical.
    mov SHIFT, TOP_SHIFT
    mov ecx, 64 - TOP_SHIFT - LEVEL_BITS
    test dword ptr [CONTROL + control.cr4], CR4_LA57
    jz 1f
    mov SHIFT, TOP_SHIFT + LEVEL_BITS
    mov ecx, 64 - TOP_SHIFT - 2 * LEVEL_BITS
1:  mov rax, VA
    shl rax, cl
    sar rax, cl
    cmp rax, VA
    jne .Lback

    mov TABLE, [CONTROL + control.cr3]
    and TABLE, [FILL + fill.address_mask]
    mov EVERY_LOW, WRITABLE | USER
    xor ANY, ANY
    xor DEPTH, DEPTH
.Llevel:
    mov ecx, SHIFT
    mov rdi, VA
    shr rdi, cl
    and edi, ENTRY_MASK
    lea rdi, [TABLE + rdi * 8]
    call populated
    jc .Lback
    mov rdx, rax
    shr rdx, PAGE_SHIFT
    mov rsi, [FILL + fill.views]
    mov edx, [rsi + rdx * 4]
    cmp edx, [FILL + fill.view]
    jne .Lback
    add rax, [FILL + fill.host]
    mov [rsp + DEPTH * 8 + path], rax
    inc DEPTH
    mov ENTRY, [rax]
    test ENTRY, PRESENT
    jz .Lback
    test ENTRY, [FILL + fill.reserved_mask]
    jnz .Lback
    and EVERY, ENTRY
    or ANY, ENTRY
    cmp SHIFT, PAGE_SHIFT
    je .Lleaf
    test ENTRY, LARGE
    jnz .Llarge
    and TABLE, [FILL + fill.address_mask]
    sub SHIFT, LEVEL_BITS
    jmp .Llevel

.Llarge:
    cmp SHIFT, GIB_SHIFT
    ja .Lback
.Lleaf:
    # rdx: the offset within the leaf; its GPA into rdi.
    mov ecx, SHIFT
    mov edx, 1
    shl rdx, cl
    dec rdx
    mov rdi, ENTRY
    and rdi, [FILL + fill.address_mask]
    mov rax, rdi
    and rax, rdx
    and rax, ~LARGE_PAT
    jnz .Lback
    not rdx
    and rdi, rdx
    not rdx
    and rdx, VA
    or rdi, rdx

    # Rights: esi says whether a write is allowed.
    bt ANY, NO_EXECUTE_BIT
    jnc 1f
    test dword ptr [FILL + fill.efer], EFER_NXE
    jz .Lback
1:  test dword ptr [CONTROL + control.cs], CPL_MASK
    jz .Lsupervisor
    test EVERY_LOW, USER
    jz .Lback
    jmp .Lmust_be_writable
.Lsupervisor:
    test EVERY_LOW, USER
    jz 1f
    cmp ACCESS, ACCESS_FETCH
    je .Lback
    test dword ptr [CONTROL + control.cr4], CR4_SMAP
    jz 1f
    test dword ptr [CONTROL + control.rflags], RFLAGS_AC
    jz .Lback
1:  test dword ptr [CONTROL + control.cr0], CR0_WP
    jnz .Lmust_be_writable
    or EVERY_LOW, WRITABLE
.Lmust_be_writable:
    cmp ACCESS, ACCESS_FETCH
    je .Lfetch
    cmp ACCESS, ACCESS_WRITE
    jne 1f
    test EVERY_LOW, WRITABLE
    jz .Lback

    # The frame: rax bytes from the first of DRAM, number rdx.
1:  call populated
    jc .Lback
    mov rdx, rax
    shr rdx, PAGE_SHIFT
    xor ecx, ecx
    test ENTRY, [FILL + fill.c_mask]
    jz 1f
    mov ecx, [FILL + fill.view]
1:  mov rsi, [FILL + fill.views]
    cmp ecx, [rsi + rdx * 4]
    jne .Lback
    mov rsi, [FILL + fill.executed]
    cmp word ptr [rsi + rdx * 2], 0
    jne .Lback

    # Nothing can go wrong any more. edi: what of the page is allowed from now on.
    mov edi, PROT_READ | PROT_WRITE
    cmp ACCESS, ACCESS_WRITE
    je .Lwritten
    test EVERY_LOW, WRITABLE
    jz .Lread_only
    test ENTRY, DIRTY
    jnz .Lmark
.Lread_only:
    mov edi, PROT_READ
    jmp .Lmark
.Lwritten:
    test ENTRY, DIRTY
    jnz .Lmark
    mov rsi, [rsp + DEPTH * 8 + path - 8]
    lock or dword ptr [rsi], DIRTY
.Lmark:
    mov rsi, [rsp + DEPTH * 8 + path - 8]
    test dword ptr [rsi], ACCESSED
    jnz 1f
    lock or dword ptr [rsi], ACCESSED
1:  dec DEPTH
    jnz .Lmark

    # PROT_READ and PROT_WRITE have the numbers of dram.py's CACHED and WRITABLE.
    mov rsi, [FILL + fill.cached]
    mov ecx, edi
    and ecx, PROT_READ | PROT_WRITE
    or [rsi + rdx], cl
    and rax, -1 << PAGE_SHIFT
    add rax, [FILL + fill.base]
    mov [ANSWER + entry.paddr], rax
    mov [ANSWER + entry.perms], edi
    inc qword ptr [FILL + fill.answered]
    mov rcx, [FILL + fill.native]
    mov qword ptr [rcx], 0
    mov eax, 1
    add rsp, FRAME_BYTES
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    # Of a private page, at an address and in a frame of which the same is known: `Fetched`.
.Lfetch:
    bt ANY, NO_EXECUTE_BIT
    jc .Lback
    mov rax, [FILL + fill.c_mask]
    and rax, ENTRY
    cmp rax, [FILL + fill.c_mask]
    jne .Lback
    call populated
    jc .Lback
    mov rdx, rax
    shr rdx, PAGE_SHIFT
    mov rcx, VA
    shr rcx, PAGE_SHIFT
    mov esi, ecx
    and esi, fetched.places - 1
    shl esi, fetched.shift
    add rsi, [FILL + fill.fetched]
    cmp rcx, [rsi + fetched.page]
    jne .Lback
    cmp rdx, [rsi + fetched.frame]
    jne .Lback
    mov rsi, [FILL + fill.views]
    mov ecx, [FILL + fill.view]
    cmp ecx, [rsi + rdx * 4]
    jne .Lback
    mov edi, PROT_READ | PROT_EXECUTE
    jmp .Lmark

.Lback:
    mov rdi, [rsp + saved_uc]
    mov rsi, VA
    mov edx, ACCESS
    mov rcx, ANSWER
    mov r8, FILL
    add rsp, FRAME_BYTES
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    mov r9, [r8 + fill.native]
    mov qword ptr [r9], 0
.Lslow:
    jmp qword ptr [r8 + fill.slow]

# The `fill.slow` of who asks for what is answered here and nothing else.
.global unanswered
unanswered:
    mov eax, UNANSWERED
    ret

# rdi: GPA. Returns in rax how far from the first byte of DRAM it is; carry set where it has no frame (yet).
# Changes rcx, rdx, rsi.
populated:
    mov rsi, [FILL + fill.ranges]
    mov rcx, [rsi + ranges.count]
    add rsi, ranges.ranges
1:  sub rcx, 1
    jc 2f
    mov rdx, rdi
    sub rdx, [rsi + range.gpa]
    cmp rdx, [rsi + range.size]
    jb 3f
    add rsi, sizeof.range
    jmp 1b
3:  mov rax, [rsi + range.frames]
    mov rcx, rdx
    shr rcx, PAGE_SHIFT
    mov rax, [rax + rcx * 8]
    cmp rax, 1                          # an entry that is 0: process.py
    jb 2f
    dec rax
    sub rax, [FILL + fill.base]
    and edx, (1 << PAGE_SHIFT) - 1
    or rax, rdx                         # clears carry
2:  ret
