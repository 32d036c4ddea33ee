/** @file
  Page tables: what is private, and the C-bit of one page (AMD64 Architecture Programmer's Manual, volume 2, 5.3 and
  15.34).

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "MigrationHelper.h"

#define ENTRY_PRESENT    BIT0
#define ENTRY_WRITABLE   BIT1
#define ENTRY_USER       BIT2
#define ENTRY_LARGE      BIT7
#define ENTRY_PAT_4K     BIT7
#define ENTRY_PAT_LARGE  BIT12
#define ENTRY_ADDRESS    0x000FFFFFFFFFF000ULL
#define TABLE_ENTRIES    512
#define LEVEL_4K         1
#define LEVEL_2M         2
#define LEVEL_1G         3

STATIC
UINTN
LevelShift (
  IN UINTN  Level
  )
{
  return 12 + 9 * (Level - 1);
}

/** The table's entry for an address. No table lies so high: what is left there is a C-bit in another place. **/
STATIC
UINT64 *
EntryIn (
  IN UINT64  Table,
  IN UINTN   Level,
  IN UINT64  Address
  )
{
  if ((Table >> MH_LOWEST_CBIT) != 0) {
    return NULL;
  }

  return (UINT64 *)(UINTN)Table + (Address >> LevelShift (Level)) % TABLE_ENTRIES;
}

UINT64 *
FindLeaf (
  IN  CONST PAGE_TABLES  *Tables,
  IN  UINT64             Address,
  OUT UINTN              *Level
  )
{
  UINT64  *Entry;
  UINT64  Table;

  Table = (UINT64)(UINTN)Tables->Root;
  for (*Level = Tables->Levels; ; (*Level)--) {
    Entry = EntryIn (Table, *Level, Address);
    if ((Entry == NULL) || ((*Entry & ENTRY_PRESENT) == 0)) {
      return NULL;
    }

    if ((*Level == LEVEL_4K) || ((*Level <= LEVEL_1G) && ((*Entry & ENTRY_LARGE) != 0))) {
      return Entry;
    }

    if ((*Entry & Tables->CMask) != Tables->CMask) {
      return NULL;
    }

    Table = *Entry & ENTRY_ADDRESS & ~Tables->CMask;
  }
}

BOOLEAN
IsPrivate (
  IN CONST PAGE_TABLES  *Tables,
  IN UINT64             Address,
  IN UINT64             Bytes
  )
{
  UINT64  *Leaf;
  UINT64  Page;
  UINTN   Level;

  if (Tables->CMask == 0) {
    return TRUE;
  }

  if ((Tables->CMask < 1ULL << MH_CBIT_FLOOR) || (Tables->CMask > 1ULL << MH_HIGHEST_CBIT) || (Bytes > ~Address)) {
    return FALSE;
  }

  for (Page = Address & ~(UINT64)(MH_PAGE_BYTES - 1); Page < Address + Bytes; Page += MH_PAGE_BYTES) {
    Leaf = FindLeaf (Tables, Page, &Level);
    if ((Leaf == NULL) || ((*Leaf & Tables->CMask) == 0)) {
      return FALSE;
    }
  }

  return TRUE;
}

/** Replace the large page at an entry by a table of pages of the next size, with the same translation and rights. **/
STATIC
VOID
Split (
  IN OUT UINT64  *Entry,
  IN     UINTN   Level,
  IN     UINT64  CMask,
  OUT    UINT64  *Table
  )
{
  UINT64  Page;
  UINTN   Index;

  Page = *Entry;
  if (Level == LEVEL_2M) {
    Page &= ~(UINT64)(ENTRY_LARGE | ENTRY_PAT_LARGE);
    if ((*Entry & ENTRY_PAT_LARGE) != 0) {
      Page |= ENTRY_PAT_4K;
    }
  }

  for (Index = 0; Index < TABLE_ENTRIES; Index++) {
    Table[Index] = Page + ((UINT64)Index << LevelShift (Level - 1));
  }

  *Entry = (UINT64)(UINTN)Table | CMask | ENTRY_PRESENT | ENTRY_WRITABLE | (*Entry & ENTRY_USER);
}

VOID
SharePage (
  IN     CONST PAGE_TABLES  *Tables,
  IN     UINT64             Address,
  IN OUT UINT64             *Spare
  )
{
  UINT64  *Leaf;
  UINTN   Level;

  for (Leaf = FindLeaf (Tables, Address, &Level); Level > LEVEL_4K; Leaf = FindLeaf (Tables, Address, &Level)) {
    Split (Leaf, Level, Tables->CMask, Spare);
    Spare += TABLE_ENTRIES;
  }

  *Leaf &= ~Tables->CMask;
}
