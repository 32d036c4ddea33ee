/** @file
  What the loader tells the guest: a configuration table, and the variable that Linux looks for.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "Firmware.h"

#define WIDE_(Text)  L##Text
#define WIDE(Text)   WIDE_ (Text)

/// Not kept over a boot: a variable store that outlives this firmware would speak for one without a helper.
#define VARIABLE_ATTRIBUTES  (EFI_VARIABLE_BOOTSERVICE_ACCESS | EFI_VARIABLE_RUNTIME_ACCESS)

STATIC struct mh_published  *mPublished;

EFI_GUID
ParseGuid (
  IN CONST CHAR8  *Text
  )
{
  EFI_GUID  Guid;

  AsciiStrToGuid (Text, &Guid);
  return Guid;
}

EFI_STATUS
Publish (
  IN CONST struct mh_descriptor  *Descriptor,
  IN CONST SEV                   *Sev,
  IN CONST UINT8                 *Digest
  )
{
  EFI_STATUS  Status;
  EFI_GUID    Guid;

  //
  // Pool of type EfiReservedMemoryType would reserve a bin of its own beside the helper's pages.
  //
  Status = gBS->AllocatePool (EfiRuntimeServicesData, sizeof (*mPublished), (VOID **)&mPublished);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Status = RequirePrivate (Sev, mPublished, sizeof (*mPublished));
  if (EFI_ERROR (Status)) {
    gBS->FreePool (mPublished);
    return Status;
  }

  mPublished->version      = MH_ABI_VERSION;
  mPublished->c_bit        = Sev->CBit;
  mPublished->base         = Descriptor->home;
  mPublished->memory_bytes = Descriptor->memory_bytes;
  CopyMem (mPublished->sha256, Digest, sizeof (mPublished->sha256));
  Guid   = ParseGuid (MH_PUBLISHED_GUID);
  Status = gBS->InstallConfigurationTable (&Guid, mPublished);
  if (EFI_ERROR (Status)) {
    gBS->FreePool (mPublished);
  }

  return Status;
}

VOID
Unpublish (
  VOID
  )
{
  EFI_GUID  Guid;

  Guid = ParseGuid (MH_PUBLISHED_GUID);
  gBS->InstallConfigurationTable (&Guid, NULL);
  gBS->FreePool (mPublished);
}

EFI_STATUS
SetMigrationVariable (
  VOID
  )
{
  EFI_GUID  Guid;
  UINT8     Enabled;

  Guid    = ParseGuid (MH_MIGRATION_VARIABLE_GUID);
  Enabled = 1;
  return gRT->SetVariable (WIDE (MH_MIGRATION_VARIABLE), &Guid, VARIABLE_ATTRIBUTES, sizeof (Enabled), &Enabled);
}

VOID
UnsetMigrationVariable (
  VOID
  )
{
  EFI_GUID  Guid;

  Guid = ParseGuid (MH_MIGRATION_VARIABLE_GUID);
  gRT->SetVariable (WIDE (MH_MIGRATION_VARIABLE), &Guid, VARIABLE_ATTRIBUTES, 0, NULL);
}
