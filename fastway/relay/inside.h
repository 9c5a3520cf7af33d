/* What the files of the relay share, and nobody else sees.
 *
 * Law: a link that dies keeps its slot until it is released, and a handle carries the link's
 * generation, so nothing is ever looked for in a link that is gone. Every byte that is held for
 * somebody is counted by queue_bytes, take or count_input, at once, in the link and in the
 * totals. What only a link that is blocked needs is no part of those that idle: it is in its jam.
 *
 *     relay.c   making and unmaking, and the verbs of relay.h
 *     turn.c    epoll, the work of a turn and its bounds, events
 *     cut.c     bytes into packets, and whose they are
 *     queue.c   what waits for a link, and writing it
 *     socket.c  the only calls that read and write a link's socket
 *     websocket.c  packets in the frames of a WebSocket
 *     tls.c     links whose bytes OpenSSL seals and opens
 *     hold.c    fair shares and holds
 *     rate.c    packets and bytes a second
 *     end.c     how links end, and what they said before is kept
 *     memory.c  the limit, and who goes for it
 *     wheel.c   deadlines
 *     pairs.c   virtual connections
 */
#ifndef FASTWAY_INSIDE_H
#define FASTWAY_INSIDE_H

#include <netinet/in.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "relay.h"

#define HEAD 8u          /* bytes of a packet before its message */
#define MIN_LENGTH 4u    /* the smallest legal length field */
#define READY 1024       /* sockets that epoll tells of at once */
#define PIECE (256u << 10) /* bytes that may wait unwritten for a link that is not blocked */
#define SLOTS 1024       /* of the wheel, a tick each */
#define KEEP_PIECE 16384u /* bytes of one read of a link that is not read from */
#define TLS_RECORD 16384u /* bytes of a record of TLS, at most */
#define VECTOR 64        /* pieces of one write */
#define CONTROL 125u     /* bytes of payload in a control frame */

/* A doubly linked list with a head of its own; a node of no list is zero. */
struct node {
    struct node *next, *previous;
};

static inline void list_begin(struct node *list) { list->next = list->previous = list; }
static inline bool list_empty(const struct node *list) { return list->next == list; }
static inline bool listed(const struct node *node) { return node->next != NULL; }

static inline void list_add(struct node *list, struct node *node)
{
    node->next = list;
    node->previous = list->previous;
    node->previous->next = node;
    list->previous = node;
}

static inline void list_drop(struct node *node)
{
    if (!listed(node))
        return;
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = NULL;
}

/* Move all of one list before all of another. */
static inline void list_prepend(struct node *list, struct node *first)
{
    if (list_empty(first))
        return;
    first->previous->next = list->next;
    list->next->previous = first->previous;
    list->next = first->next;
    first->next->previous = list;
    list_begin(first);
}

#define OWNER_OF(node, type, member) ((type *)(void *)((char *)(node) - offsetof(type, member)))

enum state {
    OPEN,
    HALF,    /* writes what is left, then a FIN; what comes is dropped */
    CLOSING, /* writes what is left, then closes */
    DEAD,    /* its socket is closed; it waits to be released */
};

/* What `from` has in the queue of `to`, while that is blocked. Positions are in the bytes ever
 * queued for `to`. */
struct share {
    struct link *to, *from;
    struct share *next; /* of those of `from` */
    struct node to_node;
    struct node bound_node; /* listed: held until `to` is below half of its bounds */
    uint64_t mark;          /* held until `to` took so much, if it is in the heap */
    uint64_t since;         /* bytes that came after the mark */
    uint64_t last;          /* where its last bytes end */
    uint32_t place;         /* in the heap of `to`, from 1; 0: not in it */
};

/* What a link has from when it is blocked until nothing waits for it, or until its end. */
struct jam {
    struct link *link;
    double since;   /* when it was blocked, or was last seen to get on */
    uint64_t acked; /* bytes that its peer's host had acknowledged at the last look */
    uint64_t over_packets, over_bytes; /* what waited when it was reported OVER */
    struct node judge_node; /* in `judged` */
    uint64_t judge_turn;
    struct node senders; /* shares of its queue, in the order of their last bytes */
    struct node bound;   /* those held for its bounds */
    struct share **heap; /* senders held until a position, the lowest first */
    uint32_t heap_count, heap_room;
    uint32_t sender_count;
};

