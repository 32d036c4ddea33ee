/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The migration helper's ABI: every number that crosses a border between the helper, the
 * toolchain, the host and the firmware driver. Python reads this file and those that it includes through mh_abi/abi.py,
 * the assembler takes its constants, offsets and sizes from there, C includes it.
 * All integers are little-endian, all structures have natural alignment and no padding.
 */
#ifndef MH_ABI_H
#define MH_ABI_H

#define MH_PAGE_BYTES 4096
#define MH_ABI_VERSION 4     /* of image and ring: what a helper and its own host agree on */

/* What two helpers agree on: the lowest and the highest version of hello, packets and keys that this build speaks. */
#define MH_PROTOCOL_LOW 4
#define MH_PROTOCOL_HIGH 4

/* ---- The image: a descriptor at offset 0 tells a host all it needs ---- */

#define MH_DESCRIPTOR_MAGIC 0x504c45484d564553 /* "SEVMHELP" */

enum mh_scheme {
    MH_SCHEME_ALIAS_GPA = 1,
    MH_SCHEME_ALIAS_WINDOW = 2,
    MH_SCHEME_REGIONS = 3,
    MH_SCHEME_ISOLATED = 4,
    MH_SCHEME_VMPL = 5
};
/* Schemes that firmware loads, by kind: bit n stands for scheme n. */
#define MH_SCHEMES_AT_HOME 0x6     /* the image lies at its home; it has no region tuples */
#define MH_SCHEMES_WITH_TUPLES 0x8 /* the mirror sees it elsewhere, as its region tuples say */

/* What an address in requests and packets means. */
enum mh_address_kind {
    MH_ADDRESS_GPA = 1,
    MH_ADDRESS_RAM = 2 /* ram_addr */
};

/* How a guest is protected, weakest first. */
enum mh_protection {
    MH_PROTECTION_SEV = 1,
    MH_PROTECTION_SEV_ES = 2,
    MH_PROTECTION_SEV_SNP = 3
};

/* Where the C-bit of any part is (CPUID 8000_001F EBX[5:0]); no address without it reaches the lowest. */
#define MH_LOWEST_CBIT 47
#define MH_HIGHEST_CBIT 51
#define MH_CBIT_FLOOR 32 /* a C-bit below it is taken for a mistake: 32-bit addresses would reach it */

/* mh_descriptor.flags */
#define MH_FLAG_FIXED_BASE 0x1 /* may be placed at link_base only */
#define MH_FLAG_FIXED_CBIT 0x2 /* c_bit was applied at link time */
#define MH_FLAG_ES 0x4         /* for SEV-ES: takes no #VC, so it looks up nothing with CPUID */
#define MH_FLAG_STRICT 0x8     /* has room for authenticators: MH_OWNER_STRICT */
#define MH_FLAGS 0xf           /* those of images that firmware loads */
#define MH_FLAG_SNP 0x10       /* fetches its record, see attest.h: the page below the root of the tables has the owner's key,
                                  the one behind the secret's is to be launched as secrets page */

struct mh_descriptor {
    uint64_t magic;
    uint16_t version;
    uint16_t scheme;
    uint32_t descriptor_bytes;
    uint64_t flags;
    uint64_t image_bytes;   /* bytes of the flat binary */
    uint64_t memory_bytes;  /* bytes the helper occupies; those past image_bytes start as zero */
    uint64_t link_base;     /* mirror GPA that the page tables assume before relocation */
    uint64_t home;          /* main GPA of the helper, or MH_NO_HOME */
    uint64_t window;        /* mirror GPA of address 0 of a request */
    uint64_t ram_limit;     /* addresses in requests lie below this */
    uint64_t cr3;           /* mirror GPA of the root table, C-bit included; relocated */
    uint64_t entry64;       /* virtual address: long mode, paging on, interrupts off, EDI as MH_START_ANEW says */
    uint64_t stack64;       /* virtual address: RSP of the vCPU of ring 0 at entry64 */
    uint64_t c_bit;         /* bit position with MH_FLAG_FIXED_CBIT, else 0 */
    uint32_t ring_offset;   /* from the base of the image; shared pages from here to memory_bytes */
    uint32_t ring_count;    /* vCPUs that the image serves: ring i and RSP lie i strides behind those of ring 0 */
    uint32_t secret_offset; /* private page that receives the launch secret */
    uint32_t secret_bytes;
    uint32_t relocation_offset;
    uint32_t relocation_count;
    uint32_t region_offset;
    uint32_t region_count;
    uint64_t entry32;       /* mirror GPA: protected mode, flat segments, paging off; 0: no such start */
    uint64_t vmsa_offset;   /* from the base of the image to page 0 of MH_BATCH_VMSA in the mirror, modulo 2^64 */
    uint32_t ring_stride;
    uint32_t vcpu_stride;
};

