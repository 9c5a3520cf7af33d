/* The relay: moves packets between the connections that it was given.
 *
 * Law: it moves bytes, keeps every queue bounded and writes down times; it decides nothing. Who
 * talks to whom it is told by relay_pair. What it cannot forward, and every link that has to go,
 * it reports as events and waits for the answer. No Python here, no globals, one thread for an
 * instance. Linux only (epoll).
 *
 * A turn: relay_run (or relay_sweep) reads, forwards, writes, and returns how many events there
 * are, a bounded number. The caller copies them, calls relay_clear_events, handles them, and
 * calls relay_go_on. What a turn has no time for comes first in the next one; relay_fd is
 * readable until then.
 *
 *     packet = length:u32 conn_id:u32 message      little-endian, length = 4 + size of the message
 *     Ping   = a packet with conn_id 0 whose message begins with 5; it is answered here
 *
 * All counts but bytes_in are of packets and their bytes, whatever they stand in; bytes_in is of what
 * TLS opened.
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

/* What all links together may do. */
struct relay_config {
    struct pool_config pool;
    uint32_t commands_each; /* packets of one link that are handed up in one turn, at least 1 */
    uint32_t commands_turn; /* of all links, at least 1 */
    uint32_t events_turn;   /* events of one turn, at least 1, */
    uint32_t openings_turn; /* and besides of links that are not started, which come after all
                               others: at least 1 */
    /* Bytes that one sender may have in the queue of a link that holds: `shares` divided by the
     * number of senders, but at least share_least, at most share_most. */
    uint64_t share_least, share_most, shares;
    double turn_seconds; /* no socket is read from later than that in a turn */
};

/* The bounds of the links of one port. Times are in seconds, 0 is never. */
struct relay_port {
    uint64_t max_packet;   /* the largest length field, at most RELAY_MAX_PACKET */
    uint64_t read_size;    /* bytes of one read, at most RELAY_MAX_READ */
    double idle_timeout;   /* without a complete packet */
    uint64_t queue_packets;
    uint64_t queue_bytes;  /* also of what was read and cannot be handed on, once its peer ended */
    double write_timeout;  /* while its socket takes nothing */
    bool holds;            /* over its bounds a link holds its senders; else it is lost */
    uint64_t frame_limit;  /* bytes that a frame of RELAY_WEBSOCKET may announce */
    bool answers;          /* whose peer has ended is told things all the same, before RELAY_FIN */
};

#define RELAY_MAX_PACKET (1u << 30)
#define RELAY_MAX_READ (16u << 20)

enum relay_event_kind {
    RELAY_PACKETS,   /* data: whole packets that are the caller's to handle, in order */
    RELAY_BYTES,     /* data: what came on a link that is not started */
    RELAY_FIN,       /* its peer has ended; all that came before has been handled */
    RELAY_GONE,      /* its socket is closed, detail: errno, 0 if in order; release it */
    RELAY_BROKEN,    /* detail: a length field that is not legal */
    RELAY_IDLE,      /* no complete packet for the idle timeout */
    RELAY_STUCK,     /* took nothing for the write timeout */
    RELAY_OVER,      /* more waited for it than its port allows: nothing more is written to it.
                        Its counts still say how much; detail: the bytes */
    RELAY_TAKEN,     /* its socket took what relay_tell_taken asked for; detail: relay_taken */
    RELAY_NO_MEMORY, /* there was no memory for it: part of its stream is missing */
    RELAY_MISFRAMED, /* it broke the rules of its framing; detail: see enum relay_rule */
    RELAY_KINDS,
};

struct relay_event {
    relay_handle handle;
    void *owner;
    enum relay_event_kind kind;
    uint64_t detail;
    struct chunk *data; /* NULL but for PACKETS and BYTES; the event's */
};

/* What the packets of a link stand in, in both directions. */
enum relay_framing {
    RELAY_PLAIN,     /* nothing */
    RELAY_WEBSOCKET, /* messages of RFC 6455, of which this is the server: one stream, whatever the
                        messages and frames are. It tells of RELAY_FIN for a Close too */
};

/* Rules that a peer can break; `detail` of RELAY_MISFRAMED is one of these, and of a reserved opcode
 * that in the bits from 8; with its highest bit set it is the length of a frame over the limit. */
enum relay_rule {
    RELAY_KEPT,
    RELAY_RESERVED_BIT,
    RELAY_RESERVED_OPCODE,
    RELAY_CONTROL_IN_FRAGMENTS,
    RELAY_MESSAGE_INSIDE,
    RELAY_NOTHING_TO_CONTINUE,
    RELAY_TEXT,
    RELAY_NO_MASK,
    RELAY_LONG_CONTROL,
    RELAY_LENGTH_FORM,
    RELAY_CLOSE_CODE,
    RELAY_CLOSE_TEXT,
};
#define RELAY_FRAME_TOO_LARGE (UINT64_C(1) << 63)

