# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The image file, in whichever firmware volume it is.

.include "uefi.inc"
.include "state.inc"

.extern check_private

.equ SHA256_BYTES, 32

.section .rodata
.balign 8
.Lvolume_protocol:
    .guid "220e73b6-6bdb-4413-8405-b974b108619a"
.Limage_file:
    .guid MH_IMAGE_FILE_GUID

.text

# Reads both sections into the pool, from the first volume that has the image, and checks that nobody but this guest can
# write there.
.global find_image
find_image:
    frame
    mov ecx, ByProtocol
    lea rdx, [rip + .Lvolume_protocol]
    xor r8d, r8d
    lea r9, [rbx + state.handle_count]
    lea rax, [rbx + state.handles]
    mov [rsp + ARGUMENT_5], rax
    boot_service LocateHandleBuffer
    test rax, rax
    jnz .Lno_handles
    mov rsi, [rbx + state.handles]
    mov rdx, [rbx + state.handle_count]
    shl rdx, 3
    call check_private
    test rax, rax
    jnz .Lleave
    # A volume that cannot say whether it has the image ends the search.
    mov rax, EFI_NOT_FOUND
    xor esi, esi
.Lnext:
    mov rcx, EFI_NOT_FOUND
    cmp rax, rcx
    jne .Lleave
    cmp rsi, [rbx + state.handle_count]
    jae .Lleave
    mov rcx, [rbx + state.handles]
    mov rcx, [rcx + 8 * rsi]
    lea rdx, [rip + .Lvolume_protocol]
    lea r8, [rbx + state.volume]
    boot_service HandleProtocol
    inc rsi
    test rax, rax
    jnz .Lnext
    xor r9d, r9d
    lea rdi, [rbx + state.image]
    call read_section
    test rax, rax
    jnz .Lnext
    mov r9d, 1
    lea rdi, [rbx + state.digest]
    call read_section
    test rax, rax
    jnz .Lleave
    mov rax, EFI_NOT_FOUND
    cmp qword ptr [rbx + state.digest_bytes], SHA256_BYTES
    jne .Lleave
    mov rsi, [rbx + state.image]
    mov rdx, [rbx + state.image_bytes]
    call check_private
    test rax, rax
    jnz .Lleave
    mov rsi, [rbx + state.digest]
    mov edx, SHA256_BYTES
    call check_private
.Lleave:
    leave_frame
.Lno_handles:
    mov qword ptr [rbx + state.handles], 0
    leave_frame

# r9: which section. Sets the buffer and its length at rdi; the buffer stays 0 where that fails. Keeps rsi.
read_section:
    frame
    mov rcx, [rbx + state.volume]
    lea rdx, [rip + .Limage_file]
    mov r8d, EFI_SECTION_RAW
    mov [rsp + ARGUMENT_5], rdi
    lea rax, [rdi + 8]
    mov [rsp + ARGUMENT_6], rax
    lea rax, [rbx + state.authentication]
    mov [rsp + ARGUMENT_7], rax
    mov qword ptr [rdi], 0
    mov qword ptr [rdi + 8], 0
    call qword ptr [rcx + EFI_FIRMWARE_VOLUME2_PROTOCOL.ReadSection]
    test rax, rax
    jz .Lread
    mov qword ptr [rdi], 0
.Lread:
    leave_frame
