/** @file
  The migration helper's loader: what its parts share that needs no firmware.

  The parts that include only this header also compile outside edk2, for the tests.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#ifndef MIGRATION_HELPER_H_
#define MIGRATION_HELPER_H_

#include <Base.h>

typedef UINT8   uint8_t;
typedef UINT16  uint16_t;
typedef UINT32  uint32_t;
typedef UINT64  uint64_t;

#include <abi.h>

STATIC_ASSERT (sizeof (struct mh_handover) == 16 + MH_HANDOVER_REGIONS * sizeof (struct mh_region), "struct mh_handover has padding");
STATIC_ASSERT (sizeof (struct mh_published) == 56, "struct mh_published has padding");

#define SHA256_BYTES  32

/**
  Compute a SHA-256 digest (FIPS 180-4).

  @param[in]  Data    What to digest.
  @param[in]  Bytes   Its size.
  @param[out] Digest  SHA256_BYTES bytes.
**/
VOID
Sha256 (
  IN  CONST UINT8  *Data,
  IN  UINTN        Bytes,
  OUT UINT8        *Digest
  );

/**
  Check every field of an image's descriptor, its region tuples and its relocations.

  @param[in]  Image  The flat binary, aligned to 8 bytes.
  @param[in]  Bytes  Its size.
  @param[in]  CBit   The part's C-bit, 0 where SEV is not active.

  @retval TRUE   The image can be placed at its home.
  @retval FALSE  Some field makes no sense, or needs another part.
**/
BOOLEAN
IsImageSound (
  IN CONST VOID  *Image,
  IN UINTN       Bytes,
  IN UINT32      CBit
  );

/**
  Find the mirror GPA that a sound image will have: what its tuples say, without any its home.

  @param[in]  Image  The flat binary.

  @return  The mirror GPA of byte 0 of the image.
**/
UINT64
MirrorBase (
  IN CONST VOID  *Image
  );

/**
  Apply the relocations of a sound image.

  @param[in,out]  Image  The flat binary in its place.
  @param[in]      Delta  What to add to words of kind MH_RELOCATE_BASE.
  @param[in]      CMask  What to OR into words of kind MH_RELOCATE_CBIT, 0 where SEV is not active.
**/
VOID
RelocateImage (
  IN OUT VOID  *Image,
  IN UINT64    Delta,
  IN UINT64    CMask
  );

/// Tables that one page at most needs: for a 1 GiB page and for one of the 2 MiB pages that it becomes.
#define SPARE_TABLES  2

/**
  Clear the C-bit of the 4 KiB page at an address, splitting larger pages on the way.

  Physical and virtual addresses of the tables are the same. Nothing is flushed.

  @param[in,out]  Root     The root table.
  @param[in]      Levels   4, or 5 with CR4.LA57.
  @param[in]      CMask    The C-bit as a mask.
  @param[in]      Address  Any address in the page.
  @param[in,out]  Spare    SPARE_TABLES pages for tables that are needed.

  @retval TRUE   The page is shared.
  @retval FALSE  The address is not mapped.
**/
BOOLEAN
SharePage (
  IN OUT UINT64  *Root,
  IN     UINTN   Levels,
  IN     UINT64  CMask,
  IN     UINT64  Address,
  IN OUT UINT64  *Spare
  );

#endif
