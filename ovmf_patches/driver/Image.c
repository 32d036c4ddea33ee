/** @file
  A flat image: its descriptor, its region tuples, its relocations (abi.h).

  The image comes out of measured flash and has passed its digest, so these checks are for mistakes, not for attacks.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "MigrationHelper.h"

#define ALL_KINDS  (MH_RELOCATE_BASE | MH_RELOCATE_CBIT)
#define FOUR_GIB   0x100000000ULL

typedef struct mh_descriptor DESCRIPTOR;
typedef struct mh_region     REGION;
typedef struct mh_relocation RELOCATION;

STATIC
BOOLEAN
IsPageAligned (
  IN UINT64  Number
  )
{
  return Number % MH_PAGE_BYTES == 0;
}

/** Whether Bytes bytes from Start lie below End. **/
STATIC
BOOLEAN
IsBelow (
  IN UINT64  Start,
  IN UINT64  Bytes,
  IN UINT64  End
  )
{
  return Start <= End && Bytes <= End - Start;
}

STATIC
BOOLEAN
IsCanonical (
  IN UINT64  Address
  )
{
  return (Address >> 47) == 0 || (Address >> 47) == 0x1FFFF;
}

STATIC
CONST REGION *
Regions (
  IN CONST VOID  *Image
  )
{
  return (CONST REGION *)((CONST UINT8 *)Image + ((CONST DESCRIPTOR *)Image)->region_offset);
}

STATIC
CONST RELOCATION *
Relocations (
  IN CONST VOID  *Image
  )
{
  return (CONST RELOCATION *)((CONST UINT8 *)Image + ((CONST DESCRIPTOR *)Image)->relocation_offset);
}

/** The file: what it is and which bytes of it mean what. **/
STATIC
BOOLEAN
IsFileSound (
  IN CONST DESCRIPTOR  *Descriptor,
  IN UINTN             Bytes
  )
{
  return Descriptor->magic == MH_DESCRIPTOR_MAGIC &&
         Descriptor->version == MH_ABI_VERSION &&
         Descriptor->descriptor_bytes == sizeof (DESCRIPTOR) &&
         (Descriptor->flags & ~(UINT64)MH_FLAGS) == 0 &&
         Descriptor->image_bytes == Bytes &&
         Descriptor->region_offset % sizeof (UINT64) == 0 &&
         IsBelow (Descriptor->region_offset, (UINT64)Descriptor->region_count * sizeof (REGION), Bytes) &&
         Descriptor->relocation_offset % sizeof (UINT64) == 0 &&
         IsBelow (Descriptor->relocation_offset, (UINT64)Descriptor->relocation_count * sizeof (RELOCATION), Bytes);
}

/** The memory that the helper takes, and the parts of it. **/
STATIC
BOOLEAN
IsMemorySound (
  IN CONST DESCRIPTOR  *Descriptor
  )
{
  return IsPageAligned (Descriptor->home) &&
         IsPageAligned (Descriptor->memory_bytes) &&
         IsBelow (Descriptor->home, Descriptor->memory_bytes, FOUR_GIB) &&
         IsPageAligned (Descriptor->ring_offset) &&
         Descriptor->image_bytes <= Descriptor->ring_offset &&
         Descriptor->ring_count > 0 &&
         Descriptor->ring_stride == MH_RING_BYTES &&
         IsPageAligned (Descriptor->vcpu_stride) &&
         IsBelow (Descriptor->ring_offset, (UINT64)Descriptor->ring_count * MH_RING_BYTES, Descriptor->memory_bytes) &&
         IsPageAligned (Descriptor->secret_offset) &&
         IsPageAligned (Descriptor->secret_bytes) &&
         Descriptor->secret_bytes > 0 &&
         Descriptor->image_bytes <= Descriptor->secret_offset &&
         IsBelow (Descriptor->secret_offset, Descriptor->secret_bytes, Descriptor->ring_offset);
}

