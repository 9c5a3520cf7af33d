/* How links end while they are not read from, and how they begin. */
#include <arpa/inet.h>

#include "bed.h"

static uint8_t got[1 << 20];

/* A client that is held by a server which does not read; what it says then stays in the kernel. */
static void hold_client(const struct relay_port *port)
{
    begin(&plain_config, port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[1].handle, ends[0].handle);
    for (int i = 0; i < 4000 && !counts(0).held; i++) {
        say_packet(0, 1, 1500, 'x');
        turn();
    }
    CHECK(counts(0).held);
}

static struct relay_port roomy(void)
{
    struct relay_port port = plain_port;
    port.queue_packets = 10;
    port.queue_bytes = 30000;
    return port;
}

/* Let the server read until it got so much, or the client's end is told. */
static bool drain(uint64_t wanted, enum relay_event_kind kind, uint8_t *end_of_it)
{
    bool ended = false;
    for (int i = 0; i < 4000 && !ended; i++) {
        size_t some = hear(1, got, sizeof got);
        if (some > 0)
            *end_of_it = got[some - 1];
        turn();
        ended = told(0, kind);
    }
    CHECK(relay_added(relay, ends[1].handle) >= wanted);
    for (int i = 0; i < 400; i++) {
        size_t some = hear(1, got, sizeof got);
        if (some > 0)
            *end_of_it = got[some - 1];
        turn();
    }
    return ended;
}

/* A FIN is heard while its sender is held: the descriptor goes back at once, what came before is
 * delivered, then the end is told. */
static void test_fin_while_held(void)
{
    struct relay_port port = roomy();
    uint8_t last_byte = 0;
    hold_client(&port);
    for (int i = 0; i < 20; i++)
        say_packet(0, 1, 1000, 'y');
    say_packet(0, 1, 1000, 'z');
    CHECK(relay_socket(relay, ends[0].handle) >= 0);
    uint64_t sent = counts(0).bytes_in;
    close(ends[0].peer);
    ends[0].peer = -1;
    UNTIL(relay_socket(relay, ends[0].handle) == -1);
    CHECK(counts(0).held && counts(0).input_bytes > 10000);
    CHECK(totals().input_bytes == counts(0).input_bytes && !told(0, RELAY_FIN));
    CHECK(counts(0).bytes_in > sent + 20000);
    uint64_t all = counts(0).bytes_in;
    CHECK(drain(all, RELAY_FIN, &last_byte));
    CHECK(last_byte == 'z' && relay_added(relay, ends[1].handle) == all);
    CHECK(counts(0).input_bytes == 0);
    relay_close(relay, ends[0].handle, RELAY_CLOSE);
    turn();
    CHECK(told(0, RELAY_GONE) && last[0].detail == 0);
    end();
}

/* Who half-closes still gets what waits for it before its descriptor goes. */
static void test_half_close_while_held(void)
{
    static uint8_t packet[50008];
    struct relay_port port = roomy();
    port.queue_bytes = 60000;
    hold_client(&port);
    say_packet(0, 1, 1000, 'y');
    shutdown(ends[0].peer, SHUT_WR);
    size_t size = make(packet, 2, 50000, 'w'), heard = 0;
    relay_send(relay, ends[0].handle, packet, size, 1);
    for (int i = 0; i < 3; i++)
        turn();
    CHECK(relay_socket(relay, ends[0].handle) >= 0 && link_of(0)->blocked);
    for (int i = 0; i < 400 && relay_socket(relay, ends[0].handle) >= 0; i++) {
        heard += hear(0, got, sizeof got);
        turn();
    }
    for (int i = 0; i < 400 && heard < size; i++) {
        usleep(200);
        heard += hear(0, got, sizeof got);
    }
    CHECK(heard == size && counts(0).held && relay_socket(relay, ends[0].handle) == -1);
    relay_send(relay, ends[0].handle, packet, size, 1); /* into nothing */
    CHECK(counts(0).waiting_bytes == 0);
    end();
}

/* What a held client said before it closed is not lost when something is written to it
 * meanwhile, which it answers with a reset. */
static void test_reset_while_held(void)
{
    struct relay_port port = roomy();
    uint8_t last_byte = 0;
    hold_client(&port);
    for (int i = 0; i < 10; i++)
        say_packet(0, 1, 1000, 'y');
    say_packet(0, 1, 1000, 'z');
    close(ends[0].peer);
    ends[0].peer = -1;
    say_packet(1, 2, 1000, 'w'); /* and the server speaks to it */
    UNTIL(relay_socket(relay, ends[0].handle) == -1);
    CHECK(counts(0).held);
    uint64_t all = counts(0).bytes_in;
    CHECK(drain(all, RELAY_FIN, &last_byte)); /* it ended in order */
    CHECK(last_byte == 'z' && relay_added(relay, ends[1].handle) == all);
    end();
}

