/* What waits for a link, and writing it.
 *
 * Law: queue_bytes and queue_chunks add, take and drop_output take; nobody else touches what is
 * counted. A link that is not blocked never has much waiting: it is written to at once.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_MOST (2u << 20) /* bytes written to one link in one go */
#define JUDGE_TURNS 2 /* the first begins before the socket is offered what waits, the other after */

static void count_added(struct relay *relay, struct link *link, uint64_t size, uint32_t packets)
{
    link->waiting_bytes += size;
    relay->totals.waiting_bytes += size;
    link->waiting_packets += packets;
    relay->totals.waiting_packets += packets;
    if (link->port->holds) {
        relay->totals.holding.waiting_bytes += size;
        relay->totals.holding.waiting_packets += packets;
    }
    /* They leave the count with the first byte of this chunk that is taken. */
    link->out_tail->packets += packets;
    link->packets_out += packets;
    if (link->started)
        link->bytes_out += size;
}

static void count_removed(struct relay *relay, struct link *link, uint64_t size, uint64_t packets)
{
    link->waiting_bytes -= size;
    relay->totals.waiting_bytes -= size;
    link->waiting_packets -= packets;
    relay->totals.waiting_packets -= packets;
    if (link->port->holds) {
        relay->totals.holding.waiting_bytes -= size;
        relay->totals.holding.waiting_packets -= packets;
    }
}

/* Undo what was added after `tail`, which ended at `end`. */
static void roll_back(struct relay *relay, struct link *link, struct chunk *tail, uint32_t end)
{
    if (tail == NULL) {
        pool_put_list(relay->pool, link->out_head);
        link->out_head = NULL;
    } else {
        pool_put_list(relay->pool, tail->next);
        tail->next = NULL;
        tail->end = end;
    }
    link->out_tail = tail;
}

/* Put bytes behind those that wait. False: the pool has no chunk for them; some may be there. */
static bool append(struct relay *relay, struct link *link, const uint8_t *data, size_t left,
                   bool force)
{
    struct chunk *tail = link->out_tail;
    while (left > 0) {
        if (tail == NULL || chunk_room(tail) == 0) {
            size_t most = pool_max_chunk(relay->pool);
            size_t wanted = tail == NULL ? link->hint : (size_t)tail->size * 2;
            if (wanted < left)
                wanted = left;
            struct chunk *chunk = pool_get(relay->pool, wanted < most ? wanted : most, force);
            if (chunk == NULL)
                return false;
            if (tail == NULL)
                link->out_head = chunk;
            else
                tail->next = chunk;
            link->out_tail = tail = chunk;
        }
        size_t room = chunk_room(tail), piece = left < room ? left : room;
        memcpy(chunk_bytes(tail) + tail->end, data, piece);
        tail->end += (uint32_t)piece;
        data += piece;
        left -= piece;
    }
    return true;
}

/* Where the queue ends, to come back to it. */
struct mark {
    struct chunk *tail;
    uint32_t end;
};

static struct mark mark_end(const struct link *link)
{
    struct chunk *tail = link->out_tail;
    return (struct mark){tail, tail == NULL ? 0 : tail->end};
}

/* What was put behind the mark counts if it is `whole`; else it is undone. */
static bool count_or_undo(struct relay *relay, struct link *link, struct mark mark, bool whole,
                          uint64_t size, uint32_t packets)
{
    if (!whole)
        roll_back(relay, link, mark.tail, mark.end);
    else if (size > 0)
        count_added(relay, link, size, packets);
    return whole;
}

/* Queue bytes. False: the pool has no chunk for them, and none is queued. */
bool queue_bytes(struct relay *relay, struct link *link, const uint8_t *data, size_t size,
                 uint32_t packets, bool force)
{
    struct mark mark = mark_end(link);
    bool whole = append(relay, link, data, size, force);
    return count_or_undo(relay, link, mark, whole, size, packets);
}

/* The same of a packet in two parts. */
bool queue_packet(struct relay *relay, struct link *link, const uint8_t *head,
                  const uint8_t *data, size_t size)
{
    struct mark mark = mark_end(link);
    bool whole = append(relay, link, head, HEAD, false) && append(relay, link, data, size, false);
    return count_or_undo(relay, link, mark, whole, HEAD + size, 1);
}

/* The same of the messages of whole packets, for a peer that knows no packets. */
bool queue_messages(struct relay *relay, struct link *link, const uint8_t *data, size_t size,
                    bool force)
{
    struct mark mark = mark_end(link);
    uint64_t bytes = 0;
    uint32_t packets = 0;
    bool whole = true;
    for (size_t at = 0; whole && at < size;) {
        size_t length = (size_t)read_u32(data + at) - MIN_LENGTH;
        whole = append(relay, link, data + at + HEAD, length, force);
        bytes += length;
        packets += length > 0;
        at += HEAD + length;
    }
    return count_or_undo(relay, link, mark, whole, bytes, packets);
}

