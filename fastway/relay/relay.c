/* The relay: see relay.h for its law.
 *
 * A link that dies keeps its slot until it is released, and a handle carries the slot's
 * generation, so nothing is ever looked for in a link that is gone, whatever lists still name it.
 */
#define _GNU_SOURCE
#include "relay.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define HEAD 8u          /* bytes of a packet before its message */
#define MIN_LENGTH 4u    /* the smallest legal length field */
#define READY 1024       /* sockets of one round */
#define ROUNDS 32        /* rounds of one turn, so that timers and accepts are served */
#define TURN_SECONDS .004 /* no round begins later than that */
#define READS 8          /* reads of one link and round, while they come full */
#define MANY 64          /* links to be written to: it pays to look for more to send them first */
#define LOOKS 64         /* times that is looked, */
#define LOOK_SECONDS .0000004 /* as long for each of them: a twentieth of what its write takes */
#define PASSES 4         /* times that the caller is asked about one read, packet by packet */
#define PIECE (256u << 10) /* bytes that go from the queue on their way at once */
#define PIECES 8         /* of them written to one link in one turn */
#define VECTOR 64        /* chunks of one write */
#define SLOTS 1024       /* of the wheel, a tick each */
#define TRIM_TICKS 10    /* between trims of the pool */
#define EVENTS_EACH 8    /* events that one link can have in one turn */

enum state {
    OPEN,
    HALF,    /* writes what is left, then a FIN; what comes is dropped */
    CLOSING, /* writes what is left, then closes */
    DEAD,    /* its socket is closed; it waits to be released */
};

/* `source` is not read from until `holder` has drained. */
struct hold {
    struct link *holder, *source;
    struct hold *holder_previous, *holder_next;
    struct hold *source_previous, *source_next;
};

struct link {
    void *owner;
    const struct relay_port *port;
    /* What goes out. The first `ahead` bytes are on their way; the rest waits, is counted, and
     * begins at a chunk of its own. */
    struct chunk *out_head, *out_tail;
    uint64_t ahead;
    uint64_t waiting_bytes;
    uint64_t waiting_packets;
    /* A packet that is not whole: its head, and the message in chunks. */
    struct chunk *in_head, *in_tail;
    struct chunk *rest; /* bytes behind packets that the caller has to handle first */
    struct link *tick_previous, *tick_next;
    struct hold *holding; /* whom it holds */
    struct hold *held_by;
    uint64_t packets_in, bytes_in, packets_out, bytes_out;
    double last_packet;
    double full_since;
    uint64_t taken; /* bytes that its peer's host had acknowledged at the last look */
    int64_t tick;   /* of the wheel; -1: in no slot */
    int fd;
    uint32_t index, generation;
    uint32_t in_bytes; /* of the packet that is not whole, its head included */
    uint32_t hint;     /* bytes of its last write: the size of its next first chunk */
    uint8_t head[HEAD];
    uint8_t state;
    uint8_t interest; /* what epoll was told; 0: not in the set */
    bool started : 1;
    bool full : 1;   /* more is on its way than read_size: what comes now waits */
    bool sealed : 1; /* the next byte begins a chunk */
    bool drained : 1;
    bool tells_drained : 1;
    bool told_over : 1;
    bool dirty : 1;
    bool suspended : 1; /* the caller handles packets of it; `rest` comes afterwards */
    bool paused : 1;
    bool broken : 1; /* nothing more is read: a FIN, an illegal length, no memory */
    bool failed : 1; /* nothing more is written: a chunk is missing in its stream */
    bool shut : 1;
    bool reset : 1;
    struct sockaddr_in6 peer; /* or sockaddr_in */
};

struct pair {
    uint32_t conn_id; /* 0: free */
    uint32_t index[2];
    uint32_t generation[2];
};

struct relay {
    int epoll;
    int wake; /* an eventfd, for what happens outside of a turn */
    bool running;
    bool woken;
    double now;
    struct pool *pool;
    struct relay_totals totals;
    struct relay_port ports[RELAY_PORTS];
    int port_count;
    uint8_t *scratch;
    uint32_t scratch_size;

    struct link **links; /* by index; NULL: free */
    uint32_t *generations;
    uint32_t *free_indices;
    uint32_t link_room, link_end, free_count;

    /* Room for all that the links can need is made when they are adopted. */
    relay_handle *dirty;
    relay_handle *suspended;
    struct relay_event *events;
    uint32_t dirty_count, suspended_count;
    int event_count;
    int passes;

    struct pair *pairs; /* open addressing */
    uint32_t pair_room; /* a power of 2 */
    uint32_t pair_shift;

    struct link *slots[SLOTS];
    int64_t reached; /* the last tick whose links were asked */
    int64_t trimmed;

    struct epoll_event ready[READY];
};

static uint32_t read_u32(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16
           | (uint32_t)data[3] << 24;
}

static relay_handle handle_of(const struct link *link)
{
    return (uint64_t)link->generation << 32 | (link->index + 1);
}

static struct link *find(const struct relay *relay, relay_handle handle)
{
    uint32_t index = (uint32_t)handle - 1;
    if (index >= relay->link_end)
        return NULL;
    struct link *link = relay->links[index];
    return link != NULL && link->generation == (uint32_t)(handle >> 32) ? link : NULL;
}

