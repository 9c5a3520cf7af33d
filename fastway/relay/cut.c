/* Bytes into packets, and whose they are.
 *
 * A run of one virtual connection is forwarded at once, Pings are answered. All others are the
 * caller's, a bounded number in one turn; what stands behind them waits for the answer.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <string.h>

#define PING 5u
#define AHEAD 4 /* of many: their memory is asked for before it is needed */
#define SHARED 4096u /* bytes of a message for many of which there is one copy: of less it costs more */

/* Whole packets in a row with one destination; `to` NULL: the caller. */
struct run {
    struct link *to;
    size_t size;
    uint32_t packets;
};

/* Where a packet goes; `type`: the first byte of its message, if it has one. */
static struct link *target(const struct relay *relay, struct link *link, uint32_t length,
                           uint32_t conn_id, const uint8_t *type)
{
    if (conn_id == 0)
        return length > MIN_LENGTH && *type == PING ? link : NULL;
    return other_end(relay, link, conn_id);
}

static inline bool legal(const struct link *link, uint32_t length)
{
    return length >= MIN_LENGTH && length <= link->port->max_packet;
}

static bool whole(const struct link *link, const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return false;
    uint32_t length = read_u32(data);
    return legal(link, length) && size - 4 >= length;
}

/* The run at the front of some bytes; no packets: it is not whole, or not legal. */
static struct run next_run(const struct relay *relay, struct link *link, const uint8_t *data,
                           size_t size, uint32_t room)
{
    struct run run = {NULL, 0, 0};
    uint32_t conn_id = 0;
    while (whole(link, data + run.size, size - run.size)) {
        const uint8_t *packet = data + run.size;
        uint32_t length = read_u32(packet), id = read_u32(packet + 4);
        if (run.packets == 0 || id != conn_id || id == 0) {
            struct link *to = target(relay, link, length, id, packet + HEAD);
            if (run.packets == 0)
                run.to = to;
            else if (to != run.to || (to != NULL && id != conn_id && (id == 0 || conn_id == 0)))
                break;
            conn_id = id;
        }
        if (run.to == NULL && run.packets >= room)
            break;
        run.packets++;
        run.size += 4 + (size_t)length;
    }
    return run;
}

/* `to` was queued packets of `from`. */
static void passed(struct relay *relay, struct link *from, struct link *to, uint64_t size,
                   uint32_t packets, bool ping)
{
    if (ping) {
        relay->totals.pings += packets;
    } else {
        relay->totals.packets += packets;
        relay->totals.bytes += size;
    }
    write_later(relay, to);
    if (to->direct)
        size -= (uint64_t)HEAD * packets; /* what was queued */
    if (size > 0 && to->blocked && to->port->holds && to->state == OPEN
        && !account(relay, from, to, size))
        fail(relay, from, RELAY_NO_MEMORY);
}

/* The same of packets that `from` said. */
static void sent(struct relay *relay, struct link *from, struct link *to, uint64_t size,
                 uint32_t packets, bool ping)
{
    from->packets_in += packets;
    passed(relay, from, to, size, packets, ping);
}

/* What is queued: whole packets; or a message behind its head, which a chunk may have. */
struct load {
    const uint8_t *head, *data;
    size_t size;
    uint32_t packets;
    struct chunk *shared;
};

static bool queue_any(struct relay *relay, struct link *to, const struct load *load)
{
    const uint8_t *head = load->head, *data = load->data;
    size_t size = load->size;
    if (load->shared != NULL)
        return queue_shared(relay, to, to->direct ? NULL : head, load->shared);
    if (head != NULL && !to->direct)
        return queue_packet(relay, to, head, data, size);
    if (head == NULL && to->direct)
        return queue_messages(relay, to, data, size, false);
    return queue_bytes(relay, to, data, size, load->packets, false);
}

/* Queue what `from` sent; the one who sends pays where there is no memory. False: it is not
 * queued. */
