/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Times contestants over a ring of 4 KiB pages with 64 bytes of AAD each. Source and destination together are larger
 * than a first-level cache and smaller than a second-level one. Every contestant keeps its key between pages and sets
 * the IV for each. The libraries are opened at run time, so none of their headers is needed.
 */
#include <dlfcn.h>
#include <emmintrin.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { PAGE = 4096, PAGES = 32, AAD = 64, TAG = 16, IV = 12 };

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
    struct job job = {next_iv(page), ring.aad[page], AAD, ring.plain[page], ring.output[page], PAGE, ring.made[page], 0};
    return image_seal(image_key, &job);
}

int step_image_open(unsigned page)
{
    struct job job = {ring.sealed_iv[page], ring.aad[page], AAD, ring.sealed[page], ring.output[page], PAGE, ring.tag[page], scratch};
    return image_open(image_key, &job, _mm_set1_epi64x((long long)(0x9e3779b97f4a7c15u * ++fresh)));
}

int step_alone(unsigned page)
{
    alone(image_key, ring.plain[page], ring.output[page]);
    return 0;
}

/* ---- OpenSSL ---- */

enum { GET_TAG = 0x10, SET_TAG = 0x11 }; /* EVP_CTRL_AEAD_* of <openssl/evp.h> */

static void *ssl_sealer, *ssl_opener;
static int (*ssl_init[2])(void *, const void *, void *, const uint8_t *, const uint8_t *);
static int (*ssl_update[2])(void *, uint8_t *, int *, const uint8_t *, int);
static int (*ssl_final[2])(void *, uint8_t *, int *);
static int (*ssl_ctrl)(void *, int, int, void *);

const char *open_openssl(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return 0;
    void *(*make)(void) = (void *(*)(void))dlsym(library, "EVP_CIPHER_CTX_new");
    const void *(*cipher)(void) = (const void *(*)(void))dlsym(library, "EVP_aes_256_gcm");
    const char *(*version)(int) = (const char *(*)(int))dlsym(library, "OpenSSL_version");
    *(void **)&ssl_init[0] = dlsym(library, "EVP_EncryptInit_ex");
    *(void **)&ssl_init[1] = dlsym(library, "EVP_DecryptInit_ex");
    *(void **)&ssl_update[0] = dlsym(library, "EVP_EncryptUpdate");
    *(void **)&ssl_update[1] = dlsym(library, "EVP_DecryptUpdate");
    *(void **)&ssl_final[0] = dlsym(library, "EVP_EncryptFinal_ex");
    *(void **)&ssl_final[1] = dlsym(library, "EVP_DecryptFinal_ex");
    *(void **)&ssl_ctrl = dlsym(library, "EVP_CIPHER_CTX_ctrl");
    if (!make || !cipher || !version || !ssl_ctrl || !ssl_final[1])
        return 0;
    ssl_sealer = make();
    ssl_opener = make();
    if (ssl_init[0](ssl_sealer, cipher(), 0, key_bytes, 0) != 1 || ssl_init[1](ssl_opener, cipher(), 0, key_bytes, 0) != 1)
        return 0;
    return version(0);
}

int step_openssl_seal(unsigned page)
{
    uint8_t none[TAG];
    int n, good;
    good = ssl_init[0](ssl_sealer, 0, 0, 0, next_iv(page));
    good &= ssl_update[0](ssl_sealer, 0, &n, ring.aad[page], AAD);
    good &= ssl_update[0](ssl_sealer, ring.output[page], &n, ring.plain[page], PAGE);
    good &= ssl_final[0](ssl_sealer, none, &n);
    good &= ssl_ctrl(ssl_sealer, GET_TAG, TAG, ring.made[page]);
    return good != 1;
}

int step_openssl_open(unsigned page)
{
    uint8_t none[TAG];
    int n, good;
    good = ssl_init[1](ssl_opener, 0, 0, 0, ring.sealed_iv[page]);
    good &= ssl_update[1](ssl_opener, 0, &n, ring.aad[page], AAD);
    good &= ssl_update[1](ssl_opener, ring.output[page], &n, ring.sealed[page], PAGE);
    good &= ssl_ctrl(ssl_opener, SET_TAG, TAG, ring.tag[page]);
    good &= ssl_final[1](ssl_opener, none, &n) == 1;
    return good != 1;
}

/* ---- libgcrypt ---- */

enum { CIPHER_AES256 = 9, MODE_GCM = 9 }; /* of <gcrypt.h> */

static void *gcrypt;
static unsigned (*gc_setiv)(void *, const void *, size_t);
static unsigned (*gc_authenticate)(void *, const void *, size_t);
static unsigned (*gc_encrypt)(void *, void *, size_t, const void *, size_t);
static unsigned (*gc_decrypt)(void *, void *, size_t, const void *, size_t);
static unsigned (*gc_gettag)(void *, void *, size_t);
static unsigned (*gc_checktag)(void *, const void *, size_t);

const char *open_libgcrypt(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return 0;
    const char *(*version)(const char *) = (const char *(*)(const char *))dlsym(library, "gcry_check_version");
    unsigned (*make)(void **, int, int, unsigned) = (unsigned (*)(void **, int, int, unsigned))dlsym(library, "gcry_cipher_open");
    unsigned (*set_key)(void *, const void *, size_t) = (unsigned (*)(void *, const void *, size_t))dlsym(library, "gcry_cipher_setkey");
    *(void **)&gc_setiv = dlsym(library, "gcry_cipher_setiv");
    *(void **)&gc_authenticate = dlsym(library, "gcry_cipher_authenticate");
    *(void **)&gc_encrypt = dlsym(library, "gcry_cipher_encrypt");
    *(void **)&gc_decrypt = dlsym(library, "gcry_cipher_decrypt");
    *(void **)&gc_gettag = dlsym(library, "gcry_cipher_gettag");
    *(void **)&gc_checktag = dlsym(library, "gcry_cipher_checktag");
    if (!version || !make || !set_key || !gc_checktag)
        return 0;
    const char *text = version(0);
    if (make(&gcrypt, CIPHER_AES256, MODE_GCM, 0) || set_key(gcrypt, key_bytes, sizeof key_bytes))
        return 0;
    return text;
}

int step_libgcrypt_seal(unsigned page)
{
    return gc_setiv(gcrypt, next_iv(page), IV) | gc_authenticate(gcrypt, ring.aad[page], AAD)
        | gc_encrypt(gcrypt, ring.output[page], PAGE, ring.plain[page], PAGE) | gc_gettag(gcrypt, ring.made[page], TAG);
}

int step_libgcrypt_open(unsigned page)
{
    return gc_setiv(gcrypt, ring.sealed_iv[page], IV) | gc_authenticate(gcrypt, ring.aad[page], AAD)
        | gc_decrypt(gcrypt, ring.output[page], PAGE, ring.sealed[page], PAGE) | gc_checktag(gcrypt, ring.tag[page], TAG);
}

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
        memcpy(ring.sealed[page], ring.output[page], PAGE);
        memcpy(ring.tag[page], ring.made[page], TAG);
    }
    return 0;
}

/* Whether a contestant opens the sealed ring, to the plaintext. */
int check_open(step open)
{
    memset(ring.output, 0, sizeof ring.output);
    for (unsigned page = 0; page < PAGES; page++)
        if (open(page))
            return 1;
    return memcmp(ring.output, ring.plain, sizeof ring.plain) != 0;
}

/* Nanoseconds for `count` pages; 0 when a page failed. */
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
