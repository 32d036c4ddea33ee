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
  @param[in]  CBit   The part's C-bit, MH_CBIT_FLOOR to MH_HIGHEST_CBIT; 0 where SEV is not active.

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

/// Page tables. They map themselves: physical and virtual addresses of the tables are the same.
typedef struct {
  UINT64    *Root;
  UINTN     Levels; ///< 4, or 5 with CR4.LA57
  UINT64    CMask;  ///< the C-bit as a mask, 0 where SEV is not active
} PAGE_TABLES;

/**
  Find the entry that maps an address.

  @param[in]   Tables   The tables.
  @param[in]   Address  The address.
  @param[out]  Level    1 for a page of 4 KiB, 2 for one of 2 MiB, 3 for one of 1 GiB.

  @return  The entry, NULL where the address is not mapped, or by a table that is not private.
**/
UINT64 *
FindLeaf (
  IN  CONST PAGE_TABLES  *Tables,
  IN  UINT64             Address,
  OUT UINTN              *Level
  );

/**
  Check that memory is mapped with the C-bit, and by tables that are.

  @param[in]  Tables   The tables.
  @param[in]  Address  Where the memory starts.
  @param[in]  Bytes    Its size.

  @retval TRUE   All of it is, or SEV is not active.
  @retval FALSE  Some page is not, or no part has its C-bit there.
**/
BOOLEAN
IsPrivate (
  IN CONST PAGE_TABLES  *Tables,
  IN UINT64             Address,
  IN UINT64             Bytes
  );

/**
  Clear the C-bit of the 4 KiB page at an address, splitting larger pages on the way. Nothing is flushed.

  @param[in]      Tables   The tables; they map the address.
  @param[in]      Address  Any address in the page.
  @param[in,out]  Spare    A private page for each level above 1 of the entry that FindLeaf gives.
**/
VOID
SharePage (
  IN     CONST PAGE_TABLES  *Tables,
  IN     UINT64             Address,
  IN OUT UINT64             *Spare
  );

#endif