/** The mirror's address space, and where the helper starts in it. **/
STATIC
BOOLEAN
IsSpaceSound (
  IN CONST DESCRIPTOR  *Descriptor,
  IN UINT64            Limit
  )
{
  UINT64  Cr3;

  Cr3 = Descriptor->cr3;
  if ((Descriptor->flags & MH_FLAG_FIXED_CBIT) != 0) {
    Cr3 &= ~(1ULL << Descriptor->c_bit);
  }

  return IsPageAligned (Descriptor->link_base) &&
         IsBelow (Descriptor->link_base, Descriptor->memory_bytes, Limit) &&
         IsPageAligned (Descriptor->window) &&
         IsPageAligned (Descriptor->ram_limit) &&
         Descriptor->ram_limit > 0 &&
         IsBelow (Descriptor->window, Descriptor->ram_limit, Limit) &&
         IsPageAligned (Descriptor->vmsa_offset) &&
         IsBelow (Descriptor->link_base + Descriptor->vmsa_offset, MH_VMSA_BYTES, Limit) &&
         IsPageAligned (Cr3) &&
         Cr3 >= Descriptor->link_base &&
         IsBelow (Cr3 - Descriptor->link_base, MH_PAGE_BYTES, Descriptor->image_bytes) &&
         IsCanonical (Descriptor->entry64) &&
         IsCanonical (Descriptor->stack64) &&
         Descriptor->entry64 != 0 &&
         Descriptor->stack64 % 16 == 0 &&
         (Descriptor->entry32 == 0 ||
          (Descriptor->entry32 >= Descriptor->link_base &&
           Descriptor->entry32 - Descriptor->link_base < Descriptor->image_bytes &&
           Descriptor->entry32 < FOUR_GIB));
}

/** Whether bit Scheme of Schemes is set. **/
STATIC
BOOLEAN
IsOneOf (
  IN UINT32  Schemes,
  IN UINT16  Scheme
  )
{
  return Scheme < 32 && ((Schemes >> Scheme) & 1) != 0;
}

/** Tuples show the helper at one distance from its home, the first from byte 0 on; without any it lies at its home. **/
STATIC
BOOLEAN
AreRegionsSound (
  IN CONST DESCRIPTOR  *Descriptor,
  IN UINT64            Limit
  )
{
  CONST REGION  *Region;
  UINT64        Offset;
  UINTN         Index;

  if (Descriptor->region_count == 0) {
    return IsOneOf (MH_SCHEMES_AT_HOME, Descriptor->scheme) && Descriptor->link_base == Descriptor->home;
  }

  if (!IsOneOf (MH_SCHEMES_WITH_TUPLES, Descriptor->scheme) || (Descriptor->region_count > MH_HANDOVER_REGIONS)) {
    return FALSE;
  }

  Region = Regions (Descriptor);
  for (Index = 0; Index < Descriptor->region_count; Index++) {
    Offset = Region[Index].main_gpa - Descriptor->home;
    if (!IsPageAligned (Region[Index].main_gpa) || !IsPageAligned (Region[Index].length) ||
        (Region[Index].length == 0) || ((Index == 0) && (Offset != 0)) ||
        !IsBelow (Offset, Region[Index].length, Descriptor->memory_bytes) ||
        !IsPageAligned (Region[Index].mirror_gpa) || !IsBelow (Region[Index].mirror_gpa, Region[Index].length, Limit) ||
        (Region[Index].mirror_gpa - Region[0].mirror_gpa != Offset) ||
        (Region[Index].kind != (Offset < Descriptor->ring_offset ? MH_REGION_PRIVATE : MH_REGION_SHARED)))
    {
      return FALSE;
    }
  }

  return TRUE;
}

