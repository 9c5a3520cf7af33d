/* A toy of TLS in the shape of OpenSSL's functions: records that are cut, errors, answers, ends.
 *
 *     record = kind:u8 size:u16 payload, little-endian; each byte of the payload is turned
 *
 * Kinds: 'd' data, 'c' the end, 'k' which is answered by an 'a' that means nothing. All others break
 * it, and it says 'e' for goodbye. Reading returns after each of those (without AUTO_RETRY). Nothing
 * here is secret.
 */
#ifndef TOY_H
#define TOY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "relay.h"
#include "sums.h"

#define TOY_RECORD 16384u /* bytes of a record's payload, at most */
#define TOY_HEAD 3u
#define TOY_TURN 0x5A
#define TOY_ERROR 77u

struct toy_bio {
    uint8_t *bytes;
    size_t size, room, most; /* most: that it ever had to hold */
};

struct toy {
    struct toy_bio *into, *from;
    uint8_t record[TOY_HEAD + TOY_RECORD]; /* one that is not whole, or not taken whole */
    size_t fill, at;                       /* at: the first byte of it that was not taken */
    int error;                             /* of the last call, as SSL_get_error tells */
    unsigned code;                         /* in the queue of errors */
    int broken, ended, said;
    int patient; /* an 'e' is an end like others */
    unsigned chatty; /* bytes of an 'a' */
    unsigned piece; /* bytes that it seals of one write, at most; 0: all */
    unsigned reads, writes;
};

static const uint8_t toy_chat[TOY_RECORD];
static unsigned toy_code; /* the queue of errors has one place */

static void toy_put(struct toy_bio *bio, const void *data, size_t size)
{
    if (size == 0)
        return;
    if (bio->size + size > bio->room) {
        bio->room = (bio->size + size) * 2;
        bio->bytes = realloc(bio->bytes, bio->room);
        CHECK(bio->bytes != NULL);
    }
    memcpy(bio->bytes + bio->size, data, size);
    bio->size += size;
    if (bio->size > bio->most)
        bio->most = bio->size;
}

static size_t toy_take(struct toy_bio *bio, void *data, size_t size)
{
    size_t got = size < bio->size ? size : bio->size;
    if (got == 0)
        return 0;
    memcpy(data, bio->bytes, got);
    memmove(bio->bytes, bio->bytes + got, bio->size - got);
    bio->size -= got;
    return got;
}

/* One record; returns its size. */
static size_t toy_seal(uint8_t *to, char kind, const void *data, size_t size)
{
    CHECK(size <= TOY_RECORD);
    to[0] = (uint8_t)kind;
    to[1] = (uint8_t)size;
    to[2] = (uint8_t)(size >> 8);
    for (size_t i = 0; i < size; i++)
        to[TOY_HEAD + i] = ((const uint8_t *)data)[i] ^ TOY_TURN;
    return TOY_HEAD + size;
}

static void toy_say(struct toy *toy, char kind, const void *data, size_t size)
{
    uint8_t record[TOY_HEAD + TOY_RECORD];
    toy_put(toy->from, record, toy_seal(record, kind, data, size));
}

static size_t toy_size(const struct toy *toy)
{
    return toy->fill < TOY_HEAD ? TOY_HEAD
                                : TOY_HEAD + toy->record[1] + ((size_t)toy->record[2] << 8);
}

static int toy_fails(struct toy *toy, int error, unsigned code)
{
    toy->error = error;
    toy_code = code;
    return -1;
}

static int toy_break(struct toy *toy)
{
    if (!toy->broken)
        toy_say(toy, 'e', "", 0);
    toy->broken = 1;
    return toy_fails(toy, 1, TOY_ERROR);
}

/* OpenSSL's functions. */

static int toy_SSL_read(void *ssl, void *data, int size)
{
    struct toy *toy = ssl;
    CHECK(toy_code == 0); /* an error that nobody looked at would be taken for one of this call */
    toy->reads++;
    if (toy->broken)
        return toy_break(toy);
    for (;;) {
        if (toy->ended) {
            toy->error = 6;
            return 0;
        }
        while (toy->fill < toy_size(toy)) {
            size_t got = toy_take(toy->into, toy->record + toy->fill, toy_size(toy) - toy->fill);
            toy->fill += got;
            if (toy->fill >= TOY_HEAD && toy_size(toy) > TOY_HEAD + TOY_RECORD)
                return toy_break(toy);
            if (got == 0)
                return toy_fails(toy, 2, 0);
        }
        if (toy->at == 0)
            toy->at = TOY_HEAD;
        size_t left = toy->fill - toy->at, piece = left < (size_t)size ? left : (size_t)size;
        switch (toy->record[0]) {
        case 'd':
            break;
        case 'c':
            toy->ended = 1;
            continue;
        case 'e':
            if (!toy->patient)
                return toy_break(toy);
            toy->ended = 1;
            continue;
        case 'k':
            toy_say(toy, 'a', toy_chat, toy->chatty);
            toy->fill = toy->at = 0;
            return toy_fails(toy, 2, 0);
        case 'a':
            toy->fill = toy->at = 0;
            return toy_fails(toy, 2, 0);
        default:
            return toy_break(toy);
        }
        for (size_t i = 0; i < piece; i++)
            ((uint8_t *)data)[i] = toy->record[toy->at + i] ^ TOY_TURN;
        toy->at += piece;
        if (toy->at == toy->fill)
            toy->fill = toy->at = 0;
        if (piece > 0)
            return (int)piece;
    }
}

