/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What two helpers say to each other: hello, packets, and what their keys are made of. Part of abi.h, which includes it.
 */
#ifndef MH_PROTOCOL_H
#define MH_PROTOCOL_H

/* ---- The hello: what a helper says of itself, in a packet's place of the ring ---- */

#define MH_HELLO_MAGIC 0x4f484853 /* "SHHO" */
#define MH_HELLO_MAC_BYTES 112    /* what its tag covers */

/*
 * All versions have the first 16 bytes alike. The tag is CMAC-AES256 under a key of the transport key (MH_KDF_LABEL_HELLO).
 * What is said here is in every key of the session as well.
 */
struct mh_hello {
    uint32_t magic;
    uint16_t low;        /* versions that the helper speaks */
    uint16_t high;
    uint16_t addresses;  /* enum mh_address_kind */
    uint16_t protection; /* enum mh_protection, of this side */
    uint32_t flags;      /* MH_OWNER_... of the launch secret */
    uint8_t guest[16];   /* identity from the launch secret */
    uint8_t nonce[32];
    uint8_t share[32];   /* X25519 (RFC 7748) */
    uint64_t reserved[2];
    uint8_t tag[16];
};

/* ---- The packet: 64 bytes of additional data, then the tag; the data page travels beside it ---- */

#define MH_PACKET_MAGIC 0x4b50484d /* "MHPK" */
#define MH_PACKET_SLOT_BYTES 128   /* distance of packets in the ring */
#define MH_PACKET_AAD_BYTES 64
#define MH_PACKET_IV_OFFSET 12     /* the 96-bit IV is stream and sequence */
#define MH_PACKET_IV_BYTES 12
#define MH_TAG_BYTES 16

/* The stream of ring i; with this bit that of its urgent lane. */
#define MH_STREAM_URGENT 0x100

enum mh_kind {
    MH_KIND_PAGE = 1,  /* `length` bytes from `address`, as data */
    MH_KIND_ZERO = 2,  /* `length` bytes of zeros from `address`, no data */
    MH_KIND_EPOCH = 3, /* end of an epoch on a ring */
    MH_KIND_END = 4,   /* end of a ring's part in the session */
    MH_KIND_VMSA = 5,  /* as MH_KIND_PAGE, of VMSAs */
    MH_KIND_CONTEXT = 6 /* as MH_KIND_END, with a guest's context of MH_CONTEXT_BYTES as data */
};

struct mh_packet {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;       /* enum mh_kind */
    uint32_t length;     /* of the memory: whole pages; 0 for kinds without */
    uint32_t stream;
    uint64_t sequence;   /* from 0, without a gap */
    uint64_t address;    /* of the memory; without: pages sent on the ring, MH_KIND_EPOCH: in the epoch, else in the session */
    uint32_t epoch;      /* from 0 */
    uint32_t reserved;
    uint8_t session[16];
    uint64_t urgent;     /* without memory: packets sent on the ring's urgent lane in the session; else 0 */
    uint8_t tag[16];
};

/* ---- Keys ---- */

#define MH_NONCE_BYTES 32
#define MH_KEY_BYTES 32
#define MH_SHARE_BYTES 32
#define MH_SESSION_BYTES 16
#define MH_GUEST_BYTES 16

/* The launch secret: OVMF's table of GUID, uint32_t length, data; lengths count the 20 bytes before the data. */
#define MH_SECRET_TABLE_GUID "1e74f542-71dd-4d66-963e-ef4287ff173b"
#define MH_SECRET_RECORD_GUID "5c9dfc18-1a7f-4c3b-8c4e-3e0cb0ec1c2e"
#define MH_SECRET_ENTRY_BYTES 20

/* mh_secret.flags */
#define MH_OWNER_STRICT 0x1 /* FINISH at the source proves that nothing has changed since it was exported */
#define MH_OWNER_CONTEXT 0x2 /* MH_START_SNP: the guest's context may move, so RECORD leaves the helper VMPCK0 */

#define MH_SECRET_VERSION 1

/* What the owner gives a guest's helpers, the same to source and target, and to no other guest. */
struct mh_secret {
    uint16_t version;
    uint16_t protection; /* enum mh_protection: the least that the peer must have */
    uint32_t flags;      /* MH_OWNER_... */
    uint64_t reserved;   /* 0 */
    uint8_t guest[16];   /* the guest's identity, chosen by the owner; it is no secret */
    uint8_t key[32];     /* the transport key */
};

/*
 * SP 800-108r1 in counter mode with CMAC-AES256 (section 4.1): 32-bit big-endian counter before
 * the fixed input, 32-bit big-endian output length in bits behind it. The label is 15 bytes, the
 * NUL that ends the C string is the zero byte of the construction.
 *
 * From the transport key come the key of hellos (context of zeros), random bytes, and the session's key; from that one
 * the session's identity and, for every stream, the page key; the key of a ring's masks too, which its peer does not use.
 */
#define MH_KDF_LABEL_HELLO "SEV MH hello ky"
#define MH_KDF_LABEL_RANDOM "SEV MH random b"
#define MH_KDF_LABEL_SESSION "SEV MH session "
#define MH_KDF_LABEL_IDENTITY "SEV MH sessn id"
#define MH_KDF_LABEL_PAGE "SEV MH page key"
#define MH_KDF_LABEL_MASK "SEV MH mask key"

/* The context of the session's key. `shared` is secret: who learns the transport key later does not learn it. */
struct mh_session_context {
    uint8_t source[112]; /* of the source's hello, without the tag */
    uint8_t target[112];
    uint8_t shared[32];  /* X25519 of both shares */
    uint16_t protocol;   /* the highest version that both speak */
    uint16_t streams;    /* rings of the session */
    uint32_t reserved;
};

/* The context of what comes from the session's key. */
struct mh_stream_context {
    uint32_t stream;     /* MH_KDF_LABEL_IDENTITY: 0; MH_KDF_LABEL_MASK: the ring */
    uint32_t reserved;
};

#endif
