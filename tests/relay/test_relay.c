/* The core alone: framing, one write a turn, bounds, holds, deadlines, ends, and the pool.
 *
 * The core is included, so that its system calls can be counted and made to fail.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
    unsigned sends, vectors, recvs;
    size_t asked;          /* by the last recv */
    unsigned interrupt;    /* every so many calls */
    unsigned calls;
    int fail_send;         /* errno of the next send */
} system_calls;

static bool interrupted(void)
{
    if (system_calls.interrupt == 0 || ++system_calls.calls % system_calls.interrupt)
        return false;
    errno = EINTR;
    return true;
}

static ssize_t counted_recv(int fd, void *data, size_t size, int flags)
{
    if (interrupted())
        return -1;
    system_calls.recvs++;
    system_calls.asked = size;
    return recv(fd, data, size, flags);
}

static bool send_fails(void)
{
    errno = system_calls.fail_send;
    system_calls.fail_send = 0;
    return errno != 0;
}

static ssize_t counted_send(int fd, const void *data, size_t size, int flags)
{
    if (interrupted() || send_fails())
        return -1;
    system_calls.sends++;
    return send(fd, data, size, flags);
}

static ssize_t counted_sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (interrupted() || send_fails())
        return -1;
    system_calls.sends++;
    system_calls.vectors = (unsigned)message->msg_iovlen;
    return sendmsg(fd, message, flags);
}

static int counted_epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    return interrupted() ? -1 : epoll_wait(fd, events, count, timeout);
}

#define recv counted_recv
#define send counted_send
#define sendmsg counted_sendmsg
#define epoll_wait counted_epoll_wait
#include "relay.c"
#undef recv
#undef send
#undef sendmsg
#undef epoll_wait

#define CHECK(truth) \
    do { \
        if (!(truth)) { \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #truth); \
            exit(1); \
        } \
    } while (0)

#define ENDS 8
#define MAX_PACKET 100000

static struct relay *relay;
static double now;
static struct {
    relay_handle handle;
    int peer;
} ends[ENDS];
static struct relay_event last[64]; /* of the last turn; data points into `kept` */
static uint8_t kept[1 << 20];
static size_t kept_size;
static int last_count;

static const struct pool_config plain_pool = {POOL_ATOM, 2, 64, 65536, 1 << 20, 0};
static const struct relay_port plain_port = {MAX_PACKET, 2048, 30, 10, 20000, 10, false};

static void begin(const struct pool_config *pool, const struct relay_port *clients)
{
    memset(&system_calls, 0, sizeof system_calls);
    memset(ends, 0, sizeof ends);
    now = 5000;
    relay = relay_new(pool);
    CHECK(relay != NULL);
    struct relay_port servers = *clients;
    servers.read_size = 65536;
    servers.holds = true;
    CHECK(relay_port(relay, clients) == 0 && relay_port(relay, &servers) == 1);
    for (int i = 0; i < ENDS; i++)
        ends[i].peer = -1;
}

