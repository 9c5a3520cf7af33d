/* Virtual connections: which two links a conn_id joins. */
#define _GNU_SOURCE
#include "inside.h"

#include <stdlib.h>

static uint32_t home(const struct relay *relay, uint32_t conn_id)
{
    /* Fibonacci hashing: ids in sequence come to lie far apart. */
    return conn_id * 2654435769u >> relay->pair_shift;
}

static struct pair *find_pair(const struct relay *relay, uint32_t conn_id)
{
    if (relay->pair_room == 0)
        return NULL;
    uint32_t mask = relay->pair_room - 1;
    for (uint32_t at = home(relay, conn_id); relay->pairs[at].conn_id != 0; at = (at + 1) & mask)
        if (relay->pairs[at].conn_id == conn_id)
            return &relay->pairs[at];
    return NULL;
}

/* It is about to be looked for: have it brought from memory meanwhile. */
void fetch_pair(const struct relay *relay, uint32_t conn_id)
{
    if (relay->pair_room > 0)
        __builtin_prefetch(&relay->pairs[home(relay, conn_id)]);
}

/* The link to which it leads, if it is where it is looked for first. */
void fetch_end(const struct relay *relay, const struct link *link, uint32_t conn_id)
{
    if (relay->pair_room == 0)
        return;
    const struct pair *pair = &relay->pairs[home(relay, conn_id)];
    uint32_t index = pair->index[pair->index[0] == link->index];
    if (pair->conn_id == conn_id && index < relay->link_end && relay->links[index] != NULL)
        fetch(relay->links[index], sizeof(struct link));
}

/* The other end, if the link is one of the two. */
struct link *other_end(const struct relay *relay, const struct link *link, uint32_t conn_id)
{
    const struct pair *pair = conn_id ? find_pair(relay, conn_id) : NULL;
    if (pair == NULL)
        return NULL;
    for (int end = 0; end < 2; end++)
        if (pair->index[end] == link->index && pair->generation[end] == link->generation)
            return link_at(relay, pair->index[!end], pair->generation[!end]);
    return NULL;
}

static bool resize_pairs(struct relay *relay, uint32_t room)
{
    struct pair *old = relay->pairs, *pairs = calloc(room, sizeof *pairs);
    if (pairs == NULL)
        return false;
    uint32_t old_room = relay->pair_room;
    relay->pairs = pairs;
    relay->pair_room = room;
    relay->pair_shift = 32u - (uint32_t)__builtin_ctz(room);
    for (uint32_t i = 0; i < old_room; i++) {
        if (old[i].conn_id == 0)
            continue;
        uint32_t at = home(relay, old[i].conn_id);
        while (pairs[at].conn_id != 0)
            at = (at + 1) & (room - 1);
        pairs[at] = old[i];
    }
    free(old);
    return true;
}

bool relay_pair(struct relay *relay, uint32_t conn_id, relay_handle one, relay_handle other)
{
    struct link *ends[2] = {find(relay, one), find(relay, other)};
    if (conn_id == 0 || ends[0] == NULL || ends[1] == NULL)
        return false;
    struct pair *pair = find_pair(relay, conn_id);
    if (pair == NULL) {
        if (relay->totals.pairs >= relay->pair_room / 2
            && !resize_pairs(relay, relay->pair_room ? relay->pair_room * 2 : 64))
            return false;
        uint32_t at = home(relay, conn_id);
        while (relay->pairs[at].conn_id != 0)
            at = (at + 1) & (relay->pair_room - 1);
        pair = &relay->pairs[at];
        relay->totals.pairs++;
    }
    pair->conn_id = conn_id;
    for (int end = 0; end < 2; end++) {
        pair->index[end] = ends[end]->index;
        pair->generation[end] = ends[end]->generation;
    }
    return true;
}

void relay_unpair(struct relay *relay, uint32_t conn_id)
{
    struct pair *pair = conn_id ? find_pair(relay, conn_id) : NULL;
    if (pair == NULL)
        return;
    /* Move back what would not be found any more behind the gap. */
    uint32_t mask = relay->pair_room - 1, gap = (uint32_t)(pair - relay->pairs);
    for (uint32_t at = (gap + 1) & mask; relay->pairs[at].conn_id != 0; at = (at + 1) & mask) {
        uint32_t wanted = home(relay, relay->pairs[at].conn_id);
        if (((at - wanted) & mask) >= ((at - gap) & mask)) {
            relay->pairs[gap] = relay->pairs[at];
            gap = at;
        }
    }
    relay->pairs[gap].conn_id = 0;
    relay->totals.pairs--;
    if (relay->pair_room > 64 && relay->totals.pairs < relay->pair_room / 8)
        resize_pairs(relay, relay->pair_room / 2);
}
