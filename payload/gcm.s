# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256-GCM (SP 800-38D) with a 96-bit IV, legacy SSE encodings only. gcm_vaes.s begins and ends here: gcm_begin,
# gcm_*_rest with the state that gcm_begin leaves, gcm_*_tag with the tag in xmm0 and its address in rsi.
#
# The host is hostile and may change shared memory at any instant: every byte of source, aad, iv and tag is
# read once, every byte of destination and tag is written once and never read. What is hashed is what was
# read or written, from registers or the private frame. Branches and addresses depend on lengths only.
#
# GHASH is in the reflected form of Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and
# its Usage for Computing the GCM Mode": blocks are byte-swapped, the key is multiplied by x beforehand, so a
# product needs no shift. Eight products share one reduction.
#
# GHASH runs one step behind AES: the frame holds the eight blocks to hash next, and `step` interleaves them
# with the cipher of the next eight. The first group is the AAD with zero blocks in front: they do not
# change a hash that starts at zero.
#
# Registers: rdi key, rsi job, r8 source, r9 destination, rcx bytes left, edx next counter, r11 frame,
# r10d last word of round key 0, xmm15 hash so far; rbx and rax scratch.

.include "gcm.inc"

.extern aes256_block
.extern aes256_expand

.section .rodata
.balign 16
.Lswap:
    .byte 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
.Lpoly: # x^128 + x^127 + x^126 + x^121 + 1, reflected: the upper half, and what a shifted-out bit folds to
    .quad 1, 0xc200000000000000

.text

# gcm_key_init(rdi: gcm_key, rsi: 32-byte key)
.balign 16, 0xcc
.global gcm_key_init
gcm_key_init:
    call aes256_expand          # keeps rdi
    pxor xmm0, xmm0
    call aes256_block
    pshufb xmm0, [rip + .Lswap]
    # H * x: a bit that leaves at the top folds back. No branch: it is secret.
    pshufd xmm1, xmm0, 0xff
    psrad xmm1, 31
    movdqa xmm2, xmm0
    psllq xmm0, 1
    psrlq xmm2, 63
    pslldq xmm2, 8
    por xmm0, xmm2
    pand xmm1, [rip + .Lpoly]
    pxor xmm0, xmm1
    movdqa xmm15, xmm0
    mov ecx, (GCM_POWERS - 1) * 16
.Lpower:
    movdqa [rdi + rcx + gcm_key.powers], xmm15
    pshufd xmm11, xmm15, 0x4e
    movdqa xmm9, xmm15
    movdqa xmm1, xmm11
    pxor xmm1, xmm15
    movdqa [rdi + rcx + gcm_key.sums], xmm1
    multiply_first rdi, 0
    reduce_low
    reduce_high
    sub ecx, 16
    jns .Lpower
    wipe_xmm
    ret

# Hashes the blocks at frame offsets 0..rax, at least two. Loses rax, rbx, xmm9..xmm14.
.balign 16, 0xcc
.Lhash:
    mov rbx, rdi
    sub rbx, rax
    movdqa xmm9, [r11 + frame.blocks]
    xor eax, eax
    pxor xmm9, xmm15
    pshufd xmm11, xmm9, 0x4e
    multiply_first rbx, 0
.Lhash_next:
    add rax, 16
    add rbx, 16
    movdqa xmm9, [r11 + rax + frame.blocks]
    pshufd xmm11, xmm9, 0x4e
    multiply rbx, 0
    cmp rbx, rdi
    jb .Lhash_next
    reduce_low
    reduce_high
    ret

.macro cipher_round round
    movdqa xmm8, [rdi + \round * 16]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    aesenc xmm\i, xmm8
.endr
.endm

# The lane's counter block for the next step: inc32 of SP 800-38D 6.2, and round key 0 already added. The
# step after this loads 16 bytes of which 4 are stored here: it stalls when they are close to each other.
.macro next_counter lane
    lea eax, [rdx + (\lane)]
    bswap eax
    xor eax, r10d
    mov dword ptr [r11 + frame.lanes + (\lane) * 16 + 12], eax
