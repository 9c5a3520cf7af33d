#include "sums.h"

#include <string.h>

#include "inside.h"

struct sum {
    uint64_t bytes, packets, sizes;
};

/* What is shared counts with the last of its views, which are counted where it has no use itself. */
static struct sum sum_of(struct chunk *chunk)
{
    struct sum sum = {0, 0, 0};
    for (; chunk != NULL; chunk = chunk->next) {
        sum.bytes += chunk_length(chunk);
        sum.packets += chunk->packets;
        sum.sizes += chunk->size;
        if (!chunk->view)
            continue;
        struct chunk *whole = *chunk_whole(chunk);
        CHECK(chunk->end == whole->end);
        if (++whole->start == whole->packets) {
            sum.sizes += whole->size;
            whole->start = 0;
        }
    }
    return sum;
}

static bool has_share(const struct link *from, const struct share *share)
{
    const struct share *one = from->shares;
    while (one != NULL && one != share)
        one = one->next;
    return one != NULL;
}

static void check_jam(const struct link *to)
{
    uint32_t senders = 0, waiting = 0;
    uint64_t last = 0;
    const struct jam *jam = to->jam;
    if (jam == NULL) {
        CHECK(!to->blocked);
        return;
    }
    CHECK(jam->link == to);
    CHECK(has_output(to) || to->failed || to->lost || to->reset || to->state == DEAD);
    for (struct node *node = jam->senders.next; node != &jam->senders; node = node->next) {
        const struct share *share = OWNER_OF(node, struct share, to_node);
        CHECK(share->to == to && share->last >= last);
        CHECK(share->last <= to->taken + to->waiting_bytes);
        CHECK(has_share(share->from, share));
        last = share->last;
        senders++;
        if (share->place > 0) {
            waiting++;
            CHECK(jam->heap[share->place - 1] == share);
            CHECK(share->place == 1 || jam->heap[share->place / 2 - 1]->mark <= share->mark);
            CHECK(share->mark > to->taken); /* or it would have been let go */
        }
    }
    CHECK(senders == jam->sender_count && waiting == jam->heap_count);
    CHECK(senders == 0 || to->waiting_bytes > 0);
    CHECK(!listed(&jam->judge_node) || has_output(to));
}

static uint32_t holds_of(const struct link *from)
{
    uint32_t holds = 0;
    for (const struct share *share = from->shares; share != NULL; share = share->next) {
        CHECK(share->from == from);
        holds += (share->place > 0) + listed(&share->bound_node);
    }
    return holds;
}

static void check_frames(const struct link *link)
{
    const struct websocket *ws = link->ws;
    if (ws == NULL)
        return;
    CHECK(ws->frame_left <= link->waiting_bytes);
    CHECK(ws->head_left <= 4 && (ws->head_left == 0 || ws->frame_left > 0));
    CHECK(ws->later == NULL || (ws->pong != NULL && ws->pong->at > 0));
    CHECK(ws->pong == NULL || ws->pong->at == 0 || ws->frame_left == 0);
    CHECK(ws->left == 0 || (ws->coming == NULL && ws->head_size == 0));
    CHECK(!(ws->closed || ws->problem) || link->ended || link->state != OPEN);
}

static void check_waiting(const struct link *link)
{
    if (link->fd < 0 || link->lost || listed(&link->work_node))
        return;
    if (has_output(link))
        CHECK(listed(&link->dirty_node) || (link->blocked && link->interest & EPOLLOUT));
    if (may_talk(link)) {
        CHECK(!has_rest(link));
        CHECK(link->ended || link->interest & EPOLLIN);
    } else if (link->state == OPEN && !link->broken && !link->ended) {
        CHECK(link->interest & (EPOLLIN | EPOLLRDHUP));
        CHECK(!(link->interest & EPOLLIN) || link->suspended);
    }
}

void check_sums(const struct relay *relay, int settled)
{
    uint64_t bytes = 0, packets = 0, input = 0, used = 0, held = 0, links = 0,
             slowed = 0;
    struct relay_totals totals, sums = {0};
    for (uint32_t index = 0; index < relay->link_end; index++) {
        const struct link *link = relay->links[index];
        if (link == NULL)
            continue;
        links++;
        struct sum out = sum_of(link->out_head), in = sum_of(link->in_head),
                   rest = sum_of(link->rest_head);
        CHECK(out.bytes == link->waiting_bytes && out.packets == link->waiting_packets);
        CHECK(in.bytes + (link->in_bytes < HEAD ? link->in_bytes : HEAD) == link->in_bytes);
        CHECK(rest.bytes == link->rest_bytes);
        if (link->tls != NULL)
            out.sizes += sum_of(link->tls->out).sizes;
        CHECK(link->state != DEAD || out.sizes + in.sizes + rest.sizes == 0);
        CHECK(holds_of(link) == link->held);
        check_jam(link);
        check_frames(link);
        if (settled)
            check_waiting(link);
        bytes += out.bytes;
        packets += out.packets;
        input += link->in_bytes + rest.bytes;
        if (link->port->holds) {
            sums.holding.waiting_bytes += out.bytes;
            sums.holding.waiting_packets += out.packets;
            sums.holding.input_bytes += link->in_bytes + rest.bytes;
        }
        used += out.sizes + in.sizes + rest.sizes;
        held += link->held > 0;
        slowed += link->slowed;
        CHECK(!link->slowed || (link->state == OPEN && listed(&link->tick_node)));
    }
    const struct ring *rings[] = {&relay->events, &relay->openings};
    for (int which = 0; which < 2; which++) {
        const struct ring *ring = rings[which];
        CHECK(ring->count > 0 || ring->start == 0);
        for (size_t i = 0; i < ring->count; i++)
            used += sum_of(ring->events[(ring->start + i) % ring->room].data).sizes;
    }
    for (int i = 0; i < relay->told_count; i++)
        used += sum_of(relay->told[i].data).sizes;
    relay_totals(relay, &totals);
    CHECK(totals.waiting_bytes == bytes && totals.waiting_packets == packets);
    CHECK(memcmp(&totals.holding, &sums.holding, sizeof sums.holding) == 0);
    CHECK(totals.input_bytes == input && totals.held == held && totals.links == links);
    CHECK(totals.slowed == slowed && totals.slows >= slowed);
    CHECK(pool_used(relay_pool(relay)) == used);
}
