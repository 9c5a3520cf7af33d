/* TLS: links whose bytes OpenSSL seals and opens, by functions that the caller found.
 *
 * Law: what came is opened at once, and nothing that could be opened stays inside OpenSSL: a link
 * that is not read from is like any other, only its socket can have more. What is sealed goes out
 * before anything new is, at most one batch and OpenSSL's own answers; bytes are `taken` when they
 * are sealed. The handshake is over when a link comes here, and another one never begins.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MORSEL 4096u /* bytes of a link that OpenSSL's memory has to hold at once, in either direction */
#define BATCH (4 * MORSEL)    /* bytes sealed for one write */
#define STAGE (BATCH + 4096u) /* what they are then, with OpenSSL's own answers */
#define ANSWERS (64u << 10)   /* sealed bytes that may wait for a peer that does not read */
#define SPARE 1024u /* bytes that its memory may have had to hold; then it is replaced */
#define BARREN 32 /* records without data that a peer may send at once; one more each second */

enum { WANT_READ = 2, ZERO_RETURN = 6 }; /* of SSL_get_error */

void relay_library(struct relay *relay, const struct relay_library *library)
{
    relay->library = *library;
}

int relay_tls_errors(const struct relay *relay, relay_handle handle,
                     uint32_t codes[RELAY_TLS_ERRORS])
{
    const struct link *link = find(relay, handle);
    if (link == NULL || link->tls == NULL)
        return 0;
    memcpy(codes, link->tls->errors, sizeof link->tls->errors);
    return link->tls->error_count;
}

static void note_failure(struct relay *relay, struct tls *tls)
{
    unsigned long code;
    tls->broken = true;
    while (tls->error_count < RELAY_TLS_ERRORS
           && (code = relay->library.ERR_get_error()) != 0)
        tls->errors[tls->error_count++] = (uint32_t)code;
    relay->library.ERR_clear_error();
}

/* Sealed bytes. */

void drop_sealed(struct relay *relay, struct link *link)
{
    if (link->tls == NULL || link->tls->out == NULL)
        return;
    pool_put(relay->pool, link->tls->out);
    link->tls->out = NULL;
}

/* Put sealed bytes behind those that wait. False: no memory, or too many. */
static bool keep_sealed(struct relay *relay, struct link *link, const uint8_t *data, size_t size)
{
    struct chunk *out = link->tls->out;
    size_t waiting = out == NULL ? 0 : chunk_length(out);
    if (waiting + size > ANSWERS)
        return false;
    if (out == NULL || chunk_room(out) < size) {
        struct chunk *larger = pool_get(relay->pool, waiting + size, true);
        if (larger == NULL)
            return false;
        if (out != NULL) {
            memcpy(chunk_bytes(larger), chunk_bytes(out) + out->start, waiting);
            larger->end = (uint32_t)waiting;
            pool_put(relay->pool, out);
        }
        link->tls->out = out = larger;
    }
    memcpy(chunk_bytes(out) + out->end, data, size);
    out->end += (uint32_t)size;
    return true;
}

/* What the socket takes now of some bytes; -1: it failed. */
static ssize_t give(struct link *link, const uint8_t *data, size_t size)
{
    ssize_t sent = write_raw(link, data, size);
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS))
        return 0;
    return sent;
}

/* Send what is sealed and waits. False: the socket did not take all of it (EAGAIN), or failed. */
static bool send_sealed(struct relay *relay, struct link *link)
{
    struct chunk *out = link->tls->out;
    if (out == NULL)
        return true;
    ssize_t sent = give(link, chunk_bytes(out) + out->start, chunk_length(out));
    if (sent < 0)
        return false;
    out->start += (uint32_t)sent;
    if (chunk_length(out) > 0) {
        errno = EAGAIN;
        return false;
    }
    drop_sealed(relay, link);
    return true;
}

/* Sealed bytes on their way from OpenSSL to a socket. */
struct stage {
    size_t size;
    uint8_t bytes[STAGE];
};

/* Take what OpenSSL has sealed, as far as there is room. */
static void collect(struct relay *relay, struct tls *tls, struct stage *stage)
{
    int got;
    while (stage->size < STAGE
           && (got = relay->library.BIO_read(tls->from, stage->bytes + stage->size,
                                             (int)(STAGE - stage->size)))
                  > 0)
        stage->size += (size_t)got;
}

/* Send all that is sealed; what the socket does not take waits. False: it failed, or there is no
 * memory for that, or too much waits; then nothing that is sealed later could be opened. */
static bool push(struct relay *relay, struct link *link, struct stage *stage)
{
    for (collect(relay, link->tls, stage); stage->size > 0; collect(relay, link->tls, stage)) {
        size_t sent = 0;
        if (link->tls->out == NULL) {
            ssize_t some = give(link, stage->bytes, stage->size);
            if (some < 0)
                return false;
            sent = (size_t)some;
        }
        if (sent < stage->size
            && !keep_sealed(relay, link, stage->bytes + sent, stage->size - sent)) {
            link->tls->broken = true;
            errno = EPROTO;
            return false;
        }
        stage->size = 0;
    }
    return true;
}