.endm

.macro hash_block slot
    movdqa xmm9, [r11 + frame.blocks + (\slot) * 16]
.if \slot == 0
    pxor xmm9, xmm15
    pshufd xmm11, xmm9, 0x4e
    multiply_first rdi, 7
.else
    movq xmm11, [r11 + frame.blocks + (\slot) * 16 + 8]
    multiply rdi, 7-(\slot)
.endif
.endm

# Key stream of the next eight blocks in xmm0..xmm7; hashes the eight blocks of the frame. GHASH begins at
# round 3: sealing has only just made those blocks.
.balign 64, 0xcc
.Lstep:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqa xmm\i, [r11 + frame.lanes + \i * 16]
.endr
.irp round, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
    cipher_round \round
.if \round <= 4
    next_counter \round*2-2
    next_counter \round*2-1
.endif
.if (\round >= 3) && (\round <= 10)
    hash_block \round-3
.endif
.if \round == 11
    reduce_low
.endif
.if \round == 13
    reduce_high
.endif
.endr
    add edx, 8
    movdqa xmm8, [rdi + 224]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    aesenclast xmm\i, xmm8
.endr
    ret

# Copies rcx bytes, 1..15, to the frame, with zeros behind. Loses rbx.
.macro fetch_part from, byte
    pxor xmm0, xmm0
    movdqa [r11 + frame.part], xmm0
    xor ebx, ebx
1:
    mov \byte, byte ptr [\from + rbx]
    mov byte ptr [r11 + rbx + frame.part], \byte
    inc rbx
    cmp rbx, rcx
    jb 1b
.endm

# What every kernel begins with: from the arguments to the first group in the frame.
.balign 16, 0xcc
.global gcm_begin
gcm_begin:
    mov rax, [rsi + gcm_job.iv]
    movq xmm0, [rax]
    pinsrd xmm0, [rax + 8], 2
    pxor xmm0, [rdi]
    pextrd r10d, xmm0, 3
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    mov eax, (\i + 2) << 24     # inc32(J0) and on, SP 800-38D 7.1
    xor eax, r10d
    pinsrd xmm0, eax, 3
    movdqa [r11 + frame.lanes + \i * 16], xmm0
.endr
    mov eax, 1 << 24            # J0
    xor eax, r10d
    pinsrd xmm0, eax, 3
.irp offset, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208
    aesenc xmm0, [rdi + \offset]
.endr
    aesenclast xmm0, [rdi + 224]
    movdqa [r11 + frame.mask], xmm0
    pxor xmm15, xmm15
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqa [r11 + frame.blocks + \i * 16], xmm15
.endr
    mov r8, [rsi + gcm_job.aad]
    mov rcx, [rsi + gcm_job.aad_bytes]
    lea rdx, [rcx + 15]         # the last block goes to slot 7
    and rdx, -16
    neg rdx
    and edx, 0x70
.Laad_block:
    test rcx, rcx
    jz .Laad_end
    cmp edx, 128
    jne .Laad_room
    mov eax, 112
    call .Lhash
    xor edx, edx
.Laad_room:
    cmp rcx, 16
    jb .Laad_part
    movdqu xmm0, [r8]
    add r8, 16
    sub rcx, 16
.Laad_store:
    pshufb xmm0, [rip + .Lswap]
    movdqa [r11 + rdx + frame.blocks], xmm0
    add edx, 16
    jmp .Laad_block
.Laad_part:
    fetch_part r8, al
    movdqa xmm0, [r11 + frame.part]
    xor ecx, ecx
    jmp .Laad_store
.Laad_end:
    mov r8, [rsi + gcm_job.source]
    mov r9, [rsi + gcm_job.destination]
    mov rcx, [rsi + gcm_job.bytes]
    mov edx, 10
    ret

