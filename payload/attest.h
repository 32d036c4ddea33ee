/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * How the owner's record comes to the helper of an SNP guest, which has no LAUNCH_SECRET, and how the guest's context
 * leaves and arrives: what the helper says to the secure processor and to the owner. Part of abi.h, which includes it.
 */
#ifndef MH_ATTEST_H
#define MH_ATTEST_H

/* ---- The owner ---- */

/*
 * ATTEST: the owner's challenge is at the packet's place of `slot`. What the host shows the owner (struct mh_shown) comes
 * into its data page; the three behind it are the helper's: GHCB, request, response. RECORD: struct mh_sealed at that place.
 */
#define MH_MESSAGE_PAGES 4
#define MH_CHALLENGE_BYTES 16
#define MH_OWNER_KEY_BYTES 32  /* the owner's X25519 key (RFC 7748), in the image's section .owner */
#define MH_SHARE_LABEL "SEV MH share"

/* REPORT_DATA: what a report proves, and what a record is bound to. */
struct mh_report_data {
    uint8_t share[32];     /* of the helper, X25519 */
    uint8_t challenge[16];
    uint32_t role;         /* enum mh_role */
    uint8_t label[12];     /* MH_SHARE_LABEL, without its NUL */
};

#define MH_REPORT_BYTES 0x4a0

struct mh_shown {
    uint8_t share[32];
    uint8_t report[0x4a0];
};

/*
 * The record in its table, as LAUNCH_SECRET would bring it, under AES-256-GCM: the IV is zero, the additional data
 * struct mh_report_data, the key HKDF-SHA-256 (RFC 5869) of the X25519 secret of share and owner's key, with the
 * challenge for salt and struct mh_report_data for info.
 */
#define MH_SECRET_TABLE_BYTES 104

struct mh_sealed {
    uint8_t table[104];
    uint8_t tag[16];
};

/* ---- The secure processor: guest messages (AMD 56860, chapter 8; firmware 1.55.25, sev_rmp.h) ---- */

#define MH_MESSAGE_REPORT_REQ 5 /* the answer has the next number */
#define MH_MESSAGE_EXPORT_REQ 7
#define MH_MESSAGE_ABSORB_NOMA_REQ 15
#define MH_MESSAGE_ALGORITHM 1  /* AES-256-GCM; the IV is the sequence number, 12 bytes */
#define MH_MESSAGE_VERSION 1    /* of header and message */

struct mh_message {
    uint8_t tag[32];        /* 16 of them are used */
    uint64_t sequence;
    uint64_t reserved0;
    uint8_t algorithm;      /* from here to the end: the additional data */
    uint8_t header_version;
    uint16_t header_bytes;
    uint8_t type;
    uint8_t version;
    uint16_t payload_bytes; /* behind the header */
    uint32_t reserved1;
    uint8_t vmpck;
    uint8_t reserved2[35];
};

struct mh_report_request {
    uint8_t report_data[64];
    uint32_t vmpl;
    uint32_t key_select;    /* 0: VLEK where there is one, else VCEK */
    uint8_t reserved[24];
};

struct mh_report_response {
    uint32_t status;
    uint32_t report_bytes;
    uint8_t reserved[24];
    uint8_t report[0x4a0];
};

/*
 * CONTEXT, which moves what the secure processor knows of the guest: on the source the SPA of the guest's context page, 8
 * bytes which the host knows, is at the packet's place of `slot`. Then packet and data, MH_CONTEXT_BYTES, are there. The three
 * data pages behind it are the helper's, as for ATTEST.
 */
#define MH_CONTEXT_BYTES 0x300
#define MH_CONTEXT_VERSION 3
#define MH_EXPORT_IMI 1 /* IMI_EN: the guest's context stays, so the helper goes on */

struct mh_export_request {
    uint64_t context;       /* SPA */
    uint32_t flags;
    uint32_t reserved;
};

struct mh_export_response { /* the payload is 0xfa0 bytes, the rest zeros */
    uint32_t status;
    uint32_t context_bytes;
    uint32_t context_version;
    uint8_t reserved0[20];
    uint8_t context[0x300];
    uint8_t reserved1[0xc80];
};

struct mh_absorb_request {
    uint64_t context;       /* 0: the sender's own */
    uint32_t context_bytes;
    uint32_t context_version;
    uint8_t reserved[16];
    uint8_t exported[0x300];
};

struct mh_absorb_response {
    uint32_t status;
    uint8_t reserved[12];
};

/* The secrets page of the launch, up to where the guest counts its messages (Linux, arch/x86/include/asm/sev.h). */
#define MH_VMPCKS_BYTES 128 /* all four */

struct mh_secrets_page {
    uint32_t version;
    uint32_t flags;
    uint32_t signature;
    uint32_t reserved;
    uint8_t gosvw[16];
    uint8_t vmpck0[32];
    uint8_t vmpck1[32];
    uint8_t vmpck2[32];
    uint8_t vmpck3[32];
    uint32_t messages0;     /* under VMPCK0 so far, both ways */
};

/* ---- The host: GHCB, version 2 (AMD 56421, section 2.3 and table 3) ---- */

#define MH_MSR_GHCB 0xc0010130
#define MH_GHCB_REGISTER 0x12        /* in the low 12 bits of the MSR, beside the page's GPA */
#define MH_GHCB_PROTOCOL 2
#define MH_GHCB_GUEST_REQUEST 0x80000011 /* info: GPAs of request and response */
#define MH_GHCB_AP_CREATION 0x80000013   /* info: APIC ID << 32 and what to do; GPA of the VMSA; RAX: SEV_FEATURES */
#define MH_GHCB_AP_CREATE 1              /* to do: at once */

struct mh_ghcb {
    uint8_t save0[0x1f8];
    uint64_t rax;
    uint8_t save1[0x190];
    uint64_t exit_code;
    uint64_t exit_info1;
    uint64_t exit_info2;
    uint8_t save2[72];
    uint64_t valid[2];      /* bit n: the field at 8 n is filled in */
    uint8_t reserved[3066];
    uint16_t protocol;
    uint32_t usage;
};

#endif
