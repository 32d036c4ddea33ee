/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the driver's parts that need no firmware take from edk2's Base.h, for the compiler of this machine.
 */
#ifndef NATIVE_BASE_H
#define NATIVE_BASE_H

#include <stddef.h>
#include <stdint.h>

typedef uint8_t UINT8;
typedef uint16_t UINT16;
typedef uint32_t UINT32;
typedef uint64_t UINT64;
typedef uintptr_t UINTN;
typedef uint8_t BOOLEAN;

#define CONST const
#define VOID void
#define STATIC static
#define IN
#define OUT
#define TRUE 1
#define FALSE 0
#define BIT0 0x1
#define BIT1 0x2
#define BIT2 0x4
#define BIT7 0x80
#define BIT12 0x1000
#define OFFSET_OF(type, field) offsetof (type, field)
#define STATIC_ASSERT _Static_assert

#endif