/* A control frame: one that is not whole yet, or one that is to be sent. */
struct control {
    uint8_t size, at; /* bytes, and how many of them are there, or sent */
    uint8_t bytes[2 + CONTROL];
};

/* The frames of a WebSocket. */
struct websocket {
    /* What comes. */
    uint64_t left;          /* bytes of a data frame that are still to come */
    struct control *coming; /* one that is not whole, as the frame that would answer it */
    uint64_t problem;       /* the detail of RELAY_MISFRAMED, from when nothing is understood */
    uint8_t mask[4];        /* of the frame, turned so that the next byte is its first's */
    uint8_t head[14];       /* one that is not whole, */
    uint8_t head_size;      /* so many bytes of it */
    bool inside : 1;        /* a message has begun and not ended */
    bool closed : 1;        /* the peer's Close came */
    bool no_memory : 1;
    bool parted : 1;   /* a Close is to be sent, or was: nothing is queued any more */
    uint16_t peer_code; /* of its Close; 0: none */
    /* What goes out. */
    uint8_t head_left;       /* bytes of the last frame's head that are not written, */
    uint64_t frame_left;     /* and of its payload: so much has to follow before another frame */
    struct control *pong;    /* the answer to a Ping, */
    struct control *later;   /* and to one that came since that was begun to be written */
    struct control *goodbye; /* a Close: behind all that waits */
};

/* What a link has whose bytes OpenSSL seals and opens. The SSL is the caller's, and lives as
 * long as the link is not dead; its BIOs are its own. */
struct tls {
    void *ssl, *into, *from;
    struct chunk *out; /* sealed, and not yet taken by its socket */
    uint32_t errors[RELAY_TLS_ERRORS]; /* OpenSSL's, of what broke it */
    float barren; /* records without data, less one for each second, */
    double since; /* as of then */
    uint8_t error_count;
    bool broken;
    bool closed; /* the peer has said that nothing more comes, */
    bool said;   /* and so have we */
};

/* What is offered to a socket. */
struct offer {
    struct iovec vector[VECTOR];
    size_t size;
    int count, heads;
    uint8_t head[VECTOR / 2][10]; /* of frames */
};

/* There are many, and most of them idle: what few of them need is better kept elsewhere. */
struct link {
    void *owner;
    const struct relay_port *port;
    struct jam *jam;      /* NULL: it has none; it has one while it is blocked */
    struct share *shares; /* of others' queues */
    struct websocket *ws; /* NULL: its bytes are packets */
    struct tls *tls;      /* NULL: nobody seals them */
    /* What goes out. */
    struct chunk *out_head, *out_tail;
    uint64_t waiting_bytes, waiting_packets;
    uint64_t most_waiting; /* bytes, while it was blocked */
    uint64_t taken; /* by its socket; taken + waiting_bytes is all that was ever queued */
    /* A packet that is not whole, or that waits for the caller: head, and the message in chunks. */
    struct chunk *in_head, *in_tail;
    uint64_t in_bytes; /* its head included */
    /* Bytes that were read and wait to be cut. */
    struct chunk *rest_head, *rest_tail;
    uint64_t rest_bytes;
    uint64_t packets_in, bytes_in, packets_out, bytes_out;
    uint64_t tell_taken; /* UINT64_MAX: nobody asks */
    double last_packet;
    struct node tick_node;  /* in a slot, or in `due` */
    struct node dirty_node; /* in `dirty`: to be written to */
    struct node work_node;  /* in `work`, `handled`, `greedy` or `asking` */
    uint32_t held; /* how many shares hold it */
    int fd;    /* -1: its peer is gone */
    uint32_t index, generation;
    uint32_t tick; /* of the wheel, its last bits */
    int16_t error; /* what it goes for once all it said is delivered, if it did not end by a FIN */
    uint16_t hint; /* bytes of its last write, or the most: the size of its next first chunk */
    uint16_t told; /* a bit for each kind of event that was not taken yet */
    uint16_t interest; /* what epoll was told; 0: it is not in the set */
    uint8_t head[HEAD]; /* of a direct link: what its peer's host had acknowledged, and conn_id */
    uint8_t state;
    bool started : 1;
    bool blocked : 1;    /* its last write took less than was offered */
    bool eased : 1;      /* it fell below its bound of packets since it is judged */
    bool suspended : 1;  /* the caller handles packets of it; the rest comes afterwards */
    bool deaf : 1;       /* it is not to be read from while it is suspended */
    bool greedy : 1;     /* it had more to say than was read at once */
    bool paused : 1;
    bool broken : 1; /* nothing more of it counts: a FIN, an illegal length, no memory */
    bool failed : 1; /* nothing more is written: a part of its stream is missing */
    bool ended : 1;  /* its FIN was read, or what its framing says instead: nothing more comes */
    bool lost : 1;   /* its socket failed; what it still has is to be read */
    bool shut : 1;
    bool reset : 1;
    bool direct : 1; /* its peer knows no packets */
    bool slowed : 1; /* it sent more than it may: it is not read from for a while */
};
_Static_assert(sizeof(struct link) <= 280, "malloc has room for 280, and then 16 more for each");

