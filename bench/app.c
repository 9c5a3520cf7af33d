/* Clients of applications, for bench/app.py: they ask, are told, or say nothing.
 *
 *     app PORT WIRE CLIENTS HOW MANY
 *
 *     ask   each client has MANY requests in flight: room.echo, a text of 64 bytes
 *     tell  all are in one group, to which the first says room.all MANY at a time; the next comes
 *           when all have heard the last
 *     idle  nothing
 *
 * The wires are pomelo, teleport (v6), teleport2 (v2.5) and hotpot, all with JSON; those but pomelo
 * can only ask.
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
enum { CHUNK = 64 << 10, TEXT = 64, ASKED = 128 };
enum { CALL = 1, REPLY = 2 };

struct client {
    int fd;
    bool in;
    uint32_t size;        /* bytes of a packet that is not whole */
    uint8_t packet[512];  /* these */
    int next;             /* which of its requests is answered next, where answers have no number */
    uint64_t asked[ASKED]; /* when, by mid */
};

/* How requests are written, and answers read. */
struct wire {
    const char *name;
    /* Bytes of a packet that begins so, as far as is known. */
    size_t (*whole)(const uint8_t *data, size_t size);
    size_t (*ask)(uint8_t *to, int mid);
    /* A packet came; what is to be sent for it goes behind `to`. */
    size_t (*came)(struct client *client, uint8_t *to);
    bool greets;
};

static const struct wire *wire;
static struct client *clients;
static int count, many, set, in;
static bool asks, tells;
static uint64_t answers, heard, round_began;
static struct durations times;

static size_t put_text(uint8_t *to)
{
    memcpy(to, "{\"text\":\"", 9);
    memset(to + 9, 'x', TEXT);
    memcpy(to + 9 + TEXT, "\"}", 2);
    return 9 + TEXT + 2;
}

static size_t put_string(uint8_t *to, const char *text)
{
    memcpy(to, text, strlen(text));
    return strlen(text);
}