/*
 * Every start takes the index of the vCPU's ring in EDI, below ring_count; another one halts at once. It halts as
 * well while a vCPU works in that place, with MH_RING_CLAIMED, unless this bit says that the earlier one is gone for
 * good. A start of ring 0, and of a ring with a session, ends the session for all.
 */
#define MH_START_ANEW 0x80000000
#define MH_MAX_RINGS 64

/*
 * What lies below stack64, and below RSP of every other vCPU, from there down: its stack, a guard, its stack for
 * exceptions, a guard. No table maps a guard. An audit looks for guards where these say, not where tables leave gaps.
 */
#define MH_STACK_BYTES 8192
#define MH_GUARD_BYTES 4096
#define MH_FAULT_STACK_BYTES 4096

#define MH_NO_HOME 0xffffffffffffffff

/* mh_relocation.kinds: applied to each of `count` consecutive uint64_t at `offset` */
#define MH_RELOCATE_BASE 0x1 /* add (load base - link_base) */
#define MH_RELOCATE_CBIT 0x2 /* OR 1 << C-bit */

struct mh_relocation {
    uint32_t offset;
    uint16_t count;
    uint16_t kinds;
};

/* One tuple of the 2021 thread: length bytes at main_gpa appear at mirror_gpa of the mirror VM. */
#define MH_REGION_PRIVATE 0
#define MH_REGION_SHARED 1

struct mh_region {
    uint64_t main_gpa;
    uint64_t length;
    uint64_t mirror_gpa;
    uint64_t kind;
};

/*
 * The hand-over of `regions`: the guest's loader fills this in on a shared page, the first of the ring
 * area (main GPA home + ring_offset), before it writes 1 to MSR_KVM_MIGRATION_CONTROL for the first time.
 * The host takes one copy, and clears the page before it starts the helper.
 */
#define MH_HANDOVER_MAGIC 0x5245564f444e4148 /* "HANDOVER" */
#define MH_HANDOVER_REGIONS 8

struct mh_handover {
    uint64_t magic;
    uint32_t version;
    uint32_t count;
    struct mh_region regions[8];
};

/* What the linker tells the helper's code about its address space. */
#define MH_PROTECTED_MAX 4
#define MH_AUTHENTICATOR_BYTES 32

struct mh_range {
    uint64_t start;
    uint64_t end;
};

struct mh_params {
    uint64_t window_va;   /* virtual address of request address 0 */
    uint64_t ram_limit;
    uint64_t ring_va;
    uint64_t secret_va;
    uint64_t bitmap_va;   /* one bit for each page below ram_limit, then for each VMSA: moved in this epoch */
    uint64_t moved_va;    /* the same: moved in an earlier epoch of the session */
    uint64_t shared_va;   /* the same: said to be shared */
    uint64_t authenticators_va; /* MH_AUTHENTICATOR_BYTES for each of these pages; 0: no strict finish */
    uint64_t vmsa_va;
    uint64_t vcpus;
    uint64_t vcpu_stride;
    struct mh_range protect[4]; /* request addresses never exported nor imported; end 0: unused */
    uint64_t features;    /* MH_FLAG_ES: goes into mh_ring.features, which CPUID fills otherwise; else 0 */
    uint16_t protocol_low; /* as the hello says them, these four */
    uint16_t protocol_high;
    uint16_t addresses;   /* enum mh_address_kind */
    uint16_t protection;  /* enum mh_protection */
};

