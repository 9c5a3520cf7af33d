/* Clients in pomelo's wire, for bench/app.py: they ask, are told, or say nothing.
 *
 *     app PORT CLIENTS HOW MANY
 *
 *     ask   each client has MANY requests in flight: room.echo, a text of 64 bytes
 *     tell  all are in one group, to which the first says room.all MANY at a time; the next comes
 *           when all have heard the last
 *     idle  nothing
 *
 * It says `ready`; then it works for as many milliseconds as each line that it is given says, and
 * answers with: how many answers, or members told; the nanoseconds it took; and the time to an
 * answer in microseconds, at the half and at 99 of 100.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ends.h"

enum { HANDSHAKE = 1, ACK, HEARTBEAT, DATA };
enum { CHUNK = 64 << 10, HEAD = 4, TEXT = 64, ASKED = 128 };

struct client {
    int fd;
    bool in;
    uint32_t size;        /* bytes of a packet that is not whole */
    uint8_t packet[512];  /* the first of these */
    uint32_t want;        /* bytes of it that are still to come */
    uint64_t asked[ASKED]; /* when, by mid */
};

static struct client *clients;
static int count, many, set, in;
static bool asks, tells;
static uint64_t answers, heard, round_began;
static struct durations times;

static size_t packet(uint8_t *to, int kind, const void *body, size_t size)
{
    to[0] = (uint8_t)kind;
    to[1] = (uint8_t)(size >> 16);
    to[2] = (uint8_t)(size >> 8);
    to[3] = (uint8_t)size;
    memcpy(to + HEAD, body, size);
    return HEAD + size;
}

/* A request if `mid`, else a notify; with a text, or without a body. */
static size_t message(uint8_t *to, int mid, const char *route, bool text)
{
    uint8_t body[256];
    size_t at = 0, length = strlen(route);

    body[at++] = mid ? 0x00 : 0x02;
    if (mid)
        body[at++] = (uint8_t)mid;
    body[at++] = (uint8_t)length;
    memcpy(body + at, route, length);
    at += length;
    if (text) {
        memcpy(body + at, "{\"text\":\"", 9);
        memset(body + at + 9, 'x', TEXT);
        memcpy(body + at + 9 + TEXT, "\"}", 2);
        at += 9 + TEXT + 2;
    }
    return packet(to, DATA, body, at);
}

static void put(struct client *client, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL);

        if (sent < 0 && errno == EAGAIN) {
            poll(&(struct pollfd){client->fd, POLLOUT, 0}, 1, -1);
        } else if (sent < 0) {
            die("a client cannot send: %s", strerror(errno));
        } else {
            data += sent;
            size -= (size_t)sent;
        }
    }
}

static void ask(struct client *client, int first, int last)
{
    static uint8_t data[ASKED * 160];
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    size_t size = 0;

    for (int mid = first; mid <= last; mid++) {
        client->asked[mid] = now;
        size += message(data + size, mid, "room.echo", true);
    }
    put(client, data, size);
}

static void tell_all(void)
{
    uint8_t data[256];

    heard = 0;
    round_began = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < many; i++)
        put(&clients[0], data, message(data, 0, "room.all", true));
}

/* A packet that has come, or its first bytes; what is to be sent for it goes behind `to`. */
static size_t came(struct client *client, const uint8_t *data, uint8_t *to)
{
    uint8_t greeting[64];

    switch (data[0]) {
    case HANDSHAKE:
        put(client, greeting, packet(greeting, ACK, "", 0));
        if (!asks)
            put(client, greeting, message(greeting, 0, "room.enter", false));
        client->in = true;
        in++;
        return 0;
    case HEARTBEAT:
        return packet(to, HEARTBEAT, "", 0);
    case DATA:
        break;
    default:
        die("a packet of type %d", data[0]);
    }
    if (data[HEAD] == 0x04) {
        int mid = data[HEAD + 1];

        if (mid < 1 || mid > many || memcmp(data + HEAD + 2, "{\"text\":\"xxx", 12) != 0)
            die("a wrong answer");
        uint64_t now = clock_ns(CLOCK_MONOTONIC);
        record(&times, now - client->asked[mid]);
        answers++;
        client->asked[mid] = now;
        return message(to, mid, "room.echo", true);
    }
    if (data[HEAD] != 0x06 || memcmp(data + HEAD + 1, "\2on{\"text\":\"xxx", 15) != 0)
        die("a wrong message");
    heard++;
    answers++;
    return 0;
}

