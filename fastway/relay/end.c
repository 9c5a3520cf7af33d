/* How links end, and how what they said before is kept.
 *
 * A link that is not read from still hears that its peer has ended. What the kernel has of it is
 * then read and kept, within its bounds, its descriptor is given back as soon as it has no more
 * use, and its end is reported after all that it said.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Put bytes behind those that wait to be cut. False: no memory; the link has failed. */
bool keep(struct relay *relay, struct link *link, const uint8_t *data, size_t size)
{
    while (size > 0) {
        struct chunk *tail = link->rest_tail;
        if (tail == NULL || chunk_room(tail) == 0) {
            size_t most = pool_max_chunk(relay->pool);
            size_t wanted = tail == NULL ? 0 : (size_t)tail->size * 2;
            if (wanted < size)
                wanted = size;
            struct chunk *chunk = get_chunk(relay, link, wanted < most ? wanted : most);
            if (chunk == NULL)
                return false;
            if (link->rest_tail == NULL)
                link->rest_head = chunk;
            else
                link->rest_tail->next = chunk;
            link->rest_tail = tail = chunk;
        }
        size_t room = chunk_room(tail), piece = size < room ? size : room;
        memcpy(chunk_bytes(tail) + tail->end, data, piece);
        tail->end += (uint32_t)piece;
        count_input(relay, link, &link->rest_bytes, (int64_t)piece);
        data += piece;
        size -= piece;
    }
    return true;
}

/* The first bytes of those that wait are cut, at most the first chunk. */
void drop_rest(struct relay *relay, struct link *link, size_t size)
{
    struct chunk *first = link->rest_head;
    if (first == NULL)
        return; /* the link failed meanwhile */
    count_input(relay, link, &link->rest_bytes, -(int64_t)size);
    first->start += (uint32_t)size;
    if (chunk_length(first) > 0)
        return;
    link->rest_head = first->next;
    if (first->next == NULL)
        link->rest_tail = NULL;
    pool_put(relay->pool, first);
}

void drop_input(struct relay *relay, struct link *link)
{
    pool_put_list(relay->pool, link->in_head);
    pool_put_list(relay->pool, link->rest_head);
    link->in_head = link->in_tail = link->rest_head = link->rest_tail = NULL;
    count_input(relay, link, &link->in_bytes, -(int64_t)link->in_bytes);
    count_input(relay, link, &link->rest_bytes, -(int64_t)link->rest_bytes);
}

static void close_socket(struct relay *relay, struct link *link)
{
    if (link->fd < 0)
        return;
    /* DEL first: a duplicate of the socket would keep it in the set. */
    if (link->interest)
        epoll_ctl(relay->epoll, EPOLL_CTL_DEL, link->fd, NULL);
    close(link->fd);
    link->interest = 0;
    link->fd = -1;
}

void die(struct relay *relay, struct link *link, int error)
{
    if (link->state == DEAD)
        return;
    close_socket(relay, link);
    link->state = DEAD;
    if (listed(&link->dirty_node))
        relay->dirty_count--;
    list_drop(&link->dirty_node);
    list_drop(&link->work_node);
    forget_tick(relay, link);
    drop_input(relay, link);
    drop_output(relay, link);
    forget_shares(relay, link);
    speed_up(relay, link);
    tell(relay, link, RELAY_GONE, (uint64_t)error, NULL);
}

/* A part of its stream will be missing: nothing more is read or written. */
void fail(struct relay *relay, struct link *link, enum relay_event_kind kind)
{
    if (link->failed || link->state == DEAD)
        return;
    if (link->state != OPEN) {
        /* It is on its way out already. */
        relay_close(relay, handle_of(link), RELAY_ABORT);
        return;
    }
    uint64_t over_bytes = 0;
    if (kind == RELAY_OVER) {
        link->jam->over_packets = link->waiting_packets;
        link->jam->over_bytes = over_bytes = link->waiting_bytes;
    }
    link->failed = link->broken = true;
    drop_input(relay, link);
    drop_output(relay, link);
    forget_shares(relay, link);
    speed_up(relay, link);
    list_drop(&link->work_node);
    update_interest(relay, link);
    tell(relay, link, kind, over_bytes, NULL);
}

/* Its socket failed. What it still has is read and delivered when the work of the turn comes to
 * it: somebody may be in the middle of its bytes now. */
void lose_socket(struct relay *relay, struct link *link, int error)
{
    if (link->state != OPEN || link->broken) {
        die(relay, link, error);
    } else if (!link->lost) {
        link->lost = true;
        link->error = (int16_t)error;
        drop_output(relay, link);
        go_on_soon(relay, link);
    }
}

/* Read some of what the kernel has and keep it; returns what read_socket does. */
static ssize_t keep_some(struct relay *relay, struct link *link)
{
    uint8_t data[KEEP_PIECE + TLS_RECORD];
    bool full;
    ssize_t got = read_socket(relay, link, data, KEEP_PIECE, &full);
    if (got <= 0)
        return got;
    link->bytes_in += (uint64_t)got;
    size_t came = (size_t)got;
    if (link->ws != NULL)
        came = unwrap(relay, link, data, came);
    if (link->failed)
        return -1;
    if (link->rest_bytes + came <= link->port->queue_bytes)
        return keep(relay, link, data, came) ? got : -1;
    errno = ENOBUFS; /* more than may wait: the connection breaks here */
    return -1;
}

/* Read what a socket that failed still has, and close it. */
void close_lost(struct relay *relay, struct link *link)
{
    ssize_t got = -1;
    if (link->error != ENOBUFS) /* a piece of it was dropped already */
        while ((got = keep_some(relay, link)) > 0)
            ;
    /* A peer that closed in order and was then written to answers with a reset: EPIPE. */
    if (got == 0 && link->error == EPIPE)
        link->ended = true;
    close_socket(relay, link);
}

/* Its peer has ended. If nothing waits for it, and nothing will be said to it, its descriptor has
 * no more use. */
void close_early(struct relay *relay, struct link *link)
{
    if (link->waiting_bytes > 0 || !has_rest(link) || link->ws != NULL || link->tls != NULL
        || link->port->answers)
        return;
    close_socket(relay, link);
    link->error = 0;
}

/* A link that is not read from has heard of an end: see which, and keep what came before. */
void hear_end(struct relay *relay, struct link *link)
{
    ssize_t got;
    while ((got = keep_some(relay, link)) > 0 && !link->ended)
        if (out_of_time(relay))
            return; /* epoll tells of it again */
    if (got == 0) {
        link->ended = true;
        close_early(relay, link);
    } else if (got < 0 && errno != EAGAIN && !link->failed) {
        lose_socket(relay, link, errno);
    }
    end_if_done(relay, link);
    update_interest(relay, link);
}

/* Report the end of a link once all that it said is handed on. */
void end_if_done(struct relay *relay, struct link *link)
{
    if (link->state != OPEN || has_rest(link) || link->suspended)
        return;
    if (link->ended) {
        if (!link->broken) {
            uint64_t problem = link->ws == NULL ? 0 : link->ws->problem;
            link->broken = true;
            drop_input(relay, link);
            tell(relay, link, problem ? RELAY_MISFRAMED : RELAY_FIN, problem, NULL);
        }
    } else if (link->fd < 0) {
        die(relay, link, link->error);
    }
}
