/** @file
  What the CPU and the hypervisor are: SEV, the live page tables, and KVM's migration control.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "Firmware.h"
#include "Platform.h"

/// AMD64 Architecture Programmer's Manual, volume 3, E.4.17: EAX[1] SEV, EBX[5:0] position of the C-bit.
#define CPUID_EXTENDED_MAX  0x80000000
#define CPUID_ENCRYPTION    0x8000001F
#define ENCRYPTION_SEV      BIT1
#define ENCRYPTION_C_BIT    0x3F

/// Volume 2, 15.34.10: set in a guest that runs under SEV.
#define MSR_SEV_STATUS      0xC0010131
#define SEV_STATUS_ENABLED  BIT0
#define SEV_STATUS_SNP      BIT2

/// OvmfPkg/Include/Guid/ConfidentialComputingSevSnpBlob.h and MdePkg/Include/Register/Amd/Svsm.h, which old releases
/// have not: where the table names the secrets page, and where that has the size of the SVSM, 0 without one.
#define SNP_TABLE_SECRETS   8
#define SECRETS_SVSM_BYTES  0x148

#define CR3_TABLE  0x000FFFFFFFFFF000ULL
#define CR4_LA57   BIT12

#define CPUID_FEATURES       1
#define FEATURES_HYPERVISOR  BIT31

/// Linux Documentation/virt/kvm/x86/cpuid.rst. Other interfaces of the hypervisor may come first.
#define CPUID_HYPERVISOR_FIRST   0x40000000
#define CPUID_HYPERVISOR_LAST    0x40010000
#define CPUID_HYPERVISOR_STEP    0x100
#define KVM_FEATURES             1
#define KVM_MIGRATION_CONTROL    BIT17

STATIC CONST EFI_GUID  mSnpTable = { 0x067b1f5f, 0xcf26, 0x44c5, { 0x85, 0x54, 0x93, 0xd7, 0x77, 0x91, 0x2d, 0x42 }};

/** MSR_SEV_STATUS, 0 where CPUID says that there is none: reading it would be #GP. **/
STATIC
UINT64
SevStatus (
  OUT UINT32  *CBit
  )
{
  UINT32  Max;
  UINT32  Eax;
  UINT32  Ebx;

  AsmCpuid (CPUID_EXTENDED_MAX, &Max, NULL, NULL, NULL);
  if (Max < CPUID_ENCRYPTION) {
    return 0;
  }

  AsmCpuid (CPUID_ENCRYPTION, &Eax, &Ebx, NULL, NULL);
  *CBit = Ebx & ENCRYPTION_C_BIT;
  return (Eax & ENCRYPTION_SEV) != 0 ? AsmReadMsr64 (MSR_SEV_STATUS) : 0;
}

BOOLEAN
HasSvsm (
  VOID
  )
{
  CONST EFI_CONFIGURATION_TABLE  *Table;
  UINTN                          Index;
  CONST UINT8                    *Secrets;

  for (Index = 0; Index < gST->NumberOfTableEntries; Index++) {
    Table = &gST->ConfigurationTable[Index];
    if (CompareMem (&Table->VendorGuid, &mSnpTable, sizeof (mSnpTable)) == 0) {
      Secrets = *(CONST UINT8 **)((CONST UINT8 *)Table->VendorTable + SNP_TABLE_SECRETS);
      return *(CONST UINT64 *)(Secrets + SECRETS_SVSM_BYTES) != 0;
    }
  }

  return FALSE;
}

VOID
DetectSev (
  OUT SEV  *Sev
  )
{
  UINT64  Status;
  UINT32  CBit;

  ZeroMem (Sev, sizeof (*Sev));
  Status = SevStatus (&CBit);
  if ((Status & SEV_STATUS_ENABLED) != 0) {
    Sev->CBit  = CBit;
    Sev->CMask = 1ULL << CBit;
    Sev->IsSnp = (Status & SEV_STATUS_SNP) != 0;
  }
}

PAGE_TABLES
LiveTables (
  IN CONST SEV  *Sev
  )
{
  PAGE_TABLES  Tables;

  Tables.Root   = (UINT64 *)(UINTN)(AsmReadCr3 () & CR3_TABLE & ~Sev->CMask);
  Tables.Levels = (AsmReadCr4 () & CR4_LA57) != 0 ? 5 : 4;
  Tables.CMask  = Sev->CMask;
  return Tables;
}

EFI_STATUS
RequirePrivate (
  IN CONST SEV   *Sev,
  IN CONST VOID  *Data,
  IN UINTN       Bytes
  )
{
  PAGE_TABLES  Tables;

  Tables = LiveTables (Sev);
  return IsPrivate (&Tables, (UINT64)(UINTN)Data, Bytes) ? EFI_SUCCESS : EFI_SECURITY_VIOLATION;
}

BOOLEAN
HasMigrationControl (
  VOID
  )
{
  UINT32  Leaf;
  UINT32  Eax;
  UINT32  Ecx;
  UINT32  Signature[4];

  AsmCpuid (CPUID_FEATURES, NULL, NULL, &Ecx, NULL);
  if ((Ecx & FEATURES_HYPERVISOR) == 0) {
    return FALSE;
  }

  for (Leaf = CPUID_HYPERVISOR_FIRST; Leaf < CPUID_HYPERVISOR_LAST; Leaf += CPUID_HYPERVISOR_STEP) {
    AsmCpuid (Leaf, &Signature[0], &Signature[1], &Signature[2], &Signature[3]);
    if (CompareMem (&Signature[1], "KVMKVMKVM\0\0", 12) == 0) {
      AsmCpuid (Leaf + KVM_FEATURES, &Eax, NULL, NULL, NULL);
      return (Eax & KVM_MIGRATION_CONTROL) != 0;
    }
  }

  return FALSE;
}