/* Cut what has come into packets. */
static void cut(struct client *client, const uint8_t *data, size_t size, bool goes_on)
{
    static uint8_t out[CHUNK * 4];
    size_t said = 0;

    while (size > 0) {
        size_t room = sizeof client->packet - client->size;
        size_t need = client->size < HEAD ? HEAD - client->size : client->want;
        size_t piece = need < size ? need : size;

        if (client->size < sizeof client->packet)
            memcpy(client->packet + client->size, data, piece < room ? piece : room);
        if (client->size < HEAD) {
            client->size += (uint32_t)piece;
            if (client->size == HEAD)
                client->want = (uint32_t)client->packet[1] << 16 | (uint32_t)client->packet[2] << 8
                               | client->packet[3];
        } else {
            if (client->size + piece <= sizeof client->packet)
                client->size += (uint32_t)piece;
            client->want -= (uint32_t)piece;
        }
        data += piece;
        size -= piece;
        if (client->size >= HEAD && client->want == 0) {
            size_t more = came(client, client->packet, out + said);

            client->size = 0;
            if (goes_on)
                said += more;
        }
        if (said > sizeof out - 1024) {
            put(client, out, said);
            said = 0;
        }
    }
    put(client, out, said);
}

/* Serve sockets until something is so, or some time is over. */
static bool serve(bool (*done)(void), uint64_t until, bool goes_on)
{
    static uint8_t data[CHUNK];
    struct epoll_event events[256];

    while (!done()) {
        uint64_t now = clock_ns(CLOCK_MONOTONIC);

        if (now >= until)
            return false;
        int ready = epoll_wait(set, events, 256, (int)((until - now) / 1000000) + 1);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            ssize_t got = recv(client->fd, data, sizeof data, 0);

            if (got == 0 || (got < 0 && errno != EAGAIN))
                die("the server has closed: %s", got < 0 ? strerror(errno) : "in order");
            if (got > 0)
                cut(client, data, (size_t)got, goes_on);
        }
    }
    return true;
}

static bool never(void) { return false; }
static bool all_in(void) { return in == count; }
static bool all_heard(void) { return heard >= (uint64_t)count * (uint64_t)many; }
static uint64_t expected;
static bool all_answered(void) { return answers >= expected; }

static void connect_all(int port)
{
    uint8_t greeting[64];
    size_t size = packet(greeting, HANDSHAKE, "{}", 2);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    for (int i = 0; i < count; i++) {
        struct client *client = &clients[i];
        /* There are not ports enough for very many to one address. */
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(i / 20000));
        client->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&to, sizeof to) < 0)
            die("client %d cannot connect: %s", i, strerror(errno));
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        fcntl(client->fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(set, EPOLL_CTL_ADD, client->fd,
                  &(struct epoll_event){.events = EPOLLIN, .data.ptr = client});
        put(client, greeting, size);
        if (i % 64 == 63)
            serve(all_in, clock_ns(CLOCK_MONOTONIC) + 1000000, false);
    }
    if (!serve(all_in, clock_ns(CLOCK_MONOTONIC) + seconds(60), false))
        die("%d of %d clients are in", in, count);
}

static void work(uint64_t ns)
{
    uint64_t began = clock_ns(CLOCK_MONOTONIC), before = answers;

    memset(&times, 0, sizeof times);
    if (asks) {
        for (int i = 0; i < count; i++)
            ask(&clients[i], 1, many);
        serve(never, began + ns, true);
    } else if (tells) {
        while (clock_ns(CLOCK_MONOTONIC) < began + ns) {
            tell_all();
            if (!serve(all_heard, began + seconds(60), true))
                die("%llu were told", (unsigned long long)heard);
            record(&times, clock_ns(CLOCK_MONOTONIC) - round_began);
        }
    } else {
        serve(never, began + ns, true);
    }
    uint64_t took = clock_ns(CLOCK_MONOTONIC) - began, got = answers - before;
    if (asks) { /* those that are in flight */
        expected = answers + (uint64_t)count * (uint64_t)many;
        if (!serve(all_answered, clock_ns(CLOCK_MONOTONIC) + seconds(60), false))
            die("%llu answers are missing", (unsigned long long)(expected - answers));
    }
    printf("%llu %llu %.1f %.1f\n", (unsigned long long)got, (unsigned long long)took,
           percentile(&times, .5), percentile(&times, .99));
    fflush(stdout);
}

int main(int words, char **word)
{
    char line[64];

    if (words != 5)
        die("app PORT CLIENTS ask|tell|idle MANY");
    count = atoi(word[2]);
    many = atoi(word[4]);
    asks = strcmp(word[3], "ask") == 0;
    tells = strcmp(word[3], "tell") == 0;
    if (count < 1 || many < 1 || many >= ASKED)
        die("at least one client, and 1 to %d at a time", ASKED - 1);
    clients = calloc((size_t)count, sizeof *clients);
    set = epoll_create1(0);
    if (clients == NULL || set < 0)
        die("out of memory");
    connect_all(atoi(word[1]));
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL)
        work((uint64_t)atoll(line) * 1000000);
    return 0;
}
