/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The landing: where the vCPU of an SEV-ES guest begins at the target, to load the registers of a guest that knows
 * nothing of it. Part of abi.h, which includes it.
 */
#ifndef MH_LANDING_H
#define MH_LANDING_H

/*
 * What it cannot load exactly it refuses: MSR C001_0130 is 0x100, this set in bits 15:12, the reason in bits 23:16
 * (GHCB specification, 2.3.1: termination request), and the guest never runs.
 */
#define MH_LANDING_REASON_SET 2

enum mh_landing_end {
    MH_LANDING_FAULT = 1,   /* an exception: no CPU takes that state */
    MH_LANDING_MODE = 2,    /* not long mode with NXE, or page tables of other levels than its own */
    MH_LANDING_FEATURE = 3, /* protection keys, shadow stacks, XCR0 beyond x87 and SSE, SEV_FEATURES, DR7, DebugCtl */
    MH_LANDING_LEVEL = 4,   /* CPL is neither 0 nor 3, or not that of CS; CPL 0 outside of 64-bit code; RFLAGS.VM */
    MH_LANDING_SEGMENT = 5, /* a segment in an LDT, one that is not present, or that no descriptor can give */
    MH_LANDING_ADDRESS = 6, /* RIP is not canonical */
    MH_LANDING_STACK = 7,   /* the guest maps no private page below its stack */
    MH_LANDING_WAY = 8      /* no POP with IRETQ behind it near a handler of its IDT */
};

#endif