/* ---- The ring: one per vCPU, shared memory ---- */

#define MH_RING_MAGIC 0x474e4952504c484d /* "MHLPRING" */
#define MH_RING_ENTRIES 64
#define MH_RING_SLOTS 512 /* pages that the ring holds; one submission may use them all */
#define MH_RING_SUBMISSIONS 0x1000
#define MH_RING_COMPLETIONS 0x2000
#define MH_RING_LIST 0x3000    /* uint64_t addresses, one a slot */
#define MH_RING_RESULTS 0x4000 /* struct mh_result, one a slot */
#define MH_RING_PACKETS 0x5000
#define MH_RING_DATA 0x15000

/* The urgent lane: the same in small, with slots and a stream of its own. It is looked at between any two chunks. */
#define MH_URGENT_ENTRIES 8
#define MH_URGENT_SLOTS 8
#define MH_URGENT_SUBMISSIONS 0x215000
#define MH_URGENT_COMPLETIONS 0x215200
#define MH_URGENT_LIST 0x215400
#define MH_URGENT_RESULTS 0x215440
#define MH_URGENT_PACKETS 0x215480
#define MH_URGENT_DATA 0x216000
#define MH_RING_BYTES 0x21e000

/* mh_ring.features */
#define MH_FEATURE_AESNI 0x1 /* AES-NI and PCLMULQDQ kernel */
#define MH_FEATURE_VAES 0x2  /* VAES and VPCLMULQDQ kernel on 256-bit vectors, used in its place */
#define MH_FEATURE_ZMM 0x4   /* the same on 512-bit vectors, used in the place of both */

enum mh_ring_state {
    MH_RING_OFFLINE = 0,
    MH_RING_READY = 1,
    MH_RING_BROKEN = 2, /* the host moved a tail by more than its lane holds; keys are wiped */
    MH_RING_FAULT = 3,  /* an exception: see the fault record; keys are wiped */
    MH_RING_CLAIMED = 4 /* a second vCPU was started while one works on this ring: it has halted */
};

struct mh_fault {
    uint64_t vector;
    uint64_t error_code;
    uint64_t rip;
    uint64_t cr2;
};

struct mh_ring {
    uint64_t magic;       /* bytes 0..63 are written by the helper */
    uint16_t version;
    uint16_t entries;
    uint32_t features;
    uint32_t state;       /* enum mh_ring_state; written last */
    uint32_t head;        /* submissions completed so far, modulo 2^32 */
    uint32_t urgent_head;
    uint8_t reserved0[36];
    uint32_t tail;        /* bytes 64..127 are written by the host: submissions made so far */
    uint32_t urgent_tail;
    uint8_t reserved1[56];
    struct mh_fault fault; /* written by the helper */
};

/*
 * Submission n and its completion sit at index n % entries of their lane. A session has one stream for each of
 * its rings, 0 to n - 1, and one for the urgent lane of each. START on ring 0 begins it, JOIN on every other ring
 * binds that ring's streams to it. An epoch ends when EPOCH was done on all its rings, the session when FINISH was.
 */
enum mh_op {
    MH_OP_HELLO = 1,  /* ring 0: makes a hello for one session, at the packet's place of `slot` */
    MH_OP_START = 2,  /* ring 0: role, the peer's hello at `slot`, how many rings */
    MH_OP_EXPORT = 3, /* addresses -> packets and data */
    MH_OP_IMPORT = 4, /* addresses, packets and data -> memory */
    MH_OP_EPOCH = 5,  /* source: makes the packet that ends an epoch of this ring; target: checks it */
    MH_OP_FINISH = 6, /* source: makes the packet that ends this ring's part in the session; target: checks it */
    MH_OP_ABORT = 7,  /* end the session for all rings, wipe this ring's keys */
    MH_OP_JOIN = 8,   /* rings other than 0: take part in the session */
    MH_OP_SHARE = 9,  /* addresses: the guest shares these pages with the host (or no longer) */
    MH_OP_RESUME = 10, /* the guest may run at the target from now on: what has moved in this session stays */
    MH_OP_ATTEST = 11, /* MH_START_SNP, ring 0, once: role, the owner's challenge at `slot`; see attest.h */
    MH_OP_RECORD = 12, /* ring 0, after it: what the owner has sealed, at `slot`; from then on as after LAUNCH_SECRET */
    MH_OP_RUN = 13,    /* MH_START_SNP, ring 0, no session: the guest's vCPU `count` runs; GHCB: the data page of `slot` */
    MH_OP_CONTEXT = 14 /* MH_START_SNP, ring 0, once: source: makes the packet of the guest's context; target: takes it */
};

