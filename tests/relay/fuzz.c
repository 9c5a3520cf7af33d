/* Whatever peers do, and however the caller answers, the relay reads and writes nothing that is
 * not its own, hands up whole packets only, and holds nothing once all links are gone.
 *
 * LLVMFuzzerTestOneInput takes a day as a string of bytes: each says who does what. With
 * -DSTANDALONE a main makes random days for a number of seconds, so that any compiler's sanitizers
 * can run it; with files as arguments it runs those.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"
#include "relay.h"
#include "sums.h"
#include "toy.h"

/* The core with system calls that are interrupted, cut short and refused now and then. */
static unsigned calls;
static uint64_t ticks;
static bool directs; /* some links know no packets */
static bool refuses; /* what adds links, and room for them, works */
static bool calm; /* a turn has all the time that it needs */

ssize_t test_recv(int fd, void *data, size_t size, int flags)
{
    calls++;
    if (calls % 89 == 0 || calls % 7 == 0) {
        errno = calls % 89 == 0 ? ECONNRESET : EINTR;
        return -1;
    }
    return recv(fd, data, calls % 5 ? size : 1 + size / 3, flags);
}

ssize_t test_send(int fd, const void *data, size_t size, int flags)
{
    calls++;
    if (calls % 97 == 0 || calls % 11 == 0) {
        errno = calls % 97 == 0 ? EPIPE : calls % 2 ? EINTR : ENOBUFS;
        return -1;
    }
    return send(fd, data, calls % 5 ? size : 1 + size / 3, flags);
}

ssize_t test_sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct msghdr some = *message;
    if (++calls % 11 == 0) {
        errno = calls % 2 ? EINTR : EAGAIN;
        return -1;
    }
    if (calls % 3 == 0)
        some.msg_iovlen = 1;
    return sendmsg(fd, &some, flags);
}

int test_epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    if (++calls % 13 == 0) {
        errno = EINTR;
        return -1;
    }
    return epoll_wait(fd, events, calls % 5 ? count : 1, timeout);
}

int test_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    if (refuses && operation != EPOLL_CTL_DEL && ++calls % 61 == 0) {
        errno = ENOSPC;
        return -1;
    }
    return epoll_ctl(epoll, operation, fd, event);
}

/* Each look at the clock may be the one at which the turn is over. */
int test_clock_gettime(clockid_t clock, struct timespec *now)
{
    (void)clock;
    if (!calm)
        ticks += ++calls % 3 == 0 ? 100 : 1;
    *now = (struct timespec){(time_t)(ticks / 1000), (long)(ticks % 1000) * 1000000};
    return 0;
}

void *test_calloc(size_t count, size_t size)
{
    return refuses && ++calls % 53 == 0 ? NULL : calloc(count, size);
}

#define LINKS 6
#define CONNS 8
#define MAX_PACKET 3000
#define EVENTS_TURN 5
#define OPENINGS_TURN 3
#define QUIET_TURNS 5000 /* many are of few bytes */

/* Links with frames; the last one may get them when it is started. */
#define WEB(which) (webs && ((which) == 2 || (which) == 3))
static bool webs = true;

/* Links with TLS; the last one may get it when it is started. */
#define SEALED(which) (webs && ((which) == 3 || (which) == 4))

/* How far into a server's frames a peer has heard. */
struct ear {
    uint8_t head[4];
    size_t head_size, left;
    bool control, closed;
};

struct day {
    const uint8_t *data;
    size_t size, at;
    struct relay *relay;
    relay_handle handles[LINKS]; /* 0: none */
    int peers[LINKS];            /* -1: the peer is gone */
    struct ear ears[LINKS];
    struct toy *toys[LINKS]; /* NULL: no TLS */
    struct toy *far[LINKS];  /* that of the peer, who hears */
    double now;
    uint8_t answer; /* how the caller answers events */
};

static uint8_t next_byte(struct day *day) { return day->at < day->size ? day->data[day->at++] : 0; }

static void put_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get_u32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16
           | (uint32_t)from[3] << 24;
}

static void end_link(struct day *day, relay_handle handle, uint8_t how)
{
    if (how & 4)
        relay_farewell(day->relay, handle, (uint16_t)(1000 + how), "the day is over");
    relay_close(day->relay, handle, (enum relay_end)(how % 3));
}