static bool queue_load(struct relay *relay, struct link *from, struct link *to,
                       const struct load *load)
{
    if (to->state != OPEN || !writes(to))
        return false; /* its loss is being reported */
    if (queue_any(relay, to, load))
        return true;
    make_room(relay, load->size);
    if (from->failed || from->state != OPEN)
        return false; /* and the bytes are gone with it, perhaps */
    if (to->state != OPEN || !writes(to))
        return false;
    if (queue_any(relay, to, load))
        return true;
    fail(relay, from, RELAY_NO_MEMORY);
    return false;
}

/* `head`: that of the one message that the data is; NULL: they have their own. */
static bool queue_for(struct relay *relay, struct link *from, struct link *to,
                      const uint8_t *head, const uint8_t *data, size_t size, uint32_t packets)
{
    return queue_load(relay, from, to, &(struct load){head, data, size, packets, NULL});
}

/* Forward the packet that has become whole; its chunks change hands. */
static void forward_pieces(struct relay *relay, struct link *from, struct link *to, bool ping)
{
    uint64_t size = from->in_bytes;
    struct chunk *body = from->in_head, *tail = from->in_tail;
    from->in_head = from->in_tail = NULL;
    count_input(relay, from, &from->in_bytes, -(int64_t)size);
    bool takes = to->direct ? to->state == OPEN && writes(to)
                            : queue_for(relay, from, to, NULL, from->head, HEAD, body == NULL);
    if (!takes) {
        pool_put_list(relay->pool, body);
        return;
    }
    if (body != NULL)
        queue_chunks(relay, to, body, tail, size - HEAD, 1);
    sent(relay, from, to, size, 1, ping);
}

static void give(struct relay *relay, struct link *link, enum relay_event_kind kind,
                 struct chunk *chunk)
{
    tell(relay, link, kind, 0, chunk);
    link->suspended = true;
}

/* Give bytes, behind a head if there is one, to the caller, whose answer comes before anything
 * else of this link. */
static void hand_up_behind(struct relay *relay, struct link *link, enum relay_event_kind kind,
                           const uint8_t *head, const uint8_t *data, size_t size)
{
    size_t before = head == NULL ? 0 : HEAD;
    struct chunk *chunk = get_chunk(relay, link, before + size);
    if (chunk == NULL)
        return;
    if (before > 0)
        memcpy(chunk_bytes(chunk), head, before);
    memcpy(chunk_bytes(chunk) + before, data, size);
    chunk->end = (uint32_t)(before + size);
    give(relay, link, kind, chunk);
}

void hand_up(struct relay *relay, struct link *link, enum relay_event_kind kind,
             const uint8_t *data, size_t size)
{
    hand_up_behind(relay, link, kind, NULL, data, size);
}

/* The packet that has become whole is the caller's to handle. */
static void hand_up_pieces(struct relay *relay, struct link *link)
{
    struct chunk *chunk = get_chunk(relay, link, link->in_bytes);
    if (chunk == NULL)
        return;
    memcpy(chunk_bytes(chunk), link->head, HEAD);
    chunk->end = HEAD;
    for (struct chunk *piece = link->in_head; piece != NULL; piece = piece->next) {
        memcpy(chunk_bytes(chunk) + chunk->end, chunk_bytes(piece), piece->end);
        chunk->end += piece->end;
    }
    pool_put_list(relay->pool, link->in_head);
    link->in_head = link->in_tail = NULL;
    count_input(relay, link, &link->in_bytes, -(int64_t)link->in_bytes);
    give(relay, link, RELAY_PACKETS, chunk);
}

/* Whether the caller may be asked now; if not, the link goes on when he may. */
static bool may_ask(struct relay *relay, struct link *link)
{
    if (hold_for_itself(relay, link))
        return false;
    if (relay->commands_left > 0)
        return true;
    if (!listed(&link->work_node))
        list_add(&relay->asking, &link->work_node);
    update_interest(relay, link);
    return false;
}

static bool stops(const struct link *link)
{
    return link->state != OPEN || link->broken || link->suspended;
}

