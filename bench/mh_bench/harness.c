/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Times contestants over a ring of packets of up to 4 KiB with 64 bytes of AAD each. Source and destination of whole
 * pages together are larger than a first-level cache and smaller than a second-level one. Every contestant keeps its
 * key between packets and sets the IV for each. The libraries are opened at run time; only the header of ipsec-mb is
 * needed, as that one is called through a structure.
 */
#include <dlfcn.h>
#include <emmintrin.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__has_include)
#if __has_include(<intel-ipsec-mb.h>)
#include <intel-ipsec-mb.h>
#define HAS_IPSEC_MB
#endif
#endif

enum { PAGE = 4096, PAGES = 32, AAD = 64, TAG = 16, IV = 12, PEERS = 8 };

static struct {
    uint8_t plain[PAGES][PAGE];
    uint8_t sealed[PAGES][PAGE];
    uint8_t output[PAGES][PAGE];
    uint8_t aad[PAGES][AAD];
    uint8_t iv[PAGES][16];
    uint8_t sealed_iv[PAGES][16];
    uint8_t tag[PAGES][TAG]; /* of `sealed` */
    uint8_t made[PAGES][TAG];
} ring __attribute__((aligned(4096)));

static uint8_t scratch[PAGE] __attribute__((aligned(4096))); /* private memory of the vCPU that opens */

typedef int (*step)(unsigned page);

static uint8_t key_bytes[32];
static uint64_t fresh;
static size_t size = PAGE; /* of a packet */
static unsigned peer;      /* which library of its kind works */

void set_size(size_t bytes)
{
    size = bytes;
}

void choose_peer(unsigned number)
{
    peer = number;
}

/* An IV that no page had yet. */
static const uint8_t *next_iv(unsigned page)
{
    fresh++;
    memcpy(ring.iv[page] + 4, &fresh, sizeof fresh);
    return ring.iv[page];
}

/* ---- The helper's image: struct gcm_job of payload/gcm.inc ---- */

struct job {
    const void *iv, *aad;
    uint64_t aad_bytes;
    const void *source;
    void *destination;
    uint64_t bytes;
    void *tag;
    void *scratch;
};

static void *image_key;
static int (*image_seal)(void *key, struct job *job);
static int (*image_open)(void *key, struct job *job, __m128i mask);
static void (*alone)(void *key, const void *source, void *destination);

void set_image(void *key, void *seal, void *open)
{
    image_key = key;
    image_seal = (int (*)(void *, struct job *))seal;
    image_open = (int (*)(void *, struct job *, __m128i))open;
}

void set_alone(void *function)
{
    alone = (void (*)(void *, const void *, void *))function;
}

int step_image_seal(unsigned page)
{
    struct job job = {next_iv(page), ring.aad[page], AAD, ring.plain[page], ring.output[page], size, ring.made[page], 0};
    return image_seal(image_key, &job);
}

int step_image_open(unsigned page)
{
    struct job job = {ring.sealed_iv[page], ring.aad[page], AAD, ring.sealed[page], ring.output[page], size, ring.tag[page], scratch};
    return image_open(image_key, &job, _mm_set1_epi64x((long long)(0x9e3779b97f4a7c15u * ++fresh)));
}

int step_alone(unsigned page)
{
    alone(image_key, ring.plain[page], ring.output[page]);
    return 0;
}

/* ---- Libraries: what `open_` of a kind returns is the version, or null, and then `trouble` may say why ---- */

static const char *why = "";

const char *trouble(void)
{
    return why;
}

static void *open_library(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    why = library ? "it lacks what is called here" : dlerror();
    return library;
}

/* ---- OpenSSL ---- */

enum { GET_TAG = 0x10, SET_TAG = 0x11 }; /* EVP_CTRL_AEAD_* of <openssl/evp.h> */

static struct openssl {
    void *sealer, *opener;
    int (*init[2])(void *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*update[2])(void *, uint8_t *, int *, const uint8_t *, int);
    int (*final[2])(void *, uint8_t *, int *);
    int (*ctrl)(void *, int, int, void *);
} openssls[PEERS];

