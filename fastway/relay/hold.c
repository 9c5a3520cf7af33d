/* Fair shares and holds: who floods a link that holds its senders waits for himself.
 *
 * While the link is blocked each of its senders may have about a share of bytes in its queue: who
 * queued half of that after his mark waits until all up to the mark was taken. Over the bounds of
 * the whole queue everybody who sends waits until it is below half. See struct share.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <stdlib.h>

/* The heap of those who wait for a position, the lowest first. */

static void put(struct link *to, uint32_t place, struct share *share)
{
    to->heap[place - 1] = share;
    share->place = place;
}

static void rise(struct link *to, uint32_t place, struct share *share)
{
    for (; place > 1 && to->heap[place / 2 - 1]->mark > share->mark; place /= 2)
        put(to, place, to->heap[place / 2 - 1]);
    put(to, place, share);
}

static void sink(struct link *to, uint32_t place, struct share *share)
{
    for (;;) {
        uint32_t below = place * 2;
        if (below > to->heap_count)
            break;
        if (below < to->heap_count && to->heap[below]->mark < to->heap[below - 1]->mark)
            below++;
        if (to->heap[below - 1]->mark >= share->mark)
            break;
        put(to, place, to->heap[below - 1]);
        place = below;
    }
    put(to, place, share);
}

static bool add_to_heap(struct link *to, struct share *share)
{
    if (to->heap_count == to->heap_room) {
        uint32_t room = to->heap_room ? to->heap_room * 2 : 4;
        struct share **heap = realloc(to->heap, room * sizeof *heap);
        if (heap == NULL)
            return false;
        to->heap = heap;
        to->heap_room = room;
    }
    rise(to, ++to->heap_count, share);
    return true;
}

static void drop_from_heap(struct link *to, struct share *share)
{
    uint32_t place = share->place;
    struct share *last = to->heap[--to->heap_count];
    share->place = 0;
    if (last == share)
        return;
    if (place > 1 && to->heap[place / 2 - 1]->mark > last->mark)
        rise(to, place, last);
    else
        sink(to, place, last);
}

/* Holding, and letting go. */

static void hold(struct relay *relay, struct link *from)
{
    if (from->held++ > 0)
        return;
    relay->totals.held++;
    if (!from->paused)
        relay->totals.holds++;
    update_interest(relay, from);
}

static void let_go(struct relay *relay, struct link *from)
{
    if (--from->held > 0)
        return;
    relay->totals.held--;
    if (from->state != OPEN)
        return;
    /* It could not be heard: its idle time begins anew. */
    from->last_packet = relay->now;
    go_on_soon(relay, from);
}

static void reach_mark(struct relay *relay, struct share *share)
{
    drop_from_heap(share->to, share);
    share->mark = share->last;
    share->since = 0;
    let_go(relay, share->from);
}

static void let_go_bound(struct relay *relay, struct share *share)
{
    list_drop(&share->bound_node);
    let_go(relay, share->from);
}

static void forget(struct relay *relay, struct share *share)
{
    if (share->place > 0)
        reach_mark(relay, share);
    if (listed(&share->bound_node))
        let_go_bound(relay, share);
    list_drop(&share->to_node);
    list_drop(&share->from_node);
    share->to->sender_count--;
    free(share);
}

/* What `from` has in the queue of `to`; NULL: no memory. */
static struct share *share_of(struct link *from, struct link *to)
{
    struct share *share;
    for (struct node *node = from->shares.next; node != &from->shares; node = node->next) {
        share = OWNER_OF(node, struct share, from_node);
        if (share->to == to)
            return share;
    }
    share = calloc(1, sizeof *share);
    if (share == NULL)
        return NULL;
    share->from = from;
    share->to = to;
    list_add(&from->shares, &share->from_node);
    list_add(&to->senders, &share->to_node);
    to->sender_count++;
    share->mark = UINT64_MAX;
    return share;
}

static void hold_for_bound(struct relay *relay, struct share *share)
{
    if (listed(&share->bound_node))
        return;
    list_add(&share->to->bound, &share->bound_node);
    hold(relay, share->from);
}

/* `from` queued bytes for `to`, which is blocked. False: no memory to bound it. */
bool account(struct relay *relay, struct link *from, struct link *to, uint64_t size)
{
    const struct relay_config *config = &relay->config;
    if (from->state != OPEN)
        return true;
    struct share *share = share_of(from, to);
    if (share == NULL)
        return false;
    uint64_t added = to->taken + to->waiting_bytes;
    if (share->mark == UINT64_MAX)
        share->mark = added - size;
    share->since += size;
    share->last = added;
    list_drop(&share->to_node); /* in the order of the last bytes */
    list_add(&to->senders, &share->to_node);
    if (over(to)) {
        hold_for_bound(relay, share);
        return true;
    }
    uint64_t most = config->shares / to->sender_count;
    if (most > config->share_most)
        most = config->share_most;
    if (most < config->share_least)
        most = config->share_least;
    if (share->place > 0 || share->since < most - most / 2)
        return true;
    if (to->taken >= share->mark) {
        share->mark = added;
        share->since = 0;
        return true;
    }
    if (!add_to_heap(to, share))
        return false;
    hold(relay, from);
    return true;
}

/* A link that does not read what it is answered is asked nothing more. False: it is not held. */
bool hold_for_itself(struct relay *relay, struct link *link)
{
    if (!link->port->holds || !link->blocked || !over(link))
        return false;
    struct share *share = share_of(link, link);
    if (share == NULL) {
        fail(relay, link, RELAY_NO_MEMORY);
        return true;
    }
    if (share->mark == UINT64_MAX)
        share->mark = share->last = link->taken + link->waiting_bytes;
    hold_for_bound(relay, share);
    return true;
}

static bool below_half(const struct link *link)
{
    return link->waiting_packets < link->port->queue_packets / 2 + link->port->queue_packets % 2
           && link->waiting_bytes < link->port->queue_bytes / 2 + link->port->queue_bytes % 2;
}

/* The socket of `to` took something: let go whom that concerns. */
void let_go_drained(struct relay *relay, struct link *to)
{
    if (to->tell_taken <= to->taken) {
        to->tell_taken = UINT64_MAX;
        tell(relay, to, RELAY_TAKEN, to->taken, NULL);
    }
    if (list_empty(&to->senders))
        return;
    while (to->heap_count > 0 && to->heap[0]->mark <= to->taken)
        reach_mark(relay, to->heap[0]);
    if (to->waiting_bytes == 0 || below_half(to))
        while (!list_empty(&to->bound))
            let_go_bound(relay, OWNER_OF(to->bound.next, struct share, bound_node));
    while (!list_empty(&to->senders)) {
        struct share *first = OWNER_OF(to->senders.next, struct share, to_node);
        if (first->last > to->taken || first->place > 0 || listed(&first->bound_node))
            break;
        forget(relay, first);
    }
}

/* Nothing waits for a link any more, or ever will. */
void forget_senders(struct relay *relay, struct link *to)
{
    while (!list_empty(&to->senders))
        forget(relay, OWNER_OF(to->senders.next, struct share, to_node));
    free(to->heap);
    to->heap = NULL;
    to->heap_room = 0;
}

/* A link sends nothing more. */
void forget_shares(struct relay *relay, struct link *from)
{
    while (!list_empty(&from->shares))
        forget(relay, OWNER_OF(from->shares.next, struct share, from_node));
}