/* From now on it has TLS, if it is there. */
static void shake_hands(struct day *day, int which, const uint8_t *data, size_t size)
{
    struct toy *toy = toy_new();
    toy->piece = day->answer % 2 ? 0 : 7u * day->answer; /* of 0: all */
    bool refused = refuses;
    refuses = false;
    if (relay_tls(day->relay, day->handles[which], toy, toy->into, toy->from, data, size))
        day->toys[which] = toy;
    else
        toy_free(toy);
    refuses = refused;
}

static void handle_event(struct day *day, const struct relay_event *event, const uint8_t *data,
                         size_t size)
{
    struct relay *relay = day->relay;
    int *peer = event->owner;
    long which = peer - day->peers;
    CHECK(which >= 0 && which < LINKS && day->handles[which] == event->handle);
    day->answer = (uint8_t)(day->answer * 5 + 3);
    switch (event->kind) {
    case RELAY_GONE:
        CHECK(relay_release(relay, event->handle) == peer);
        CHECK(relay_release(relay, event->handle) == NULL);
        day->handles[which] = 0;
        toy_free(day->toys[which]);
        day->toys[which] = NULL;
        break;
    case RELAY_PACKETS:
        for (size_t at = 0; at < size;) {
            CHECK(size - at >= 8);
            uint32_t length = get_u32(data + at), conn_id = get_u32(data + at + 4);
            CHECK(length >= 4 && length <= MAX_PACKET && size - at - 4 >= length);
            if (conn_id == 0 && day->answer % 2)
                relay_send(relay, event->handle, data + at, 4 + length, 1);
            else if (conn_id <= CONNS && day->answer % 3 == 0)
                relay_pair(relay, conn_id, event->handle, day->handles[day->answer % LINKS]);
            else if (day->answer % 16 == 1)
                end_link(day, event->handle, day->answer >> 4);
            at += 4 + length;
        }
        break;
    case RELAY_BYTES:
        CHECK(size > 0);
        if (webs && day->toys[which] == NULL && day->answer % 4 == 1) {
            shake_hands(day, (int)which, data, size);
            break;
        }
        relay_start(relay, event->handle, data, size,
                    webs && day->answer % 2 ? RELAY_WEBSOCKET : RELAY_PLAIN, day->now);
        break;
    case RELAY_MISFRAMED:
        CHECK(webs && event->detail != 0);
        end_link(day, event->handle, RELAY_CLOSE | 4);
        break;
    case RELAY_BROKEN:
        CHECK(event->detail < 4 || event->detail > MAX_PACKET);
        end_link(day, event->handle, RELAY_CLOSE);
        break;
    case RELAY_OVER: {
        struct relay_counts counts;
        CHECK(relay_counts(relay, event->handle, &counts));
        CHECK(event->detail > 0);
        CHECK(counts.waiting_bytes == event->detail || counts.waiting_bytes == 0); /* closed */
        end_link(day, event->handle, RELAY_ABORT);
        break;
    }
    case RELAY_TAKEN:
        CHECK(event->detail <= relay_taken(relay, event->handle));
        if (day->answer % 2)
            relay_tell_taken(relay, event->handle, event->detail + day->answer);
        break;
    default:
        end_link(day, event->handle, day->answer);
    }
}

static void handle_events(struct day *day, int count)
{
    struct relay *relay = day->relay;
    CHECK(count <= EVENTS_TURN + OPENINGS_TURN);
    check_sums(relay, 0);
    if (count > 0) {
        /* Copies of the exact size, so that a read past the end is one past an allocation. */
        struct relay_event *events = malloc((size_t)count * sizeof *events);
        uint8_t **data = calloc((size_t)count, sizeof *data);
        size_t *sizes = calloc((size_t)count, sizeof *sizes);
        memcpy(events, relay_events(relay), (size_t)count * sizeof *events);
        for (int i = 0; i < count; i++) {
            if (events[i].data == NULL)
                continue;
            sizes[i] = events[i].data->end;
            data[i] = malloc(sizes[i]);
            memcpy(data[i], chunk_bytes(events[i].data), sizes[i]);
        }
        relay_clear_events(relay);
        for (int i = 0; i < count; i++)
            if (day->handles[(int *)events[i].owner - day->peers] == events[i].handle)
                handle_event(day, &events[i], data[i], sizes[i]);
        for (int i = 0; i < count; i++)
            free(data[i]);
        free(data);
        free(sizes);
        free(events);
        relay_go_on(relay, day->now);
    }
    check_sums(relay, 1);
}

