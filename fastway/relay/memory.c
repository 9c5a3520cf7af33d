/* The memory limit, and who goes for it.
 *
 * Law: when it is met, the client that holds most goes, then the next; servers go last. Whoever
 * merely receives never goes for what another one sends.
 */
#define _GNU_SOURCE
#include "inside.h"

/* Once it is met, so much less than the limit is aimed at: it is not met at each chunk. */
#define SLACK 16

static uint64_t holding(const struct link *link)
{
    const struct chunk *sealed = link->tls == NULL ? NULL : link->tls->out;
    return link->waiting_bytes + link->in_bytes + link->rest_bytes
           + (sealed == NULL ? 0 : sealed->size);
}

static void shed(struct relay *relay, struct link *link)
{
    relay->totals.shed++;
    fail(relay, link, RELAY_NO_MEMORY);
}

static bool may_go(const struct link *link, bool server)
{
    return link != NULL && link->state != DEAD && link->port->holds == server && holding(link) > 0;
}

/* The one that holds most goes, and if need be those that hold at least half as much. */
static bool shed_some(struct relay *relay, bool server, uint64_t aim)
{
    struct link *most = NULL;
    for (uint32_t index = 0; index < relay->link_end; index++) {
        struct link *link = relay->links[index];
        if (may_go(link, server) && (most == NULL || holding(link) > holding(most)))
            most = link;
    }
    if (most == NULL)
        return false;
    uint64_t half = holding(most) / 2;
    shed(relay, most);
    for (uint32_t index = 0; index < relay->link_end && pool_used(relay->pool) > aim; index++) {
        struct link *link = relay->links[index];
        if (may_go(link, server) && holding(link) >= half)
            shed(relay, link);
    }
    return true;
}

/* Make room for so many bytes more. False: there is none. */
bool make_room(struct relay *relay, uint64_t size)
{
    uint64_t limit = pool_limit(relay->pool);
    if (limit == 0 || size > limit)
        return false;
    uint64_t aim = limit - limit / SLACK;
    if (aim > limit - size)
        aim = limit - size;
    for (int server = 0; server < 2; server++)
        while (pool_used(relay->pool) > aim && shed_some(relay, server, aim))
            ;
    return pool_used(relay->pool) + size <= limit;
}

/* A chunk for what `asking` said. NULL: there is no memory, and it has failed. */
struct chunk *get_chunk(struct relay *relay, struct link *asking, size_t size)
{
    struct chunk *chunk = pool_get(relay->pool, size, false);
    if (chunk == NULL && make_room(relay, size) && !asking->failed)
        chunk = pool_get(relay->pool, size, false);
    if (chunk == NULL)
        fail(relay, asking, RELAY_NO_MEMORY);
    else if (asking->failed || asking->state == DEAD) {
        pool_put(relay->pool, chunk);
        chunk = NULL;
    }
    return chunk;
}
