/* A relay with links over TCP, whose system calls are counted and can be made to fail; the tests
 * of the core lie on it. */
#ifndef BED_H
#define BED_H

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "inside.h"
#include "sums.h"

#define ENDS 8
#define LAST 256
#define MAX_PACKET 100000

struct calls {
    unsigned sends, vectors, recvs, controls;
    size_t asked;       /* by the last recv */
    unsigned interrupt; /* every so many calls */
    unsigned calls;
    int fail_send;      /* errno of the next send, */
    int fail_sends;     /* and of all, */
    unsigned spared;    /* so many before them aside */
    unsigned send_most; /* bytes of each send; 0: all */
    int fail_control;   /* errno of all epoll_ctl that would add or change */
    double step;        /* seconds by which each look at the clock turns it */
    int fail_calloc;    /* the how many-th from now */
};

struct end {
    relay_handle handle;
    int peer;
};

extern struct calls calls;
extern struct relay *relay;
extern double now;
extern struct end ends[ENDS];
extern struct relay_event last[LAST]; /* of the last turn; data points into `kept` */
extern uint8_t kept[1 << 20];
extern size_t kept_size;
extern int last_count;
extern int listening;
extern struct sockaddr_storage accepted; /* who was accepted last */

extern const struct relay_config plain_config;
extern const struct relay_port plain_port;

/* Two ports: 0 for clients, 1 for servers, which holds. */
void begin(const struct relay_config *config, const struct relay_port *clients);
void end(void);
/* Links over TCP, so that there are resets. Even ones are clients, odd ones servers. */
void add(int which);
int dial(void); /* a peer that is not accepted yet */
relay_handle take_in(int port); /* one of those, as a link that is not started; 0: errno tells */
size_t make(uint8_t *to, uint32_t conn_id, size_t size, uint8_t fill);
void say(int which, const void *data, size_t size);
void say_packet(int which, uint32_t conn_id, size_t size, uint8_t fill);
size_t hear(int which, uint8_t *data, size_t room);
void break_off(int which); /* with a reset */
/* A turn, with nothing answered; the events are in `last`. */
void turn(void);
void sweep(double seconds);
void run(void); /* as turn, but the links do not go on */
bool told(int which, enum relay_event_kind kind);
struct relay_counts counts(int which);
struct link *link_of(int which);
struct relay_totals totals(void);
/* Have `from` send until the queue of `to`, which does not read, is blocked. */
void block(int from, int to, uint32_t conn_id);
bool readable(void); /* relay_fd, now */

/* Turns until something is so; packets need their time. */
#define UNTIL(truth) \
    do { \
        for (int turns = 0; turns < 3000 && !(truth); turns++) \
            turn(); \
        CHECK(truth); \
    } while (0)

#endif