static void lose_peer(struct day *day, int which)
{
    if (day->peers[which] >= 0)
        close(day->peers[which]);
    day->peers[which] = -1;
}

static void make_link(struct day *day, int which)
{
    int pair[2], small = 1;
    if (day->handles[which] != 0)
        return;
    lose_peer(day, which);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    bool refused = refuses;
    refuses = false;
    day->handles[which] = relay_adopt(day->relay, pair[0], which % 2, day->now);
    refuses = refused;
    CHECK(day->handles[which] != 0);
    day->peers[which] = pair[1];
    memset(&day->ears[which], 0, sizeof day->ears[which]);
    relay_set_owner(day->relay, day->handles[which], &day->peers[which]);
    if (SEALED(which)) {
        toy_free(day->far[which]);
        day->far[which] = toy_new();
        day->far[which]->patient = 1;
        shake_hands(day, which, NULL, 0);
        CHECK(day->toys[which] != NULL);
    }
    if (directs && which % 2 != 0) /* with one that is paired so from the beginning, mostly */
        relay_direct(day->relay, day->handles[which], (uint32_t)which);
    if (directs && which == 0)
        relay_direct(day->relay, day->handles[which], 4);
    if (which != 5)
        relay_start(day->relay, day->handles[which], NULL, 0,
                    WEB(which) ? RELAY_WEBSOCKET : RELAY_PLAIN, day->now);
}

/* A frame of a client; its mask is made of its size. */
static size_t frame_of(uint8_t *to, uint8_t first, const uint8_t *payload, size_t size)
{
    size_t at = 2;
    to[0] = first;
    to[1] = (uint8_t)(0x80 | (size < 126 ? size : 126));
    if (size >= 126) {
        to[at++] = (uint8_t)(size >> 8);
        to[at++] = (uint8_t)size;
    }
    put_u32(to + at, (uint32_t)size * 2654435769u);
    at += 4;
    for (size_t i = 0; i < size; i++)
        to[at + i] = payload[i] ^ to[at - 4 + (i & 3)];
    return at + size;
}

