/* Rates: packets and bytes a second of one link, where its port has them.
 *
 * A rate is kept as the time at which its bucket, a second's worth, is full again. Who is behind
 * by more than that second has sent more than it may: it is not read from until the wheel finds
 * that it may again. Nobody is lost, and what was read already, one read at most, is passed on.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BURST 1.0     /* seconds that may be used at once */
#define ROUNDING 1e-9 /* seconds that sums of fractions may be wrong */

struct rate {
    double packets_due, bytes_due; /* when they are full */
    uint32_t generation;           /* of the link that this is about */
};

int relay_rate(struct relay *relay, int port, double packets, double bytes)
{
    if (port < 0 || port >= relay->port_count || !(packets >= 0) || !(bytes >= 0)) {
        errno = EINVAL;
        return -1;
    }
    relay->limits[port] = (struct limit){packets, bytes};
    relay->limited = relay->limited || packets > 0 || bytes > 0;
    for (uint32_t index = 0; relay->totals.slowed > 0 && index < relay->link_end; index++) {
        struct link *link = relay->links[index];
        if (link != NULL && link->slowed && link->port == &relay->ports[port])
            watch(relay, link, 0); /* it may go on earlier, perhaps */
    }
    return 0;
}

static const struct limit *limit_of(const struct relay *relay, const struct link *link)
{
    return &relay->limits[link->port - relay->ports];
}

static bool rated(const struct relay *relay, const struct link *link)
{
    return limit_of(relay, link)->packets > 0 || limit_of(relay, link)->bytes > 0;
}

/* What there is about a link; NULL: no memory. */
static struct rate *rate_of(struct relay *relay, const struct link *link)
{
    if (link->index >= relay->rate_room) {
        size_t room = relay->link_room;
        struct rate *larger = reallocarray(relay->rates, room, sizeof *larger);
        if (larger == NULL)
            return NULL;
        memset(larger + relay->rate_room, 0, (room - relay->rate_room) * sizeof *larger);
        relay->rates = larger;
        relay->rate_room = (uint32_t)room;
    }
    struct rate *rate = &relay->rates[link->index];
    if (rate->generation != link->generation)
        *rate = (struct rate){.generation = link->generation};
    return rate;
}

/* Take what was used out of a bucket; returns when it is full again. */
static double spend(double due, double now, double rate, double used)
{
    return rate > 0 ? (due > now ? due : now) + used / rate : now;
}

/* When something may be taken out of a bucket. One may always be taken out of a full one. */
static double free_at(double due, double rate)
{
    double one = rate > 0 ? 1 / rate : 0;
    return due - (one < BURST ? BURST - one : 0) - ROUNDING;
}

static double free_of(const struct limit *limit, const struct rate *rate)
{
    double packets = free_at(rate->packets_due, limit->packets);
    double bytes = free_at(rate->bytes_due, limit->bytes);
    return packets > bytes ? packets : bytes;
}

/* It sent so much: over its rates it is not read from for a while. */
void charge(struct relay *relay, struct link *link, uint64_t packets, uint64_t bytes)
{
    if (!rated(relay, link) || link->state != OPEN || link->broken)
        return;
    struct rate *rate = rate_of(relay, link);
    if (rate == NULL) {
        fail(relay, link, RELAY_NO_MEMORY); /* never without a limit */
        return;
    }
    const struct limit *limit = limit_of(relay, link);
    rate->packets_due = spend(rate->packets_due, relay->now, limit->packets, (double)packets);
    rate->bytes_due = spend(rate->bytes_due, relay->now, limit->bytes, (double)bytes);
    double when = free_of(limit, rate);
    if (when <= relay->now)
        return;
    if (!link->slowed) {
        link->slowed = link->greedy = true; /* many may go on at once: after those who may anyhow */
        relay->totals.slowed++;
        relay->totals.slows++;
        update_interest(relay, link);
    }
    watch(relay, link, when);
}

/* cut, where a port has rates: what is done with counts. */
size_t cut_at_rate(struct relay *relay, struct link *link, const uint8_t *data, size_t size)
{
    uint64_t packets = link->packets_in;
    uint32_t commands = relay->commands_left;
    size_t used = cut(relay, link, data, size);
    packets = link->packets_in - packets + (commands - relay->commands_left);
    charge(relay, link, packets, used);
    return used;
}

void speed_up(struct relay *relay, struct link *link)
{
    if (!link->slowed)
        return;
    link->slowed = false;
    relay->totals.slowed--;
}

/* Let a link go on whose time has come. */
void look_at_rate(struct relay *relay, struct link *link)
{
    bool still = rated(relay, link);
    double when = still ? free_of(limit_of(relay, link), rate_of(relay, link)) : 0;
    if (when > relay->now) {
        watch(relay, link, when);
        return;
    }
    speed_up(relay, link);
    link->last_packet = relay->now; /* it could not be heard */
    go_on_soon(relay, link);
}
