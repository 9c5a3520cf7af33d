/* The relay: moves packets between the connections that it was given.
 *
 * Law: it moves bytes, keeps every queue bounded and writes down times; it decides nothing. Who
 * talks to whom it is told by relay_pair. What it cannot forward, and every link that has to go,
 * it reports as events and waits for the answer. No Python here, no globals, one thread for an
 * instance. Linux only (epoll).
 *
 * A turn: relay_run (or relay_sweep) reads, forwards and returns how many events there are. The
 * caller copies them, calls relay_clear_events, handles them, and calls relay_continue, which does
 * the rest of the turn, until that returns 0. At the end of a turn each link that was sent to is
 * written to once.
 *
 *     packet = length:u32 conn_id:u32 message      little-endian, length = 4 + size of the message
 */
#ifndef FASTWAY_RELAY_H
#define FASTWAY_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "pool.h"

/* A link, as long as it is not released; afterwards it is nobody's. 0 is never one. */
typedef uint64_t relay_handle;

/* The bounds of the links of one port. Times are in seconds, 0 is never. */
struct relay_port {
    uint32_t max_packet; /* the largest length field */
    uint32_t read_size;  /* bytes of one read; what may be on its way before a link is full */
    double idle_timeout; /* without a complete packet */
    uint64_t queue_packets;
    uint64_t queue_bytes;
    double write_timeout; /* while a full link takes nothing */
    bool holds;           /* over its bounds a link holds its senders; else it is reported */
};

enum relay_event_kind {
    RELAY_PACKETS,   /* data: whole packets that are the caller's to handle, in order */
    RELAY_BYTES,     /* data: what came on a link that is not started */
    RELAY_FIN,       /* its peer has ended; all that came before has been handled */
    RELAY_GONE,      /* its socket is closed, detail: errno, 0 if in order; release it */
    RELAY_BROKEN,    /* detail: a length field that is not legal */
    RELAY_IDLE,      /* no complete packet for the idle timeout */
    RELAY_STUCK,     /* took nothing for the write timeout */
    RELAY_OVER,      /* more waits for it than its port allows (a port that does not hold) */
    RELAY_DRAINED,   /* below half of its bounds, after relay_tell_drained */
    RELAY_NO_MEMORY, /* the pool had no chunk for it: part of its stream is missing */
};

struct relay_event {
    relay_handle handle;
    void *owner;
    enum relay_event_kind kind;
    uint64_t detail;
    struct chunk *data; /* NULL but for PACKETS and BYTES; the event's */
};

enum relay_end {
    RELAY_ABORT, /* write nothing more, and reset at the end of the turn */
    RELAY_CLOSE, /* read no more; close when all is written */
    RELAY_HALF,  /* send a FIN when all is written, and read on, into nothing, until the peer's */
};

struct relay_counts {
    uint64_t packets_in; /* only those that were forwarded in here */
    uint64_t bytes_in;
    uint64_t packets_out;
    uint64_t bytes_out;
    uint64_t waiting_packets;
    uint64_t waiting_bytes;
    bool held;
    bool drained; /* all on its way was taken since relay_forget_drained */
};

struct relay_totals {
    uint64_t packets; /* forwarded in here since the start */
    uint64_t bytes;
    uint64_t holds; /* how often a link was not read from because another had to drain */
    uint64_t links; /* now */
    uint64_t pairs; /* now */
};

struct relay;

/* NULL: errno tells (EINVAL: the pool's configuration). */
struct relay *relay_new(const struct pool_config *pool);
/* Closes all links; their owners are not told. */
void relay_free(struct relay *relay);

/* Readable when relay_run has something to do. */
int relay_fd(const struct relay *relay);

/* Add a port; returns its number, or -1 without memory. At most RELAY_PORTS. */
#define RELAY_PORTS 16
int relay_port(struct relay *relay, const struct relay_port *config);

/* Accept one connection as a link that is not started, with TCP_NODELAY; 0: errno tells. */
relay_handle relay_accept(struct relay *relay, int listening, int port, double now);
/* The same for a connected, non-blocking socket, which then belongs to the relay. */
relay_handle relay_adopt(struct relay *relay, int fd, int port, double now);
void relay_set_owner(struct relay *relay, relay_handle handle, void *owner);

/* From now on its bytes are packets; `data` came before. */
void relay_start(struct relay *relay, relay_handle handle, const void *data, size_t size,
                 double now);

/* Packets of `conn_id` from either go to the other. False: no memory, or no such links; then
 * they are reported as events. */
bool relay_pair(struct relay *relay, uint32_t conn_id, relay_handle one, relay_handle other);
void relay_unpair(struct relay *relay, uint32_t conn_id);

/* Queue bytes for a link; written at the end of the turn. `packets`: how many whole packets they
 * are; 0 before it is started. */
void relay_send(struct relay *relay, relay_handle handle, const void *data, size_t size,
                uint32_t packets);

/* More waits for it than its port allows. */
bool relay_over(struct relay *relay, relay_handle handle);

/* Stop reading from a link, and begin again; its idle time then begins anew. */
void relay_pause(struct relay *relay, relay_handle handle);
void relay_resume(struct relay *relay, relay_handle handle, double now);

/* Report RELAY_DRAINED once it is below half of its bounds. */
void relay_tell_drained(struct relay *relay, relay_handle handle);
void relay_forget_drained(struct relay *relay, relay_handle handle);

/* End a link; RELAY_GONE follows. */
void relay_close(struct relay *relay, relay_handle handle, enum relay_end how);
/* After RELAY_GONE: forget it; returns its owner. */
void *relay_release(struct relay *relay, relay_handle handle);

int relay_run(struct relay *relay, double now);
int relay_continue(struct relay *relay, double now);
/* To be called every RELAY_TICK seconds while there are links: deadlines, and the pool. */
#define RELAY_TICK 0.1
int relay_sweep(struct relay *relay, double now);
const struct relay_event *relay_events(const struct relay *relay);
void relay_clear_events(struct relay *relay);

/* What follows is false, or -1, for a handle that is nobody's. */
bool relay_counts(const struct relay *relay, relay_handle handle, struct relay_counts *out);
bool relay_peer(const struct relay *relay, relay_handle handle, struct sockaddr_storage *out);
int relay_socket(const struct relay *relay, relay_handle handle);

void relay_totals(const struct relay *relay, struct relay_totals *out);
const struct pool *relay_pool(const struct relay *relay);
/* All owners, one after the other: `*place` starts at 0; NULL at the end. */
void *relay_next_owner(const struct relay *relay, uint32_t *place);

#endif