/* What a link of a port may send in a second; 0: no limit. */
struct limit {
    double packets, bytes;
};

struct pair {
    uint32_t conn_id; /* 0: free */
    uint32_t index[2];
    uint32_t generation[2];
};

/* Events that wait, in their order. */
struct ring {
    struct relay_event *events;
    size_t room, start, count;
};

struct relay {
    struct relay_config config;
    int epoll;
    int wake;     /* an eventfd, for what is left and for what happens outside of a turn */
    bool running; /* relay_go_on is yet to come */
    bool woken;
    bool late; /* the time of this turn is over */
    double now;
    double until; /* the clock's, when the turn is late */
    uint64_t turn;
    uint32_t commands_left;
    struct pool *pool;
    struct relay_totals totals;
    struct relay_port ports[RELAY_PORTS];
    int port_count;
    uint8_t *scratch; /* for what one read brings, opened, */
    uint8_t *sealed;  /* and before */
    size_t scratch_size;
    struct relay_library library;

    struct link **links; /* by index; NULL: free */
    uint32_t *free_indices;
    uint32_t link_room, link_end, free_count;
    uint32_t generation; /* of the link that came last */

    struct node dirty;   /* to be written to at the end of the turn */
    struct node work;    /* to go on as soon as there is time */
    struct node handled; /* whose packets the caller has handled */
    struct node greedy;  /* to be read from when all others were */
    struct node asking;  /* whose commands wait for room in a turn */
    struct node judged;  /* the jams of clients with too many packets waiting */
    struct node due;     /* whose deadlines are to be looked at */
    uint32_t dirty_count;

    /* Events wait in rings with room for all that the links can have, and are returned from
     * `told`. */
    struct ring events, openings; /* the latter of links that are not started */
    struct relay_event *told;
    int told_count;

    struct limit limits[RELAY_PORTS]; /* of the links of each port, */
    bool limited;                     /* if one has any */
    struct rate *rates; /* by the index of a link, as far as somebody needed one */
    uint32_t rate_room;

    struct pair *pairs; /* open addressing */
    uint32_t pair_room; /* a power of 2 */
    uint32_t pair_shift;

    struct node slots[SLOTS];
    int64_t reached; /* the last tick whose links were asked */
    int64_t trimmed;
    bool trimming; /* the last trim did not come to its end */

    struct epoll_event ready[READY];
    int ready_at, ready_count; /* those that are not served yet */
};

static inline uint32_t read_u32(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16
           | (uint32_t)data[3] << 24;
}

static inline relay_handle handle_of(const struct link *link)
{
    return (uint64_t)link->generation << 32 | (link->index + 1);
}

