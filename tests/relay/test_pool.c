/* The pool alone. */
#include <errno.h>
#include <string.h>

#include "pool.h"
#include "sums.h"

/* The three kinds of pool: what they keep, and what goes back to the system. */
static void test_pool(void)
{
    for (int type = POOL_ATOM; type <= POOL_SYNC; type++) {
        struct pool_config config = {(enum pool_type)type, 3, 100, 1000, 4000, 0};
        struct pool *pool = pool_new(&config);
        struct chunk *chunks[100];
        struct pool_class_stats stats;
        CHECK(pool != NULL && pool_class_count(pool) == 4 && pool_max_chunk(pool) == 1000);
        for (int i = 0; i < 100; i++) {
            chunks[i] = pool_get(pool, 101, false);
            CHECK(chunks[i]->size == 300);
            memset(chunk_bytes(chunks[i]), i, 300);
        }
        pool_class_stats(pool, 1, &stats);
        CHECK(stats.size == 300 && stats.used == 100);
        CHECK(stats.pages == (type == POOL_ATOM ? 8 : type == POOL_CHAN ? 1 : 0));
        for (int i = 0; i < 100; i++) {
            CHECK(chunk_bytes(chunks[i])[299] == i);
            pool_put(pool, chunks[i]);
        }
        pool_trim(pool);
        pool_trim(pool);
        pool_class_stats(pool, 1, &stats);
        CHECK(stats.used == 0 && stats.pages == (type == POOL_CHAN ? 1 : 0));
        CHECK(stats.free == (type == POOL_CHAN ? 13 : 0));
        struct chunk *large = pool_get(pool, 5000, false);
        CHECK(large->size == 5000 && large->page == NULL);
        pool_put(pool, large);
        CHECK(pool_rests(pool));
        pool_free(pool);
    }
    static const struct pool_config nonsense[] = {
        {POOL_ATOM, 1, 64, 128, 4096, 0},
        {POOL_ATOM, 2, 0, 128, 4096, 0},
        {POOL_ATOM, 2, 256, 128, 4096, 0},
        {POOL_ATOM, 2, 64, 8192, 4096, 0},
        {POOL_ATOM, 2, 64, 8192, POOL_MAX_PAGE + 1, 0},
        {(enum pool_type)3, 2, 64, 128, 4096, 0},
    };
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        errno = 0;
        CHECK(pool_new(&nonsense[i]) == NULL && errno == EINVAL);
    }
}

/* The largest sizes make no small ones. */
static void test_large(void)
{
    struct pool_config config = {POOL_ATOM, 1u << 31, 1u << 30, 1u << 30, POOL_MAX_PAGE, 0};
    struct pool *pool = pool_new(&config);
    CHECK(pool != NULL && pool_class_count(pool) == 1);
    struct chunk *chunk = pool_get(pool, 1u << 30, false);
    CHECK(chunk != NULL && chunk->size == 1u << 30);
    chunk_bytes(chunk)[(1u << 30) - 1] = 1;
    CHECK(pool_get(pool, (size_t)UINT32_MAX, false) == NULL);
    pool_put(pool, chunk);
    pool_free(pool);
    config = (struct pool_config){POOL_ATOM, 1u << 31, 1, 1u << 30, POOL_MAX_PAGE, 0};
    pool = pool_new(&config);
    CHECK(pool != NULL && pool_class_count(pool) == 2 && pool_max_chunk(pool) == 1u << 30);
    pool_free(pool);
}

/* The limit refuses, and can be changed; who must not be refused is not. */
static void test_limit(void)
{
    struct pool_config config = {POOL_ATOM, 2, 64, 1024, 4096, 1000};
    struct pool *pool = pool_new(&config);
    struct chunk *first = pool_get(pool, 512, false), *second, *third;
    CHECK(first != NULL && pool_get(pool, 512, false) == NULL);
    second = pool_get(pool, 512, true);
    CHECK(second != NULL && pool_used(pool) == 1024);
    pool_set_limit(pool, 1088);
    CHECK(pool_get(pool, 65, false) == NULL);
    third = pool_get(pool, 64, false);
    CHECK(third != NULL && pool_limit(pool) == 1088);
    pool_put(pool, first);
    pool_put(pool, second);
    pool_put(pool, third);
    pool_free(pool);
}

/* One trim gives back some pages only, and says that there are more. */
static void test_trim(void)
{
    for (int type = POOL_ATOM; type <= POOL_SYNC; type += POOL_SYNC) {
        struct pool_config config = {(enum pool_type)type, 2, 1024, 1024, 1024, 0};
        static struct chunk *chunks[5000];
        struct pool *pool = pool_new(&config);
        int count = type == POOL_ATOM ? 100 : 5000;
        for (int i = 0; i < count; i++)
            chunks[i] = pool_get(pool, 1024, false);
        for (int i = 0; i < count; i++)
            pool_put(pool, chunks[i]);
        CHECK(!pool_rests(pool));
        if (type == POOL_ATOM)
            CHECK(!pool_trim(pool)); /* they were used since the last one */
        int trims = 1;
        while (pool_trim(pool)) {
            CHECK(!pool_rests(pool));
            trims++;
        }
        CHECK(trims == (type == POOL_ATOM ? 7 : 3));
        CHECK(pool_rests(pool));
        pool_free(pool);
    }
}

int main(void)
{
    test_pool();
    test_large();
    test_limit();
    test_trim();
    puts("test_pool: ok");
    return 0;
}

