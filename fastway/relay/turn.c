/* Turns: who is read from and written to, for how long, and the events that come of it.
 *
 * Law: a turn is over after turn_seconds of reading and as much of writing; whoever was not
 * reached comes first in the next one.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 32 /* of one turn */
#define READS 8   /* reads of one link and round, while they come full */
#define GREEDY_SECONDS .00005 /* for those who have more than that, until the others are asked again */
#define MANY 64   /* links to be written to: it pays to look for more to send them first */
#define LOOKS 64  /* times that is looked, */
#define LOOK_SECONDS .0000004 /* as long for each of them: a twentieth of what its write takes */

double clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* From now on there is time for so many turns. */
static void give_time(struct relay *relay, double turns)
{
    relay->late = false;
    relay->until = clock_seconds() + turns * relay->config.turn_seconds;
}

static void begin(struct relay *relay, double now, uint32_t commands)
{
    relay->now = now;
    relay->running = true;
    relay->commands_left = commands;
    give_time(relay, .5);
}

bool out_of_time(struct relay *relay)
{
    if (!relay->late && clock_seconds() > relay->until)
        relay->late = true;
    return relay->late;
}

/* Make the loop that watches relay_fd call relay_run. */
void wake(struct relay *relay)
{
    if (relay->running || relay->woken)
        return;
    relay->woken = true;
    uint64_t one = 1;
    while (write(relay->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static bool events_wait(const struct relay *relay)
{
    return relay->events.count > 0 || relay->openings.count > 0;
}

/* The turn is over; if something is left there is a next one at once. */
static void settle(struct relay *relay)
{
    relay->running = false;
    if (!list_empty(&relay->dirty) || !list_empty(&relay->work) || !list_empty(&relay->handled)
        || !list_empty(&relay->greedy) || !list_empty(&relay->asking) || !list_empty(&relay->judged) || !list_empty(&relay->due)
        || events_wait(relay) || relay->ready_at < relay->ready_count)
        wake(relay);
}

void mark_dirty(struct relay *relay, struct link *link)
{
    if (listed(&link->dirty_node) || link->state == DEAD)
        return;
    list_add(&relay->dirty, &link->dirty_node);
    relay->dirty_count++;
    wake(relay);
}

void go_on_soon(struct relay *relay, struct link *link)
{
    if (listed(&link->work_node) || link->state == DEAD)
        return;
    list_add(&relay->work, &link->work_node);
    wake(relay);
}

/* Tell epoll what the link waits for. Who is not read from is asked whether its peer ends; once
 * that is known it is in the set only while it is to be written to: a hang-up would be reported
 * again and again. */
void update_interest(struct relay *relay, struct link *link)
{
    uint16_t wanted = 0;
    if (link->fd < 0)
        return;
    if (link->state == HALF || (may_talk(link) && !link->ended && !has_rest(link)))
        wanted = EPOLLIN;
    else if (link->state == OPEN && link->suspended && !link->deaf)
        wanted = link->interest & (EPOLLIN | EPOLLRDHUP); /* most go on before that matters */
    else if (link->state == OPEN && !link->broken && !link->ended)
        wanted = EPOLLRDHUP;
    if (link->blocked)
        wanted |= EPOLLOUT;
    if (wanted == link->interest)
        return;
    struct epoll_event event = {.events = wanted, .data.u64 = handle_of(link)};
    int operation = wanted == 0          ? EPOLL_CTL_DEL
                    : link->interest == 0 ? EPOLL_CTL_ADD
                                          : EPOLL_CTL_MOD;
    if (epoll_ctl(relay->epoll, operation, link->fd, &event) < 0 && wanted != 0)
        lose_socket(relay, link, errno); /* it would be deaf for ever */
    else
        link->interest = wanted;
}

/* Events. */

void tell(struct relay *relay, struct link *link, enum relay_event_kind kind, uint64_t detail,
          struct chunk *data)
{
    uint16_t bit = (uint16_t)(1u << kind);
    /* There is room for one of each kind, and its end is the last of them. */
    if (link->told & bit || (link->state == DEAD && kind != RELAY_GONE)) {
        if (data != NULL)
            pool_put(relay->pool, data);
        return;
    }
    link->told |= bit;
    struct ring *ring = link->started ? &relay->events : &relay->openings;
    size_t place = ring->start + ring->count++;
    ring->events[place < ring->room ? place : place - ring->room] =
        (struct relay_event){handle_of(link), NULL, kind, detail, data};
    wake(relay);
}

/* Put the events that this turn returns where relay_events finds them. Of a link that was closed
 * meanwhile nothing counts but its end. */
static void present_some(struct relay *relay, struct ring *ring, uint32_t most)
{
    for (uint32_t told = 0; ring->count > 0 && told < most;) {
        struct relay_event event = ring->events[ring->start];
        struct link *link = find(relay, event.handle);
        ring->start = (ring->start + 1) % ring->room;
        ring->count--;
        if (link == NULL || (link->state != OPEN && event.kind != RELAY_GONE)) {
            if (link != NULL)
                link->told &= (uint16_t)~(1u << event.kind);
            if (event.data != NULL)
                pool_put(relay->pool, event.data);
            continue;
        }
        event.owner = link->owner;
        relay->told[relay->told_count++] = event;
        told++;
    }
    if (ring->count == 0)
        ring->start = 0; /* the rest of the ring is never touched, and no memory */
}

/* Those who are not in come last, and few at a time: each may be a handshake. */
static int present(struct relay *relay)
{
    present_some(relay, &relay->events, relay->config.events_turn);
    present_some(relay, &relay->openings, relay->config.openings_turn);
    return relay->told_count;
}

const struct relay_event *relay_events(const struct relay *relay) { return relay->told; }

/* A link of which an event was handled goes on. */
static void let_go_on(struct relay *relay, struct link *link)
{
    link->suspended = link->deaf = false;
    list_drop(&link->work_node);
    list_add(&relay->handled, &link->work_node);
}

void relay_clear_events(struct relay *relay)
{
    for (int i = 0; i < relay->told_count; i++) {
        struct relay_event *event = &relay->told[i];
        struct link *link = find(relay, event->handle);
        if (link != NULL)
            link->told &= (uint16_t)~(1u << event->kind);
        if (event->data == NULL)
            continue;
        pool_put(relay->pool, event->data);
        if (link != NULL && link->state == OPEN)
            let_go_on(relay, link);
    }
    relay->told_count = 0;
}

void relay_defer(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != OPEN || link->started)
        return;
    link->suspended = true;
    list_drop(&link->work_node);
}

void relay_handled(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != OPEN || !link->suspended)
        return;
    let_go_on(relay, link);
    wake(relay);
}

/* The work that no socket asks for. */

/* Cut what was read of a link and waits, as far as it may go, then read on or end. */
static void go_on(struct relay *relay, struct link *link)
{
    if (link->lost && link->fd >= 0)
        close_lost(relay, link);
    while (may_talk(link) && has_rest(link)) {
        if (out_of_time(relay)) {
            go_on_soon(relay, link);
            break;
        }
        struct chunk *piece = link->rest_head;
        size_t size = piece == NULL ? 0 : chunk_length(piece);
        if (size > link->port->read_size)
            size = link->port->read_size;
        uint8_t *data = piece == NULL ? NULL : chunk_bytes(piece) + piece->start;
        if (link->started)
            size = (relay->limited ? cut_at_rate : cut)(relay, link, data, size);
        else
            hand_up(relay, link, RELAY_BYTES, data, size);
        drop_rest(relay, link, size);
        if (listed(&link->work_node))
            break; /* it waits until the caller may be asked */
    }
    end_if_done(relay, link);
    update_interest(relay, link);
}

/* Let all links of a list go on that are in it now. */
static void go_on_all(struct relay *relay, struct node *list)
{
    struct node now;
    list_begin(&now);
    list_prepend(&now, list);
    while (!list_empty(&now) && !out_of_time(relay)) {
        struct link *link = OWNER_OF(now.next, struct link, work_node);
        list_drop(&link->work_node);
        go_on(relay, link);
    }
    list_prepend(list, &now);
}

/* Those whose commands wait, in the order in which they came. */
static void ask_on(struct relay *relay)
{
    while (!list_empty(&relay->asking) && relay->commands_left > 0 && !out_of_time(relay)) {
        struct link *link = OWNER_OF(relay->asking.next, struct link, work_node);
        list_drop(&link->work_node);
        go_on(relay, link);
    }
}

/* Reading and writing. */

static void read_link(struct relay *relay, struct link *link)
{
    size_t size = (size_t)link->port->read_size;
    link->greedy = false;
    for (int reads = 0; reads < READS; reads++) {
        bool full;
        ssize_t got = read_socket(relay, link, relay->scratch, size, &full);
        if (got < 0) {
            if (errno != EAGAIN)
                lose_socket(relay, link, errno);
            return;
        }
        if (link->state == HALF) {
            if (got == 0) {
                link->state = CLOSING;
                mark_dirty(relay, link);
                update_interest(relay, link);
                return;
            }
            continue;
        }
        if (got == 0) {
            link->ended = true;
            end_if_done(relay, link);
            update_interest(relay, link);
            return;
        }
        link->bytes_in += (uint64_t)got;
        if (!link->started) {
            hand_up(relay, link, RELAY_BYTES, relay->scratch, (size_t)got);
            return;
        }
        size_t came = (size_t)got;
        if (link->ws != NULL)
            came = unwrap(relay, link, relay->scratch, came);
        if (relay->limited)
            charge(relay, link, 0, (uint64_t)got - came); /* what frames are made of */
        if (link->failed)
            return;
        size_t used = (relay->limited ? cut_at_rate : cut)(relay, link, relay->scratch, came);
        if (used < came && link->state == OPEN && !link->broken)
            keep(relay, link, relay->scratch + used, came - used);
        if (link->ended) {
            end_if_done(relay, link);
            update_interest(relay, link);
            return;
        }
        if (!full || !may_talk(link) || has_rest(link) || link->lost)
            return;
        if (out_of_time(relay))
            break;
    }
    link->greedy = true;
}

static void hear(struct relay *relay, struct link *link)
{
    if (link->state == HALF || (may_talk(link) && !has_rest(link))) {
        read_link(relay, link);
    } else {
        link->deaf = true;
        update_interest(relay, link);
    }
}

static void ready(struct relay *relay, const struct epoll_event *event)
{
    uint32_t heard = event->events;
    if (event->data.u64 == 0) {
        uint64_t count;
        relay->woken = false;
        while (read(relay->wake, &count, sizeof count) < 0 && errno == EINTR)
            ;
        return;
    }
    struct link *link = find(relay, event->data.u64);
    if (link == NULL || link->fd < 0 || link->lost)
        return;
    if (heard & EPOLLOUT)
        mark_dirty(relay, link);
    if (link->interest & EPOLLIN) {
        if (!(heard & (EPOLLIN | EPOLLERR | EPOLLHUP)))
            return;
        if (link->greedy && heard == EPOLLIN) {
            if (!listed(&link->work_node))
                list_add(&relay->greedy, &link->work_node);
        } else {
            hear(relay, link);
        }
    } else if (link->interest & EPOLLRDHUP) {
        if (heard & (EPOLLRDHUP | EPOLLERR | EPOLLHUP))
            hear_end(relay, link);
    } else if (heard & (EPOLLERR | EPOLLHUP)) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        lose_socket(relay, link, error ? error : ECONNRESET);
    }
}

