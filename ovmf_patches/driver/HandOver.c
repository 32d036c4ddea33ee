/** @file
  The hand-over of region tuples to the host.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "Firmware.h"
#include "Platform.h"

#define CR0_WP      BIT16
#define CR3_TABLE   0x000FFFFFFFFFF000ULL
#define CR4_LA57    BIT12
#define CACHE_LINE  64

/** Write all lines of a page to memory under the key that they have now. **/
STATIC
VOID
FlushPage (
  IN UINT8  *Page
  )
{
  UINTN  Offset;

  for (Offset = 0; Offset < MH_PAGE_BYTES; Offset += CACHE_LINE) {
    AsmFlushCacheLine (Page + Offset);
  }
}

/** Edit the live tables, which the firmware maps read-only, between two moments at which it may do so itself. **/
STATIC
BOOLEAN
Edit (
  IN UINT8   *Page,
  IN UINT64  CMask,
  IN UINT64  *Spare
  )
{
  UINTN    Cr0;
  UINTN    Cr3;
  BOOLEAN  Interrupts;
  BOOLEAN  IsShared;

  Interrupts = SaveAndDisableInterrupts ();
  Cr0        = AsmReadCr0 ();
  Cr3        = AsmReadCr3 ();
  AsmWriteCr0 (Cr0 & ~(UINTN)CR0_WP);
  IsShared = SharePage (
               (UINT64 *)(UINTN)(Cr3 & CR3_TABLE & ~CMask),
               (AsmReadCr4 () & CR4_LA57) != 0 ? 5 : 4,
               CMask,
               (UINT64)(UINTN)Page,
               Spare
               );
  AsmWriteCr0 (Cr0);
  AsmWriteCr3 (Cr3);
  SetInterruptState (Interrupts);
  return IsShared;
}

/** Spare tables that are not needed go with the boot services. **/
STATIC
EFI_STATUS
MakeShared (
  IN UINT8   *Page,
  IN UINT64  CMask
  )
{
  EFI_PHYSICAL_ADDRESS  Spare;
  EFI_STATUS            Status;

  Status = gBS->AllocatePages (AllocateAnyPages, EfiBootServicesData, SPARE_TABLES, &Spare);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  FlushPage (Page);
  return Edit (Page, CMask, (UINT64 *)(UINTN)Spare) ? EFI_SUCCESS : EFI_NO_MAPPING;
}

EFI_STATUS
HandOver (
  IN CONST struct mh_descriptor  *Descriptor,
  IN UINT32                      CBit
  )
{
  struct mh_handover  *Page;
  EFI_STATUS          Status;

  Page   = (struct mh_handover *)(UINTN)(Descriptor->home + Descriptor->ring_offset);
  Status = CBit == 0 ? EFI_SUCCESS : MakeShared ((UINT8 *)Page, 1ULL << CBit);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  ZeroMem (Page, MH_PAGE_BYTES);
  Page->magic   = MH_HANDOVER_MAGIC;
  Page->version = MH_ABI_VERSION;
  Page->count   = Descriptor->region_count;
  CopyMem (
    Page->regions,
    (CONST UINT8 *)Descriptor + Descriptor->region_offset,
    Descriptor->region_count * sizeof (struct mh_region)
    );
  if (HasMigrationControl ()) {
    AsmWriteMsr64 (MH_MSR_MIGRATION_CONTROL, MH_MIGRATION_READY);
  }

  return EFI_SUCCESS;
}