enum relay_end {
    RELAY_ABORT, /* write nothing more, and reset at the end of the turn */
    RELAY_CLOSE, /* read no more; close when all is written */
    RELAY_HALF,  /* send a FIN when all is written, and read on, into nothing, until the peer's */
};

struct relay_counts {
    uint64_t packets_in; /* only those that were forwarded or answered in here */
    uint64_t bytes_in;
    uint64_t packets_out;
    uint64_t bytes_out;
    uint64_t waiting_packets; /* queued for it, not yet taken by its socket */
    uint64_t waiting_bytes;
    uint64_t input_bytes; /* read from it and not yet forwarded or handed up */
    bool held;            /* not read from, because a link that it sends to has to drain first, or
                             because it sent more than it may */
    uint64_t most_waiting; /* the most bytes that ever waited because its socket took no more */
};

struct relay_totals {
    uint64_t packets; /* forwarded in here since the start */
    uint64_t bytes;
    uint64_t pings; /* answered */
    uint64_t holds; /* how often a link was not read from because another had to drain */
    uint64_t links; /* now, and so on */
    uint64_t pairs;
    uint64_t waiting_packets;
    uint64_t waiting_bytes;
    uint64_t input_bytes;
    uint64_t held;
    uint64_t shed; /* links that went because the memory limit was met, since the start */
    uint64_t slows;  /* how often a link was not read from because it sent more than it may */
    uint64_t slowed; /* now */
    struct { /* of what waits, that for links of ports that hold */
        uint64_t waiting_packets;
        uint64_t waiting_bytes;
        uint64_t input_bytes;
    } holding;
};

struct relay;

/* NULL: errno tells (EINVAL: the configuration is nonsense). */
struct relay *relay_new(const struct relay_config *config);
/* Closes all links; their owners are not told. */
void relay_free(struct relay *relay);

/* Readable when relay_run has something to do. */
int relay_fd(const struct relay *relay);

/* Bytes of chunks in use at a time; 0: no limit. Who holds most goes first when it is met. */
void relay_limit(struct relay *relay, uint64_t bytes);

/* Add a port; returns its number, or -1: errno tells (EINVAL: nonsense; ENOSPC: there are
 * RELAY_PORTS already). */
#define RELAY_PORTS 256
int relay_port(struct relay *relay, const struct relay_port *config);

/* What each link of a port may send in a second, from now on: over it, it is not read from for a
 * while. 0: no limit. -1: EINVAL. */
int relay_rate(struct relay *relay, int port, double packets, double bytes);

/* Take one connection that waits; returns its socket, which is non-blocking and the caller's, or
 * -1: errno tells. One whose descriptor is above `most` is closed at once: EUSERS. `peer`: who it
 * is. */
int relay_take(int listening, int most, struct sockaddr_storage *peer);
/* Close such a socket with a reset: nothing is left of the connection, here and in the kernel. */
void relay_refuse(int fd);
/* Make a connected, non-blocking socket a link that is not started, with TCP_NODELAY; it belongs to
 * the relay unless 0 is returned: errno tells. */
relay_handle relay_adopt(struct relay *relay, int fd, int port, double now);
void relay_set_owner(struct relay *relay, relay_handle handle, void *owner);

/* Before relay_start: its peer knows no packets. Then each read of it is one over `conn_id`, at most
 * read_size and what max_packet allows, and of what is sent to it the messages alone are written,
 * bare; empty ones are nothing. It is idle when it neither said nor took anything. */
void relay_direct(struct relay *relay, relay_handle handle, uint32_t conn_id);
/* From now on its bytes are packets in a framing; `data` came before, and what was sent and waits
 * is not framed any more. */
void relay_start(struct relay *relay, relay_handle handle, const void *data, size_t size,
                 enum relay_framing framing, double now);

/* OpenSSL's functions of these names; nothing here is linked to it. */
struct relay_library {
    int (*SSL_read)(void *ssl, void *data, int size);
    int (*SSL_write)(void *ssl, const void *data, int size);
    int (*SSL_get_error)(void *ssl, int result);
    int (*SSL_shutdown)(void *ssl);
    int (*SSL_do_handshake)(void *ssl);
    int (*BIO_read)(void *bio, void *data, int size);
    int (*BIO_write)(void *bio, const void *data, int size);
    long (*BIO_get_mem_data)(void *bio, char **data);
    void *(*BIO_new)(const void *method);
    const void *(*BIO_s_mem)(void);
    void (*SSL_set_bio)(void *ssl, void *into, void *from); /* which frees what it had of others */
    unsigned long (*ERR_get_error)(void);
    void (*ERR_clear_error)(void);
};

void relay_library(struct relay *relay, const struct relay_library *library);

/* From now on what comes on a link that is not started is opened, and what is sent is sealed, by
 * an SSL whose handshake is over and which returns after each record (no SSL_MODE_AUTO_RETRY), and
 * its memory BIOs, which may be replaced. It is the caller's, and lives until RELAY_GONE. `data`
 * came already, and what was sent before is not sealed. Bytes of the handshake do not count as
 * bytes_in. False: no such link, or it has TLS, or there is no library. */