static inline struct link *link_at(const struct relay *relay, uint32_t index, uint32_t generation)
{
    struct link *link = index < relay->link_end ? relay->links[index] : NULL;
    return link != NULL && link->generation == generation ? link : NULL;
}

static inline struct link *find(const struct relay *relay, relay_handle handle)
{
    return link_at(relay, (uint32_t)handle - 1, (uint32_t)(handle >> 32));
}

/* It is about to be looked at: have it brought from memory meanwhile. */
static inline void fetch(const void *data, size_t size)
{
    for (size_t at = 0; at < size; at += 64)
        __builtin_prefetch((const char *)data + at, 1);
}

static inline void put_u32(uint8_t *data, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        data[i] = (uint8_t)(value >> 8 * i);
}

/* It can be written to. */
static inline bool writes(const struct link *link)
{
    return link->state != DEAD && link->fd >= 0 && !link->failed && !link->shut && !link->lost
           && !(link->tls != NULL && link->tls->said);
}

/* More may be queued for it. */
static inline bool takes(const struct link *link)
{
    return writes(link) && !link->reset && !(link->ws != NULL && link->ws->parted);
}

/* What it says counts, now. */
static inline bool may_talk(const struct link *link)
{
    return link->state == OPEN && !link->broken && !link->paused && !link->suspended
           && link->held == 0 && !link->slowed;
}

/* The packet that was collected is whole. */
static inline bool has_whole(const struct link *link)
{
    return link->in_bytes >= HEAD && link->in_bytes == 4 + (uint64_t)read_u32(link->head);
}

/* Something of it was read and has to be cut or handed up. */
static inline bool has_rest(const struct link *link)
{
    return link->rest_head != NULL || has_whole(link);
}

/* It still has to tell its peer that TLS ends here. */
static inline bool says_goodbye(const struct link *link)
{
    const struct tls *tls = link->tls;
    return tls != NULL && link->state != OPEN && !tls->said && !tls->broken && !link->reset
           && !link->failed;
}

/* Something is to be written to it. */
static inline bool has_output(const struct link *link)
{
    return link->waiting_bytes > 0
           || (link->tls != NULL && (link->tls->out != NULL || says_goodbye(link)))
           || (link->ws != NULL && (link->ws->pong != NULL || link->ws->goodbye != NULL));
}

static inline void offer(struct offer *to, const void *bytes, size_t size)
{
    to->vector[to->count].iov_base = (void *)bytes;
    to->vector[to->count++].iov_len = size;
    to->size += size;
}

static inline bool beyond(const struct link *link, uint64_t times)
{
    return link->waiting_packets / times > link->port->queue_packets
           || link->waiting_bytes / times > link->port->queue_bytes;
}

static inline bool over(const struct link *link) { return beyond(link, 1); }

/* Bytes that were read and not yet handed on: in_bytes or rest_bytes of a link. */
static inline void count_input(struct relay *relay, const struct link *link, uint64_t *which,
                               int64_t size)
{
    *which += (uint64_t)size;
    relay->totals.input_bytes += (uint64_t)size;
    if (link->port->holds)
        relay->totals.holding.input_bytes += (uint64_t)size;
}

/* turn.c */
double clock_seconds(void);
bool out_of_time(struct relay *relay);
void wake(struct relay *relay);
void tell(struct relay *relay, struct link *link, enum relay_event_kind kind, uint64_t detail,
          struct chunk *data);
void mark_dirty(struct relay *relay, struct link *link);
void go_on_soon(struct relay *relay, struct link *link);
void update_interest(struct relay *relay, struct link *link);

/* cut.c */
size_t cut(struct relay *relay, struct link *link, const uint8_t *data, size_t size);
void hand_up(struct relay *relay, struct link *link, enum relay_event_kind kind,
             const uint8_t *data, size_t size);

/* queue.c */
bool queue_bytes(struct relay *relay, struct link *link, const uint8_t *data, size_t size,
                 uint32_t packets, bool force);
