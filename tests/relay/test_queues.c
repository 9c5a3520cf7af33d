/* What waits for a link: one count, its bounds, fair shares and holds, and the memory limit. */
#include "bed.h"

static uint8_t got[1 << 20];

/* A server over its bounds holds who sends to it until it is below half; nobody else. */
static void test_holds(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    for (int i = 0; i < 4000 && !counts(0).held; i++) {
        say_packet(0, 1, 3000, 'x');
        turn();
        CHECK(last_count == 0);
    }
    CHECK(counts(0).held && !counts(2).held && totals().held == 1 && totals().holds == 1);
    CHECK(counts(1).waiting_packets <= 11 && counts(1).waiting_bytes <= 20000 + 3008);
    uint64_t before = counts(0).bytes_in;
    say_packet(0, 1, 100, 'x');
    turn();
    CHECK(counts(0).bytes_in == before);
    for (int i = 0; i < 4000 && counts(0).held; i++) {
        hear(1, got, sizeof got);
        turn();
    }
    CHECK(!counts(0).held && totals().held == 0);
    turn();
    CHECK(counts(0).bytes_in == before + 108);
    end();
}

/* Everything queued is counted, also while one read could hide it: a client that is never read
 * by its peer is lost at its bound of bytes. */
static void test_leftovers_count(void)
{
    struct relay_port port = plain_port;
    port.queue_packets = 1000000;
    port.read_size = 65536; /* what waits stays below it for long */
    begin(&plain_config, &port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    CHECK(counts(0).most_waiting == 0);
    block(1, 0, 1);
    uint64_t before = counts(0).waiting_bytes;
    CHECK(before > 0 && before < 20000);
    say_packet(1, 1, 2000, 'x');
    turn();
    CHECK(counts(0).waiting_bytes == before + 2008);
    CHECK(counts(0).most_waiting == before + 2008);
    bool over = false;
    for (int i = 0; i < 20 && !over; i++) {
        say_packet(1, 1, 2000, 'x');
        turn();
        over = told(0, RELAY_OVER);
    }
    CHECK(over && counts(0).waiting_bytes > 20000 && counts(0).waiting_bytes <= 20000 + 2008);
    CHECK(counts(0).most_waiting == counts(0).waiting_bytes);
    CHECK(totals().waiting_bytes == 0 && !relay_over(relay, ends[0].handle));
    say_packet(1, 1, 2000, 'x');
    turn();
    CHECK(!told(0, RELAY_OVER) && totals().waiting_bytes == 0);
    end();
}

/* Who sends what is answered and does not read stays within its bound, whichever answers: a
 * client is lost, a server waits for itself. */
static void test_strangers(void)
{
    static uint8_t pings[60 * 1009];
    struct relay_port port = plain_port;
    port.queue_packets = 1000000;
    size_t size = 0;
    for (int i = 0; i < 60; i++) {
        size_t start = size;
        size += make(pings + size, 0, 1000, 'p');
        pings[start + 8] = 5;
    }
    begin(&plain_config, &port);
    add(0), add(1), add(2), add(3);
    bool over = false;
    for (int i = 0; i < 40 && !over; i++) {
        say(0, pings, size / 60 * 2);
        turn();
        over = told(0, RELAY_OVER);
    }
    CHECK(over && pool_used(relay_pool(relay)) < 40000);

    for (int i = 0; i < 40; i++) {
        (void)!send(ends[1].peer, pings, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        turn();
    }
    CHECK(counts(1).held && counts(1).waiting_bytes <= 20000 + 65536);
    CHECK(counts(1).input_bytes < 2000);

    over = false;
    for (int i = 0; i < 400 && !over; i++) { /* strays that the caller answers */
        say_packet(2, 77, 20, 's');
        run();
        over = told(2, RELAY_OVER);
        if (told(2, RELAY_PACKETS))
            relay_send(relay, ends[2].handle, pings, 1008, 1);
        relay_go_on(relay, now);
    }
    CHECK(over && pool_used(relay_pool(relay)) < 200000);
    for (int i = 0; i < 400; i++) { /* a server is not asked while it does not read */
        say_packet(3, 77, 20, 's');
        run();
        if (told(3, RELAY_PACKETS))
            relay_send(relay, ends[3].handle, pings, 1008, 1);
        relay_go_on(relay, now);
    }
    CHECK(counts(3).held && counts(3).waiting_bytes < 20000 + 2 * 1008);
    for (int i = 0; i < 400 && (counts(3).held || counts(3).waiting_bytes); i++) {
        hear(3, got, sizeof got);
        turn();
    }
    CHECK(!counts(3).held);
    end();
}

/* A Ping comes back as it was, counts, and does not overtake what the caller has to answer. */
static void test_pings(void)
{
    static const uint8_t ping[] = "\5\0\0\0\0\0\0\0\5", longer[] = "\10\0\0\0\0\0\0\0\5abc";
    uint8_t data[64], *to = data;
    begin(&plain_config, &plain_port);
    add(0);
    say(0, ping, 9);
    say(0, longer, 12);
    turn();
    CHECK(last_count == 0 && hear(0, got, sizeof got) == 21);
    CHECK(memcmp(got, ping, 9) == 0 && memcmp(got + 9, longer, 12) == 0);
    CHECK(counts(0).packets_in == 2 && counts(0).packets_out == 2);
    CHECK(totals().pings == 2 && totals().packets == 0 && totals().bytes == 0);

    to += make(to, 0, 1, 0);
    memcpy(to, ping, 9);
    say(0, data, 18);
    run();
    CHECK(told(0, RELAY_PACKETS) && last[0].handle == ends[0].handle && kept_size == 9);
    CHECK(hear(0, got, sizeof got) == 0);
    relay_send(relay, ends[0].handle, longer, 12, 1);
    relay_go_on(relay, now);
    CHECK(hear(0, got, sizeof got) == 21 && memcmp(got + 12, ping, 9) == 0);

    now += 29; /* they restart the idle time, in pieces too */
    say(0, ping, 8);
    turn();
    say(0, ping + 8, 1);
    turn();
    CHECK(hear(0, got, sizeof got) == 9);
    sweep(29);
    CHECK(last_count == 0);
    sweep(1.1);
    CHECK(told(0, RELAY_IDLE));
    end();
}

/* Too many packets are judged two turns later: who took them meanwhile stays. */
static void test_judgement(void)
{
    static uint8_t burst[20 * 28];
    struct relay_port port = plain_port;
    port.queue_bytes = 1 << 20;
    size_t size = 0;
    for (int i = 0; i < 20; i++)
        size += make(burst + size, 1, 20, 'j');
    for (int reads = 0; reads < 2; reads++) {
        begin(&plain_config, &port);
        add(0), add(1);
        relay_pair(relay, 1, ends[0].handle, ends[1].handle);
        for (int i = 0; i < 4000 && !link_of(0)->blocked; i++) {
            say_packet(1, 1, 20000, 'b');
            turn();
        }
        for (int i = 0; i < 40 && counts(0).waiting_packets <= 10; i++) {
            say(1, burst, size);
            turn();
            CHECK(!told(0, RELAY_OVER));
        }
        CHECK(counts(0).waiting_packets > 10 && readable());
        bool over = false;
        for (int i = 0; i < 50 && counts(0).waiting_packets > 0 && !over; i++) {
            if (reads)
                hear(0, got, sizeof got);
            turn();
            over = told(0, RELAY_OVER);
            CHECK(!over || i == 1);
        }
        CHECK(over == !reads);
        CHECK(!over || (last[0].detail > 0 && counts(0).waiting_packets > 10));
        end();
    }
}

/* A link that is not blocked is written to before it piles up, in the middle of a turn. */
static void test_pieces(void)
{
    static uint8_t packet[MAX_PACKET];
    struct relay_port port = plain_port;
    port.queue_bytes = 4 << 20;
    port.queue_packets = 1000;
    begin(&plain_config, &port);
    add(0), add(1);
    int large = 1 << 20;
    setsockopt(relay_socket(relay, ends[0].handle), SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    size_t size = make(packet, 1, 99000, 'p');
    for (int i = 0; i < 4; i++)
        relay_send(relay, ends[0].handle, packet, size, 1);
    CHECK(calls.sends > 0 && counts(0).waiting_bytes < PIECE + size);
    end();
}

/* Positions: all that was queued, what was taken, and to be told of it. */
static void test_taken(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    block(0, 1, 1);
    uint64_t added = relay_added(relay, ends[1].handle);
    CHECK(added == relay_taken(relay, ends[1].handle) + counts(1).waiting_bytes);
    relay_tell_taken(relay, ends[1].handle, added);
    relay_tell_taken(relay, ends[1].handle, added - 1); /* of several the first */
    turn();
    CHECK(last_count == 0);
    for (int i = 0; i < 400 && !told(1, RELAY_TAKEN); i++) {
        hear(1, got, sizeof got);
        turn();
    }
    CHECK(told(1, RELAY_TAKEN) && last[0].detail >= added - 1);
    relay_tell_taken(relay, ends[1].handle, 1); /* long taken */
    turn();
    CHECK(told(1, RELAY_TAKEN));
    turn();
    CHECK(last_count == 0);
    end();
}

/* Beside one that floods a server, one that sends a little waits for less than a share. */
static void test_shares(void)
{
    static uint8_t flood[8192];
    struct relay_config config = plain_config;
    struct relay_port port = plain_port;
    config.shares = 40000;
    port.queue_bytes = 1 << 20;
    port.queue_packets = 100000;
    begin(&config, &port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    size_t size = make(flood, 1, 4000, 'f');
    for (int i = 0; i < 400; i++) {
        (void)!send(ends[0].peer, flood, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        turn();
        CHECK(last_count == 0);
    }
    CHECK(counts(0).held);
    /* One share of his own, and what a read brought over it. */
    CHECK(counts(1).waiting_bytes <= 40000 + 2048 + 4008);
    uint64_t flooded = counts(0).bytes_in;
    say_packet(2, 2, 100, 'q');
    turn();
    CHECK(!counts(2).held && counts(2).bytes_in == 108);
    uint64_t place = relay_added(relay, ends[1].handle) - relay_taken(relay, ends[1].handle);
    CHECK(place <= 40000 + 2048 + 4008 + 108);
    for (int i = 0; i < 2000 && counts(0).bytes_in < flooded + 200000; i++) {
        hear(1, got, sizeof got);
        (void)!send(ends[0].peer, flood, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (i % 10 == 0)
            say_packet(2, 2, 10, 'q');
        turn();
        CHECK(!counts(2).held);
        CHECK(counts(1).waiting_bytes <= 40000 + 8000);
    }
    CHECK(counts(0).bytes_in >= flooded + 200000); /* and it goes on */
    end();
}

/* Without memory for what bounds a sender, the sender goes. */
static void test_no_share(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    block(0, 1, 1);
    calls.fail_calloc = 1;
    say_packet(2, 2, 100, 'x');
    turn();
    CHECK(told(2, RELAY_NO_MEMORY) && last_count == 1);
    end();
}

/* Without memory for what a blocked link needs, that one goes. */
static void test_no_jam(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    say_packet(0, 1, 100, 'x');
    calls.fail_send = EAGAIN;
    calls.fail_calloc = 1;
    UNTIL(last_count > 0);
    CHECK(told(1, RELAY_NO_MEMORY) && last_count == 1 && !link_of(1)->blocked);
    say_packet(0, 1, 100, 'x');
    UNTIL(counts(0).bytes_in == 2 * 108);
    CHECK(last_count == 0 && totals().waiting_bytes == 0 && totals().input_bytes == 0);
    end();
}

/* What a link needs only while it is blocked is given back when nothing waits for it. */
static void test_jam_goes(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    CHECK(link_of(0)->jam == NULL && link_of(1)->jam == NULL);
    block(0, 1, 1);
    CHECK(link_of(0)->jam == NULL && link_of(1)->jam != NULL);
    for (int i = 0; i < 4000 && counts(1).waiting_bytes > 0; i++) {
        hear(1, got, sizeof got);
        turn();
    }
    CHECK(link_of(1)->jam == NULL && link_of(0)->shares == NULL);
    end();
}

/* What waited for a link that was over its bounds is told, also when epoll says in the same breath
 * that it can be written to. */
static void test_over_and_writable(void)
{
    struct relay_port port = plain_port;
    port.read_size = 65536;
    begin(&plain_config, &port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    block(1, 0, 1);
    say_packet(1, 1, 21000, 'x');
    hear(0, got, sizeof got);
    calls.fail_send = EAGAIN;
    UNTIL(last_count > 0);
    CHECK(told(0, RELAY_OVER) && last_count == 1);
    CHECK(counts(0).waiting_bytes > 20000 && totals().waiting_bytes == 0);
    end();
}

static struct relay_config limited(uint64_t limit)
{
    struct relay_config config = plain_config;
    config.pool.limit = limit;
    config.pool.max_chunk = 4096;
    return config;
}

/* At the limit the client that holds most goes, not the one that asks, nor a server. */
static void test_shed(void)
{
    struct relay_config config = limited(200000);
    struct relay_port port = plain_port;
    port.queue_bytes = 1 << 20;
    port.queue_packets = 100000;
    begin(&config, &port);
    add(0), add(2), add(4), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    bool shed = false;
    for (int i = 0; i < 30; i++) {
        say_packet(1, 2, 3000, 'y');
        turn();
    }
    CHECK(counts(2).waiting_bytes > 10000);
    for (int i = 0; i < 400 && !shed; i++) {
        say_packet(1, 1, 3000, 'x');
        turn();
        shed = told(0, RELAY_NO_MEMORY);
        CHECK(shed || last_count == 0);
    }
    CHECK(shed && last_count == 1 && totals().shed == 1 && counts(0).waiting_bytes == 0);
    CHECK(pool_used(relay_pool(relay)) < 200000 / 16 * 15);
    relay_close(relay, ends[0].handle, RELAY_ABORT);
    /* Nothing of the others is missing. */
    uint64_t queued = counts(2).bytes_out, heard = 0;
    say_packet(1, 2, 3000, 'y');
    for (int i = 0; i < 400 && heard < queued + 3008; i++) {
        turn();
        heard += hear(2, got, sizeof got);
    }
    CHECK(heard == queued + 3008);
    end();
}

/* Unfinished packets count: who sent them goes, not the server for which a packet comes. */
static void test_shed_input(void)
{
    struct relay_config config = limited(40000);
    struct relay_port port = plain_port;
    begin(&config, &port);
    add(0), add(2), add(1);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    static uint8_t packet[60000];
    make(packet, 1, 50000, 'u');
    say(0, packet, 36000); /* its chunks are nearly all there may be */
    turn();
    turn();
    turn();
    CHECK(counts(0).input_bytes == 36000 && totals().input_bytes == 36000);
    make(packet, 2, 20000, 'v');
    say(2, packet, 20008);
    for (int i = 0; i < 5 && !told(0, RELAY_NO_MEMORY); i++) {
        turn();
        CHECK(!told(2, RELAY_NO_MEMORY) && !told(1, RELAY_NO_MEMORY));
    }
    CHECK(told(0, RELAY_NO_MEMORY) && totals().shed == 1);
    size_t heard = 0;
    for (int i = 0; i < 400 && heard < 20008; i++) {
        turn();
        CHECK(last_count == 0);
        heard += hear(1, got + heard, sizeof got - heard);
    }
    CHECK(heard == 20008 && memcmp(got, packet, heard) == 0);
    end();
}

/* Where even that does not help the sender goes; what is queued already stays as it was. */
static void test_roll_back(void)
{
    static uint8_t packet[60000];
    struct relay_config config = limited(0);
    struct relay_port port = plain_port;
    port.read_size = 65536;
    port.queue_bytes = 1 << 20;
    begin(&config, &port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    block(0, 1, 1);
    uint64_t waiting = counts(1).waiting_bytes;
    relay_limit(relay, pool_used(relay_pool(relay)) + 8192);
    size_t size = make(packet, 1, 40000, 'z');
    say(0, packet, size);
    for (int i = 0; i < 5 && last_count == 0; i++)
        turn();
    CHECK(told(0, RELAY_NO_MEMORY) && last_count == 1);
    CHECK(counts(1).waiting_bytes <= waiting);
    relay_send(relay, ends[1].handle, packet, size, 1); /* the caller is not refused */
    CHECK(counts(1).waiting_bytes >= size);
    relay_limit(relay, 0);
    uint64_t total = relay_added(relay, ends[1].handle), heard = 0;
    for (int i = 0; i < 400 && heard < total; i++) {
        turn();
        heard += hear(1, got, sizeof got);
    }
    CHECK(heard == total && got[0] != 0);
    end();
}

int main(void)
{
    test_holds();
    test_leftovers_count();
    test_strangers();
    test_pings();
    test_judgement();
    test_pieces();
    test_taken();
    test_shares();
    test_no_share();
    test_no_jam();
    test_jam_goes();
    test_over_and_writable();
    test_shed();
    test_shed_input();
    test_roll_back();
    puts("test_queues: ok");
    return 0;
}