/* Make the loop that watches relay_fd call relay_run. */
static void wake(struct relay *relay)
{
    if (relay->running || relay->woken)
        return;
    relay->woken = true;
    uint64_t one = 1;
    while (write(relay->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void tell(struct relay *relay, struct link *link, enum relay_event_kind kind,
                 uint64_t detail, struct chunk *data)
{
    relay->events[relay->event_count++] = (struct relay_event){
        .handle = handle_of(link),
        .owner = link->owner,
        .kind = kind,
        .detail = detail,
        .data = data,
    };
    wake(relay);
}

static void mark_dirty(struct relay *relay, struct link *link)
{
    if (!link->dirty) {
        link->dirty = true;
        relay->dirty[relay->dirty_count++] = handle_of(link);
        wake(relay);
    }
}

/* Tell epoll what the link waits for. Without interest it is not in the set at all: a hang-up
 * would be reported again and again. */
static void update_interest(struct relay *relay, struct link *link)
{
    uint8_t wanted = 0;
    if (link->state == HALF
        || (link->state == OPEN && !link->broken && !link->paused && link->held_by == NULL))
        wanted |= EPOLLIN;
    if (link->ahead > 0 && (!link->dirty || link->interest & EPOLLOUT))
        wanted |= EPOLLOUT;
    if (wanted == link->interest)
        return;
    struct epoll_event event = {.events = wanted, .data.u64 = handle_of(link)};
    int operation = wanted == 0          ? EPOLL_CTL_DEL
                    : link->interest == 0 ? EPOLL_CTL_ADD
                                          : EPOLL_CTL_MOD;
    epoll_ctl(relay->epoll, operation, link->fd, &event);
    link->interest = wanted;
}

/* The wheel. */

static void forget_tick(struct relay *relay, struct link *link)
{
    if (link->tick < 0)
        return;
    if (link->tick_previous != NULL)
        link->tick_previous->tick_next = link->tick_next;
    else
        relay->slots[link->tick % SLOTS] = link->tick_next;
    if (link->tick_next != NULL)
        link->tick_next->tick_previous = link->tick_previous;
    link->tick = -1;
}

/* Look at the link at `when`, or earlier if that was asked for. */
static void watch(struct relay *relay, struct link *link, double when)
{
    double ticks = when / RELAY_TICK;
    int64_t last = relay->reached + SLOTS - 1;
    int64_t tick = ticks < (double)last ? (int64_t)ticks : last;
    if ((double)tick < ticks && tick < last)
        tick++;
    if (tick <= relay->reached)
        tick = relay->reached + 1;
    if (link->tick >= 0) {
        if (link->tick <= tick)
            return;
        forget_tick(relay, link);
    }
    link->tick = tick;
    link->tick_previous = NULL;
    link->tick_next = relay->slots[tick % SLOTS];
    if (link->tick_next != NULL)
        link->tick_next->tick_previous = link;
    relay->slots[tick % SLOTS] = link;
}

/* Bytes that the peer's host has acknowledged; the same number again where nobody tells. */
static uint64_t bytes_taken(const struct link *link)
{
    /* struct tcp_info of linux/tcp.h: tcpi_bytes_acked, a u64 at offset 120. */
    uint8_t info[128];
    socklen_t size = sizeof info;
    uint64_t taken = 0;
    if (getsockopt(link->fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0 && size == sizeof info)
        memcpy(&taken, info + 120, sizeof taken);
    return taken;
}

/* Lose the link if a deadline has passed, otherwise watch the next one. */
static void check(struct relay *relay, struct link *link)
{
    const struct relay_port *port = link->port;
    double now = relay->now, next = 0;
    if (link->state != OPEN || !link->started)
        return;
    if (link->full && port->write_timeout > 0) {
        uint64_t taken = bytes_taken(link);
        if (taken != link->taken) {
            link->taken = taken;
            link->full_since = now;
        }
        next = link->full_since + port->write_timeout;
        if (next <= now) {
            tell(relay, link, RELAY_STUCK, 0, NULL);
            return;
        }
    }
    if (port->idle_timeout > 0) {
        bool held = link->paused || link->held_by != NULL;
        double due = (held ? now : link->last_packet) + port->idle_timeout;
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

/* Holding. */

static bool over(const struct link *link)
{
    return link->waiting_packets > link->port->queue_packets
           || link->waiting_bytes > link->port->queue_bytes;
}

static bool below_half(const struct link *link)
{
    return 2 * link->waiting_packets < link->port->queue_packets
           && 2 * link->waiting_bytes < link->port->queue_bytes;
}

static void hold(struct relay *relay, struct link *holder, struct link *source)
{
    if (source->state != OPEN)
        return;
    for (struct hold *hold = source->held_by; hold != NULL; hold = hold->source_next)
        if (hold->holder == holder)
            return;
    struct hold *hold = malloc(sizeof *hold);
    if (hold == NULL)
        return;
    if (source->held_by == NULL && !source->paused)
        relay->totals.holds++;
    *hold = (struct hold){
        .holder = holder,
        .source = source,
        .holder_next = holder->holding,
        .source_next = source->held_by,
    };
    if (hold->holder_next != NULL)
        hold->holder_next->holder_previous = hold;
    if (hold->source_next != NULL)
        hold->source_next->source_previous = hold;
    holder->holding = hold;
    source->held_by = hold;
    update_interest(relay, source);
}

static void let_go(struct relay *relay, struct hold *hold)
{
    struct link *source = hold->source;
    if (hold->holder_previous != NULL)
        hold->holder_previous->holder_next = hold->holder_next;
    else
        hold->holder->holding = hold->holder_next;
    if (hold->holder_next != NULL)
        hold->holder_next->holder_previous = hold->holder_previous;
    if (hold->source_previous != NULL)
        hold->source_previous->source_next = hold->source_next;
    else
        source->held_by = hold->source_next;
    if (hold->source_next != NULL)
        hold->source_next->source_previous = hold->source_previous;
    free(hold);
    if (source->held_by == NULL && source->state == OPEN) {
        /* It could not be heard: its idle time begins anew. */
        source->last_packet = relay->now;
        update_interest(relay, source);
    }
}

static void let_all_go(struct relay *relay, struct link *link)
{
    while (link->holding != NULL)
        let_go(relay, link->holding);
    while (link->held_by != NULL)
        let_go(relay, link->held_by);
}

static void let_go_if_drained(struct relay *relay, struct link *link)
{
    if ((link->holding == NULL && !link->tells_drained) || !below_half(link))
        return;
    while (link->holding != NULL)
        let_go(relay, link->holding);
    if (link->tells_drained) {
        link->tells_drained = false;
        tell(relay, link, RELAY_DRAINED, 0, NULL);
    }
}

/* Ends. */

static void drop_input(struct relay *relay, struct link *link)
{
    pool_put_list(relay->pool, link->in_head);
    pool_put_list(relay->pool, link->rest);
    link->in_head = link->in_tail = link->rest = NULL;
    link->in_bytes = 0;
}

static void drop_output(struct relay *relay, struct link *link)
{
    pool_put_list(relay->pool, link->out_head);
    link->out_head = link->out_tail = NULL;
    link->ahead = link->waiting_bytes = link->waiting_packets = 0;
    link->full = false;
}

static void die(struct relay *relay, struct link *link, int error)
{
    if (link->state == DEAD)
        return;
    /* DEL first: a duplicate of the socket would keep it in the set. */
    if (link->interest)
        epoll_ctl(relay->epoll, EPOLL_CTL_DEL, link->fd, NULL);
    close(link->fd);
    link->state = DEAD;
    link->interest = 0;
    link->fd = -1;
    forget_tick(relay, link);
    drop_input(relay, link);
    drop_output(relay, link);
    let_all_go(relay, link);
    tell(relay, link, RELAY_GONE, (uint64_t)error, NULL);
}

static void fail(struct relay *relay, struct link *link)
{
    if (link->failed || link->state == DEAD)
        return;
    if (link->state != OPEN) {
        /* It is on its way out already. */
        relay_close(relay, handle_of(link), RELAY_ABORT);
        return;
    }
    link->failed = link->broken = true;
    drop_input(relay, link);
    drop_output(relay, link);
    update_interest(relay, link);
    tell(relay, link, RELAY_NO_MEMORY, 0, NULL);
}

/* What goes out. */

static struct chunk *add_chunk(struct relay *relay, struct link *link, size_t size)
{
    struct chunk *tail = link->out_tail;
    size_t most = pool_max_chunk(relay->pool);
    size_t wanted = tail == NULL ? link->hint : (size_t)tail->size * 2;
    if (wanted < size)
        wanted = size;
    struct chunk *chunk = pool_get(relay->pool, wanted < most ? wanted : most);
    if (chunk == NULL)
        return NULL;
    if (tail == NULL)
        link->out_head = chunk;
    else
        tail->next = chunk;
    link->out_tail = chunk;
    link->sealed = false;
    return chunk;
}

static void count_out(struct link *link, size_t size, uint32_t packets)
{
    link->packets_out += packets;
    if (link->started)
        link->bytes_out += size;
    if (link->full) {
        link->waiting_bytes += size;
        link->waiting_packets += packets;
        link->out_tail->packets += packets;
    } else {
        link->ahead += size;
    }
}

/* Queue bytes; false: the pool has no chunk for them, and some may be queued. */
static bool append(struct relay *relay, struct link *link, const uint8_t *data, size_t size,
                   uint32_t packets)
{
    size_t left = size;
    while (left > 0) {
        struct chunk *chunk = link->out_tail;
        if (chunk == NULL || link->sealed || chunk_room(chunk) == 0) {
            chunk = add_chunk(relay, link, left);
            if (chunk == NULL)
                return false;
        }
        size_t room = chunk_room(chunk), piece = left < room ? left : room;
        memcpy(chunk_bytes(chunk) + chunk->end, data, piece);
        chunk->end += (uint32_t)piece;
        data += piece;
        left -= piece;
    }
    count_out(link, size, packets);
    return true;
}

/* A link that waits for room in its socket is written to when there is some. */
static void write_later(struct relay *relay, struct link *link)
{
    if (!(link->interest & EPOLLOUT))
        mark_dirty(relay, link);
}

/* `to` got packets of `from`: have them written, and look at the bounds. */
static void sent(struct relay *relay, struct link *from, struct link *to, size_t size,
                 uint32_t packets)
{
    from->packets_in += packets;
    relay->totals.packets += packets;
    relay->totals.bytes += size;
    write_later(relay, to);
    if (to->full && over(to)) {
        if (to->port->holds) {
            hold(relay, to, from);
        } else if (!to->told_over) {
            to->told_over = true;
            tell(relay, to, RELAY_OVER, 0, NULL);
        }
    }
}

static void forward(struct relay *relay, struct link *from, struct link *to, const uint8_t *data,
                    size_t size, uint32_t packets)
{
    if (to->state != OPEN || to->failed)
        return; /* its loss is being reported */
    if (append(relay, to, data, size, packets))
        sent(relay, from, to, size, packets);
    else
        fail(relay, to);
}

/* Forward the packet that has become whole; its chunks change hands. */
static void forward_pieces(struct relay *relay, struct link *from, struct link *to)
{
    size_t size = from->in_bytes;
    struct chunk *body = from->in_head, *tail = from->in_tail;
    from->in_head = from->in_tail = NULL;
    from->in_bytes = 0;
    if (to->state != OPEN || to->failed) {
        pool_put_list(relay->pool, body);
        return;
    }
    if (!append(relay, to, from->head, HEAD, body == NULL)) {
        pool_put_list(relay->pool, body);
        fail(relay, to);
        return;
    }
    if (body != NULL) {
        to->out_tail->next = body;
        to->out_tail = tail;
        count_out(to, size - HEAD, 1);
    }
    sent(relay, from, to, size, 1);
}

static void consume(struct relay *relay, struct link *link, size_t size)
{
    link->ahead -= size;
    while (size > 0) {
        struct chunk *chunk = link->out_head;
        uint32_t length = chunk_length(chunk);
        if (size < length) {
            chunk->start += (uint32_t)size;
            return;
        }
        size -= length;
        link->out_head = chunk->next;
        if (chunk->next == NULL)
            link->out_tail = NULL;
        pool_put(relay->pool, chunk);
    }
}

/* All on its way was taken: send off a piece of what waits. */
static void send_off(struct link *link)
{
    uint64_t piece = 0;
    for (struct chunk *chunk = link->out_head; chunk != NULL && piece < PIECE;
         chunk = chunk->next) {
        piece += chunk_length(chunk);
        link->waiting_packets -= chunk->packets;
        chunk->packets = 0;
    }
    link->waiting_bytes -= piece;
    link->ahead += piece;
}

/* One gathered write; returns what send and writev do. */
static ssize_t write_some(struct link *link, size_t *offered)
{
    struct iovec vector[VECTOR];
    int count = 0;
    size_t left = link->ahead;
    for (struct chunk *chunk = link->out_head; left > 0 && count < VECTOR; chunk = chunk->next) {
        size_t length = chunk_length(chunk);
        vector[count].iov_base = chunk_bytes(chunk) + chunk->start;
        vector[count].iov_len = length;
        left -= length;
        count++;
    }
    *offered = link->ahead - left;
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)count};
    if (count == 1)
        return send(link->fd, vector->iov_base, vector->iov_len, MSG_NOSIGNAL);
    return sendmsg(link->fd, &message, MSG_NOSIGNAL);
}

static void flush_link(struct relay *relay, struct link *link)
{
    uint64_t written = 0;
    bool ran_empty = false;
    for (int pieces = 0; link->ahead > 0 && pieces < PIECES;) {
        size_t offered;
        ssize_t sent = write_some(link, &offered);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN || errno == ENOBUFS)
                break;
            die(relay, link, errno);
            return;
        }
        written += (uint64_t)sent;
        consume(relay, link, (size_t)sent);
        if (link->ahead == 0) {
            ran_empty = true;
            if (link->waiting_bytes > 0) {
                pieces++;
                send_off(link);
            }
        } else if ((size_t)sent < offered) {
            break;
        }
    }
    if (link->ahead == 0)
        link->hint = written < UINT32_MAX ? (uint32_t)written : UINT32_MAX;
    if (ran_empty) {
        link->full = false;
        link->drained = true;
    }
    if (link->state == OPEN) {
        if (!link->full && (link->waiting_bytes > 0 || link->ahead > link->port->read_size)) {
            link->full = true;
            link->sealed = link->waiting_bytes == 0;
            link->full_since = relay->now;
            link->taken = bytes_taken(link);
            if (link->port->write_timeout > 0 && link->started)
                watch(relay, link, relay->now + link->port->write_timeout);
        }
    } else if (link->ahead == 0) {
        if (link->state == CLOSING) {
            struct linger reset = {.l_onoff = 1, .l_linger = 0};
            if (link->reset)
                setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            die(relay, link, 0);
            return;
        }
        if (!link->shut) {
            link->shut = true;
            shutdown(link->fd, SHUT_WR);
        }
    }
    update_interest(relay, link);
    let_go_if_drained(relay, link);
}

static void flush(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->dirty_count; i++) {
        struct link *link = find(relay, relay->dirty[i]);
        if (link == NULL)
            continue;
        link->dirty = false;
        if (link->state != DEAD)
            flush_link(relay, link);
    }
    relay->dirty_count = 0;
}

/* Virtual connections. */

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

static struct link *link_at(const struct relay *relay, uint32_t index, uint32_t generation)
{
    struct link *link = relay->links[index];
    return link != NULL && link->generation == generation ? link : NULL;
}

/* The other end, if the link is one of the two. */
static struct link *other_end(const struct relay *relay, const struct link *link,
                              uint32_t conn_id)
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

/* What comes in. */

static struct chunk *copy_of(struct relay *relay, const uint8_t *data, size_t size)
{
    struct chunk *chunk = pool_get(relay->pool, size);
    if (chunk != NULL) {
        memcpy(chunk_bytes(chunk), data, size);
        chunk->end = (uint32_t)size;
    }
    return chunk;
}

/* Give bytes to the caller, whose answer comes before anything else of this link. */
static void hand_up(struct relay *relay, struct link *link, enum relay_event_kind kind,
                    const uint8_t *data, size_t size)
{
    struct chunk *chunk = copy_of(relay, data, size);
    if (chunk == NULL) {
        fail(relay, link);
        return;
    }
    tell(relay, link, kind, 0, chunk);
    if (!link->suspended) {
        link->suspended = true;
        relay->suspended[relay->suspended_count++] = handle_of(link);
    }
}

/* The packet that has become whole is the caller's to handle. */
static void hand_up_pieces(struct relay *relay, struct link *link)
{
    struct chunk *chunk = pool_get(relay->pool, link->in_bytes);
    if (chunk == NULL) {
        fail(relay, link);
        return;
    }
    memcpy(chunk_bytes(chunk), link->head, HEAD);
    chunk->end = HEAD;
    for (struct chunk *piece = link->in_head; piece != NULL; piece = piece->next) {
        memcpy(chunk_bytes(chunk) + chunk->end, chunk_bytes(piece), piece->end);
        chunk->end += piece->end;
    }
    pool_put_list(relay->pool, link->in_head);
    link->in_head = link->in_tail = NULL;
    link->in_bytes = 0;
    tell(relay, link, RELAY_PACKETS, 0, chunk);
    if (!link->suspended) {
        link->suspended = true;
        relay->suspended[relay->suspended_count++] = handle_of(link);
    }
}

static bool legal(struct relay *relay, struct link *link, uint32_t length)
{
    if (length >= MIN_LENGTH && length <= link->port->max_packet)
        return true;
    link->broken = true;
    drop_input(relay, link);
    update_interest(relay, link);
    tell(relay, link, RELAY_BROKEN, length, NULL);
    return false;
}

/* Take bytes of a packet that is not whole; returns how many. Less than were there: it is whole,
 * or the link has to go. */
static size_t collect(struct relay *relay, struct link *link, const uint8_t *data, size_t size)
{
    size_t took = 0;
    if (link->in_bytes < HEAD) {
        size_t before = link->in_bytes;
        took = HEAD - before < size ? HEAD - before : size;
        memcpy(link->head + before, data, took);
        link->in_bytes += (uint32_t)took;
        if (before < 4 && link->in_bytes >= 4 && !legal(relay, link, read_u32(link->head)))
            return took;
        if (link->in_bytes < HEAD)
            return took;
    }
    size_t left = 4 + (size_t)read_u32(link->head) - link->in_bytes;
    if (left > size - took)
        left = size - took;
    while (left > 0) {
        struct chunk *tail = link->in_tail;
        if (tail == NULL || chunk_room(tail) == 0) {
            /* As large as what came already: what is announced allocates nothing. */
            size_t most = pool_max_chunk(relay->pool);
            size_t wanted = tail == NULL ? left : (size_t)tail->size * 2;
            struct chunk *chunk = pool_get(relay->pool, wanted < most ? wanted : most);
            if (chunk == NULL) {
                fail(relay, link);
                return took;
            }
            if (tail == NULL)
                link->in_head = chunk;
            else
                tail->next = chunk;
            link->in_tail = tail = chunk;
        }
        size_t room = chunk_room(tail), piece = left < room ? left : room;
        memcpy(chunk_bytes(tail) + tail->end, data + took, piece);
        tail->end += (uint32_t)piece;
        link->in_bytes += (uint32_t)piece;
        took += piece;
        left -= piece;
    }
    return took;
}

/* Cut bytes into packets. Those of other links are forwarded, a run of one virtual connection at
 * once; a run of all others is handed up, and what then follows waits, unless `all` goes up. */
static void cut(struct relay *relay, struct link *link, const uint8_t *data, size_t size, bool all)
{
    size_t at = 0, start = 0;
    uint32_t packets = 0, run = 0;
    struct link *to = NULL; /* of the run; NULL: the caller */
    if (link->in_bytes > 0) {
        start = at = collect(relay, link, data, size);
        if (link->broken || link->in_bytes < HEAD
            || link->in_bytes < 4 + read_u32(link->head))
            return;
        link->last_packet = relay->now;
        to = other_end(relay, link, read_u32(link->head + 4));
        if (to != NULL && !(all && link->suspended))
            forward_pieces(relay, link, to);
        else
            hand_up_pieces(relay, link);
        if (link->broken)
            return;
        packets = 0;
    }
    bool behind = link->suspended; /* packets that the caller has to handle came before */
    while (size - at >= HEAD) {
        uint32_t length = read_u32(data + at), conn_id = read_u32(data + at + 4);
        if (length < MIN_LENGTH || length > link->port->max_packet || size - at - 4 < length)
            break;
        if (packets == 0 || conn_id != run) {
            struct link *next = other_end(relay, link, conn_id);
            if (next != NULL && behind && all)
                next = NULL;
            if (packets > 0 && (to != NULL || next != NULL)) {
                if (to != NULL)
                    forward(relay, link, to, data + start, at - start, packets);
                else
                    hand_up(relay, link, RELAY_PACKETS, data + start, at - start);
                if (link->broken)
                    return;
                start = at;
                packets = 0;
            }
            if (next != NULL && behind) {
                /* It must not overtake what the caller still has to answer. */
                link->last_packet = relay->now;
                link->rest = copy_of(relay, data + at, size - at);
                if (link->rest == NULL)
                    fail(relay, link);
                return;
            }
            to = next;
            run = conn_id;
            behind = behind || to == NULL;
        }
        packets++;
        at += 4 + (size_t)length;
    }
    if (packets > 0) {
        if (to != NULL)
            forward(relay, link, to, data + start, at - start, packets);
        else
            hand_up(relay, link, RELAY_PACKETS, data + start, at - start);
    }
    if (at > start || packets > 0)
        link->last_packet = relay->now;
    if (at < size && !link->broken)
        collect(relay, link, data + at, size - at);
}

static void read_link(struct relay *relay, struct link *link)
{
    size_t size = link->port->read_size;
    for (int reads = 0; reads < READS; reads++) {
        ssize_t got = recv(link->fd, relay->scratch, size, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                die(relay, link, errno);
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
            link->broken = true;
            update_interest(relay, link);
            tell(relay, link, RELAY_FIN, 0, NULL);
            return;
        }
        link->bytes_in += (uint64_t)got;
        if (!link->started) {
            hand_up(relay, link, RELAY_BYTES, relay->scratch, (size_t)got);
            return;
        }
        cut(relay, link, relay->scratch, (size_t)got, false);
        if ((size_t)got < size || link->suspended || link->broken || link->held_by != NULL)
            return;
    }
}

/* Turns. */

static void ready(struct relay *relay, const struct epoll_event *event)
{
    if (event->data.u64 == 0) {
        uint64_t count;
        relay->woken = false;
        while (read(relay->wake, &count, sizeof count) < 0 && errno == EINTR)
            ;
        return;
    }
    struct link *link = find(relay, event->data.u64);
    if (link == NULL || link->state == DEAD)
        return;
    uint32_t failure = event->events & (EPOLLERR | EPOLLHUP);
    if (link->interest & EPOLLIN && event->events & (EPOLLIN | failure)) {
        if (!link->suspended)
            read_link(relay, link);
    } else if (failure) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        die(relay, link, error ? error : ECONNRESET);
    }
    if (link->state != DEAD && event->events & EPOLLOUT)
        mark_dirty(relay, link);
}

