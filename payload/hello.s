# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# hello: what this helper says of itself, and what it makes of a peer's. Ours serves one start; nonce and scalar go with it.
#
# The peer's hello is read once, into xmm8 to xmm15, a register for every 16 bytes, and comes into memory only when its tag is
# known to be one of our transport key: so no host chooses what lies there.

.include "vcpu.inc"

.extern aes256_block
.extern aes256_expand
.extern cmac_subkey
.extern derive
.extern forget_start
.extern locate
.extern random_derived
.extern secret_record
.extern x25519_base

.text

# hello() -> eax: status
.global hello
hello:
    mov eax, MH_WRONG_STATE
    cmp dword ptr [r12 + vcpu.phase], PHASE_GREETED
    ja .Lrefused
    mov eax, MH_NO_FEATURE
    test dword ptr [r12 + vcpu.features], MH_FEATURE_AESNI
    jz .Lrefused
    push rbx
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    call forget_start           # what an earlier hello has left, whatever comes of this one
    call secret_record
    mov rbx, rax
    test rax, rax
    mov eax, MH_NO_KEY
    jz .Lout
    lea rdi, [r12 + vcpu.schedule]
    lea rsi, [rbx + mh_secret.key]
    call aes256_expand
    call random_derived
    test eax, eax
    jnz .Lout
    call describe_self
    call hello_key
    call send
    mov dword ptr [r12 + vcpu.phase], PHASE_GREETED
    mov eax, MH_DONE
.Lout:
    pop rbx
    mov edx, eax
    lea rdi, [r12 + vcpu.work]
    mov ecx, vcpu.secrets_end - vcpu.work
    xor eax, eax
    rep stosb
    mov eax, edx
.Lrefused:
    ret

# describe_self(rbx: record): vcpu.hello and vcpu.scalar from vcpu.derived.
describe_self:
    movdqu xmm0, [r12 + vcpu.derived + MH_NONCE_BYTES]
    movdqu xmm1, [r12 + vcpu.derived + MH_NONCE_BYTES + 16]
    movdqu [r12 + vcpu.scalar], xmm0
    movdqu [r12 + vcpu.scalar + 16], xmm1
    movdqu xmm0, [r12 + vcpu.derived]
    movdqu xmm1, [r12 + vcpu.derived + 16]
    movdqu xmm2, [rbx + mh_secret.guest]
    lea rdi, [r12 + vcpu.hello]
    movdqu [rdi + mh_hello.nonce], xmm0
    movdqu [rdi + mh_hello.nonce + 16], xmm1
    movdqu [rdi + mh_hello.guest], xmm2
    lea rsi, [rip + linker.params]
    mov dword ptr [rdi + mh_hello.magic], MH_HELLO_MAGIC
    mov eax, dword ptr [rsi + mh_params.protocol_low]           # and protocol_high
    mov dword ptr [rdi + mh_hello.low], eax
    mov eax, dword ptr [rsi + mh_params.addresses]              # and protection
    mov dword ptr [rdi + mh_hello.addresses], eax
    mov eax, [rbx + mh_secret.flags]
    mov [rdi + mh_hello.flags], eax
    xor eax, eax
    mov [rdi + mh_hello.reserved], rax
    mov [rdi + mh_hello.reserved + 8], rax
    lea rdi, [r12 + vcpu.hello + mh_hello.share]
    lea rsi, [r12 + vcpu.scalar]
    jmp x25519_base

# hello_key(): vcpu.hello_schedule from vcpu.schedule, which is that of the transport key.
hello_key:
    xor eax, eax
    mov [r12 + vcpu.kdf_input + kdf_input.context], rax
    lea rsi, [rip + .Llabel_hello]
    lea rdx, [r12 + vcpu.derived]
    mov ecx, MH_KEY_BYTES
    mov r8d, sizeof.mh_stream_context
    call derive
    lea rdi, [r12 + vcpu.hello_schedule]
    lea rsi, [r12 + vcpu.derived]
    jmp aes256_expand

# send(): our hello and its tag to the ring.
send:
    movzx eax, word ptr [r13 + lane.slot]
    call locate
    lea rsi, [r12 + vcpu.hello]
    mov rdx, [r13 + lane.slot_packet]
.irp i, 8, 9, 10, 11, 12, 13, 14
    movdqu xmm\i, [rsi + (\i - 8) * 16]
    movdqu [rdx + (\i - 8) * 16], xmm\i
.endr
    call hello_tag
    movdqu [rdx + mh_hello.tag], xmm0
    wipe_xmm
    ret

