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

STATIC
EFI_STATUS
ReadDigest (
  IN  EFI_FIRMWARE_VOLUME2_PROTOCOL  *Volume,
  OUT UINT8                          *Digest
  )
{
  EFI_STATUS  Status;
  VOID        *Data;
  UINTN       Bytes;

  Status = ReadRaw (Volume, DIGEST_SECTION, &Data, &Bytes);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  if (Bytes == SHA256_BYTES) {
    CopyMem (Digest, Data, Bytes);
  } else {
    Status = EFI_BAD_BUFFER_SIZE;
  }

  gBS->FreePool (Data);
  return Status;
}

STATIC
EFI_STATUS
ReadVolume (
  IN  EFI_HANDLE  Handle,
  OUT VOID        **Image,
  OUT UINTN       *Bytes,
  OUT UINT8       *Digest
  )
{
  EFI_STATUS                     Status;
  EFI_FIRMWARE_VOLUME2_PROTOCOL  *Volume;

  Status = gBS->HandleProtocol (Handle, &gEfiFirmwareVolume2ProtocolGuid, (VOID **)&Volume);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Status = ReadRaw (Volume, IMAGE_SECTION, Image, Bytes);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Status = ReadDigest (Volume, Digest);
  if (EFI_ERROR (Status)) {
    gBS->FreePool (*Image);
  }

  return Status;
}

EFI_STATUS
FindImage (
  OUT VOID   **Image,
  OUT UINTN  *Bytes,
  OUT UINT8  *Digest
  )
{
  EFI_STATUS  Status;
  EFI_HANDLE  *Handles;
  UINTN       Count;
  UINTN       Index;

  Status = gBS->LocateHandleBuffer (ByProtocol, &gEfiFirmwareVolume2ProtocolGuid, NULL, &Count, &Handles);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Status = EFI_NOT_FOUND;
  for (Index = 0; Index < Count && Status == EFI_NOT_FOUND; Index++) {
    Status = ReadVolume (Handles[Index], Image, Bytes, Digest);
  }

  gBS->FreePool (Handles);
  return Status;
}
