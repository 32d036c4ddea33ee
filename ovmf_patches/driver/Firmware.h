/** @file
  The migration helper's loader: what its parts share that needs the firmware.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#ifndef MIGRATION_HELPER_FIRMWARE_H_
#define MIGRATION_HELPER_FIRMWARE_H_

#include <Uefi.h>
#include <Library/BaseLib.h>
#include <Library/BaseMemoryLib.h>
#include <Library/UefiBootServicesTableLib.h>
#include <Library/UefiRuntimeServicesTableLib.h>

#include "MigrationHelper.h"

/** One step of the loader: what failed, and why. **/
typedef struct {
  enum mh_load_step    Step;
  EFI_STATUS           Status;
} LOAD_RESULT;

/** What the CPU says of memory encryption; all zero where SEV is not active. **/
typedef struct {
  UINT32     CBit;
  UINT64     CMask;
  BOOLEAN    IsSnp;
} SEV;

/**
  Ask the CPU whether SEV is active.

  The C-bit's place is what CPUID says, which may be a lie: RequirePrivate finds it out.

  @param[out] Sev  What it says.
**/
VOID
DetectSev (
  OUT SEV  *Sev
  );

/**
  Ask whether an SNP guest has an SVSM, which alone may then change the state of pages in the RMP.

  @retval TRUE   OVMF's table for SNP names a secrets page, and that an SVSM.
  @retval FALSE  It does not, or there is no such table.
**/
BOOLEAN
HasSvsm (
  VOID
  );

/**
  The page tables on which the firmware runs.

  @param[in]  Sev  What the CPU says.

  @return  The tables.
**/
PAGE_TABLES
LiveTables (
  IN CONST SEV  *Sev
  );

/**
  Check that nobody but this guest can read or write memory.

  @param[in]  Sev    What the CPU says.
  @param[in]  Data   The memory.
  @param[in]  Bytes  Its size.

  @retval EFI_SUCCESS             The firmware maps it private, or SEV is not active.
  @retval EFI_SECURITY_VIOLATION  It does not, or with another C-bit.
**/
EFI_STATUS
RequirePrivate (
  IN CONST SEV   *Sev,
  IN CONST VOID  *Data,
  IN UINTN       Bytes
  );

/**
  Read the image and its digest from the first firmware volume that has the image.

  @param[in]  Sev     What the CPU says.
  @param[out] Image   The flat binary, from pool. The caller frees it.
  @param[out] Bytes   Its size.
  @param[out] Digest  SHA256_BYTES bytes.

  @retval EFI_SUCCESS             Both were found, and are private.
  @retval EFI_NOT_FOUND           No firmware volume has the image, or the first one that has it has no digest.
  @retval EFI_SECURITY_VIOLATION  What was read is not private.
  @retval other                   What the boot services and the volumes return.
**/
EFI_STATUS
FindImage (
  IN  CONST SEV  *Sev,
  OUT VOID       **Image,
  OUT UINTN      *Bytes,
  OUT UINT8      *Digest
  );

/**
  Add the configuration table that says where the helper is.

  @param[in]  Descriptor  Of the image, not yet relocated.
  @param[in]  Sev         What the CPU says.
  @param[in]  Digest      Of the image.

  @retval EFI_SUCCESS             It is there.
  @retval EFI_SECURITY_VIOLATION  Its memory is not private.
  @retval other                   What the boot services return.
**/
EFI_STATUS
Publish (
  IN CONST struct mh_descriptor  *Descriptor,
  IN CONST SEV                   *Sev,
  IN CONST UINT8                 *Digest
  );

/**
  Take the configuration table away.
**/
VOID
Unpublish (
  VOID
  );

/**
  Tell the guest's kernel that it may migrate.

  @return  What the runtime services return.
**/
EFI_STATUS
SetMigrationVariable (
  VOID
  );

/**
  Delete the variable.
**/
VOID
UnsetMigrationVariable (
  VOID
  );

/**
  Hand the region tuples over to the host: on a page that it can read, then by MSR where KVM has that.

  @param[in]  Descriptor  Of the image, relocated or not.
  @param[in]  Sev         What the CPU says.

  @retval EFI_SUCCESS             The host may read them.
  @retval EFI_SECURITY_VIOLATION  The page, or one for a new table, was not private.
  @retval other                   What the boot services return.
**/
EFI_STATUS
HandOver (
  IN CONST struct mh_descriptor  *Descriptor,
  IN CONST SEV                   *Sev
  );

/**
  Write the loader's line on the debug port: where the helper is.

  @param[in]  Base         Main GPA of the helper.
  @param[in]  MemoryBytes  What it occupies.
**/
VOID
ReportHome (
  IN UINT64  Base,
  IN UINT64  MemoryBytes
  );

/**
  Write the loader's line on the debug port: what failed.

  @param[in]  Result  The step, and its status.
**/
VOID
ReportFailure (
  IN LOAD_RESULT  Result
  );

/**
  Convert one of abi.h's GUIDs.

  @param[in]  Text  The GUID as text.

  @return  The GUID.
**/
EFI_GUID
ParseGuid (
  IN CONST CHAR8  *Text
  );

#endif