void relay_clear_events(struct relay *relay)
{
    for (int i = 0; i < relay->event_count; i++) {
        if (relay->events[i].data != NULL)
            pool_put(relay->pool, relay->events[i].data);
        struct link *link = find(relay, relay->events[i].handle);
        if (link != NULL)
            link->told_over = false;
    }
    relay->event_count = 0;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Read what is there; returns how many sockets had something, or -1. */
static int look(struct relay *relay)
{
    int count = epoll_wait(relay->epoll, relay->ready, READY, 0);
    for (int i = 0; i < count; i++)
        ready(relay, &relay->ready[i]);
    return count;
}

/* Many writes are due: what comes now for the same links can go with them. */
static void look_for_more(struct relay *relay)
{
    double until = seconds() + relay->dirty_count * LOOK_SECONDS;
    for (int looks = 0; looks < LOOKS && relay->event_count == 0; looks++)
        if (look(relay) <= 0 && seconds() > until)
            break;
}

int relay_run(struct relay *relay, double now)
{
    relay->now = now;
    relay->running = true;
    double until = 0;
    for (int round = 0; round < ROUNDS && relay->event_count == 0; round++) {
        int count = look(relay);
        if (count <= 0 && relay->dirty_count == 0 && !(count < 0 && errno == EINTR))
            break;
        if (relay->dirty_count >= MANY)
            look_for_more(relay);
        if (relay->event_count == 0)
            flush(relay);
        double clock = seconds();
        if (until == 0)
            until = clock + TURN_SECONDS;
        else if (clock > until)
            break;
    }
    relay->running = relay->event_count > 0;
    return relay->event_count;
}

int relay_continue(struct relay *relay, double now)
{
    relay->now = now;
    relay->running = true;
    uint32_t count = relay->suspended_count;
    if (count > 0) {
        relay->passes++;
        for (uint32_t i = 0; i < count; i++) {
            struct link *link = find(relay, relay->suspended[i]);
            if (link == NULL)
                continue;
            struct chunk *rest = link->rest;
            link->suspended = false;
            link->rest = NULL;
            if (rest == NULL)
                continue;
            if (link->state == OPEN && !link->broken)
                cut(relay, link, chunk_bytes(rest), rest->end, relay->passes >= PASSES);
            pool_put(relay->pool, rest);
        }
        relay->suspended_count -= count;
        memmove(relay->suspended, relay->suspended + count,
                relay->suspended_count * sizeof *relay->suspended);
        if (relay->event_count > 0)
            return relay->event_count;
    }
    relay->passes = 0;
    flush(relay);
    relay->running = relay->event_count > 0;
    return relay->event_count;
}

int relay_sweep(struct relay *relay, double now)
{
    relay->now = now;
    relay->running = true;
    int64_t reached = (int64_t)(now / RELAY_TICK);
    int64_t tick = relay->reached;
    if (reached - tick > SLOTS)
        tick = reached - SLOTS;
    while (tick < reached) {
        relay->reached = ++tick;
        struct link *link = relay->slots[tick % SLOTS];
        relay->slots[tick % SLOTS] = NULL;
        while (link != NULL) {
            struct link *next = link->tick_next;
            link->tick = -1;
            if (next != NULL)
                next->tick_previous = NULL;
            check(relay, link);
            link = next;
        }
    }
    if (relay->reached - relay->trimmed >= TRIM_TICKS) {
        relay->trimmed = relay->reached;
        pool_trim(relay->pool);
    }
    relay->running = relay->event_count > 0;
    return relay->event_count;
}

const struct relay_event *relay_events(const struct relay *relay) { return relay->events; }

/* Making and unmaking. */

struct relay *relay_new(const struct pool_config *config)
{
    struct relay *relay = calloc(1, sizeof *relay);
    if (relay == NULL)
        return NULL;
    relay->epoll = relay->wake = -1;
    relay->pool = pool_new(config);
    if (relay->pool == NULL) {
        free(relay);
        errno = EINVAL;
        return NULL;
    }
    relay->epoll = epoll_create1(EPOLL_CLOEXEC);
    relay->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    if (relay->epoll < 0 || relay->wake < 0
        || epoll_ctl(relay->epoll, EPOLL_CTL_ADD, relay->wake, &event) < 0) {
        int error = errno;
        relay_free(relay);
        errno = error;
        return NULL;
    }
    return relay;
}

void relay_free(struct relay *relay)
{
    for (uint32_t index = 0; index < relay->link_end; index++) {
        struct link *link = relay->links[index];
        if (link == NULL)
            continue;
        let_all_go(relay, link);
        if (link->state != DEAD)
            close(link->fd);
        drop_input(relay, link);
        drop_output(relay, link);
        relay->links[index] = NULL;
        free(link);
    }
    relay_clear_events(relay);
    if (relay->epoll >= 0)
        close(relay->epoll);
    if (relay->wake >= 0)
        close(relay->wake);
    pool_free(relay->pool);
    free(relay->links);
    free(relay->generations);
    free(relay->free_indices);
    free(relay->dirty);
    free(relay->suspended);
    free(relay->events);
    free(relay->pairs);
    free(relay->scratch);
    free(relay);
}

int relay_fd(const struct relay *relay) { return relay->epoll; }

int relay_port(struct relay *relay, const struct relay_port *config)
{
    if (relay->port_count == RELAY_PORTS)
        return -1;
    if (config->read_size > relay->scratch_size) {
        uint8_t *scratch = realloc(relay->scratch, config->read_size);
        if (scratch == NULL)
            return -1;
        relay->scratch = scratch;
        relay->scratch_size = config->read_size;
    }
    relay->ports[relay->port_count] = *config;
    return relay->port_count++;
}

static bool grow(void *array, size_t count, size_t size)
{
    void **pointer = array;
    void *larger = realloc(*pointer, count * size);
    if (larger == NULL)
        return false;
    *pointer = larger;
    return true;
}

/* Room for one more link, and for all that it can need in a turn. */
static bool make_room(struct relay *relay)
{
    if (relay->link_end < relay->link_room)
        return true;
    size_t room = relay->link_room ? (size_t)relay->link_room * 2 : 64;
    if (room > UINT32_MAX / 2 || !grow(&relay->links, room, sizeof *relay->links)
        || !grow(&relay->generations, room, sizeof *relay->generations)
        || !grow(&relay->free_indices, room, sizeof *relay->free_indices)
        || !grow(&relay->dirty, room * 2, sizeof *relay->dirty)
        || !grow(&relay->suspended, room * 2, sizeof *relay->suspended)
        || !grow(&relay->events, room * EVENTS_EACH, sizeof *relay->events))
        return false;
    relay->link_room = (uint32_t)room;
    return true;
}

relay_handle relay_adopt(struct relay *relay, int fd, int port, double now)
{
    if (port < 0 || port >= relay->port_count) {
        errno = EINVAL;
        return 0;
    }
    struct link *link = calloc(1, sizeof *link);
    if (link == NULL || (relay->free_count == 0 && !make_room(relay))) {
        free(link);
        errno = ENOMEM;
        return 0;
    }
    if (relay->free_count > 0) {
        link->index = relay->free_indices[--relay->free_count];
    } else {
        link->index = relay->link_end++;
        relay->generations[link->index] = 0;
    }
    link->generation = ++relay->generations[link->index];
    link->port = &relay->ports[port];
    link->fd = fd;
    link->tick = -1;
    link->last_packet = now;
    relay->links[link->index] = link;
    if (relay->totals.links++ == 0)
        relay->reached = relay->trimmed = (int64_t)(now / RELAY_TICK);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    socklen_t size = sizeof link->peer;
    getpeername(fd, (struct sockaddr *)&link->peer, &size);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = handle_of(link)};
    if (epoll_ctl(relay->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        int error = errno;
        link->state = DEAD;
        relay_release(relay, handle_of(link));
        errno = error;
        return 0;
    }
    link->interest = EPOLLIN;
    return handle_of(link);
}

relay_handle relay_accept(struct relay *relay, int listening, int port, double now)
{
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return 0;
    relay_handle handle = relay_adopt(relay, fd, port, now);
    if (handle == 0) {
        int error = errno;
        close(fd);
        errno = error;
    }
    return handle;
}

void relay_set_owner(struct relay *relay, relay_handle handle, void *owner)
{
    struct link *link = find(relay, handle);
    if (link != NULL)
        link->owner = owner;
}

void relay_start(struct relay *relay, relay_handle handle, const void *data, size_t size,
                 double now)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != OPEN || link->started)
        return;
    relay->now = link->last_packet = now;
    link->started = true;
    check(relay, link);
    if (size > 0)
        cut(relay, link, data, size, false);
}