const char *open_openssl(const char *path)
{
    struct openssl *ssl = &openssls[peer];
    void *library = open_library(path);
    if (!library)
        return 0;
    void *(*make)(void) = (void *(*)(void))dlsym(library, "EVP_CIPHER_CTX_new");
    const void *(*cipher)(void) = (const void *(*)(void))dlsym(library, "EVP_aes_256_gcm");
    const char *(*version)(int) = (const char *(*)(int))dlsym(library, "OpenSSL_version");
    *(void **)&ssl->init[0] = dlsym(library, "EVP_EncryptInit_ex");
    *(void **)&ssl->init[1] = dlsym(library, "EVP_DecryptInit_ex");
    *(void **)&ssl->update[0] = dlsym(library, "EVP_EncryptUpdate");
    *(void **)&ssl->update[1] = dlsym(library, "EVP_DecryptUpdate");
    *(void **)&ssl->final[0] = dlsym(library, "EVP_EncryptFinal_ex");
    *(void **)&ssl->final[1] = dlsym(library, "EVP_DecryptFinal_ex");
    *(void **)&ssl->ctrl = dlsym(library, "EVP_CIPHER_CTX_ctrl");
    if (!make || !cipher || !version || !ssl->ctrl || !ssl->final[1])
        return 0;
    ssl->sealer = make();
    ssl->opener = make();
    if (ssl->init[0](ssl->sealer, cipher(), 0, key_bytes, 0) != 1 || ssl->init[1](ssl->opener, cipher(), 0, key_bytes, 0) != 1)
        return 0;
    return version(0);
}

int step_openssl_seal(unsigned page)
{
    struct openssl *ssl = &openssls[peer];
    uint8_t none[TAG];
    int n, good;
    good = ssl->init[0](ssl->sealer, 0, 0, 0, next_iv(page));
    good &= ssl->update[0](ssl->sealer, 0, &n, ring.aad[page], AAD);
    good &= ssl->update[0](ssl->sealer, ring.output[page], &n, ring.plain[page], (int)size);
    good &= ssl->final[0](ssl->sealer, none, &n);
    good &= ssl->ctrl(ssl->sealer, GET_TAG, TAG, ring.made[page]);
    return good != 1;
}

int step_openssl_open(unsigned page)
{
    struct openssl *ssl = &openssls[peer];
    uint8_t none[TAG];
    int n, good;
    good = ssl->init[1](ssl->opener, 0, 0, 0, ring.sealed_iv[page]);
    good &= ssl->update[1](ssl->opener, 0, &n, ring.aad[page], AAD);
    good &= ssl->update[1](ssl->opener, ring.output[page], &n, ring.sealed[page], (int)size);
    good &= ssl->ctrl(ssl->opener, SET_TAG, TAG, ring.tag[page]);
    good &= ssl->final[1](ssl->opener, none, &n) == 1;
    return good != 1;
}

/* ---- libgcrypt ---- */

enum { CIPHER_AES256 = 9, MODE_GCM = 9 }; /* of <gcrypt.h> */

static struct gcrypt {
    void *handle;
    unsigned (*setiv)(void *, const void *, size_t);
    unsigned (*authenticate)(void *, const void *, size_t);
    unsigned (*encrypt)(void *, void *, size_t, const void *, size_t);
    unsigned (*decrypt)(void *, void *, size_t, const void *, size_t);
    unsigned (*gettag)(void *, void *, size_t);
    unsigned (*checktag)(void *, const void *, size_t);
} gcrypts[PEERS];

const char *open_libgcrypt(const char *path)
{
    struct gcrypt *gc = &gcrypts[peer];
    void *library = open_library(path);
    if (!library)
        return 0;
    const char *(*version)(const char *) = (const char *(*)(const char *))dlsym(library, "gcry_check_version");
    unsigned (*make)(void **, int, int, unsigned) = (unsigned (*)(void **, int, int, unsigned))dlsym(library, "gcry_cipher_open");
    unsigned (*set_key)(void *, const void *, size_t) = (unsigned (*)(void *, const void *, size_t))dlsym(library, "gcry_cipher_setkey");
    *(void **)&gc->setiv = dlsym(library, "gcry_cipher_setiv");
    *(void **)&gc->authenticate = dlsym(library, "gcry_cipher_authenticate");
    *(void **)&gc->encrypt = dlsym(library, "gcry_cipher_encrypt");
    *(void **)&gc->decrypt = dlsym(library, "gcry_cipher_decrypt");
    *(void **)&gc->gettag = dlsym(library, "gcry_cipher_gettag");
    *(void **)&gc->checktag = dlsym(library, "gcry_cipher_checktag");
    if (!version || !make || !set_key || !gc->checktag)
        return 0;
    const char *text = version(0);
    if (make(&gc->handle, CIPHER_AES256, MODE_GCM, 0) || set_key(gc->handle, key_bytes, sizeof key_bytes))
        return 0;
    return text;
}