/* Serve the sockets that have something, those first that the last turn did not reach; returns
 * how many there were, or -1. */
static int look(struct relay *relay)
{
    if (relay->ready_at == relay->ready_count) {
        int count = epoll_wait(relay->epoll, relay->ready, READY, 0);
        relay->ready_at = 0;
        relay->ready_count = count > 0 ? count : 0;
        if (count <= 0)
            return count;
    }
    int count = relay->ready_count - relay->ready_at;
    do
        ready(relay, &relay->ready[relay->ready_at++]);
    while (relay->ready_at < relay->ready_count && !out_of_time(relay));
    return count;
}

/* Those who had more to say than is read at once come after all others. */
static void hear_greedy(struct relay *relay)
{
    double until = list_empty(&relay->greedy) ? 0 : clock_seconds() + GREEDY_SECONDS;
    while (!list_empty(&relay->greedy) && !out_of_time(relay)) {
        struct link *link = OWNER_OF(relay->greedy.next, struct link, work_node);
        list_drop(&link->work_node);
        /* Deaf by now: it may have been let go on since, which its place here kept from being. */
        if (link->lost || has_rest(link) || !(link->interest & EPOLLIN))
            go_on_soon(relay, link);
        else if (link->fd >= 0)
            hear(relay, link);
        if (clock_seconds() > until)
            break;
    }
}