/* Links over TCP, so that there are resets. Even ones are clients, odd ones servers. */
static void add(int which)
{
    static int listening = -1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (listening < 0) {
        listening = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(bind(listening, (struct sockaddr *)&address, size) == 0);
        CHECK(listen(listening, 16) == 0);
    }
    getsockname(listening, (struct sockaddr *)&address, &size);
    int peer = socket(AF_INET, SOCK_STREAM, 0), small = 4096;
    setsockopt(peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    CHECK(connect(peer, (struct sockaddr *)&address, size) == 0);
    ends[which].peer = peer;
    ends[which].handle = relay_accept(relay, listening, which % 2, now);
    CHECK(ends[which].handle != 0);
    setsockopt(relay_socket(relay, ends[which].handle), SOL_SOCKET, SO_SNDBUF, &small,
               sizeof small);
    relay_set_owner(relay, ends[which].handle, &ends[which]);
    relay_start(relay, ends[which].handle, NULL, 0, now);
}

static size_t make(uint8_t *to, uint32_t conn_id, size_t size, uint8_t fill)
{
    uint32_t length = (uint32_t)size + 4;
    memcpy(to, &length, 4);
    memcpy(to + 4, &conn_id, 4);
    memset(to + 8, fill, size);
    return size + 8;
}

static void say(int which, const void *data, size_t size)
{
    CHECK(send(ends[which].peer, data, size, MSG_NOSIGNAL) == (ssize_t)size);
}

static void say_packet(int which, uint32_t conn_id, size_t size, uint8_t fill)
{
    static uint8_t packet[MAX_PACKET + 8];
    say(which, packet, make(packet, conn_id, size, fill));
}

static void take(int count)
{
    for (int i = 0; i < count; i++) {
        struct relay_event event = relay_events(relay)[i];
        CHECK(last_count < 64);
        if (event.data != NULL) {
            memcpy(kept + kept_size, chunk_bytes(event.data), event.data->end);
            kept_size += event.data->end;
        }
        last[last_count++] = event;
    }
    relay_clear_events(relay);
}

/* A turn, with nothing answered; the events are in `last`. */
static void turn(void)
{
    last_count = 0;
    kept_size = 0;
    usleep(200); /* loopback delivers at once, nearly */
    for (int count = relay_run(relay, now); count > 0; count = relay_continue(relay, now))
        take(count);
}

static void sweep(double seconds)
{
    last_count = 0;
    now += seconds;
    for (int count = relay_sweep(relay, now); count > 0; count = relay_continue(relay, now))
        take(count);
}

static bool told(int which, enum relay_event_kind kind)
{
    for (int i = 0; i < last_count; i++)
        if (last[i].kind == kind && last[i].owner == &ends[which])
            return true;
    return false;
}

static size_t hear(int which, uint8_t *data, size_t room)
{
    size_t got = 0;
    ssize_t some;
    while ((some = recv(ends[which].peer, data + got, room - got, MSG_DONTWAIT)) > 0)
        got += (size_t)some;
    return got;
}

static struct relay_counts counts(int which)
{
    struct relay_counts counts;
    CHECK(relay_counts(relay, ends[which].handle, &counts));
    return counts;
}

static void end(void)
{
    struct pool_stats stats;
    for (int i = 0; i < ENDS; i++) {
        relay_close(relay, ends[i].handle, RELAY_ABORT);
        if (ends[i].peer >= 0)
            close(ends[i].peer);
    }
    turn();
    for (int i = 0; i < ENDS; i++)
        relay_release(relay, ends[i].handle);
    pool_stats(relay_pool(relay), &stats);
    CHECK(stats.used_bytes == 0);
    struct relay_totals totals;
    relay_totals(relay, &totals);
    CHECK(totals.links == 0);
    relay_free(relay);
}

static uint64_t used(void)
{
    struct pool_stats stats;
    pool_stats(relay_pool(relay), &stats);
    return stats.used_bytes;
}

/* Packets of all sizes, whole and byte by byte, arrive as they were sent. */
static void test_framing(void)
{
    static uint8_t sent[300000], got[300000];
    static const size_t sizes[] = {0, 1, 3, 40, 2039, 2040, 2041, 5000, MAX_PACKET - 4};
    begin(&plain_pool, &plain_port);
    add(0), add(1);
    CHECK(relay_pair(relay, 7, ends[0].handle, ends[1].handle));
    for (int drip = 0; drip < 2; drip++) {
        size_t size = 0, heard = 0;
        for (size_t i = 0; i < (drip ? 6 : sizeof sizes / sizeof *sizes); i++)
            size += make(sent + size, 7, sizes[i], (uint8_t)(i + 1));
        for (size_t at = 0, piece; at < size; at += piece) {
            piece = drip ? 1 : size - at < 3000 ? size - at : 3000;
            say(0, sent + at, piece);
            turn();
            CHECK(last_count == 0);
            heard += hear(1, got + heard, sizeof got - heard);
        }
        for (int i = 0; i < 200 && heard < size; i++) {
            turn();
            heard += hear(1, got + heard, sizeof got - heard);
        }
        CHECK(heard == size && memcmp(sent, got, size) == 0);
    }
    CHECK(system_calls.asked == 2048);
    CHECK(used() == 0);
    end();
}

/* A length is judged when its fourth byte is there, at the limits and around them. */
static void test_limits(void)
{
    static const struct {
        uint32_t length;
        bool broken;
    } rows[] = {{0, true}, {3, true}, {4, false}, {MAX_PACKET, false}, {MAX_PACKET + 1, true},
                {UINT32_MAX, true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        begin(&plain_pool, &plain_port);
        add(0);
        say(0, &rows[i].length, 3);
        turn();
        CHECK(last_count == 0);
        say(0, (const uint8_t *)&rows[i].length + 3, 1);
        turn();
        CHECK(told(0, RELAY_BROKEN) == rows[i].broken);
        CHECK(!rows[i].broken || last[0].detail == rows[i].length);
        CHECK(used() == 0); /* what is announced allocates nothing */
        end();
    }
}

/* Packets for several links in turns are one write for each; a run is handed up whole, and what
 * comes behind it waits for the answer. */
static void test_one_write(void)
{
    static uint8_t data[65536], got[65536];
    begin(&plain_pool, &plain_port);
    add(0), add(2), add(4), add(1);
    for (uint32_t i = 0; i < 3; i++)
        relay_pair(relay, i + 1, ends[1].handle, ends[i * 2].handle);
    size_t size = 0;
    for (uint32_t i = 0; i < 300; i++)
        size += make(data + size, 1 + i % 3, 20, (uint8_t)i);
    say(1, data, size);
    turn();
    CHECK(last_count == 0 && system_calls.sends == 3);
    CHECK(hear(0, got, sizeof got) == 100 * 28);

    size = make(data, 1, 5, 'a');
    size += make(data + size, 0, 1, 'b'); /* a command, a stray, a packet */
    size += make(data + size, 99, 1, 'c');
    size_t between = size;
    size += make(data + size, 1, 5, 'd');
    system_calls.sends = 0;
    say(1, data, size);
    usleep(200);
    CHECK(relay_run(relay, now) == 1);
    CHECK(relay_events(relay)[0].data->end == between - 13);
    CHECK(system_calls.sends == 0);
    relay_clear_events(relay);
    relay_send(relay, ends[0].handle, "\4\0\0\0\1\0\0\0", 8, 1);
    CHECK(relay_continue(relay, now) == 0);
    CHECK(system_calls.sends == 1);
    CHECK(hear(0, got, sizeof got) == 13 + 8 + 13);
    CHECK(got[8] == 'a' && got[13] == 4 && got[29] == 'd');
    end();
}

/* A link over its bounds holds its senders or is reported; both end below half. */
static void test_bounds(void)
{
    static uint8_t got[1 << 20];
    begin(&plain_pool, &plain_port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    for (int i = 0; i < 4000 && !counts(0).held; i++) {
        say_packet(0, 1, 3000, 'x');
        turn();
        CHECK(last_count == 0);
    }
    CHECK(counts(0).held && !counts(2).held);
    CHECK(counts(1).waiting_packets <= 11 && counts(1).waiting_bytes <= 20000 + 3008);
    uint64_t before = counts(0).bytes_in;
    say_packet(0, 1, 100, 'x');
    turn();
    CHECK(counts(0).bytes_in == before);
    for (int i = 0; i < 4000 && counts(0).held; i++) {
        hear(1, got, sizeof got);
        turn();
    }
    CHECK(!counts(0).held);
    turn();
    CHECK(counts(0).bytes_in == before + 108);

    bool over = false;
    for (int i = 0; i < 4000 && !over; i++) {
        say_packet(1, 1, 3000, 'x');
        turn();
        over = told(0, RELAY_OVER);
    }
    CHECK(over && relay_over(relay, ends[0].handle) && !counts(1).held);
    relay_tell_drained(relay, ends[0].handle);
    turn();
    CHECK(!told(0, RELAY_DRAINED));
    bool drained = false;
    for (int i = 0; i < 4000 && !drained; i++) {
        hear(0, got, sizeof got);
        turn();
        drained = told(0, RELAY_DRAINED);
    }
    CHECK(drained);
    end();
}

/* Deadlines: never early, kept within a tick; packets and holds move them. */
static void test_deadlines(void)
{
    begin(&plain_pool, &plain_port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    for (int i = 0; i < 4000 && !counts(0).held; i++) {
        say_packet(0, 1, 3000, 'x');
        turn();
    }
    for (int i = 0; i < 4; i++) {
        sweep(2.4);
        CHECK(last_count == 0);
    }
    sweep(0.5); /* the server has taken nothing for 10 s */
    CHECK(told(1, RELAY_STUCK));
    for (int i = 0; i < 19; i++)
        sweep(1);
    CHECK(!told(2, RELAY_IDLE));
    say(2, "\4\0", 2); /* dripping gains nothing */
    turn();
    sweep(1.1);
    CHECK(told(2, RELAY_IDLE) && !told(0, RELAY_IDLE));
    end();
}

/* A reset in the middle of a gathered write, and both ends of a connection gone in one batch. */
static void test_resets(void)
{
    static uint8_t data[60000];
    struct linger reset = {1, 0};
    begin(&plain_pool, &plain_port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    size_t size = 0;
    for (int i = 0; i < 20; i++)
        size += make(data + size, 1 + (uint32_t)i % 2, 2000, 'y');
    say(1, data, size);
    system_calls.fail_send = ECONNRESET;
    turn();
    CHECK(told(0, RELAY_GONE) != told(2, RELAY_GONE)); /* the first that was written to */
    int other = told(0, RELAY_GONE) ? 2 : 0;
    CHECK(last[0].detail == ECONNRESET);
    CHECK(counts(other).packets_out == 10);
    relay_release(relay, ends[2 - other].handle);

    say_packet(other, other ? 2 : 1, 50, 'z');
    say_packet(1, other ? 2 : 1, 50, 'z');
    setsockopt(ends[other].peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    setsockopt(ends[1].peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(ends[other].peer);
    close(ends[1].peer);
    ends[other].peer = ends[1].peer = -1;
    turn();
    CHECK(told(other, RELAY_GONE) && told(1, RELAY_GONE));
    end();
}

/* Ends in order: what waits is written first; a half-closed link reads on into nothing. */
static void test_ends(void)
{
    static uint8_t got[200000], packet[50008];
    begin(&plain_pool, &plain_port);
    add(0), add(2);
    size_t size = make(packet, 1, 50000, 'q'), heard = 0;
    for (int which = 0; which <= 2; which += 2) {
        relay_send(relay, ends[which].handle, packet, size, 1);
        relay_close(relay, ends[which].handle, which ? RELAY_HALF : RELAY_CLOSE);
        for (heard = 0; heard < size;) {
            turn();
            heard += hear(which, got + heard, sizeof got - heard);
        }
        CHECK(memcmp(got, packet, size) == 0);
    }
    turn();
    say_packet(2, 5, 1000, 'r');
    turn();
    CHECK(!told(2, RELAY_GONE) && !told(2, RELAY_PACKETS));
    shutdown(ends[2].peer, SHUT_WR);
    turn();
    CHECK(told(2, RELAY_GONE));

    add(4);
    say_packet(4, 0, 1, 'f');
    shutdown(ends[4].peer, SHUT_WR);
    turn();
    CHECK(told(4, RELAY_PACKETS));
    turn();
    CHECK(told(4, RELAY_FIN));
    end();
}

/* Interrupted system calls change nothing. */
static void test_interrupts(void)
{
    static uint8_t got[65536];
    begin(&plain_pool, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    system_calls.interrupt = 2;
    size_t heard = 0;
    for (int i = 0; i < 50; i++) {
        say_packet(0, 1, 100, (uint8_t)i);
        turn();
        CHECK(last_count == 0);
        heard += hear(1, got, sizeof got);
    }
    for (int i = 0; i < 10; i++) {
        turn();
        heard += hear(1, got, sizeof got);
    }
    CHECK(heard == 50 * 108);
    end();
}

/* At the pool's limit the link that cannot be served is reported, others go on. */
static void test_no_memory(void)
{
    static uint8_t got[65536];
    struct pool_config pool = plain_pool;
    struct relay_port port = plain_port;
    pool.limit = 70000;
    port.queue_bytes = 1 << 20;
    port.queue_packets = 100000;
    begin(&pool, &port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    bool failed = false;
    for (int i = 0; i < 4000 && !failed; i++) {
        say_packet(1, 1, 3000, 'x');
        turn();
        failed = told(0, RELAY_NO_MEMORY);
    }
    CHECK(failed && used() < 70000);
    say_packet(1, 2, 3000, 'x');
    turn();
    CHECK(hear(2, got, sizeof got) == 3008);
    end();
}

/* The three kinds of pool: what they keep, and what goes back to the system. */
static void test_pool(void)
{
    for (int type = POOL_ATOM; type <= POOL_SYNC; type++) {
        struct pool_config config = {(enum pool_type)type, 3, 100, 1000, 4000, 0};
        struct pool *pool = pool_new(&config);
        struct chunk *chunks[100];
        struct pool_class_stats stats;
        CHECK(pool != NULL && pool_class_count(pool) == 4 && pool_max_chunk(pool) == 1000);
        for (int i = 0; i < 100; i++) {
            chunks[i] = pool_get(pool, 101);
            CHECK(chunks[i]->size == 300);
            memset(chunk_bytes(chunks[i]), i, 300);
        }
        pool_class_stats(pool, 1, &stats);
        CHECK(stats.size == 300 && stats.used == 100);
        CHECK(stats.pages == (type == POOL_ATOM ? 8 : type == POOL_CHAN ? 1 : 0));
        for (int i = 0; i < 100; i++) {
            CHECK(chunk_bytes(chunks[i])[299] == i);
            pool_put(pool, chunks[i]);
        }
        pool_trim(pool);
        pool_trim(pool);
        pool_class_stats(pool, 1, &stats);
        CHECK(stats.used == 0 && stats.pages == (type == POOL_CHAN ? 1 : 0));
        CHECK(stats.free == (type == POOL_CHAN ? 13 : 0));
        struct chunk *large = pool_get(pool, 5000);
        CHECK(large->size == 5000 && large->page == NULL);
        pool_put(pool, large);
        pool_free(pool);
    }
    static const struct pool_config nonsense[] = {
        {POOL_ATOM, 1, 64, 128, 4096, 0},
        {POOL_ATOM, 2, 0, 128, 4096, 0},
        {POOL_ATOM, 2, 256, 128, 4096, 0},
        {POOL_ATOM, 2, 64, 8192, 4096, 0},
    };
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++)
        CHECK(pool_new(&nonsense[i]) == NULL);
}

/* The table of virtual connections finds each, through growing, shrinking and gaps. */
static void test_pairs(void)
{
    begin(&plain_pool, &plain_port);
    add(0), add(1), add(2);
    for (int round = 0; round < 3; round++) {
        for (uint32_t id = 1; id < 20000; id++)
            CHECK(relay_pair(relay, id * (id % 5 ? 1 : 77777), ends[0].handle, ends[1].handle));
        for (uint32_t id = 1; id < 20000; id++) {
            uint32_t conn_id = id * (id % 5 ? 1 : 77777);
            struct link *link = find(relay, ends[0].handle);
            CHECK(other_end(relay, link, conn_id) == find(relay, ends[1].handle));
            CHECK(other_end(relay, find(relay, ends[2].handle), conn_id) == NULL);
            if (id % 3)
                relay_unpair(relay, conn_id);
        }
        for (uint32_t id = 3; id < 20000; id += 3)
            relay_unpair(relay, id * (id % 5 ? 1 : 77777));
        CHECK(relay->totals.pairs == 0 && relay->pair_room <= 128);
    }
    end();
}

int main(void)
{
    test_framing();
    test_limits();
    test_one_write();
    test_bounds();
    test_deadlines();
    test_resets();
    test_ends();
    test_interrupts();
    test_no_memory();
    test_pool();
    test_pairs();
    puts("test_relay: ok");
    return 0;
}