/* The same, until there is data or nothing more: how peers read. */
static inline int toy_read_on(struct toy *toy, void *data, int size)
{
    int some;
    do
        some = toy_SSL_read(toy, data, size);
    while (some < 0 && toy->error == 2 && toy->into->size > 0);
    return some;
}

static int toy_SSL_write(void *ssl, const void *data, int size)
{
    struct toy *toy = ssl;
    toy->writes++;
    CHECK(size > 0 && !toy->said);
    if (toy->broken)
        return toy_break(toy);
    if (toy->piece > 0 && (unsigned)size > toy->piece)
        size = (int)toy->piece;
    toy_say(toy, 'd', data, (size_t)size);
    return size;
}

static int toy_SSL_get_error(void *ssl, int result)
{
    CHECK(result <= 0);
    return ((struct toy *)ssl)->error;
}

/* A handshake is one record 'h', whatever is in it; the answer is that, as an 'h'. */
static int toy_SSL_do_handshake(void *ssl)
{
    struct toy *toy = ssl;
    toy->reads++;
    while (toy->fill < toy_size(toy)) {
        size_t got = toy_take(toy->into, toy->record + toy->fill, toy_size(toy) - toy->fill);
        toy->fill += got;
        if (toy->fill >= TOY_HEAD && toy_size(toy) > TOY_HEAD + TOY_RECORD)
            return toy_break(toy);
        if (got == 0)
            return toy_fails(toy, 2, 0);
    }
    if (toy->record[0] != 'h')
        return toy_break(toy);
    for (size_t i = TOY_HEAD; i < toy->fill; i++)
        toy->record[i] ^= TOY_TURN;
    toy_say(toy, 'h', toy->record + TOY_HEAD, toy->fill - TOY_HEAD);
    toy->fill = toy->at = 0;
    return 1;
}

static int toy_SSL_shutdown(void *ssl)
{
    struct toy *toy = ssl;
    CHECK(!toy->broken && !toy->said);
    toy->said = 1;
    toy_say(toy, 'c', "", 0);
    return toy->ended;
}

static int toy_BIO_read(void *bio, void *data, int size)
{
    size_t got = toy_take(bio, data, (size_t)size);
    return got > 0 ? (int)got : -1;
}

static int toy_BIO_write(void *bio, const void *data, int size)
{
    toy_put(bio, data, (size_t)size);
    return size;
}

static long toy_BIO_get_mem_data(void *bio, char **data)
{
    *data = (char *)((struct toy_bio *)bio)->bytes;
    return (long)((struct toy_bio *)bio)->size;
}

static int toy_full; /* there is no memory for another */

static void *toy_BIO_new(const void *method)
{
    CHECK(method == toy_chat);
    return toy_full ? NULL : calloc(1, sizeof(struct toy_bio));
}

static const void *toy_BIO_s_mem(void) { return toy_chat; }

static void toy_replace(struct toy_bio **old, struct toy_bio *fresh)
{
    if (*old == fresh)
        return;
    CHECK((*old)->size == 0);
    fresh->most = (*old)->most;
    free((*old)->bytes);
    free(*old);
    *old = fresh;
}

static void toy_SSL_set_bio(void *ssl, void *into, void *from)
{
    struct toy *toy = ssl;
    toy_replace(&toy->into, into);
    toy_replace(&toy->from, from);
}

static unsigned long toy_ERR_get_error(void)
{
    unsigned long code = toy_code;
    toy_code = 0;
    return code;
}

static void toy_ERR_clear_error(void) { toy_code = 0; }

static const struct relay_library toy_library = {
    toy_SSL_read, toy_SSL_write, toy_SSL_get_error, toy_SSL_shutdown, toy_SSL_do_handshake,
    toy_BIO_read, toy_BIO_write, toy_BIO_get_mem_data, toy_BIO_new, toy_BIO_s_mem, toy_SSL_set_bio,
    toy_ERR_get_error, toy_ERR_clear_error,
};

/* The other side. */

static struct toy *toy_new(void)
{
    struct toy *toy = calloc(1, sizeof *toy);
    CHECK(toy != NULL);
    toy->into = calloc(1, sizeof *toy->into);
    toy->from = calloc(1, sizeof *toy->from);
    CHECK(toy->into != NULL && toy->from != NULL);
    return toy;
}

static void toy_free(struct toy *toy)
{
    if (toy == NULL)
        return;
    free(toy->into->bytes);
    free(toy->from->bytes);
    free(toy->into);
    free(toy->from);
    free(toy);
}

/* A whole record is in it that was not taken. */
static inline bool toy_has(const struct toy *toy)
{
    if (toy->broken || toy->ended)
        return false;
    return toy->into->size > 0 || (toy->fill >= TOY_HEAD && toy->fill == toy_size(toy));
}

#endif