bool queue_packet(struct relay *relay, struct link *link, const uint8_t *head,
                  const uint8_t *data, size_t size);
bool queue_messages(struct relay *relay, struct link *link, const uint8_t *data, size_t size,
                    bool force);
bool queue_shared(struct relay *relay, struct link *link, const uint8_t *head,
                  struct chunk *message);
void queue_chunks(struct relay *relay, struct link *link, struct chunk *head, struct chunk *tail,
                  uint64_t size, uint32_t packets);
void take(struct relay *relay, struct link *link, size_t size);
void drop_output(struct relay *relay, struct link *link);
void write_link(struct relay *relay, struct link *link);
void write_later(struct relay *relay, struct link *link);
void judge(struct relay *relay);
void clear_jam(struct link *link);
bool took_more(struct link *link);
uint64_t bytes_acked(const struct link *link);

/* socket.c */
ssize_t read_raw(struct link *link, void *data, size_t size);
ssize_t write_raw(struct link *link, const void *data, size_t size);
ssize_t read_socket(struct relay *relay, struct link *link, uint8_t *data, size_t size, bool *full);
ssize_t write_socket(struct relay *relay, struct link *link, struct offer *offer, bool *all);

/* tls.c */
ssize_t tls_read(struct relay *relay, struct link *link, uint8_t *data, size_t size, bool *full);
ssize_t tls_write(struct relay *relay, struct link *link, const struct offer *offer, bool *all);
void drop_sealed(struct relay *relay, struct link *link);

/* websocket.c */
struct websocket *ws_new(uint64_t before);
void ws_free(struct websocket *ws);
size_t ws_unwrap(struct websocket *ws, uint8_t *data, size_t size, uint64_t limit);
void ws_offer(const struct link *link, struct offer *to);
size_t ws_sent(struct link *link, size_t sent);
void ws_silence(struct websocket *ws);
size_t unwrap(struct relay *relay, struct link *link, uint8_t *data, size_t size);
void unwrap_rest(struct relay *relay, struct link *link);
enum relay_end ws_end(const struct link *link, enum relay_end how);

/* hold.c */
bool account(struct relay *relay, struct link *from, struct link *to, uint64_t size);
bool hold_for_itself(struct relay *relay, struct link *link);
void let_go_drained(struct relay *relay, struct link *to);
void forget_senders(struct relay *relay, struct link *to);
void forget_shares(struct relay *relay, struct link *from);

/* rate.c */
void charge(struct relay *relay, struct link *link, uint64_t packets, uint64_t bytes);
size_t cut_at_rate(struct relay *relay, struct link *link, const uint8_t *data, size_t size);
void speed_up(struct relay *relay, struct link *link);
void look_at_rate(struct relay *relay, struct link *link);

/* end.c */
bool keep(struct relay *relay, struct link *link, const uint8_t *data, size_t size);
void drop_rest(struct relay *relay, struct link *link, size_t size);
void drop_input(struct relay *relay, struct link *link);
void die(struct relay *relay, struct link *link, int error);
void fail(struct relay *relay, struct link *link, enum relay_event_kind kind);
void lose_socket(struct relay *relay, struct link *link, int error);
void close_lost(struct relay *relay, struct link *link);
void close_early(struct relay *relay, struct link *link);
void hear_end(struct relay *relay, struct link *link);
void end_if_done(struct relay *relay, struct link *link);

/* memory.c */
bool make_room(struct relay *relay, uint64_t size);
struct chunk *get_chunk(struct relay *relay, struct link *asking, size_t size);

/* wheel.c */
void watch(struct relay *relay, struct link *link, double when);
void forget_tick(struct relay *relay, struct link *link);
void check(struct relay *relay, struct link *link);
void check_due(struct relay *relay);
void turn_wheel(struct relay *relay);
void trim(struct relay *relay);

/* pairs.c */
void fetch_pair(const struct relay *relay, uint32_t conn_id);
void fetch_end(const struct relay *relay, const struct link *link, uint32_t conn_id);
struct link *other_end(const struct relay *relay, const struct link *link, uint32_t conn_id);

#endif
