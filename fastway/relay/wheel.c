/* Deadlines: never early, and kept within a tick unless thousands are due at once. */
#define _GNU_SOURCE
#include "inside.h"

#define CHECKS 256    /* links in one go */
#define TRIM_TICKS 10 /* between trims of the pool */

void forget_tick(struct relay *relay, struct link *link)
{
    (void)relay;
    list_drop(&link->tick_node);
}

/* Look at the link at `when`, or earlier if that was asked for. */
void watch(struct relay *relay, struct link *link, double when)
{
    double ticks = when / RELAY_TICK;
    int64_t last = relay->reached + SLOTS - 1;
    int64_t tick = ticks < (double)last ? (int64_t)ticks : last;
    if ((double)tick < ticks && tick < last)
        tick++;
    if (tick <= relay->reached)
        tick = relay->reached + 1;
    if (listed(&link->tick_node)) {
        if ((int32_t)(link->tick - (uint32_t)tick) <= 0)
            return;
        list_drop(&link->tick_node);
    }
    link->tick = (uint32_t)tick;
    list_add(&relay->slots[tick % SLOTS], &link->tick_node);
}

/* Report the link if a deadline has passed, otherwise watch the next one. */
void check(struct relay *relay, struct link *link)
{
    const struct relay_port *port = link->port;
    double now = relay->now, next = 0;
    if (link->state != OPEN || !link->started)
        return;
    if (link->slowed)
        look_at_rate(relay, link);
    if (link->fd < 0)
        return;
    if (link->blocked && port->write_timeout > 0) {
        uint64_t acked = bytes_acked(link);
        if (acked != link->jam->acked) {
            link->jam->acked = acked;
            link->jam->since = now;
        }
        next = link->jam->since + port->write_timeout;
        if (next <= now) {
            tell(relay, link, RELAY_STUCK, 0, NULL);
            return;
        }
    }
    if (port->idle_timeout > 0) {
        bool heard = may_talk(link) && !has_rest(link);
        if (link->direct && link->last_packet + port->idle_timeout <= now && took_more(link))
            link->last_packet = now;
        double due = (heard ? link->last_packet : now) + port->idle_timeout;
        if (due <= now) {
            tell(relay, link, RELAY_IDLE, 0, NULL);
            return;
        }
        if (next == 0 || due < next)
            next = due;
    }
    if (next > 0)
        watch(relay, link, next);
}

/* Time has come to relay->now: find the links whose deadlines that may concern. */
void turn_wheel(struct relay *relay)
{
    int64_t reached = (int64_t)(relay->now / RELAY_TICK), tick = relay->reached;
    if (reached - tick > SLOTS)
        tick = reached - SLOTS;
    while (tick < reached) {
        relay->reached = ++tick;
        struct node *slot = &relay->slots[tick % SLOTS];
        while (!list_empty(slot)) {
            struct node *node = slot->next;
            list_drop(node);
            list_add(&relay->due, node);
        }
    }
}

void check_due(struct relay *relay)
{
    for (int count = 0; count < CHECKS && !list_empty(&relay->due); count++) {
        struct link *link = OWNER_OF(relay->due.next, struct link, tick_node);
        list_drop(&link->tick_node);
        check(relay, link);
    }
}

void trim(struct relay *relay)
{
    if (!relay->trimming && relay->reached - relay->trimmed < TRIM_TICKS)
        return;
    relay->trimmed = relay->reached;
    relay->trimming = pool_trim(relay->pool);
}