enum mh_role { MH_ROLE_SOURCE = 1, MH_ROLE_TARGET = 2 };

/* mh_submission.flags */
#define MH_BATCH_LIST 0x1    /* page i lies at list[slot + i]; else at address + i pages */
#define MH_BATCH_VMSA 0x2    /* EXPORT, IMPORT: VMSA pages; addresses are below MH_VMSA_BYTES */
#define MH_BATCH_PRIVATE 0x4 /* SHARE: no longer shared; with MH_START_SNP the guest, at VMPL1, may have them */

#define MH_VMSA_BYTES 0x200000 /* VMSAs that the host may show the helper, one page each */
/*
 * With MH_START_SNP page n, not 0, is the VMSA of the guest's vCPU n: launched at the source, imported at the target, and
 * a VMSA in the RMP from RUN to its EXPORT. CONTEXT and FINISH on ring 0 of a source end the guest there, whatever comes of it.
 */

/*
 * EXPORT, IMPORT and SHARE name `count` pages, in chunks of `chunk` pages (the last may be shorter). A chunk is one
 * packet: page i has result and data at slot + i, a chunk has its packet at the slot of its first page. A list
 * has chunks of one page. EPOCH and FINISH have their packet at `slot`. The urgent lane serves EXPORT and IMPORT.
 */
struct mh_submission {
    uint16_t op;
    uint16_t role;       /* START, ATTEST */
    uint16_t slot;       /* HELLO, START, EXPORT, IMPORT, SHARE, EPOCH, FINISH, ATTEST, RECORD, RUN, CONTEXT */
    uint16_t count;      /* EXPORT, IMPORT, SHARE: 1 to the lane's slots; START: rings, 1 to ring_count; RUN: vCPU */
    uint64_t cookie;     /* echoed in the completion */
    uint64_t address;    /* EXPORT, IMPORT, SHARE without MH_BATCH_LIST */
    uint16_t chunk;      /* EXPORT, IMPORT, SHARE: 1 to count */
    uint16_t flags;      /* EXPORT, IMPORT, SHARE */
    uint32_t reserved0;  /* 0, as is every field that an op does not use */
    uint64_t reserved1[4];
};

/* What became of one page. */
struct mh_result {
    uint16_t status;     /* enum mh_status */
    uint16_t kind;       /* EXPORT, IMPORT: enum mh_kind of its chunk if the status is MH_DONE */
    uint32_t reserved;
};

struct mh_completion {
    uint16_t status;     /* enum mh_status; of a batch, the first that is not MH_DONE */
    uint16_t op;
    uint32_t epoch;      /* of this ring; after EPOCH it grows once the last ring has ended it */
    uint64_t cookie;
    uint64_t pages;      /* exported or imported on this ring in this session so far, both lanes */
    uint64_t total;      /* FINISH: pages of all rings that have finished; of the last one, of the session */
    uint32_t protocol;   /* START: the version that both sides speak */
    uint32_t reserved0;
    uint64_t reserved1[3];
};

/*
 * In the order of the checks; the first that fails is the answer. MH_BAD_TAG and MH_BAD_TOTALS end the session on their
 * side, for all rings: a new one needs new hellos.
 */