/* Pass on the packet that has become whole. False: nothing behind it is cut now. */
static bool pass_whole(struct relay *relay, struct link *link)
{
    uint32_t conn_id = read_u32(link->head + 4);
    const uint8_t *type = link->in_head == NULL ? NULL : chunk_bytes(link->in_head);
    struct link *to = target(relay, link, read_u32(link->head), conn_id, type);
    link->last_packet = relay->now;
    if (to != NULL) {
        forward_pieces(relay, link, to, conn_id == 0);
    } else if (may_ask(relay, link)) {
        relay->commands_left--;
        hand_up_pieces(relay, link);
    } else {
        return false;
    }
    return !stops(link);
}

static void break_off(struct relay *relay, struct link *link, uint32_t length)
{
    link->broken = true;
    drop_input(relay, link);
    update_interest(relay, link);
    tell(relay, link, RELAY_BROKEN, length, NULL);
}

/* Take bytes of a packet that is not whole; returns how many. Less than were there: it is whole,
 * or the link has to go. */
static size_t collect(struct relay *relay, struct link *link, const uint8_t *data, size_t size)
{
    size_t took = 0;
    if (link->in_bytes < HEAD) {
        size_t before = (size_t)link->in_bytes;
        took = HEAD - before < size ? HEAD - before : size;
        memcpy(link->head + before, data, took);
        count_input(relay, link, &link->in_bytes, (int64_t)took);
        if (before < 4 && link->in_bytes >= 4 && !legal(link, read_u32(link->head))) {
            break_off(relay, link, read_u32(link->head));
            return took;
        }
        if (link->in_bytes < HEAD)
            return took;
    }
    uint64_t missing = 4 + (uint64_t)read_u32(link->head) - link->in_bytes;
    size_t left = missing < size - took ? (size_t)missing : size - took;
    while (left > 0) {
        struct chunk *tail = link->in_tail;
        if (tail == NULL || chunk_room(tail) == 0) {
            /* As large as what came already: what is announced allocates nothing. */
            size_t most = pool_max_chunk(relay->pool);
            size_t wanted = tail == NULL ? left : (size_t)tail->size * 2;
            struct chunk *chunk = get_chunk(relay, link, wanted < most ? wanted : most);
            if (chunk == NULL)
                return took;
            if (tail == NULL)
                link->in_head = chunk;
            else
                tail->next = chunk;
            link->in_tail = tail = chunk;
        }
        size_t room = chunk_room(tail), piece = left < room ? left : room;
        memcpy(chunk_bytes(tail) + tail->end, data + took, piece);
        tail->end += (uint32_t)piece;
        count_input(relay, link, &link->in_bytes, (int64_t)piece);
        took += piece;
        left -= piece;
    }
    return took;
}

/* Make messages of the bytes of a link whose peer knows no packets; returns as cut does. */
static size_t cut_direct(struct relay *relay, struct link *link, const uint8_t *data, size_t size)
{
    size_t most = (size_t)link->port->max_packet - MIN_LENGTH, at = 0;
    uint32_t conn_id = read_u32(link->head + 4);
    if (most > link->port->read_size)
        most = (size_t)link->port->read_size;
    if (most == 0)
        most = 1;
    while (at < size) {
        size_t piece = size - at < most ? size - at : most;
        uint8_t head[HEAD];
        put_u32(head, (uint32_t)piece + MIN_LENGTH);
        put_u32(head + 4, conn_id);
        struct link *to = other_end(relay, link, conn_id);
        link->last_packet = relay->now;
        if (to == NULL) {
            if (!may_ask(relay, link))
                return at;
            relay->commands_left--;
            hand_up_behind(relay, link, RELAY_PACKETS, head, data + at, piece);
            return at + piece;
        }
        if (queue_for(relay, link, to, head, data + at, piece, 1))
            sent(relay, link, to, HEAD + piece, 1, false);
        at += piece;
        if (stops(link))
            return at;
    }
    return at;
}

/* Cut bytes into packets and pass these on; returns how many bytes are done with. The others have
 * to wait for the caller. Nothing looks at them any more once the link has failed. */