int step_libgcrypt_seal(unsigned page)
{
    struct gcrypt *gc = &gcrypts[peer];
    return gc->setiv(gc->handle, next_iv(page), IV) | gc->authenticate(gc->handle, ring.aad[page], AAD)
        | gc->encrypt(gc->handle, ring.output[page], size, ring.plain[page], size) | gc->gettag(gc->handle, ring.made[page], TAG);
}

int step_libgcrypt_open(unsigned page)
{
    struct gcrypt *gc = &gcrypts[peer];
    return gc->setiv(gc->handle, ring.sealed_iv[page], IV) | gc->authenticate(gc->handle, ring.aad[page], AAD)
        | gc->decrypt(gc->handle, ring.output[page], size, ring.sealed[page], size) | gc->checktag(gc->handle, ring.tag[page], TAG);
}

/* ---- ipsec-mb ---- */

#ifdef HAS_IPSEC_MB
static struct ipsec {
    struct gcm_key_data key __attribute__((aligned(64)));
    struct gcm_context_data context __attribute__((aligned(64)));
    IMB_MGR *manager;
} ipsecs[PEERS];

const char *open_ipsec_mb(const char *path)
{
    struct ipsec *mb = &ipsecs[peer];
    void *library = open_library(path);
    if (!library)
        return 0;
    IMB_MGR *(*make)(uint64_t) = (IMB_MGR *(*)(uint64_t))dlsym(library, "alloc_mb_mgr");
    void (*start)(IMB_MGR *, IMB_ARCH *) = (void (*)(IMB_MGR *, IMB_ARCH *))dlsym(library, "init_mb_mgr_auto");
    const char *(*version)(void) = (const char *(*)(void))dlsym(library, "imb_get_version_str");
    if (!make || !start || !version || !(mb->manager = make(0)))
        return 0;
    start(mb->manager, 0);
    IMB_AES256_GCM_PRE(mb->manager, key_bytes, &mb->key);
    return version();
}

int step_ipsec_mb_seal(unsigned page)
{
    struct ipsec *mb = &ipsecs[peer];
    IMB_AES256_GCM_ENC(mb->manager, &mb->key, &mb->context, ring.output[page], ring.plain[page], size, next_iv(page),
                       ring.aad[page], AAD, ring.made[page], TAG);
    return 0;
}

int step_ipsec_mb_open(unsigned page)
{
    struct ipsec *mb = &ipsecs[peer];
    IMB_AES256_GCM_DEC(mb->manager, &mb->key, &mb->context, ring.output[page], ring.sealed[page], size, ring.sealed_iv[page],
                       ring.aad[page], AAD, ring.made[page], TAG);
    return memcmp(ring.made[page], ring.tag[page], TAG) != 0;
}
#else
const char *open_ipsec_mb(const char *path)
{
    (void)path;
    why = "its header was not there for the compiler";
    return 0;
}
#endif

/* ---- Driving ---- */

void set_key(const uint8_t *key)
{
    uint8_t *bytes = ring.plain[0];
    memcpy(key_bytes, key, sizeof key_bytes);
    for (unsigned n = 0; n < sizeof ring.plain; n++)
        bytes[n] = (uint8_t)(n * 167 + (n >> 8) * 13);
    for (unsigned page = 0; page < PAGES; page++)
        memset(ring.aad[page], (int)page, AAD);
}

/* Seals the ring with one contestant: what the others have to open afterwards. */
int seal_ring(step seal)
{
    for (unsigned page = 0; page < PAGES; page++) {
        if (seal(page))
            return 1;
        memcpy(ring.sealed_iv[page], ring.iv[page], sizeof ring.iv[page]);
        memcpy(ring.sealed[page], ring.output[page], size);
        memcpy(ring.tag[page], ring.made[page], TAG);
    }
    return 0;
}

/* Whether a contestant opens the sealed ring, to the plaintext. */
int check_open(step open)
{
    memset(ring.output, 0, sizeof ring.output);
    for (unsigned page = 0; page < PAGES; page++)
        if (open(page) || memcmp(ring.output[page], ring.plain[page], size))
            return 1;
    return 0;
}

/* Nanoseconds for `count` packets; 0 when one failed. */
uint64_t time_steps(step work, unsigned count)
{
    struct timespec began, ended;
    int bad = 0;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (unsigned n = 0; n < count; n++)
        bad |= work(n % PAGES);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    uint64_t elapsed = (uint64_t)(ended.tv_sec - began.tv_sec) * 1000000000u + (uint64_t)ended.tv_nsec - (uint64_t)began.tv_nsec;
    return bad ? 0 : elapsed;
}