/* The same of a packet whose message is a chunk's that others share; `head` NULL: bare. */
bool queue_shared(struct relay *relay, struct link *link, const uint8_t *head,
                  struct chunk *message)
{
    struct mark mark = mark_end(link);
    struct chunk *view = pool_view(relay->pool, message);
    if (view == NULL)
        return false;
    if (head != NULL && !append(relay, link, head, HEAD, false)) {
        pool_put(relay->pool, view);
        roll_back(relay, link, mark.tail, mark.end);
        return false;
    }
    uint64_t size = (head == NULL ? 0 : HEAD) + (uint64_t)chunk_length(view);
    if (link->out_tail == NULL)
        link->out_head = view;
    else
        link->out_tail->next = view;
    link->out_tail = view;
    count_added(relay, link, size, 1);
    return true;
}

/* Queue chunks as they are. */
void queue_chunks(struct relay *relay, struct link *link, struct chunk *head, struct chunk *tail,
                  uint64_t size, uint32_t packets)
{
    if (link->out_tail == NULL)
        link->out_head = head;
    else
        link->out_tail->next = head;
    link->out_tail = tail;
    count_added(relay, link, size, packets);
}

void take(struct relay *relay, struct link *link, size_t size)
{
    uint64_t packets = 0;
    size_t left = size;
    while (left > 0) {
        struct chunk *chunk = link->out_head;
        uint32_t length = chunk_length(chunk);
        packets += chunk->packets;
        chunk->packets = 0;
        if (left < length) {
            chunk->start += (uint32_t)left;
            break;
        }
        left -= length;
        link->out_head = chunk->next;
        if (chunk->next == NULL)
            link->out_tail = NULL;
        pool_put(relay->pool, chunk);
    }
    link->taken += size;
    count_removed(relay, link, size, packets);
    if (link->waiting_packets <= link->port->queue_packets)
        link->eased = true;
    if (link->waiting_bytes == 0 && link->jam != NULL)
        list_drop(&link->jam->judge_node); /* what blocks it is sealed: nothing to be judged for */
}

void drop_output(struct relay *relay, struct link *link)
{
    pool_put_list(relay->pool, link->out_head);
    link->out_head = link->out_tail = NULL;
    count_removed(relay, link, link->waiting_bytes, link->waiting_packets);
    if (link->ws != NULL)
        ws_silence(link->ws);
    drop_sealed(relay, link);
    link->blocked = false;
    link->tell_taken = UINT64_MAX;
    if (link->jam != NULL)
        list_drop(&link->jam->judge_node);
    forget_senders(relay, link);
}

