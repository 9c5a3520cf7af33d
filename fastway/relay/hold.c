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

static void put(struct jam *jam, uint32_t place, struct share *share)
{
    jam->heap[place - 1] = share;
    share->place = place;
}

static void rise(struct jam *jam, uint32_t place, struct share *share)
{
    for (; place > 1 && jam->heap[place / 2 - 1]->mark > share->mark; place /= 2)
        put(jam, place, jam->heap[place / 2 - 1]);
    put(jam, place, share);
}

static void sink(struct jam *jam, uint32_t place, struct share *share)
{
    for (;;) {
        uint32_t below = place * 2;
        if (below > jam->heap_count)
            break;
        if (below < jam->heap_count && jam->heap[below]->mark < jam->heap[below - 1]->mark)
            below++;
        if (jam->heap[below - 1]->mark >= share->mark)
            break;
        put(jam, place, jam->heap[below - 1]);
        place = below;
    }
    put(jam, place, share);
}

static bool add_to_heap(struct jam *jam, struct share *share)
{
    if (jam->heap_count == jam->heap_room) {
        uint32_t room = jam->heap_room ? jam->heap_room * 2 : 4;
        struct share **heap = realloc(jam->heap, room * sizeof *heap);
        if (heap == NULL)
            return false;
        jam->heap = heap;
        jam->heap_room = room;
    }
    rise(jam, ++jam->heap_count, share);
    return true;
}

static void drop_from_heap(struct jam *jam, struct share *share)
{
    uint32_t place = share->place;
    struct share *last = jam->heap[--jam->heap_count];
    share->place = 0;
    if (last == share)
        return;
    if (place > 1 && jam->heap[place / 2 - 1]->mark > last->mark)
        rise(jam, place, last);
    else
        sink(jam, place, last);
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
    drop_from_heap(share->to->jam, share);
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
    share->to->jam->sender_count--;
    struct share **place = &share->from->shares;
    while (*place != share)
        place = &(*place)->next;
    *place = share->next;
    free(share);
}

/* What `from` has in the queue of `to`, which is blocked; NULL: no memory. */
static struct share *share_of(struct link *from, struct link *to)
{
    for (struct share *share = from->shares; share != NULL; share = share->next)
        if (share->to == to)
            return share;
    struct share *share = calloc(1, sizeof *share);
    if (share == NULL)
        return NULL;
    share->from = from;
    share->to = to;
    share->next = from->shares;
    from->shares = share;
    list_add(&to->jam->senders, &share->to_node);
    to->jam->sender_count++;
    share->mark = UINT64_MAX;
    return share;
}

static void hold_for_bound(struct relay *relay, struct share *share)
{
    if (listed(&share->bound_node))
        return;
    list_add(&share->to->jam->bound, &share->bound_node);
    hold(relay, share->from);
}

/* `from` queued bytes for `to`, which is blocked. False: no memory to bound it. */
bool account(struct relay *relay, struct link *from, struct link *to, uint64_t size)
{
    const struct relay_config *config = &relay->config;
    if (from->state != OPEN || to->waiting_bytes == 0) /* what blocks it is its own */
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
    list_add(&to->jam->senders, &share->to_node);
    if (over(to)) {
        hold_for_bound(relay, share);
        return true;
    }
    uint64_t most = config->shares / to->jam->sender_count;
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
    if (!add_to_heap(to->jam, share))
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
    struct jam *jam = to->jam;
    if (jam == NULL || list_empty(&jam->senders))
        return;
    while (jam->heap_count > 0 && jam->heap[0]->mark <= to->taken)
        reach_mark(relay, jam->heap[0]);
    if (to->waiting_bytes == 0 || below_half(to))
        while (!list_empty(&jam->bound))
            let_go_bound(relay, OWNER_OF(jam->bound.next, struct share, bound_node));
    while (!list_empty(&jam->senders)) {
        struct share *first = OWNER_OF(jam->senders.next, struct share, to_node);
        if (first->last > to->taken || first->place > 0 || listed(&first->bound_node))
            break;
        forget(relay, first);
    }
}

/* Nothing waits for a link any more, or ever will. */
void forget_senders(struct relay *relay, struct link *to)
{
    struct jam *jam = to->jam;
    while (jam != NULL && !list_empty(&jam->senders))
        forget(relay, OWNER_OF(jam->senders.next, struct share, to_node));
}

/* A link sends nothing more. */
void forget_shares(struct relay *relay, struct link *from)
{
    while (from->shares != NULL)
        forget(relay, from->shares);
}