bool relay_tls(struct relay *relay, relay_handle handle, void *ssl, void *into, void *from,
               const void *data, size_t size);
/* Of a link that is gone by EPROTO: OpenSSL's codes for what was wrong, the first it told first;
 * returns how many, perhaps none. */
#define RELAY_TLS_ERRORS 4
/* None of OpenSSL's: too many records came in which no data was (new keys, and the like). */
#define RELAY_TLS_BARREN UINT32_MAX
int relay_tls_errors(const struct relay *relay, relay_handle handle,
                     uint32_t codes[RELAY_TLS_ERRORS]);

/* Packets of `conn_id` from either go to the other. False: no memory, or no such links; then
 * they are reported as events. */
bool relay_pair(struct relay *relay, uint32_t conn_id, relay_handle one, relay_handle other);
void relay_unpair(struct relay *relay, uint32_t conn_id);

/* Queue bytes for a link; written at the end of the turn, also over the memory limit. `packets`:
 * how many whole packets they are; 0 before it is started. True: its socket takes nothing, and
 * much waits for it. */
bool relay_send(struct relay *relay, relay_handle handle, const void *data, size_t size,
                uint32_t packets);

/* The same of one packet for many links; those that are nobody's, or were closed, are passed over.
 * From 4 KiB on there is one copy for all. Returns how many are to get it. */
size_t relay_send_each(struct relay *relay, const relay_handle *handles, size_t count,
                       const void *data, size_t size);

/* Forward a message of a link over many virtual connections, as if it had sent it over each; it
 * counts as no packet that came. At most 2^30 bytes. Those over which it did not go, because they
 * are none of this link's in here or their other end takes nothing more, come to the front of
 * `conn_ids`; returns how many they are. */
size_t relay_multicast(struct relay *relay, relay_handle handle, uint32_t *conn_ids, size_t count,
                       const void *message, size_t size);

/* Bytes that wait for it, for the end of a turn or for its socket. */
uint64_t relay_waiting(const struct relay *relay, relay_handle handle);
/* Its socket takes nothing, and more waits for it than its port allows; than twice that. */
bool relay_over(const struct relay *relay, relay_handle handle);
bool relay_saturated(const struct relay *relay, relay_handle handle);

/* Stop reading from a link, and begin again; its idle time then begins anew. */
void relay_pause(struct relay *relay, relay_handle handle);
void relay_resume(struct relay *relay, relay_handle handle, double now);

/* While RELAY_BYTES of a link that is not started is handled: it is handled when relay_handled says
 * so. Until then nothing more of the link is reported but its end by relay_close. */
void relay_defer(struct relay *relay, relay_handle handle);
void relay_handled(struct relay *relay, relay_handle handle);

/* Bytes ever queued for a link, and of those what its socket took. */
uint64_t relay_added(const struct relay *relay, relay_handle handle);
uint64_t relay_taken(const struct relay *relay, relay_handle handle);
/* Report RELAY_TAKEN once it has taken so much; of several the first. */
void relay_tell_taken(struct relay *relay, relay_handle handle, uint64_t position);

/* What the framing of a link tells its peer behind all that was queued; relay_close follows, and
 * is RELAY_HALF then, so that the peer gets to read it, unless the peer has ended. `code` is that
 * of a WebSocket, `text` UTF-8, of which at most 123 bytes are sent. */
void relay_farewell(struct relay *relay, relay_handle handle, uint16_t code, const char *text);
/* End a link; RELAY_GONE follows. */
void relay_close(struct relay *relay, relay_handle handle, enum relay_end how);
/* After RELAY_GONE: forget it; returns its owner. */
void *relay_release(struct relay *relay, relay_handle handle);

/* One turn; returns how many events there are. */
int relay_run(struct relay *relay, double now);
/* Those whose packets were handed up go on, and what was sent is written. */
void relay_go_on(struct relay *relay, double now);
/* To be called every RELAY_TICK seconds: deadlines, and the pool. */
#define RELAY_TICK 0.1
int relay_sweep(struct relay *relay, double now);
/* No link, and no memory to give back: relay_sweep need not be called. */
bool relay_rests(const struct relay *relay);
const struct relay_event *relay_events(const struct relay *relay);
void relay_clear_events(struct relay *relay);

/* What follows is false, or -1, for a handle that is nobody's. */
bool relay_counts(const struct relay *relay, relay_handle handle, struct relay_counts *out);
/* -1 also for one whose peer is gone. */
int relay_socket(const struct relay *relay, relay_handle handle);

void relay_totals(const struct relay *relay, struct relay_totals *out);
const struct pool *relay_pool(const struct relay *relay);
/* All owners, one after the other: `*place` starts at 0; NULL at the end. */
void *relay_next_owner(const struct relay *relay, uint32_t *place);

#endif
