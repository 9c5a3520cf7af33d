/* The slab pool: see pool.h for its law. */
#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MAX_CLASSES 32
#define TRIM_PAGES 16    /* given back by one trim: unmapping takes longer than anything else */
#define TRIM_CHUNKS 2048
#define ALIGNMENT 16u

/* The head of a mapping; its cells follow. */
struct pool_page {
    struct pool_page *previous, *next; /* in its class's list of pages that have free cells */
    struct chunk *free;                /* cells that were handed back */
    size_t mapped;                     /* bytes */
    uint32_t which;                    /* its class */
    uint32_t cells;                    /* how many it has */
    uint32_t cut;                      /* how many were ever handed out: the rest is untouched */
    uint32_t used;                     /* how many are handed out now */
    bool listed;
    bool touched; /* since the last trim */
};

#define PAGE_HEAD ((sizeof(struct pool_page) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

struct pool_class {
    uint32_t size;
    size_t cell;
    struct pool_page *pages; /* those with free cells */
    struct chunk *free;      /* POOL_SYNC: cells that were handed back */
    uint64_t page_count, used, free_count;
};

struct pool {
    struct pool_config config;
    uint64_t used_bytes, plain, failed;
    int class_count;
    struct pool_class classes[MAX_CLASSES];
};

struct pool *pool_new(const struct pool_config *config)
{
    if (config->type > POOL_SYNC || config->factor < 2 || config->min_chunk < 1
        || config->max_chunk < config->min_chunk || config->page_size < config->max_chunk
        || config->page_size > POOL_MAX_PAGE) {
        errno = EINVAL;
        return NULL;
    }
    struct pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    pool->config = *config;
    for (uint64_t size = config->min_chunk;; size *= config->factor) {
        if (size > config->max_chunk)
            size = config->max_chunk;
        struct pool_class *class = &pool->classes[pool->class_count++];
        class->size = (uint32_t)size;
        class->cell = (sizeof(struct chunk) + size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        if (size == config->max_chunk || pool->class_count == MAX_CLASSES)
            return pool;
    }
}

static void list_page(struct pool_class *class, struct pool_page *page)
{
    page->listed = true;
    page->previous = NULL;
    page->next = class->pages;
    if (page->next != NULL)
        page->next->previous = page;
    class->pages = page;
}

static void unlist_page(struct pool_class *class, struct pool_page *page)
{
    page->listed = false;
    if (page->previous != NULL)
        page->previous->next = page->next;
    else
        class->pages = page->next;
    if (page->next != NULL)
        page->next->previous = page->previous;
}

static void unmap_page(struct pool *pool, struct pool_page *page)
{
    struct pool_class *class = &pool->classes[page->which];
    unlist_page(class, page);
    class->page_count--;
    class->free_count -= page->cells;
    munmap(page, page->mapped);
}

void pool_free(struct pool *pool)
{
    for (int which = 0; which < pool->class_count; which++) {
        struct pool_class *class = &pool->classes[which];
        while (class->pages != NULL)
            unmap_page(pool, class->pages);
        while (class->free != NULL) {
            struct chunk *chunk = class->free;
            class->free = chunk->next;
            free(chunk);
        }
    }
    free(pool);
}

static struct pool_page *map_page(struct pool *pool, uint32_t which)
{
    struct pool_class *class = &pool->classes[which];
    size_t cells = pool->config.page_size / class->size;
    if (cells > (SIZE_MAX / 2 - PAGE_HEAD) / class->cell) /* of one byte each, on 32 bits */
        cells = (SIZE_MAX / 2 - PAGE_HEAD) / class->cell;
    size_t mapped = PAGE_HEAD + cells * class->cell;
    void *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    struct pool_page *page = memory; /* zeroed */
    page->mapped = mapped;
    page->which = which;
    page->cells = (uint32_t)cells;
    class->page_count++;
    class->free_count += cells;
    list_page(class, page);
    return page;
}

static struct chunk *cut(struct pool_class *class, struct pool_page *page)
{
    struct chunk *chunk = page->free;
    if (chunk != NULL)
        page->free = chunk->next;
    else
        /* Untouched memory is not resident, so cells are cut as they are needed. */
        chunk = (struct chunk *)((char *)page + PAGE_HEAD + page->cut++ * class->cell);
    page->touched = true;
    if (++page->used == page->cells)
        unlist_page(class, page);
    class->free_count--;
    chunk->page = page;
    return chunk;
}

struct chunk *pool_get(struct pool *pool, size_t size, bool force)
{
    struct pool_class *class = pool->classes, *end = class + pool->class_count;
    while (class < end && class->size < size)
        class++;
    bool fits = class < end;
    uint64_t takes = fits ? class->size : size;
    struct chunk *chunk = NULL;
    bool full = pool->config.limit && pool->used_bytes + takes > pool->config.limit;
    if (size > UINT32_MAX - sizeof *chunk || (full && !force)) {
        pool->failed++;
        return NULL;
    }
    if (fits && pool->config.type == POOL_SYNC && class->free != NULL) {
        chunk = class->free;
        class->free = chunk->next;
        class->free_count--;
        pool->plain++;
    } else if (fits && pool->config.type != POOL_SYNC) {
        struct pool_page *page = class->pages;
        if (page == NULL && (pool->config.type == POOL_ATOM || class->page_count == 0))
            page = map_page(pool, (uint32_t)(class - pool->classes));
        if (page != NULL)
            chunk = cut(class, page);
    }
    if (chunk == NULL) {
        chunk = malloc(fits ? class->cell : sizeof *chunk + size);
        if (chunk == NULL) {
            pool->failed++;
            return NULL;
        }
        chunk->page = NULL;
        pool->plain++;
    }
    if (fits)
        class->used++;
    pool->used_bytes += takes;
    chunk->next = NULL;
    chunk->size = (uint32_t)takes;
    chunk->start = chunk->end = 0;
    chunk->packets = 0;
    chunk->view = false;
    return chunk;
}

struct chunk *pool_view(struct pool *pool, struct chunk *whole)
{
    struct chunk *view = pool_get(pool, sizeof whole, false);
    if (view == NULL)
        return NULL;
    *chunk_whole(view) = whole;
    view->end = whole->end;
    view->view = true;
    whole->packets++;
    return view;
}

void pool_share_ends(struct pool *pool, struct chunk *whole)
{
    if (--whole->packets == 0)
        pool_put(pool, whole);
}

void pool_put(struct pool *pool, struct chunk *chunk)
{
    if (chunk->view)
        pool_share_ends(pool, *chunk_whole(chunk));
    struct pool_class *class = pool->classes, *end = class + pool->class_count;
    struct pool_page *page = chunk->page;
    pool->used_bytes -= chunk->size;
    if (page != NULL) {
        class = &pool->classes[page->which];
        class->used--;
        class->free_count++;
        chunk->next = page->free;
        page->free = chunk;
        page->used--;
        if (!page->listed)
            list_page(class, page);
        return;
    }
    pool->plain--;
    while (class < end && class->size < chunk->size)
        class++;
    if (class < end) {
        class->used--;
        if (pool->config.type == POOL_SYNC) {
            chunk->next = class->free;
            class->free = chunk;
            class->free_count++;
            return;
        }
    }
    free(chunk);
}

void pool_put_list(struct pool *pool, struct chunk *chunk)
{
    while (chunk != NULL) {
        struct chunk *next = chunk->next;
        pool_put(pool, chunk);
        chunk = next;
    }
}

bool pool_trim(struct pool *pool)
{
    int pages = 0, chunks = 0;
    if (pool->config.type == POOL_CHAN)
        return false;
    for (int which = 0; which < pool->class_count; which++) {
        struct pool_class *class = &pool->classes[which];
        struct pool_page *next;
        for (struct pool_page *page = class->pages; page != NULL; page = next) {
            next = page->next;
            if (page->used > 0 || page->touched) {
                page->touched = false;
                continue;
            }
            if (pages++ == TRIM_PAGES)
                return true;
            unmap_page(pool, page);
        }
        while (class->free != NULL) {
            if (chunks++ == TRIM_CHUNKS)
                return true;
            struct chunk *chunk = class->free;
            class->free = chunk->next;
            class->free_count--;
            free(chunk);
        }
    }
    return false;
}

bool pool_rests(const struct pool *pool)
{
    for (int which = 0; which < pool->class_count; which++) {
        const struct pool_class *class = &pool->classes[which];
        if (pool->config.type != POOL_CHAN && class->free_count > 0)
            return false;
    }
    return true;
}

void pool_set_limit(struct pool *pool, uint64_t bytes) { pool->config.limit = bytes; }

uint64_t pool_limit(const struct pool *pool) { return pool->config.limit; }

uint64_t pool_used(const struct pool *pool) { return pool->used_bytes; }

uint32_t pool_max_chunk(const struct pool *pool)
{
    return pool->classes[pool->class_count - 1].size;
}

int pool_class_count(const struct pool *pool) { return pool->class_count; }

void pool_class_stats(const struct pool *pool, int which, struct pool_class_stats *out)
{
    const struct pool_class *class = &pool->classes[which];
    out->size = class->size;
    out->pages = class->page_count;
    out->used = class->used;
    out->free = class->free_count;
}

void pool_stats(const struct pool *pool, struct pool_stats *out)
{
    out->used_bytes = pool->used_bytes;
    out->plain = pool->plain;
    out->failed = pool->failed;
}