/** Of the header only CR3 may change, so what is being relocated never moves what says where. **/
STATIC
BOOLEAN
AreRelocationsSound (
  IN CONST DESCRIPTOR  *Descriptor
  )
{
  CONST RELOCATION  *Relocation;
  UINT64            HeaderBytes;
  UINTN             Index;

  Relocation  = Relocations (Descriptor);
  HeaderBytes = Descriptor->relocation_offset + (UINT64)Descriptor->relocation_count * sizeof (RELOCATION);
  for (Index = 0; Index < Descriptor->relocation_count; Index++) {
    if ((Relocation[Index].offset % sizeof (UINT64) != 0) ||
        ((Relocation[Index].kinds & ~ALL_KINDS) != 0) ||
        ((Relocation[Index].offset < HeaderBytes) &&
         ((Relocation[Index].offset != OFFSET_OF (DESCRIPTOR, cr3)) || (Relocation[Index].count != 1))) ||
        !IsBelow (Relocation[Index].offset, (UINT64)Relocation[Index].count * sizeof (UINT64), Descriptor->image_bytes))
    {
      return FALSE;
    }
  }

  return TRUE;
}

/** Whether an image that is fixed to a C-bit, or to none, fits the part. **/
STATIC
BOOLEAN
IsCBitSound (
  IN CONST DESCRIPTOR  *Descriptor,
  IN UINT32            CBit
  )
{
  if ((Descriptor->flags & MH_FLAG_FIXED_CBIT) == 0) {
    return Descriptor->c_bit == 0;
  }

  return Descriptor->c_bit >= MH_CBIT_FLOOR && Descriptor->c_bit <= MH_HIGHEST_CBIT && Descriptor->c_bit == CBit;
}

/** An image that may be anywhere has no hole for itself in the RAM window. **/
STATIC
BOOLEAN
IsPlaceSound (
  IN CONST DESCRIPTOR  *Descriptor
  )
{
  UINT64  Base;

  Base = MirrorBase (Descriptor);
  if ((Descriptor->flags & MH_FLAG_FIXED_BASE) != 0) {
    return Base == Descriptor->link_base;
  }

  return Base >= Descriptor->window + Descriptor->ram_limit || Base + Descriptor->memory_bytes <= Descriptor->window;
}

BOOLEAN
IsImageSound (
  IN CONST VOID  *Image,
  IN UINTN       Bytes,
  IN UINT32      CBit
  )
{
  CONST DESCRIPTOR  *Descriptor;
  UINT64            Limit;

  Descriptor = Image;
  Limit      = 1ULL << (CBit == 0 ? MH_HIGHEST_CBIT : CBit);
  return Bytes >= sizeof (DESCRIPTOR) &&
         IsFileSound (Descriptor, Bytes) &&
         IsCBitSound (Descriptor, CBit) &&
         IsMemorySound (Descriptor) &&
         IsSpaceSound (Descriptor, Limit) &&
         AreRegionsSound (Descriptor, Limit) &&
         IsPlaceSound (Descriptor) &&
         AreRelocationsSound (Descriptor);
}

UINT64
MirrorBase (
  IN CONST VOID  *Image
  )
{
  CONST DESCRIPTOR  *Descriptor;

  Descriptor = Image;
  return Descriptor->region_count == 0 ? Descriptor->home : Regions (Image)[0].mirror_gpa;
}

VOID
RelocateImage (
  IN OUT VOID  *Image,
  IN UINT64    Delta,
  IN UINT64    CMask
  )
{
  CONST DESCRIPTOR  *Descriptor;
  CONST RELOCATION  *Relocation;
  UINT64            *Word;
  UINTN             Index;
  UINTN             Count;

  Descriptor = Image;
  Relocation = Relocations (Image);
  for (Index = 0; Index < Descriptor->relocation_count; Index++) {
    Word = (UINT64 *)((UINT8 *)Image + Relocation[Index].offset);
    for (Count = 0; Count < Relocation[Index].count; Count++) {
      if ((Relocation[Index].kinds & MH_RELOCATE_BASE) != 0) {
        Word[Count] += Delta;
      }

      if ((Relocation[Index].kinds & MH_RELOCATE_CBIT) != 0) {
        Word[Count] |= CMask;
      }
    }
  }
}
