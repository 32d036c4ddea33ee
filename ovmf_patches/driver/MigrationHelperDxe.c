/** @file
  The migration helper's loader: brings the helper from the flash to its home, once, at boot.

  A step that fails ends it with one line on the debug port; what earlier steps did is undone, and the guest boots
  without a helper.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "Firmware.h"

STATIC CONST LOAD_RESULT  mLoaded = { 0, EFI_SUCCESS };

STATIC
LOAD_RESULT
Failed (
  IN enum mh_load_step  Step,
  IN EFI_STATUS         Status
  )
{
  LOAD_RESULT  Result;

  Result.Step   = Step;
  Result.Status = Status;
  return Result;
}

/**
  Fill the helper's pages: the image, relocated, and zeros.

  The launch secret's page stays as it is: the secure processor has filled it before the firmware began, and the
  helper takes anything but a secret for noise.
**/
STATIC
VOID
Place (
  IN CONST struct mh_descriptor  *Descriptor,
  IN CONST SEV                   *Sev
  )
{
  UINT8  *Home;
  UINT8  *Secret;
  UINT8  *Rest;

  Home   = (UINT8 *)(UINTN)Descriptor->home;
  Secret = Home + Descriptor->secret_offset;
  Rest   = Secret + Descriptor->secret_bytes;
  CopyMem (Home, Descriptor, Descriptor->image_bytes);
  ZeroMem (Home + Descriptor->image_bytes, Descriptor->secret_offset - Descriptor->image_bytes);
  ZeroMem (Rest, Home + Descriptor->memory_bytes - Rest);
  RelocateImage (Home, MirrorBase (Descriptor) - Descriptor->link_base, Sev->CMask);
}

/** Tell the guest and the host. **/
STATIC
LOAD_RESULT
Announce (
  IN CONST struct mh_descriptor  *Descriptor,
  IN CONST SEV                   *Sev,
  IN CONST UINT8                 *Digest
  )
{
  EFI_STATUS  Status;

  Status = Publish (Descriptor, Sev, Digest);
  if (EFI_ERROR (Status)) {
    return Failed (MH_LOAD_PUBLISH, Status);
  }

  Status = SetMigrationVariable ();
  if (EFI_ERROR (Status)) {
    Unpublish ();
    return Failed (MH_LOAD_VARIABLE, Status);
  }

  Status = Descriptor->region_count == 0 ? EFI_SUCCESS : HandOver (Descriptor, Sev);
  if (EFI_ERROR (Status)) {
    UnsetMigrationVariable ();
    Unpublish ();
    return Failed (MH_LOAD_HANDOVER, Status);
  }

  return mLoaded;
}

/** Reserve exactly the helper's pages and fill them. **/
STATIC
LOAD_RESULT
Settle (
  IN CONST struct mh_descriptor  *Descriptor,
  IN CONST SEV                   *Sev,
  IN CONST UINT8                 *Digest
  )
{
  EFI_STATUS            Status;
  EFI_PHYSICAL_ADDRESS  Home;
  UINTN                 Pages;
  LOAD_RESULT           Result;

  Home   = Descriptor->home;
  Pages  = EFI_SIZE_TO_PAGES ((UINTN)Descriptor->memory_bytes);
  Status = gBS->AllocatePages (AllocateAddress, EfiReservedMemoryType, Pages, &Home);
  if (EFI_ERROR (Status)) {
    return Failed (MH_LOAD_RESERVE, Status);
  }

  Status = RequirePrivate (Sev, (VOID *)(UINTN)Home, EFI_PAGES_TO_SIZE (Pages));
  if (EFI_ERROR (Status)) {
    Result = Failed (MH_LOAD_RESERVE, Status);
  } else {
    Place (Descriptor, Sev);
    Result = Announce (Descriptor, Sev, Digest);
  }

  if (EFI_ERROR (Result.Status)) {
    ZeroMem ((VOID *)(UINTN)Home, EFI_PAGES_TO_SIZE (Pages));
    gBS->FreePages (Home, Pages);
  }

  return Result;
}

/** Check the image before anything is done with it. **/
STATIC
LOAD_RESULT
Load (
  IN CONST SEV    *Sev,
  IN CONST VOID   *Image,
  IN UINTN        Bytes,
  IN CONST UINT8  *Expected
  )
{
  UINT8  Digest[SHA256_BYTES];

  Sha256 (Image, Bytes, Digest);
  if (CompareMem (Digest, Expected, SHA256_BYTES) != 0) {
    return Failed (MH_LOAD_DIGEST, EFI_COMPROMISED_DATA);
  }

  if (!IsImageSound (Image, Bytes, Sev->CBit)) {
    return Failed (MH_LOAD_DESCRIPTOR, EFI_LOAD_ERROR);
  }

  return Settle (Image, Sev, Digest);
}

/**
  Find the image and load it.

  Not under SNP: there the RMP has the state of each page, which no scheme changes, and KVM has no mirrors.
**/
STATIC
LOAD_RESULT
FindAndLoad (
  IN CONST SEV  *Sev
  )
{
  EFI_STATUS   Status;
  LOAD_RESULT  Result;
  VOID         *Image;
  UINTN        Bytes;
  UINT8        Digest[SHA256_BYTES];

  if (Sev->IsSnp) {
    return Failed (HasSvsm () ? MH_LOAD_SVSM : MH_LOAD_SNP, EFI_UNSUPPORTED);
  }

  Status = FindImage (Sev, &Image, &Bytes, Digest);
  if (EFI_ERROR (Status)) {
    return Failed (MH_LOAD_FIND, Status);
  }

  Result = Load (Sev, Image, Bytes, Digest);
  if (!EFI_ERROR (Result.Status)) {
    ReportHome (((struct mh_descriptor *)Image)->home, ((struct mh_descriptor *)Image)->memory_bytes);
  }

  gBS->FreePool (Image);
  return Result;
}

/**
  Load the helper and report.

  @param[in]  ImageHandle  Of the driver.
  @param[in]  SystemTable  Of the firmware.

  @retval EFI_SUCCESS  The helper is in its place.
  @retval other        It is not, and nothing of it is left.
**/
EFI_STATUS
EFIAPI
MigrationHelperEntry (
  IN EFI_HANDLE        ImageHandle,
  IN EFI_SYSTEM_TABLE  *SystemTable
  )
{
  LOAD_RESULT  Result;
  SEV          Sev;

  DetectSev (&Sev);
  Result = FindAndLoad (&Sev);
  if (EFI_ERROR (Result.Status)) {
    ReportFailure (Result);
  }

  return Result.Status;
}