/* A true reset is told as one, after what came before. */
static void test_broken_while_held(void)
{
    struct relay_port port = roomy();
    hold_client(&port);
    say_packet(0, 1, 1000, 'y');
    usleep(50000);
    break_off(0);
    UNTIL(relay_socket(relay, ends[0].handle) == -1);
    CHECK(last_count == 0 && counts(0).held && counts(0).input_bytes >= 1008);
    uint64_t all = counts(0).bytes_in;
    for (int i = 0; i < 3000 && !told(0, RELAY_GONE); i++) {
        hear(1, got, sizeof got);
        turn();
    }
    CHECK(told(0, RELAY_GONE) && last[0].detail == ECONNRESET);
    CHECK(relay_added(relay, ends[1].handle) == all / 1508 * 1508 + 1008);
    end();
}

/* No more is kept than its port allows: the rest breaks the connection. */
static void test_too_much_kept(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pause(relay, ends[0].handle);
    for (int i = 0; i < 25; i++)
        say_packet(0, 1, 2000, 'y');
    shutdown(ends[0].peer, SHUT_WR);
    UNTIL(relay_socket(relay, ends[0].handle) == -1);
    CHECK(counts(0).input_bytes > 3000 && counts(0).input_bytes <= 20000 && last_count == 0);
    relay_resume(relay, ends[0].handle, now);
    UNTIL(told(0, RELAY_GONE));
    CHECK(last[0].detail == ENOBUFS);
    end();
}

/* A FIN behind commands that wait for the caller is told after them. */
static void test_fin_behind_commands(void)
{
    struct relay_config config = plain_config;
    config.commands_each = 1;
    begin(&config, &plain_port);
    add(0);
    for (int i = 0; i < 3; i++)
        say_packet(0, 0, 1, (uint8_t)i);
    close(ends[0].peer);
    ends[0].peer = -1;
    for (int i = 0; i < 3; i++) {
        turn();
        CHECK(last_count == 1 && told(0, RELAY_PACKETS) && kept_size == 9 && kept[8] == i);
    }
    turn();
    if (last_count == 0)
        turn();
    CHECK(last_count == 1 && told(0, RELAY_FIN));
    end();
}

/* Bytes of a link that is not started are kept as well. */
static void test_paused_bytes(void)
{
    begin(&plain_config, &plain_port);
    ends[0].peer = dial();
    ends[0].handle = take_in(0);
    relay_set_owner(relay, ends[0].handle, &ends[0]);
    relay_pause(relay, ends[0].handle);
    say(0, "hello", 5);
    close(ends[0].peer);
    ends[0].peer = -1;
    UNTIL(counts(0).input_bytes == 5);
    CHECK(last_count == 0);
    relay_resume(relay, ends[0].handle, now);
    turn();
    CHECK(last_count == 1 && told(0, RELAY_BYTES) && memcmp(kept, "hello", 5) == 0);
    if (!told(0, RELAY_FIN))
        turn();
    CHECK(told(0, RELAY_FIN));
    end();
}

/* One that is paused hears what it is told although its peer has ended, where that is wanted. */
static void test_answers(void)
{
    for (int answers = 0; answers < 2; answers++) {
        struct relay_port port = plain_port;
        char heard[8];
        port.answers = answers;
        begin(&plain_config, &port);
        ends[0].peer = dial();
        ends[0].handle = take_in(0);
        relay_set_owner(relay, ends[0].handle, &ends[0]);
        relay_pause(relay, ends[0].handle);
        say(0, "hello", 5);
        shutdown(ends[0].peer, SHUT_WR);
        UNTIL(counts(0).input_bytes == 5 && link_of(0)->ended);
        relay_send(relay, ends[0].handle, "yes", 3, 0);
        turn();
        CHECK(hear(0, (uint8_t *)heard, sizeof heard) == (answers ? 3u : 0u));
        relay_resume(relay, ends[0].handle, now);
        UNTIL(told(0, RELAY_FIN));
        end();
    }
}

