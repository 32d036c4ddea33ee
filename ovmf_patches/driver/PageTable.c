/** @file
  The C-bit of one page in live page tables (AMD64 Architecture Programmer's Manual, volume 2, 5.3 and 15.34).

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "MigrationHelper.h"

#define ENTRY_PRESENT   BIT0
#define ENTRY_WRITABLE  BIT1
#define ENTRY_USER      BIT2
#define ENTRY_LARGE     BIT7
#define ENTRY_PAT_4K    BIT7
#define ENTRY_PAT_LARGE BIT12
#define ENTRY_ADDRESS   0x000FFFFFFFFFF000ULL
#define TABLE_ENTRIES   512
#define LEVEL_2M        2

STATIC
UINTN
LevelShift (
  IN UINTN  Level
  )
{
  return 12 + 9 * (Level - 1);
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

BOOLEAN
SharePage (
  IN OUT UINT64  *Root,
  IN     UINTN   Levels,
  IN     UINT64  CMask,
  IN     UINT64  Address,
  IN OUT UINT64  *Spare
  )
{
  UINT64  *Entry;
  UINT64  *Table;
  UINTN   Level;

  Table = Root;
  for (Level = Levels; Level > 0; Level--) {
    Entry = &Table[(Address >> LevelShift (Level)) % TABLE_ENTRIES];
    if ((*Entry & ENTRY_PRESENT) == 0) {
      return FALSE;
    }

    if (Level == 1) {
      *Entry &= ~CMask;
    } else if ((*Entry & ENTRY_LARGE) != 0) {
      Split (Entry, Level, CMask, Spare);
      Spare += TABLE_ENTRIES;
    }

    Table = (UINT64 *)(UINTN)(*Entry & ENTRY_ADDRESS & ~CMask);
  }

  return TRUE;
}
