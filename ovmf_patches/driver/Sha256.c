/** @file
  SHA-256. MdePkg has none, and a loader that goes into any OVMF image can use no other package.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "MigrationHelper.h"

#define BLOCK_BYTES   64
#define LENGTH_BYTES  8

STATIC CONST UINT32  mRound[64] = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

STATIC
UINT32
RotateRight (
  IN UINT32  Word,
  IN UINTN   Bits
  )
{
  return (Word >> Bits) | (Word << (32 - Bits));
}

STATIC
VOID
Expand (
  IN  CONST UINT8  *Block,
  OUT UINT32       *Schedule
  )
{
  UINTN   Index;
  UINT32  Early;
  UINT32  Late;

  for (Index = 0; Index < 16; Index++, Block += 4) {
    Schedule[Index] = ((UINT32)Block[0] << 24) | ((UINT32)Block[1] << 16) | ((UINT32)Block[2] << 8) | Block[3];
  }

  for ( ; Index < 64; Index++) {
    Early           = Schedule[Index - 15];
    Late            = Schedule[Index - 2];
    Early           = RotateRight (Early, 7) ^ RotateRight (Early, 18) ^ (Early >> 3);
    Late            = RotateRight (Late, 17) ^ RotateRight (Late, 19) ^ (Late >> 10);
    Schedule[Index] = Schedule[Index - 16] + Early + Schedule[Index - 7] + Late;
  }
}

STATIC
VOID
Compress (
  IN OUT UINT32       *Hash,
  IN     CONST UINT8  *Block
  )
{
  UINT32  Schedule[64];
  UINT32  State[8];
  UINT32  First;
  UINT32  Second;
  UINTN   Index;
  UINTN   Word;

  Expand (Block, Schedule);
  for (Word = 0; Word < 8; Word++) {
    State[Word] = Hash[Word];
  }

  for (Index = 0; Index < 64; Index++) {
    First   = RotateRight (State[4], 6) ^ RotateRight (State[4], 11) ^ RotateRight (State[4], 25);
    First  += State[7] + ((State[4] & State[5]) ^ (~State[4] & State[6])) + mRound[Index] + Schedule[Index];
    Second  = RotateRight (State[0], 2) ^ RotateRight (State[0], 13) ^ RotateRight (State[0], 22);
    Second += (State[0] & State[1]) ^ (State[0] & State[2]) ^ (State[1] & State[2]);
    for (Word = 7; Word > 0; Word--) {
      State[Word] = State[Word - 1];
    }

    State[4] += First;
    State[0]  = First + Second;
  }

  for (Word = 0; Word < 8; Word++) {
    Hash[Word] += State[Word];
  }
}

STATIC
VOID
CompressTail (
  IN OUT UINT32       *Hash,
  IN     CONST UINT8  *Tail,
  IN     UINTN        TailBytes,
  IN     UINT64       AllBytes
  )
{
  UINT8  Blocks[2 * BLOCK_BYTES];
  UINTN  End;
  UINTN  Index;

  End = TailBytes + 1 + LENGTH_BYTES <= BLOCK_BYTES ? BLOCK_BYTES : 2 * BLOCK_BYTES;
  for (Index = 0; Index < End; Index++) {
    Blocks[Index] = Index < TailBytes ? Tail[Index] : 0;
  }

  Blocks[TailBytes] = 0x80;
  for (Index = 0; Index < LENGTH_BYTES; Index++) {
    Blocks[End - 1 - Index] = (UINT8)((AllBytes * 8) >> (8 * Index));
  }

  for (Index = 0; Index < End; Index += BLOCK_BYTES) {
    Compress (Hash, Blocks + Index);
  }
}

VOID
Sha256 (
  IN  CONST UINT8  *Data,
  IN  UINTN        Bytes,
  OUT UINT8        *Digest
  )
{
  UINT32  Hash[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
  };
  UINTN   Offset;
  UINTN   Index;

  for (Offset = 0; Bytes - Offset >= BLOCK_BYTES; Offset += BLOCK_BYTES) {
    Compress (Hash, Data + Offset);
  }

  CompressTail (Hash, Data + Offset, Bytes - Offset, Bytes);
  for (Index = 0; Index < SHA256_BYTES; Index++) {
    Digest[Index] = (UINT8)(Hash[Index / 4] >> (24 - 8 * (Index % 4)));
  }
}
