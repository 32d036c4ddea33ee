# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# HKDF with SHA-256 (RFC 5869, RFC 2104) for one key of 32 bytes: extract and expand, a block of HMAC each.
#
# All but salt and info is secret. What was here is wiped before the return, in the frame, in that of SHA-256 below it, and in
# registers.

.ifdef MH_START_SNP

.text

.include "sha256.inc"

.equ DIGEST_BYTES, 32
.equ INFO_BYTES, sizeof.mh_report_data
.equ INNER, 0x36
.equ OUTER, 0x5c

# The frame: HMAC hashes the block with what follows it.
.equ hkdf.block, 0
.equ hkdf.message, BLOCK_BYTES
.equ hkdf.key, hkdf.message + INFO_BYTES + 16
.equ hkdf.result, hkdf.key + BLOCK_BYTES
.equ hkdf.info, hkdf.result + 8
.equ sizeof.hkdf, hkdf.info + 8

.macro copy16 to, from, count
.rept \count
    movdqu xmm0, [\from + 16 * copied]
    movdqu [\to + 16 * copied], xmm0
.set copied, copied + 1
.endr
.set copied, 0
.endm
.set copied, 0

# hkdf256(rdi: 32 bytes for the key, rsi: 32 bytes of a secret, rdx: salt of MH_CHALLENGE_BYTES, rcx: struct mh_report_data as
# info)
.balign 16, 0xcc
.global hkdf256
hkdf256:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    sub rsp, sizeof.hkdf
    mov rbx, rsp
    mov [rbx + hkdf.result], rdi
    mov [rbx + hkdf.info], rcx
    pxor xmm1, xmm1
    copy16 rbx+hkdf.key, rdx, 1
.irp offset, 16, 32, 48
    movdqu [rbx + hkdf.key + \offset], xmm1
.endr
    copy16 rbx+hkdf.message, rsi, 2
    mov edx, DIGEST_BYTES
    call .Lhmac

    copy16 rbx+hkdf.key, rbx+hkdf.message, 2
    mov rcx, [rbx + hkdf.info]
    copy16 rbx+hkdf.message, rcx, 4
    mov byte ptr [rbx + hkdf.message + INFO_BYTES], 1
    mov edx, INFO_BYTES + 1
    call .Lhmac

    mov rdi, [rbx + hkdf.result]
    copy16 rdi, rbx+hkdf.message, 2
    pxor xmm0, xmm0
    lea rdi, [rbx - 8 - SHA256_STACK_BYTES]     # below it the return address of .Lhmac
    mov ecx, (8 + SHA256_STACK_BYTES + sizeof.hkdf) / 8
    xor eax, eax
    rep stosq
    xor edx, edx
.irp register, r8d, r9d, r10d, r11d
    xor \register, \register
.endr
    add rsp, sizeof.hkdf
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# HMAC under the 64 bytes of the key of the first edx bytes of the message, to its first 32. Keeps rbx.
.balign 16, 0xcc
.Lhmac:
    mov eax, INNER
    call .Lxored
    lea rdx, [rdx + BLOCK_BYTES]
    call .Ldigest
    mov eax, OUTER
    call .Lxored
    mov edx, BLOCK_BYTES + DIGEST_BYTES
.Ldigest:
    mov rsi, rbx
    lea rdi, [rbx + hkdf.message]
    jmp sha256

# The block: every byte of the key with al. Keeps rdx. Loses rax, xmm0, xmm1.
.Lxored:
    imul eax, eax, 0x01010101
    movd xmm1, eax
    pshufd xmm1, xmm1, 0
.irp offset, 0, 16, 32, 48
    movdqu xmm0, [rbx + hkdf.key + \offset]
    pxor xmm0, xmm1
    movdqu [rbx + hkdf.block + \offset], xmm0
.endr
    ret

.endif