# hello_tag(xmm8..xmm14: a hello) -> xmm0: its tag under vcpu.hello_schedule. Keeps rbx, rdx, xmm8..xmm15.
hello_tag:
    lea rdi, [r12 + vcpu.hello_schedule]
    call cmac_subkey
    pxor xmm14, xmm2
    pxor xmm0, xmm0
.irp i, 8, 9, 10, 11, 12, 13, 14
    pxor xmm0, xmm\i
    call aes256_block
.endr
    pxor xmm14, xmm2
    ret

# receive() -> eax: status; with MH_DONE vcpu.protocol, and the peer's hello at rdi. The only read of the peer's hello.
# rbx: record, rdi: 112 bytes for it.
.global receive
receive:
    push rdi
    movzx eax, word ptr [r13 + lane.slot]
    call locate
    mov rsi, [r13 + lane.slot_packet]
.irp i, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu xmm\i, [rsi + (\i - 8) * 16]
.endr
    call settle
    test eax, eax               # survives dropped: settle leaves the same zero flag
    jnz .Lunfit
    call same_terms
    test eax, eax
    jnz .Lunfit
    call hello_tag
    pxor xmm0, xmm15
    ptest xmm0, xmm0
    mov eax, MH_BAD_HELLO
    jnz .Lunfit
    movdqu xmm0, [r12 + vcpu.hello + mh_hello.nonce]
    movdqu xmm1, [r12 + vcpu.hello + mh_hello.nonce + 16]
    pxor xmm0, xmm10
    pxor xmm1, xmm11
    por xmm0, xmm1
    ptest xmm0, xmm0
    mov eax, MH_BAD_NONCE
    jz .Lunfit
    mov rdi, [rsp]
.irp i, 8, 9, 10, 11, 12, 13, 14
    movdqu [rdi + (\i - 8) * 16], xmm\i
.endr
    mov eax, MH_DONE
.Lunfit:
    wipe_xmm
    pop rdi
    ret

# settle(xmm8: the hello's first 16 bytes, xmm14: its last before the tag) -> eax: status, vcpu.protocol: the highest version
# that both sides speak.
settle:
    movd eax, xmm8
    cmp eax, MH_HELLO_MAGIC
    jne .Lnot_hello
    movzx ecx, word ptr [rip + linker.params + mh_params.protocol_high]
    pextrw eax, xmm8, 3         # high
    cmp ecx, eax
    cmova ecx, eax
    movzx edx, word ptr [rip + linker.params + mh_params.protocol_low]
    pextrw eax, xmm8, 2         # low
    cmp edx, eax
    cmovb edx, eax
    cmp ecx, edx
    jb .Lno_protocol
    mov [r12 + vcpu.protocol], ecx
    ptest xmm14, xmm14          # reserved
    jnz .Lnot_hello
    mov eax, MH_DONE
    ret
.Lnot_hello:
    mov eax, MH_NOT_HELLO
    ret
.Lno_protocol:
    mov eax, MH_NO_PROTOCOL
    ret

# same_terms(xmm8, xmm9: the hello's first 32 bytes, rbx: record) -> eax: status. The target must not be weaker than the
# source: what the CPU kept from the source's host, the target's would read.
same_terms:
    pextrw eax, xmm8, 4         # addresses
    cmp ax, word ptr [rip + linker.params + mh_params.addresses]
    mov eax, MH_OTHER_ADDRESSES
    jne .Ldiffers
    movdqu xmm0, [rbx + mh_secret.guest]
    pxor xmm0, xmm9
    ptest xmm0, xmm0
    mov eax, MH_OTHER_GUEST
    jnz .Ldiffers
    pextrd ecx, xmm8, 3         # flags
    cmp ecx, [rbx + mh_secret.flags]
    mov eax, MH_OTHER_TERMS
    jne .Ldiffers
    pextrw ecx, xmm8, 5         # protection
    movzx edx, word ptr [rip + linker.params + mh_params.protection]
    mov eax, MH_WEAKER_PEER
    cmp cx, word ptr [rbx + mh_secret.protection]
    jb .Ldiffers
    cmp word ptr [r13 + lane.role], MH_ROLE_SOURCE
    je .Lpeer_receives
    xchg ecx, edx
.Lpeer_receives:
    cmp ecx, edx                # the target's, the source's
    jb .Ldiffers
    mov eax, MH_DONE
.Ldiffers:
    ret

.section .rodata
.balign 16
.Llabel_hello:
    .asciz MH_KDF_LABEL_HELLO