void relay_send(struct relay *relay, relay_handle handle, const void *data, size_t size,
                uint32_t packets)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state == DEAD || link->failed || link->shut)
        return;
    if (append(relay, link, data, size, packets))
        write_later(relay, link);
    else
        fail(relay, link);
}

bool relay_over(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    return link != NULL && link->full && over(link);
}

void relay_pause(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state == DEAD)
        return;
    link->paused = true;
    update_interest(relay, link);
}

void relay_resume(struct relay *relay, relay_handle handle, double now)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state == DEAD)
        return;
    if (link->paused)
        link->last_packet = now;
    link->paused = false;
    update_interest(relay, link);
}

void relay_tell_drained(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != OPEN)
        return;
    link->tells_drained = true;
    let_go_if_drained(relay, link);
}

void relay_forget_drained(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    if (link != NULL)
        link->drained = false;
}

void relay_close(struct relay *relay, relay_handle handle, enum relay_end how)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state == DEAD)
        return;
    if (how == RELAY_ABORT) {
        link->reset = true;
        drop_output(relay, link);
    } else if (link->state == CLOSING) {
        return;
    }
    link->state = how == RELAY_HALF ? HALF : CLOSING;
    forget_tick(relay, link);
    drop_input(relay, link);
    let_all_go(relay, link);
    /* All that waits goes. */
    link->ahead += link->waiting_bytes;
    link->waiting_bytes = link->waiting_packets = 0;
    link->full = link->tells_drained = false;
    update_interest(relay, link);
    mark_dirty(relay, link);
}