/* OpenSSL's memory, which never shrinks, is replaced where it had to hold much: who is idle then has
 * none. Nothing may be in it. */
static void *fresh(struct relay *relay, void *old)
{
    const struct relay_library *library = &relay->library;
    char *data;
    void *memory = library->BIO_get_mem_data(old, &data) > 0 ? NULL
                                                             : library->BIO_new(library->BIO_s_mem());
    return memory != NULL ? memory : old;
}

static void shed_into(struct relay *relay, struct tls *tls)
{
    void *into = fresh(relay, tls->into);
    relay->library.SSL_set_bio(tls->ssl, into, tls->from);
    tls->into = into;
}

static void shed_from(struct relay *relay, struct tls *tls)
{
    void *from = fresh(relay, tls->from);
    relay->library.SSL_set_bio(tls->ssl, tls->into, from);
    tls->from = from;
}

/* Reading. */

/* OpenSSL wants more. False: it has more, and a record was without data: new keys cost their
 * receiver 16 us, and their sender nothing. */
static bool is_dry(struct relay *relay, struct tls *tls)
{
    char *data;
    if (relay->library.BIO_get_mem_data(tls->into, &data) <= 0)
        return true;
    double passed = relay->now - tls->since;
    tls->since = relay->now;
    tls->barren = passed < tls->barren ? tls->barren - (float)passed : 0;
    if (++tls->barren > BARREN) {
        tls->broken = true;
        tls->errors[tls->error_count++] = RELAY_TLS_BARREN;
    }
    return false;
}

/* Let OpenSSL open what it has; returns how many bytes that are. */
static size_t open_some(struct relay *relay, struct tls *tls, uint8_t *data, size_t room)
{
    const struct relay_library *library = &relay->library;
    size_t got = 0;
    library->ERR_clear_error();
    while (!tls->closed && !tls->broken && got < room) {
        size_t most = room - got < INT_MAX ? room - got : INT_MAX;
        int some = library->SSL_read(tls->ssl, data + got, (int)most);
        if (some > 0) {
            got += (size_t)some;
            continue;
        }
        int error = library->SSL_get_error(tls->ssl, some);
        if (error == ZERO_RETURN)
            tls->closed = true;
        else if (error != WANT_READ)
            note_failure(relay, tls);
        else if (is_dry(relay, tls))
            break;
    }
    return got;
}

/* Send what OpenSSL answers to what came, if anything may be sent. */
static void answer(struct relay *relay, struct link *link)
{
    struct stage stage;
    stage.size = 0;
    if (!writes(link) || link->reset) {
        for (collect(relay, link->tls, &stage); stage.size > 0; collect(relay, link->tls, &stage))
            stage.size = 0;
        return;
    }
    if (!push(relay, link, &stage))
        link->tls->broken = true;
    if (link->tls->out != NULL)
        mark_dirty(relay, link);
}

/* Open sealed bytes, and what OpenSSL answers to them is sent. `data` has room for TLS_RECORD more
 * than they are: one record may be half there already. Returns how many bytes they are opened. */
static size_t open_all(struct relay *relay, struct link *link, const uint8_t *sealed, size_t size,
                       uint8_t *data)
{
    struct tls *tls = link->tls;
    size_t room = size + TLS_RECORD, got = 0;
    for (size_t at = 0; at < size && !tls->closed && !tls->broken;) {
        size_t piece = size - at < MORSEL ? size - at : MORSEL;
        if (relay->library.BIO_write(tls->into, sealed + at, (int)piece) != (int)piece) {
            note_failure(relay, tls);
            break;
        }
        at += piece;
        got += open_some(relay, tls, data + got, room - got);
    }
    answer(relay, link);
    if (size > SPARE)
        shed_into(relay, tls);
    return got;
}

/* Something was opened: an end behind it comes when that has been handed on. */
static void see_end(struct relay *relay, struct link *link)
{
    if (link->lost || link->broken)
        return; /* its end comes already */
    if (link->tls->broken) {
        lose_socket(relay, link, EPROTO);
    } else if (link->tls->closed) {
        link->ended = true;
        go_on_soon(relay, link);
    }
}

/* What read_socket does. A part of a record is EAGAIN. */
ssize_t tls_read(struct relay *relay, struct link *link, uint8_t *data, size_t size, bool *full)
{
    struct tls *tls = link->tls;
    size_t got = 0;
    *full = true;
    for (size_t all = 0;
         got == 0 && *full && all < 2 * TLS_RECORD && !tls->closed && !tls->broken;) {
        if (all > 0 && !link->lost && out_of_time(relay))
            break; /* who is lost is heard to the end now, or never */
        ssize_t came = read_raw(link, relay->sealed, size);
        if (came == 0 && link->state == OPEN) {
            errno = ECONNRESET; /* TLS was not ended: who knows what is missing */
            return -1;
        }
        if (came <= 0)
            return came;
        *full = (size_t)came == size;
        all += (size_t)came;
        got = open_all(relay, link, relay->sealed, (size_t)came, data);
    }
    if (got > 0 && link->state == OPEN) {
        see_end(relay, link);
        return (ssize_t)got;
    }
    if (tls->closed)
        return 0;
    errno = tls->broken ? EPROTO : EAGAIN;
    return -1;
}