enum mh_status {
    MH_DONE = 0,
    MH_BAD_OP = 1,           /* unknown op */
    MH_WRONG_RING = 2,       /* HELLO and START are for ring 0, JOIN for the others, urgent lanes for pages */
    MH_BAD_ENTRY = 3,        /* a field that this op does not use is not zero; no such role, flag, slot, count or chunk */
    MH_WRONG_STATE = 4,      /* this op makes no sense now */
    MH_EPOCH_PENDING = 5,    /* this ring has ended the epoch, another one of the session has not */
    MH_BUSY = 6,             /* START: a vCPU is at work in the session before: run it until it halts */
    MH_NO_FEATURE = 7,       /* the CPU lacks an instruction that the helper needs */
    MH_NO_ENTROPY = 8,       /* RDRAND fails, or gives the same again */
    MH_NO_KEY = 9,           /* no record of this version, a key was damaged; ATTEST: no owner's key, or asked before; CONTEXT: no VMPCK0 */
    MH_NOT_STRICT = 10,      /* the owner asks for a strict finish: this build has none, or a chunk is not one page */
    MH_NOT_HELLO = 11,       /* the peer's hello has another magic; or, once the version is known, a reserved field is not zero */
    MH_NO_PROTOCOL = 12,     /* the peer speaks no version that we speak */
    MH_OTHER_ADDRESSES = 13, /* the peer means something else by an address */
    MH_OTHER_GUEST = 14,     /* the peer serves another guest */
    MH_OTHER_TERMS = 15,     /* the peer's owner has set other flags */
    MH_WEAKER_PEER = 16,     /* the peer, or the target, is protected less than the owner, or the source, demands */
    MH_BAD_HELLO = 17,       /* the hello's tag is not one of our transport key */
    MH_BAD_NONCE = 18,       /* the peer's nonce equals ours */
    MH_BAD_SHARE = 19,       /* the peer's share gives no secret */
    MH_NOT_ALIGNED = 20,
    MH_OUT_OF_RANGE = 21,    /* outside [0, ram_limit): also a set C-bit, also wrap-around */
    MH_PROTECTED = 22,       /* the helper's own memory */
    MH_SHARED = 23,          /* the host has said that the guest shares the page */
    MH_REPEATED = 24,        /* the page was moved in this epoch, on any ring; after RESUME in this session */
    MH_BAD_PACKET = 25,      /* magic, version, kind, length or a reserved field */
    MH_WRONG_SESSION = 26,
    MH_WRONG_STREAM = 27,    /* the packet is of another ring or lane */
    MH_WRONG_ADDRESS = 28,   /* the packet is for another address */
    MH_WRONG_EPOCH = 29,
    MH_REPLAYED = 30,        /* the sequence number was used already */
    MH_OUT_OF_ORDER = 31,    /* an earlier packet of the stream is missing */
    MH_INCOMPLETE = 32,      /* the end packet counts other packets of the urgent lane than have come */
    MH_BAD_TOTALS = 33,      /* the end packet counts other pages than have come: the session is over */
    MH_BAD_TAG = 34,         /* the session is over */
    MH_CHANGED = 35,         /* strict FINISH: a page is not what was exported of it last */
    MH_SKIPPED = 36,         /* import: an earlier chunk of the batch was refused, this one was not looked at */
    MH_ENDED = 37,           /* the session was ended before this chunk */
    MH_NO_REPORT = 38,       /* ATTEST: what came back is no report that the secure processor made for this request */
    MH_BAD_RECORD = 39,      /* RECORD: not sealed by the owner for this share, side and challenge; ATTEST is over */
    MH_NOT_FRESH = 40,       /* IMPORT: somebody else has validated the page, as PVALIDATE says */
    MH_BAD_VMSA = 41,        /* RUN: it is not for VMPL1 */
    MH_RUNNING = 42,         /* FINISH, CONTEXT: a vCPU of the guest may run: its VMSA has not been exported since RUN */
    MH_NO_CONTEXT = 43       /* CONTEXT: the secure processor did not do it, or nobody knows; without it the migration goes on */
};

#include "attest.h"
#include "firmware.h"
#include "landing.h"
#include "protocol.h"

#endif
