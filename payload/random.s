# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Randomness: RDRAND, of which no more is believed than has to be. A word that repeats the one before, or is all zeros or
# all ones, counts as none: parts have shipped that answer nothing but ones, and say that all is well. What outlives a
# batch goes through CMAC under the transport key together with a number that this helper never uses twice and, where
# reading it cannot raise #VC, the time-stamp counter: so even an RDRAND that the host knows gives nothing away, and
# one that repeats itself makes no nonce a second time.

.include "vcpu.inc"

.extern aes256_block
.extern count
.extern derive
.extern random_drawn

.equ RANDOM_TRIES, 10           # AMD and Intel both ask for at least ten

# The context of random bytes: 8 bytes more than a multiple of 16.
.equ random.words, 0
.equ random.time, 32
.equ random.number, 40
.equ random.ring, 48
.equ sizeof.random, 56

.text

# random_word() -> rax; carry set if it is good. mm6 has the one before. Loses rcx, rdx.
random_word:
    mov ecx, RANDOM_TRIES
.Ltry:
    rdrand rax
    jnc .Lagain                 # survives dropped: RDRAND that fails gives zeros
    lea rdx, [rax - 1]
    cmp rdx, -3
    ja .Lagain                  # all zeros or all ones
    movq rdx, mm6
    cmp rax, rdx
    je .Lagain
    movq mm6, rax
    stc
    ret
.Lagain:
    dec ecx
    jnz .Ltry
    clc
    ret

# random_derived() -> eax: status; with MH_DONE vcpu.derived holds 64 new bytes. vcpu.schedule is that of the transport key.
.global random_derived
random_derived:
.irp offset, 0, 8, 16, 24
    call random_word
    jnc .Lnone
    mov [r12 + vcpu.kdf_input + kdf_input.context + random.words + \offset], rax
.endr
    xor eax, eax
.ifndef MH_START_ES
    rdtsc
    shl rdx, 32
    or rax, rdx
.endif
    mov [r12 + vcpu.kdf_input + kdf_input.context + random.time], rax
    lea rdi, [rip + random_drawn]
    mov esi, 1
    call count
    mov [r12 + vcpu.kdf_input + kdf_input.context + random.number], rax
    mov eax, [r12 + vcpu.index]
    mov [r12 + vcpu.kdf_input + kdf_input.context + random.ring], rax
    lea rsi, [rip + .Llabel_random]
    lea rdx, [r12 + vcpu.derived]
    mov ecx, MH_KEY_BYTES + MH_NONCE_BYTES
    mov r8d, sizeof.random
    call derive
    mov eax, MH_DONE
    ret
.Lnone:                          # draw's too
    mov eax, MH_NO_ENTROPY
    ret

# draw() -> eax: status. A word for the masks of a batch, in mm7: no memory that the host could put back holds it.
.global draw
draw:
    call random_word
    jnc .Lnone
    movq mm7, rax
    mov eax, MH_DONE
    ret

# fresh_mask() -> xmm0: what hides one chunk in private memory until its tag is verified. Loses rax, rdi, xmm1.
#
# CIPH of the batch's random word and of the number of the attempt, under a key of the session's: one of the three is new
# after every attempt, session and start, and the word also where old memory was put back.
.global fresh_mask
fresh_mask:
    inc qword ptr [r12 + vcpu.attempts]
    movq rax, mm7
    movq xmm0, rax
    pinsrq xmm0, [r12 + vcpu.attempts], 1
    lea rdi, [r12 + vcpu.mask_schedule]
    call aes256_block
    pxor xmm1, xmm1
    xor eax, eax
    ret

.section .rodata
.balign 16
.Llabel_random:
    .asciz MH_KDF_LABEL_RANDOM
