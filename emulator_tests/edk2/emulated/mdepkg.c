/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the driver takes from MdePkg's libraries, for one that is built without the rest of edk2. The declarations are
 * edk2's own; UefiDriverEntryPoint's part is _ModuleEntryPoint.
 */
#include <PiDxe.h>
#include <Library/BaseLib.h>
#include <Library/BaseMemoryLib.h>
#include <Library/IoLib.h>
#include <Library/UefiBootServicesTableLib.h>
#include <Library/UefiRuntimeServicesTableLib.h>
#include <Protocol/FirmwareVolume2.h>

#define FLAGS_INTERRUPTS 0x200

EFI_SYSTEM_TABLE *gST;
EFI_BOOT_SERVICES *gBS;
EFI_RUNTIME_SERVICES *gRT;
EFI_GUID gEfiFirmwareVolume2ProtocolGuid = EFI_FIRMWARE_VOLUME2_PROTOCOL_GUID;

EFI_STATUS EFIAPI MigrationHelperEntry (EFI_HANDLE, EFI_SYSTEM_TABLE *);

EFI_STATUS EFIAPI _ModuleEntryPoint (EFI_HANDLE image, EFI_SYSTEM_TABLE *system)
{
    gST = system;
    gBS = system->BootServices;
    gRT = system->RuntimeServices;
    return MigrationHelperEntry (image, system);
}

VOID *EFIAPI CopyMem (VOID *to, CONST VOID *from, UINTN bytes)
{
    VOID *start = to;

    __asm__ volatile ("rep movsb" : "+D" (to), "+S" (from), "+c" (bytes) : : "memory");
    return start;
}

VOID *EFIAPI ZeroMem (VOID *to, UINTN bytes)
{
    VOID *start = to;

    __asm__ volatile ("rep stosb" : "+D" (to), "+c" (bytes) : "a" (0) : "memory");
    return start;
}

INTN EFIAPI CompareMem (CONST VOID *left, CONST VOID *right, UINTN bytes)
{
    CONST UINT8 *one = left, *other = right;

    for (; bytes > 0; bytes--, one++, other++)
        if (*one != *other)
            return (INTN)*one - (INTN)*other;
    return 0;
}

UINT32 EFIAPI AsmCpuid (UINT32 leaf, UINT32 *eax, UINT32 *ebx, UINT32 *ecx, UINT32 *edx)
{
    UINT32 found[4];
    UINT32 *wanted[4] = { eax, ebx, ecx, edx };
    UINTN index;

    __asm__ volatile ("cpuid" : "=a" (found[0]), "=b" (found[1]), "=c" (found[2]), "=d" (found[3]) : "a" (leaf), "c" (0));
    for (index = 0; index < 4; index++)
        if (wanted[index] != NULL)
            *wanted[index] = found[index];
    return leaf;
}

UINT64 EFIAPI AsmReadMsr64 (UINT32 msr)
{
    UINT32 low, high;

    __asm__ volatile ("rdmsr" : "=a" (low), "=d" (high) : "c" (msr));
    return (UINT64)high << 32 | low;
}

UINT64 EFIAPI AsmWriteMsr64 (UINT32 msr, UINT64 value)
{
    __asm__ volatile ("wrmsr" : : "c" (msr), "a" ((UINT32)value), "d" ((UINT32)(value >> 32)) : "memory");
    return value;
}

#define READ_REGISTER(name, register) \
    UINTN EFIAPI name (VOID) \
    { \
        UINTN value; \
        __asm__ volatile ("mov %%" register ", %0" : "=r" (value)); \
        return value; \
    }
#define WRITE_REGISTER(name, register) \
    UINTN EFIAPI name (UINTN value) \
    { \
        __asm__ volatile ("mov %0, %%" register : : "r" (value) : "memory"); \
        return value; \
    }

READ_REGISTER (AsmReadCr0, "cr0")
READ_REGISTER (AsmReadCr3, "cr3")
READ_REGISTER (AsmReadCr4, "cr4")
WRITE_REGISTER (AsmWriteCr0, "cr0")
WRITE_REGISTER (AsmWriteCr3, "cr3")

BOOLEAN EFIAPI SaveAndDisableInterrupts (VOID)
{
    UINTN flags;

    __asm__ volatile ("pushfq; cli; popq %0" : "=r" (flags) : : "memory");
    return (flags & FLAGS_INTERRUPTS) != 0;
}

BOOLEAN EFIAPI SetInterruptState (BOOLEAN on)
{
    if (on)
        __asm__ volatile ("sti" : : : "memory");
    else
        __asm__ volatile ("cli" : : : "memory");
    return on;
}

VOID *EFIAPI AsmFlushCacheLine (VOID *line)
{
    __asm__ volatile ("clflush (%0)" : : "r" (line) : "memory");
    return line;
}

UINT8 EFIAPI IoWrite8 (UINTN port, UINT8 value)
{
    __asm__ volatile ("outb %0, %1" : : "a" (value), "d" ((UINT16)port));
    return value;
}

UINT64 EFIAPI RShiftU64 (UINT64 number, UINTN count)
{
    return number >> count;
}

static UINT64 digits (CONST CHAR8 **text, UINTN count)
{
    UINT64 number = 0;

    for (; count > 0; (*text)++) {
        if (**text == '-')
            continue;
        number = number << 4 | (UINT64)(**text <= '9' ? **text - '0' : **text - 'a' + 10);
        count--;
    }
    return number;
}

RETURN_STATUS EFIAPI AsciiStrToGuid (CONST CHAR8 *text, GUID *guid)
{
    UINTN index;

    guid->Data1 = (UINT32)digits (&text, 8);
    guid->Data2 = (UINT16)digits (&text, 4);
    guid->Data3 = (UINT16)digits (&text, 4);
    for (index = 0; index < 8; index++)
        guid->Data4[index] = (UINT8)digits (&text, 2);
    return RETURN_SUCCESS;
}
