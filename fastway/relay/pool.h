/* The slab pool: chunks of a few sizes, cut from pages.
 *
 * Law: who takes a chunk hands it back; nothing is sized by what a peer announces. No globals, no
 * locks: a pool belongs to one thread.
 */
#ifndef FASTWAY_POOL_H
#define FASTWAY_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pool_type {
    POOL_ATOM, /* as many pages as are needed; empty ones go back to the system */
    POOL_CHAN, /* one page for each size, kept; what is more is allocated plainly */
    POOL_SYNC, /* no pages; free chunks wait on lists that pool_trim empties */
};

#define POOL_MAX_PAGE (1u << 30)

struct pool_config {
    enum pool_type type;
    uint32_t factor;    /* from one chunk size to the next, at least 2 */
    uint32_t min_chunk; /* bytes, at least 1 */
    uint32_t max_chunk; /* bytes, at least min_chunk */
    uint32_t page_size; /* bytes of the chunks of one page, max_chunk to POOL_MAX_PAGE */
    uint64_t limit;     /* bytes of chunks in use at a time; 0: no limit */
};

/* A piece of a queue: bytes [start, end) of `size`. They follow the struct. */
struct chunk {
    struct chunk *next;
    struct pool_page *page; /* NULL: allocated plainly */
    uint32_t size;
    uint32_t start;
    uint32_t end;
    uint32_t packets : 31; /* the queue's own note; of one that is shared, how many share it */
    uint32_t view : 1;     /* its bytes are another's: see pool_view */
};

/* A view has the address of that other chunk in place of bytes. */
static inline struct chunk **chunk_whole(struct chunk *view)
{
    return (struct chunk **)(void *)(view + 1);
}
static inline uint8_t *chunk_bytes(struct chunk *chunk)
{
    return (uint8_t *)((chunk->view ? *chunk_whole(chunk) : chunk) + 1);
}
static inline uint32_t chunk_length(const struct chunk *chunk) { return chunk->end - chunk->start; }
static inline uint32_t chunk_room(const struct chunk *chunk)
{
    return chunk->view ? 0 : chunk->size - chunk->end;
}

struct pool_class_stats {
    uint32_t size;  /* bytes of a chunk */
    uint64_t pages; /* mapped now */
    uint64_t used;  /* chunks handed out now */
    uint64_t free;  /* chunks that wait to be handed out again */
};

struct pool_stats {
    uint64_t used_bytes; /* of chunks handed out now, plain ones included */
    uint64_t plain;      /* chunks handed out now that are of no page: too large, or of a full
                            POOL_CHAN; all of POOL_SYNC's */
    uint64_t failed;     /* requests that met the limit, or a system without memory */
};

struct pool;

/* NULL: errno tells (EINVAL: the configuration is nonsense). */
struct pool *pool_new(const struct pool_config *config);
/* All chunks must have been handed back. */
void pool_free(struct pool *pool);

/* An empty chunk for at least `size` bytes: of the next class, or plain if there is none so large.
 * NULL: the limit is reached, unless `force`, or there is no memory. */
struct chunk *pool_get(struct pool *pool, size_t size, bool force);
void pool_put(struct pool *pool, struct chunk *chunk);
/* A chunk whose bytes are those of another, which is in no queue, is not written to any more, and
 * goes back when nobody shares it any more. Whoever got it sets its `packets` to 1, and is the first
 * who shares it, until pool_share_ends. NULL as pool_get without force. */
struct chunk *pool_view(struct pool *pool, struct chunk *whole);
void pool_share_ends(struct pool *pool, struct chunk *whole);
void pool_put_list(struct pool *pool, struct chunk *chunk);

/* Give back to the system what nobody has used since the last call, a bounded number of pages and
 * chunks; true: there is more, and the next call may come sooner. */
bool pool_trim(struct pool *pool);
/* There is nothing that pool_trim could give back, now or later, as long as nobody asks. */
bool pool_rests(const struct pool *pool);

/* Bytes of chunks in use at a time; 0: no limit. */
void pool_set_limit(struct pool *pool, uint64_t bytes);
uint64_t pool_limit(const struct pool *pool);
uint64_t pool_used(const struct pool *pool);
uint32_t pool_max_chunk(const struct pool *pool);
int pool_class_count(const struct pool *pool);
void pool_class_stats(const struct pool *pool, int which, struct pool_class_stats *out);
void pool_stats(const struct pool *pool, struct pool_stats *out);

#endif
