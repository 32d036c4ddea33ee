/** @file
  The loader's one line on QEMU's debug console, in RELEASE builds too.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include <Library/IoLib.h>

#include "Firmware.h"

STATIC
VOID
PutText (
  IN CONST CHAR8  *Text
  )
{
  for ( ; *Text != '\0'; Text++) {
    IoWrite8 (MH_DEBUG_PORT, (UINT8)*Text);
  }
}

STATIC
VOID
PutHex (
  IN UINT64  Number,
  IN UINTN   Digits
  )
{
  while (Digits > 0) {
    Digits--;
    IoWrite8 (MH_DEBUG_PORT, (UINT8)"0123456789abcdef"[RShiftU64 (Number, 4 * Digits) & 0xF]);
  }
}

VOID
ReportHome (
  IN UINT64  Base,
  IN UINT64  MemoryBytes
  )
{
  PutText (MH_DEBUG_MARKER);
  PutHex (Base, 16);
  PutText (" ");
  PutHex (MemoryBytes, 16);
  PutText ("\n");
}

VOID
ReportFailure (
  IN LOAD_RESULT  Result
  )
{
  PutText (MH_DEBUG_MARKER "failed ");
  PutHex (Result.Step, 2);
  PutText (" ");
  PutHex (Result.Status, 16);
  PutText ("\n");
}