void *relay_release(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != DEAD)
        return NULL;
    void *owner = link->owner;
    relay->links[link->index] = NULL;
    relay->free_indices[relay->free_count++] = link->index;
    relay->totals.links--;
    free(link);
    return owner;
}

/* Looking. */

bool relay_counts(const struct relay *relay, relay_handle handle, struct relay_counts *out)
{
    const struct link *link = find(relay, handle);
    if (link == NULL)
        return false;
    *out = (struct relay_counts){
        .packets_in = link->packets_in,
        .bytes_in = link->bytes_in,
        .packets_out = link->packets_out,
        .bytes_out = link->bytes_out,
        .waiting_packets = link->waiting_packets,
        .waiting_bytes = link->waiting_bytes,
        .held = link->held_by != NULL,
        .drained = link->drained,
    };
    return true;
}

bool relay_peer(const struct relay *relay, relay_handle handle, struct sockaddr_storage *out)
{
    const struct link *link = find(relay, handle);
    if (link == NULL)
        return false;
    memset(out, 0, sizeof *out);
    memcpy(out, &link->peer, sizeof link->peer);
    return true;
}

int relay_socket(const struct relay *relay, relay_handle handle)
{
    const struct link *link = find(relay, handle);
    return link == NULL ? -1 : link->fd;
}

void relay_totals(const struct relay *relay, struct relay_totals *out) { *out = relay->totals; }

const struct pool *relay_pool(const struct relay *relay) { return relay->pool; }

void *relay_next_owner(const struct relay *relay, uint32_t *place)
{
    while (*place < relay->link_end) {
        const struct link *link = relay->links[(*place)++];
        if (link != NULL && link->owner != NULL)
            return link->owner;
    }
    return NULL;
}