# From the frame with the last block to the tag in xmm0, and its address in rsi. rax: where the lengths go.
.balign 16, 0xcc
.Lfinish:
    mov rdx, [rsi + gcm_job.bytes]
    mov rbx, [rsi + gcm_job.aad_bytes]
    mov rsi, [rsi + gcm_job.tag]
    shl rdx, 3
    shl rbx, 3
    movq xmm0, rdx
    pinsrq xmm0, rbx, 1
    movdqa [r11 + rax + frame.blocks], xmm0
    call .Lhash
    pshufb xmm15, [rip + .Lswap]
    movdqa xmm0, [r11 + frame.mask]
    pxor xmm0, xmm15
    ret

# The body of gcm_aesni_seal (\seal = 1) and gcm_aesni_open (0): all but the tag.
.macro crypt seal
    enter_frame
    call gcm_begin
.if \seal
.global gcm_seal_rest
gcm_seal_rest:
.else
.global gcm_open_rest
gcm_open_rest:
.endif
    sub rcx, 128
    jb .Ltail\@
.Lloop\@:
    call .Lstep
    movdqa xmm9, [rip + .Lswap]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqu xmm8, [r8 + \i * 16]
    pxor xmm\i, xmm8
    movdqu [r9 + \i * 16], xmm\i
.if \seal
    movdqa xmm8, xmm\i
.endif
    pshufb xmm8, xmm9
    movdqa [r11 + frame.blocks + \i * 16], xmm8
.endr
    add r8, 128
    add r9, 128
    sub rcx, 128
    jae .Lloop\@
.Ltail\@:
    mov eax, 128                # a full group waits in the frame
    add rcx, 128
    jz .Lcrypted\@
    call .Lstep
    xor eax, eax
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqa [r11 + frame.lanes + \i * 16], xmm\i
.endr
.Lblock\@:
    sub rcx, 16
    jb .Lpart\@
    movdqu xmm0, [r8]
    movdqa xmm1, [r11 + rax + frame.lanes]
    pxor xmm1, xmm0
    movdqu [r9], xmm1
    add r8, 16
    add r9, 16
.Lhashed\@:
.if \seal
    movdqa xmm0, xmm1
.endif
    pshufb xmm0, [rip + .Lswap]
    movdqa [r11 + rax + frame.blocks], xmm0
    add eax, 16
    jmp .Lblock\@
.Lpart\@:
    add rcx, 16
    jz .Lcrypted\@
    fetch_part r8, dl
    movdqa xmm0, [r11 + frame.part]
    movdqa xmm1, [r11 + rax + frame.lanes]
    pxor xmm1, xmm0
    movdqa [r11 + frame.part], xmm1
    xor ebx, ebx
1:
    mov dl, byte ptr [r11 + rbx + frame.part]
    mov byte ptr [r9 + rbx], dl
    inc rbx
    cmp rbx, rcx
    jb 1b
2:                              # what is left of the key stream is no ciphertext
    mov byte ptr [r11 + rbx + frame.part], 0
    inc rbx
    cmp rbx, 16
    jb 2b
    movdqa xmm1, [r11 + frame.part]
    xor ecx, ecx
    jmp .Lhashed\@
.Lcrypted\@:
    call .Lfinish
.endm

# gcm_aesni_seal(rdi: gcm_key, rsi: gcm_job)
.balign 16, 0xcc
.global gcm_aesni_seal
gcm_aesni_seal:
    crypt 1
.global gcm_seal_tag
gcm_seal_tag:
    movdqu [rsi], xmm0
    xor eax, eax
    jmp .Lwipe

# gcm_aesni_open(rdi: gcm_key, rsi: gcm_job) -> eax: 0, or 1 when the tag is wrong
.balign 16, 0xcc
.global gcm_aesni_open
gcm_aesni_open:
    crypt 0
.global gcm_open_tag
gcm_open_tag:
    movdqu xmm1, [rsi]
    pxor xmm0, xmm1
    xor eax, eax
    ptest xmm0, xmm0
    setne al

.Lwipe:
    wipe_xmm
.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26
    movdqa [r11 + \i * 16], xmm0
.endr
    xor r10d, r10d
    lea rsp, [rbp - 8]
    pop rbx
    pop rbp
    ret