/* Writing. */

/* Say that nothing more comes. */
static void say_goodbye(struct relay *relay, struct tls *tls)
{
    tls->said = true;
    relay->library.ERR_clear_error();
    relay->library.SSL_shutdown(tls->ssl);
    relay->library.ERR_clear_error();
}

/* Seal the first bytes of what is offered, at most a batch; returns how many, or -1: OpenSSL
 * failed. */
static ssize_t seal(struct relay *relay, struct tls *tls, const struct offer *offer,
                    struct stage *to)
{
    const struct iovec *vector = offer->vector;
    int count = offer->count;
    const struct relay_library *library = &relay->library;
    uint8_t joined[MORSEL];
    size_t all = 0, fill = 0, at = 0; /* at: in the first of the pieces that are left */
    library->ERR_clear_error();
    while (count > 0 && all < BATCH) {
        size_t size = vector->iov_len - at, room = sizeof joined - fill;
        if (size > room)
            size = room;
        memcpy(joined + fill, (const uint8_t *)vector->iov_base + at, size);
        fill += size;
        at += size;
        if (at == vector->iov_len) {
            vector++;
            count--;
            at = 0;
        }
        if (fill < sizeof joined && count > 0)
            continue;
        for (size_t done = 0; done < fill;) {
            /* A record at a time, and a peer may have asked for short ones. */
            int some = library->SSL_write(tls->ssl, joined + done, (int)(fill - done));
            if (some <= 0) {
                note_failure(relay, tls);
                errno = EPROTO;
                return -1;
            }
            done += (size_t)some;
        }
        collect(relay, tls, to);
        all += fill;
        fill = 0;
    }
    return (ssize_t)all;
}

/* What write_socket does. What is sealed already goes first, and what is sealed now is taken, also
 * where it has to wait. */
ssize_t tls_write(struct relay *relay, struct link *link, const struct offer *offer, bool *all)
{
    struct tls *tls = link->tls;
    *all = false;
    if (!send_sealed(relay, link))
        return -1;
    if (tls->broken) {
        errno = EPROTO;
        return -1;
    }
    struct stage stage;
    stage.size = 0;
    ssize_t taken = seal(relay, tls, offer, &stage);
    if (taken == 0 && says_goodbye(link))
        say_goodbye(relay, tls);
    if (taken < 0 || !push(relay, link, &stage))
        return -1;
    if (taken > SPARE)
        shed_from(relay, tls);
    *all = tls->out == NULL;
    return taken;
}

/* Beginning. */

/* Open what came before this link was given to OpenSSL, and what OpenSSL has of it already. */
static void open_rest(struct relay *relay, struct link *link, const uint8_t *data, size_t size)
{
    size_t most = (size_t)link->port->read_size, at = 0;
    size_t got = open_some(relay, link->tls, relay->scratch, TLS_RECORD);
    while (keep(relay, link, relay->scratch, got)) {
        link->bytes_in += got;
        if (at == size)
            break;
        size_t piece = size - at < most ? size - at : most;
        got = open_all(relay, link, data + at, piece, relay->scratch);
        at += piece;
    }
}

bool relay_tls(struct relay *relay, relay_handle handle, void *ssl, void *into, void *from,
               const void *data, size_t size)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != OPEN || link->broken || link->tls != NULL || link->started
        || relay->library.SSL_read == NULL)
        return false;
    struct tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL) {
        fail(relay, link, RELAY_NO_MEMORY);
        return false;
    }
    *tls = (struct tls){.ssl = ssl, .into = into, .from = from, .since = relay->now};
    link->tls = tls;
    link->bytes_in = 0;
    struct chunk *kept = link->rest_head;
    count_input(relay, link, &link->rest_bytes, -(int64_t)link->rest_bytes);
    link->rest_head = link->rest_tail = NULL;
    /* Answers of the handshake that wait are sealed, as far as that goes. */
    while (link->waiting_bytes > 0 && !link->failed) {
        struct chunk *first = link->out_head;
        size_t length = chunk_length(first);
        if (!keep_sealed(relay, link, chunk_bytes(first) + first->start, length))
            fail(relay, link, RELAY_NO_MEMORY);
        else
            take(relay, link, length);
    }
    let_go_drained(relay, link);
    open_rest(relay, link, data, size);
    for (struct chunk *piece = kept; piece != NULL && !link->failed; piece = piece->next)
        open_rest(relay, link, chunk_bytes(piece) + piece->start, chunk_length(piece));
    pool_put_list(relay->pool, kept);
    shed_into(relay, tls); /* the handshake went through them */
    shed_from(relay, tls);
    if (link->failed)
        return true;
    if (link->ended && !tls->closed && !tls->broken) { /* its FIN was that of TCP alone */
        link->ended = false;
        tls->broken = true;
    }
    if (tls->broken && link->fd < 0)
        link->error = EPROTO;
    else
        see_end(relay, link);
    go_on_soon(relay, link);
    return true;
}
