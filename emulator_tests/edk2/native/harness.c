/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Runs the driver's portable parts as a process of this machine, under its sanitizers: requests on stdin, answers on
 * stdout. A request is a letter, five 64-bit numbers, and as many bytes as the last of them says.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "MigrationHelper.h"

#define TABLES ((void *)0x10000000)

struct request {
    uint64_t first, second, third, fourth, bytes;
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

/* Tables of the request, the first of them the root, with C-bit and levels of the request, at TABLES. */
static PAGE_TABLES place (const struct request *request, const uint8_t *data)
{
    void *tables = mmap (TABLES, request->bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (tables != TABLES)
        exit (1);
    memcpy (tables, data, request->bytes);
    return (PAGE_TABLES){ .Root = tables, .Levels = request->first, .CMask = request->second };
}

/* Levels, C-bit as a mask, address, bytes -> whether private */
static void private (const struct request *request, const uint8_t *data)
{
    PAGE_TABLES tables = place (request, data);

    put_number (IsPrivate (&tables, request->third, request->fourth));
    munmap (TABLES, request->bytes);
}

/* Levels, C-bit as a mask, address; the last of the tables are spare -> level of the leaf or 0, the tables, shared */
static void share (const struct request *request, const uint8_t *data)
{
    PAGE_TABLES tables = place (request, data);
    UINTN level;
    uint64_t *leaf = FindLeaf (&tables, request->third, &level);

    put_number (leaf == NULL ? 0 : level);
    if (leaf != NULL)
        SharePage (&tables, request->third,
                   tables.Root + (request->bytes - (level - 1) * MH_PAGE_BYTES) / sizeof *tables.Root);
    put (TABLES, request->bytes);
    munmap (TABLES, request->bytes);
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
        else if (letter == 'p')
            private (&request, data);
        else if (letter == 's')
            share (&request, data);
        else
            return 1;
        free (data);
        fflush (stdout);
    }
    return 0;
}