/* Bytes that the peer's host has acknowledged; the same number again where nobody tells. */
uint64_t bytes_acked(const struct link *link)
{
    /* struct tcp_info of linux/tcp.h: tcpi_bytes_acked, a u64 at offset 120. */
    uint8_t info[128];
    socklen_t size = sizeof info;
    uint64_t acked = 0;
    if (getsockopt(link->fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0 && size == sizeof info)
        memcpy(&acked, info + 120, sizeof acked);
    return acked;
}

/* A direct link's peer took something since this was asked last. */
bool took_more(struct link *link)
{
    uint32_t acked = (uint32_t)bytes_acked(link), before = read_u32(link->head);
    put_u32(link->head, acked);
    return acked != before;
}

/* One gathered write; returns what write_socket does. */
static ssize_t write_some(struct relay *relay, struct link *link, bool *all)
{
    struct offer some;
    some.size = 0;
    some.count = some.heads = 0;
    if (link->ws != NULL)
        ws_offer(link, &some);
    else
        for (struct chunk *chunk = link->out_head;
             chunk != NULL && some.count < VECTOR && some.size < PIECE; chunk = chunk->next)
            offer(&some, chunk_bytes(chunk) + chunk->start, chunk_length(chunk));
    ssize_t sent = write_socket(relay, link, &some, all);
    if (sent > 0)
        take(relay, link, link->ws != NULL ? ws_sent(link, (size_t)sent) : (size_t)sent);
    return sent;
}

static struct jam *make_jam(struct link *link)
{
    struct jam *jam = calloc(1, sizeof *jam);
    if (jam == NULL)
        return NULL;
    jam->link = link;
    list_begin(&jam->senders);
    list_begin(&jam->bound);
    return link->jam = jam;
}

/* Nothing is in it any more. */
void clear_jam(struct link *link)
{
    if (link->jam == NULL)
        return;
    list_drop(&link->jam->judge_node);
    free(link->jam->heap);
    free(link->jam);
    link->jam = NULL;
}

static void note_blocked(struct relay *relay, struct link *link)
{
    if (link->jam == NULL && make_jam(link) == NULL) {
        fail(relay, link, RELAY_NO_MEMORY);
        return;
    }
    link->blocked = true;
    link->jam->since = relay->now;
    link->jam->acked = bytes_acked(link);
    if (link->port->write_timeout > 0 && link->started && link->state == OPEN)
        watch(relay, link, relay->now + link->port->write_timeout);
}

/* It is blocked. Only then is there something to remember: else all is written at once. */
static void note_most(struct link *link)
{
    if (link->waiting_bytes > link->most_waiting)
        link->most_waiting = link->waiting_bytes;
}

/* All that waited for a link that is on its way out is written. */
static void finish(struct relay *relay, struct link *link)
{
    if (link->state == CLOSING) {
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        if (link->reset)
            setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        die(relay, link, 0);
    } else if (!link->shut) {
        link->shut = true;
        shutdown(link->fd, SHUT_WR);
    }
}

/* Write what waits, as far as the socket takes it. */
void write_link(struct relay *relay, struct link *link)
{
    if (listed(&link->dirty_node)) {
        list_drop(&link->dirty_node);
        relay->dirty_count--;
    }
    if (link->fd < 0 || link->lost) {
        if (link->state != OPEN)
            die(relay, link, link->error);
        return;
    }
    uint64_t written = 0;
    bool blocked = false;
    while (has_output(link) && written < WRITE_MOST) {
        bool all;
        ssize_t sent = write_some(relay, link, &all);
        if (sent < 0) {
            if (errno != EAGAIN && errno != ENOBUFS) {
                lose_socket(relay, link, errno);
                return;
            }
            blocked = true;
            break;
        }
        written += (uint64_t)sent;
        if (!all) {
            blocked = true;
            break;
        }
    }
    if (link->waiting_bytes == 0)
        link->hint = written < UINT16_MAX ? (uint16_t)written : UINT16_MAX;
    if (!blocked)
        link->blocked = false;
    else if (!link->blocked)
        note_blocked(relay, link);
    if (blocked)
        note_most(link);
    if (!blocked && has_output(link))
        mark_dirty(relay, link);
    else if (!blocked && link->state != OPEN)
        finish(relay, link);
    else if (!blocked && link->ended)
        close_early(relay, link);
    update_interest(relay, link);
    let_go_drained(relay, link);
    if (link->waiting_bytes > 0 || link->jam == NULL)
        return;
    list_drop(&link->jam->judge_node);
    if (!link->blocked && !link->failed)
        clear_jam(link);
}

/* A link that is no server's has more waiting than its bounds: it is lost at once for its bytes,
 * and for its packets if it does not take them soon. */
static void judge_queue(struct relay *relay, struct link *link)
{
    if (link->waiting_bytes > link->port->queue_bytes) {
        write_link(relay, link); /* it may have read since its socket was full */
        if (!link->blocked || link->state != OPEN)
            return;
    }
    if (link->waiting_bytes > link->port->queue_bytes) {
        fail(relay, link, RELAY_OVER);
    } else if (link->waiting_packets > link->port->queue_packets
               && !listed(&link->jam->judge_node)) {
        link->jam->judge_turn = relay->turn + JUDGE_TURNS;
        link->eased = false;
        list_add(&relay->judged, &link->jam->judge_node);
        wake(relay);
    }
}

/* Something was queued: have it written, and look at the bounds. */
void write_later(struct relay *relay, struct link *link)
{
    if (!link->blocked) {
        if (link->waiting_bytes < PIECE && !over(link)) {
            mark_dirty(relay, link);
            return;
        }
        write_link(relay, link);
    }
    if (!link->blocked)
        return;
    note_most(link);
    if (link->state == OPEN && !link->port->holds)
        judge_queue(relay, link);
}

/* Those that were given until now. */
void judge(struct relay *relay)
{
    while (!list_empty(&relay->judged)) {
        struct jam *jam = OWNER_OF(relay->judged.next, struct jam, judge_node);
        struct link *link = jam->link;
        if (jam->judge_turn > relay->turn)
            return;
        list_drop(&jam->judge_node);
        if (!link->blocked || link->waiting_packets <= link->port->queue_packets)
            continue;
        if (!link->eased)
            fail(relay, link, RELAY_OVER);
        else
            judge_queue(relay, link); /* what waits came since */
    }
}