static uint32_t big32(const uint8_t *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static void put_big32(uint8_t *to, size_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* An answer is there; its client asks again. */
static size_t answered(struct client *client, int mid, const uint8_t *body, size_t size, uint8_t *to)
{
    if (mid < 1 || mid > many || size < 12 || memcmp(body, "{\"text\":\"xxx", 12) != 0)
        die("a wrong answer");
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    record(&times, now - client->asked[mid]);
    answers++;
    client->asked[mid] = now;
    return wire->ask(to, mid);
}

/* pomelo: a type, 3 bytes of length; a flag, [mid], [route] */

static size_t packet(uint8_t *to, int kind, const void *body, size_t size)
{
    put_big32(to, size);
    to[0] = (uint8_t)kind;
    memcpy(to + 4, body, size);
    return 4 + size;
}

/* A request if `mid`, else a notify; with a text, or without a body. */
static size_t message(uint8_t *to, int mid, const char *route, bool text)
{
    uint8_t body[256];
    size_t at = 0;

    body[at++] = mid ? 0x00 : 0x02;
    if (mid)
        body[at++] = (uint8_t)mid;
    body[at++] = (uint8_t)strlen(route);
    at += put_string(body + at, route);
    if (text)
        at += put_text(body + at);
    return packet(to, DATA, body, at);
}

static size_t pomelo_whole(const uint8_t *data, size_t size)
{
    return size < 4 ? 4 : 4 + (big32(data) & 0xffffff);
}

static size_t pomelo_ask(uint8_t *to, int mid)
{
    return message(to, mid, "room.echo", true);
}

static void put(struct client *client, const uint8_t *data, size_t size);

static size_t pomelo_came(struct client *client, uint8_t *to)
{
    uint8_t greeting[64];
    const uint8_t *data = client->packet;

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
    if (data[4] == 0x04)
        return answered(client, data[5], data + 6, client->size - 6, to);
    if (data[4] != 0x06 || memcmp(data + 5, "\2on{\"text\":\"xxx", 15) != 0)
        die("a wrong message");
    heard++;
    answers++;
    return 0;
}

/* teleport v6: 4 bytes of size, no filters; seq to the base 36, type, method, status, meta, codec */

static size_t teleport_whole(const uint8_t *data, size_t size)
{
    return size < 4 ? 4 : big32(data);
}

static size_t teleport_ask(uint8_t *to, int mid)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    size_t at = 4;

    to[at++] = 0;
    to[at++] = 2;
    to[at++] = (uint8_t)digits[mid / 36];
    to[at++] = (uint8_t)digits[mid % 36];
    to[at++] = CALL;
    to[at++] = 10;
    at += put_string(to + at, "/room/echo");
    to[at++] = 0;
    to[at++] = 6;
    at += put_string(to + at, "code=0");
    to[at++] = 0;
    to[at++] = 0;
    to[at++] = 'j';
    at += put_text(to + at);
    put_big32(to, at);
    return at;
}

static size_t teleport_came(struct client *client, uint8_t *to)
{
    const uint8_t *data = client->packet;
    size_t size = client->size, at = 6 + data[5];
    char number[8] = {0};

    if (data[4] != 0 || data[5] > 7 || size < at + 7 || data[at] != REPLY)
        die("a wrong answer");
    memcpy(number, data + 6, data[5]);
    at += 2 + data[at + 1];
    at += 2 + data[at + 1];
    at += 2 + data[at + 1] + 1;
    return answered(client, (int)strtol(number, NULL, 36), data + at, size - at, to);
}

/* teleport v2.5: 4 bytes of size, codec, header; 4 bytes of size, codec, body */

static size_t teleport2_whole(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 4;
    size_t head = 4 + big32(data) + 4;
    return size < head ? head : head + big32(data + head - 4);
}

static size_t teleport2_ask(uint8_t *to, int mid)
{
    int head = sprintf((char *)to + 4, "j{\"seq\":%d,\"type\":1,\"uri\":\"/room/echo\"}", mid);
    size_t at = 4 + (size_t)head;

    put_big32(to, (size_t)head);
    to[at + 4] = 'j';
    size_t body = 1 + put_text(to + at + 5);
    put_big32(to + at, body);
    return at + 4 + body;
}

static size_t teleport2_came(struct client *client, uint8_t *to)
{
    size_t head = 4 + big32(client->packet);
    const uint8_t *seq = memmem(client->packet, head, "\"seq\":", 6);

    if (seq == NULL || memmem(client->packet, head, "\"status_code\":200", 17) == NULL)
        die("a wrong answer");
    return answered(client, atoi((const char *)seq + 6), client->packet + head + 5,
                    client->size - head - 5, to);
}

/* hotpot: 2 bytes of length; {"type":…,"data":…} */

static size_t hotpot_whole(const uint8_t *data, size_t size)
{
    return size < 2 ? 2 : 2 + ((size_t)data[0] << 8 | data[1]);
}

static size_t hotpot_ask(uint8_t *to, int mid)
{
    size_t at = 2;

    (void)mid;
    at += put_string(to + at, "{\"type\":\"Echo\",\"data\":");
    at += put_text(to + at);
    to[at++] = '}';
    to[0] = 0;
    to[1] = (uint8_t)(at - 2);
    return at;
}

static size_t hotpot_came(struct client *client, uint8_t *to)
{
    const uint8_t *data = memmem(client->packet, client->size, "\"data\":", 7);

    if (data == NULL) {
        if (memmem(client->packet, client->size, "\"Ping\"", 6) == NULL)
            die("a wrong answer");
        to[0] = 0;
        to[1] = (uint8_t)put_string(to + 2, "{\"type\":\"Pong\",\"data\":{}}");
        return 2u + to[1];
    }
    client->next = client->next % many + 1;
    return answered(client, client->next, data + 7,
                    client->size - (size_t)(data + 7 - client->packet), to);
}

static const struct wire wires[] = {
    {"pomelo", pomelo_whole, pomelo_ask, pomelo_came, true},
    {"teleport", teleport_whole, teleport_ask, teleport_came, false},
    {"teleport2", teleport2_whole, teleport2_ask, teleport2_came, false},
    {"hotpot", hotpot_whole, hotpot_ask, hotpot_came, false},
};

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
    static uint8_t data[ASKED * 256];
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    size_t size = 0;

    for (int mid = first; mid <= last; mid++) {
        client->asked[mid] = now;
        size += wire->ask(data + size, mid);
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

/* Cut what has come into packets. */
static void cut(struct client *client, const uint8_t *data, size_t size, bool goes_on)
{
    static uint8_t out[CHUNK * 4];
    size_t said = 0;

    while (size > 0) {
        size_t whole = wire->whole(client->packet, client->size);
        size_t piece = whole - client->size < size ? whole - client->size : size;

        if (whole > sizeof client->packet)
            die("a packet of %zu bytes", whole);
        memcpy(client->packet + client->size, data, piece);
        client->size += (uint32_t)piece;
        data += piece;
        size -= piece;
        if (client->size == whole && wire->whole(client->packet, client->size) == whole) {
            size_t more = wire->came(client, out + said);

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
        if (wire->greets) {
            put(client, greeting, size);
        } else {
            client->in = true;
            in++;
        }
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

    if (words != 6)
        die("app PORT WIRE CLIENTS ask|tell|idle MANY");
    for (size_t i = 0; i < sizeof wires / sizeof *wires; i++)
        if (strcmp(word[2], wires[i].name) == 0)
            wire = &wires[i];
    if (wire == NULL)
        die("%s is no wire", word[2]);
    count = atoi(word[3]);
    many = atoi(word[5]);
    asks = strcmp(word[4], "ask") == 0;
    tells = strcmp(word[4], "tell") == 0;
    if (tells && !wire->greets)
        die("nobody is told in %s", wire->name);
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
