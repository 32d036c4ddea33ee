/** @file
  The image in the firmware volumes: a FREEFORM file of two RAW sections.

  OVMF offers its DXE volume only, which SEC has decompressed from measured flash into private memory.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include <PiDxe.h>
#include <Protocol/FirmwareVolume2.h>

#include "Firmware.h"

#define IMAGE_SECTION   0
#define DIGEST_SECTION  1

STATIC
EFI_STATUS
ReadRaw (
  IN  EFI_FIRMWARE_VOLUME2_PROTOCOL  *Volume,
  IN  UINTN                          Instance,
  OUT VOID                           **Data,
  OUT UINTN                          *Bytes
  )
{
  EFI_GUID  File;
  UINT32    Authentication;

  File   = ParseGuid (MH_IMAGE_FILE_GUID);
  *Data  = NULL;
  *Bytes = 0;
  return Volume->ReadSection (Volume, &File, EFI_SECTION_RAW, Instance, Data, Bytes, &Authentication);
}

/** Read into a buffer that is private; none is left where that fails. **/
STATIC
EFI_STATUS
ReadPrivate (
  IN  CONST SEV                      *Sev,
  IN  EFI_FIRMWARE_VOLUME2_PROTOCOL  *Volume,
  IN  UINTN                          Instance,
  OUT VOID                           **Data,
  OUT UINTN                          *Bytes
  )
{
  EFI_STATUS  Status;

  Status = ReadRaw (Volume, Instance, Data, Bytes);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Status = RequirePrivate (Sev, *Data, *Bytes);
  if (EFI_ERROR (Status)) {
    gBS->FreePool (*Data);
  }

  return Status;
}

STATIC
EFI_STATUS
ReadDigest (
  IN  CONST SEV                      *Sev,
  IN  EFI_FIRMWARE_VOLUME2_PROTOCOL  *Volume,
  OUT UINT8                          *Digest
  )
{
  EFI_STATUS  Status;
  VOID        *Data;
  UINTN       Bytes;

  Status = ReadPrivate (Sev, Volume, DIGEST_SECTION, &Data, &Bytes);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  if (Bytes == SHA256_BYTES) {
    CopyMem (Digest, Data, Bytes);
  } else {
    Status = EFI_NOT_FOUND;
  }

  gBS->FreePool (Data);
  return Status;
}

/** The volumes' handles; they are private. **/
STATIC
EFI_STATUS
LocateVolumes (
  IN  CONST SEV   *Sev,
  OUT UINTN       *Count,
  OUT EFI_HANDLE  **Handles
  )
{
  EFI_STATUS  Status;

  Status = gBS->LocateHandleBuffer (ByProtocol, &gEfiFirmwareVolume2ProtocolGuid, NULL, Count, Handles);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Status = RequirePrivate (Sev, *Handles, *Count * sizeof (**Handles));
  if (EFI_ERROR (Status)) {
    gBS->FreePool (*Handles);
  }

  return Status;
}

/** Read the image from the first volume that has it. One that cannot say whether it has it ends the search. **/
STATIC
EFI_STATUS
Search (
  IN  CONST SEV                      *Sev,
  IN  CONST EFI_HANDLE               *Handles,
  IN  UINTN                          Count,
  OUT EFI_FIRMWARE_VOLUME2_PROTOCOL  **Volume,
  OUT VOID                           **Image,
  OUT UINTN                          *Bytes
  )
{
  EFI_STATUS  Status;
  UINTN       Index;

  Status = EFI_NOT_FOUND;
  for (Index = 0; Index < Count && Status == EFI_NOT_FOUND; Index++) {
    Status = gBS->HandleProtocol (Handles[Index], &gEfiFirmwareVolume2ProtocolGuid, (VOID **)Volume);
    if (!EFI_ERROR (Status)) {
      Status = ReadPrivate (Sev, *Volume, IMAGE_SECTION, Image, Bytes);
    }
  }

  return Status;
}

EFI_STATUS
FindImage (
  IN  CONST SEV  *Sev,
  OUT VOID       **Image,
  OUT UINTN      *Bytes,
  OUT UINT8      *Digest
  )
{
  EFI_STATUS                     Status;
  EFI_FIRMWARE_VOLUME2_PROTOCOL  *Volume;
  EFI_HANDLE                     *Handles;
  UINTN                          Count;

  Status = LocateVolumes (Sev, &Count, &Handles);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Status = Search (Sev, Handles, Count, &Volume, Image, Bytes);
  if (!EFI_ERROR (Status)) {
    Status = ReadDigest (Sev, Volume, Digest);
    if (EFI_ERROR (Status)) {
      gBS->FreePool (*Image);
    }
  }

  gBS->FreePool (Handles);
  return Status;
}
