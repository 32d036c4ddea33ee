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

/**
  Find the C-bit of an SEV guest.

  @return  Its position, 0 where SEV is not active.
**/
UINT32
ActiveCBit (
  VOID
  );

/**
  Read the image and its digest from the first firmware volume that has them.

  @param[out] Image   The flat binary, from pool. The caller frees it.
  @param[out] Bytes   Its size.
  @param[out] Digest  SHA256_BYTES bytes.

  @retval EFI_SUCCESS          Both were found.
  @retval EFI_NOT_FOUND        No firmware volume has the image's file with both of its sections.
  @retval EFI_BAD_BUFFER_SIZE  The digest has another size.
**/
EFI_STATUS
FindImage (
  OUT VOID   **Image,
  OUT UINTN  *Bytes,
  OUT UINT8  *Digest
  );

/**
  Add the configuration table that says where the helper is.

  @param[in]  Descriptor  Of the image, not yet relocated.
  @param[in]  CBit        The C-bit that is applied, 0 where SEV is not active.
  @param[in]  Digest      Of the image.

  @return  What the boot services return.
**/
EFI_STATUS
Publish (
  IN CONST struct mh_descriptor  *Descriptor,
  IN UINT32                      CBit,
  IN CONST UINT8                 *Digest
  );

/**
  Take the configuration table away, and the variable.
**/
VOID
Withdraw (
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
  Hand the region tuples over to the host: on a page that it can read, then by MSR where KVM has that.

  @param[in]  Descriptor  Of the image, relocated or not.
  @param[in]  CBit        The C-bit, 0 where SEV is not active.

  @retval EFI_SUCCESS  The host may read them.
  @retval other        The page could not be made shared.
**/
EFI_STATUS
HandOver (
  IN CONST struct mh_descriptor  *Descriptor,
  IN UINT32                      CBit
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