size_t cut(struct relay *relay, struct link *link, const uint8_t *data, size_t size)
{
    size_t at = 0;
    if (link->direct)
        return cut_direct(relay, link, data, size);
    if (link->in_bytes > 0) {
        at = collect(relay, link, data, size);
        if (stops(link) || !has_whole(link) || !pass_whole(relay, link))
            return at;
    }
    while (at < size) {
        uint32_t room = relay->config.commands_each;
        if (room > relay->commands_left)
            room = relay->commands_left > 0 ? relay->commands_left : 1;
        struct run run = next_run(relay, link, data + at, size - at, room);
        if (run.packets == 0)
            return at + collect(relay, link, data + at, size - at);
        link->last_packet = relay->now;
        if (run.to == NULL) {
            if (!may_ask(relay, link))
                return at;
            relay->commands_left -= run.packets;
            hand_up(relay, link, RELAY_PACKETS, data + at, run.size);
            return at + run.size;
        }
        if (queue_for(relay, link, run.to, NULL, data + at, run.size, run.packets))
            sent(relay, link, run.to, run.size, run.packets, read_u32(data + at + 4) == 0);
        at += run.size;
        if (stops(link))
            return at;
    }
    return at;
}

/* A chunk that many are to share. */
static struct chunk *fill(struct chunk *chunk, const void *data, size_t size)
{
    if (chunk == NULL)
        return NULL;
    memcpy(chunk_bytes(chunk), data, size);
    chunk->end = (uint32_t)size;
    chunk->packets = 1;
    return chunk;
}

size_t relay_multicast(struct relay *relay, relay_handle handle, uint32_t *conn_ids, size_t count,
                       const void *message, size_t size)
{
    struct link *from = find(relay, handle);
    uint8_t head[HEAD];
    struct load load = {head, message, size, 1, NULL};
    size_t left = 0;
    put_u32(head, (uint32_t)size + MIN_LENGTH);
    if (size >= SHARED && count > 1 && from != NULL && from->state == OPEN && !from->failed)
        load.shared = fill(get_chunk(relay, from, size), message, size);
    for (size_t i = 0; i < count; i++) {
        struct link *to = NULL;
        if (i + 2 * AHEAD < count)
            fetch_pair(relay, conn_ids[i + 2 * AHEAD]);
        if (i + AHEAD < count && from != NULL)
            fetch_end(relay, from, conn_ids[i + AHEAD]);
        put_u32(head + 4, conn_ids[i]);
        if (from != NULL && from->state == OPEN && !from->failed)
            to = other_end(relay, from, conn_ids[i]);
        if (to != NULL && queue_load(relay, from, to, &load))
            passed(relay, from, to, HEAD + size, 1, false);
        else
            conn_ids[left++] = conn_ids[i];
    }
    if (load.shared != NULL)
        pool_share_ends(relay->pool, load.shared);
    return left;
}

/* Queue what the caller says, also over the memory limit if `force`. False: there is no memory. */
static bool queue_said(struct relay *relay, struct link *to, const void *data, size_t size,
                       struct chunk *shared, bool force)
{
    return (shared != NULL && queue_shared(relay, to, NULL, shared))
           || ((shared == NULL || force) && queue_bytes(relay, to, data, size, 1, force));
}

size_t relay_send_each(struct relay *relay, const relay_handle *handles, size_t count,
                       const void *data, size_t size)
{
    struct chunk *shared = NULL;
    bool makes_room = true;
    size_t took = 0;
    if (size >= SHARED && count > 1)
        shared = fill(pool_get(relay->pool, size, true), data, size);
    for (size_t i = 0; i < count && size > 0; i++) {
        uint32_t later = i + AHEAD < count ? (uint32_t)handles[i + AHEAD] - 1 : UINT32_MAX;
        if (later < relay->link_end && relay->links[later] != NULL)
            fetch(relay->links[later], sizeof(struct link));
        struct link *link = find(relay, handles[i]);
        if (link == NULL || link->state != OPEN || !takes(link))
            continue;
        bool queued = queue_said(relay, link, data, size, shared, !makes_room);
        if (!queued && makes_room) {
            makes_room = make_room(relay, size);
            if (!takes(link))
                continue; /* it went for it */
            queued = queue_said(relay, link, data, size, shared, true);
        }
        took += queued;
        if (queued)
            write_later(relay, link);
        else
            fail(relay, link, RELAY_NO_MEMORY);
    }
    if (shared != NULL)
        pool_share_ends(relay->pool, shared);
    return took;
}
