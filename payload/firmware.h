/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What a loader finds in firmware, and what it leaves behind. Part of abi.h, which includes it.
 */
#ifndef MH_FIRMWARE_H
#define MH_FIRMWARE_H

/* FFS files: the image is FREEFORM with two RAW sections, first the flat binary, then its SHA-256. */
#define MH_IMAGE_FILE_GUID "aba6653f-b6ed-4918-9e2f-4c5378844a38"
#define MH_LOADER_FILE_GUID "e07b7889-9780-46a5-8c98-84c88bb3ca1a"
#define MH_IGVM_DATA_GUID "3dd177ff-b632-4e25-bef3-065063d55fc4" /* or a data HOB (edk2, IndustryStandard/IgvmData.h) */
#define MH_IGVM_DATA_IMAGE 0x4d480001 /* of this type: flat binary, SHA-256 */

/* Entry of OVMF's GUIDed table: struct mh_firmware_entry, and possibly more bytes, which mean nothing. */
#define MH_FIRMWARE_ENTRY_GUID "bc669de2-84fd-4937-a87e-874a5138df0b"

struct mh_firmware_entry {
    uint32_t base;         /* main GPA of the image: its home */
    uint32_t memory_bytes; /* as in the descriptor */
    uint32_t ring_offset;  /* as in the descriptor: the shared pages */
    uint32_t scheme;       /* enum mh_scheme */
};

/*
 * The loader copies the image to its home, relocates it there, and clears the rest of memory_bytes but for the secret:
 * LAUNCH_SECRET has filled those pages before the firmware began. If a step fails, nothing of it stays.
 */

/* UEFI configuration table: struct mh_published, in memory that the OS keeps. */
#define MH_PUBLISHED_GUID "44e9cb1e-c007-4705-9fde-9ff72221aab4"

struct mh_published {
    uint32_t version;
    uint32_t c_bit;        /* the bit that was applied; 0: SEV is not active */
    uint64_t base;
    uint64_t memory_bytes;
    uint8_t sha256[32];    /* of the image before relocation */
};

/* UEFI variable that tells the guest's kernel that it may migrate (Linux arch/x86/kernel/kvm.c): one byte, 1. */
#define MH_MIGRATION_VARIABLE_GUID "0cf29b71-9e51-433a-a3b7-81f3ab16b875"
#define MH_MIGRATION_VARIABLE "SevLiveMigrationEnabled"

/*
 * The loader's one line on the debug port: marker, base, space, memory_bytes; or marker, "failed ", enum
 * mh_load_step, space, EFI_STATUS; then a newline. Numbers are 16 hexadecimal digits, the step is 2.
 */
#define MH_DEBUG_PORT 0x402
#define MH_DEBUG_MARKER "SEV-MH "

enum mh_load_step {
    MH_LOAD_FIND = 1,       /* no image file in any firmware volume, or no digest with it */
    MH_LOAD_DIGEST = 2,     /* the image's SHA-256 differs */
    MH_LOAD_DESCRIPTOR = 3, /* magic, version, sizes or relocations make no sense */
    MH_LOAD_RESERVE = 4,    /* its pages are taken, or not mapped private */
    MH_LOAD_PUBLISH = 5,    /* the configuration table was refused */
    MH_LOAD_VARIABLE = 6,   /* the variable was refused */
    MH_LOAD_HANDOVER = 7,   /* a page could not be made shared */
    MH_LOAD_SNP = 8,        /* SNP: the RMP has each page's state, which no scheme changes; nothing was begun */
    MH_LOAD_SVSM = 9        /* the same, and only the SVSM may change it: the guest runs at another VMPL than 0 */
};

/* Linux Documentation/virt/kvm/x86/msr.rst and cpuid.rst */
#define MH_MSR_MIGRATION_CONTROL 0x4b564d08
#define MH_MIGRATION_READY 0x1

#endif