/* Many writes are due: what comes now for the same links can go with them. */
static void look_for_more(struct relay *relay)
{
    double until = clock_seconds() + relay->dirty_count * LOOK_SECONDS;
    for (int looks = 0; looks < LOOKS && !events_wait(relay) && !relay->late; looks++) {
        int count = look(relay);
        hear_greedy(relay);
        if (count < 0 || (count == 0 && clock_seconds() > until))
            break;
    }
}

static void flush(struct relay *relay)
{
    struct node now;
    double until = relay->until + relay->config.turn_seconds;
    list_begin(&now);
    list_prepend(&now, &relay->dirty);
    while (!list_empty(&now)) {
        struct link *link = OWNER_OF(now.next, struct link, dirty_node);
        if (link->dirty_node.next != &now) {
            const struct link *following = OWNER_OF(link->dirty_node.next, struct link, dirty_node);
            fetch(following, sizeof *following);
        }
        write_link(relay, link);
        if (clock_seconds() > until)
            break;
    }
    list_prepend(&relay->dirty, &now);
}

int relay_run(struct relay *relay, double now)
{
    begin(relay, now, relay->config.commands_turn);
    relay->turn++;
    check_due(relay);
    go_on_all(relay, &relay->handled);
    go_on_all(relay, &relay->work);
    ask_on(relay);
    give_time(relay, 1); /* of its own for the sockets, so that neither starves the other */
    uint32_t left = relay->dirty_count; /* from the last turn: they waited long enough */
    for (int round = 0; round < ROUNDS && !relay->late; round++) {
        int count = look(relay);
        bool interrupted = count < 0 && errno == EINTR;
        if (relay->dirty_count >= left + MANY && !relay->late)
            look_for_more(relay);
        flush(relay);
        left = relay->dirty_count;
        hear_greedy(relay);
        if (events_wait(relay) || (count <= 0 && !interrupted))
            break;
    }
    go_on_all(relay, &relay->work);
    if (!list_empty(&relay->dirty))
        flush(relay);
    judge(relay);
    int count = present(relay);
    if (count == 0)
        settle(relay);
    return count;
}

void relay_go_on(struct relay *relay, double now)
{
    begin(relay, now, 0);
    go_on_all(relay, &relay->handled);
    flush(relay);
    settle(relay);
}

int relay_sweep(struct relay *relay, double now)
{
    begin(relay, now, 0);
    turn_wheel(relay);
    check_due(relay);
    trim(relay);
    int count = present(relay);
    if (count == 0)
        settle(relay);
    return count;
}