static void say_raw(struct day *day, int which, const uint8_t *data, size_t size)
{
    if (day->peers[which] >= 0 && size > 0)
        (void)!send(day->peers[which], data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Say bytes, in records of many sizes where there is TLS. */
static void say(struct day *day, int which, const uint8_t *data, size_t size)
{
    static uint8_t records[8 * MAX_PACKET];
    if (day->toys[which] == NULL) {
        say_raw(day, which, data, size);
        return;
    }
    size_t out = 0;
    for (size_t at = 0, piece = 1 + day->answer; at < size; at += piece, piece = piece * 3 % 5000) {
        if (piece > size - at)
            piece = size - at;
        out += toy_seal(records + out, 'd', data + at, piece);
        if (out % 17 == 0)
            out += toy_seal(records + out, 'k', "", 0);
    }
    say_raw(day, which, records, out);
}

/* What a peer with TLS hears can all be opened; returns how much that is. */
static size_t open_up(struct toy *toy, const uint8_t *data, size_t size, uint8_t *to)
{
    size_t got = 0;
    int some;
    toy_put(toy->into, data, size);
    toy_code = 0;
    while ((some = toy_read_on(toy, to + got, TOY_RECORD)) > 0)
        got += (size_t)some;
    toy_code = 0;
    CHECK(!toy->broken && !toy_has(toy));
    return got;
}

/* Say bytes in frames, if these are expected: in two, with a Ping between them now and then. */
static void say_packets(struct day *day, int which, const uint8_t *data, size_t size, uint8_t how)
{
    static uint8_t frames[3 * MAX_PACKET];
    if (!WEB(which)) {
        say(day, which, data, size);
        return;
    }
    size_t at = 0, sizes[2] = {size * how / 255, size - size * how / 255};
    for (int i = 0; i < 2; data += sizes[i++]) {
        at += frame_of(frames + at, i == 0 ? 0x02 : 0x80, data, sizes[i]);
        if (i == 0 && how % 4 == 0)
            at += frame_of(frames + at, 0x89, data, how / 2 < size ? how / 2 : size);
    }
    say(day, which, frames, at);
}

/* What a peer hears are frames as a server may send them, and none behind a Close. */
static void listen_to(struct ear *ear, const uint8_t *data, size_t size)
{
    while (size > 0) {
        if (ear->left > 0) {
            size_t piece = ear->left < size ? ear->left : size;
            ear->left -= piece;
            data += piece;
            size -= piece;
            continue;
        }
        CHECK(!ear->closed);
        ear->head[ear->head_size++] = *data++;
        size--;
        if (ear->head_size == 1)
            CHECK(ear->head[0] == 0x82 || ear->head[0] == 0x8A || ear->head[0] == 0x88);
        else if (ear->head_size == 2)
            CHECK(ear->head[1] <= (ear->head[0] == 0x82 ? 126 : 125));
        if (ear->head_size != (ear->head[1] == 126 ? 4 : 2))
            continue;
        ear->left = ear->head[1] == 126 ? (size_t)ear->head[2] << 8 | ear->head[3] : ear->head[1];
        CHECK(ear->left <= 16380 && (ear->head[1] < 126 || ear->left > 125));
        CHECK(ear->left > 0 || ear->head[0] != 0x82);
        ear->closed = ear->head[0] == 0x88;
        memset(ear->head, 0, sizeof ear->head);
        ear->head_size = 0;
    }
}

static void step(struct day *day)
{
    uint8_t buffer[2 * MAX_PACKET];
    uint8_t verb = next_byte(day), which = next_byte(day) % LINKS, number = next_byte(day);
    relay_handle handle = day->handles[which];
    struct relay_counts counts;
    switch (verb % 17) {
    case 16: { /* much for an end that may not read */
        uint32_t conn_id = next_byte(day) % CONNS;
        put_u32(buffer, MAX_PACKET / 2);
        put_u32(buffer + 4, conn_id);
        memset(buffer + 8, number, MAX_PACKET);
        for (int i = 0; i < number % 64; i++) {
            say_packets(day, which, buffer, 4 + MAX_PACKET / 2, number);
            handle_events(day, relay_run(day->relay, day->now));
        }
        break;
    }
    case 0:
        make_link(day, which);
        break;
    case 1:
    case 2:
    case 3: { /* some legal packets, the last perhaps cut off */
        size_t size = 0, packets = 1 + number % 4;
        for (size_t i = 0; i < packets; i++) {
            uint8_t how = next_byte(day);
            uint32_t length = 4 + (how < 200 ? how % 24u : (how - 200u) * 17u);
            put_u32(buffer + size, length);
            put_u32(buffer + size + 4, next_byte(day) % (CONNS + 2));
            memset(buffer + size + 8, how, length - 4);
            size += 4 + length;
        }
        if (number >= 128)
            size -= next_byte(day) % size;
        say_packets(day, which, buffer, size, number);
        break;
    }
    case 4: { /* anything */
        size_t size = number % 32;
        for (size_t i = 0; i < size; i++)
            buffer[i] = next_byte(day);
        if (day->toys[which] != NULL && number >= 192) {
            uint8_t record[TOY_HEAD + 32];
            say_raw(day, which, record, toy_seal(record, "cdkaex\0d"[number / 8 % 8], buffer, size));
        } else if (WEB(which) && number >= 64) {
            static const uint8_t firsts[] = {0x89, 0x88, 0x8A, 0x82, 0x02, 0x80, 0x00, 0x81};
            uint8_t frame[64];
            say(day, which, frame, frame_of(frame, firsts[number / 32], buffer, size));
        } else {
            say(day, which, buffer, size);
        }
        break;
    }
    case 5:
        if (day->peers[which] >= 0)
            for (int i = 0; i <= number; i++) {
                ssize_t heard = recv(day->peers[which], buffer, sizeof buffer, MSG_DONTWAIT);
                if (heard <= 0)
                    break;
                static uint8_t opened[sizeof buffer + 2 * TOY_RECORD];
                uint8_t *data = buffer;
                if (SEALED(which)) {
                    heard = (ssize_t)open_up(day->far[which], buffer, (size_t)heard, opened);
                    data = opened;
                }
                if (WEB(which))
                    listen_to(&day->ears[which], data, (size_t)heard);
            }
        break;
    case 6:
        lose_peer(day, which);
        break;
    case 7:
        if (day->peers[which] >= 0)
            shutdown(day->peers[which], number % 2 ? SHUT_WR : SHUT_RDWR);
        break;
    case 8:
        relay_pair(day->relay, number % (CONNS + 1), handle, day->handles[number / 16 % LINKS]);
        break;
    case 9:
        if (number % 32 == 31)
            relay_rate(day->relay, 0, number / 32, number % 3 * 1000.);
        relay_unpair(day->relay, number % (CONNS + 1));
        break;
    case 10:
        end_link(day, handle, number);
        break;
    case 11:
        if (number % 2)
            relay_pause(day->relay, handle);
        else
            relay_resume(day->relay, handle, day->now);
        break;
    case 12:
        day->now += number / 16.;
        handle_events(day, relay_sweep(day->relay, day->now));
        break;
    case 13:
        memset(buffer, number, sizeof buffer);
        if (webs && number % 4 == 3) {
            uint32_t conn_ids[2 * CONNS];
            size_t count = number / 4 % (2 * CONNS), left;
            for (size_t i = 0; i < count; i++)
                conn_ids[i] = (uint32_t)(number + i) % (CONNS + 2);
            left = relay_multicast(day->relay, handle, conn_ids, count, buffer,
                                   number < 128 ? number : number * 23u);
            CHECK(left <= count);
            break;
        }
        if (webs && number % 4 == 2) {
            relay_handle handles[2 * LINKS] = {0};
            size_t count = 0;
            for (; count < number / 8 % (2 * LINKS); count++)
                handles[count] = day->handles[count % LINKS];
            size_t size = number < 128 ? number : number * 23u;
            CHECK(relay_send_each(day->relay, handles, count, buffer, size) <= count);
            CHECK(relay_waiting(day->relay, handle) <= relay_added(day->relay, handle));
            break;
        }
        put_u32(buffer, 4u + number);
        put_u32(buffer + 4, 1);
        relay_send(day->relay, handle, buffer, 8u + number, 1);
        if (relay_over(day->relay, handle))
            relay_tell_taken(day->relay, handle, relay_added(day->relay, handle) - number);
        break;
    case 14:
        relay_limit(day->relay, number % 4 ? 0 : 3000 + number * 16u);
        CHECK(relay_counts(day->relay, handle, &counts) == (handle != 0));
        break;
    default:
        handle_events(day, relay_run(day->relay, day->now));
    }
    if (verb >= 128)
        handle_events(day, relay_run(day->relay, day->now));
}

/* When nobody says anything more there is soon nothing to do, whatever state links are in. */
static void settle_down(struct day *day)
{
    struct epoll_event event;
    int relay_set = epoll_create1(EPOLL_CLOEXEC), turns = 0;
    struct epoll_event wanted = {.events = EPOLLIN};
    CHECK(relay_set >= 0);
    CHECK(epoll_ctl(relay_set, EPOLL_CTL_ADD, relay_fd(day->relay), &wanted) == 0);
    while (epoll_wait(relay_set, &event, 1, 0) > 0) {
        CHECK(turns++ < QUIET_TURNS);
        handle_events(day, relay_run(day->relay, day->now));
    }
    close(relay_set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct day day = {.data = data, .size = size, .now = 1000};
    struct relay_config config = {
        .pool = {
            .type = (enum pool_type)(next_byte(&day) % 3),
            .factor = 2u + next_byte(&day) % 3,
            .min_chunk = 1u + next_byte(&day) % 80,
            .max_chunk = 200u + next_byte(&day) * 8u,
            .page_size = 4096,
            .limit = next_byte(&day) % 4 ? 0 : 6000,
        },
        .commands_each = 1u + next_byte(&day) % 4,
        .commands_turn = 1u + next_byte(&day) % 8,
        .events_turn = 1u + next_byte(&day) % EVENTS_TURN,
        .share_least = 64,
        .share_most = 4096,
        .shares = 1u + next_byte(&day) * 64u,
        .turn_seconds = next_byte(&day) % 2 ? .05 : 10,
    };
    config.openings_turn = 1 + config.events_turn % OPENINGS_TURN;
    struct relay_port port = {
        .max_packet = MAX_PACKET,
        .read_size = 64u + next_byte(&day) * 8u,
        .idle_timeout = next_byte(&day) % 2 ? 20 : 0,
        .queue_packets = 1u + next_byte(&day) % 32,
        .queue_bytes = 100u + next_byte(&day) * 64u,
        .write_timeout = next_byte(&day) % 2 ? 10 : 0,
        .frame_limit = 4 * MAX_PACKET,
    };
    day.answer = next_byte(&day);
    directs = webs && day.answer % 3 == 0;
    calls = next_byte(&day);
    refuses = false;
    day.relay = relay_new(&config);
    CHECK(day.relay != NULL);
    relay_library(day.relay, &toy_library);
    toy_code = 0;
    port.answers = webs && day.answer % 2;
    CHECK(relay_port(day.relay, &port) == 0);
    port.holds = true;
    CHECK(relay_port(day.relay, &port) == 1);
    uint8_t rated = size > 0 ? data[size - 1] : 0; /* clients have rates on some days */
    if (rated % 4 == 1)
        CHECK(relay_rate(day.relay, webs ? rated / 8 % 2 : 0, rated % 8 == 1 ? rated : 0,
                         rated % 3 ? rated * 50 : 0) == 0);
    for (int which = 0; which < LINKS; which++) {
        day.peers[which] = -1;
        make_link(&day, which);
    }
    for (uint32_t conn_id = 1; conn_id <= 5; conn_id++)
        relay_pair(day.relay, conn_id, day.handles[conn_id % 2 * 2], day.handles[conn_id]);
    refuses = next_byte(&day) % 2;
    while (day.at < day.size)
        step(&day);
    refuses = false;
    calm = true;
    settle_down(&day);
    calm = false;
    bool leave = next_byte(&day) % 2 || size % 2;
    if (leave) {
        for (int which = 0; which < LINKS; which++)
            relay_close(day.relay, day.handles[which], RELAY_ABORT);
        for (int turn = 0; turn < 60; turn++)
            handle_events(&day, relay_run(day.relay, day.now));
        struct pool_stats stats;
        struct relay_totals totals;
        pool_stats(relay_pool(day.relay), &stats);
        relay_totals(day.relay, &totals);
        CHECK(stats.used_bytes == 0 && stats.plain == 0);
        CHECK(totals.links == 0);
        for (int which = 0; which < LINKS; which++)
            CHECK(day.handles[which] == 0);
    }
    relay_free(day.relay);
    for (int which = 0; which < LINKS; which++) {
        lose_peer(&day, which);
        toy_free(day.toys[which]);
        toy_free(day.far[which]);
    }
    return 0;
}

#ifdef STANDALONE

static uint64_t random_state;

static uint8_t random_byte(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint8_t)(random_state >> 32);
}

static int run_file(const char *name)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(name, "rb");
    if (file == NULL) {
        perror(name);
        return 1;
    }
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    return LLVMFuzzerTestOneInput(data, size);
}

/* fuzz SECONDS [SEED [plain]], or fuzz FILE... */
int main(int count, char **arguments)
{
    double seconds = count > 1 ? atof(arguments[1]) : 5;
    if (seconds == 0) {
        for (int i = 1; i < count; i++)
            if (run_file(arguments[i]))
                return 1;
        return 0;
    }
    webs = count <= 3; /* the days of older seeds had no frames */
    uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 0) : (uint64_t)time(NULL);
    struct timespec began, now;
    unsigned long days = 0;
    clock_gettime(CLOCK_MONOTONIC, &began);
    printf("fuzz: seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    random_state = seed * 2654435769u + 1;
    do {
        uint8_t data[1500];
        size_t size = 20u + random_byte() * 5u;
        for (size_t i = 0; i < size; i++)
            data[i] = random_byte();
        LLVMFuzzerTestOneInput(data, size);
        days++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - began.tv_sec) < seconds);
    printf("fuzz: %lu days\n", days);
    return 0;
}

#endif
