/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Runs the driver's portable parts as a process of this machine, under its sanitizers: requests on stdin, answers on
 * stdout. A request is a letter, four 64-bit numbers, and as many bytes as the last of them says.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "MigrationHelper.h"

#define TABLES ((void *)0x10000000)

struct request {
    uint64_t first, second, third, bytes;
};

static void put (const void *data, size_t bytes)
{
    if (fwrite (data, 1, bytes, stdout) != bytes)
        exit (1);
}

static void put_number (uint64_t number)
{
    put (&number, sizeof number);
}

static void digest (const struct request *request, const uint8_t *data)
{
    uint8_t result[SHA256_BYTES];

    Sha256 (data, request->bytes, result);
    put (result, sizeof result);
}

/* C-bit -> whether the image is sound, and its mirror GPA */
static void check (const struct request *request, const uint8_t *data)
{
    uint64_t sound = IsImageSound (data, request->bytes, (UINT32)request->first);

    put_number (sound);
    put_number (sound ? MirrorBase (data) : 0);
}

/* Delta, C-bit as a mask -> the image */
static void relocate (const struct request *request, uint8_t *data)
{
    RelocateImage (data, request->first, request->second);
    put (data, request->bytes);
}

/* Levels, C-bit as a mask, address; tables that lie at TABLES, the last ones spare -> whether shared, the tables */
static void share (const struct request *request, const uint8_t *data)
{
    uint8_t *tables = mmap (TABLES, request->bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    uint64_t *spare;

    if (tables != TABLES)
        exit (1);
    memcpy (tables, data, request->bytes);
    spare = (uint64_t *)(tables + request->bytes - SPARE_TABLES * MH_PAGE_BYTES);
    put_number (SharePage ((uint64_t *)tables, request->first, request->second, request->third, spare));
    put (tables, request->bytes);
    munmap (tables, request->bytes);
}

int main (void)
{
    struct request request;
    int letter;

    while ((letter = getchar ()) != EOF) {
        uint8_t *data;

        if (fread (&request, sizeof request, 1, stdin) != 1)
            return 1;
        /* Exactly as large as the image, for the sanitizer to see a read behind it. */
        data = malloc (request.bytes);
        if (data == NULL || fread (data, 1, request.bytes, stdin) != request.bytes)
            return 1;
        if (letter == 'd')
            digest (&request, data);
        else if (letter == 'c')
            check (&request, data);
        else if (letter == 'r')
            relocate (&request, data);
        else if (letter == 's')
            share (&request, data);
        else
            return 1;
        free (data);
        fflush (stdout);
    }
    return 0;
}
