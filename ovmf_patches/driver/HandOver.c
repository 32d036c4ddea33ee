/** @file
  The hand-over of region tuples to the host.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "Firmware.h"
#include "Platform.h"

#define CR0_WP      BIT16
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
VOID
Edit (
  IN CONST PAGE_TABLES  *Tables,
  IN UINT8              *Page,
  IN UINT64             *Spare
  )
{
  UINTN    Cr0;
  BOOLEAN  Interrupts;

  Interrupts = SaveAndDisableInterrupts ();
  Cr0        = AsmReadCr0 ();
  AsmWriteCr0 (Cr0 & ~(UINTN)CR0_WP);
  FlushPage (Page);
  SharePage (Tables, (UINT64)(UINTN)Page, Spare);
  AsmWriteCr0 (Cr0);
  AsmWriteCr3 (AsmReadCr3 ());
  SetInterruptState (Interrupts);
}

/** Pages for new tables, private ones. **/
STATIC
EFI_STATUS
AllocateTables (
  IN  CONST SEV             *Sev,
  IN  UINTN                 Pages,
  OUT EFI_PHYSICAL_ADDRESS  *Spare
  )
{
  EFI_STATUS  Status;

  Status = gBS->AllocatePages (AllocateAnyPages, EfiBootServicesData, Pages, Spare);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Status = RequirePrivate (Sev, (VOID *)(UINTN)*Spare, EFI_PAGES_TO_SIZE (Pages));
  if (EFI_ERROR (Status)) {
    gBS->FreePages (*Spare, Pages);
  }

  return Status;
}

/** Change nothing, or the one page. **/
STATIC
EFI_STATUS
MakeShared (
  IN CONST SEV  *Sev,
  IN UINT8      *Page
  )
{
  EFI_PHYSICAL_ADDRESS  Spare;
  EFI_STATUS            Status;
  PAGE_TABLES           Tables;
  UINTN                 Level;

  Tables = LiveTables (Sev);
  if (FindLeaf (&Tables, (UINT64)(UINTN)Page, &Level) == NULL) {
    return EFI_SECURITY_VIOLATION;
  }

  Spare  = 0;
  Status = Level > 1 ? AllocateTables (Sev, Level - 1, &Spare) : EFI_SUCCESS;
  if (!EFI_ERROR (Status)) {
    Edit (&Tables, Page, (UINT64 *)(UINTN)Spare);
  }

  return Status;
}

EFI_STATUS
HandOver (
  IN CONST struct mh_descriptor  *Descriptor,
  IN CONST SEV                   *Sev
  )
{
  struct mh_handover  *Page;
  EFI_STATUS          Status;

  Page   = (struct mh_handover *)(UINTN)(Descriptor->home + Descriptor->ring_offset);
  Status = Sev->CMask == 0 ? EFI_SUCCESS : MakeShared (Sev, (UINT8 *)Page);
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