/* Bytes that came before the start come before those that were kept. */
static void test_start(void)
{
    uint8_t data[18], *packets = data;
    begin(&plain_config, &plain_port);
    ends[0].peer = dial();
    ends[0].handle = take_in(0);
    relay_set_owner(relay, ends[0].handle, &ends[0]);
    relay_pause(relay, ends[0].handle);
    make(packets, 0, 1, 1);
    make(packets + 9, 0, 1, 2);
    say(0, data + 4, 14);
    shutdown(ends[0].peer, SHUT_WR);
    UNTIL(counts(0).input_bytes == 14);
    relay_start(relay, ends[0].handle, data, 4, RELAY_PLAIN, now);
    turn();
    CHECK(last_count == 0);
    relay_resume(relay, ends[0].handle, now);
    for (int i = 0; i < 2; i++) {
        turn();
        CHECK(told(0, RELAY_PACKETS) && kept_size == 9 && memcmp(kept, data + 9 * i, 9) == 0);
    }
    end();
}

/* Who resets before it is accepted still has a name; a descriptor above the reserve is closed. */
static void test_accept(void)
{
    begin(&plain_config, &plain_port);
    struct sockaddr_in name, peer;
    socklen_t size = sizeof name;
    ends[0].peer = dial();
    getsockname(ends[0].peer, (struct sockaddr *)&name, &size);
    break_off(0);
    usleep(1000);
    ends[0].handle = take_in(0);
    CHECK(ends[0].handle != 0);
    memcpy(&peer, &accepted, sizeof peer);
    CHECK(peer.sin_port == name.sin_port && peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));

    int free_fd = dup(0);
    close(free_fd);
    ends[2].peer = dial(); /* takes that number; the next one is above */
    CHECK(relay_take(listening, free_fd, &accepted) < 0 && errno == EUSERS);
    CHECK(read(ends[2].peer, got, 1) == 0); /* closed, and nothing leaks: */
    int next = dup(0);
    CHECK(next == free_fd + 1);
    close(next);
    close(ends[2].peer);
    ends[2].peer = dial();
    calls.fail_control = ENOSPC;
    CHECK(take_in(0) == 0 && errno == ENOSPC);
    CHECK(read(ends[2].peer, got, 1) == 0);
    CHECK(take_in(7) == 0);
    end();
}

/* When epoll takes no change, the link goes with that error and is not deaf for ever. */
static void test_no_interest(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    calls.fail_control = ENOSPC;
    relay_pause(relay, ends[0].handle);
    turn();
    CHECK(told(0, RELAY_GONE) && last[0].detail == ENOSPC);
    end();
}

/* What a configuration must not say. */
static void test_nonsense(void)
{
    struct relay_config config = plain_config;
    config.commands_each = 0;
    CHECK(relay_new(&config) == NULL && errno == EINVAL);
    config = plain_config;
    config.pool.factor = 1;
    CHECK(relay_new(&config) == NULL && errno == EINVAL);
    begin(&plain_config, &plain_port);
    struct relay_port port = plain_port;
    port.max_packet = RELAY_MAX_PACKET + 1ull;
    CHECK(relay_port(relay, &port) == -1 && errno == EINVAL);
    port.max_packet = 1ull << 32;
    CHECK(relay_port(relay, &port) == -1 && errno == EINVAL);
    port.max_packet = RELAY_MAX_PACKET;
    port.read_size = RELAY_MAX_READ + 1;
    CHECK(relay_port(relay, &port) == -1 && errno == EINVAL);
    port.read_size = RELAY_MAX_READ;
    CHECK(relay_port(relay, &port) == 2);
    port.idle_timeout = -1;
    CHECK(relay_port(relay, &port) == -1 && errno == EINVAL);
    end();
}

/* A length of all ones is no length, also where the largest packet is allowed. */
static void test_largest_length(void)
{
    struct relay_port port = plain_port;
    port.max_packet = RELAY_MAX_PACKET;
    begin(&plain_config, &port);
    add(0), add(1), add(2);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    uint8_t head[8] = {0xff, 0xff, 0xff, 0xff, 1};
    say(0, head, 8);
    turn();
    CHECK(told(0, RELAY_BROKEN) && last[0].detail == UINT32_MAX);
    CHECK(hear(1, got, sizeof got) == 0);
    memcpy(head, "\0\0\0\100", 4); /* 1 GiB */
    say(2, head, 8);
    turn();
    CHECK(last_count == 0 && pool_used(relay_pool(relay)) == 0);
    end();
}

int main(void)
{
    test_fin_while_held();
    test_half_close_while_held();
    test_reset_while_held();
    test_broken_while_held();
    test_too_much_kept();
    test_fin_behind_commands();
    test_paused_bytes();
    test_answers();
    test_start();
    test_accept();
    test_no_interest();
    test_nonsense();
    test_largest_length();
    puts("test_ends: ok");
    return 0;
}
